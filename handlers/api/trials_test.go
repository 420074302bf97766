package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	_ "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/webhook" // the platform of the targets
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func (h *house) secret(name, value string) {
	h.t.Helper()
	if _, err := h.api.Vault.SetSecret(h.t.Context(), h.api.DB, name, value, "test"); err != nil {
		h.t.Fatal(err)
	}
}

// A test in the inspector shows what would leave, without its secrets, and where a variable did not resolve.
func TestATargetIsTriedOut(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.secret("key", "very-secret")
	h.secret("crm", "shared")
	put := h.call(schema.RoleOperator, http.MethodPut, "/v1/targets/welcome", `{
		"url": "https://example.com/in?key={{ secret('key') }}", "headers": {"Authorization": "Key {{ secret('key') }}"},
		"body": "{\"email\": {{ profile.email|json_encode }},\n \"tier\": \"{{ profile.tier }}\"}", "hmac": "crm",
		"condition": {"===": [{"var": "profile.tier"}, "gold"]}, "sample": {"profile": {"email": "sample@example.com", "tier": "gold"}}}`)
	if put.Code != http.StatusCreated {
		t.Fatalf("%d %s", put.Code, put.Body)
	}
	test := func(body string) TestReport {
		t.Helper()
		w := h.call(schema.RoleOperator, http.MethodPost, "/v1/targets/welcome/test", body)
		if w.Code >= 500 {
			t.Log(h.log.String())
		}
		return decode[TestReport](t, w)
	}

	got := test(`{"context": {"profile": {"email": "jane@example.com"}}}`)
	if got.URL != "https://example.com/in?key=••••" && !strings.HasPrefix(got.URL, "https://example.com/in?key=") || got.Method != "POST" || got.Body != "{\"email\": \"jane@example.com\",\n \"tier\": \"\"}" {
		t.Errorf("%s %s %s", got.Method, got.URL, got.Body)
	}
	if h := got.Headers; h["Authorization"][0] != "Key ••••" || h["X-Omneo-Hmac-Sha256"][0] == "" {
		t.Errorf("headers = %v", h)
	}
	if len(got.Unresolved) != 1 || got.Unresolved[0].Name != "profile.tier" || got.Unresolved[0].Part != "body" || got.Unresolved[0].Line != 2 || got.Unresolved[0].Column == 0 {
		t.Errorf("unresolved = %+v, want profile.tier in line 2 of the body", got.Unresolved)
	}
	if got.Condition == nil || *got.Condition || got.Inspector == nil || got.Inspector.Request != 1 || *got.Context != "given" {
		t.Errorf("condition %v, inspector %+v, context %v", got.Condition, got.Inspector, got.Context)
	}
	arrived := h.call(schema.RoleOperator, http.MethodGet, "/v1/inspector/"+got.Inspector.ID+"/requests", "")
	if arrived.Code != http.StatusOK || strings.Contains(arrived.Body.String(), "very-secret") || !strings.Contains(arrived.Body.String(), "https://example.com/in") {
		t.Errorf("arrived = %s", arrived.Body)
	}

	again := test(`{"bin": "` + got.Inspector.ID + `"}`)
	if again.Inspector.Request != 2 || *again.Context != "sample" || !*again.Condition || !strings.Contains(again.Body, "sample@example.com") {
		t.Errorf("with the sample = %+v", again)
	}
	if draft := test(`{"draft": {"url": "https://example.com/{{ secret('nowhere') }}", "body": "{}"}, "context": {}}`); draft.NotSent == nil || !strings.Contains(*draft.NotSent, "secret set nowhere") {
		t.Errorf("with a secret that is not set = %+v", draft)
	}
	for body, want := range map[string]string{
		`{"draft": {"url": "https://example.com/", "body": "{}"}}`: "no-context",
		`{"context": []}`:                                                       "invalid",
		`{"context": {}, "to": "moon"}`:                                         "invalid",
		`{"context": {}, "version": 1, "to": "url"}`:                            "invalid",
		`{"delivery": "8fc344db-713e-4590-ab26-e82d77ba3313"}`:                  "no-reason",
		`{"context": {}, "draft": {"url": "https://e.com/", "body": "{% x"}}`:   "invalid",
		`{"context": {}, "draft": {"url": "https://e.com/", "body": "{{ a }"}}`: "invalid",
	} {
		if p := problem(t, h.call(schema.RoleOperator, http.MethodPost, "/v1/targets/welcome/test", body), http.StatusUnprocessableEntity, want); p.Type == "" {
			t.Error(body)
		}
	}
	problem(t, h.call(schema.RoleOperator, http.MethodPost, "/v1/targets/welcome/test", `{"context": {}, "bin": "nowhere"}`), http.StatusNotFound, "not-found")
}

