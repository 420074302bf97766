package reconciler_test

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/platformtest"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/reconciler"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
)

// address is what is known of a person's address.
func (c *connected) address(t testing.TB, p person) domain.AddressFact {
	t.Helper()
	known, err := consent.Look(t.Context(), c.ledger.DB(), []uuid.UUID{p.id})
	if err != nil {
		t.Fatal(err)
	}
	return known.View(p.id, c.channel).Address
}

// reports counts what was reported on addresses.
func (c *connected) reports(t testing.TB) (n int) {
	t.Helper()
	if err := c.ledger.DB().QueryRowContext(t.Context(), `SELECT count(*) FROM events WHERE type = 'address.reported'`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// What a platform's list says of an address is a fact about the address, once, until somebody knows better.
func TestABounceOnTheListIsAFactAboutTheAddress(t *testing.T) {
	t.Parallel()
	c := alone(t, "webhook")
	other := c.connect(t, "klaviyo", nil, simulator.Options{})
	now := c.clock.Now()
	early, late, twice := c.person(), c.person(), c.person()
	for _, p := range []person{early, twice} {
		c.decide(t, p, domain.OptedIn, now.Add(-96*time.Hour))
	}
	for _, p := range []person{early, late, twice} {
		c.happen(t, p, simulator.HardBounced, now.Add(-24*time.Hour))
	}
	other.happen(t, twice, simulator.HardBounced, now.Add(-48*time.Hour))
	c.reconcile(t, reconciler.Request{})
	other.reconcile(t, reconciler.Request{})
	if f := c.address(t, early); f.Status != domain.AddressBounced || f.ReportedBy != c.name || !f.ReportedAt.Equal(now.Add(-24*time.Hour)) {
		t.Errorf("the address that bounced is known as %+v", f)
	}
	if got := c.standing(t, early); got != domain.OptedIn {
		t.Errorf("a bounce made consent %q", got)
	}

	// Whoever turns up with an address that the list had long ago has one that does not work.
	c.clock.Advance(10 * time.Minute)
	c.decide(t, late, domain.OptedIn, c.clock.Now())
	if r := c.reconcile(t, reconciler.Request{Mode: reconciler.Incremental}); len(r.Counts.Differences) > 0 {
		t.Errorf("a run found %v", r.Counts.Differences)
	}
	if f := c.address(t, late); f.Status != domain.AddressBounced {
		t.Errorf("the newcomer's address is known as %+v", f)
	}
	before := c.reports(t)
	c.clock.Advance(10 * time.Minute)
	c.reconcile(t, reconciler.Request{Mode: reconciler.Full})
	if got := c.reports(t); got != before {
		t.Errorf("a run with nothing new reported on %d addresses", got-before)
	}

	// An address that the list holds no more works again, unless another list still says otherwise.
	for _, p := range []person{early, twice} {
		c.happen(t, p, simulator.Resubscribed, c.clock.Now())
	}
	c.clock.Advance(10 * time.Minute)
	c.reconcile(t, reconciler.Request{Mode: reconciler.Full})
	if f := c.address(t, early); f.Blocks() {
		t.Errorf("the address that works again is known as %+v", f)
	}
	if f := c.address(t, twice); !f.Blocks() {
		t.Errorf("the address that bounces elsewhere is known as %+v", f)
	}
}

// An address that does not work on a platform is known as such whichever the platform is.
func TestEveryPlatformsBouncesAreFacts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, platform := range platformsUnderTest() {
		if platform == "yotpo" {
			continue // it has no list to read
		}
		c := w.connect(t, platform, nil, simulator.Options{})
		p := c.person()
		c.decide(t, p, domain.OptedIn, c.clock.Now().Add(-96*time.Hour))
		c.happen(t, p, simulator.HardBounced, c.clock.Now().Add(-24*time.Hour))
		c.reconcile(t, reconciler.Request{})
		if f := c.address(t, p); !f.Blocks() || f.ReportedBy != c.name {
			t.Errorf("%s: the address that bounced is known as %+v (%v)", platform, f, c.sim.Suppressed(platformtest.Account, string(c.channel)))
		}
	}
}

// The metrics say where the platforms stand when they are asked, whichever process ran what, and say nothing of lists that nobody
// can read.
func TestWhereThePlatformsStandIsMeasured(t *testing.T) {
	t.Parallel()
	c := alone(t, "klaviyo")
	closed := c.connect(t, "yotpo", nil, simulator.Options{})
	known, out, again := c.person(), c.person(), c.person()
	now := c.clock.Now()
	c.decide(t, known, domain.OptedIn, now.Add(-time.Hour))
	for _, p := range []person{known, c.person()} { // and one who is nobody of ours
		c.happen(t, p, simulator.Known, now.Add(-time.Hour))
	}
	c.decide(t, again, domain.OptedIn, now.Add(-time.Hour))
	c.happen(t, again, simulator.Unsubscribed, now.Add(-2*time.Hour))
	closed.decide(t, closed.person(), domain.OptedOut, now.Add(-time.Hour))
	c.reconcile(t, reconciler.Request{})
	closed.reconcile(t, reconciler.Request{})
	c.clock.Advance(time.Hour)
	c.decide(t, out, domain.OptedOut, c.clock.Now())
	c.tell(t) // and no run since: nobody has read it back
	c.clock.Advance(10 * time.Minute)

	registry := prometheus.NewRegistry()
	if _, err := reconciler.New(reconciler.Config{DB: c.ledger.DB(), Ledger: c.ledger, Vault: c.vault, HTTP: http.DefaultClient, Now: c.now, Registry: registry}); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			got[family.GetName()+" "+m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
		}
	}
	want := map[string]float64{
		"ledger_suppressions_unconfirmed " + c.name: 1, "ledger_suppressions_oldest_unconfirmed_seconds " + c.name: 600, "ledger_suppressions_waiting " + c.name: 0, "ledger_findings_open " + c.name: 1,
		"ledger_reconciliation_coverage_ratio " + c.name: 1,
		"ledger_suppressions_unconfirmed " + closed.name: 0, "ledger_suppressions_oldest_unconfirmed_seconds " + closed.name: 0, "ledger_suppressions_waiting " + closed.name: 0, "ledger_findings_open " + closed.name: 0,
	}
	if !maps.Equal(got, want) {
		t.Errorf("the metrics are %v, want %v", got, want)
	}
	policy, err := suppressions.PolicyOf(t.Context(), c.ledger.DB(), closed.name)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := c.service.Describe(t.Context(), policy); err != nil || len(p.Reads) != 0 || !slices.Equal(p.Writes, []domain.Channel{domain.SMS}) || p.Coverage != nil || p.Closed == "" {
		t.Errorf("a platform without a list is described as %+v, %v", p, err)
	}
}

