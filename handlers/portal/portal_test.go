package portal

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// clock stands still until it is moved.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// house is a portal over a ledger of its own, and one person.
type house struct {
	t      *testing.T
	portal *portal
	clock  *clock
	log    *bytes.Buffer
	person uuid.UUID
}

var offer = map[domain.Channel][]domain.Purpose{
	domain.Email: {domain.Promo, domain.Benefits, domain.Service},
	domain.SMS:   {domain.Promo, domain.Reminders},
}

func newHouse(t *testing.T, change ...func(*Config)) *house {
	t.Helper()
	definitions := []projections.Definition{consent.Definition, targets.Definition}
	db, err := schema.Connect(schematest.Open(t).URL, schema.Options{Role: "ledger_service", Paths: projections.Paths("", definitions...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := projections.NewEngine(db, "", nil, definitions...).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	key := make([]byte, 32)
	rand.Read(key)
	master, err := schema.ParseMasterKey(base64.StdEncoding.EncodeToString(key))
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, clock: &clock{at: time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)}, log: &bytes.Buffer{}, person: uuid.New()}
	vault, err := schema.OpenVault(t.Context(), db, master, h.clock.now)
	if err != nil {
		t.Fatal(err)
	}
	links, err := vault.Links(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ledger := schema.OpenLedger(db, nil, nil)
	t.Cleanup(ledger.Close)
	config := Config{
		Intake: &intake.Service{Ledger: ledger, Vault: vault, Clock: h.clock.now}, Vault: vault, Links: links, DB: db, Clock: h.clock.now,
		Theme: Theme{Offer: offer}, Log: slog.New(slog.NewJSONHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&config)
	}
	if h.portal, err = newPortal(config); err != nil {
		t.Fatal(err)
	}
	return h
}

// link is the path of a link to the person's page.
func (h *house) link(kind domain.LinkKind, purpose domain.Purpose) string {
	h.t.Helper()
	token, err := h.portal.Links.Token(domain.Link{
		Kind: kind, ProfileID: h.person, DeliveryID: uuid.New(), Channel: domain.Email, Purpose: purpose, ExpiresAt: h.clock.now().Add(90 * 24 * time.Hour),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return map[domain.LinkKind]string{domain.LinkPreferences: "/preferences/", domain.LinkUnsubscribe: "/unsubscribe/"}[kind] + token
}

func (h *house) call(method, path string, form url.Values, with ...string) *httptest.ResponseRecorder {
	h.t.Helper()
	r := httptest.NewRequestWithContext(h.t.Context(), method, path, strings.NewReader(form.Encode()))
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.Header.Set("User-Agent", "Browser/1.0")
	for i := 0; i+1 < len(with); i += 2 {
		if with[i] == "RemoteAddr" {
			r.RemoteAddr = with[i+1]
			continue
		}
		r.Header.Set(with[i], with[i+1])
	}
	w := httptest.NewRecorder()
	h.portal.ServeHTTP(w, r)
	return w
}

// decided lists what the ledger holds of the person's decisions, opened.
func (h *house) decided() (all []domain.ConsentChanged) {
	h.t.Helper()
	for e, err := range schema.Events(h.t.Context(), h.portal.DB, schema.Filter{Subject: h.person}) {
		if err != nil {
			h.t.Fatal(err)
		}
		opened, err := h.portal.Vault.OpenEvents(h.t.Context(), []domain.Recorded{e})
		if err != nil {
			h.t.Fatal(err)
		}
		if c, ok := opened[0].Payload.(domain.ConsentChanged); ok {
			if strings.Contains(string(e.Data), "192.0.2.1") || strings.Contains(string(e.Data), "Browser") {
				h.t.Errorf("evidence stands in the open: %s", e.Data)
			}
			all = append(all, c)
		}
	}
	return all
}

// head is how many events the ledger holds.
func (h *house) head() int64 {
	h.t.Helper()
	head, err := h.portal.Intake.Ledger.Head(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return head
}

func TestOpeningLinksChangesNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, path := range []string{h.link(domain.LinkPreferences, ""), h.link(domain.LinkUnsubscribe, domain.Promo)} {
		for _, method := range []string{"GET", "HEAD", "GET"} {
			w := h.call(method, path, nil)
			if w.Code != http.StatusOK || method == "HEAD" && w.Body.Len() > 0 {
				t.Errorf("%s %s = %d", method, path, w.Code)
			}
			if w.Header().Get("Set-Cookie") != "" || w.Header().Get("Referrer-Policy") != "no-referrer" || !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
				t.Errorf("headers = %v", w.Header())
			}
			if strings.Contains(w.Body.String(), "<script") || strings.Contains(w.Body.String(), h.person.String()) {
				t.Errorf("the page runs scripts or names the person")
			}
		}
	}
	if got := h.head(); got != 0 {
		t.Errorf("%d events were recorded", got)
	}
}

func TestChoicesAreRecordedWithTheirEvidence(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
	path := h.link(domain.LinkPreferences, "")
	form := url.Values{
		"offered": {"email/all", "email/promo", "email/service", "sms/all", "sms/promo", "no/such", "email/nothing"},
		"was":     {"email/all", "email/service", "sms/all"},
		"on":      {"email/all", "email/promo", "sms/all", "push/promo"}, // push was not on the page
	}
	w := h.call("POST", path+"?lang=de", form, "RemoteAddr", "10.1.1.1:4711", "X-Forwarded-For", "198.51.100.9, 203.0.113.7, 10.2.2.2")
	if w.Code != http.StatusSeeOther {
		t.Fatalf("POST = %d %s", w.Code, w.Body)
	}
	got := h.decided()
	if len(got) != 1 {
		t.Fatalf("decisions = %+v, want one", got)
	}
	want := []domain.ConsentChange{{Channel: domain.Email, Purpose: domain.Promo, Status: domain.OptedIn}, {Channel: domain.Email, Purpose: domain.Service, Status: domain.OptedOut}}
	if len(got[0].Changes) != 2 || got[0].Changes[0] != want[0] || got[0].Changes[1] != want[1] {
		t.Errorf("changes = %+v, want %+v", got[0].Changes, want)
	}
	e := got[0].Evidence
	if e["ip"] != "203.0.113.7" || e["user_agent"] != "Browser/1.0" || e["language"] != "de" || !strings.HasPrefix(e["form_version"], "de-") || e["delivery_id"] == "" ||
		!strings.Contains(e["wording email/promo"], "Angebote und Aktionen") || got[0].Method != "preference_centre" || got[0].DecidedBy != "customer" || !got[0].DecidedAt.Equal(h.clock.now()) {
		t.Errorf("decision = %+v", got[0])
	}
	shown := h.call("GET", w.Header().Get("Location"), nil)
	if body := shown.Body.String(); !strings.Contains(body, "E-Mail – Angebote und Aktionen: ein") || !strings.Contains(body, `role="status"`) {
		t.Errorf("the page does not say what was saved: %s", body)
	}
	// The same form again, as from another tab: it says what was changed already.
	again := h.call("POST", path, form)
	if len(h.decided()) != 2 || again.Code != http.StatusSeeOther {
		t.Errorf("a repeat: %d, %d decisions", again.Code, len(h.decided()))
	}
	// Nothing changed: nothing is recorded.
	same := h.call("POST", path, url.Values{"offered": {"email/promo"}, "was": {"email/promo"}, "on": {"email/promo"}})
	if len(h.decided()) != 2 || !strings.HasSuffix(same.Header().Get("Location"), "saved=0") {
		t.Errorf("an unchanged form: %s, %d decisions", same.Header().Get("Location"), len(h.decided()))
	}
	// Somebody else's position in the address says nothing.
	if body := h.call("GET", path+"?saved=99", nil).Body.String(); strings.Contains(body, `role="status"`) {
		t.Error("a made-up position is shown as saved")
	}
}

func TestEverythingCanBeStopped(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.call("POST", h.link(domain.LinkPreferences, ""), url.Values{"offered": {"email/all", "sms/all", "email/promo"}, "was": {"email/all", "sms/all", "email/promo"}, "stop": {"all"}})
	got := h.decided()
	if len(got) != 1 || len(got[0].Changes) != 2 || got[0].Changes[0].Purpose != domain.PurposeAll || got[0].Changes[1].Status != domain.OptedOut {
		t.Errorf("decisions = %+v, want both channels refused as a whole", got)
	}
}

func TestOneClick(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	path := h.link(domain.LinkUnsubscribe, domain.Promo)
	for name, tc := range map[string]struct {
		form url.Values
		with []string
		want int
	}{
		"a scanner that posts nothing": {url.Values{}, nil, http.StatusBadRequest},
		"another form":                 {url.Values{"a": {"b"}}, nil, http.StatusBadRequest},
		"almost":                       {url.Values{"List-Unsubscribe": {"one-click"}}, nil, http.StatusBadRequest},
	} {
		if w := h.call("POST", path, tc.form, tc.with...); w.Code != tc.want {
			t.Errorf("%s: %d, want %d", name, w.Code, tc.want)
		}
	}
	if got := h.head(); got != 0 {
		t.Fatalf("%d events were recorded", got)
	}
	for range 3 { // a mail program that is unsure posts again
		if w := h.call("POST", path, url.Values{"List-Unsubscribe": {"One-Click"}}); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "<") {
			t.Errorf("one click = %d %s", w.Code, w.Body)
		}
	}
	body := "--b\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--b--\r\n"
	r := httptest.NewRequestWithContext(t.Context(), "POST", h.link(domain.LinkUnsubscribe, domain.Benefits), strings.NewReader(body))
	r.Header.Set("Content-Type", "multipart/form-data; boundary=b")
	w := httptest.NewRecorder()
	h.portal.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Errorf("as multipart/form-data: %d %s", w.Code, w.Body)
	}
	got := h.decided()
	if len(got) != 2 || got[0].Method != "list_unsubscribe" || got[0].Changes[0] != (domain.ConsentChange{Channel: domain.Email, Purpose: domain.Promo, Status: domain.OptedOut}) || got[1].Changes[0].Purpose != domain.Benefits {
		t.Errorf("decisions = %+v", got)
	}
}

func TestTokensThatOpenNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	preferences, leave := h.link(domain.LinkPreferences, ""), h.link(domain.LinkUnsubscribe, domain.Promo)
	for name, tc := range map[string]struct {
		path string
		want int
	}{
		"nothing":                              {"/preferences/", http.StatusNotFound},
		"made up":                              {"/preferences/abc", http.StatusNotFound},
		"cut short":                            {preferences[:len(preferences)-3], http.StatusNotFound},
		"an unsubscribe link as preferences":   {strings.Replace(leave, "unsubscribe", "preferences", 1), http.StatusNotFound},
		"a preferences link as unsubscribe":    {strings.Replace(preferences, "preferences", "unsubscribe", 1), http.StatusNotFound},
		"a file that there is not":             {"/preferences/-/secret.css", http.StatusNotFound},
		"very long":                            {"/preferences/" + strings.Repeat("A", 8000), http.StatusNotFound},
		"a method that changes something else": {preferences, http.StatusOK},
	} {
		if w := h.call("GET", tc.path, nil); w.Code != tc.want || !strings.Contains(w.Body.String(), "</html>") {
			t.Errorf("%s: %d, want %d and a page", name, w.Code, tc.want)
		}
	}
	h.clock.move(91 * 24 * time.Hour)
	for _, path := range []string{preferences, leave} {
		if w := h.call("GET", path, nil, "Accept-Language", "de"); w.Code != http.StatusGone || !strings.Contains(w.Body.String(), "abgelaufen") {
			t.Errorf("expired: %d %s", w.Code, w.Body)
		}
		if w := h.call("POST", path, url.Values{"List-Unsubscribe": {"One-Click"}}); w.Code != http.StatusGone {
			t.Errorf("expired: %d", w.Code)
		}
	}
}

