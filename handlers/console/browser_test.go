package console

import (
	"net/http"
	"os"
	"slices"
	"testing"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/browsertest"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// signIn opens a page as somebody does who is not signed in: by the login.
func (h *house) signIn(t *testing.T, role schema.Role, path string, view browsertest.View, look ...func(login *browsertest.Page)) *browsertest.Page {
	t.Helper()
	p := browsertest.Open(t, h.server.URL+path, view)
	for _, l := range look {
		l(p)
	}
	p.Type("#token", h.tokens[role])
	p.Follow("form button")
	p.CheckStatus(http.StatusOK)
	return p
}

// A page costs no more than this, on the wire and uncompressed: itself, a style sheet, a script, an icon, and the icon again.
const (
	requestsMost = 5
	bytesMost    = 100 << 10
)

// colourful are the pages that have every colour of the style sheet between them.
var colourful = []string{"overview", "delivery", "edit", "target", "findings", "policies", "projections"}

// checkCost judges what a page asked for to be shown; what it asks later to keep up to date is not counted.
func checkCost(t *testing.T, what string, requests []browsertest.Request) {
	t.Helper()
	asked, bytes := []string{}, int64(0)
	for _, r := range requests {
		if r.Type != "Fetch" && r.Type != "EventSource" {
			asked, bytes = append(asked, r.Type+" "+r.URL), bytes+r.Bytes
		}
	}
	if len(asked) > requestsMost || bytes > bytesMost {
		t.Errorf("%s costs %d requests and %d bytes, more than %d and %d: %q", what, len(asked), bytes, requestsMost, bytesMost, asked)
	}
}

// Every page, seen by light and by dark, on a small screen, and by those who do not see: each is accessible, complains of
// nothing, is as wide as the screen, and costs little. What differs between the views is looked at in each; the rest in one.
func TestEveryPage(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	pages := map[string]string{
		"overview": "/", "deliveries": "/deliveries?outcome=failed&outcome=withheld", "delivery": "/deliveries/" + h.sent["failed"].String(), "none": "/deliveries?target=nothing",
		"unknown": "/deliveries/unknown", "replays": "/replays?count=yes&outcome=failed", "targets": "/targets", "target": "/targets/klaviyo-reward-earned?from=1&to=2", "edit": "/targets/klaviyo-reward-earned/edit", "proposals": "/proposals",
		"people": "/people", "person": "/people/" + h.people[0].String(), "erase": "/people/" + h.people[0].String() + "/erase", "consent-changes": "/consent-changes", "opt-outs": "/opt-outs", "ledger": "/ledger", "event": "/ledger/9",
		"verification": "/verification", "reconciliation": "/reconciliation", "run": "/reconciliation/" + h.runs["done"].String(), "findings": "/findings", "projections": "/projections",
		"policies": "/policies", "platform": "/policies/platforms/klaviyo", "settings": "/settings", "lost": "/nowhere",
	}
	var names []string
	for name := range pages {
		names = append(names, name)
	}
	slices.Sort(names)
	for name, view := range map[string]browsertest.View{"light": {}, "dark": {Dark: true}, "narrow": {Width: 390, Height: 844}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			page := h.signIn(t, schema.RoleAdmin, "/people", view, func(login *browsertest.Page) {
				login.Screenshot("login-" + name)
				login.CheckAccessible()
			})
			for _, what := range names {
				before := len(page.Requests())
				page.Goto(h.server.URL + pages[what])
				if what != "lost" {
					page.CheckStatus(http.StatusOK)
				}
				checkCost(t, what, page.Requests()[before:])
				if name == "light" || os.Getenv(browsertest.EnvArtefacts) != "" { // for somebody to look at
					page.Screenshot(what + "-" + name)
				}
				switch {
				case name == "light":
					page.CheckAccessible()
				case name == "dark" && slices.Contains(colourful, what):
					page.CheckAccessible("color-contrast")
				}
				var wide bool
				page.Eval(`document.documentElement.scrollWidth > innerWidth + 1`, &wide)
				if wide {
					t.Errorf("%s is wider than the screen", what)
				}
			}
		})
	}
}
