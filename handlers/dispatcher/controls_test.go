package dispatcher_test

import (
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/dispatcher"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func (w *world) controls() dispatcher.Controls {
	return dispatcher.Controls{DB: w.db, Ledger: w.ledger, Vault: w.vault, Now: time.Now}
}

// broken answers 400 until it is mended, then 202.
func broken(mended *atomic.Bool) func(http.ResponseWriter, *http.Request, int) {
	return func(w http.ResponseWriter, _ *http.Request, _ int) {
		if mended.Load() {
			w.WriteHeader(http.StatusAccepted)
			return
		}
		w.WriteHeader(http.StatusBadRequest)
	}
}

func TestRetrySaysWhatHasChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var mended atomic.Bool
	s := newSink(t, broken(&mended))
	rule := func(t *domain.Target) { t.Consent = &domain.ConsentRule{Channel: domain.Email, Purpose: "service"} }
	w.target("mended", s.URL, rule)
	w.dispatch()
	person := uuid.New()
	id := w.fire("mended", func(f *domain.ReactionFired) { f.ProfileID = person })
	w.outcome(id, domain.Failed)
	w.target("mended", s.URL, rule, func(t *domain.Target) { t.Notes = "its receiver was mended" })
	w.record(domain.ConsentChanged{ProfileID: person, Changes: []domain.ConsentChange{{Channel: domain.Email, Purpose: "service", Status: domain.OptedIn}}, DecidedAt: time.Now(), DecidedBy: "customer", Method: "portal"})
	w.caughtUp()
	mended.Store(true)
	got, err := w.controls().Retry(t.Context(), id, dispatcher.Again{Actor: "ops", Reason: "mended"})
	if err != nil {
		t.Fatal(err)
	}
	if got.Attempt != 2 || got.Was != domain.Failed || got.PlannedVersion != 1 || got.CurrentVersion != 2 ||
		got.ConsentThen.Reason != "not_refused" || got.ConsentNow.Reason != "opted_in" {
		t.Errorf("requeued = %+v, want attempt 2 of what failed, versions 1 and 2, and consent given since", got)
	}
	if d := w.outcome(id, domain.Succeeded); d.Attempts != 2 {
		t.Errorf("succeeded after %d attempts, want 2", d.Attempts)
	}
	if _, err := w.controls().Retry(t.Context(), id, dispatcher.Again{Actor: "ops"}); !errors.Is(err, dispatcher.ErrState) {
		t.Errorf("retrying what succeeded: %v, want ErrState", err)
	}
	if _, err := w.controls().Retry(t.Context(), uuid.New(), dispatcher.Again{Actor: "ops"}); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("retrying what never was: %v, want ErrNotFound", err)
	}
	w.verify()
}

func TestCancelStopsWhatIsStillToBeSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, accept)
	w.target("stopped", s.URL)
	id := w.fire("stopped", func(f *domain.ReactionFired) { f.NotBefore = time.Now().Add(time.Hour) })
	w.outcome(id, domain.Pending)
	w.caughtUp()
	if err := w.controls().Cancel(t.Context(), id, "ops", "the offer was withdrawn"); err != nil {
		t.Fatal(err)
	}
	if d := w.outcome(id, domain.Cancelled); d.Detail != "the offer was withdrawn" {
		t.Errorf("detail = %q", d.Detail)
	}
	if err := w.controls().Cancel(t.Context(), id, "ops", ""); !errors.Is(err, dispatcher.ErrState) {
		t.Errorf("cancelling twice: %v, want ErrState", err)
	}
	// What was cancelled may be taken up again.
	w.dispatch()
	if _, err := w.controls().Retry(t.Context(), id, dispatcher.Again{Actor: "ops"}); err != nil {
		t.Fatal(err)
	}
	w.outcome(id, domain.Succeeded)
	w.verify()
}

func TestReplayPassesOverWhatSucceededAndCanBeResumed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var mended atomic.Bool
	s := newSink(t, broken(&mended))
	w.target("many", s.URL)
	w.dispatch()
	var failed []uuid.UUID
	for range 5 {
		failed = append(failed, w.fire("many"))
	}
	for _, id := range failed {
		w.outcome(id, domain.Failed)
	}
	mended.Store(true)
	succeeded := w.fire("many")
	w.outcome(succeeded, domain.Succeeded)
	w.caughtUp()
	replay := dispatcher.Replay{ID: uuid.New(), Filter: deliveries.Filter{Target: "many", Limit: 4}, DryRun: true, Actor: "ops"}
	dry, err := w.controls().Replay(t.Context(), replay)
	if err != nil {
		t.Fatal(err)
	}
	if dry.Total[domain.Failed] != 5 || dry.Total[domain.Succeeded] != 1 {
		t.Errorf("counted %v, want five failed and one that succeeded, whatever the limit", dry.Total)
	}
	if dry.Requeued != 3 || dry.Skipped != 1 || dry.Next == 0 || len(events[domain.DeliveryRequeued](w, "delivery.requeued")) != 0 {
		t.Errorf("dry run = %+v, want three counted, the success passed over, more to come and nothing recorded", dry)
	}
	replay.DryRun = false
	first, err := w.controls().Replay(t.Context(), replay)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range failed[2:] {
		w.outcome(id, domain.Succeeded)
	}
	w.caughtUp()
	again, err := w.controls().Replay(t.Context(), replay) // as after an interruption: from the start
	if err != nil {
		t.Fatal(err)
	}
	replay.Filter.Before = first.Next
	rest, err := w.controls().Replay(t.Context(), replay)
	if err != nil {
		t.Fatal(err)
	}
	if first.Requeued != 3 || again.Requeued != 0 || rest.Requeued != 2 {
		t.Errorf("requeued %d, %d when repeated and %d of the rest; want 3, 0 and 2", first.Requeued, again.Requeued, rest.Requeued)
	}
	for _, id := range failed {
		w.outcome(id, domain.Succeeded)
	}
	if d := w.outcome(succeeded, domain.Succeeded); d.Attempts != 1 {
		t.Errorf("what had succeeded was sent %d times", d.Attempts)
	}
	w.verify()
}

// TestAReplayKeepsItsPace from call to call: each goes on where the one before it ended.
func TestAReplayKeepsItsPace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var mended atomic.Bool
	s := newSink(t, broken(&mended))
	w.target("paced", s.URL)
	stop := w.dispatch()
	for range 4 {
		w.outcome(w.fire("paced"), domain.Failed)
	}
	stop()
	w.caughtUp()
	replay := dispatcher.Replay{ID: uuid.New(), Filter: deliveries.Filter{Target: "paced", Limit: 2}, Rate: 0.5, Actor: "ops"}
	for {
		got, err := w.controls().Replay(t.Context(), replay)
		if err != nil {
			t.Fatal(err)
		}
		if got.Next == 0 {
			break
		}
		replay.Filter.Before, replay.Start = got.Next, got.Until
	}
	requeued := events[domain.DeliveryRequeued](w, "delivery.requeued")
	if len(requeued) != 4 {
		t.Fatalf("%d deliveries were put back, want 4", len(requeued))
	}
	for i := 1; i < len(requeued); i++ {
		if apart := requeued[i].DueAt.Sub(requeued[i-1].DueAt); apart < 2*time.Second-time.Millisecond || apart > 3*time.Second {
			t.Errorf("deliveries %d and %d are due %s apart, want two seconds", i, i+1, apart)
		}
	}
	w.verify()
}
