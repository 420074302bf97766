package dispatcher_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/dispatcher"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/outbound"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// decide records that a person opted in or out of marketing by email.
func (w *world) decide(person uuid.UUID, s domain.ConsentStatus) {
	e, _, err := domain.New(uuid.New(), domain.ConsentChanged{
		ProfileID: person, DecidedAt: time.Now(), DecidedBy: "customer", Method: "portal",
		Changes: []domain.ConsentChange{{Channel: domain.Email, Purpose: domain.Promo, Status: s}},
	})
	if err == nil {
		e.Actor, e.Source, e.OccurredAt = "test", "/test", time.Now()
		_, err = w.ledger.Append(w.Context(), e)
	}
	if err != nil {
		w.Error(err)
	}
}

// Consent is withdrawn while messages are on their way: before they are fired, while they are planned, during each attempt
// and in between, with two dispatchers at work. What was recorded counts for everything that the ledger did after it: no
// attempt begins that was made possible by an event later than the withdrawal.
func TestNothingGoesOutAfterAWithdrawal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const people = 40
	var mu sync.Mutex
	during := map[string]int{} // withdrawn during this attempt, by person
	tries := map[string]int{}
	s := newSink(t, func(rw http.ResponseWriter, r *http.Request, _ int) {
		person := r.Header.Get("X-Person")
		mu.Lock()
		tries[person]++
		now := during[person] == tries[person]
		mu.Unlock()
		if now {
			w.decide(uuid.MustParse(person), domain.OptedOut)
		}
		rw.WriteHeader(http.StatusServiceUnavailable)
	})
	w.target("promo", s.URL, func(t *domain.Target) {
		t.Headers = map[string]string{"X-Person": "{{ person }}"}
		t.Consent = &domain.ConsentRule{Channel: domain.Email, Purpose: domain.Promo, Mode: domain.Enforce}
		t.Breaker.Failures = 10_000 // it keeps failing, and is to be tried all the same
	})
	w.dispatch()
	w.dispatch()
	ids := make([]uuid.UUID, people)
	var all sync.WaitGroup
	for i := range ids {
		person := uuid.New()
		w.decide(person, domain.OptedIn)
		mu.Lock()
		if i%5 > 1 {
			during[person.String()] = i%5 - 1
		}
		mu.Unlock()
		if i%5 == 0 && i%2 == 0 {
			w.decide(person, domain.OptedOut)
		}
		ids[i] = w.fire("promo", func(f *domain.ReactionFired) {
			f.ProfileID, f.Context = person, json.RawMessage(`{"person":"`+person.String()+`"}`)
		})
		if i%5 == 1 || i%5 == 0 && i%2 == 1 {
			all.Go(func() { w.decide(person, domain.OptedOut) }) // races with planning and the first attempt
		}
	}
	all.Wait()
	for _, id := range ids {
		w.until(id, "withheld, or failed at its last attempt", func(d deliveries.Delivery) bool { return d.Outcome == domain.Withheld || d.Outcome == domain.Failed })
	}

	withdrawn := map[uuid.UUID]int64{} // by person: where it was recorded
	possible := map[uuid.UUID]int64{}  // by delivery: where its next attempt became possible
	attempts, withheld := 0, 0
	for e, err := range schema.Events(t.Context(), w.db, schema.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		at, gone := withdrawn[e.Subject]
		switch e.Type {
		case "consent.changed":
			if e.State == string(domain.OptedOut) {
				withdrawn[e.Subject] = e.Position
			}
		case "delivery.planned":
			possible[e.DeliveryID] = e.Position
		case "delivery.withheld":
			withheld++
			p, err := domain.DecodeAs[domain.DeliveryWithheld](e.Data, nil)
			if err != nil || p.Reason != "consent" || p.Consent.Position != at || p.Consent.DecidedBy != "customer" || p.Consent.Method != "portal" ||
				p.Consent.Actor != "test" || p.Consent.DecidedAt == nil || p.Consent.Policy == nil || !strings.Contains(p.Detail, "by portal") {
				t.Errorf("event %d: %+v, %v: want it to say which decision, when, by whom", e.Position, p, err)
			}
		case "delivery.attempted":
			attempts++
			p, err := domain.DecodeAs[domain.DeliveryAttempted](e.Data, nil)
			if err != nil {
				t.Fatal(err)
			}
			if gone && possible[e.DeliveryID] > at {
				t.Errorf("attempt %d of %s became possible at event %d and was made, after the withdrawal at %d", p.Attempt, p.DeliveryID, possible[e.DeliveryID], at)
			}
			if p.ConsentAsOf < possible[e.DeliveryID] {
				t.Errorf("attempt %d of %s asked the consent of event %d, older than event %d that made it possible", p.Attempt, p.DeliveryID, p.ConsentAsOf, possible[e.DeliveryID])
			}
			if gone && p.ConsentAsOf >= at {
				t.Errorf("attempt %d of %s saw the withdrawal at %d and was made", p.Attempt, p.DeliveryID, at)
			}
			possible[e.DeliveryID] = e.Position
		}
	}
	for person, k := range during {
		mu.Lock()
		if tries[person] != k {
			t.Errorf("%s: %d requests left, want %d: consent was withdrawn during that one", person, tries[person], k)
		}
		mu.Unlock()
	}
	if withheld != people || attempts == 0 {
		t.Errorf("%d withheld, %d attempts; want all %d people's messages stopped, some after an attempt", withheld, attempts, people)
	}
	w.verify()
}

// handing is a fleet that hands requests to the test in place of making them.
type handing chan outbound.Request

func (handing) Capacity() (requests, processes int) { return 8, 1 }

func (h handing) Send(_ context.Context, r outbound.Request) (outbound.Outcome, error) {
	h <- r
	return outbound.Outcome{Attempt: domain.DeliveryAttempted{StartedAt: time.Now(), Status: http.StatusOK}, Verdict: platforms.Verdict{Kind: domain.Accepted}}, nil
}

// Whoever makes a request without the ledger is told whose answers and which addresses it depends on, and as of when.
func TestARequestSaysWhatItDependsOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	winner, loser := uuid.New(), uuid.New()
	address := domain.ContactHash{Channel: domain.Email, Hash: strings.Repeat("ab", 32)}
	w.record(domain.ProfileObserved{
		ProfileID: winner, Topic: "profile.updated", ObservedAt: time.Now(), State: domain.ProfileActive,
		ContactHashes: []domain.ContactHash{address}, BodySHA256: strings.Repeat("0", 64),
	})
	w.record(domain.ProfileMerged{WinnerID: winner, LoserID: loser, MergedAt: time.Now()})
	w.decide(winner, domain.OptedIn)
	w.target("promo", "http://127.0.0.1:1", func(t *domain.Target) {
		t.Consent = &domain.ConsentRule{Channel: domain.Email, Purpose: domain.Promo, Mode: domain.Enforce}
	})
	w.caughtUp()
	before, err := w.ledger.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sent := make(handing, 1)
	w.dispatch(func(c *dispatcher.Config) { c.Sender = sent })
	w.fire("promo", func(f *domain.ReactionFired) { f.ProfileID = winner })
	r := <-sent
	if !slices.Equal(r.People, []uuid.UUID{loser}) || !slices.Equal(r.Addresses, []domain.ContactHash{address}) {
		t.Errorf("the request depends on people %v and addresses %v, want %v and %v", r.People, r.Addresses, loser, address)
	}
	if head, err := w.ledger.Head(t.Context()); err != nil || r.Known < before || r.Known > head {
		t.Errorf("it was decided on with what was known at event %d, want between %d and %d (%v)", r.Known, before, head, err)
	}
}
