package console

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// may says who may use which route, as the documentation tells it. It is written down a second time on purpose: a change of
// access is a change of both. The rule itself is the API's.
var may = map[string]string{ // o, c, p, n (analyst), a
	"GET /{$}": "ocpna", "GET /live": "ocpna", "GET /settings": "ocpna",
	"GET /deliveries": "ocpna", "GET /deliveries/{id}": "ocpna", "GET /deliveries/unknown": "ocpna", "GET /deliveries/{id}/evidence": "ocpa",
	"POST /deliveries/{id}/retry": "oa", "POST /deliveries/{id}/cancel": "opa",
	"GET /replays": "ocpna", "POST /replays": "oa", "GET /replays/{id}": "ocpna", "POST /replays/{id}/cancel": "oa",
	"GET /targets": "ocna", "GET /targets/{handle}": "ocna", "GET /targets/{handle}/edit": "oa", "POST /targets/{handle}/edit": "oa",
	"POST /targets/{handle}/preview": "oa", "POST /targets/{handle}/switch": "oa", "POST /targets/{handle}/delete": "oa",
	"POST /targets/{handle}/context": "oa", "POST /targets/{handle}/try": "oa", "POST /targets/{handle}/fire": "oa", "POST /targets/{handle}/move": "oa", "POST /targets/{handle}/rollback": "oa",
	"GET /proposals": "ocna", "POST /targets/{handle}/proposals/{number}/approve": "oca", "POST /targets/{handle}/proposals/{number}/decline": "oca",
	"POST /deliveries/{id}/reveal": "cpa", "POST /ledger/{position}/reveal": "cpa", "GET /people/{id}/erase": "pa", "POST /people/{id}/erase": "pa", "POST /people/{id}/access": "pa", "POST /people/{id}/consent": "opa",
	"POST /targets/{handle}/pause": "oa", "POST /targets/{handle}/resume": "oa",
	"GET /reconciliation": "ocna", "POST /reconciliation": "oa", "GET /reconciliation/{id}": "ocna", "POST /reconciliation/{id}/approve": "oa", "POST /reconciliation/{id}/stop": "oa",
	"GET /findings": "ocpa", "POST /findings/{id}/resolve": "opa", "GET /opt-outs": "ocpna",
	"POST /findings/resolve": "opa",
	"GET /policies":          "ocpna", "POST /policies/consent": "a", "POST /policies/retention": "pa", "GET /policies/platforms/{$}": "oa", "GET /policies/platforms/{name}": "ocpna", "POST /policies/platforms/{name}": "oa",
	"GET /people": "ocpa", "GET /people/{id}": "ocpa", "GET /consent-changes": "ocpa",
	"GET /ledger": "ocpa", "GET /ledger/{position}": "ocpa", "GET /ledger/{position}/proof": "ocpa", "GET /verification": "ocpa", "POST /verification": "oca",
	"GET /projections": "ocna", "POST /projections/{name}/rebuild": "ona", "POST /projections/{name}/resume": "oa", "POST /projections/{name}/skip": "oa",
	"POST /settings/tokens": "a", "POST /settings/tokens/{name}/revoke": "a", "POST /settings/secrets": "oa",
}

var letters = map[schema.Role]string{
	schema.RoleOperator: "o", schema.RoleCompliance: "c", schema.RolePrivacy: "p", schema.RoleAnalyst: "n", schema.RoleAdmin: "a",
}

