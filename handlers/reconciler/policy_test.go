package reconciler_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/platformtest"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/reconciler"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
)

// with makes a world with one connection whose policy is not the default.
func with(t testing.TB, platform string, change func(*domain.PlatformPolicy)) *connected {
	t.Helper()
	return newWorld(t).connect(t, platform, change, simulator.Options{})
}

// What a platform lifts is only asked about where the policy says so.
func TestWhatIsLiftedThereMayBeOnlyAsked(t *testing.T) {
	t.Parallel()
	c := with(t, "klaviyo", func(p *domain.PlatformPolicy) { p.LiftedThere = domain.LiftAsk })
	p := c.person()
	c.decide(t, p, domain.OptedOut, c.clock.Now().Add(-time.Hour))
	c.reconcile(t, reconciler.Request{})
	c.clock.Advance(time.Hour)
	c.happen(t, p, simulator.Resubscribed, c.clock.Now())
	c.clock.Advance(time.Hour)
	r := c.reconcile(t, reconciler.Request{Mode: reconciler.Full})
	f, asked := c.open(t)[domain.LiftedThere+" "+c.hash(p)]
	if c.suppressed(p) || !asked || strings.Contains(f.Explain, "again") || r.Counts.Planned["push"] != 0 {
		t.Errorf("suppressed again: %v; asked: %v, with %q; planned %v", c.suppressed(p), asked, f.Explain, r.Counts.Planned)
	}
}

// Whom a full read shows to be unknown there is left alone where the policy says so, and nobody else.
func TestWhoIsUnknownThereMayBeLeftOut(t *testing.T) {
	t.Parallel()
	c := with(t, "klaviyo", func(p *domain.PlatformPolicy) { p.UnknownThere = domain.SkipUnknown })
	unknown, active := c.person(), c.person()
	for _, p := range []person{unknown, active} {
		c.decide(t, p, domain.OptedOut, c.clock.Now().Add(-time.Hour))
	}
	c.happen(t, active, simulator.Known, c.clock.Now().Add(-time.Hour))
	if r := c.reconcile(t, reconciler.Request{}); r.Counts.Differences[domain.MissingThere] != 1 || c.suppressed(unknown) || !c.suppressed(active) {
		t.Errorf("found %v; suppressed there are who is unknown: %v, and who is active: %v", r.Counts.Differences, c.suppressed(unknown), c.suppressed(active))
	}
}

// With realtime off an opt-out waits for a run.
func TestRealtimeMayBeOff(t *testing.T) {
	t.Parallel()
	c := with(t, "klaviyo", func(p *domain.PlatformPolicy) { p.Realtime = domain.Off })
	p := c.person()
	c.decide(t, p, domain.OptedOut, c.clock.Now())
	c.tell(t)
	if c.suppressed(p) {
		t.Error("it was written at once")
	}
	if c.reconcile(t, reconciler.Request{}); !c.suppressed(p) {
		t.Error("no run wrote it")
	}
}

// A yes lifts by itself with the switch, with evidence, and while it is fresh; else a person is asked.
func TestWhatAYesNeedsToLift(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		on       bool
		evidence map[string]string
		age      time.Duration
		lifts    bool
	}{
		"all of it":        {true, map[string]string{"form": "7"}, time.Minute, true},
		"without evidence": {true, nil, time.Minute, false},
		"not fresh":        {true, map[string]string{"form": "7"}, time.Hour, false},
		"without a switch": {false, map[string]string{"form": "7"}, time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := with(t, "klaviyo", func(p *domain.PlatformPolicy) { p.Resubscribe = tc.on })
			p := c.person()
			c.decide(t, p, domain.OptedIn, c.clock.Now().Add(-96*time.Hour))
			c.happen(t, p, simulator.Unsubscribed, c.clock.Now().Add(-24*time.Hour))
			c.reconcile(t, reconciler.Request{})
			c.clock.Advance(2 * time.Hour)
			d := c.decision(p, domain.OptedIn, c.clock.Now().Add(-tc.age))
			d.Evidence = tc.evidence
			c.record(t, d)
			c.tell(t)
			if c.suppressed(p) == tc.lifts {
				t.Errorf("lifted: %v", !c.suppressed(p))
			}
			c.clock.Advance(10 * time.Minute)
			c.reconcile(t, reconciler.Request{Mode: reconciler.Full})
			if c.suppressed(p) == tc.lifts || c.standing(t, p) != domain.OptedIn {
				t.Errorf("after a run: lifted %v, consent %q", !c.suppressed(p), c.standing(t, p))
			}
			if _, asked := c.open(t)[domain.ResubscribedHere+" "+c.hash(p)]; asked == tc.lifts {
				t.Errorf("asked: %v", asked)
			}
		})
	}
}

