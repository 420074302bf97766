package reconciler_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/platformtest"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/reconciler"
)

// Texts differ as email does, as far as a platform lists and takes opt-outs of them.
func TestDriftOfTexts(t *testing.T) {
	t.Parallel()
	const group = "sms-group"
	for platform, tc := range map[string]struct {
		lists, takes bool
		settings     map[string]string
		scope        string
	}{
		"klaviyo":    {lists: true, takes: true},
		"dotdigital": {lists: true, takes: true},
		"webhook":    {lists: true, takes: true},
		"braze":      {takes: true, settings: map[string]string{"sms_group": group}, scope: group},
		"sfmc":       {lists: true, settings: map[string]string{"sms_extension": "sms-opt-outs"}},
	} {
		t.Run(platform, func(t *testing.T) {
			t.Parallel()
			c := newWorld(t).connect(t, platform, func(p *domain.PlatformPolicy) {
				p.Channels = []domain.Channel{domain.SMS}
				merged := map[string]string{}
				for _, from := range []map[string]string{p.Settings, tc.settings} {
					for k, v := range from {
						merged[k] = v
					}
				}
				p.Settings = merged
			}, simulator.Options{Lag: 10 * time.Second, JobTime: 5 * time.Second})
			c.channel = domain.SMS
			happen := func(p person, what string, at time.Time) {
				t.Helper()
				if err := c.sim.Happen(simulator.Fact{Account: platformtest.Account, Channel: "sms", Address: p.address, What: what, List: tc.scope, At: at}); err != nil {
					t.Fatal(err)
				}
			}
			now := c.clock.Now()
			ours, activeThere, theirs, both, again, fine := c.person(), c.person(), c.person(), c.person(), c.person(), c.person()
			for _, p := range []person{ours, activeThere, both} {
				c.decide(t, p, domain.OptedIn, now.Add(-96*time.Hour))
				c.decide(t, p, domain.OptedOut, now.Add(-48*time.Hour))
			}
			c.decide(t, theirs, domain.OptedIn, now.Add(-96*time.Hour))
			c.decide(t, fine, domain.OptedIn, now.Add(-96*time.Hour))
			c.decide(t, again, domain.OptedIn, now.Add(-2*time.Hour))
			for _, p := range []person{activeThere, theirs, both, again, fine} {
				happen(p, simulator.Known, now.Add(-100*time.Hour))
			}
			for _, p := range []person{theirs, both, again} {
				happen(p, simulator.Unsubscribed, now.Add(-24*time.Hour))
			}

			check := c.reconcile(t, reconciler.Request{Check: true})
			first := c.reconcile(t, reconciler.Request{})
			if first.State != domain.RunDone || fmt.Sprint(check.Counts.Differences) != fmt.Sprint(first.Counts.Differences) {
				t.Errorf("the run ended %s and found %v; a check found %v", first.State, first.Counts.Differences, check.Counts.Differences)
			}
			for name, p := range map[string]person{"opted out here": ours, "opted out here, active there": activeThere, "opted out on both": both} {
				if tc.takes && !c.suppressed(p) {
					t.Errorf("%s: the platform would send to them", name)
				}
				if got := c.standing(t, p); got != domain.OptedOut {
					t.Errorf("%s: consent here is %q", name, got)
				}
			}
			open := c.open(t)
			want := map[person]domain.ConsentStatus{theirs: domain.OptedIn, again: domain.OptedIn, fine: domain.OptedIn}
			if tc.lists {
				want[theirs] = domain.OptedOut
				if _, asked := open[domain.ResubscribedHere+" "+c.hash(again)]; !asked {
					t.Errorf("nobody was asked about whoever agreed again: %v", open)
				}
			}
			for p, status := range want {
				if got := c.standing(t, p); got != status {
					t.Errorf("consent is %q, want %q", got, status)
				}
			}
			if _, told := open[domain.NotTaken+" unwritable"]; told == tc.takes {
				t.Errorf("that opt-outs cannot be written: said %v", told)
			}
			if c.suppressed(fine) {
				t.Error("somebody is suppressed there whom nobody wanted to be")
			}
			for _, mode := range []string{reconciler.Full, reconciler.Incremental} {
				c.clock.Advance(10 * time.Minute)
				if r := c.reconcile(t, reconciler.Request{Mode: mode}); len(r.Counts.Differences) > 0 || r.State != domain.RunDone {
					t.Errorf("another run (%s) ended %s and found %v", mode, r.State, r.Counts.Differences)
				}
			}
		})
	}
}