func TestEveryRouteForEveryRole(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	for pattern := range routes {
		if _, ok := may[pattern]; !ok {
			t.Errorf("%s is served, and the table does not say to whom", pattern)
		}
	}
	visitors := map[schema.Role]*visitor{}
	for role := range letters {
		visitors[role] = h.client(role)
	}
	fill := strings.NewReplacer("{$}", "", "{id}", h.sent["failed"].String(), "{handle}", "klaviyo-reward-earned", "{position}", "1", "{number}", "1", "{name}", "nobody")
	for pattern, roles := range may {
		if _, ok := routes[pattern]; !ok {
			t.Errorf("the table has %s, which nothing serves", pattern)
			continue
		}
		if pattern == "GET /live" {
			continue // it goes on; TestThePageFollowsTheLedger reads it
		}
		method, path, _ := strings.Cut(fill.Replace(pattern), " ")
		t.Run(pattern, func(t *testing.T) {
			t.Parallel()
			stranger := &visitor{h: h}
			for name, w := range map[string]*httptest.ResponseRecorder{
				"nobody":                stranger.do(request(t, method, path)),
				"a cookie that is none": (&visitor{h: h, cookie: &http.Cookie{Name: cookieName, Value: "AAAA"}}).do(request(t, method, path)),
			} {
				if method == http.MethodGet && w.Code != http.StatusSeeOther || method == http.MethodPost && w.Code != http.StatusUnauthorized {
					t.Errorf("%s: %d, want the way in", name, w.Code)
				}
			}
			for role, v := range visitors {
				w := v.do(request(t, method, path))
				allowed := strings.Contains(roles, letters[role])
				if refused := w.Code == http.StatusForbidden; refused == allowed || w.Code == http.StatusUnauthorized || w.Code >= 500 {
					t.Errorf("%s: status %d, want it allowed: %v", role, w.Code, allowed)
				}
			}
		})
	}
}

func request(t *testing.T, method, path string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return r
}

func TestWhatAnAnswerLetsABrowserDo(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	v := h.client(schema.RoleAnalyst)
	if c := v.cookie; !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || !strings.HasPrefix(c.Name, "__Host-") || len(c.Value) < 40 {
		t.Errorf("the cookie: %+v", c)
	}
	for _, path := range []string{"/", "/login", "/nowhere", "/assets/app.js"} {
		w := v.get(path)
		policy := w.Header().Get("Content-Security-Policy")
		if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") || !strings.Contains(policy, "frame-ancestors 'none'") {
			t.Errorf("%s: policy %q", path, policy)
		}
		if w.Header().Get("X-Content-Type-Options") != "nosniff" || strings.Contains(w.Body.String(), " style=") || strings.Contains(w.Body.String(), " onclick") {
			t.Errorf("%s: headers %v", path, w.Header())
		}
	}
	if w := v.get("/"); w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("a page may be kept: %v", w.Header())
	}
}

func TestAnotherSitesFormIsRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	v := h.client(schema.RoleOperator)
	form := url.Values{"to": {"disabled"}, "reason": {"mischief"}}
	const path = "/targets/klaviyo-reward-earned/switch"
	for name, header := range map[string][]string{
		"another site": {"Sec-Fetch-Site", "cross-site"}, "a sibling domain": {"Sec-Fetch-Site", "same-site"}, "an old browser's word": {"Sec-Fetch-Site", "", "Origin", "https://evil.example"},
	} {
		if w := v.post(path, form, header...); w.Code != http.StatusForbidden {
			t.Errorf("from %s: %d, want it refused", name, w.Code)
		}
	}
	if w := v.post(path, form); w.Code != http.StatusSeeOther {
		t.Fatalf("from the console itself: %d %s", w.Code, w.Body)
	}
	events, err := audit.Events(t.Context(), h.console.DB, schema.Filter{Stream: domain.TargetStream("klaviyo-reward-earned"), Descending: true, Limit: 10})
	if err != nil || len(events) != 3 || events[0].Type != "target.disabled" || events[0].Actor != "the-operator" {
		t.Errorf("the target's events: %+v, %v; want one act, in the operator's name", events, err)
	}
}

