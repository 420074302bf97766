package dispatcher_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/dispatcher"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// failing makes deliveries of a target that have failed, and gives what mends the target.
func (w *world) failing(target string, n int) (failed []uuid.UUID, mend, stop func()) {
	w.Helper()
	var mended atomic.Bool
	s := newSink(w, broken(&mended))
	w.target(target, s.URL)
	w.caughtUp()
	stop = w.dispatch()
	for range n {
		failed = append(failed, w.fire(target))
	}
	for _, id := range failed {
		w.outcome(id, domain.Failed)
	}
	w.caughtUp()
	return failed, func() { mended.Store(true) }, stop
}

func asking(target string, rate float64) dispatcher.AskReplay {
	return dispatcher.AskReplay{ID: uuid.New(), Filter: domain.ReplayFilter{Target: target}, Rate: rate, Actor: "ops", Reason: "it was down"}
}

func TestAReplayPassesOverWhatSucceeded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	failed, mend, _ := w.failing("many", 5)
	mend()
	succeeded := w.fire("many")
	w.outcome(succeeded, domain.Succeeded)
	w.caughtUp()
	ask := asking("many", 0)
	if counted, err := w.controls().CountReplay(t.Context(), ask.Filter); err != nil || counted[domain.Failed] != 5 || counted[domain.Succeeded] != 1 {
		t.Errorf("counted %v (%v), want five failed and one that succeeded", counted, err)
	}
	r, err := w.controls().Replay(t.Context(), ask)
	if err != nil || r.State != domain.ReplayRunning || r.Selected != 5 {
		t.Fatalf("asked for %+v (%v), want a running one of five", r, err)
	}
	if again, err := w.controls().Replay(t.Context(), ask); err != nil || again.Position != r.Position {
		t.Errorf("asked again it is %+v (%v), want the same", again, err)
	}
	var workers sync.WaitGroup
	for range 2 { // one of them works, the other watches
		workers.Go(func() {
			if err := w.controls().WorkReplay(t.Context(), r.ID, nil); err != nil {
				t.Error(err)
			}
		})
	}
	workers.Wait()
	r, err = w.controls().ReplayByID(t.Context(), r.ID)
	if err != nil || r.State != domain.ReplayDone || r.Requeued != 5 || r.Skipped+r.Refused != 0 {
		t.Errorf("in the end it is %+v (%v), want five put back", r, err)
	}
	if n := len(events[domain.DeliveryRequeued](w, "delivery.requeued")); n != 5 {
		t.Errorf("%d deliveries were put back, want each once", n)
	}
	if ended := events[domain.ReplayEnded](w, "replay.ended"); len(ended) != 1 || ended[0].Requeued != 5 || ended[0].Outcome != domain.ReplayDone {
		t.Errorf("its end is recorded as %+v", ended)
	}
	for _, id := range failed {
		w.outcome(id, domain.Succeeded)
	}
	if d := w.outcome(succeeded, domain.Succeeded); d.Attempts != 1 {
		t.Errorf("what had succeeded was sent %d times", d.Attempts)
	}
	if err := w.controls().CancelReplay(t.Context(), r.ID, "ops"); !errors.Is(err, dispatcher.ErrState) {
		t.Errorf("one that has ended is cancelled: %v", err)
	}
	w.verify()
}

// A replay whose worker died within a page is gone on with, and counts what the page had done.
func TestAReplayGoesOnWhereItsWorkerDied(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	failed, _, _ := w.failing("many", 5)
	r, err := w.controls().Replay(t.Context(), asking("many", 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.db.ExecContext(t.Context(), `UPDATE replays SET page_from = (SELECT max(position) FROM events)`); err != nil { // as its worker notes it
		t.Fatal(err)
	}
	for _, id := range failed[1:3] {
		if _, err := w.controls().Retry(t.Context(), id, dispatcher.Again{Actor: "ops", Replay: r.ID}); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range failed[1:3] { // they fail again, so the filter selects them again
		w.until(id, "failed twice", func(d deliveries.Delivery) bool { return d.Outcome == domain.Failed && d.Attempts == 2 })
	}
	w.caughtUp()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.controls().WorkReplays(ctx, slog.New(slog.DiscardHandler)) }()
	w.eventually(func() (bool, string) {
		r, err = w.controls().ReplayByID(t.Context(), r.ID)
		return err == nil && r.State == domain.ReplayDone, "the replay does not end"
	})
	cancel()
	<-done
	if r.Requeued != 5 || r.Skipped+r.Refused != 0 {
		t.Errorf("it counts %d put back, %d skipped and %d refused; want 5, 0 and 0", r.Requeued, r.Skipped, r.Refused)
	}
	if n := len(events[domain.DeliveryRequeued](w, "delivery.requeued")); n != 5 {
		t.Errorf("%d deliveries were put back, want each once", n)
	}
	w.verify()
}

// A replay keeps its pace, is cancelled between two of its pages, and has not run far ahead by then.
func TestAReplayKeepsItsPaceAndIsCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, _, stop := w.failing("paced", 20)
	stop()
	r, err := w.controls().Replay(t.Context(), asking("paced", 1))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.controls().WorkReplay(t.Context(), r.ID, nil) }()
	w.eventually(func() (bool, string) {
		return len(events[domain.DeliveryRequeued](w, "delivery.requeued")) >= 5, "nothing is put back"
	})
	if err := w.controls().CancelReplay(t.Context(), r.ID, "boss"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	requeued := events[domain.DeliveryRequeued](w, "delivery.requeued")
	if len(requeued) > 12 {
		t.Errorf("%d were put back by the time that it was cancelled, at one a second", len(requeued))
	}
	due := map[time.Time]bool{}
	for _, q := range requeued {
		due[q.DueAt] = true
		if offset := q.DueAt.Sub(requeued[0].DueAt) % time.Second; offset != 0 {
			t.Errorf("one is due %s off the pace", offset)
		}
	}
	if len(due) != len(requeued) {
		t.Errorf("%d deliveries are due at %d moments, want one at each", len(requeued), len(due))
	}
	r, err = w.controls().ReplayByID(t.Context(), r.ID)
	if err != nil || r.State != domain.ReplayCancelled {
		t.Errorf("it is %s (%v), want cancelled", r.State, err)
	}
	if _, err := w.controls().ReplayByID(t.Context(), uuid.New()); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("one that nobody asked for: %v", err)
	}
}
