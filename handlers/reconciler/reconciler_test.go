package reconciler_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/platformtest"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/reconciler"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
)

func TestAnOptOutIsPushedAsItIsDecided(t *testing.T) {
	t.Parallel()
	c := alone(t, "klaviyo")
	p, q := c.person(), c.person()
	c.decide(t, p, domain.OptedOut, c.clock.Now())
	c.decide(t, q, domain.OptedIn, c.clock.Now())
	c.sim.Break(simulator.Fault{Status: http.StatusTooManyRequests, Header: map[string]string{"Retry-After": "30"}})
	c.tell(t)
	if c.suppressed(p) {
		t.Error("a throttled push went through")
	}
	c.clock.Advance(31 * time.Second)
	c.tell(t)
	if !c.suppressed(p) || c.suppressed(q) {
		t.Errorf("suppressed there: %v and %v, want the first alone", c.suppressed(p), c.suppressed(q))
	}
	// Who agrees again before it left is not suppressed, and nothing is lifted without the switch.
	c.decide(t, q, domain.OptedOut, c.clock.Now())
	c.clock.Advance(time.Second)
	c.decide(t, q, domain.OptedIn, c.clock.Now())
	c.decide(t, p, domain.OptedIn, c.clock.Now())
	c.tell(t)
	if !c.suppressed(p) || c.suppressed(q) {
		t.Errorf("suppressed there: %v and %v, want the first still, and the second never", c.suppressed(p), c.suppressed(q))
	}
}

