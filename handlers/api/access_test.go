package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// routes says who may use which route, role by role, as the documentation tells it. It is written down a second time
// on purpose: a change of access is a change of both.
var routes = map[string]struct {
	route string
	roles string // e, o, c, p, n (analyst), a; * is everybody, without a token too; signed is by signature
}{
	"accept-events":        {"POST /v1/events", "eoa"},
	"list-events":          {"GET /v1/events", "ocpa"},
	"stream":               {"GET /v1/stream", "ocpa"},
	"get-event":            {"GET /v1/events/{position}", "ocpa"},
	"get-checkpoint":       {"GET /v1/checkpoint", "*"},
	"get-proof":            {"GET /v1/events/{position}/proof", "ocpa"},
	"list-targets":         {"GET /v1/targets", "ocna"},
	"get-target":           {"GET /v1/targets/{handle}", "ocna"},
	"put-target":           {"PUT /v1/targets/{handle}", "oa"},
	"delete-target":        {"DELETE /v1/targets/{handle}", "oa"},
	"disable-target":       {"POST /v1/targets/{handle}/disable", "oa"},
	"enable-target":        {"POST /v1/targets/{handle}/enable", "oa"},
	"list-target-versions": {"GET /v1/targets/{handle}/versions", "ocna"},
	"preview-target":       {"POST /v1/targets/{handle}/preview", "oa"},
	"diff-target":          {"GET /v1/targets/{handle}/diff", "ocna"},
	"roll-back-target":     {"POST /v1/targets/{handle}/rollback", "oa"},
	"move-target":          {"POST /v1/targets/{handle}/url", "oa"},

	"test-target":       {"POST /v1/targets/{handle}/test", "oa"},
	"open-past-context": {"POST /v1/contexts", "oa"},
	"list-bins":         {"GET /v1/inspector", "oa"},
	"create-bin":        {"POST /v1/inspector", "oa"},
	"list-bin-requests": {"GET /v1/inspector/{bin}/requests", "oa"},
	"delete-bin":        {"DELETE /v1/inspector/{bin}", "oa"},

	"list-proposals":          {"GET /v1/proposals", "ocna"},
	"list-target-proposals":   {"GET /v1/targets/{handle}/proposals", "ocna"},
	"get-target-proposal":     {"GET /v1/targets/{handle}/proposals/{number}", "ocna"},
	"approve-target-proposal": {"POST /v1/targets/{handle}/proposals/{number}/approve", "oca"},
	"decline-target-proposal": {"POST /v1/targets/{handle}/proposals/{number}/decline", "oca"},

	"list-partials":             {"GET /v1/partials", "ocna"},
	"get-partial":               {"GET /v1/partials/{name}", "ocna"},
	"list-partial-versions":     {"GET /v1/partials/{name}/versions", "ocna"},
	"put-partial":               {"PUT /v1/partials/{name}", "oa"},
	"delete-partial":            {"DELETE /v1/partials/{name}", "oa"},
	"list-platforms":            {"GET /v1/platforms", "ocpna"},
	"get-platform":              {"GET /v1/platforms/{name}", "ocpna"},
	"put-platform":              {"PUT /v1/platforms/{name}", "oa"},
	"receive-webhook":           {"POST /v1/hooks/{platform}", "*"},
	"list-reconciliations":      {"GET /v1/reconciliations", "ocna"},
	"start-reconciliation":      {"POST /v1/reconciliations", "oa"},
	"get-reconciliation":        {"GET /v1/reconciliations/{id}", "ocna"},
	"approve-reconciliation":    {"POST /v1/reconciliations/{id}/approval", "oa"},
	"stop-reconciliation":       {"POST /v1/reconciliations/{id}/stop", "oa"},
	"list-findings":             {"GET /v1/findings", "ocpa"},
	"get-finding":               {"GET /v1/findings/{id}", "ocpa"},
	"resolve-finding":           {"POST /v1/findings/{id}/resolution", "opa"},
	"resolve-findings":          {"POST /v1/findings/resolutions", "opa"},
	"list-profile-suppressions": {"GET /v1/profiles/{id}/suppressions", "ocpa"},

	"list-reconciliation-findings": {"GET /v1/reconciliations/{id}/findings", "ocpa"},

	"get-consent":            {"GET /v1/profiles/{id}/consent", "ocpa"},
	"put-consent":            {"PUT /v1/profiles/{id}/consent", "opa"},
	"get-consent-history":    {"GET /v1/profiles/{id}/history", "ocpa"},
	"list-consent-fields":    {"GET /v1/consent/fields", "ocpna"},
	"get-consent-policy":     {"GET /v1/consent/policy", "ocpna"},
	"put-consent-policy":     {"PUT /v1/consent/policy", "a"},
	"list-addresses":         {"GET /v1/profiles/{id}/addresses", "ocpa"},
	"list-opt-outs":          {"GET /v1/consent/opt-outs", "ocpa"},
	"sum-opt-outs":           {"GET /v1/consent/opt-outs/report", "ocpna"},
	"import-consent":         {"POST /v1/consent/imports", "opa"},
	"take-omneo-hook":        {"POST /v1/hooks/omneo", "signed"},
	"list-deliveries":        {"GET /v1/deliveries", "ocpna"},
	"get-delivery":           {"GET /v1/deliveries/{id}", "ocpna"},
	"retry-delivery":         {"POST /v1/deliveries/{id}/retry", "oa"},
	"cancel-delivery":        {"POST /v1/deliveries/{id}/cancel", "opa"},
	"replay-deliveries":      {"POST /v1/replays", "oa"},
	"list-replays":           {"GET /v1/replays", "ocpna"},
	"get-replay":             {"GET /v1/replays/{id}", "ocpna"},
	"cancel-replay":          {"POST /v1/replays/{id}/cancel", "oa"},
	"list-queue":             {"GET /v1/queue", "ocna"},
	"pause-target":           {"POST /v1/targets/{handle}/pause", "oa"},
	"resume-target":          {"POST /v1/targets/{handle}/resume", "oa"},
	"discard-held":           {"POST /v1/targets/{handle}/discard", "oa"},
	"describe-retries":       {"POST /v1/retry-schedules", "ocna"},
	"audit-outcomes":         {"GET /v1/audit/outcomes", "ocpna"},
	"audit-unknown-outcomes": {"GET /v1/audit/unknown-outcomes", "ocpna"},
	"audit-consent-changes":  {"GET /v1/audit/consent-changes", "ocpa"},
	"get-verification":       {"GET /v1/verification", "ocpa"},
	"start-verification":     {"POST /v1/verification", "oca"},
	"get-evidence":           {"GET /v1/deliveries/{id}/evidence", "ocpa"},
	"list-tokens":            {"GET /v1/tokens", "ca"},
	"create-token":           {"POST /v1/tokens", "a"},
	"revoke-token":           {"POST /v1/tokens/{name}/revoke", "a"},
	"list-secrets":           {"GET /v1/secrets", "oca"},
	"put-secret":             {"PUT /v1/secrets/{name}", "oa"},
	"retire-secret":          {"POST /v1/secrets/{name}/retire", "oa"},
	"delete-secret":          {"DELETE /v1/secrets/{name}", "oa"},
	"erase-profile":          {"POST /v1/profiles/{id}/erasure", "pa"},
	"access-profile":         {"GET /v1/profiles/{id}/access", "pa"},
	"access-page":            {"GET /v1/profiles/{id}/access.html", "pa"},
	"reveal-event":           {"POST /v1/events/{position}/reveal", "cpa"},
	"reveal-delivery":        {"POST /v1/deliveries/{id}/reveal", "cpa"},
	"list-retentions":        {"GET /v1/retentions", "ocpa"},
	"put-retention":          {"PUT /v1/retentions/{type}", "pa"},
	"list-projections":       {"GET /v1/projections", "ocna"},
	"health":                 {"GET /healthz", "*"},
	"ready":                  {"GET /readyz", "*"},
	"metrics":                {"GET /metrics", "*"},
	"openapi":                {"GET /openapi.json", "*"},
	"docs":                   {"GET /docs", "*"},
	"docs-style":             {"GET /docs/style.css", "*"},

	"get-tile":           {"GET /v1/tile/{path...}", "*"},
	"rebuild-projection": {"POST /v1/projections/{name}/rebuild", "ona"},
	"resume-reader":      {"POST /v1/projections/{name}/resume", "oa"},
	"skip-event":         {"POST /v1/projections/{name}/skip", "oa"},
}

