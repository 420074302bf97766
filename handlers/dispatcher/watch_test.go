package dispatcher_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/dispatcher"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/planner"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
)

// TestTheReceiverIsToldOfTheTrace: under the firing's id, each attempt as a span of its own, unless the target says otherwise.
func TestTheReceiverIsToldOfTheTrace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, func(w http.ResponseWriter, _ *http.Request, n int) {
		if n == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})
	w.target("traced", s.URL)
	w.dispatch()
	d := w.outcome(w.fire("traced"), domain.Succeeded)
	w.target("own", s.URL, func(t *domain.Target) { t.Headers = map[string]string{"traceparent": "00-its-own-00"} })
	w.outcome(w.fire("own"), domain.Succeeded)
	s.mu.Lock()
	defer s.mu.Unlock()
	var spans []string
	for _, r := range s.requests[:2] {
		parts := strings.Split(r.Header.Get("traceparent"), "-")
		if len(parts) != 4 || parts[0] != "00" || parts[1] != strings.ReplaceAll(d.Firing.FiringID.String(), "-", "") || parts[3] != "00" {
			t.Fatalf("traceparent = %q, want the firing %s, not sampled", r.Header.Get("traceparent"), d.Firing.FiringID)
		}
		spans = append(spans, parts[2])
	}
	if spans[0] == spans[1] {
		t.Error("two attempts are one span")
	}
	if got := s.requests[2].Header.Values("traceparent"); len(got) != 1 || got[0] != "00-its-own-00" {
		t.Errorf("traceparent = %q, want the target's own", got)
	}
}

// TestSilence: something waits and nothing goes out. What a person holds does not count.
func TestSilence(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, accept)
	silent := func(what string, want func(queue.State) bool) {
		t.Helper()
		w.eventually(func() (bool, string) {
			got, err := queue.StateOf(t.Context(), w.db, planner.Name)
			return err == nil && want(got), fmt.Sprintf("%s: %+v (%v)", what, got, err)
		})
	}
	silent("nothing was ever fired", func(s queue.State) bool { return s.Silent == 0 && s.Queued == 0 })
	w.target("quiet", s.URL)
	first := w.fire("quiet")
	silent("nobody sends", func(s queue.State) bool { return s.Silent > 20*time.Millisecond && s.Due == 1 })
	w.record(domain.TargetPaused{Handle: "quiet", Cause: domain.PausedByOperator, Reason: "by hand"})
	silent("a person holds it", func(s queue.State) bool {
		return s.Silent == 0 && s.Held == 1 && s.Paused[domain.PausedByOperator] == 1
	})
	w.record(domain.TargetResumed{Handle: "quiet"})
	silent("it is released", func(s queue.State) bool { return s.Silent > 0 })
	registry := prometheus.NewRegistry()
	w.dispatch(func(c *dispatcher.Config) { c.Registry = registry })
	w.outcome(first, domain.Succeeded)
	silent("it went out", func(s queue.State) bool { return s.Silent == 0 && s.Queued == 0 })
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v (%v)", problems, err)
	}
}

// TestAFiringThatNobodyPlansIsSilence too.
func TestAFiringThatNobodyPlansIsSilence(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := w.db.ExecContext(t.Context(), `UPDATE subscriptions SET state = 'paused' WHERE name = $1`, planner.Name); err != nil {
		t.Fatal(err)
	}
	w.recordAs(uuid.New(), domain.ReactionFired{Reaction: "r", Target: "any", Cause: "reaction", Context: []byte(`{}`)})
	w.eventually(func() (bool, string) {
		s, err := queue.StateOf(t.Context(), w.db, planner.Name)
		return err == nil && s.Silent > 0, fmt.Sprintf("%+v (%v)", s, err)
	})
}
