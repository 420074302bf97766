package console

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/browsertest"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// What happens is to be seen without a reload.
func TestThePageFollowsTheLedger(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	page := h.signIn(t, schema.RoleCompliance, "/ledger", browsertest.View{})
	before := page.Text("#live")
	h.record("somebody", domain.TokenRevoked{Name: "engine"})
	page.WaitUntil(`document.getElementById("live").textContent.trim() !== ` + "`" + before + "`")
}

// Whoever erases somebody is told first what that does, and what it leaves.
func TestErasingAPersonInABrowser(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	person := h.people[2].String()
	page := h.signIn(t, schema.RolePrivacy, "/people/"+person, browsertest.View{})
	page.Follow(".acts a.danger")
	told := page.Text("main")
	for _, want := range []string{"email/all", "which are withheld", "cannot be called back"} {
		if !strings.Contains(told, want) {
			t.Errorf("before, the page does not say %q: %s", want, told)
		}
	}
	page.CheckAccessible()
	page.Screenshot("erase")
	page.Type(`.acts input[name="reason"]`, "request 17 of 3 March")
	page.Type(`.acts input[name="confirm"]`, person[:8])
	page.Follow(".acts button.danger")
	page.CheckStatus(http.StatusOK)
	if said := page.Text("h1"); !strings.Contains(said, "erased") {
		t.Errorf("afterwards the page is headed %q", said)
	}
	if _, erased, err := h.vault.Erasure(t.Context(), h.people[2]); err != nil || !erased {
		t.Errorf("the vault: erased %v, %v", erased, err)
	}
}

// The privacy desk records an answer and gives somebody what is held on them, and who looked is on the page.
func TestThePrivacyDesk(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	person := "/people/" + h.people[3].String()
	desk := h.client(schema.RolePrivacy)
	answer := url.Values{"channel": {"phone"}, "purpose": {"promo"}, "status": {"opted_out"}, "decided_by": {"customer"}, "decided_at": {"2026-03-03T10:00"}, "method": {"letter"}, "evidence": {"letter 12"}}
	if w := desk.post(person+"/consent", answer); w.Code != http.StatusSeeOther {
		t.Fatalf("recording: %d %s", w.Code, w.Body)
	}
	answer.Set("channel", "pigeon")
	if w := desk.post(person+"/consent", answer); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("an answer for no channel: %d", w.Code)
	}
	if w := desk.post(person+"/access", nil); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("access without a reason: %d", w.Code)
	}
	w := desk.post(person+"/access", url.Values{"reason": {"request 16"}})
	if w.Code != http.StatusOK || !strings.Contains(w.Header().Get("Content-Disposition"), "attachment") || !strings.Contains(w.Body.String(), "phone") {
		t.Errorf("access: %d %v", w.Code, w.Header())
	}
	h.catchUp()
	page := desk.get(person).Body.String()
	for _, want := range []string{"phone/promo", "3 Mar 10:00:00", "request 16", "the-privacy"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not show %q", want)
		}
	}
}