var letters = map[schema.Role]string{
	schema.RoleEmitter: "e", schema.RoleOperator: "o", schema.RoleCompliance: "c",
	schema.RolePrivacy: "p", schema.RoleAnalyst: "n", schema.RoleAdmin: "a", schema.RoleDispatcher: "d",
}

func TestEveryRouteForEveryRole(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for operation, pattern := range h.api.served {
		if want, ok := routes[operation]; !ok || want.route != pattern {
			t.Errorf("operation %s serves %s, which the table has as %q", operation, pattern, want.route)
		}
	}
	for operation := range access {
		if _, ok := h.api.served[operation]; !ok {
			t.Errorf("access names %s, which nothing serves", operation)
		}
	}
	fill := strings.NewReplacer("{bin}", "nowhere", "{position}", "1", "{handle}", "nobody", "{number}", "1", "{name}", "nobody", "{path...}", "0/000.p/1", "{platform}", "nobody", "{id}", jane)
	number := 0
	for operation, want := range routes {
		number++
		address := fmt.Sprintf("198.51.100.%d:4711", number) // its own, or the failures of all would add up to a lockout
		method, path, _ := strings.Cut(fill.Replace(want.route), " ")
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			if want.roles == "signed" {
				problem(t, h.call("", method, path, "{}"), http.StatusServiceUnavailable, "hook-not-set-up")
				return
			}
			if want.roles == "*" {
				if w := h.call("", method, path, ""); w.Code != http.StatusOK && w.Code != http.StatusNotFound && w.Code != http.StatusBadRequest {
					t.Errorf("without a token: %d %s", w.Code, w.Body)
				}
				return
			}
			for _, authorization := range []string{"", "Bearer dl_wrong", "Basic YTpi", "Bearer", "Bearer "} {
				w := h.call("", method, path, "", "Authorization", authorization, "RemoteAddr", address)
				problem(t, w, http.StatusUnauthorized, "unauthenticated")
				if w.Header().Get("WWW-Authenticate") == "" {
					t.Errorf("%q: a 401 without WWW-Authenticate", authorization)
				}
			}
			for _, role := range schema.Roles {
				w := h.call(role, method, path, "")
				allowed := strings.Contains(want.roles, letters[role])
				if refused := w.Code == http.StatusForbidden; refused == allowed || w.Code == http.StatusUnauthorized || w.Code >= 500 {
					t.Errorf("%s: status %d, want it allowed: %v (%s)", role, w.Code, allowed, w.Body)
				}
				if w.Code == http.StatusForbidden {
					if p := problem(t, w, http.StatusForbidden, "forbidden"); !strings.Contains(p.Detail, "admin") {
						t.Errorf("%s: detail %q does not say who may", role, p.Detail)
					}
				}
			}
		})
	}
}

