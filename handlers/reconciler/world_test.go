package reconciler_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	_ "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/all"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/platformtest"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulators"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/reconciler"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/contacts"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// world is a ledger with a reconciler, and simulators of platforms on a clock of their own. Connections in one world share
// the ledger and nothing else, so a test that needs many makes them here rather than databases.
type world struct {
	ledger  *schema.Ledger
	vault   *schema.Vault
	engine  *projections.Engine
	live    []projections.Live
	clock   *platformtest.Clock
	service *reconciler.Service
	now     func() time.Time // of the simulators
	url     string           // of the database, for processes of their own
	keyFile string

	mu     sync.Mutex
	sims   map[string]platformtest.Simulator // by host
	before func(*http.Request)               // looks at each request before it is answered; may be nil
}

var definitions = []projections.Definition{consent.Definition, contacts.Definition, suppressions.Definition}

// newWorld makes a world on a clock that tests move.
func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldAt(t, nil)
}

// newWorldAt makes a world whose simulators live by another clock. When its test ends, its ledger and projections are judged.
func newWorldAt(t testing.TB, now func() time.Time) *world {
	t.Helper()
	w, err := openWorld(t.Context(), schematest.Open(t).URL, filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	w.clock, w.sims = platformtest.NewClock(), map[string]platformtest.Simulator{}
	if w.now = now; now == nil {
		w.now = w.clock.Now
	} else {
		w.clock.Advance(now().Sub(w.clock.Now()))
	}
	if _, err := w.engine.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.verify(t)
		w.ledger.Close()
		if err := w.ledger.DB().Close(); err != nil {
			t.Error(err)
		}
	})
	w.live = w.engine.Live(2000)
	w.service = w.reconciler(t, nil)
	return w
}

// openWorld opens the ledger of a world, in this process or in another.
func openWorld(ctx context.Context, url, keyFile string) (*world, error) {
	db, err := schema.Connect(url, schema.Options{Role: "ledger_service", Paths: projections.Paths("", definitions...)})
	if err != nil {
		return nil, err
	}
	key, err := schema.LoadOrCreateMasterKey(keyFile)
	if err != nil {
		return nil, err
	}
	w := &world{engine: projections.NewEngine(db, "", nil, definitions...), ledger: schema.OpenLedger(db, nil, nil), url: url, keyFile: keyFile}
	w.live = w.engine.Live(2000)
	w.vault, err = schema.OpenVault(ctx, db, key, time.Now)
	return w, err
}

// alone makes a world with one connection.
func alone(t testing.TB, platform string) *connected {
	t.Helper()
	return newWorld(t).connect(t, platform, nil, simulator.Options{})
}

