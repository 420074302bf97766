package console

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc/oidctest"

	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// provider is an OpenID provider that answers each code with the claims it stands for.
type provider struct {
	url    string
	key    *rsa.PrivateKey
	claims func(nonce string) string
	nonce  string
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{key: key}
	known := &oidctest.Server{PublicKeys: []oidctest.PublicKey{{PublicKey: key.Public(), KeyID: "k", Algorithm: "RS256"}}}
	mux := http.NewServeMux()
	mux.Handle("/", known)
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("code_verifier") == "" || r.FormValue("code") != "good" {
			http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":"x","token_type":"Bearer","id_token":%q}`, oidctest.SignIDToken(p.key, "k", "RS256", p.claims(p.nonce)))
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	known.SetIssuer(s.URL)
	p.url = s.URL
	return p
}

func TestSigningInByOpenIDConnect(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	h := newHouse(t, func(c *Config) {
		c.OIDC = &OIDC{Name: "Example", Issuer: p.url, ClientID: "console", ClientSecret: "hush", RedirectURL: "https://ledger.example.com/login/oidc/callback", Roles: map[string]schema.Role{
			"crm-compliance": schema.RoleCompliance, "crm-admins": schema.RoleAdmin,
		}}
	})
	claims := func(change func(map[string]any)) func(string) string {
		return func(nonce string) string {
			all := map[string]any{
				"iss": p.url, "aud": "console", "sub": "00u1", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(), "nonce": nonce,
				"email": "ada@example.com", "email_verified": true, "groups": []string{"everybody", "crm-compliance"},
			}
			change(all)
			text, err := json.Marshal(all)
			if err != nil {
				t.Error(err)
			}
			return string(text)
		}
	}
	// signIn goes through both halves, the second with whatever the case makes of it.
	signIn := func(answer func(url.Values)) *httptest.ResponseRecorder {
		v := &visitor{h: h}
		w := v.get("/login/oidc?to=/people")
		at, err := url.Parse(w.Header().Get("Location"))
		if err != nil || w.Code != http.StatusSeeOther || !strings.HasPrefix(at.String(), p.url) {
			t.Fatalf("the first half: %d to %s", w.Code, at)
		}
		q := at.Query()
		if q.Get("code_challenge_method") != "S256" || q.Get("state") == "" || q.Get("client_id") != "console" {
			t.Errorf("it asks with %v", q)
		}
		p.nonce = q.Get("nonce")
		v.cookie = w.Result().Cookies()[0]
		back := url.Values{"code": {"good"}, "state": {q.Get("state")}}
		answer(back)
		return v.get("/login/oidc/callback?" + back.Encode())
	}
	nothing := func(map[string]any) {}
	p.claims = claims(nothing)
	w := signIn(func(url.Values) {})
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/people" {
		t.Fatalf("signing in: %d to %q: %s", w.Code, w.Header().Get("Location"), w.Body)
	}
	var session *http.Cookie
	for _, c := range w.Result().Cookies() {
		if c.Name == cookieName {
			session = c
		}
	}
	if page := (&visitor{h: h, cookie: session}).get("/settings").Body.String(); !strings.Contains(page, "ada@example.com") || !strings.Contains(page, "compliance") {
		t.Error("the session is not Ada's, of compliance")
	}
	events, err := audit.Events(t.Context(), h.console.DB, schema.Filter{Stream: "session-ada@example.com", Limit: 10})
	if err != nil || len(events) != 1 || !strings.Contains(string(events[0].Data), `"issuer"`) {
		t.Errorf("recorded: %+v, %v", events, err)
	}

	for name, tc := range map[string]struct {
		claims func(map[string]any)
		answer func(url.Values)
	}{
		"in none of the groups":         {claims: func(c map[string]any) { c["groups"] = []string{"everybody"} }},
		"without groups":                {claims: func(c map[string]any) { delete(c, "groups") }},
		"an identity for another":       {claims: func(c map[string]any) { c["aud"] = "another" }},
		"an identity of another issuer": {claims: func(c map[string]any) { c["iss"] = "https://evil.example" }},
		"an identity of another flow":   {claims: func(c map[string]any) { c["nonce"] = "other" }},
		"an old identity":               {claims: func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() }},
		"another browser's state":       {answer: func(q url.Values) { q.Set("state", "other") }},
		"no state":                      {answer: func(q url.Values) { q.Del("state") }},
		"a wrong code":                  {answer: func(q url.Values) { q.Set("code", "bad") }},
		"refused by the provider":       {answer: func(q url.Values) { q.Set("error", "access_denied") }},
	} {
		if tc.claims == nil {
			tc.claims = nothing
		}
		if tc.answer == nil {
			tc.answer = func(url.Values) {}
		}
		p.claims = claims(tc.claims)
		w := signIn(tc.answer)
		if w.Code != http.StatusForbidden {
			t.Errorf("%s: %d, want no way in", name, w.Code)
		}
		for _, c := range w.Result().Cookies() {
			if c.Name == cookieName {
				t.Errorf("%s: a session was opened", name)
			}
		}
	}
	p.claims = claims(func(c map[string]any) { c["email_verified"] = false; c["groups"] = "crm-admins" })
	signIn(func(url.Values) {})
	if events, err := audit.Events(t.Context(), h.console.DB, schema.Filter{Stream: "session-" + p.url + "#00u1", Limit: 1}); err != nil || len(events) != 1 {
		t.Errorf("an address that is not verified is no name: %v, %v", events, err)
	}
	forged := base64.RawURLEncoding.EncodeToString([]byte(`{"State":"","Nonce":""}`))
	if w := (&visitor{h: h, cookie: &http.Cookie{Name: stateCookie, Value: forged}}).get("/login/oidc/callback?code=good&state="); w.Code != http.StatusForbidden {
		t.Errorf("a forged flow: %d", w.Code)
	}

	// Whoever fails again and again has to wait, by this way as by tokens; an answer to nothing counts against nobody.
	stranger := &visitor{h: h, address: "198.51.100.77:1"}
	for range 40 {
		stranger.get("/login/oidc/callback?code=bad&state=none")
	}
	if w := stranger.get("/login/oidc"); w.Code != http.StatusSeeOther {
		t.Fatalf("after stray answers: %d, want the way in still open", w.Code)
	}
	for i := 0; ; i++ {
		stranger.cookie = nil
		w := stranger.get("/login/oidc")
		if w.Code == http.StatusTooManyRequests {
			if w.Header().Get("Retry-After") == "" || i < 10 {
				t.Errorf("after %d failures: %v", i, w.Header())
			}
			break
		}
		at, err := url.Parse(w.Header().Get("Location"))
		if err != nil || i > 30 {
			t.Fatalf("after %d failures: %d, want the lockout", i, w.Code)
		}
		stranger.cookie = w.Result().Cookies()[0]
		stranger.get("/login/oidc/callback?" + url.Values{"code": {"bad"}, "state": {at.Query().Get("state")}}.Encode())
	}
	stranger.cookie = nil
	if w := stranger.post("/login", url.Values{"token": {"dl_guess"}}); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("a token from the same address: %d %v", w.Code, w.Header())
	}
}