func TestWebhooks(t *testing.T) {
	t.Parallel()
	c := alone(t, "webhook")
	p := c.person()
	now := c.clock.Now()
	c.decide(t, p, domain.OptedIn, now.Add(-time.Hour))
	c.catchUp(t)
	send := func(id, state, reason string, sign bool) (reconciler.Received, error) {
		body := []byte(fmt.Sprintf(`{"channel":"email","address":" %s ","state":%q,"reason":%q,"occurred_at":%q}`, strings.ToUpper(p.address), state, reason, c.clock.Now().Format(time.RFC3339Nano)))
		hook, err := standardwebhooks.NewWebhook(signing)
		if err != nil {
			t.Fatal(err)
		}
		signature, err := hook.Sign(id, c.clock.Now(), body)
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{}
		h.Set("webhook-id", id)
		h.Set("webhook-timestamp", fmt.Sprint(c.clock.Now().Unix()))
		h.Set("webhook-signature", signature)
		if !sign {
			body = append(body, ' ')
		}
		return c.service.Receive(t.Context(), c.name, h, body)
	}
	if _, err := send("m1", "suppressed", "unsubscribed", false); !errors.Is(err, platforms.ErrSignature) {
		t.Fatalf("a changed body: %v, want ErrSignature", err)
	}
	if got := c.standing(t, p); got != domain.OptedIn {
		t.Fatalf("after a forged webhook consent is %q", got)
	}
	head := func() int64 {
		n, err := c.ledger.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	got, err := send("m1", "suppressed", "unsubscribed", true)
	if err != nil || got != (reconciler.Received{Records: 1, Known: 1}) {
		t.Fatalf("Receive = %+v, %v", got, err)
	}
	if got := c.standing(t, p); got != domain.OptedOut {
		t.Errorf("after the webhook consent is %q", got)
	}
	before := head()
	if _, err := send("m1", "suppressed", "unsubscribed", true); err != nil || head() != before {
		t.Errorf("the same webhook again: %v, and %d events more", err, head()-before)
	}
	// A bounce withdraws no consent; a lifting opts nobody in.
	q := p
	p = c.person()
	c.decide(t, p, domain.OptedIn, now.Add(-time.Hour))
	c.catchUp(t)
	if _, err := send("m2", "suppressed", "hard_bounce", true); err != nil || c.standing(t, p) != domain.OptedIn {
		t.Errorf("after a bounce: %v, consent is %q", err, c.standing(t, p))
	}
	c.catchUp(t)
	if f := c.address(t, p); f.Status != domain.AddressBounced || f.ReportedBy != c.name {
		t.Errorf("after a bounce the address is known as %+v", f)
	}
	p = q
	c.catchUp(t)
	c.clock.Advance(time.Minute)
	if _, err := send("m3", "cleared", "resubscribed", true); err != nil || c.standing(t, p) != domain.OptedOut {
		t.Errorf("after a lifting: %v, consent is %q", err, c.standing(t, p))
	}
}

func TestWhoCannotSignMaySuppressAndMayNotLift(t *testing.T) {
	t.Parallel()
	c := alone(t, "yotpo")
	p := c.person()
	c.decide(t, p, domain.OptedIn, c.clock.Now().Add(-time.Hour))
	c.catchUp(t)
	send := func(event string) reconciler.Received {
		h := http.Header{}
		h.Set("X-Yotpo-Webhooks-Event-Type", event)
		h.Set("Webhookmessageid", event)
		got, err := c.service.Receive(t.Context(), c.name, h, []byte(fmt.Sprintf(`{"phone":%q,"timestamp":%d}`, p.address, c.clock.Now().UnixMilli())))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := send("communication.sms.subscribed.v1"); got.Ignored != 1 {
		t.Errorf("an unsigned resubscribe: %+v, want it ignored", got)
	}
	send("communication.sms.unsubscribed.v1")
	if got := c.standing(t, p); got != domain.OptedOut {
		t.Errorf("after an unsigned opt-out consent is %q", got)
	}
}

func TestTooMuchAtOnceIsAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.connect(t, "webhook", func(p *domain.PlatformPolicy) { p.Cap, p.CapFrom = 5, 2 }, simulator.Options{})
	var people []person
	for range 4 {
		p := c.person()
		c.decide(t, p, domain.OptedIn, c.clock.Now().Add(-time.Hour))
		c.happen(t, p, simulator.Unsubscribed, c.clock.Now())
		people = append(people, p)
	}
	c.catchUp(t)
	id, err := c.service.Start(t.Context(), reconciler.Request{Platform: c.name, Trigger: "test", Actor: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := suppressions.RunByID(t.Context(), c.ledger.DB(), id); err != nil || r.State != "running" || r.Platform != c.name || r.Mode != reconciler.Full {
		t.Errorf("before any projection has heard of it, the run is %+v, %v", r, err)
	}
	if _, err := c.service.Start(t.Context(), reconciler.Request{Platform: c.name, Trigger: "test", Actor: "test"}); !errors.Is(err, reconciler.ErrRunning) {
		t.Errorf("a second run beside it: %v, want ErrRunning", err)
	}
	if err := c.service.Work(t.Context(), c.name, nil); !errors.Is(err, reconciler.ErrHeld) {
		t.Fatalf("Work = %v, want ErrHeld", err)
	}
	if r := c.run(t, id); r.State != "held" || r.Held == nil || r.Held.Changes != 4 || c.standing(t, people[0]) != domain.OptedIn {
		t.Errorf("the run is %s, it asked %+v, consent is %q", r.State, r.Held, c.standing(t, people[0]))
	}
	if err := c.service.Approve(t.Context(), id, "carol", "first run"); err != nil {
		t.Fatal(err)
	}
	if err := c.service.Work(t.Context(), c.name, nil); err != nil {
		t.Fatal(err)
	}
	if r := c.run(t, id); r.State != domain.RunDone || c.standing(t, people[3]) != domain.OptedOut {
		t.Errorf("the run ended %s, consent is %q", r.State, c.standing(t, people[3]))
	}
}

func TestFindingsAreDecidedOnce(t *testing.T) {
	t.Parallel()
	c := alone(t, "klaviyo")
	p := c.person()
	c.happen(t, p, simulator.Unsubscribed, c.clock.Now().Add(-2*time.Hour))
	c.decide(t, p, domain.OptedIn, c.clock.Now().Add(-time.Hour))
	c.reconcile(t, reconciler.Request{})
	f, asked := c.open(t)[domain.ResubscribedHere+" "+c.hash(p)]
	if !asked {
		t.Fatal("nobody was asked")
	}
	res := reconciler.Resolution{Action: domain.ActResubscribe, Reason: "signed form", Actor: "carol"}
	if err := c.service.Resolve(t.Context(), f.ID, res); !errors.Is(err, domain.ErrInvalid) {
		t.Errorf("without evidence: %v, want ErrInvalid", err)
	}
	res.Evidence = map[string]string{"form": "12"}
	if err := c.service.Resolve(t.Context(), f.ID, res); err != nil {
		t.Fatal(err)
	}
	res.Reason = "another"
	if err := c.service.Resolve(t.Context(), f.ID, res); !errors.Is(err, reconciler.ErrResolved) {
		t.Errorf("a second time: %v, want ErrResolved", err)
	}
	c.tell(t)
	if c.suppressed(p) {
		t.Error("the platform still suppresses whom somebody vouched for")
	}
	c.clock.Advance(time.Hour)
	if r := c.reconcile(t, reconciler.Request{Mode: reconciler.Full}); len(r.Counts.Differences) > 0 || c.standing(t, p) != domain.OptedIn {
		t.Errorf("then a run found %v, consent is %q", r.Counts.Differences, c.standing(t, p))
	}
}

func TestWhatThePlatformLiftsIsWrittenAgainAndAsked(t *testing.T) {
	t.Parallel()
	c := alone(t, "klaviyo")
	p := c.person()
	c.decide(t, p, domain.OptedOut, c.clock.Now().Add(-time.Hour))
	c.reconcile(t, reconciler.Request{})
	c.clock.Advance(time.Hour)
	c.happen(t, p, simulator.Resubscribed, c.clock.Now())
	c.clock.Advance(time.Hour)
	r := c.reconcile(t, reconciler.Request{Mode: reconciler.Full})
	if r.Counts.Differences[domain.LiftedThere] != 1 || !c.suppressed(p) || c.standing(t, p) != domain.OptedOut {
		t.Errorf("found %v, suppressed %v, consent %q", r.Counts.Differences, c.suppressed(p), c.standing(t, p))
	}
	if _, asked := c.open(t)[domain.LiftedThere+" "+c.hash(p)]; !asked {
		t.Error("nobody was asked")
	}
}

func TestOptOutsOfOneListMeanWhatSomebodySays(t *testing.T) {
	t.Parallel()
	c := alone(t, "klaviyo")
	p := c.person()
	c.decide(t, p, domain.OptedIn, c.clock.Now().Add(-3*time.Hour))
	if err := c.sim.Happen(simulator.Fact{Account: platformtest.Account, Channel: "email", Address: p.address, What: simulator.Unsubscribed, List: "VIP", At: c.clock.Now().Add(-time.Hour)}); err != nil {
		t.Fatal(err)
	}
	c.reconcile(t, reconciler.Request{})
	f, asked := c.open(t)[domain.ScopeDiffers+" list:VIP"]
	if !asked || f.Count != 1 || c.standing(t, p) != domain.OptedIn {
		t.Fatalf("findings %+v, consent %q", c.open(t), c.standing(t, p))
	}
	if err := c.service.Resolve(t.Context(), f.ID, reconciler.Resolution{Action: domain.ActTakeAsGlobal, Reason: "it is our only list", Actor: "carol"}); err != nil {
		t.Fatal(err)
	}
	c.catchUp(t)
	c.clock.Advance(time.Hour)
	c.reconcile(t, reconciler.Request{})
	if c.standing(t, p) != domain.OptedOut {
		t.Errorf("consent is %q after somebody said what the list means", c.standing(t, p))
	}
}

func TestImport(t *testing.T) {
	t.Parallel()
	c := alone(t, "yotpo")
	out, in := c.person(), c.person()
	for _, p := range []person{out, in} {
		c.decide(t, p, domain.OptedIn, c.clock.Now().Add(-240*time.Hour))
	}
	file := fmt.Sprintf("Phone,SMS Status,Status Date\n%s,unsubscribed,2026-08-19\n%s,subscribed,2026-08-19\nnonsense,unsubscribed,2026-08-19\n", out.address, in.address)
	refused := 0
	r := c.reconcile(t, reconciler.Request{Import: &reconciler.Import{
		Reader: strings.NewReader(file), File: domain.ImportFile{Name: "export.csv"}, Refused: func(error) { refused++ },
	}})
	if r.Counts.Read != 2 || r.Counts.Unreadable != 1 || refused != 1 {
		t.Errorf("read %d, refused %d (told of %d)", r.Counts.Read, r.Counts.Unreadable, refused)
	}
	if c.standing(t, out) != domain.OptedOut || c.standing(t, in) != domain.OptedIn {
		t.Errorf("consent is %q and %q", c.standing(t, out), c.standing(t, in))
	}
	file = fmt.Sprintf("Phone,SMS Status,Status Date\n%s,subscribed,2026-08-20\n", out.address)
	c.reconcile(t, reconciler.Request{Import: &reconciler.Import{Reader: strings.NewReader(file), File: domain.ImportFile{Name: "older.csv"}}})
	if n := c.lifted(t); n != 0 || c.standing(t, out) != domain.OptedOut {
		t.Errorf("an export lifted %d, consent is %q", n, c.standing(t, out))
	}
}

// A platform that is down, or throttles, for a while ends no run; one whose key is refused does, and says so.
func TestPlatformsInTrouble(t *testing.T) {
	t.Parallel()
	c := alone(t, "klaviyo")
	p := c.person()
	c.decide(t, p, domain.OptedOut, c.clock.Now().Add(-time.Hour))
	for _, fault := range []simulator.Fault{{Status: 503, Times: 3}, {Status: 429, Header: map[string]string{"Retry-After": "120"}, Times: 2}, {Drop: true, After: true, Method: "POST", Times: 2}} {
		c.sim.Break(fault)
	}
	if r := c.reconcile(t, reconciler.Request{}); r.State != domain.RunDone || !c.suppressed(p) {
		t.Errorf("the run ended %s, suppressed %v", r.State, c.suppressed(p))
	}
	c.sim.Break(simulator.Fault{Status: 401, Times: -1})
	id, err := c.service.Start(t.Context(), reconciler.Request{Platform: c.name, Trigger: "test", Actor: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.service.Work(t.Context(), c.name, nil); !errors.Is(err, platforms.ErrCredential) {
		t.Errorf("Work = %v, want ErrCredential", err)
	}
	if r := c.run(t, id); r.State != domain.RunFailed || r.Error == nil {
		t.Errorf("the run ended %s, error %v", r.State, r.Error)
	}
}

// Of a list that has much to say, the projections take in the beginning while the rest of it is recorded. Each entry is recorded once.
func TestALongListIsProjectedAsItIsRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.connect(t, "klaviyo", nil, simulator.Options{})
	const lists = 300 // each gives an event of its own
	for i := range lists {
		p := c.person()
		fact := simulator.Fact{Account: platformtest.Account, Channel: string(c.channel), Address: p.address, What: simulator.Unsubscribed, List: fmt.Sprintf("list %d", i), At: c.clock.Now().Add(-time.Hour)}
		if err := c.sim.Happen(fact); err != nil {
			t.Fatal(err)
		}
	}
	var during atomic.Int64 // how often the projections were brought up while news was recorded
	var phase atomic.Value
	cfg := c.service.Config
	cfg.Entered = func(p string) { phase.Store(p) }
	cfg.Settle = func(ctx context.Context) error {
		if phase.Load() == "record" {
			during.Add(1)
		}
		return c.settle(ctx)
	}
	service, err := reconciler.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.service = service
	for run, want := range []int{lists, 0} {
		before := c.entries(t)
		c.reconcile(t, reconciler.Request{Mode: reconciler.Full})
		if got := c.entries(t) - before; got != want {
			t.Errorf("run %d recorded %d entries, want %d", run, got, want)
		}
	}
	if during.Load() == 0 {
		t.Error("nothing was projected while the list was recorded")
	}
	c.verify(t)
}

// entries counts what the ledger says of the entries of lists.
func (c *connected) entries(t testing.TB) (n int) {
	t.Helper()
	err := c.ledger.DB().QueryRowContext(t.Context(), `SELECT coalesce(sum(json_array_length(data->'entries')), 0) FROM events WHERE type IN ('suppression.seen', 'suppression.lifted')`).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// What we wrote comes back with the platform's time, later than the decision that it is of. It is no opt-out of that time: who agreed
// in between has agreed.
func TestOurOwnPushIsNoNewOptOut(t *testing.T) {
	t.Parallel()
	for name, hear := range map[string]func(*connected, person, time.Time) error{
		"on the list": func(c *connected, _ person, _ time.Time) error { return nil },
		"by a webhook": func(c *connected, p person, at time.Time) error {
			_, err := c.service.Receive(t.Context(), c.name, http.Header{}, []byte(fmt.Sprintf(`{"events":[{"event_type":"users.messages.email.Unsubscribe","id":"e1","time":%d,"properties":{"email_address":%q}}]}`, at.Unix(), p.address)))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := alone(t, "braze")
			p := c.person()
			c.happen(t, p, simulator.Known, c.clock.Now().Add(-96*time.Hour))
			c.decide(t, p, domain.OptedOut, c.clock.Now().Add(-time.Hour))
			c.clock.Advance(time.Second)
			c.tell(t)
			c.decide(t, p, domain.OptedIn, c.clock.Now().Add(-30*time.Minute))
			c.catchUp(t)
			if err := hear(c, p, c.clock.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			if got := c.standing(t, p); got != domain.OptedIn {
				t.Errorf("told of our own push, consent is %q", got)
			}
			c.clock.Advance(10 * time.Minute)
			c.reconcile(t, reconciler.Request{Mode: reconciler.Full})
			if _, asked := c.open(t)[domain.ResubscribedHere+" "+c.hash(p)]; !asked || c.standing(t, p) != domain.OptedIn {
				t.Errorf("consent is %q; asked: %v", c.standing(t, p), asked)
			}
		})
	}
}
