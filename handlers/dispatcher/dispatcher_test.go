package dispatcher_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/dispatcher"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/outbound"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/planner"
	_ "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/webhook"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/contacts"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

var all = []projections.Definition{targets.Definition, consent.Definition, contacts.Definition, deliveries.Definition, queue.Definition}

// world is a ledger with its projections and planner running; dispatchers are started by the test.
type world struct {
	*testing.T
	db     *sql.DB
	ledger *schema.Ledger
	vault  *schema.Vault
	topic  *schema.Topic
	engine *projections.Engine
	way    way
}

// way is the express of whichever dispatcher was started last.
type way struct {
	to atomic.Pointer[dispatcher.Dispatcher]
}

func (y *way) Claim(ctx context.Context, tx schema.Querier, planned []planner.Planned) error {
	if d := y.to.Load(); d != nil {
		return d.Claim(ctx, tx, planned)
	}
	return nil
}

func (y *way) Ended() {
	if d := y.to.Load(); d != nil {
		d.Ended()
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	database := schematest.Open(t)
	db, err := schema.Connect(database.URL, schema.Options{Role: "ledger_service", Paths: projections.Paths("", all...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	w := &world{T: t, db: db, engine: projections.NewEngine(db, "", nil, all...)}
	if _, err := w.engine.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	key, err := schema.LoadOrCreateMasterKey(filepath.Join(t.TempDir(), "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	if w.vault, err = schema.OpenVault(t.Context(), db, key, time.Now); err != nil {
		t.Fatal(err)
	}
	w.ledger = schema.OpenLedger(db, nil, nil)
	t.Cleanup(w.ledger.Close)
	if w.topic, err = schema.OpenTopic(db, w.ledger, database.URL, schema.Options{}, nil); err != nil {
		t.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := planner.New(w.ledger, w.vault, time.Now, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	plan.Express = &w.way
	for _, r := range append(w.engine.Live(1000), projections.Live{Subscription: plan.Subscription(), Handle: plan.Handle}) {
		if err := projections.AddTo(t.Context(), router, w.topic, r.Subscription, r.Handle); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- router.Run(ctx) }()
	<-router.Running()
	t.Cleanup(func() {
		cancel()
		w.topic.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

// dispatch starts a dispatcher. The function it returns drains it.
func (w *world) dispatch(change ...func(*dispatcher.Config)) (stop func()) {
	w.Helper()
	c := dispatcher.Config{
		DB: w.db, Ledger: w.ledger, Vault: w.vault, Sender: outbound.New(outbound.NewClient(outbound.Options{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}), time.Now), Now: time.Now,
		Log: slog.New(slog.DiscardHandler), Worker: "test/" + uuid.NewString()[:8], Moved: func() <-chan struct{} { return w.topic.Moved(queue.Definition.SubscriptionName()) },
		Grace: time.Second,
	}
	for _, f := range change {
		f(&c)
	}
	d, err := dispatcher.New(c)
	if err != nil {
		w.Fatal(err)
	}
	w.way.to.Store(d)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.Error(err)
		}
	})
	w.Cleanup(stop)
	return stop
}

// record appends a payload as the service does.
func (w *world) record(p domain.Payload) {
	w.Helper()
	w.recordAs(uuid.New(), p)
}

func (w *world) recordAs(id uuid.UUID, p domain.Payload) {
	w.Helper()
	e, secret, err := domain.New(id, p)
	if err != nil {
		w.Fatal(err)
	}
	e.Actor, e.Source, e.OccurredAt = "test", "/test", time.Now()
	events := []domain.Event{e}
	if err := w.vault.SealEvents(w.Context(), events, [][]byte{secret}); err != nil {
		w.Fatal(err)
	}
	if _, err := w.ledger.Append(w.Context(), events...); err != nil {
		w.Fatal(err)
	}
}

// target puts a target in place; change makes it other than plain.
func (w *world) target(handle, url string, change ...func(*domain.Target)) {
	w.Helper()
	t := domain.Target{
		Handle: handle, URL: url, Body: `{"n": {{ n|default(0) }}}`,
		Retry: domain.Retry{MaxAttempts: 4, Timeout: domain.Duration(2 * time.Second), Base: domain.Duration(10 * time.Millisecond), Max: domain.Duration(50 * time.Millisecond)},
	}
	for _, f := range change {
		f(&t)
	}
	t.Normalize()
	if err := t.Validate(); err != nil {
		w.Fatal(err)
	}
	w.record(domain.TargetChanged{Target: t})
}

// fire fires a target and gives the delivery's id.
func (w *world) fire(target string, change ...func(*domain.ReactionFired)) uuid.UUID {
	w.Helper()
	f := domain.ReactionFired{Reaction: "r", Target: target, ProfileID: uuid.New(), Cause: "reaction", Context: json.RawMessage(`{"n":1}`)}
	for _, c := range change {
		c(&f)
	}
	id := uuid.New()
	w.recordAs(id, f)
	return domain.DeliveryID(id, target)
}

// until waits for a delivery to be as wanted.
func (w *world) until(id uuid.UUID, what string, holds func(deliveries.Delivery) bool) deliveries.Delivery {
	w.Helper()
	var last deliveries.Delivery
	w.eventually(func() (bool, string) {
		d, err := deliveries.Get(w.Context(), w.db, id)
		if err != nil {
			return false, err.Error()
		}
		last = d
		return holds(d), fmt.Sprintf("delivery %s is %s (%s: %s) after %d attempts, want %s", id, d.Outcome, d.Reason, d.Detail, d.Attempts, what)
	})
	return last
}

func (w *world) outcome(id uuid.UUID, want domain.Outcome) deliveries.Delivery {
	w.Helper()
	return w.until(id, string(want), func(d deliveries.Delivery) bool { return d.Outcome == want })
}

// eventually asks until something holds, for half a minute at most.
func (w *world) eventually(holds func() (ok bool, otherwise string)) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 30*time.Second)
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		ok, otherwise := holds()
		if ok {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			w.Fatal(otherwise)
		}
	}
}

// caughtUp waits until every reader has handled what was recorded.
func (w *world) caughtUp() {
	w.Helper()
	w.eventually(func() (bool, string) {
		var behind int
		err := w.db.QueryRowContext(w.Context(), `SELECT count(*) FROM subscriptions WHERE position < (SELECT max(position) FROM events)`).Scan(&behind)
		return err == nil && behind == 0, fmt.Sprintf("%d readers are behind (%v)", behind, err)
	})
}

// verify holds the projections against their own rebuild, once they have caught up.
func (w *world) verify() {
	w.Helper()
	w.caughtUp()
	report, err := w.engine.Verify(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	for _, p := range report.Problems {
		w.Error(p)
	}
}

// events gives the payloads of a type, in order.
func events[T domain.Payload](w *world, eventType string) (out []T) {
	w.Helper()
	for e, err := range schema.Events(w.Context(), w.db, schema.Filter{Types: []string{eventType}}) {
		if err != nil {
			w.Fatal(err)
		}
		p, err := domain.DecodeAs[T](e.Data, nil)
		if err != nil {
			w.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// sink answers requests as the test says, and remembers them.
type sink struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
	bodies   []string
	inFlight int
	most     int // in flight at once
}

func newSink(t testing.TB, answer func(w http.ResponseWriter, r *http.Request, n int)) *sink {
	s := &sink{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.requests, s.bodies = append(s.requests, r), append(s.bodies, string(body))
		n := len(s.requests)
		s.inFlight++
		s.most = max(s.most, s.inFlight)
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			s.inFlight--
			s.mu.Unlock()
		}()
		answer(w, r, n)
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

func (s *sink) seen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

func accept(w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(http.StatusAccepted) }

// hang keeps a request until its client gives up.
func hang(_ http.ResponseWriter, r *http.Request, _ int) { <-r.Context().Done() }

func TestAnAttemptIsTraced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, accept)
	if _, err := w.vault.SetSecret(t.Context(), w.db, "key", "s3cret-value", "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.vault.SetSecret(t.Context(), w.db, "signer", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "test"); err != nil {
		t.Fatal(err)
	}
	w.target("traced", s.URL, func(t *domain.Target) {
		t.Headers, t.Signing = map[string]string{"Authorization": "Bearer {{ secret('key') }}"}, []string{"signer"}
	})
	w.dispatch()
	d := w.outcome(w.fire("traced"), domain.Succeeded)

	a := d.Trail[0]
	if a.Timings == nil || a.Timings.FirstByte <= 0 || a.Timings.Connect <= 0 || a.BodySHA256 == "" || !strings.HasPrefix(a.Address, "127.0.0.1:") {
		t.Errorf("attempt = %+v with timings %+v, want its parts timed, its body hashed and its address", a, a.Timings)
	}
	r := s.requests[0]
	if got := r.Header.Get("Authorization"); got != "Bearer s3cret-value" {
		t.Errorf("the sink got Authorization %q", got)
	}
	if got := r.Header.Get("Webhook-Signature"); !strings.HasPrefix(got, "v1,") {
		t.Errorf("the sink got webhook-signature %q, want one by the secret", got)
	}
	for e, err := range schema.Events(t.Context(), w.db, schema.Filter{Types: []string{"delivery.attempted"}}) {
		if err != nil {
			t.Fatal(err)
		}
		opened, err := w.vault.OpenEvents(t.Context(), []domain.Recorded{e})
		if err != nil {
			t.Fatal(err)
		}
		got := opened[0].Payload.(domain.DeliveryAttempted).RequestHeaders["Authorization"]
		if len(got) != 1 || got[0] != "Bearer ••••" {
			t.Errorf("the recorded Authorization = %q, want it masked", got)
		}
	}
	w.verify()
}

func TestADeadTargetDelaysNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dead, live := newSink(t, hang), newSink(t, accept)
	w.target("dead", dead.URL, func(t *domain.Target) { t.Limits.Concurrency, t.Retry.Timeout = 64, domain.Duration(time.Minute) })
	w.target("live", live.URL)
	for range 40 {
		w.fire("dead")
	}
	w.dispatch(func(c *dispatcher.Config) { c.Concurrency, c.Drain = 8, time.Millisecond })
	w.eventually(func() (bool, string) { return dead.seen() >= 4, "the dead target was never tried" })
	for range 20 {
		w.outcome(w.fire("live"), domain.Succeeded)
	}
	dead.mu.Lock()
	defer dead.mu.Unlock()
	if dead.most > 4 {
		t.Errorf("the dead target held %d of 8 requests, want at most half", dead.most)
	}
}

func TestARateIsSharedByAllProcesses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var mu sync.Mutex
	var at []time.Time
	s := newSink(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		mu.Lock()
		at = append(at, time.Now())
		mu.Unlock()
		w.WriteHeader(http.StatusAccepted)
	})
	const perSecond, n = 40, 30
	w.target("paced", s.URL, func(t *domain.Target) { t.Limits.Rate = domain.Rate{Count: perSecond, Per: time.Second} })
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = w.fire("paced")
	}
	w.dispatch()
	w.dispatch()
	for _, id := range ids {
		w.outcome(id, domain.Succeeded)
	}
	// A bucket of one interval's tokens, then one token each 25 ms: n requests cannot have been made faster than that.
	const burst = 2
	if took, least := at[n-1].Sub(at[0]), time.Second*(n-1-burst)/perSecond; took < least*9/10 {
		t.Errorf("%d requests of %d a second took %s, want at least %s", n, perSecond, took, least)
	}
}

func TestUrgentGoesFirstAndOrderIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, accept)
	w.target("mixed", s.URL, func(t *domain.Target) { t.Limits.Concurrency, t.Priority = 1, domain.Promotional })
	first := w.fire("mixed")
	w.until(first, "planned", func(d deliveries.Delivery) bool { return d.Outcome == domain.Pending })
	w.target("mixed", s.URL, func(t *domain.Target) { t.Limits.Concurrency, t.Priority = 1, domain.Transactional })
	second := w.fire("mixed")
	w.until(second, "planned", func(d deliveries.Delivery) bool { return d.Outcome == domain.Pending })

	person := uuid.New()
	w.target("ordered", s.URL, func(t *domain.Target) { t.Order = domain.OrderByProfile })
	var ids []uuid.UUID
	for i := range 6 {
		ids = append(ids, w.fire("ordered", func(f *domain.ReactionFired) {
			f.ProfileID, f.Context = person, json.RawMessage(fmt.Sprintf(`{"n":%d}`, 100+i))
		}))
	}
	w.caughtUp() // the queue holds them all
	w.dispatch()
	for _, id := range append(ids, first, second) {
		w.outcome(id, domain.Succeeded)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var mixed, ordered []string
	for i, r := range s.requests {
		if id := r.Header.Get("Webhook-Id"); id == first.String() || id == second.String() {
			mixed = append(mixed, id)
		} else {
			ordered = append(ordered, s.bodies[i])
		}
	}
	if mixed[0] != second.String() {
		t.Error("the promotional message went before the transactional one")
	}
	for i, body := range ordered {
		if want := fmt.Sprintf(`{"n": %d}`, 100+i); body != want {
			t.Errorf("request %d = %s, want %s", i, body, want)
		}
	}
}

func TestAPlatformThatAsksToWaitIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, func(w http.ResponseWriter, _ *http.Request, n int) {
		if n == 1 {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})
	w.target("limited", s.URL)
	w.dispatch()
	first := w.fire("limited")
	w.outcome(first, domain.Held)
	second := w.fire("limited")
	w.outcome(second, domain.Held)
	paused := events[domain.TargetPaused](w, "target.paused")
	if len(paused) != 1 || paused[0].Cause != domain.PausedByLimit || paused[0].RetryAfter != "3600" || paused[0].Status != 429 {
		t.Fatalf("paused = %+v, want one, by the platform's Retry-After", paused)
	}
	if got := s.seen(); got != 1 {
		t.Errorf("the sink saw %d requests, want the one that it answered with 429", got)
	}
	w.record(domain.TargetResumed{Handle: "limited", Reason: "by hand"})
	w.outcome(second, domain.Succeeded)
	w.verify()
}