func TestWhoeverWasErasedSeesThat(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	tx, err := h.portal.DB.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if err := h.portal.Vault.Erase(t.Context(), tx, h.person, "test", "ticket 1"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{h.link(domain.LinkPreferences, ""), h.link(domain.LinkUnsubscribe, domain.Promo)} {
		if w := h.call("GET", path, nil); w.Code != http.StatusGone || !strings.Contains(w.Body.String(), "erased") {
			t.Errorf("GET = %d", w.Code)
		}
		if w := h.call("POST", path, url.Values{"stop": {"all"}}); w.Code != http.StatusGone {
			t.Errorf("POST = %d", w.Code)
		}
	}
	if h.head() != 0 {
		t.Error("something was recorded")
	}
}

func TestRates(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	path := h.link(domain.LinkPreferences, "")
	var last int
	for i := range personBurst + 1 {
		last = h.call("POST", path, url.Values{}, "RemoteAddr", netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}).String()+":1").Code
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("one person's post number %d = %d, want 429", personBurst+1, last)
	}
	var w *httptest.ResponseRecorder
	for range callerBurst + 1 {
		w = h.call("GET", "/preferences/guess", nil, "RemoteAddr", "203.0.113.5:1")
	}
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("one address's guess number %d = %d, want 429", callerBurst+1, w.Code)
	}
	if w := h.call("GET", path, nil, "RemoteAddr", "203.0.113.6:1"); w.Code != http.StatusOK {
		t.Errorf("another address = %d", w.Code)
	}
	h.clock.move(time.Minute)
	if w := h.call("POST", path, url.Values{}, "RemoteAddr", "203.0.113.7:1"); w.Code != http.StatusSeeOther {
		t.Errorf("after a minute = %d", w.Code)
	}
}

