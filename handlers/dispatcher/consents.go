package dispatcher

import (
	"context"
	"sync"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
)

// consents looks at people's consent at the last moment before a request leaves: after the wait for a slot, which may be
// long. Requests that are about to leave at the same time are looked up together, and those that come up during a look are
// together in the next: one look at a time, since several took more of the processor for fewer people each.
type consents struct {
	look func(context.Context, []uuid.UUID) (consent.Known, error)

	mu      sync.Mutex
	waiting []waiter // guarded by mu
	looking bool     // guarded by mu
}

type waiter struct {
	profile uuid.UUID
	known   chan<- looked
}

type looked struct {
	consent.Known
	err error
}

// of gives what the ledger holds of a person's consent now: the look begins after the call does.
func (c *consents) of(ctx context.Context, profile uuid.UUID) (consent.Known, error) {
	known := make(chan looked, 1)
	c.mu.Lock()
	c.waiting = append(c.waiting, waiter{profile, known})
	if !c.looking {
		c.looking = true
		go c.run(context.WithoutCancel(ctx))
	}
	c.mu.Unlock()
	select {
	case l := <-known:
		return l.Known, l.err
	case <-ctx.Done():
		return consent.Known{}, ctx.Err()
	}
}

// run looks for whoever waits until nobody does.
func (c *consents) run(ctx context.Context) {
	for {
		c.mu.Lock()
		taken := c.waiting
		c.waiting = nil
		if len(taken) == 0 {
			c.looking = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		profiles := make([]uuid.UUID, len(taken))
		for i, w := range taken {
			profiles[i] = w.profile
		}
		known, err := c.look(ctx, profiles)
		for _, w := range taken {
			w.known <- looked{known, err}
		}
	}
}
