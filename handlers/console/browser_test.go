package console

import (
	"net/http"
	"testing"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/browsertest"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// views are how each page is looked at.
var views = map[string]browsertest.View{
	"light":  {},
	"dark":   {Dark: true},
	"narrow": {Width: 390, Height: 844},
}

// signIn opens a page as somebody does who is not signed in: by the login.
func (h *house) signIn(t *testing.T, role schema.Role, path string, view browsertest.View) *browsertest.Page {
	t.Helper()
	p := browsertest.Open(t, h.server.URL+path, view)
	p.Type("#token", h.tokens[role])
	p.Follow("form button")
	p.CheckStatus(http.StatusOK)
	return p
}

// Every page, seen by light and by dark, on a small screen, and by those who do not see.
func TestEveryPage(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	pages := map[string]string{
		"overview": "/", "deliveries": "/deliveries?outcome=failed&outcome=withheld", "delivery": "/deliveries/" + h.sent["failed"].String(), "none": "/deliveries?target=nothing",
		"unknown": "/deliveries/unknown", "targets": "/targets", "target": "/targets/klaviyo-reward-earned", "edit": "/targets/klaviyo-reward-earned/edit",
		"people": "/people", "person": "/people/" + h.people[0].String(), "consent-changes": "/consent-changes", "ledger": "/ledger", "event": "/ledger/9",
		"verification": "/verification", "reconciliation": "/reconciliation", "projections": "/projections", "settings": "/settings", "lost": "/nowhere",
	}
	for name, view := range views {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			page := h.signIn(t, schema.RoleAdmin, "/people", view)
			for what, path := range pages {
				page.Goto(h.server.URL + path)
				if path != "/nowhere" {
					page.CheckStatus(http.StatusOK)
				}
				page.Screenshot(what + "-" + name)
				page.CheckAccessible()
				var wide bool
				page.Eval(`document.documentElement.scrollWidth > innerWidth + 1`, &wide)
				if wide {
					t.Errorf("%s is wider than the screen", what)
				}
			}
		})
	}
}