func TestSigningInAndOut(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	guest := &visitor{h: h, address: "203.0.113.9:1"}
	for name, tc := range map[string]struct {
		token string
		want  int
	}{
		"nothing": {"", http.StatusUnauthorized}, "a wrong token": {"dl_wrong", http.StatusUnauthorized}, "an engine's token": {h.tokens[schema.RoleEmitter], http.StatusForbidden},
	} {
		if w := guest.post("/login", url.Values{"token": {tc.token}}); w.Code != tc.want || len(w.Result().Cookies()) != 0 {
			t.Errorf("with %s: %d, want %d", name, w.Code, tc.want)
		}
	}
	for to, want := range map[string]string{
		"/people?id=1": "/people?id=1", "https://evil.example/": "/", "//evil.example": "/", "/\\evil.example": "/", "": "/", "javascript:alert(1)": "/", "/login": "/",
	} {
		w := guest.post("/login", url.Values{"token": {h.tokens[schema.RoleAnalyst]}, "to": {to}})
		if got := w.Header().Get("Location"); got != want {
			t.Errorf("to %q leads to %q, want %q", to, got, want)
		}
	}
	for range 30 {
		guest.post("/login", url.Values{"token": {"dl_guess"}})
	}
	if w := guest.post("/login", url.Values{"token": {"dl_guess"}}); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("after 30 guesses: %d %v, want the lockout", w.Code, w.Header())
	}

	v := h.client(schema.RoleCompliance)
	if w := v.get("/people"); w.Code != http.StatusOK {
		t.Fatal(w.Code)
	}
	if w := v.post("/logout", nil); w.Code != http.StatusSeeOther || w.Result().Cookies()[0].MaxAge >= 0 {
		t.Errorf("signing out: %d %v", w.Code, w.Result().Cookies())
	}
	if w := v.get("/people"); w.Header().Get("Location") != "/login?to=%2Fpeople" {
		t.Errorf("afterwards: %d to %q, want the way in", w.Code, w.Header().Get("Location"))
	}
	events, err := audit.Events(t.Context(), h.console.DB, schema.Filter{Stream: "session-the-compliance", Limit: 10})
	if err != nil || len(events) != 2 || events[0].Type != "session.opened" || events[1].Type != "session.closed" {
		t.Errorf("recorded: %+v, %v", events, err)
	}
	if w := (&visitor{h: h}).get("/preferences-of-nobody"); w.Code != http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), "/login") {
		t.Errorf("an unknown path without a session: %d, want the way in", w.Code)
	}
}

func TestRevokingATokenEndsItsSessions(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	admin, analyst := h.client(schema.RoleAdmin), h.client(schema.RoleAnalyst)
	w := admin.post("/settings/tokens", url.Values{"name": {"grace"}, "role": {"privacy"}, "expires": {"2999-01-01"}})
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "dl_") {
		t.Fatalf("making a token: %d %s", w.Code, w.Body)
	}
	if w := admin.post("/settings/tokens", url.Values{"name": {"grace"}, "role": {"privacy"}}); w.Code != http.StatusConflict {
		t.Errorf("a second of that name: %d", w.Code)
	}
	if w := admin.post("/settings/tokens/the-analyst/revoke", nil); w.Code != http.StatusSeeOther {
		t.Fatalf("revoking: %d %s", w.Code, w.Body)
	}
	if w := analyst.get("/deliveries"); w.Code != http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), "/login") {
		t.Errorf("the analyst's session afterwards: %d", w.Code)
	}
	if w := admin.post("/settings/secrets", url.Values{"name": {"klaviyo_private_key"}, "value": {"pk_hush"}}); w.Code != http.StatusSeeOther {
		t.Fatalf("a secret: %d %s", w.Code, w.Body)
	}
	page := admin.get("/settings").Body.String()
	if !strings.Contains(page, "klaviyo_private_key") || strings.Contains(page, "pk_hush") {
		t.Error("the secret's name is to be seen, and its value is not")
	}
	events, err := audit.Events(t.Context(), h.console.DB, schema.Filter{Actor: "the-admin", Limit: 20})
	var types []string
	for _, e := range events {
		types = append(types, e.Type)
	}
	if want := "[session.opened token.created token.revoked secret.changed]"; err != nil || fmt.Sprint(types) != want {
		t.Errorf("the admin's acts: %v, %v; want %s", types, err, want)
	}
}

func TestMenusLeadOnlyWhereOneMayGo(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for role := range letters {
		page, _, _ := strings.Cut(h.client(role).get("/").Body.String(), "</header>")
		for _, m := range menu {
			shown := strings.Contains(page, `<li><a href="`+m.path+`"`)
			if want := m.operation == "" || api.May(role, m.operation); shown != want {
				t.Errorf("%s: menu entry %s shown %v, want %v", role, m.title, shown, want)
			}
		}
	}
}