func TestAnOperationWithoutARuleIsNotServed(t *testing.T) {
	t.Parallel()
	a := &api{mux: http.NewServeMux(), served: map[string]string{}}
	a.handle("back-door", "/back-door", http.NotFoundHandler())
	if a.errs == nil || len(a.served) != 0 {
		t.Errorf("served %v, errors %v", a.served, a.errs)
	}
}

// guests knows the tokens that begin with "good" and counts what it is asked.
type guests struct {
	asked int
	err   error
}

func (g *guests) Authenticate(_ context.Context, token string) (schema.Token, error) {
	g.asked++
	switch {
	case g.err != nil:
		return schema.Token{}, g.err
	case strings.HasPrefix(token, "good"):
		return schema.Token{Name: token, Role: schema.RoleOperator}, nil
	}
	return schema.Token{}, schema.ErrUnknownToken
}

func TestAnAddressThatKeepsFailingIsLockedOut(t *testing.T) {
	t.Parallel()
	g, hands := &guests{}, &clock{at: time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)}
	d, err := newDoorman(g, hands.now)
	if err != nil {
		t.Fatal(err)
	}
	try := func(address, token string) error {
		_, err := d.admit(t.Context(), "Bearer "+token, address, only(operator))
		return err
	}
	const here, there = "198.51.100.7:4711", "203.0.113.9:4711"
	if err := try(here, "good-one"); err != nil {
		t.Fatal(err)
	}
	for range failuresMax {
		if err := try(here, "wrong"); !errors.Is(err, errUnauthenticated) {
			t.Fatalf("a wrong token: %v", err)
		}
	}
	asked := g.asked
	var p *Problem
	if err := try("198.51.100.7:9999", "wrong"); !errors.As(err, &p) || p.Status != http.StatusTooManyRequests || p.header.Get("Retry-After") != "6" {
		t.Errorf("after %d failures: %v, want a lockout of 6 s", failuresMax, err)
	}
	if err := try(here, "good-two"); !errors.Is(err, errLocked) {
		t.Errorf("a new token from a locked address: %v, want it locked out", err)
	}
	if g.asked != asked {
		t.Error("a locked address costs look-ups")
	}
	if err := try(here, "good-one"); err != nil {
		t.Errorf("a token that was accepted from there lately: %v, want it let in", err)
	}
	if err := try(there, "good-two"); err != nil {
		t.Errorf("another address: %v, want it let in", err)
	}
	hands.move(failureInterval)
	if err := try(here, "good-two"); err != nil {
		t.Errorf("after its time: %v, want it let in", err)
	}
}