func TestLanguages(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	path := h.link(domain.LinkPreferences, "")
	for accept, want := range map[string]string{
		"": "en", "de-AT, en;q=0.5": "de", "fr-CA": "fr", "es-419,es;q=0.9": "es", "it": "it", "ar-EG": "ar", "xx": "en", "ja, de;q=0.3": "de", ";;;": "en",
	} {
		if w := h.call("GET", path, nil, "Accept-Language", accept); w.Header().Get("Content-Language") != want || !strings.Contains(w.Body.String(), `<html lang="`+want+`"`) {
			t.Errorf("Accept-Language %q = %q, want %q", accept, w.Header().Get("Content-Language"), want)
		}
	}
	if w := h.call("GET", path+"?lang=it", nil, "Accept-Language", "de"); w.Header().Get("Content-Language") != "it" {
		t.Error("the chosen language does not win")
	}
	if len(h.portal.locales.all) < 5 {
		t.Errorf("%d languages, want five at least", len(h.portal.locales.all))
	}
}

func TestThemesThatCannotBeShown(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		theme Theme
		want  string
	}{
		"too light an accent":    {Theme{Accent: "#88ccff"}, "contrast"},
		"too dark on dark":       {Theme{AccentDark: "#203050"}, "lighter"},
		"no colour":              {Theme{Accent: "red"}, "no colour"},
		"a font that is code":    {Theme{Font: "x; } body { display: none"}, "font"},
		"a privacy page by http": {Theme{Privacy: "http://example.com"}, "https"},
		"no address":             {Theme{Contact: "nobody"}, "e-mail"},
		"an unknown channel":     {Theme{Offer: map[domain.Channel][]domain.Purpose{"fax": {domain.Promo}}}, "channel"},
		"an unknown purpose":     {Theme{Offer: map[domain.Channel][]domain.Purpose{domain.Email: {"spam"}}}, "purpose"},
		"a logo that runs":       {Theme{Logo: "logo.html"}, "logo"},
	} {
		if _, err := tc.theme.complete(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error = %v, want one about %q", name, err, tc.want)
		}
	}
	if ratio, err := contrast("#000000", "#ffffff"); err != nil || ratio < 20.99 || ratio > 21.01 {
		t.Errorf("black on white = %v, %v, want 21", ratio, err)
	}
}

func TestNothingPersonalIsLogged(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	path := h.link(domain.LinkPreferences, "")
	h.call("POST", path, url.Values{"offered": {"email/promo"}, "on": {"email/promo"}})
	if err := h.portal.DB.Close(); err != nil {
		t.Fatal(err)
	}
	if w := h.call("GET", path, nil); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("without a database = %d", w.Code)
	}
	logged := h.log.String()
	if logged == "" {
		t.Error("a lost database is not logged")
	}
	_, token, _ := strings.Cut(path, "/preferences/")
	for _, secret := range []string{token, h.person.String(), "Browser", "192.0.2.1"} {
		if strings.Contains(logged, secret) {
			t.Errorf("the log holds %q: %s", secret, logged)
		}
	}
	if !json.Valid([]byte(strings.SplitN(logged, "\n", 2)[0])) {
		t.Error("the log is not JSON")
	}
}
