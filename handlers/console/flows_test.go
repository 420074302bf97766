package console

import (
	"net/http"
	"strings"
	"testing"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/browsertest"
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