func TestATargetThatKeepsFailingIsProbed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, func(w http.ResponseWriter, _ *http.Request, n int) {
		if n <= 7 { // three in a row, perhaps some that were in flight with them, then probes
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})
	w.target("failing", s.URL, func(t *domain.Target) {
		t.Breaker, t.Retry.MaxAttempts, t.Limits.Concurrency = domain.Breaker{Failures: 3, Pause: domain.Duration(100 * time.Millisecond)}, 20, 1
	})
	w.dispatch()
	var ids []uuid.UUID
	for range 3 {
		ids = append(ids, w.fire("failing"))
	}
	for _, id := range ids {
		w.outcome(id, domain.Succeeded)
	}
	w.eventually(func() (bool, string) {
		resumed := events[domain.TargetResumed](w, "target.resumed")
		return len(resumed) == 1, fmt.Sprintf("the target was resumed %d times: %+v; paused %+v; %d requests", len(resumed), resumed, events[domain.TargetPaused](w, "target.paused"), s.seen())
	})
	paused := events[domain.TargetPaused](w, "target.paused")
	if len(paused) < 2 || paused[0].Failures < 3 || paused[len(paused)-1].Pauses < 2 {
		t.Errorf("paused = %+v, want one after three failures and a longer one after a probe failed", paused)
	}
	w.verify()
}

func TestWhatIsTooLateIsNotSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, func(w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(http.StatusInternalServerError) })
	w.target("late", s.URL, func(t *domain.Target) {
		t.Retry = domain.Retry{MaxAttempts: 8, Base: domain.Duration(time.Hour), Max: domain.Duration(time.Hour)}
	})
	past := w.fire("late", func(f *domain.ReactionFired) { f.ExpiresAt = time.Now().Add(-time.Minute) })
	soon := w.fire("late", func(f *domain.ReactionFired) { f.ExpiresAt = time.Now().Add(2 * time.Second) })
	later := w.fire("late", func(f *domain.ReactionFired) { f.NotBefore = time.Now().Add(time.Hour) })
	w.dispatch()
	if d := w.outcome(past, domain.Expired); d.Attempts != 0 {
		t.Errorf("what had expired was attempted %d times", d.Attempts)
	}
	if d := w.outcome(soon, domain.Expired); d.Attempts != 1 {
		t.Errorf("what expired between retries was attempted %d times, want once", d.Attempts)
	}
	if d := w.outcome(later, domain.Pending); d.Attempts != 0 {
		t.Errorf("what is not due was attempted %d times", d.Attempts)
	}
	w.verify()
}

func TestAWithdrawnTargetSendsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, accept)
	w.target("gone", s.URL)
	id := w.fire("gone")
	w.until(id, "planned", func(d deliveries.Delivery) bool { return d.Outcome == domain.Pending })
	w.record(domain.TargetDeleted{Handle: "gone", Reason: "no longer used"})
	w.caughtUp()
	w.dispatch()
	if d := w.outcome(id, domain.Withheld); d.Reason != "target_deleted" || s.seen() != 0 {
		t.Errorf("delivery = %s (%s), the sink saw %d requests; want it withheld unsent", d.Outcome, d.Reason, s.seen())
	}
	w.verify()
}

