package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// benchHistory makes events in the proportions of a retail CRM: four in ten are consent, half of those with addresses and a
// quarter with several answers; the rest are firings and what became of them, one attempt in six a retry.
//
// The same seed gives the same history.
type benchHistory struct {
	random *rand.Rand
	people []uuid.UUID
	at     time.Time
	err    error
}

const (
	benchTargets = 40
	benchStep    = 700 * time.Millisecond // between events
)

func newBenchHistory(seed uint64, people int) *benchHistory {
	h := &benchHistory{random: rand.New(rand.NewPCG(seed, 1)), at: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} //nolint:gosec // not a secret
	for range people {
		h.people = append(h.people, h.id())
	}
	return h
}

func (h *benchHistory) id() (id uuid.UUID) {
	for i := range id {
		id[i] = byte(h.random.Uint32()) //nolint:gosec // the low byte is meant
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
}

// noise is what stands for an encrypted part: it does not compress.
func (h *benchHistory) noise(n int) []byte {
	b := make([]byte, 0, n+7)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, h.random.Uint64())
	}
	return b[:n]
}

// add appends a payload's event to a list.
func (h *benchHistory) add(events []domain.Event, p domain.Payload) []domain.Event {
	e, secret, err := domain.New(h.id(), p)
	if err != nil {
		h.err = err
		return events
	}
	if secret != nil {
		e.Sealed = h.noise(300)
	}
	e.Actor, e.Source, e.OccurredAt, e.CorrelationID = "bench", "/bench", h.at, e.ID
	h.at = h.at.Add(benchStep)
	return append(events, e)
}

// next makes the next few events.
func (h *benchHistory) next(events []domain.Event) []domain.Event {
	person := h.people[h.random.IntN(len(h.people))]
	if h.random.IntN(100) < 70 { // of the stories; a delivery's is longer
		return h.add(events, h.consent(person))
	}
	return h.delivery(events, person)
}

func (h *benchHistory) consent(person uuid.UUID) domain.ConsentChanged {
	c := domain.ConsentChanged{ProfileID: person, DecidedAt: h.at, DecidedBy: "customer", Method: "preference_centre", Evidence: map[string]string{"ip": "203.0.113.9"}}
	answers := 1
	if h.random.IntN(4) == 0 {
		answers = 2 + h.random.IntN(3)
	}
	first := h.random.IntN(len(domain.Purposes))
	channel := domain.Channels[h.random.IntN(2)]
	for i := range answers {
		c.Changes = append(c.Changes, domain.ConsentChange{
			Channel: channel, Purpose: domain.Purposes[(first+i)%len(domain.Purposes)],
			Status: []domain.ConsentStatus{domain.OptedIn, domain.OptedIn, domain.OptedOut}[h.random.IntN(3)],
		})
	}
	if h.random.IntN(2) == 0 {
		sum := sha256.Sum256(append(person[:], channel...))
		c.ContactHashes = []domain.ContactHash{{Channel: channel, Hash: hex.EncodeToString(sum[:])}}
		c.Contact = &domain.Contact{Email: "somebody@example.com"}
	}
	return c
}

func (h *benchHistory) delivery(events []domain.Event, person uuid.UUID) []domain.Event {
	reaction := h.random.IntN(200)
	target := fmt.Sprintf("target-%d", reaction%benchTargets)
	fired := domain.ReactionFired{Reaction: fmt.Sprintf("reaction-%d", reaction), Target: target, ProfileID: person, Trigger: "reward.created", Cause: "reaction", Context: benchContext(7)}
	events = h.add(events, fired)
	firing := domain.Firing{
		FiringID: events[len(events)-1].ID, FiringPosition: 1, Reaction: fired.Reaction, Trigger: fired.Trigger, Cause: fired.Cause,
		Target: target, TargetVersion: 1, Platform: "klaviyo", ProfileID: person,
	}
	id := domain.DeliveryID(firing.FiringID, target)
	decided := h.at
	decision := domain.Decision{Decision: domain.DecisionAllowed, Channel: domain.Email, Purpose: domain.Promo, Status: domain.OptedIn, Reason: "opted_in", DecidedAt: &decided}
	if h.random.IntN(10) == 0 {
		decision.Decision = domain.DecisionWithheld
		return h.add(events, domain.DeliveryWithheld{DeliveryID: id, Firing: firing, Reason: "consent", Detail: "customer opted out of email/promo", Consent: decision})
	}
	sum := sha256.Sum256(id[:])
	events = h.add(events, domain.DeliveryPlanned{
		DeliveryID: id, Firing: firing, Consent: decision, BodySHA256: hex.EncodeToString(sum[:]), BodyBytes: 420, MaxAttempts: 8, Priority: "promotional",
		URL: "https://a.klaviyo.com/api/events", Body: string(benchContext(7)),
	})
	for attempt := 1; ; attempt++ {
		due := h.at.Add(time.Minute)
		a := domain.DeliveryAttempted{
			DeliveryID: id, Target: target, ProfileID: person, Attempt: attempt, StartedAt: h.at, DurationMS: 83.2, Status: 202, Verdict: domain.Accepted,
			Outcome: domain.Succeeded, Address: "198.51.100.7:443", Worker: "bench/1", Timings: &domain.Timings{FirstByte: 81.5}, ResponseBody: "{}",
		}
		if attempt < 4 && h.random.IntN(6) == 0 {
			a.Status, a.Verdict, a.Outcome, a.NextAttemptAt = 503, domain.RetryLater, domain.Retrying, &due
		}
		events = h.add(events, a)
		if a.Outcome != domain.Retrying {
			return events
		}
	}
}

// fill puts n events of a history into the ledger.
func (st *store) fill(ctx context.Context, n int) error {
	h := newBenchHistory(1, max(1000, n/7))
	group, ctx := errgroup.WithContext(ctx)
	batches := make(chan []domain.Event, 4)
	group.Go(func() error {
		defer close(batches)
		var pending []domain.Event
		for made := 0; made < n; {
			for len(pending) < 2000 {
				pending = h.next(pending)
			}
			batch := pending[:min(2000, n-made)]
			made += len(batch)
			select {
			case batches <- batch:
			case <-ctx.Done():
				return ctx.Err()
			}
			pending = append([]domain.Event(nil), pending[len(batch):]...)
		}
		return h.err
	})
	group.Go(func() error {
		for batch := range batches {
			if _, err := st.ledger.Append(ctx, batch...); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}
