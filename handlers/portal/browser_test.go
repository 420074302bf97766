package portal

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/browsertest"
)

const testTheme = `brand: Harbour & Pine
logo: logo.svg
accent: "#0f5c4a"
accent_dark: "#7fd6bd"
radius: 16
privacy: https://example.com/privacy
contact: privacy@example.com
offer:
  email: [promo, discover, benefits, reminders, service]
  sms: [promo, reminders]
  push: [benefits]
  post: [promo]
`

const testLogo = `<svg xmlns="http://www.w3.org/2000/svg" width="190" height="40" viewBox="0 0 190 40"><g fill="#0f5c4a"><path d="M20 3 34 27H6z"/><path d="M18 27h4v9h-4z"/></g>
<text x="44" y="27" font-family="Georgia, serif" font-size="18" fill="#7a8699">Harbour &amp; Pine</text></svg>`

// themed is a house with a brand.
func themed(t *testing.T) (*house, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"theme.yaml": testTheme, "logo.svg": testLogo} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	theme, err := ReadTheme(filepath.Join(dir, "theme.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, func(c *Config) { c.Theme = theme })
	server := httptest.NewServer(h.portal)
	t.Cleanup(server.Close)
	return h, server.URL
}

// TestThePreferenceCentreInABrowser changes answers as a person does, without JavaScript, and looks at the pages in
// light and dark, wide and narrow, from left and from right.
func TestThePreferenceCentreInABrowser(t *testing.T) {
	t.Parallel()
	h, server := themed(t)
	page := browsertest.Open(t, server+h.link(domain.LinkPreferences, ""), browsertest.View{NoJavaScript: true})
	page.CheckStatus(200)
	page.CheckAccessible()
	page.Screenshot("light")
	if totals := page.Totals(); totals.Requests > 3 || totals.Bytes > 64<<10 {
		t.Errorf("the page costs %+v, want a page, a style sheet and a logo, in 64 KiB", totals)
	}
	page.Click("#email-promo")
	page.Click("#sms")
	page.Follow("button.primary")
	if got := page.Text(".notice"); !strings.Contains(got, "Email – Offers and promotions: on") || !strings.Contains(got, "Text messages: off") {
		t.Errorf("the notice says %q", got)
	}
	page.CheckAccessible()
	page.Screenshot("saved")
	decided := h.decided()
	if len(decided) != 1 || len(decided[0].Changes) != 2 {
		t.Fatalf("decisions = %+v", decided)
	}
	var on []bool
	page.Eval(`["email-promo", "email-benefits", "sms"].map(id => document.getElementById(id).checked)`, &on)
	if !on[0] || on[1] || on[2] {
		t.Errorf("after saving the switches are %v", on)
	}
	for name, view := range map[string]browsertest.View{
		"dark":        {NoJavaScript: true, Dark: true},
		"narrow":      {NoJavaScript: true, Width: 320, Height: 640},
		"narrow dark": {NoJavaScript: true, Width: 360, Height: 740, Dark: true, Language: "de"},
		"arabic":      {NoJavaScript: true, Language: "ar"},
		"french":      {NoJavaScript: true, Width: 768, Language: "fr-CH"},
	} {
		page := browsertest.Open(t, server+h.link(domain.LinkPreferences, ""), view)
		page.CheckAccessible()
		page.Screenshot(name)
		var wider bool
		if page.Eval(`document.documentElement.scrollWidth > innerWidth`, &wider); wider {
			t.Errorf("%s: the page scrolls sideways", name)
		}
	}
}

func TestTheWayOutInABrowser(t *testing.T) {
	t.Parallel()
	h, server := themed(t)
	link := server + h.link(domain.LinkUnsubscribe, domain.Promo)
	page := browsertest.Open(t, link, browsertest.View{NoJavaScript: true, Width: 400, Height: 800})
	page.CheckAccessible()
	page.Screenshot("asked")
	page.Follow("button.primary")
	page.CheckAccessible()
	page.Screenshot("unsubscribed")
	if got := page.Text(".notice"); !strings.Contains(got, "You are unsubscribed") {
		t.Errorf("the notice says %q", got)
	}
	decided := h.decided()
	if len(decided) != 1 || decided[0].Method != "unsubscribe_page" || decided[0].Changes[0].Status != domain.OptedOut {
		t.Errorf("decisions = %+v", decided)
	}
	page.Goto(link)
	page.CheckAccessible()
	page.Follow("button.quiet")
	if got := h.decided(); len(got) != 2 || got[1].Changes[0].Purpose != domain.PurposeAll {
		t.Errorf("decisions = %+v", got)
	}
	page.Goto(server + "/unsubscribe/made-up")
	page.CheckStatus(404)
	page.CheckAccessible()
	page.Screenshot("invalid")
}