func TestAnOptOutBetweenRetriesWithholdsTheRest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, func(w http.ResponseWriter, _ *http.Request, n int) { w.WriteHeader(http.StatusInternalServerError) })
	w.target("asks", s.URL, func(t *domain.Target) {
		t.Consent = &domain.ConsentRule{Channel: domain.Email, Purpose: "service"}
		t.Retry = domain.Retry{MaxAttempts: 50, Base: domain.Duration(500 * time.Millisecond), Max: domain.Duration(500 * time.Millisecond)}
	})
	person := uuid.New()
	id := w.fire("asks", func(f *domain.ReactionFired) { f.ProfileID = person })
	w.dispatch()
	w.until(id, "attempted", func(d deliveries.Delivery) bool { return d.Attempts > 0 })
	w.record(domain.ConsentChanged{ProfileID: person, Changes: []domain.ConsentChange{{Channel: domain.Email, Purpose: "all", Status: domain.OptedOut}}, DecidedAt: time.Now(), DecidedBy: "customer", Method: "portal"})
	if d := w.outcome(id, domain.Withheld); d.Reason != "consent" {
		t.Errorf("withheld for %s, want consent", d.Reason)
	}
	w.verify()
}

func TestALostAttemptIsRecordedAndRepeated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, accept)
	w.target("lost", s.URL)
	id := w.fire("lost")
	w.until(id, "planned", func(d deliveries.Delivery) bool { return d.Outcome == domain.Pending })
	// A worker that claimed it and died at once.
	claimer := queue.NewClaimer(w.db)
	defer claimer.Close()
	var claims []queue.Claim
	w.eventually(func() (bool, string) {
		var err error
		claims, err = claimer.Due(t.Context(), "dead/1", []queue.Wanted{{Target: "lost", Free: 1, Lease: time.Millisecond}})
		return err == nil && len(claims) == 1, fmt.Sprintf("claimed %d (%v)", len(claims), err)
	})
	w.dispatch()
	d := w.outcome(id, domain.Succeeded)
	if len(d.Trail) != 2 || d.Trail[0].Verdict != domain.Lost || d.Trail[0].Worker != "dead/1" || d.Trail[1].Verdict != domain.Accepted {
		t.Errorf("trail = %+v, want a lost attempt and an accepted one", d.Trail)
	}
	w.verify()
}

func TestAClaimThatIsGivenBackIsNotLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target("given", "http://127.0.0.1:1")
	id := w.fire("given")
	w.until(id, "planned", func(d deliveries.Delivery) bool { return d.Outcome == domain.Pending })
	claimer := queue.NewClaimer(w.db)
	defer claimer.Close()
	want := []queue.Wanted{{Target: "given", Free: 1, Lease: time.Minute}}
	take := func() (claims []queue.Claim) {
		w.eventually(func() (bool, string) {
			var err error
			claims, err = claimer.Due(t.Context(), "a", want)
			return err == nil && len(claims) == 1, fmt.Sprintf("claimed %d (%v)", len(claims), err)
		})
		return claims
	}
	first := take()
	if again, err := claimer.Due(t.Context(), "b", want); err != nil || len(again) != 0 {
		t.Fatalf("a claimed delivery was claimed again: %v, %v", again, err)
	}
	if err := queue.Release(t.Context(), w.db, "b", first); err != nil {
		t.Fatal(err)
	}
	if again, err := claimer.Due(t.Context(), "b", want); err != nil || len(again) != 0 {
		t.Fatalf("another worker's release gave the claim back: %v, %v", again, err)
	}
	if err := queue.Release(t.Context(), w.db, "a", first); err != nil {
		t.Fatal(err)
	}
	if second := take(); second[0].Attempt != 1 {
		t.Errorf("attempt = %d after the claim was given back, want 1 again", second[0].Attempt)
	}
}

func TestDrainRecordsWhatIsInFlight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	arrived, proceed := make(chan struct{}), make(chan struct{})
	s := newSink(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		close(arrived)
		<-proceed
		w.WriteHeader(http.StatusAccepted)
	})
	w.target("slow", s.URL)
	stop := w.dispatch()
	id := w.fire("slow")
	<-arrived
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	close(proceed)
	<-stopped
	if got := events[domain.DeliveryAttempted](w, "delivery.attempted"); len(got) != 1 || got[0].DeliveryID != id || got[0].Outcome != domain.Succeeded {
		t.Errorf("attempts = %+v, want the one in flight, recorded before the dispatcher ended", got)
	}
}
