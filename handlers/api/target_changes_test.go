package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// A target's life over HTTP: versions, what differs, back to an earlier one, and changes that take two people.
func TestTargetsChangeByVersions(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	put := func(body string, status int) Target {
		t.Helper()
		w := h.call(schema.RoleOperator, http.MethodPut, "/v1/targets/welcome", body)
		if w.Code != status {
			t.Fatalf("PUT = %d %s, want %d", w.Code, w.Body, status)
		}
		return decode[Target](t, w)
	}
	post := func(role schema.Role, path, body string, status int) Target {
		t.Helper()
		w := h.call(role, http.MethodPost, "/v1/targets/welcome/"+path, body)
		if w.Code != status {
			t.Fatalf("POST %s = %d %s, want %d", path, w.Code, w.Body, status)
		}
		return decode[Target](t, w)
	}
	const first = `{"url":"https://example.com/","body":"{\"v\":\n1}"}`
	put(first, http.StatusCreated)
	put(strings.Replace(first, "1}", "2}", 1), http.StatusOK)
	w := h.call(schema.RoleAnalyst, http.MethodGet, "/v1/targets/welcome/diff", "")
	if d := decode[Diff](t, w); d.From != 1 || d.To != 2 || len(d.Changes) != 1 || d.Changes[0].Pointer != "/body" || !strings.Contains(d.Changes[0].Diff, "-1}") {
		t.Errorf("diff = %s", w.Body)
	}
	if back := post(schema.RoleOperator, "rollback", `{"version":1}`, http.StatusOK); back.Version != 3 || back.Restores == nil || *back.Restores != 1 {
		t.Errorf("rolled back = %+v", back)
	}
	if moved := post(schema.RoleOperator, "url", `{"url":"https://production.example.com/"}`, http.StatusOK); moved.URL != "https://production.example.com/" || moved.Body != "{\"v\":\n1}" {
		t.Errorf("moved = %+v", moved)
	}

	guarded := put(`{"url":"https://example.com/","body":"{}","approval":"required"}`, http.StatusAccepted)
	if guarded.Proposal == nil || guarded.State != "proposed" || guarded.Version != 4 || guarded.Approval != "required" {
		t.Fatalf("proposed = %+v", guarded)
	}
	w = h.call(schema.RoleOperator, http.MethodPost, "/v1/targets/welcome/proposals/1/approve", "")
	problem(t, w, http.StatusForbidden, "same-person")
	w = h.call(schema.RoleCompliance, http.MethodGet, "/v1/targets/welcome/diff?proposal=1", "")
	if d := decode[Diff](t, w); d.From != 4 || len(d.Changes) != 3 {
		t.Errorf("diff of the proposal = %s", w.Body)
	}
	if now := post(schema.RoleCompliance, "proposals/1/approve", `{"reason":"checked"}`, http.StatusOK); now.Version != 5 || now.Approved == nil || now.Approved.ProposedBy == now.ChangedBy {
		t.Errorf("approved = %+v", now)
	}
	w = h.call(schema.RoleAdmin, http.MethodPost, "/v1/targets/welcome/proposals/1/approve", "")
	problem(t, w, http.StatusConflict, "proposal-stale")
	put(first, http.StatusAccepted)
	w = h.call(schema.RoleOperator, http.MethodPost, "/v1/targets/welcome/proposals/3/decline", `{"reason":"mistaken"}`)
	if p := decode[Proposal](t, w); p.State != "declined" || p.Decision == nil || *p.Decision != "mistaken" {
		t.Errorf("declined = %s", w.Body)
	}

	// What GET answers may be sent back, approval and all.
	w = h.call(schema.RoleOperator, http.MethodGet, "/v1/targets/welcome", "")
	put(w.Body.String(), http.StatusOK)
}

func decode[T any](t *testing.T, w *httptest.ResponseRecorder) (v T) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code >= 300 {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	return v
}
