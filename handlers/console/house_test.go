package console

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/inspector"
	_ "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/all" // of the targets
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/contacts"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/projections/promptness"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

var definitions = []projections.Definition{
	targets.Definition, consent.Definition, contacts.Definition, deliveries.Definition, queue.Definition, audit.Definition, suppressions.Definition, promptness.Definition,
}

// house is a console over a ledger of its own, with a token for each role.
type house struct {
	t       testing.TB
	console *console
	service *api.Service
	ledger  *schema.Ledger
	vault   *schema.Vault
	engine  *projections.Engine
	server  *httptest.Server
	tokens  map[schema.Role]string
	people  []uuid.UUID
	sent    map[string]uuid.UUID // a delivery by what it is an example of
	runs    map[string]uuid.UUID // a reconciliation by its state
	finding uuid.UUID            // that waits for a decision
}

func newHouse(t testing.TB, change ...func(*Config)) *house {
	t.Helper()
	db, err := schema.Connect(schematest.Open(t).URL, schema.Options{Role: "ledger_service", Paths: projections.Paths("", definitions...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	h := &house{t: t, tokens: map[schema.Role]string{}, sent: map[string]uuid.UUID{}, runs: map[string]uuid.UUID{}}
	h.engine = projections.NewEngine(db, "", nil, definitions...)
	if _, err := h.engine.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	key := make([]byte, 32)
	rand.Read(key)
	master, err := schema.ParseMasterKey(base64.StdEncoding.EncodeToString(key))
	if err != nil {
		t.Fatal(err)
	}
	if h.vault, err = schema.OpenVault(t.Context(), db, master, time.Now); err != nil {
		t.Fatal(err)
	}
	tokens := schema.NewTokens(db, time.Now)
	for _, role := range schema.Roles {
		if h.tokens[role], _, err = tokens.Create(t.Context(), schema.TokenRequest{Name: "the-" + string(role), Role: role, CreatedBy: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	h.ledger = schema.OpenLedger(db, slog.New(slog.DiscardHandler), nil)
	t.Cleanup(h.ledger.Close)
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	look := inspector.New(schema.NewInspector(db, h.vault, time.Now), log)
	h.service, err = api.Open(api.Config{Ledger: h.ledger, Vault: h.vault, DB: db, Auth: tokens, Projections: h.engine, Log: log, Version: "test", Inspector: look})
	if err != nil {
		t.Fatal(err)
	}
	config := Config{Service: h.service, DB: db, Ledger: h.ledger, Sessions: schema.NewSessions(db, time.Now), Tokens: tokens, Log: log, Version: "test"}
	for _, c := range change {
		c(&config)
	}
	if h.console, err = newConsole(config); err != nil {
		t.Fatal(err)
	}
	pages := http.NewServeMux()
	pages.Handle("/inspector/", look)
	pages.Handle("/", h.console.handler())
	h.server = httptest.NewServer(h.service.Handler(pages))
	t.Cleanup(h.server.Close)
	return h
}

// record appends events and gives the last one's id and position.
func (h *house) record(actor string, payloads ...domain.Payload) (id uuid.UUID, position int64) {
	h.t.Helper()
	for _, p := range payloads {
		event, secret, err := domain.New(uuid.New(), p)
		if err != nil {
			h.t.Fatal(err)
		}
		event.Actor, event.Source, event.OccurredAt = actor, "/test", time.Now()
		if c, ok := p.(domain.ConsentChanged); ok {
			event.OccurredAt = c.DecidedAt
		}
		events := []domain.Event{event}
		if err := h.vault.SealEvents(h.t.Context(), events, [][]byte{secret}); err != nil {
			h.t.Fatal(err)
		}
		appended, err := h.ledger.Append(h.t.Context(), events...)
		if err != nil {
			h.t.Fatal(err)
		}
		id, position = event.ID, appended[0].Position
	}
	return id, position
}

// catchUp brings the projections to the head of the ledger.
func (h *house) catchUp() {
	h.t.Helper()
	ctx, db := h.t.Context(), h.console.DB
	for _, live := range h.engine.Live(0) {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			h.t.Fatal(err)
		}
		defer tx.Rollback()
		var from, to int64
		if err := tx.QueryRowContext(ctx, `SELECT position, (SELECT coalesce(max(position), 0) FROM events) FROM subscriptions WHERE name = $1 FOR UPDATE`, live.Subscription.Name).Scan(&from, &to); err != nil {
			h.t.Fatal(err)
		}
		if to <= from {
			_ = tx.Rollback()
			continue
		}
		failure, err := schema.Attempt(ctx, tx, schema.Slice{From: from, To: to}, live.Handle)
		if err != nil || failure != nil {
			h.t.Fatal(live.Subscription.Name, err, failure)
		}
		if _, err := tx.ExecContext(ctx, `SELECT move_cursor($1, $2)`, live.Subscription.Name, to); err != nil {
			h.t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			h.t.Fatal(err)
		}
	}
}

const templateBody = `{
  "metric": "Reward Earned",
  "profile": {"email": "{{ profile.email }}", "first_name": "{{ profile.first_name|default('there') }}"},
  {# what it is worth #}
  "value": {{ reward.amount }},
  "expires": "{{ reward.expires_at|date('j F Y') }}"
}`

// furnish fills the ledger with something of everything.
func (h *house) furnish() {
	h.t.Helper()
	target := func(body, reason string) domain.TargetChanged {
		changed, err := domain.ParseTarget(fmt.Appendf(nil, `{"name": "Klaviyo: Reward Earned", "platform": "klaviyo", "url": "https://a.klaviyo.com/api/events",
			"headers": {"Authorization": "Klaviyo-API-Key {{ secret('klaviyo_private_key') }}", "revision": "2026-07-15"}, "body": %q,
			"consent": {"channel": "email", "purpose": "promo"}, "retry": {"max_attempts": 6, "timeout": "5s"}, "limits": {"rate": "50/s"}, "reason": %q}`, body, reason), "klaviyo-reward-earned")
		if err != nil {
			h.t.Fatal(err)
		}
		return changed
	}
	if _, err := h.vault.SetSecret(h.t.Context(), h.console.DB, "klaviyo_private_key", "pk_hush", "test"); err != nil {
		h.t.Fatal(err)
	}
	h.record("ada", target(strings.Replace(templateBody, "{{ reward.amount }}", "{{ reward.value }}", 1), "first version"), target(templateBody, "the amount has another name"))
	for range 6 {
		h.people = append(h.people, uuid.New())
	}
	answer := func(i, days int, by, method string, changes ...domain.ConsentChange) domain.ConsentChanged {
		return domain.ConsentChanged{ProfileID: h.people[i], DecidedAt: time.Now().AddDate(0, 0, -days), DecidedBy: by, Method: method, Changes: changes}
	}
	email := func(s domain.ConsentStatus) domain.ConsentChange {
		return domain.ConsentChange{Channel: domain.Email, Purpose: domain.Promo, Status: s}
	}
	h.record("crm",
		answer(0, 90, "customer", "preference_centre", email(domain.OptedIn), domain.ConsentChange{Channel: domain.SMS, Purpose: domain.PurposeAll, Status: domain.OptedIn}, domain.ConsentChange{Channel: domain.Email, Purpose: domain.Benefits, Status: domain.OptedIn}),
		answer(0, 40, "staff", "pos", domain.ConsentChange{Channel: domain.SMS, Purpose: domain.PurposeAll, Status: domain.OptedOut}),
		answer(0, 3, "customer", "preference_centre", domain.ConsentChange{Channel: domain.Post, Purpose: domain.Promo, Status: domain.OptedOut}),
		answer(1, 10, "import", "csv", email(domain.OptedOut)), answer(2, 20, "customer", "sms_keyword", email(domain.OptedIn)))
	for i := range 60 {
		f := domain.Firing{
			FiringID: uuid.New(), FiringPosition: 3, Reaction: []string{"reward-earned", "birthday"}[i%2], Trigger: "reward.created", Cause: "reaction", Target: "klaviyo-reward-earned", TargetVersion: int64(1 + i/30),
			Platform: "klaviyo", ProfileID: h.people[i%len(h.people)],
		}
		if i == 55 { // one that the reaction engine really sent
			f.FiringID, f.FiringPosition = h.record("engine", domain.ReactionFired{
				Reaction: f.Reaction, Target: f.Target, ProfileID: f.ProfileID, Trigger: f.Trigger, Cause: f.Cause,
				Context: []byte(`{"profile": {"email": "grace@example.com", "first_name": "Grace"}, "reward": {"amount": 25, "expires_at": "2027-01-31"}}`),
			})
		}
		id := domain.DeliveryID(f.FiringID, f.Target)
		decided := time.Now().AddDate(0, 0, -90)
		allowed := domain.Decision{Decision: domain.DecisionAllowed, Reason: "opted_in", Channel: domain.Email, Purpose: domain.Promo, Status: domain.OptedIn, DecidedBy: "customer", DecidedAt: &decided, Position: 3, AsOf: 7}
		planned := domain.DeliveryPlanned{
			DeliveryID: id, Firing: f, Consent: allowed, BodySHA256: strings.Repeat("9f86d081", 8), BodyBytes: 512, MaxAttempts: 6,
			URL: "https://a.klaviyo.com/api/events", Headers: map[string]string{"revision": "2026-07-15"}, Body: `{"email":"ada@example.com"}`,
		}
		attempt := func(n, status int, verdict domain.Verdict, outcome domain.Outcome, reason string) domain.DeliveryAttempted {
			a := domain.DeliveryAttempted{
				DeliveryID: id, Target: f.Target, ProfileID: f.ProfileID, Attempt: n, StartedAt: time.Now(), DurationMS: 20 + float64(i*i%300), Status: status, Verdict: verdict, Outcome: outcome,
				Reason: reason, Address: "198.51.100.7:443", Worker: "host-1/4711", ResponseBody: `{"id":"ada@example.com"}`,
			}
			if outcome == domain.Retrying {
				at := time.Now().Add(time.Minute)
				a.NextAttemptAt = &at
			}
			return a
		}
		kind := "succeeded"
		switch {
		case i == 55:
			kind = "fired"
			h.record("dispatcher", planned, attempt(1, 202, domain.Accepted, domain.Succeeded, "Klaviyo validated and queued it"))
		case i%10 == 3:
			kind = "withheld"
			d := domain.Decision{Decision: domain.DecisionWithheld, Reason: "opted_out", Channel: domain.Email, Purpose: domain.Promo, Status: domain.OptedOut, DecidedBy: "import", DecidedAt: &decided, Position: 6, AsOf: 7}
			h.record("planner", domain.DeliveryWithheld{DeliveryID: id, Firing: f, Reason: "consent", Detail: d.Explain(), Consent: d})
		case i%20 == 4:
			kind = "rejected"
			h.record("planner", domain.DeliveryRejected{DeliveryID: id, Firing: f, Reason: "template_error", Detail: "the body's template fails at line 5, column 12: reward.amount is not a number", Part: "body", Line: 5, Column: 12, Unresolved: []domain.Unresolved{{Name: "reward.expires_at", Part: "body", Line: 6, Column: 18}}})
		case i%15 == 5:
			kind = "failed"
			h.record("dispatcher", planned, attempt(1, 429, domain.RetryLater, domain.Retrying, "Klaviyo is rate limiting the account"), attempt(2, 400, domain.Permanent, domain.Failed, "Klaviyo refuses the body: email is not valid"))
		case i == 7:
			kind = "unknown"
			h.record("dispatcher", planned, attempt(1, 0, domain.Timeout, domain.Failed, "no answer within 5 s"))
		case i == 8:
			kind = "against"
			planned.Consent = domain.Decision{Decision: domain.DecisionFlagged, Reason: "opted_out", Channel: domain.Email, Purpose: domain.Promo, Status: domain.OptedOut, DecidedBy: "import", DecidedAt: &decided, Position: 6, AsOf: 7}
			h.record("dispatcher", planned, attempt(1, 202, domain.Accepted, domain.Succeeded, ""))
		case i > 55:
			kind = "pending"
			h.record("planner", planned)
		default:
			h.record("dispatcher", planned, attempt(1, 202, domain.Accepted, domain.Succeeded, "Klaviyo validated and queued it"))
		}
		h.sent[kind] = id
	}
	h.furnishPlatforms()
	h.catchUp()
}

// client signs in as a role and gives a client that carries its session.
func (h *house) client(role schema.Role) *visitor {
	h.t.Helper()
	v := &visitor{h: h, address: fmt.Sprintf("198.51.100.%d:4711", 1+len(role))}
	w := v.post("/login", url.Values{"token": {h.tokens[role]}})
	if w.Code != http.StatusSeeOther {
		h.t.Fatalf("signing in as %s: %d %s", role, w.Code, w.Body)
	}
	for _, cookie := range w.Result().Cookies() {
		if cookie.Name == cookieName {
			v.cookie = cookie
		}
	}
	if v.cookie == nil {
		h.t.Fatalf("signing in as %s gives no cookie", role)
	}
	return v
}

// visitor is a browser without eyes.
type visitor struct {
	h       *house
	cookie  *http.Cookie
	address string
}

func (v *visitor) do(r *http.Request) *httptest.ResponseRecorder {
	if v.cookie != nil {
		r.AddCookie(v.cookie)
	}
	if v.address != "" {
		r.RemoteAddr = v.address
	}
	w := httptest.NewRecorder()
	v.h.server.Config.Handler.ServeHTTP(w, r)
	return w
}

func (v *visitor) get(path string) *httptest.ResponseRecorder {
	return v.do(httptest.NewRequestWithContext(v.h.t.Context(), http.MethodGet, path, nil))
}

func (v *visitor) post(path string, form url.Values, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(v.h.t.Context(), http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return v.do(r)
}
