package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Errors of the holds.
var (
	// ErrPaused is a target that is paused already.
	ErrPaused = fmt.Errorf("%w: the target is paused already", ErrState)
	// ErrNotPaused is a target that is not paused.
	ErrNotPaused = fmt.Errorf("%w: the target is not paused", ErrState)
)

// Pause holds everything that is queued for a target, and what comes: nothing is sent and nothing is dropped. A zero
// until holds it until somebody resumes it.
//
// Errors: schema.ErrNotFound; ErrPaused when a person paused it before; *domain.InvalidError when until has passed.
func (c Controls) Pause(ctx context.Context, handle, actor, reason string, until time.Time) error {
	if !until.IsZero() && !until.After(c.Now()) {
		return domain.Invalid("/until", "has passed already; leave it out to hold until somebody resumes the target")
	}
	pause, err := c.paused(ctx, handle)
	if err != nil {
		return err
	}
	if pause.Cause == domain.PausedByOperator && pause.Until.Equal(until) {
		return ErrPaused
	}
	if reason == "" {
		reason = "by hand"
	}
	return c.tell(ctx, actor, domain.TargetPaused{Handle: handle, Cause: domain.PausedByOperator, Until: until.UTC().Truncate(time.Microsecond), Reason: reason})
}

// Resume releases what is held for a target: all of it is sent, as fast as the target's limits allow.
//
// Errors: schema.ErrNotFound; ErrNotPaused.
func (c Controls) Resume(ctx context.Context, handle, actor, reason string) error {
	pause, err := c.paused(ctx, handle)
	if err != nil {
		return err
	}
	if pause.Cause == "" {
		return ErrNotPaused
	}
	if reason == "" {
		reason = "by hand"
	}
	return c.tell(ctx, actor, domain.TargetResumed{Handle: handle, Reason: reason})
}

// paused gives the pause of a target that there is; the zero Pause when it is not paused.
func (c Controls) paused(ctx context.Context, handle string) (queue.Pause, error) {
	t, err := targets.Get(ctx, c.DB, handle)
	if err != nil {
		return queue.Pause{}, err
	}
	if t.State == "deleted" {
		return queue.Pause{}, fmt.Errorf("target %q: %w", handle, schema.ErrNotFound)
	}
	pauses, err := queue.Pauses(ctx, c.DB)
	for _, p := range pauses {
		if p.Target == handle {
			return p, err
		}
	}
	return queue.Pause{}, err
}

func (c Controls) tell(ctx context.Context, actor string, payload domain.Payload) error {
	e, _, err := domain.New(uuid.New(), payload)
	if err != nil {
		return err
	}
	e.Actor, e.Source = actor, source
	_, err = c.Ledger.Append(ctx, e)
	return err
}

// Discard asks for everything that waits for a target to be cancelled.
type Discard struct {
	Target string
	Actor  string
	Reason string
	DryRun bool // counts and does nothing
}

// Discarded is what a Discard did.
type Discarded struct {
	Waiting   int // deliveries in the target's queue that nobody was sending
	Cancelled int
}

const discardAtOnce = 32 // cancellations that wait for their commit at the same time

// Discard cancels what waits for a target, paused or not. Requests that are in flight are left to end. It can be
// repeated: what is cancelled already is not in the queue any more.
//
// Errors: schema.ErrNotFound.
func (c Controls) Discard(ctx context.Context, d Discard) (out Discarded, err error) {
	if _, err := targets.Get(ctx, c.DB, d.Target); err != nil {
		return out, err
	}
	var after int64
	var cancelled atomic.Int64
	for {
		waiting, err := queue.WaitingFor(ctx, c.DB, d.Target, after, sweptAtOnce)
		if err != nil || len(waiting) == 0 {
			out.Cancelled = int(cancelled.Load())
			return out, err
		}
		out.Waiting += len(waiting)
		after = waiting[len(waiting)-1].Planned
		if d.DryRun {
			continue
		}
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(discardAtOnce)
		for _, w := range waiting {
			group.Go(func() error {
				done, err := c.discard(ctx, d, w)
				if done {
					cancelled.Add(1)
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			out.Cancelled = int(cancelled.Load())
			return out, err
		}
	}
}

// discard cancels one delivery in place of its next attempt. It reports false when something else became of that attempt at
// this moment.
func (c Controls) discard(ctx context.Context, d Discard, w queue.Waiting) (done bool, err error) {
	e, _, err := domain.New(attemptID(w.DeliveryID, w.Attempt), domain.DeliveryCancelled{DeliveryID: w.DeliveryID, Target: w.Target, ProfileID: w.ProfileID, Reason: d.Reason})
	if err != nil {
		return false, err
	}
	e.Actor, e.Source, e.CorrelationID, e.CausationID = d.Actor, source, w.CorrelationID, w.PlannedID
	at, err := c.Ledger.Append(ctx, e)
	if errors.Is(err, schema.ErrIDReused) {
		return false, nil
	}
	return err == nil && !at[0].Duplicate, err
}