// What is of one kind is decided on at once, where that lets nobody be written to.
func TestDecidingAlike(t *testing.T) {
	t.Parallel()
	c := alone(t, "klaviyo")
	now := c.clock.Now()
	for range 5 {
		p := c.person()
		c.happen(t, p, simulator.Unsubscribed, now.Add(-2*time.Hour))
		c.decide(t, p, domain.OptedIn, now.Add(-time.Hour))
	}
	other := c.person()
	c.decide(t, other, domain.OptedOut, now.Add(-3*time.Hour))
	c.reconcile(t, reconciler.Request{})
	c.clock.Advance(time.Hour)
	c.happen(t, other, simulator.Resubscribed, c.clock.Now())
	c.clock.Advance(time.Hour)
	c.reconcile(t, reconciler.Request{Mode: reconciler.Full})
	res := reconciler.Resolution{Action: domain.ActResubscribe, Reason: "all of them", Evidence: map[string]string{"form": "12"}, Actor: "carol"}
	if n, _, err := c.service.ResolveAlike(t.Context(), c.name, domain.ResubscribedHere, res); !errors.Is(err, domain.ErrInvalid) || n != 0 {
		t.Errorf("lifting all at once: %d, %v; want ErrInvalid", n, err)
	}
	res = reconciler.Resolution{Action: domain.ActKeepSuppressed, Reason: "the forms are lost", Actor: "carol"}
	if n, more, err := c.service.ResolveAlike(t.Context(), c.name, domain.ResubscribedHere, res); err != nil || n != 5 || more {
		t.Errorf("decided on %d, more %v, %v; want all 5", n, more, err)
	}
	open := c.open(t)
	if _, still := open[domain.LiftedThere+" "+c.hash(other)]; !still || len(open) != 1 {
		t.Errorf("open are %v, want the one of another kind", open)
	}
	if n, _, err := c.service.ResolveAlike(t.Context(), c.name, domain.ResubscribedHere, res); err != nil || n != 0 {
		t.Errorf("again: %d, %v", n, err)
	}
}