// reconciler makes a reconciler on the world's ledger. sleep, unless nil, is asked before each wait.
func (w *world) reconciler(t testing.TB, sleep func() error) *reconciler.Service {
	t.Helper()
	s, err := reconciler.New(reconciler.Config{
		DB: w.ledger.DB(), Ledger: w.ledger, Vault: w.vault, HTTP: &http.Client{Transport: w}, Now: w.now, Settle: w.settle,
		Sleep: func(ctx context.Context, d time.Duration) error {
			if sleep != nil {
				if err := sleep(); err != nil {
					return err
				}
			}
			w.clock.Advance(d)
			return ctx.Err()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// RoundTrip answers for the simulator whose host a request names.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	sim, before := w.sims[r.URL.Host], w.before
	w.mu.Unlock()
	if before != nil {
		before(r)
	}
	if sim == nil {
		return nil, fmt.Errorf("no such host: %s", r.URL.Host)
	}
	return platformtest.Transport{Handler: sim}.RoundTrip(r)
}

// catchUp brings the projections to the ledger's end, or ends the test.
func (w *world) catchUp(t testing.TB) {
	t.Helper()
	if err := w.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// settle brings the projections to the ledger's end.
func (w *world) settle(ctx context.Context) error {
	for _, live := range w.live {
		if err := w.move(ctx, live.Subscription, live.Handle); err != nil {
			return err
		}
	}
	return nil
}

// watch has the reconciler look at what was decided.
func (w *world) watch(t testing.TB) {
	t.Helper()
	w.catchUp(t)
	if err := w.move(t.Context(), w.service.Subscription(), w.service.Watch); err != nil {
		t.Fatal(err)
	}
}

func (w *world) move(ctx context.Context, sub schema.Subscription, handle schema.SliceHandler) error {
	head, err := w.ledger.Head(ctx)
	if err != nil {
		return err
	}
	if err := w.ledger.CatchUp(ctx, w.ledger.DB(), sub, handle, head, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	var failed sql.NullString
	if err := w.ledger.DB().QueryRowContext(ctx, `SELECT error FROM subscriptions WHERE name = $1`, sub.Name).Scan(&failed); err != nil || failed.Valid {
		return fmt.Errorf("%s is parked: %s (%w)", sub.Name, failed.String, err)
	}
	return nil
}

// connected is one platform's connection in a world.
type connected struct {
	*world
	name     string
	platform string
	channel  domain.Channel
	sim      platformtest.Simulator
	n        int // people made
}

const signing = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// credentials and settings with which the simulators are reached.
var (
	credentials = map[string]map[string]string{
		"klaviyo": {"key": "key"}, "braze": {"key": "key"}, "sfmc": {"client_secret": "secret"}, "dotdigital": {"password": "secret"}, "yotpo": {"secret": "secret"},
		"webhook": {"token": "key", "signing": "signing", "webhook_secret": "signing"},
	}
	settings = map[string]map[string]string{"sfmc": {"client_id": "key-1"}, "dotdigital": {"user": "key-1"}, "yotpo": {"store": "key-1"}}
)

// connect makes a connection to a simulator of its own.
func (w *world) connect(t testing.TB, platform string, change func(*domain.PlatformPolicy), o simulator.Options) *connected {
	t.Helper()
	c := &connected{world: w, platform: platform, name: platform + "-" + uuid.NewString()[:8], channel: domain.Email}
	if platform == "yotpo" {
		c.channel = domain.SMS
	}
	o.Now = w.now
	o.Accounts = []simulator.Account{{Name: platformtest.Account, Key: "key-1", Secret: "secret-1"}}
	if platform == "webhook" {
		o.Accounts[0].Secret = signing
	}
	handler, err := simulators.New(platform, o)
	if err != nil {
		t.Fatal(err)
	}
	c.sim = handler.(platformtest.Simulator)
	w.mu.Lock()
	w.sims[c.name+".test"] = c.sim
	w.mu.Unlock()
	for name, value := range map[string]string{"key": "key-1", "secret": "secret-1", "signing": signing} {
		if _, err := w.vault.SetSecret(t.Context(), w.ledger.DB(), name, value, "test"); err != nil {
			t.Fatal(err)
		}
	}
	p := domain.PlatformPolicy{
		Name: c.name, Platform: platform, URL: "https://" + c.name + ".test", Credentials: credentials[platform], Settings: settings[platform], Channels: []domain.Channel{c.channel},
		Cap: 100, Exclude: []string{"staff-profile-*"},
	}
	if change != nil {
		change(&p)
	}
	c.policy(t, p)
	return c
}

func (c *connected) policy(t testing.TB, p domain.PlatformPolicy) {
	t.Helper()
	if _, err := c.service.SetPolicy(t.Context(), p, -1, "test", "test"); err != nil {
		t.Fatal(err)
	}
	c.catchUp(t)
}

// person is somebody of ours, or of theirs.
type person struct {
	id      uuid.UUID
	address string
}

// person makes somebody with an address of their own.
func (c *connected) person() person {
	c.n++
	address := fmt.Sprintf("p%d.%s@people.test", c.n, c.name)
	if c.channel == domain.SMS {
		address = fmt.Sprintf("+6149%07d", uuid.New().ID()%10_000_000)
	}
	return person{uuid.New(), address}
}

// decide records an answer of a person at a time, with its evidence.
func (c *connected) decide(t testing.TB, p person, status domain.ConsentStatus, at time.Time) {
	t.Helper()
	c.record(t, c.decision(p, status, at))
}

// decision is an answer of a person to all, and to marketing.
func (c *connected) decision(p person, status domain.ConsentStatus, at time.Time) domain.ConsentChanged {
	contact := &domain.Contact{Email: p.address}
	if c.channel == domain.SMS {
		contact = &domain.Contact{Mobile: p.address}
	}
	return domain.ConsentChanged{
		ProfileID: p.id, DecidedAt: at.UTC(), DecidedBy: "customer", Method: "preference_centre", Contact: contact,
		ContactHashes: []domain.ContactHash{{Channel: c.channel, Hash: c.hash(p)}}, Evidence: map[string]string{"form_version": "7"},
		Changes: []domain.ConsentChange{{Channel: c.channel, Purpose: domain.PurposeAll, Status: status}, {Channel: c.channel, Purpose: domain.Promo, Status: status}},
	}
}

func (c *connected) record(t testing.TB, d domain.ConsentChanged) {
	t.Helper()
	e, secret, err := domain.New(uuid.New(), d)
	if err != nil {
		t.Fatal(err)
	}
	e.Actor, e.Source, e.OccurredAt = "test", "/test", d.DecidedAt
	events := []domain.Event{e}
	if err := c.vault.SealEvents(t.Context(), events, [][]byte{secret}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ledger.Append(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
}

func (c *connected) hash(p person) string {
	return suppressions.HashOf(c.vault.ContactHash(string(c.channel), p.address))
}

// happen makes something true at the platform.
func (c *connected) happen(t testing.TB, p person, what string, at time.Time) {
	t.Helper()
	if err := c.sim.Happen(simulator.Fact{Account: platformtest.Account, Channel: string(c.channel), Address: p.address, What: what, At: at}); err != nil {
		t.Fatal(err)
	}
}

// reconcile does one run to its end and gives it.
func (c *connected) reconcile(t testing.TB, q reconciler.Request) suppressions.Run {
	t.Helper()
	id := c.begin(t, q)
	if err := c.service.Work(t.Context(), c.name, q.Import); err != nil {
		t.Fatal(err)
	}
	return c.run(t, id)
}

// begin records a run for somebody to do.
func (c *connected) begin(t testing.TB, q reconciler.Request) uuid.UUID {
	t.Helper()
	q.Platform, q.Trigger, q.Actor = c.name, "test", "test"
	c.catchUp(t)
	id, err := c.service.Start(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (c *connected) run(t testing.TB, id uuid.UUID) suppressions.Run {
	t.Helper()
	c.catchUp(t)
	r, err := suppressions.RunByID(t.Context(), c.ledger.DB(), id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// suppressed reports whether the platform would not send to a person.
func (c *connected) suppressed(p person) bool {
	_, yes := c.sim.Suppressed(platformtest.Account, string(c.channel))[p.address]
	return yes
}

// standing is a person's answer to everything on the channel.
func (c *connected) standing(t testing.TB, p person) domain.ConsentStatus {
	t.Helper()
	known, err := consent.Look(t.Context(), c.ledger.DB(), []uuid.UUID{p.id})
	if err != nil {
		t.Fatal(err)
	}
	return known.View(p.id, c.channel).Purposes[domain.PurposeAll].Status
}

// open are the findings that wait, by class and address hash.
func (c *connected) open(t testing.TB) map[string]suppressions.Finding {
	t.Helper()
	c.catchUp(t)
	found, err := suppressions.Findings(t.Context(), c.ledger.DB(), suppressions.FindingFilter{Platform: c.name, State: "open", Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]suppressions.Finding{}
	for _, f := range found {
		out[f.Class+" "+f.Hash+f.Scope] = f
	}
	return out
}

// verify judges the ledger and its projections.
func (w *world) verify(t testing.TB) {
	t.Helper()
	report, err := w.engine.Verify(context.WithoutCancel(t.Context())) // which ends before what is cleaned up
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range report.Problems {
		t.Errorf("verify: %+v", p)
	}
}

// platformsUnderTest are those with a simulator.
func platformsUnderTest() []string { return slices.Sorted(maps.Keys(credentials)) }
