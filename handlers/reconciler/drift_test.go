package reconciler_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/reconciler"
)

// drift is one person of each kind of difference.
type drift struct {
	unknownThere, activeThere, never, theirs, complained, agreed, bounced, bouncedOut, again, stranger, staff, fine person
}

// plant makes the two sides differ in every way that the platform can.
func plant(t testing.TB, c *connected) drift {
	t.Helper()
	now := c.clock.Now()
	ago := func(hours int) time.Time { return now.Add(-time.Duration(hours) * time.Hour) }
	var d drift
	for _, p := range []*person{&d.unknownThere, &d.activeThere, &d.never, &d.theirs, &d.complained, &d.agreed, &d.bounced, &d.bouncedOut, &d.again, &d.stranger, &d.staff, &d.fine} {
		*p = c.person()
	}
	d.staff.address = "staff-profile-" + d.staff.address
	for _, p := range []person{d.unknownThere, d.activeThere, d.agreed, d.bouncedOut} {
		c.decide(t, p, domain.OptedIn, ago(96))
		c.decide(t, p, domain.OptedOut, ago(48))
	}
	for _, p := range []person{d.theirs, d.complained, d.bounced, d.fine} {
		c.decide(t, p, domain.OptedIn, ago(96))
	}
	c.decide(t, d.again, domain.OptedIn, ago(2))
	c.decide(t, d.never, domain.Unknown, ago(96))
	if c.channel == domain.Email {
		c.decide(t, d.staff, domain.OptedOut, ago(48))
	}
	c.happen(t, d.activeThere, simulator.Known, ago(100))
	c.happen(t, d.fine, simulator.Known, ago(100))
	if c.platform == "yotpo" {
		return d // it has no list to read
	}
	for _, p := range []person{d.never, d.theirs, d.agreed, d.again, d.stranger} {
		c.happen(t, p, simulator.Known, ago(100))
		c.happen(t, p, simulator.Unsubscribed, ago(24))
	}
	c.happen(t, d.bounced, simulator.HardBounced, ago(24))
	c.happen(t, d.bouncedOut, simulator.HardBounced, ago(24))
	if c.platform != "braze" { // which does not list complaints
		c.happen(t, d.complained, simulator.Complained, ago(24))
	}
	return d
}

// settled looks at the end of it.
func (d drift) settled(t *testing.T, c *connected) {
	t.Helper()
	out := map[string]person{"unknown there": d.unknownThere, "active there": d.activeThere}
	if c.platform != "yotpo" {
		maps.Copy(out, map[string]person{"opted out there": d.theirs, "opted out there, never asked here": d.never, "agreed": d.agreed, "bounced and opted out": d.bouncedOut})
		if c.platform != "braze" {
			out["complained"] = d.complained
		}
	}
	for name, p := range out {
		if !c.suppressed(p) {
			t.Errorf("%s: the platform would send to them", name)
		}
		if got := c.standing(t, p); got != domain.OptedOut {
			t.Errorf("%s: consent here is %q", name, got)
		}
	}
	for name, p := range map[string]person{"fine": d.fine, "bounced": d.bounced, "agreed again": d.again} {
		if got := c.standing(t, p); got != domain.OptedIn {
			t.Errorf("%s: consent here is %q; nobody withdrew it", name, got)
		}
	}
	if c.suppressed(d.fine) || c.suppressed(d.staff) {
		t.Error("somebody is suppressed there whom nobody wanted to be")
	}
}

func TestDrift(t *testing.T) {
	t.Parallel()
	for _, platform := range platformsUnderTest() {
		t.Run(platform, func(t *testing.T) {
			t.Parallel()
			c := newWorld(t).connect(t, platform, nil, simulator.Options{Lag: 10 * time.Second, JobTime: 5 * time.Second})
			d := plant(t, c)

			check := c.reconcile(t, reconciler.Request{Check: true})
			if c.suppressed(d.unknownThere) || c.standing(t, d.theirs) == domain.OptedOut && platform != "yotpo" {
				t.Error("a check changed something")
			}
			first := c.reconcile(t, reconciler.Request{})
			if first.State != domain.RunDone {
				t.Errorf("the run ended %s: %+v", first.State, first.Counts)
			}
			if !maps.Equal(check.Counts.Differences, first.Counts.Differences) {
				t.Errorf("the check found %v, the run %v", check.Counts.Differences, first.Counts.Differences)
			}
			want := map[string]int64{domain.MissingThere: 3} // the one whom the policy leaves out is found so too
			switch platform {
			case "yotpo":
				want[domain.MissingThere] = 4 // it has no list: whoever opted out here is told to it
			case "braze":
				maps.Copy(want, map[string]int64{domain.MissingHere: 2, domain.OtherReasons: 1, domain.ResubscribedHere: 1, domain.UnknownContact: 1, domain.DeliveryProblem: 1})
			default:
				maps.Copy(want, map[string]int64{domain.MissingHere: 3, domain.OtherReasons: 1, domain.ResubscribedHere: 1, domain.UnknownContact: 1, domain.DeliveryProblem: 1})
			}
			if !maps.Equal(first.Counts.Differences, want) {
				t.Errorf("the run found %v, want %v", first.Counts.Differences, want)
			}
			d.settled(t, c)
			if platform != "yotpo" {
				f, asked := c.open(t)[domain.ResubscribedHere+" "+c.hash(d.again)]
				if !asked || f.Action != domain.ActResubscribe || f.Explain == "" {
					t.Errorf("nobody was asked about whoever agreed again: %v", slices.Collect(maps.Keys(c.open(t))))
				}
			}
			for _, mode := range []string{reconciler.Full, reconciler.Incremental, reconciler.Full} {
				c.clock.Advance(10 * time.Minute)
				again := c.reconcile(t, reconciler.Request{Mode: mode})
				if len(again.Counts.Differences) > 0 || again.State != domain.RunDone {
					t.Errorf("another run (%s) ended %s and found %v", mode, again.State, again.Counts.Differences)
				}
			}
		})
	}
}