func TestAMissingTokenIsNoFailureAndALostDatabaseNeither(t *testing.T) {
	t.Parallel()
	g := &guests{err: schema.ErrUnavailable}
	d, err := newDoorman(g, (&clock{}).now)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * failuresMax {
		if _, err := d.admit(t.Context(), "", "198.51.100.7:1", only()); !errors.Is(err, errUnauthenticated) {
			t.Fatal(err)
		}
		if _, err := d.admit(t.Context(), "Bearer good", "198.51.100.7:1", only()); !errors.Is(err, schema.ErrUnavailable) {
			t.Fatalf("while tokens cannot be looked up: %v", err)
		}
	}
}

func TestAddressesAreCountedByWhatOneClientHas(t *testing.T) {
	t.Parallel()
	for _, tc := range [][2]string{
		{"198.51.100.7:1", "198.51.100.7"},
		{"[2001:db8:1:2:3:4:5:6]:1", "2001:db8:1:2::"},
		{"[::ffff:198.51.100.7]:1", "::ffff:198.51.100.7"},
		{"@", "@"},
	} {
		if got := host(tc[0]); got != tc[1] {
			t.Errorf("host(%s) = %s, want %s", tc[0], got, tc[1])
		}
	}
}

func TestProblemsAreOneTable(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for i, k := range problems {
		for _, earlier := range problems[:i] {
			if errors.Is(k.err, earlier.err) {
				t.Errorf("%q is never reached: %q comes first", k.err, earlier.err)
			}
			if k.name == earlier.name && (k.status != earlier.status || k.title != earlier.title) {
				t.Errorf("%s means two things", k.name)
			}
		}
		p := problemOf(t.Context(), errors.Join(errors.New("while doing something"), k.err))
		if p.Type != urn+k.name || p.Status != k.status || p.NextStep == "" {
			t.Errorf("%v answers %+v", k.err, p)
		}
	}
	secret := errors.New("pq: password authentication failed for user jane")
	p := h.api.problem(context.WithValue(t.Context(), requestKey{}, "r-1"), secret)
	if p.Status != http.StatusInternalServerError || strings.Contains(p.Error(), "jane") || p.RequestID != "r-1" {
		t.Errorf("an unlisted error answers %+v, want an opaque one", p)
	}
	if log := h.log.String(); !strings.Contains(log, "password authentication failed") || !strings.Contains(log, "r-1") {
		t.Errorf("log = %s, want the error under its request", log)
	}
}

func TestWhatNoRouteTakes(t *testing.T) {
	t.Parallel()
	fallback := func(c *Config) {
		c.Fallback = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	}
	h, alone := newHouse(t, fallback), newHouse(t)
	problem(t, h.call("admin", "GET", "/v1/nothing", ""), http.StatusNotFound, "no-such-route")
	problem(t, alone.call("", "GET", "/", ""), http.StatusNotFound, "no-such-route")
	w := h.call("admin", "PATCH", "/v1/targets/x", "{}")
	problem(t, w, http.StatusMethodNotAllowed, "method-not-allowed")
	if allow := w.Header().Get("Allow"); allow != "GET, HEAD, PUT, DELETE" {
		t.Errorf("Allow = %q", allow)
	}
	if w := h.call("", "GET", "/console", ""); w.Code != http.StatusTeapot || w.Header().Get("Content-Security-Policy") != "" {
		t.Errorf("the fallback answers %d with the API's headers %v", w.Code, w.Header())
	}
	p := problem(t, h.call("admin", "GET", "/v1/deliveries?tarjet=x", ""), http.StatusUnprocessableEntity, "invalid")
	if len(p.Errors) != 1 || p.Errors[0].Parameter != "query.tarjet" {
		t.Errorf("a misspelt filter: %+v", p.Errors)
	}
}