// Dotdigital lifts an email opt-out only when the person confirms. Whoever vouched for the agreement is told, once, and is not
// asked any more when the person has confirmed.
func TestDotdigitalAsksThePerson(t *testing.T) {
	t.Parallel()
	c := alone(t, "dotdigital")
	now := c.clock.Now()
	waits, never := c.person(), c.person()
	for _, p := range []person{waits, never} {
		c.decide(t, p, domain.OptedIn, now.Add(-2*time.Hour))
		c.happen(t, p, simulator.Known, now.Add(-100*time.Hour))
	}
	c.happen(t, waits, simulator.Unsubscribed, now.Add(-24*time.Hour))
	c.happen(t, never, simulator.Complained, now.Add(-24*time.Hour))
	c.reconcile(t, reconciler.Request{})
	for _, p := range []person{waits, never} {
		f, asked := c.open(t)[domain.ResubscribedHere+" "+c.hash(p)]
		if !asked || !strings.Contains(f.Explain, "confirm") {
			t.Fatalf("the finding says %q", f.Explain)
		}
		if err := c.service.Resolve(t.Context(), f.ID, reconciler.Resolution{Action: domain.ActResubscribe, Reason: "signed form", Evidence: map[string]string{"form": "12"}, Actor: "jane"}); err != nil {
			t.Fatal(err)
		}
	}
	c.tell(t)
	for range 2 {
		c.clock.Advance(10 * time.Minute)
		c.reconcile(t, reconciler.Request{Mode: reconciler.Full})
	}
	open := c.open(t)
	if f := open[domain.NotLifted+" "+c.hash(waits)]; !strings.Contains(f.Explain, "asked the person to confirm") || f.Action != domain.ActKeepSuppressed {
		t.Errorf("whoever is to confirm is put before somebody as %+v", f)
	}
	if f := open[domain.NotLifted+" "+c.hash(never)]; !strings.Contains(f.Explain, "will not lift") {
		t.Errorf("whoever never comes back is put before somebody as %+v", f)
	}
	if len(open) != 2 {
		t.Errorf("%d findings are open, want 2: %v", len(open), open)
	}
	challenges := 0
	for _, r := range c.sim.Requests() {
		if strings.HasSuffix(r.URL, "/resubscribe") {
			challenges++
		}
	}
	if challenges != 2 {
		t.Errorf("%d resubscribes were asked for, want one each", challenges)
	}
	c.clock.Advance(10 * time.Minute)
	c.happen(t, waits, simulator.Resubscribed, c.clock.Now())
	c.clock.Advance(10 * time.Minute)
	c.reconcile(t, reconciler.Request{Mode: reconciler.Full})
	if open := c.open(t); len(open) != 1 {
		t.Errorf("after the person confirmed %d findings are open: %v", len(open), open)
	}
	if c.suppressed(waits) || c.standing(t, waits) != domain.OptedIn {
		t.Error("whoever confirmed is suppressed still")
	}
}

