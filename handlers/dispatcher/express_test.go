package dispatcher_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/planner"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// queueIs stops the queue's projection, or lets it go on.
func (w *world) queueIs(state string) {
	w.Helper()
	if _, err := w.db.ExecContext(w.Context(), `UPDATE subscriptions SET state = $1 WHERE name = $2`, state, queue.Definition.SubscriptionName()); err != nil {
		w.Fatal(err)
	}
}

// leases counts the claims of a delivery.
func (w *world) leases(delivery uuid.UUID) (n int) {
	w.Helper()
	if err := w.db.QueryRowContext(w.Context(), `SELECT count(*) FROM leases WHERE delivery_id = $1`, delivery).Scan(&n); err != nil {
		w.Fatal(err)
	}
	return n
}

// sees waits until a sink has seen so many requests.
func (w *world) sees(s *sink, n int) {
	w.Helper()
	w.eventually(func() (bool, string) { return s.seen() >= n, "the sink saw too few requests" })
}

// What nothing holds up is sent before the queue knows of it, once, and its claim outlives the sweeping of claims meanwhile.
func TestWhatNothingHoldsUpLeavesAsItIsPlanned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, accept)
	w.target("welcome", s.URL)
	w.caughtUp()
	stop := w.dispatch()
	w.outcome(w.fire("welcome"), domain.Succeeded) // by now the queue was looked at
	w.caughtUp()

	w.queueIs("paused")
	d := w.fire("welcome")
	w.sees(s, 2)
	w.eventually(func() (bool, string) {
		return len(events[domain.DeliveryAttempted](w, "delivery.attempted")) == 2, "the attempt was not recorded"
	})
	if err := queue.Sweep(t.Context(), w.db); err != nil {
		t.Fatal(err)
	}
	if w.leases(d) != 1 {
		t.Fatal("the claim was swept away before the queue had come to the delivery: whoever claims next sends it again")
	}
	w.queueIs("running")
	w.outcome(d, domain.Succeeded)
	w.caughtUp()
	if err := queue.Sweep(t.Context(), w.db); err != nil {
		t.Fatal(err)
	}
	if w.leases(d) != 0 {
		t.Error("a claim is left of a delivery that is done with")
	}
	stop()
	if s.seen() != 2 {
		t.Errorf("%d requests for two deliveries", s.seen())
	}
	w.verify()
}

// A claim whose transaction came to nothing sends nothing, and keeps nobody from stopping.
func TestAClaimThatWasNotCommittedSendsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, accept)
	w.target("welcome", s.URL)
	w.caughtUp()
	stop := w.dispatch()
	sent := w.outcome(w.fire("welcome"), domain.Succeeded)
	w.caughtUp()
	d := w.way.to.Swap(nil) // what the planner does is none of its business from here on

	like, err := schema.EventAt(t.Context(), w.db, sent.Position)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := w.vault.OpenEvents(t.Context(), []domain.Recorded{like})
	if err != nil {
		t.Fatal(err)
	}
	plan := opened[0].Payload.(domain.DeliveryPlanned)
	plan.DeliveryID = uuid.New()
	e, secret, err := domain.New(uuid.New(), plan)
	if err != nil {
		t.Fatal(err)
	}
	with, err := targets.Get(t.Context(), w.db, "welcome")
	if err != nil {
		t.Fatal(err)
	}
	tx, err := w.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	err = d.Claim(t.Context(), tx, []planner.Planned{{Recorded: domain.Recorded{Event: e, Position: like.Position}, DeliveryPlanned: plan, Secret: secret, With: with}})
	if err != nil {
		t.Fatal(err)
	}
	var claimed int
	if err := tx.QueryRowContext(t.Context(), `SELECT count(*) FROM leases WHERE delivery_id = $1`, plan.DeliveryID).Scan(&claimed); err != nil || claimed != 1 {
		t.Fatalf("%d claims (%v), want one", claimed, err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	d.Ended()
	stop() // waits for what is in hand
	if s.seen() != 1 {
		t.Errorf("%d requests left; the second is of a claim that was never committed", s.seen())
	}
}

// A pause holds what is fired after it, even where the queue does not know of it yet.
func TestAPauseThatTheQueueHasNotSeenHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, accept)
	w.target("held", s.URL)
	w.target("free", s.URL)
	w.caughtUp()
	w.dispatch()
	w.outcome(w.fire("held"), domain.Succeeded)
	w.caughtUp()

	w.queueIs("paused")
	w.record(domain.TargetPaused{Handle: "held", Cause: domain.PausedByOperator, Reason: "by hand"})
	d := w.fire("held")
	w.eventually(func() (bool, string) {
		return len(events[domain.DeliveryPlanned](w, "delivery.planned")) == 2, "the firing was not planned"
	})
	if w.leases(d) != 0 {
		t.Error("a delivery of a paused target was claimed")
	}
	w.queueIs("running")
	w.outcome(w.fire("free"), domain.Succeeded)
	w.caughtUp()
	if s.seen() != 2 {
		t.Errorf("%d requests left; that of the paused target should not have", s.seen())
	}
}

// What waits its turn goes by the queue: for a time, for a rate, for its person's order, for what was there before.
func TestWhatWaitsItsTurnGoesByTheQueue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, accept)
	slow := newSink(t, func(_ http.ResponseWriter, r *http.Request, _ int) { <-r.Context().Done() })
	w.target("plain", s.URL)
	w.target("rated", s.URL, func(t *domain.Target) { t.Limits.Rate = domain.Rate{Count: 1000, Per: time.Second} })
	w.target("ordered", s.URL, func(t *domain.Target) { t.Order = domain.OrderByProfile })
	w.target("full", slow.URL, func(t *domain.Target) { t.Limits.Concurrency = 1; t.Retry.Timeout = domain.Duration(20 * time.Second) })
	w.caughtUp()
	w.dispatch()
	w.outcome(w.fire("plain"), domain.Succeeded)
	w.fire("full")
	w.sees(slow, 1)
	w.caughtUp()

	w.queueIs("paused")
	waits := map[string]uuid.UUID{
		"a rate": w.fire("rated"), "an order": w.fire("ordered"), "a full target": w.fire("full"),
		"a time": w.fire("plain", func(f *domain.ReactionFired) { f.NotBefore = time.Now().Add(time.Hour) }),
	}
	w.fire("plain")
	w.sees(s, 2)
	for what, d := range waits {
		if w.leases(d) != 0 {
			t.Errorf("what waits for %s was claimed as it was planned", what)
		}
	}
	w.queueIs("running")
	w.outcome(waits["a rate"], domain.Succeeded)
	w.outcome(waits["an order"], domain.Succeeded)
}