// A past context is somebody's data: looking at it takes a reason, and is recorded before.
func TestATargetIsTriedOutWithAPastContext(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.call(schema.RoleOperator, http.MethodPut, "/v1/targets/welcome", `{"url": "https://example.com/", "body": "{\"email\": {{ profile.email|json_encode }}}"}`)
	fired := domain.ReactionFired{Reaction: "r", Target: "welcome", ProfileID: uuid.MustParse(jane), Cause: "reaction", Context: []byte(`{"profile":{"email":"jane@example.com"}}`)}
	at := h.record(fired)
	firing, position := at.ID, at.Position
	delivery := domain.DeliveryID(firing, "welcome")
	h.record(domain.DeliveryRejected{DeliveryID: delivery, Firing: domain.Firing{FiringID: firing, FiringPosition: position, Reaction: "r", Cause: "reaction", Target: "welcome", ProfileID: fired.ProfileID}, Reason: "template_error"})
	h.catchUp()

	got := decode[TestReport](t, h.call(schema.RoleOperator, http.MethodPost, "/v1/targets/welcome/test", `{"delivery": "`+delivery.String()+`", "reason": "it was rejected"}`))
	if got.Body != `{"email": "jane@example.com"}` || *got.Context != "past" {
		t.Errorf("with a past context = %+v", got)
	}
	var seen []string
	for r, err := range schema.Events(t.Context(), h.api.DB, schema.Filter{After: position}) {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, r.Type)
		if r.Type == "sealed.revealed" && (r.Actor == "" || !strings.Contains(string(r.Data), "it was rejected") || r.Subject.String() != jane) {
			t.Errorf("revealed = %s by %q", r.Data, r.Actor)
		}
	}
	if len(seen) != 3 || seen[1] != "sealed.revealed" || seen[2] != "target.tested" {
		t.Errorf("events = %v", seen)
	}
	opened := decode[PastContext](t, h.call(schema.RoleOperator, http.MethodPost, "/v1/contexts", `{"delivery": "`+delivery.String()+`", "reason": "for the editor"}`))
	if string(opened.Context) != `{"profile":{"email":"jane@example.com"}}` || opened.Target != "welcome" || opened.Reaction != "r" || *opened.ProfileID != fired.ProfileID {
		t.Errorf("opened = %+v", opened)
	}
	problem(t, h.call(schema.RoleOperator, http.MethodPost, "/v1/contexts", `{"delivery": "`+delivery.String()+`", "reason": ""}`), http.StatusUnprocessableEntity, "invalid")
	problem(t, h.call(schema.RoleOperator, http.MethodPost, "/v1/contexts", `{"delivery": "`+uuid.NewString()+`", "reason": "x"}`), http.StatusNotFound, "not-found")
	h.erase(uuid.MustParse(jane))
	problem(t, h.call(schema.RoleOperator, http.MethodPost, "/v1/contexts", `{"delivery": "`+delivery.String()+`", "reason": "again"}`), http.StatusConflict, "erased")
	problem(t, h.call(schema.RoleOperator, http.MethodPost, "/v1/targets/welcome/test", `{"delivery": "`+delivery.String()+`", "reason": "again"}`), http.StatusConflict, "erased")
	if left := decode[struct{ Items []schema.Inspected }](t, h.call(schema.RoleOperator, http.MethodGet, "/v1/inspector/"+got.Inspector.ID+"/requests", "")); len(left.Items) != 1 || !left.Items[0].Erased {
		t.Errorf("after erasure = %+v", left)
	}
}

// At the url it is a firing like every other, with a cause that says so.
func TestATargetIsTriedOutAtItsURL(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.call(schema.RoleOperator, http.MethodPut, "/v1/targets/welcome", `{"url": "https://example.com/", "body": "{}"}`)
	w := h.call(schema.RoleOperator, http.MethodPost, "/v1/targets/welcome/test", `{"context": {}, "to": "url", "wait_seconds": 1}`)
	got := decode[TestReport](t, w)
	if w.Code != http.StatusAccepted || got.DeliveryID == nil || got.Delivery != nil { // nobody plans here
		t.Errorf("%d %+v", w.Code, got)
	}
	found := 0
	for r, err := range schema.Events(t.Context(), h.api.DB, schema.Filter{Types: []string{"reaction.fired"}}) {
		if err != nil {
			t.Fatal(err)
		}
		if found++; r.State != "test" || r.Target != "welcome" || domain.DeliveryID(r.ID, "welcome") != *got.DeliveryID {
			t.Errorf("fired = %+v", r)
		}
	}
	if found != 1 {
		t.Errorf("%d firings, want one", found)
	}
}

func TestBins(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	made := decode[Bin](t, h.call(schema.RoleOperator, http.MethodPost, "/v1/inspector", `{"lasts": "2h", "status": 503}`))
	if made.Status != 503 || made.ExpiresAt.Sub(made.CreatedAt) != 2*time.Hour || made.Path != "/inspector/"+made.ID || !strings.HasPrefix(made.Page, made.Path+"#") {
		t.Errorf("made = %+v", made)
	}
	if list := decode[struct{ Items []Bin }](t, h.call(schema.RoleOperator, http.MethodGet, "/v1/inspector", "")); len(list.Items) != 1 || list.Items[0].ID != made.ID {
		t.Errorf("list = %+v", list)
	}
	problem(t, h.call(schema.RoleOperator, http.MethodPost, "/v1/inspector", `{"lasts": "never"}`), http.StatusUnprocessableEntity, "invalid")
	if w := h.call(schema.RoleOperator, http.MethodDelete, "/v1/inspector/"+made.ID, ""); w.Code != http.StatusNoContent {
		t.Errorf("delete = %d", w.Code)
	}
	problem(t, h.call(schema.RoleOperator, http.MethodGet, "/v1/inspector/"+made.ID+"/requests", ""), http.StatusNotFound, "not-found")
}
