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
