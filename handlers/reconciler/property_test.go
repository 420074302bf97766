package reconciler_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/reconciler"
)

func TestMain(m *testing.M) {
	if os.Getenv(envDatabase) != "" {
		if err := reconcileAsProgram(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// fate is what one person's acts, on either side, are to end in.
type fate struct {
	person

	out    bool // the last act that shows was an opt-out
	in     bool // the last act was a yes here that the reconciler could act on at once
	hidden bool // after a yes, an opt-out there that the platform cannot tell from the first: nothing may lift it
	acts   []string
}

// TestTwoLists lets people change their minds on both sides, in any order, while the reconciler runs now and then. Whatever
// they do, the lists end in agreement: the last opt-out holds on both sides, from whichever it came, and who agreed again
// last is lifted there, as far as the platform lets anybody know.
//
// Each check is ten people who act dozens of times: two are tried, with DISPATCH_LEDGER_LONG_TESTS a hundred, or as many as
// -rapid.checks says.
func TestTwoLists(t *testing.T) {
	t.Parallel()
	if checks := flag.Lookup("rapid.checks"); os.Getenv("DISPATCH_LEDGER_LONG_TESTS") == "" && checks.Value.String() == checks.DefValue {
		if err := checks.Value.Set("2"); err != nil {
			t.Fatal(err)
		}
	}
	for _, platform := range platformsUnderTest() {
		if platform == "yotpo" {
			continue // it has no list to differ from ours
		}
		t.Run(platform, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			known, err := platforms.Lookup(platform)
			if err != nil {
				t.Fatal(err)
			}
			rapid.Check(t, func(rt *rapid.T) {
				c := w.connect(t, platform, func(p *domain.PlatformPolicy) {
					p.Resubscribe, p.CapFrom = true, 1_000_000 // the opt-outs of all who came before are written to each new account
				}, simulator.Options{Lag: 10 * time.Second, JobTime: 5 * time.Second})
				people := make([]*fate, 10)
				for i := range people {
					people[i] = &fate{person: c.person()}
					c.decide(t, people[i].person, domain.Unknown, c.clock.Now().Add(-24*time.Hour))
				}
				for range rapid.IntRange(20, 50).Draw(rt, "steps") {
					c.clock.Advance(20 * time.Minute)
					f := people[rapid.IntRange(0, len(people)-1).Draw(rt, "who")]
					f.do(t, c, rapid.SampledFrom([]string{"yes here", "no here", "no there", "no there", "yes there", "run", "full run"}).Draw(rt, "act"), known.Caps.RepeatsShow)
				}
				for range 2 {
					c.clock.Advance(20 * time.Minute)
					c.reconcile(t, reconciler.Request{Mode: reconciler.Full})
				}
				c.clock.Advance(20 * time.Minute)
				last := c.reconcile(t, reconciler.Request{Mode: reconciler.Full})
				if len(last.Counts.Differences) > 0 || last.State != domain.RunDone {
					rt.Errorf("the last run ended %s and found %v", last.State, last.Counts.Differences)
				}
				for _, f := range people {
					f.judge(t, rt, c)
				}
			})
		})
	}
}

// do lets a person act, or the reconciler. What is decided here is told to the platform at once, as serve does.
func (f *fate) do(t *testing.T, c *connected, act string, repeats bool) {
	t.Helper()
	now := c.clock.Now()
	f.acts = append(f.acts, now.Format("15:04")+" "+act)
	switch act {
	case "yes here":
		suppressed, known := c.suppressed(f.person), c.knows(t, f.person)
		c.decide(t, f.person, domain.OptedIn, now)
		f.out, f.in, f.hidden = false, !suppressed || known, false
		c.tell(t)
	case "no here":
		c.decide(t, f.person, domain.OptedOut, now)
		f.out, f.in, f.hidden = true, false, false
		c.tell(t)
	case "no there":
		// A list that gives a suppression no time of its own shows this one only if the ledger has seen the one before end.
		shows := repeats || !c.suppressed(f.person) && !c.lists(t, f.person)
		c.happen(t, f.person, simulator.Unsubscribed, now)
		switch {
		case shows:
			f.out, f.in, f.hidden = true, false, false
		case !f.out:
			f.in, f.hidden = false, true
		}
	case "yes there":
		c.happen(t, f.person, simulator.Resubscribed, now)
		f.hidden = false
		if c.standing(t, f.person) != domain.OptedOut {
			f.out = false // they took it back before anybody here heard of it
		}
	case "run":
		c.reconcile(t, reconciler.Request{})
	case "full run":
		c.reconcile(t, reconciler.Request{Mode: reconciler.Full})
	}
}

// tell has what was decided pushed.
func (c *connected) tell(t testing.TB) {
	t.Helper()
	c.watch(t)
	if err := c.service.Push(t.Context(), c.name); err != nil {
		t.Fatal(err)
	}
	c.catchUp(t)
}

// lists reports whether the ledger holds a person for suppressed there, as far as it has seen.
func (c *connected) lists(t testing.TB, p person) bool {
	t.Helper()
	var listed bool
	err := c.ledger.DB().QueryRowContext(t.Context(), `SELECT EXISTS (SELECT FROM listed WHERE platform = $1 AND hash = decode($2, 'hex') AND NOT lifted)`, c.name, c.hash(p)).Scan(&listed)
	if err != nil {
		t.Fatal(err)
	}
	return listed
}

// knows reports whether the ledger knows that the platform suppresses a person: from its list, or because we told it to.
func (c *connected) knows(t testing.TB, p person) bool {
	t.Helper()
	var known bool
	err := c.ledger.DB().QueryRowContext(t.Context(), `SELECT EXISTS (SELECT FROM listed WHERE platform = $1 AND hash = decode($2, 'hex') AND NOT lifted)
		OR EXISTS (SELECT FROM pushes WHERE platform = $1 AND hash = decode($2, 'hex') AND intent = 'suppress')`, c.name, c.hash(p)).Scan(&known)
	if err != nil {
		t.Fatal(err)
	}
	return known
}

func (f *fate) judge(t *testing.T, rt *rapid.T, c *connected) {
	t.Helper()
	here, there := c.standing(t, f.person), c.suppressed(f.person)
	story := fmt.Sprintf("after %v: here %q, suppressed there %v", f.acts, here, there)
	switch {
	case f.out && (here != domain.OptedOut || !there):
		rt.Errorf("an opt-out was lost %s", story)
	case f.hidden && !there:
		rt.Errorf("an opt-out that cannot be told from the first was lifted %s", story)
	case here == domain.OptedOut && !there:
		rt.Errorf("the platform lacks an opt-out %s", story)
	case f.in && there && c.platform == "dotdigital" && here == domain.OptedIn:
		// Dotdigital asks the person by mail before it lifts: until they confirm, somebody here is told.
		open := c.open(t)
		_, resubscribed := open[domain.ResubscribedHere+" "+c.hash(f.person)]
		if _, challenged := open[domain.NotLifted+" "+c.hash(f.person)]; !resubscribed && !challenged {
			rt.Errorf("nobody was told that Dotdigital waits for the person %s", story)
		}
	case f.in && (here != domain.OptedIn || there):
		rt.Errorf("who agreed again is suppressed %s", story)
	}
}
