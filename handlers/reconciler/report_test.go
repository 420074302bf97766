package reconciler_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/platformtest"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/reconciler"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
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
	w := newWorld(t)
	c := w.connect(t, "webhook", nil, simulator.Options{})
	other := w.connect(t, "klaviyo", nil, simulator.Options{})
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
	w.verify(t)
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
	w.verify(t)
}
