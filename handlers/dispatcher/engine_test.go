package dispatcher_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
)

func fail(w http.ResponseWriter, _ *http.Request, _ int) {
	w.WriteHeader(http.StatusInternalServerError)
}

// once makes a target give up after its first attempt.
func once(t *domain.Target) { t.Retry.MaxAttempts = 1 }

// TestTheBreakerCountsOverAllProcesses: failures in a row lead to a pause, whichever processes saw them, and whether or not
// they are still there.
func TestTheBreakerCountsOverAllProcesses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, fail)
	w.target("failing", s.URL, once, func(t *domain.Target) { t.Breaker.Failures = 5 })
	failing := func(n int) {
		stop := w.dispatch()
		for range n {
			w.outcome(w.fire("failing"), domain.Failed)
		}
		stop()
	}
	failing(2)
	failing(2)
	if paused := events[domain.TargetPaused](w, "target.paused"); len(paused) > 0 {
		t.Fatalf("paused after four failures of five: %+v", paused)
	}
	failing(1)
	w.eventually(func() (bool, string) {
		paused := events[domain.TargetPaused](w, "target.paused")
		return len(paused) == 1 && paused[0].Failures == 5, fmt.Sprintf("paused = %+v, want one, after five failures that three processes saw", paused)
	})
}

// TestASuccessEndsARowOfFailures of another process.
func TestASuccessEndsARowOfFailures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, func(w http.ResponseWriter, _ *http.Request, n int) {
		if n == 3 {
			w.WriteHeader(http.StatusAccepted)
			return
		}
		w.WriteHeader(http.StatusInternalServerError)
	})
	w.target("flaky", s.URL, once, func(t *domain.Target) { t.Breaker.Failures = 4 })
	for _, want := range []domain.Outcome{domain.Failed, domain.Failed, domain.Succeeded, domain.Failed, domain.Failed, domain.Failed} {
		stop := w.dispatch()
		w.outcome(w.fire("flaky"), want)
		stop()
	}
	if paused := events[domain.TargetPaused](w, "target.paused"); len(paused) > 0 {
		t.Errorf("paused = %+v, although no four failures came in a row", paused)
	}
}

// TestAUsedUpQuotaPausesTheTarget: an answer that says so is believed before the first 429, and when the time is over the
// target is resumed.
func TestAUsedUpQuotaPausesTheTarget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, func(w http.ResponseWriter, _ *http.Request, n int) {
		said := map[int][2]string{1: {"7", "30"}, 2: {"0", "0.5"}, 3: {"0", "2"}}[n] // some left; none, but in a moment; none
		if said[0] != "" {
			w.Header().Set("X-RateLimit-Limit", "100")
			w.Header().Set("X-RateLimit-Remaining", said[0])
			w.Header().Set("X-RateLimit-Reset", said[1])
		}
		w.WriteHeader(http.StatusAccepted)
	})
	w.target("metered", s.URL)
	w.dispatch()
	for range 2 { // neither pauses it
		w.outcome(w.fire("metered"), domain.Succeeded)
	}
	first := w.fire("metered")
	w.outcome(first, domain.Succeeded)
	w.eventually(func() (bool, string) {
		paused := events[domain.TargetPaused](w, "target.paused")
		return len(paused) == 1 && paused[0].Cause == domain.PausedByLimit, fmt.Sprintf("paused = %+v, want one, by the quota", paused)
	})
	second := w.fire("metered")
	w.outcome(second, domain.Held)
	w.outcome(second, domain.Succeeded)
	w.eventually(func() (bool, string) {
		resumed := events[domain.TargetResumed](w, "target.resumed")
		return len(resumed) == 1, fmt.Sprintf("resumed = %+v, want one", resumed)
	})
	attempts := events[domain.DeliveryAttempted](w, "delivery.attempted")
	if got := attempts[2].RateLimit; got == nil || got.Limit != 100 || got.Remaining != 0 || got.Reset.IsZero() {
		t.Errorf("what the answer said of the quota is kept as %+v", got)
	}
	if wait := attempts[3].StartedAt.Sub(attempts[2].StartedAt); wait < time.Second {
		t.Errorf("the second request left after %s, before the quota was there again", wait)
	}
	w.verify()
}

// TestARuleForAStatus repeats what is permanent otherwise, and gives up what is not.
func TestARuleForAStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, func(w http.ResponseWriter, r *http.Request, n int) {
		switch {
		case r.URL.Path == "/teapot":
			w.WriteHeader(http.StatusBadGateway)
		case n == 1:
			w.WriteHeader(http.StatusNotFound)
		default:
			w.WriteHeader(http.StatusAccepted)
		}
	})
	rules := func(t *domain.Target) {
		t.Retry.On = map[string]domain.RetryRule{"404": {Waits: []domain.Duration{domain.Duration(time.Millisecond)}}, "502": {MaxAttempts: 1}}
	}
	w.target("eventual", s.URL, rules)
	w.dispatch()
	if d := w.outcome(w.fire("eventual"), domain.Succeeded); d.Attempts != 2 {
		t.Errorf("it took %d attempts, want the one that found nothing and another", d.Attempts)
	}
	w.target("hopeless", s.URL+"/teapot", rules)
	if d := w.outcome(w.fire("hopeless"), domain.Failed); d.Attempts != 1 {
		t.Errorf("it took %d attempts, want one", d.Attempts)
	}
}