// purposes is a person's answer to each purpose.
func (c *connected) purposes(t testing.TB, p person) map[domain.Purpose]domain.ConsentStatus {
	t.Helper()
	c.catchUp(t)
	known, err := consent.Look(t.Context(), c.ledger.DB(), []uuid.UUID{p.id})
	if err != nil {
		t.Fatal(err)
	}
	out := map[domain.Purpose]domain.ConsentStatus{}
	for purpose, answer := range known.View(p.id, c.channel).Purposes {
		out[purpose] = answer.Status
	}
	return out
}

// An opt-out there means here what the policy says, and that of one list what is said of that list.
func TestWhatAnOptOutThereMeans(t *testing.T) {
	t.Parallel()
	c := with(t, "klaviyo", func(p *domain.PlatformPolicy) {
		p.OptOutMeans, p.Scopes = []domain.Purpose{domain.Promo}, map[string]string{"NEWS": string(domain.Discover), "TEST": domain.ScopeIgnore}
	})
	now := c.clock.Now()
	global, list, ignored := c.person(), c.person(), c.person()
	for _, p := range []person{global, list, ignored} {
		c.decide(t, p, domain.OptedIn, now.Add(-96*time.Hour))
	}
	c.happen(t, global, simulator.Unsubscribed, now.Add(-time.Hour))
	for p, on := range map[person]string{list: "NEWS", ignored: "TEST"} {
		if err := c.sim.Happen(simulator.Fact{Account: platformtest.Account, Channel: "email", Address: p.address, What: simulator.Unsubscribed, List: on, At: now.Add(-time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		c.reconcile(t, reconciler.Request{Mode: reconciler.Full})
		c.clock.Advance(time.Hour)
	}
	for name, tc := range map[string]struct {
		person

		out []domain.Purpose
	}{"of everything": {global, []domain.Purpose{domain.Promo}}, "of a list": {list, []domain.Purpose{domain.Discover}}, "of a list that means nothing": {ignored, nil}} {
		var out []domain.Purpose
		for purpose, status := range c.purposes(t, tc.person) {
			if status == domain.OptedOut {
				out = append(out, purpose)
			}
		}
		if !slices.Equal(out, tc.out) {
			t.Errorf("an opt-out %s is one of %v here, want %v", name, out, tc.out)
		}
	}
	if open := c.open(t); len(open) > 0 {
		t.Errorf("somebody was asked: %v", open)
	}
}

// A read of changes begins before the last run did, since platforms are late to show what happened.
func TestReadsOverlap(t *testing.T) {
	t.Parallel()
	c := alone(t, "klaviyo")
	p := c.person()
	c.decide(t, p, domain.OptedIn, c.clock.Now().Add(-time.Hour))
	c.reconcile(t, reconciler.Request{})
	c.happen(t, p, simulator.Unsubscribed, c.clock.Now().Add(-10*time.Minute)) // which shows only now
	c.clock.Advance(5 * time.Minute)
	if c.reconcile(t, reconciler.Request{Mode: reconciler.Incremental}); c.standing(t, p) != domain.OptedOut {
		t.Error("an opt-out that showed late was missed")
	}
}

// An opt-out that the platform refuses is put before a person, who may have it tried again.
func TestWhatIsRefusedIsAsked(t *testing.T) {
	t.Parallel()
	c := alone(t, "dotdigital")
	p := c.person()
	c.decide(t, p, domain.OptedOut, c.clock.Now().Add(-time.Hour))
	c.sim.Break(simulator.Fault{Method: http.MethodPatch, Status: http.StatusBadRequest, Body: `{"errorCode":"contacts:invalid","description":"no"}`})
	c.reconcile(t, reconciler.Request{})
	first := c.open(t)[domain.NotTaken+" "+c.hash(p)]
	c.clock.Advance(time.Hour)
	if r := c.reconcile(t, reconciler.Request{Mode: reconciler.Full}); len(r.Counts.Differences) > 0 {
		t.Errorf("of what somebody was asked about, another run found %v", r.Counts.Differences)
	}
	f, asked := c.open(t)[domain.NotTaken+" "+c.hash(p)]
	if !asked || f.ID != first.ID || c.suppressed(p) || f.Action != domain.ActTryAgain {
		t.Fatalf("asked: %v, with %+v; suppressed there: %v", asked, f, c.suppressed(p))
	}
	if err := c.service.Resolve(t.Context(), f.ID, reconciler.Resolution{Action: domain.ActTryAgain, Reason: "the account is mended", Actor: "carol"}); err != nil {
		t.Fatal(err)
	}
	if c.tell(t); !c.suppressed(p) {
		t.Error("it was not tried again")
	}
}

// An opt-out that the platform takes and never shows is written three times, and then put before a person.
func TestWhatNeverShowsIsAsked(t *testing.T) {
	t.Parallel()
	c := alone(t, "webhook")
	p := c.person()
	c.decide(t, p, domain.OptedOut, c.clock.Now().Add(-time.Hour))
	c.sim.Break(simulator.Fault{Method: http.MethodPost, Path: "/suppressions", Status: http.StatusOK, Body: `{"results":[{"index":0,"status":"applied"}]}`, Times: -1})
	for range 4 {
		if _, asked := c.open(t)[domain.NotTaken+" "+c.hash(p)]; asked {
			t.Fatal("somebody was asked before it was written three times")
		}
		c.reconcile(t, reconciler.Request{Mode: reconciler.Full})
		c.clock.Advance(time.Hour)
	}
	if _, asked := c.open(t)[domain.NotTaken+" "+c.hash(p)]; !asked {
		t.Errorf("nobody was asked: %v", c.open(t))
	}
	writes := 0
	for _, r := range c.sim.Requests() {
		if r.Method == http.MethodPost {
			writes++
		}
	}
	if writes != 3 {
		t.Errorf("it was written %d times", writes)
	}
}

// One process works on a platform at a time.
func TestOneProcessAtATime(t *testing.T) {
	t.Parallel()
	c := alone(t, "klaviyo")
	other := c.reconciler(t, nil)
	var met error
	c.mu.Lock()
	c.before = func(*http.Request) {
		if met == nil {
			met = other.Work(t.Context(), c.name, nil)
		}
	}
	c.mu.Unlock()
	if r := c.reconcile(t, reconciler.Request{}); r.State != domain.RunDone || !errors.Is(met, reconciler.ErrRunning) {
		t.Errorf("the run ended %s, and another process at it met %v, want ErrRunning", r.State, met)
	}
}

// Few changes are always allowed, however large a share they are.
func TestFewChangesAreNotAsked(t *testing.T) {
	t.Parallel()
	c := with(t, "webhook", func(p *domain.PlatformPolicy) { p.Cap, p.CapFrom = 5, 4 })
	for range 4 {
		p := c.person()
		c.decide(t, p, domain.OptedIn, c.clock.Now().Add(-time.Hour))
		c.happen(t, p, simulator.Unsubscribed, c.clock.Now())
	}
	if r := c.reconcile(t, reconciler.Request{}); r.State != domain.RunDone || r.Counts.Planned["record"] != 4 {
		t.Errorf("the run ended %s, with %v planned", r.State, r.Counts.Planned)
	}
}

// Whoever opted out there, and is lifted there, has opted out here since it was taken in: that is lifted there too, though nothing of
// ours was ever written.
func TestWhatWasTakenInIsLiftedThere(t *testing.T) {
	t.Parallel()
	c := with(t, "klaviyo", func(p *domain.PlatformPolicy) { p.LiftedThere = domain.LiftAsk })
	p := c.person()
	c.decide(t, p, domain.OptedIn, c.clock.Now().Add(-96*time.Hour))
	c.happen(t, p, simulator.Unsubscribed, c.clock.Now().Add(-time.Hour))
	c.reconcile(t, reconciler.Request{})
	c.tell(t)
	c.clock.Advance(time.Hour)
	c.happen(t, p, simulator.Resubscribed, c.clock.Now())
	c.clock.Advance(time.Hour)
	r := c.reconcile(t, reconciler.Request{Mode: reconciler.Full})
	if _, asked := c.open(t)[domain.LiftedThere+" "+c.hash(p)]; !asked || c.suppressed(p) || c.standing(t, p) != domain.OptedOut {
		t.Errorf("asked: %v; found %v; suppressed there: %v; consent here is %q", asked, r.Counts.Differences, c.suppressed(p), c.standing(t, p))
	}
}

// The pages of a run lie in tables that a crash of the database empties. A run that finds them gone reads again, and takes nobody to be
// absent.
func TestPagesThatACrashTookAreReadAgain(t *testing.T) {
	t.Parallel()
	c := with(t, "webhook", func(p *domain.PlatformPolicy) { p.Cap, p.CapFrom = 1, 1 })
	people := []person{c.person(), c.person(), c.person()}
	for _, p := range people {
		c.decide(t, p, domain.OptedIn, c.clock.Now().Add(-time.Hour))
		c.happen(t, p, simulator.Unsubscribed, c.clock.Now())
	}
	id := c.begin(t, reconciler.Request{})
	if err := c.service.Work(t.Context(), c.name, nil); !errors.Is(err, reconciler.ErrHeld) {
		t.Fatal(err)
	}
	if _, err := c.ledger.DB().ExecContext(t.Context(), `TRUNCATE reconciled_rows, reconciled_state`); err != nil {
		t.Fatal(err)
	}
	if err := c.service.Approve(t.Context(), id, "carol", "first run"); err != nil {
		t.Fatal(err)
	}
	if err := c.service.Work(t.Context(), c.name, nil); err != nil {
		t.Fatal(err)
	}
	for _, p := range people {
		if got := c.standing(t, p); got != domain.OptedOut || !c.lists(t, p) {
			t.Errorf("after the pages were read again consent is %q; on their list, as we know it: %v", got, c.lists(t, p))
		}
	}
	if r := c.run(t, id); r.State != domain.RunDone || r.Counts.Differences[domain.MissingHere] != 3 {
		t.Errorf("the run ended %s and found %v", r.State, r.Counts.Differences)
	}
}