func TestEveryAnswerCarriesTheHeadersAndAnID(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/style.css", "/v1/targets", "/v1/nothing"} {
		w := h.call("", "GET", path, "", "X-Request-Id", "mine-17")
		for name := range headers {
			if w.Header().Get(name) == "" {
				t.Errorf("%s: no %s", path, name)
			}
		}
		if strings.Contains(w.Header().Get("Content-Security-Policy"), "unsafe") {
			t.Errorf("%s: policy %s", path, w.Header().Get("Content-Security-Policy"))
		}
		if got := w.Header().Get("X-Request-Id"); got != "mine-17" {
			t.Errorf("%s: request id %q, want the caller's", path, got)
		}
	}
	if got := h.call("", "GET", "/healthz", "", "X-Request-Id", "a b\n").Header().Get("X-Request-Id"); len(got) != 36 {
		t.Errorf("a caller's unusable id became %q", got)
	}
}

func TestAPanicIsAnsweredAndLogged(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) {
		c.Fallback = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/late" {
				w.WriteHeader(http.StatusOK)
			}
			panic("jane@example.com broke it")
		})
	})
	p := problem(t, h.call("", "GET", "/early", ""), http.StatusInternalServerError, "internal")
	if strings.Contains(p.Detail, "jane") {
		t.Errorf("the answer tells: %+v", p)
	}
	if !strings.Contains(h.log.String(), p.RequestID) || !strings.Contains(h.log.String(), "access_test.go") {
		t.Errorf("log = %s, want the stack under the request's id", h.log)
	}
	func() {
		defer func() {
			if got := recover(); got != http.ErrAbortHandler { //nolint:errorlint // this very value
				t.Errorf("after half an answer: %v, want the connection broken", got)
			}
		}()
		h.handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/late", nil))
	}()
}

func TestMetricsOfReaders(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.record(domain.TargetDisabled{Handle: "a"})
	if _, err := h.owner.ExecContext(t.Context(), `UPDATE subscriptions SET state = 'parked', error = 'x', error_position = 1, position = 0 WHERE name = 'projection.targets';
		INSERT INTO builds (place, projection, purpose, state, asked_by) VALUES ('ledger_consent__next', 'consent', 'rebuild', 'asked', 'test')`); err != nil {
		t.Fatal(err)
	}
	text := h.call("", "GET", "/metrics", "").Body.String()
	for _, want := range []string{
		`ledger_reader_behind_events{kind="projection",name="targets"} `, `ledger_reader_behind_seconds{kind="projection",name="targets"} `,
		`ledger_reader_parked{kind="projection",name="targets"} 1`, `ledger_reader_parked{kind="projection",name="consent"} 0`,
		`ledger_rebuild_behind_events{name="consent",state="asked"} `,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
	for _, never := range []string{`behind_events{kind="projection",name="targets"} 0`, `rebuild_behind_events{name="consent",state="asked"} 0`} {
		if strings.Contains(text, never) {
			t.Errorf("%s, and the ledger holds an event", never)
		}
	}
}

func TestMetricsAreBounded(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, path := range []string{"/v1/targets/a", "/v1/targets/b", "/x", "/y", "/v1/events/1"} {
		h.call("operator", "GET", path, "")
		h.call("operator", "BREW", path, "")
	}
	text := h.call("", "GET", "/metrics", "").Body.String()
	var series []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "ledger_http_request_seconds_count") {
			series = append(series, line[strings.Index(line, "{"):strings.LastIndex(line, "}")+1])
		}
	}
	slices.Sort(series)
	want := []string{
		`{code="4xx",route="GET /v1/events/{position}"}`, `{code="4xx",route="GET /v1/targets/{handle}"}`, `{code="4xx",route="none"}`,
	}
	if !slices.Equal(series, want) {
		t.Errorf("series = %q, want %q", series, want)
	}
}