// TestRetriesHaveABudget over all processes: what goes beyond waits its turn, and is not dropped.
func TestRetriesHaveABudget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, func(w http.ResponseWriter, _ *http.Request, n int) {
		if n <= 8 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})
	w.target("storm", s.URL, func(t *domain.Target) { t.Retry.Budget = domain.Rate{Count: 10, Per: time.Second} })
	var ids []uuid.UUID
	for range 8 {
		ids = append(ids, w.fire("storm"))
	}
	w.dispatch()
	w.dispatch()
	for _, id := range ids {
		w.outcome(id, domain.Succeeded)
	}
	var turns []time.Time
	for _, a := range events[domain.DeliveryAttempted](w, "delivery.attempted") {
		if a.NextAttemptAt != nil {
			turns = append(turns, *a.NextAttemptAt)
		}
	}
	slices.SortFunc(turns, time.Time.Compare)
	if len(turns) < 8 {
		t.Fatalf("%d retries, want at least 8", len(turns))
	}
	for i := 1; i < len(turns); i++ {
		if apart := turns[i].Sub(turns[i-1]); apart < 99*time.Millisecond {
			t.Errorf("retries %d and %d are %s apart, want a tenth of a second", i, i+1, apart)
		}
	}
	w.verify()
}

// nowQuiet are quiet hours that began before now and end after it.
func nowQuiet() *domain.QuietHours {
	now := time.Now().UTC()
	return &domain.QuietHours{From: now.Add(-2 * time.Hour).Format("15:04"), To: now.Add(2 * time.Hour).Format("15:04")}
}

func TestQuietHoursHoldATarget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, accept)
	w.target("asleep", s.URL+"/asleep")
	early := w.fire("asleep") // planned before there were quiet hours
	w.outcome(early, domain.Pending)
	w.target("asleep", s.URL+"/asleep", func(t *domain.Target) { t.QuietHours = nowQuiet() })
	late := w.fire("asleep")
	d := w.outcome(late, domain.Pending)
	if d.NextAttemptAt == nil || time.Until(*d.NextAttemptAt) < time.Hour {
		t.Errorf("what is fired in quiet hours is due at %v, want their end", d.NextAttemptAt)
	}
	w.caughtUp()
	w.target("awake", s.URL+"/awake")
	w.dispatch()
	w.outcome(w.fire("awake"), domain.Succeeded)
	w.outcome(w.fire("awake"), domain.Succeeded)
	if d := w.outcome(early, domain.Pending); d.Attempts != 0 {
		t.Errorf("%d attempts were made in quiet hours", d.Attempts)
	}
	w.target("asleep", s.URL+"/asleep")
	w.outcome(early, domain.Succeeded)
	w.verify()
}

// TestQuietHoursOfThePerson: in their own zone it may be night when it is day for the target. An attempt that is due then is
// put off, which is an event and counts for nothing.
func TestQuietHoursOfThePerson(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, accept)
	quiet := nowQuiet()
	quiet.ProfileZone = "timezone"
	zoned := func(zone string) func(*domain.ReactionFired) {
		return func(f *domain.ReactionFired) { f.Context = fmt.Appendf(nil, `{"timezone":%q}`, zone) }
	}
	w.target("zoned", s.URL, func(t *domain.Target) { t.QuietHours = quiet })
	day := w.fire("zoned", zoned("Pacific/Kiritimati")) // fourteen hours ahead
	night := w.fire("zoned", zoned("Europe/London"))
	w.outcome(night, domain.Pending)
	w.target("changed", s.URL)
	caught := w.fire("changed") // planned before there were quiet hours
	w.outcome(caught, domain.Pending)
	w.target("changed", s.URL, func(t *domain.Target) { t.QuietHours = quiet })
	w.caughtUp()
	w.dispatch()
	w.outcome(day, domain.Succeeded)
	d := w.until(caught, "put off", func(d deliveries.Delivery) bool { return d.Reason == domain.DeferredByQuietHours })
	if d.Outcome.Final() || d.Attempts != 0 || d.NextAttemptAt == nil || time.Until(*d.NextAttemptAt) < time.Hour {
		t.Errorf("put off it is %s after %d attempts, due at %v", d.Outcome, d.Attempts, d.NextAttemptAt)
	}
	if d := w.outcome(night, domain.Pending); d.Attempts != 0 {
		t.Errorf("%d attempts were made in the person's night", d.Attempts)
	}
	deferred := events[domain.DeliveryDeferred](w, "delivery.deferred")
	if len(deferred) != 1 || deferred[0].Attempt != 2 || deferred[0].Base != 1 {
		t.Errorf("deferred = %+v, want one, whose number counts for nothing", deferred)
	}
	w.verify()
}

// TestWhatIsHeldTooLongIsDiscarded by the target's policy, and by nothing else.
func TestWhatIsHeldTooLongIsDiscarded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, accept)
	w.target("brief", s.URL, func(t *domain.Target) { t.Breaker.DiscardAfter = domain.Duration(time.Second) })
	w.target("patient", s.URL)
	for _, handle := range []string{"brief", "patient"} {
		w.record(domain.TargetPaused{Handle: handle, Cause: domain.PausedByOperator, Reason: "the offer is being corrected"})
	}
	w.caughtUp()
	discarded, kept := w.fire("brief"), w.fire("patient")
	w.dispatch()
	d := w.outcome(discarded, domain.Cancelled)
	if !strings.Contains(d.Detail, "held for more than 1s") || !strings.Contains(d.Detail, "the offer is being corrected") {
		t.Errorf("it is cancelled because %q, want the policy and the pause's reason", d.Detail)
	}
	w.outcome(kept, domain.Held)
	if got := s.seen(); got != 0 {
		t.Errorf("the sink saw %d requests of paused targets", got)
	}
	w.verify()
}
