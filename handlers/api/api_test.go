package api

import (
	"bytes"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
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

var definitions = []projections.Definition{consent.Definition, contacts.Definition, promptness.Definition, deliveries.Definition, queue.Definition, targets.Definition, audit.Definition, suppressions.Definition}

// clock is a clock that stands still until it is moved.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// house is an API over a ledger of its own, with a token for each role.
type house struct {
	t        testing.TB
	api      *api    // as the service's role
	owner    *sql.DB // for what only the operator does to a database
	handler  http.Handler
	clock    *clock
	log      *logBuffer
	registry *prometheus.Registry
	tokens   map[schema.Role]string
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func newHouse(t testing.TB, change ...func(*Config)) *house {
	t.Helper()
	return newHouseOn(t, schematest.Open(t).URL, change...)
}

func newHouseOn(t testing.TB, databaseURL string, change ...func(*Config)) *house {
	t.Helper()
	db, err := schema.Connect(databaseURL, schema.Options{Role: "ledger_service", Paths: projections.Paths("", definitions...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	owner, err := schema.Connect(databaseURL, schema.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = owner.Close() })
	h := &house{t: t, owner: owner, clock: &clock{at: time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)}, log: &logBuffer{}, registry: prometheus.NewRegistry(), tokens: map[schema.Role]string{}}
	if _, err := projections.NewEngine(db, "", nil, definitions...).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	key := make([]byte, 32)
	rand.Read(key)
	master, err := schema.ParseMasterKey(base64.StdEncoding.EncodeToString(key))
	if err != nil {
		t.Fatal(err)
	}
	vault, err := schema.OpenVault(t.Context(), db, master, h.clock.now)
	if err != nil {
		t.Fatal(err)
	}
	tokens := schema.NewTokens(db, h.clock.now)
	for _, role := range schema.Roles {
		if h.tokens[role], _, err = tokens.Create(t.Context(), schema.TokenRequest{Name: "the-" + string(role), Role: role, CreatedBy: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	ledger := schema.OpenLedger(db, slog.New(slog.DiscardHandler), nil)
	t.Cleanup(ledger.Close)
	config := Config{
		Ledger: ledger, Vault: vault, DB: db, Auth: tokens, Registry: h.registry, Clock: h.clock.now, Version: "1.2.3",
		Log: slog.New(slog.NewJSONHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&config)
	}
	if h.api, err = newAPI(config); err != nil {
		t.Fatal(err)
	}
	h.handler = h.api.handler()
	return h
}

// catchUp brings the projections to the head of the ledger.
func (h *house) catchUp() {
	h.t.Helper()
	ctx := h.t.Context()
	head, err := h.api.Ledger.Head(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, live := range projections.NewEngine(h.api.DB, "", nil, definitions...).Live(0) {
		tx, err := h.api.DB.BeginTx(ctx, nil)
		if err != nil {
			h.t.Fatal(err)
		}
		defer tx.Rollback()
		var from int64
		if err := tx.QueryRowContext(ctx, `SELECT position FROM subscriptions WHERE name = $1`, live.Subscription.Name).Scan(&from); err != nil {
			h.t.Fatal(err)
		}
		failure, err := schema.Attempt(ctx, tx, schema.Slice{From: from, To: head}, live.Handle)
		if err != nil || failure != nil {
			h.t.Fatalf("catch up: %v, %+v", err, failure)
		}
		if _, err := tx.ExecContext(ctx, `SELECT move_cursor($1, $2)`, live.Subscription.Name, head); err != nil {
			h.t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			h.t.Fatal(err)
		}
	}
}

// record appends an event of the ledger's own.
func (h *house) record(p domain.Payload) schema.Appended {
	h.t.Helper()
	event, secret, err := domain.New(uuid.New(), p)
	if err != nil {
		h.t.Fatal(err)
	}
	event.Actor, event.Source, event.OccurredAt = "test", "/test", h.clock.now()
	events := []domain.Event{event}
	if err := h.api.Vault.SealEvents(h.t.Context(), events, [][]byte{secret}); err != nil {
		h.t.Fatal(err)
	}
	appended, err := h.api.Ledger.Append(h.t.Context(), events...)
	if err != nil {
		h.t.Fatal(err)
	}
	return appended[0]
}

func (h *house) erase(subject uuid.UUID) {
	h.t.Helper()
	tx, err := h.api.DB.BeginTx(h.t.Context(), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	defer tx.Rollback()
	if err := h.api.Vault.Erase(h.t.Context(), tx, subject, "privacy-desk", "request 17"); err != nil {
		h.t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		h.t.Fatal(err)
	}
}

// call is a request; with changes it before it is sent.
func (h *house) call(role schema.Role, method, path, body string, with ...string) *httptest.ResponseRecorder {
	h.t.Helper()
	r := httptest.NewRequestWithContext(h.t.Context(), method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if role != "" {
		r.Header.Set("Authorization", "Bearer "+h.tokens[role])
	}
	for i := 0; i+1 < len(with); i += 2 {
		if with[i] == "RemoteAddr" { // whose failures are counted apart
			r.RemoteAddr = with[i+1]
			continue
		}
		r.Header.Set(with[i], with[i+1])
	}
	w := httptest.NewRecorder()
	h.handler.ServeHTTP(w, r)
	h.conforms(r, w)
	return w
}

// conforms holds an answer against the description of its operation.
func (h *house) conforms(r *http.Request, w *httptest.ResponseRecorder) {
	h.t.Helper()
	_, pattern := h.api.mux.Handler(r)
	_, path, _ := strings.Cut(pattern, " ")
	item := h.api.huma.OpenAPI().Paths[path]
	if item == nil || !strings.Contains(w.Header().Get("Content-Type"), "json") {
		return
	}
	op := map[string]*huma.Operation{"GET": item.Get, "PUT": item.Put, "POST": item.Post, "DELETE": item.Delete}[r.Method]
	status := strconv.Itoa(w.Code)
	if created := op != nil && op.Responses["201"] != nil && op.Responses["201"].Content != nil; status == "201" && !created {
		status = "200"
	}
	if op == nil || op.Responses[status] == nil {
		h.t.Errorf("%s answers %d, which its description does not say: %s", pattern, w.Code, w.Body)
		return
	}
	for mediaType, content := range op.Responses[status].Content {
		var body any
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || mediaType != w.Header().Get("Content-Type") {
			h.t.Errorf("%s answers %s %q: %v", pattern, w.Header().Get("Content-Type"), w.Body, err)
			return
		}
		var result huma.ValidateResult
		huma.Validate(h.api.huma.OpenAPI().Components.Schemas, content.Schema, huma.NewPathBuffer(nil, 0), huma.ModeReadFromServer, body, &result)
		for _, err := range result.Errors {
			h.t.Errorf("%s answers what its description does not allow: %v (%s)", pattern, err, w.Body)
		}
	}
}

// want reads an answer with a status.
func want[T any](t *testing.T, w *httptest.ResponseRecorder, status int) T {
	t.Helper()
	var v T
	if w.Code != status {
		t.Fatalf("status = %d, want %d: %s", w.Code, status, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("answer %q: %v", w.Body, err)
	}
	return v
}

// problem reads a problem with a status and kind.
func problem(t *testing.T, w *httptest.ResponseRecorder, status int, kind string) Problem {
	t.Helper()
	p := want[Problem](t, w, status)
	if p.Type != urn+kind || p.Status != status || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Fatalf("problem = %s (%s), want %s", w.Body, w.Header().Get("Content-Type"), kind)
	}
	if p.Title == "" || p.NextStep == "" || p.RequestID == "" || p.RequestID != w.Header().Get("X-Request-Id") {
		t.Errorf("problem says too little: %s", w.Body)
	}
	return p
}

const (
	jane      = "8fc344db-713e-4590-ab26-e82d77ba3313"
	firedData = `{"reaction":"reward-earned","target":"klaviyo","profile_id":"` + jane + `","cause":"reaction","context":{"email":"jane@example.com"}}`
)

func cloudEvent(id, eventType, data string) string {
	return `{"specversion":"1.0","id":"` + id + `","source":"/crm","type":"` + eventType + `","data":` + data + `}`
}

type acceptedBody struct {
	Accepted []struct {
		ID        string `json:"id"`
		Position  int64  `json:"position"`
		Duplicate bool   `json:"duplicate"`
	} `json:"accepted"`
}

func TestEventsComeInInEveryMode(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for i, w := range []*httptest.ResponseRecorder{
		h.call("emitter", "POST", "/v1/events", cloudEvent("1", "reaction.fired", firedData), "Content-Type", "application/cloudevents+json"),
		h.call("emitter", "POST", "/v1/events", `[`+cloudEvent("2", "reaction.fired", firedData)+`]`, "Content-Type", "application/cloudevents-batch+json"),
		h.call("emitter", "POST", "/v1/events", firedData, "ce-specversion", "1.0", "ce-id", "3", "ce-source", "/crm", "ce-type", "reaction.fired"),
	} {
		got := want[acceptedBody](t, w, http.StatusAccepted)
		if len(got.Accepted) != 1 || got.Accepted[0].Position != int64(i+1) || got.Accepted[0].ID != string(rune('1'+i)) {
			t.Errorf("answer %d = %s", i, w.Body)
		}
	}
	again := h.call("emitter", "POST", "/v1/events", cloudEvent("2", "reaction.fired", firedData), "Content-Type", "application/cloudevents+json")
	if got := want[acceptedBody](t, again, http.StatusAccepted); got.Accepted[0].Position != 2 || !got.Accepted[0].Duplicate {
		t.Errorf("a repeat is answered %s", again.Body)
	}
	empty := h.call("emitter", "POST", "/v1/events", `[]`, "Content-Type", "application/cloudevents-batch+json")
	if got := strings.TrimSpace(empty.Body.String()); got != `{"accepted":[]}` {
		t.Errorf("a batch of none is answered %s", got)
	}
}

func TestBadEvents(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.Limits.RequestBytes, c.Limits.EventBytes = 4000, 2000 })
	const event, batch = "application/cloudevents+json", "application/cloudevents-batch+json"
	if w := h.call("emitter", "POST", "/v1/events", cloudEvent("taken", "reaction.fired", firedData), "Content-Type", event); w.Code != http.StatusAccepted {
		t.Fatal(w.Body)
	}
	t.Run("refused", func(t *testing.T) {
		for name, tc := range map[string]struct {
			contentType, body string
			status            int
			kind              string
			index             int // -1: no field is named
			pointer           string
		}{
			"a malformed body":               {event, `{"specversion":`, 400, "malformed", -1, ""},
			"an empty body":                  {event, ``, 400, "malformed", -1, ""},
			"an oversized body":              {batch, `[` + strings.Repeat(" ", 5000) + `]`, 413, "too-large", -1, ""},
			"an oversized event":             {batch, `[` + cloudEvent("1", "reaction.fired", `{"a":"`+strings.Repeat("x", 2000)+`"}`) + `]`, 413, "too-large", 0, ""},
			"another media type":             {"text/plain", `hello`, 415, "unsupported-media-type", -1, ""},
			"an unknown type":                {event, cloudEvent("1", "reaction.teleported", `{}`), 422, "unknown-event-type", 0, "/type"},
			"a type of the ledger's own":     {event, cloudEvent("1", "delivery.planned", `{}`), 422, "internal-event-type", 0, "/type"},
			"a repeated id, other content":   {event, cloudEvent("taken", "reaction.fired", strings.Replace(firedData, "jane@", "joan@", 1)), 409, "id-reused", 0, "/id"},
			"the same id twice in one batch": {batch, `[` + cloudEvent("1", "reaction.fired", firedData) + `,` + cloudEvent("1", "reaction.fired", strings.Replace(firedData, "jane@", "joan@", 1)) + `]`, 409, "id-reused", 1, "/id"},
			"a context that is no object":    {batch, `[` + cloudEvent("1", "reaction.fired", firedData) + `,` + cloudEvent("2", "reaction.fired", strings.Replace(firedData, `{"email":"jane@example.com"}`, `["jane@example.com"]`, 1)) + `]`, 422, "invalid", 1, "/data/context"},
			"an address that is none":        {event, cloudEvent("1", "consent.changed", `{"profile_id":"`+jane+`","changes":[{"channel":"email","purpose":"promo","status":"opted_out"}],"decided_at":"2026-11-23T04:05:06Z","decided_by":"customer","contact":{"email":"jane@example.com@"}}`), 422, "invalid", 0, "/data/contact/email"},
			"a batch that is none":           {batch, cloudEvent("1", "reaction.fired", firedData), 422, "invalid", 0, ""},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := h.call("emitter", "POST", "/v1/events", tc.body, "Content-Type", tc.contentType)
				p := problem(t, w, tc.status, tc.kind)
				if strings.Contains(w.Body.String(), "example.com") {
					t.Errorf("the answer repeats personal data: %s", w.Body)
				}
				if tc.index < 0 {
					if p.Errors != nil {
						t.Errorf("errors = %+v, want none", p.Errors)
					}
					return
				}
				if len(p.Errors) != 1 || p.Errors[0].Index == nil || *p.Errors[0].Index != tc.index || p.Errors[0].Pointer != tc.pointer || p.Errors[0].Detail == "" {
					t.Errorf("errors = %s, want event %d at %q", w.Body, tc.index, tc.pointer)
				}
			})
		}
	})
	if head, err := h.api.Ledger.Head(t.Context()); err != nil || head != 1 {
		t.Errorf("head = %d, %v, want 1: refused requests leave nothing behind", head, err)
	}
}

func TestBodiesThatWouldTakeTooMuchMemoryAreHeldBack(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.Limits.RequestBytes, c.Limits.EventBytes, c.Inflight = 4000, 2000, 5000 })
	reader, writer := io.Pipe()
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/events", reader) // of unknown length
	r.Header.Set("Content-Type", "application/cloudevents+json")
	r.Header.Set("Authorization", "Bearer "+h.tokens["emitter"])
	slow := httptest.NewRecorder()
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.handler.ServeHTTP(slow, r)
	}()
	event := cloudEvent("1", "reaction.fired", firedData)
	if _, err := writer.Write([]byte(event[:10])); err != nil { // it is being read: it is counted
		t.Fatal(err)
	}
	large := `[` + strings.Repeat(" ", 3000) + `]`
	w := h.call("emitter", "POST", "/v1/events", large, "Content-Type", "application/cloudevents-batch+json")
	problem(t, w, http.StatusServiceUnavailable, "busy")
	if w.Header().Get("Retry-After") == "" {
		t.Error("a 503 without Retry-After")
	}
	if _, err := writer.Write([]byte(event[10:])); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	<-done
	want[acceptedBody](t, slow, http.StatusAccepted)
	want[acceptedBody](t, h.call("emitter", "POST", "/v1/events", large, "Content-Type", "application/cloudevents-batch+json"), http.StatusAccepted)
}

func TestNothingPersonalIsLogged(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.call("emitter", "POST", "/v1/events", cloudEvent("1", "reaction.fired", firedData), "Content-Type", "application/cloudevents+json")
	h.call("emitter", "POST", "/v1/events", cloudEvent("2", "reaction.fired", strings.Replace(firedData, jane, "jane@example.com", 1)), "Content-Type", "application/cloudevents+json")
	h.call("operator", "GET", "/v1/deliveries?profile="+jane, "")
	h.call("operator", "GET", "/v1/profiles/"+jane+"/consent", "")
	h.call("", "GET", "/v1/deliveries", "", "Authorization", "Bearer dl_wrong")
	text := h.log.String()
	if strings.Count(text, `"msg":"request"`) != 5 {
		t.Errorf("log = %s, want a line for each request", text)
	}
	for _, private := range []string{"jane", jane, "dl_", h.tokens["emitter"]} {
		if strings.Contains(text, private) {
			t.Errorf("the log holds %q: %s", private, text)
		}
	}
}

func TestADatabaseThatGoesAwayIsSaidToBeAndComesBack(t *testing.T) {
	t.Parallel()
	server := schematest.NewServer(t)
	db, err := schema.Connect(server.URL, schema.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := schema.Migrate(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	h := newHouseOn(t, server.URL)
	send := func(id string) *httptest.ResponseRecorder {
		return h.call("emitter", "POST", "/v1/events", cloudEvent(id, "reaction.fired", firedData), "Content-Type", "application/cloudevents+json")
	}
	want[acceptedBody](t, send("before"), http.StatusAccepted)

	// Requests are on their way while the server dies.
	const callers = 8
	answers := make([]*httptest.ResponseRecorder, callers)
	var wg sync.WaitGroup
	started := make(chan struct{}, callers)
	for i := range callers {
		wg.Go(func() {
			started <- struct{}{}
			for n := 0; answers[i] == nil || answers[i].Code == http.StatusAccepted; n++ {
				answers[i] = send("mid-" + string(rune('a'+i)) + "-" + uuid.NewString())
			}
		})
	}
	for range callers {
		<-started
	}
	server.Kill()
	wg.Wait()
	for _, w := range answers {
		problem(t, w, http.StatusServiceUnavailable, "unavailable")
		if w.Header().Get("Retry-After") == "" {
			t.Error("a 503 without Retry-After")
		}
	}
	problem(t, send("while it is away"), http.StatusServiceUnavailable, "unavailable")
	problem(t, h.call("operator", "GET", "/v1/events", ""), http.StatusServiceUnavailable, "unavailable")
	if w := h.call("", "GET", "/readyz", ""); w.Code != http.StatusServiceUnavailable {
		t.Errorf("readyz = %d without a database", w.Code)
	}
	if w := h.call("", "GET", "/healthz", ""); w.Code != http.StatusOK {
		t.Errorf("healthz = %d without a database, want the process to be alive all the same", w.Code)
	}

	server.Restart()
	got := want[acceptedBody](t, send("while it is away"), http.StatusAccepted)
	if got.Accepted[0].Duplicate {
		t.Error("what was refused stands in the ledger")
	}
	if again := want[acceptedBody](t, send("before"), http.StatusAccepted); again.Accepted[0].Position != 1 || !again.Accepted[0].Duplicate {
		t.Errorf("what was accepted before = %+v", again)
	}
	if w := h.call("", "GET", "/readyz", ""); w.Code != http.StatusOK {
		t.Errorf("readyz = %d %s after the database came back", w.Code, w.Body)
	}
}
