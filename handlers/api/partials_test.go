package api

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
)

func TestAPartialFromItsFirstVersionToItsLast(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	const path = "/v1/partials/money"
	const source = `{"source":"{% macro of(v) %}{{ v|number_format(2) }}{% endmacro %}","reason":"first"}`
	problem(t, h.call("operator", "GET", path, ""), http.StatusNotFound, "not-found")
	problem(t, h.call("operator", "GET", path+"/versions", ""), http.StatusNotFound, "not-found")
	problem(t, h.call("operator", "DELETE", path, ""), http.StatusNotFound, "not-found")
	problem(t, h.call("analyst", "PUT", path, source), http.StatusForbidden, "forbidden")

	w := h.call("operator", "PUT", path, source, "If-None-Match", "*")
	first := want[Partial](t, w, http.StatusCreated)
	if first.Name != "money" || first.Version != 1 || first.State != "present" || *first.Reason != "first" || first.ChangedBy != "the-operator" ||
		w.Header().Get("ETag") != `"1"` || w.Header().Get("Location") != path {
		t.Errorf("created %s, headers %v", w.Body, w.Header())
	}
	if again := want[Partial](t, h.call("operator", "PUT", path, source), http.StatusOK); again.Version != 1 {
		t.Errorf("the same again is version %d", again.Version)
	}
	problem(t, h.call("operator", "PUT", path, source, "If-Match", `"7"`), http.StatusPreconditionFailed, "version-mismatch")

	// A target may name it at once, before the projection has caught up. Its sample is held against its templates.
	lacking := `{"platform":"webhook","url":"https://example.com/","unresolved":"error","sample":{"reward":{}},"body":"{\"value\": {{ reward.amount }}}"}`
	refused := h.call("operator", "PUT", "/v1/targets/reward", lacking)
	problem(t, refused, http.StatusUnprocessableEntity, "invalid")
	if !strings.Contains(refused.Body.String(), "lacks reward.amount (body, line 1, column 14)") {
		t.Errorf("a sample that lacks a variable is answered %s", refused.Body)
	}
	target := `{"platform":"webhook","url":"https://example.com/","body":"{% from 'money' import of %}{\"value\": {{ of(reward.amount) }}}"}`
	want[Target](t, h.call("operator", "PUT", "/v1/targets/reward", target), http.StatusCreated)
	h.catchUp()
	if got := want[Partial](t, h.call("compliance", "GET", path, ""), http.StatusOK); !slices.Equal(got.Targets, []string{"reward"}) {
		t.Errorf("it touches %v, want the target that names it", got.Targets)
	}

	// A change that would break the target is refused and leaves everything as it was.
	broken := h.call("operator", "PUT", path, `{"source":"{{ x|nope }}"}`)
	problem(t, broken, http.StatusUnprocessableEntity, "invalid")
	if !strings.Contains(broken.Body.String(), `"line":1`) {
		t.Errorf("a template that does not compile is answered %s", broken.Body)
	}
	gone := h.call("operator", "DELETE", path, "")
	problem(t, gone, http.StatusConflict, "breaks-targets")
	if !strings.Contains(gone.Body.String(), "target reward") {
		t.Errorf("what would break is not named: %s", gone.Body)
	}

	// What it says now is what a preview renders, and what a dry run shows is not recorded.
	dry := want[Partial](t, h.call("operator", "PUT", path+"?dry_run=true", `{"source":"{% macro of(v) %}{{ v }}{% endmacro %}"}`), http.StatusOK)
	if !slices.Equal(dry.Targets, []string{"reward"}) {
		t.Errorf("a dry run = %+v", dry)
	}
	second := want[Partial](t, h.call("operator", "PUT", path, `{"source":"{% macro of(v) %}{{ v * 100 }}{% endmacro %}","reason":"cents"}`), http.StatusOK)
	if !slices.Equal(second.Targets, []string{"reward"}) {
		t.Errorf("changed = %+v", second)
	}
	h.catchUp()
	preview := want[Preview](t, h.call("operator", "POST", "/v1/targets/reward/preview", `{"context":{"reward":{"amount":1.5}}}`), http.StatusOK)
	if preview.Body != `{"value": 150}` {
		t.Errorf("preview = %s", preview.Body)
	}

	versions := want[Page[Partial]](t, h.call("compliance", "GET", path+"/versions?limit=1", ""), http.StatusOK)
	if len(versions.Items) != 1 || versions.Items[0].Version != second.Version || versions.Next == nil {
		t.Errorf("versions = %+v", versions)
	}
	rest := want[Page[Partial]](t, h.call("compliance", "GET", path+"/versions?cursor="+*versions.Next, ""), http.StatusOK)
	if len(rest.Items) == 0 || rest.Items[len(rest.Items)-1].Version != 1 || rest.Next != nil {
		t.Errorf("the rest = %+v", rest)
	}

	if w := h.call("operator", "DELETE", "/v1/targets/reward", ""); w.Code != http.StatusNoContent {
		t.Fatalf("DELETE target = %d", w.Code)
	}
	h.catchUp()
	if w := h.call("operator", "DELETE", path+"?reason=unused", ""); w.Code != http.StatusNoContent {
		t.Errorf("DELETE = %d %s", w.Code, w.Body)
	}
	problem(t, h.call("operator", "GET", path, ""), http.StatusNotFound, "not-found")
	h.catchUp()
	if list := want[Page[Partial]](t, h.call("operator", "GET", "/v1/partials", ""), http.StatusOK); len(list.Items) != 0 {
		t.Errorf("a withdrawn partial is listed: %+v", list)
	}
}

func TestPartialsAreListedByName(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, name := range []string{"b", "a%2Fnested", "c"} {
		want[Partial](t, h.call("operator", "PUT", "/v1/partials/"+name, `{"source":"x"}`), http.StatusCreated)
	}
	problem(t, h.call("operator", "PUT", "/v1/partials/%20", `{"source":"x"}`), http.StatusUnprocessableEntity, "invalid")
	now, err := targets.PartialsNow(t.Context(), h.api.DB)
	if err != nil || len(now.Sources) != 3 || now.Position == 0 {
		t.Errorf("PartialsNow = %+v, %v before the projection has caught up", now, err)
	}
	h.catchUp()
	page := want[Page[Partial]](t, h.call("analyst", "GET", "/v1/partials?limit=2", ""), http.StatusOK)
	if len(page.Items) != 2 || page.Items[0].Name != "a/nested" || page.Items[1].Name != "b" || page.Next == nil {
		t.Fatalf("the first page = %+v", page)
	}
	page = want[Page[Partial]](t, h.call("analyst", "GET", "/v1/partials?limit=2&cursor="+*page.Next, ""), http.StatusOK)
	if len(page.Items) != 1 || page.Items[0].Name != "c" || page.Next != nil {
		t.Errorf("the second page = %+v", page)
	}
	if got := want[Partial](t, h.call("analyst", "GET", "/v1/partials/a%2Fnested", ""), http.StatusOK); got.Source != "x" {
		t.Errorf("a/nested = %+v", got)
	}
	h.record(domain.PartialDeleted{Name: "b"})
	if now, err = targets.PartialsNow(t.Context(), h.api.DB); err != nil || len(now.Sources) != 2 {
		t.Errorf("PartialsNow = %+v, %v after one was withdrawn", now, err)
	}
}
