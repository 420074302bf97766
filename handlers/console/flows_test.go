package console

import (
	"net/http"
	"strings"
	"testing"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/browsertest"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// A page costs no more than this, on the wire and uncompressed: itself, a style sheet, a script, an icon.
const (
	requestsMost = 5
	bytesMost    = 90 << 10
)

func TestAPageCostsLittle(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	page := h.signIn(t, schema.RoleAdmin, "/deliveries", browsertest.View{NoJavaScript: true})
	before := page.Totals()
	page.Goto(h.server.URL + "/")
	after := page.Totals()
	if n, b := after.Requests-before.Requests, after.Bytes-before.Bytes; n > requestsMost || b > bytesMost {
		t.Errorf("the overview costs %d requests and %d bytes, more than %d and %d", n, b, requestsMost, bytesMost)
	}
}

func TestEditingATargetInABrowser(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	page := h.signIn(t, schema.RoleOperator, "/targets/klaviyo-reward-earned/edit", browsertest.View{})
	page.WaitUntil(`document.querySelector("#preview mark.missing") !== null`) // reward.expires_at is not in the context
	var marked string
	page.Eval(`document.querySelector("#preview mark.missing").textContent`, &marked)
	if !strings.Contains(marked, "reward.expires_at") {
		t.Errorf("marked as missing: %q", marked)
	}
	var done bool
	page.Eval(`(() => { const f = document.getElementById("context"); f.value = '{"profile":{"email":"a@example.com"},"reward":{"amount":7,"expires_at":"2026-12-31"}}'; f.dispatchEvent(new Event("input", {bubbles: true})); return true })()`, &done)
	page.WaitUntil(`document.getElementById("preview").textContent.includes("Every variable is in this context")`)
	page.Eval(`(() => { const f = document.getElementById("file"); f.value = f.value.replace("rate: 50/s", "rate: 60/s"); f.dispatchEvent(new Event("input", {bubbles: true})); return true })()`, &done)
	page.Type(`input[name="reason"]`, "faster")
	page.Follow(`#editor p.go button.primary`)
	page.CheckStatus(http.StatusOK)
	if said := page.Text("p.done"); !strings.HasPrefix(said, "Saved") {
		t.Errorf("after saving: %q", said)
	}
	events, err := audit.Events(t.Context(), h.console.DB, schema.Filter{Stream: domain.TargetStream("klaviyo-reward-earned"), Descending: true, Limit: 1})
	if err != nil || events[0].Actor != "the-operator" || !strings.Contains(string(events[0].Data), "60/s") {
		t.Errorf("recorded: %+v, %v", events, err)
	}
	page.CheckAccessible()
}

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

func TestErasingAPersonInABrowser(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	person := h.people[0].String()
	page := h.signIn(t, schema.RolePrivacy, "/people/"+person, browsertest.View{})
	page.Click(".acts details summary")
	page.Type(`.acts input[name="reason"]`, "request 17 of 3 March")
	page.Type(`.acts input[name="confirm"]`, person[:8])
	page.Follow(".acts button.danger")
	page.CheckStatus(http.StatusOK)
	if said := page.Text("h1"); !strings.Contains(said, "erased") {
		t.Errorf("afterwards the page is headed %q", said)
	}
	if _, erased, err := h.vault.Erasure(t.Context(), h.people[0]); err != nil || !erased {
		t.Errorf("the vault: erased %v, %v", erased, err)
	}
}