// lifted counts what the ledger takes to be no longer on a connection's list.
func (c *connected) lifted(t testing.TB) (n int) {
	t.Helper()
	c.catchUp(t)
	if err := c.ledger.DB().QueryRowContext(t.Context(), `SELECT count(*) FROM listed WHERE platform = $1 AND lifted`, c.name).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Braze pages by offset: when people leave the list while it is read, others slide past the next page. They are looked for
// again before anybody takes them to be lifted.
func TestWhoSlidPastThePagesIsNotAbsent(t *testing.T) {
	t.Parallel()
	c := alone(t, "braze")
	const leave = 60
	now := c.clock.Now()
	people := make([]person, 620)
	for i := range people {
		people[i] = c.person()
		c.happen(t, people[i], simulator.Unsubscribed, now.Add(time.Duration(i-len(people))*time.Minute))
	}
	c.reconcile(t, reconciler.Request{})
	c.clock.Advance(time.Hour)
	left := false
	c.mu.Lock()
	c.before = func(r *http.Request) {
		if offset := r.URL.Query().Get("offset"); left || offset == "" || offset == "0" || r.URL.Path != "/email/unsubscribes" {
			return
		}
		left = true
		for _, p := range people[:leave] {
			c.happen(t, p, simulator.Resubscribed, c.clock.Now())
		}
	}
	c.mu.Unlock()
	if c.reconcile(t, reconciler.Request{Mode: reconciler.Full}); !left {
		t.Fatal("nobody left while the list was read")
	}
	if got := c.lifted(t); got != 0 {
		t.Errorf("%d people are taken to be lifted who were on the list, or left it while it was read", got)
	}
	c.clock.Advance(time.Hour)
	c.reconcile(t, reconciler.Request{Mode: reconciler.Full})
	if got := c.lifted(t); got != leave {
		t.Errorf("%d people are taken to be lifted, want the %d who left", got, leave)
	}
}

// What a platform told us and its list never shows is not missed on the list.
func TestWhatAListCannotShowIsNotMissedOnIt(t *testing.T) {
	t.Parallel()
	c := alone(t, "braze")
	p := c.person()
	now := c.clock.Now()
	c.decide(t, p, domain.OptedIn, now.Add(-96*time.Hour))
	c.catchUp(t)
	c.happen(t, p, simulator.Complained, now.Add(-time.Hour))
	body := fmt.Sprintf(`{"events":[{"event_type":"users.messages.email.MarkAsSpam","id":%q,"time":%d,"properties":{"email_address":%q}}]}`, uuid.NewString(), now.Add(-time.Hour).Unix(), p.address)
	if _, err := c.service.Receive(t.Context(), c.name, http.Header{}, []byte(body)); err != nil {
		t.Fatal(err)
	}
	if got := c.standing(t, p); got != domain.OptedOut {
		t.Fatalf("after a complaint consent is %q", got)
	}
	for range 2 {
		c.clock.Advance(time.Hour)
		if r := c.reconcile(t, reconciler.Request{Mode: reconciler.Full}); len(r.Counts.Differences) > 0 {
			t.Errorf("a run found %v", r.Counts.Differences)
		}
	}
	if got := c.lifted(t); got != 0 {
		t.Error("a complaint that the list cannot show was taken to be lifted")
	}
}

// An order that was recorded after another process had repeated it, which happens when its own process was killed, is confirmed
// by the list like any other.
func TestALateOrderIsConfirmedByTheList(t *testing.T) {
	t.Parallel()
	c := alone(t, "webhook")
	p := c.person()
	c.decide(t, p, domain.OptedOut, c.clock.Now().Add(-time.Hour))
	c.reconcile(t, reconciler.Request{})
	late := domain.PushEntry{Hash: c.hash(p), ProfileID: p.id}
	if err := c.ledger.DB().QueryRowContext(t.Context(), `SELECT decision, decided_at FROM pushes WHERE platform = $1 AND confirmed_at IS NOT NULL`, c.name).Scan(&late.Decision, &late.DecidedAt); err != nil {
		t.Fatal(err)
	}
	e, _, err := domain.New(uuid.New(), domain.SuppressionOrdered{Platform: c.name, Channel: c.channel, Intent: domain.Suppress, Batch: uuid.New(), Entries: []domain.PushEntry{late}})
	if err != nil {
		t.Fatal(err)
	}
	e.Actor, e.Source, e.OccurredAt = "test", "/test", c.clock.Now()
	if _, err := c.ledger.Append(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	c.clock.Advance(time.Hour)
	if r := c.reconcile(t, reconciler.Request{}); r.State != domain.RunDone || r.Counts.Unconfirmed != 0 || len(r.Counts.Differences) > 0 {
		t.Errorf("the run ended %s with %d unconfirmed, and found %v", r.State, r.Counts.Unconfirmed, r.Counts.Differences)
	}
}
