package outbound

import (
	"context"
	"database/sql"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	_ "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/webhook" // the platform of the tests
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// bench is a sender with a vault of its own.
type bench struct {
	*testing.T
	db     *sql.DB
	vault  *schema.Vault
	sender *Sender
	mu     sync.Mutex
	now    time.Time
}

func newBench(t *testing.T, o Options) *bench {
	t.Helper()
	database := schematest.Open(t)
	db, err := schema.Connect(database.URL, schema.Options{Role: "ledger_service"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	key, err := schema.LoadOrCreateMasterKey(filepath.Join(t.TempDir(), "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{T: t, db: db, now: time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)}
	if b.vault, err = schema.OpenVault(t.Context(), db, key, time.Now); err != nil {
		t.Fatal(err)
	}
	if o.Allowed == nil {
		o.Allowed = loopback
	}
	client := NewClient(o)
	t.Cleanup(func() {
		client.certified.Purge()
		closeIdle(client.shared)
	})
	b.sender = New(client, b.clock)
	return b
}

func (b *bench) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bench) later(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

func (b *bench) set(name, value string) {
	b.Helper()
	if _, err := b.vault.SetSecret(b.Context(), b.db, name, value, "test"); err != nil {
		b.Fatal(err)
	}
	b.vault.ForgetSecret(name)
}

const placeholder = "__secret_TEST_"

func secret(name string) string { return placeholder + name + domain.PlaceholderEnd }

// send makes a request of a target as the planner would have planned it, with its templates as they are.
func (b *bench) send(t domain.Target) (a domain.DeliveryAttempted, kind domain.Verdict, reason string) {
	b.Helper()
	t.Handle = "test"
	if t.Body == "" && len(t.Form) == 0 {
		t.Body = `{"hello":"world"}`
	}
	t.Normalize()
	written := t
	written.Headers = nil // they are rendered here, with placeholders
	if err := written.Validate(); err != nil {
		b.Fatal(err)
	}
	planned := domain.DeliveryPlanned{DeliveryID: uuid.New(), URL: t.URL, Headers: t.Headers, Body: t.Body, Placeholder: placeholder}
	r, err := MakeOut(b.Context(), b.vault, planned, t, 1)
	if err != nil {
		return a, domain.RetryLater, err.Error()
	}
	out, err := b.sender.Send(b.Context(), r)
	if err != nil {
		b.Error(err)
	}
	return out.Attempt, out.Verdict.Kind, out.Verdict.Reason
}

// quiet takes what receivers say of the handshakes that the tests mean to fail.
var quiet = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)

// receiver keeps the requests that it got.
type receiver struct {
	*httptest.Server
	mu   sync.Mutex
	got  []*http.Request
	body []string
}

func newReceiver(t *testing.T, answer func(http.ResponseWriter, *http.Request, int)) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(r.handler(answer))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) handler(answer func(http.ResponseWriter, *http.Request, int)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		r.got, r.body = append(r.got, req.Clone(context.Background())), append(r.body, string(body))
		n := len(r.got)
		r.mu.Unlock()
		if answer != nil {
			answer(w, req, n)
		}
	})
}

func (r *receiver) last(t *testing.T) (*http.Request, string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.got) == 0 {
		t.Fatal("nothing arrived")
	}
	return r.got[len(r.got)-1], r.body[len(r.body)-1]
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

// Whatever a receiver gives back of a secret, in whatever form, nothing that is kept holds it.
func TestSecretsShowNowhere(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	const value, before = `k3y "with" <all>/of+it & more`, "the-value-before"
	b.set("key", before)
	b.set("key", value)
	echo := newReceiver(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		w.Header().Set("X-Echo", r.Header.Get("Authorization")+" "+before)
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, strings.Join(append(formsOf(value), formsOf(before)...), "\n"))
	})
	a, kind, reason := b.send(domain.Target{
		URL: echo.URL + "/in?key=" + secret("key"), Headers: map[string]string{"Authorization": "Key " + secret("key")},
		Body: `{"key": "` + secret("key") + `"}`,
	})
	if kind != domain.Permanent {
		t.Fatalf("verdict = %s (%s), want permanent", kind, reason)
	}
	req, body := echo.last(t)
	if got := req.URL.Query().Get("key"); got != value || req.Header.Get("Authorization") != "Key "+value {
		t.Errorf("the receiver got %q and %q, want the secret", got, req.Header.Get("Authorization"))
	}
	if want := `{"key": "` + jsonEscape(value) + `"}`; body != want {
		t.Errorf("body = %s, want %s", body, want)
	}
	kept := domainText(t, a) + reason
	for _, form := range append(formsOf(value), formsOf(before)...) {
		if strings.Contains(kept, form) {
			t.Errorf("what is kept holds %q: %s", form, kept)
		}
	}
	if !strings.Contains(kept, Mask) {
		t.Errorf("nothing is masked in %s", kept)
	}
}

// Of two secrets of which one begins as the other, neither shows, nor what one has more than the other.
func TestASecretWithinAnotherShowsNowhere(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	b.set("short", "s3cr3t")
	b.set("long", "s3cr3t-and-more")
	echo := newReceiver(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, r.Header.Get("X-Long")+" "+r.Header.Get("X-Short"))
	})
	a, _, reason := b.send(domain.Target{URL: echo.URL, Headers: map[string]string{"X-Long": secret("long"), "X-Short": secret("short")}})
	if req, _ := echo.last(t); req.Header.Get("X-Long") != "s3cr3t-and-more" {
		t.Errorf("the receiver got %q", req.Header.Get("X-Long"))
	}
	if kept := domainText(t, a) + reason; strings.Contains(kept, "-and-more") || strings.Contains(kept, "s3cr3t") {
		t.Errorf("what is kept holds some of a secret: %s", kept)
	}
}

// A secret of several lines would end the header that it stands in, and begin another.
func TestASecretOfTwoLinesIsNotSent(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	b.set("lines", "one\r\nX-Evil: two")
	r := newReceiver(t, nil)
	for name, target := range map[string]domain.Target{
		"in a header": {URL: r.URL, Headers: map[string]string{"X-Key": secret("lines")}},
		"in the URL":  {URL: r.URL + "/?key=" + secret("lines")},
	} {
		if _, kind, reason := b.send(target); kind.Settles() || !strings.Contains(reason, "line break") || strings.Contains(reason, "one") {
			t.Errorf("%s: %s (%s), want it said that there is a line break", name, kind, reason)
		}
	}
	if n := r.count(); n != 0 {
		t.Errorf("%d requests left", n)
	}
}

// A request that is rehearsed holds dots where the secrets would be.
func TestARehearsalHoldsNoSecret(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	b.set("key", "s3cr3t")
	target := domain.Target{Handle: "test", URL: "https://platform.example/in?key=" + secret("key"), Body: `{"key": "` + secret("key") + `"}`}
	target.Normalize()
	planned := domain.DeliveryPlanned{DeliveryID: uuid.New(), URL: target.URL, Headers: map[string]string{"X-Key": secret("key")}, Body: target.Body, Placeholder: placeholder}
	r, err := MakeOut(t.Context(), b.vault, planned, target, 1)
	if err != nil {
		t.Fatal(err)
	}
	var got string
	out, err := Rehearse(t.Context(), r, b.clock(), func(*url.URL) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			got = r.URL.Query().Get("key") + " " + r.Header.Get("X-Key") + " " + string(body)
			w.WriteHeader(http.StatusAccepted)
		})
	})
	if err != nil || out.Attempt.Status != http.StatusAccepted {
		t.Fatalf("rehearsed: %+v (%v)", out, err)
	}
	if want := Mask + " " + Mask + ` {"key": "` + Mask + `"}`; got != want {
		t.Errorf("the receiver was shown %s, want %s", got, want)
	}
}

func TestHMACOfTheCRM(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	r := newReceiver(t, nil)
	b.set("crm", "It's a Secret to Everybody")
	target := domain.Target{URL: r.URL, Body: "Hello, World!", ContentType: "text/plain", HMAC: "crm"}
	if a, kind, reason := b.send(target); kind != domain.Accepted {
		t.Fatalf("%s %s %+v", kind, reason, a)
	}
	const want = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17" // GitHub documents this pair of secret and body
	req, _ := r.last(t)
	if got := req.Header.Get("X-Omneo-Hmac-SHA256"); got != want || req.Header.Get(HMACPreviousHeader) != "" {
		t.Errorf("signatures = %q, %q; want %q and none", got, req.Header.Get(HMACPreviousHeader), want)
	}
	b.set("crm", "another")
	b.send(target)
	if req, _ = r.last(t); req.Header.Get(HMACPreviousHeader) != want || req.Header.Get(HMACHeader) == want {
		t.Errorf("while it is rotated: %q and %q, want the old one beside the new one", req.Header.Get(HMACHeader), req.Header.Get(HMACPreviousHeader))
	}
}

func TestBasicAuth(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	r := newReceiver(t, func(w http.ResponseWriter, r *http.Request, _ int) { io.WriteString(w, r.Header.Get("Authorization")) })
	b.set("password", "öpen sesame")
	a, kind, _ := b.send(domain.Target{URL: r.URL, Auth: &domain.Auth{Basic: &domain.BasicAuth{Username: "api-user", Password: "password"}}})
	req, _ := r.last(t)
	user, password, ok := req.BasicAuth()
	if kind != domain.Accepted || !ok || user != "api-user" || password != "öpen sesame" {
		t.Errorf("%s: the receiver got %q %q", kind, user, password)
	}
	if a.ResponseBody != "Basic "+Mask || a.RequestHeaders["Authorization"][0] != "Basic "+Mask {
		t.Errorf("kept: %q and %q, want them masked", a.ResponseBody, a.RequestHeaders["Authorization"])
	}
}

// A receiver that asks for a client certificate gets the target's, and one with a certificate of a private authority is
// verified against the target's ca and nothing else.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	ca := newAuthority(t)
	r := &receiver{}
	server := httptest.NewUnstartedServer(r.handler(nil))
	server.TLS, server.Config.ErrorLog = ca.requireClients(t), quiet
	server.StartTLS()
	t.Cleanup(server.Close)

	b.set("client", ca.client(t))
	b.set("ca", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.certificate.Raw})))
	b.set("other-ca", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: newAuthority(t).certificate.Raw})))
	b.set("garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")
	for name, tc := range map[string]struct {
		tls  *domain.TLS
		kind domain.Verdict
		says string
	}{
		"with both":                 {&domain.TLS{Certificate: "client", CA: "ca"}, domain.Accepted, ""},
		"without a certificate":     {&domain.TLS{CA: "ca"}, domain.NetworkError, "certificate"},
		"with the system's trust":   {&domain.TLS{Certificate: "client"}, domain.NetworkError, "certificate"},
		"with another authority":    {&domain.TLS{Certificate: "client", CA: "other-ca"}, domain.NetworkError, "certificate"},
		"with nothing":              {nil, domain.NetworkError, "certificate"},
		"with a broken certificate": {&domain.TLS{Certificate: "garbage", CA: "ca"}, domain.RetryLater, "PEM"},
		"with one that is not set":  {&domain.TLS{Certificate: "nowhere"}, domain.RetryLater, "secret set nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, kind, reason := b.send(domain.Target{URL: server.URL, TLS: tc.tls})
			if kind != tc.kind || !strings.Contains(reason, tc.says) {
				t.Errorf("verdict = %s (%s), want %s with %q", kind, reason, tc.kind, tc.says)
			}
		})
	}
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	b.set("key", "the-secret-key")
	final := newReceiver(t, func(w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(http.StatusAccepted) })
	redirecting := func(status int, to string) *receiver {
		return newReceiver(t, func(w http.ResponseWriter, r *http.Request, _ int) {
			if r.URL.Path == "/final" {
				return
			}
			w.Header().Set("Location", to)
			w.WriteHeader(status)
		})
	}
	endless := redirecting(http.StatusTemporaryRedirect, "/again")
	for name, tc := range map[string]struct {
		from      *receiver
		redirects int
		body      string
		kind      domain.Verdict
		status    int
		says      string
		hops      int
	}{
		"by default":                      {from: redirecting(307, final.URL), kind: domain.Permanent, status: 307, says: "redirects are not followed"},
		"to the same host":                {from: redirecting(308, "/final"), redirects: 1, kind: domain.Accepted, status: 200, hops: 1},
		"to another host":                 {from: redirecting(307, final.URL), redirects: 1, kind: domain.Accepted, status: 202, hops: 1},
		"as a GET":                        {from: redirecting(302, final.URL), redirects: 5, kind: domain.Permanent, status: 302, says: "another (Found)"},
		"more often than allowed":         {from: endless, redirects: 2, kind: domain.Permanent, status: 307, says: "more often", hops: 2},
		"to a private address":            {from: redirecting(307, "http://169.254.169.254/latest/meta-data"), redirects: 1, kind: domain.Permanent, says: "not public", hops: 1},
		"to a mapped private address":     {from: redirecting(307, "http://[::ffff:10.0.0.1]/"), redirects: 1, kind: domain.Permanent, says: "not public", hops: 1},
		"to a file":                       {from: redirecting(307, "file:///etc/passwd"), redirects: 1, kind: domain.Permanent, status: 307, says: "no http(s) URL"},
		"to a user":                       {from: redirecting(307, "http://user:pass@127.0.0.1/"), redirects: 1, kind: domain.Permanent, status: 307, says: "no http(s) URL"},
		"to nowhere":                      {from: redirecting(307, ""), redirects: 1, kind: domain.Permanent, status: 307, says: "no http(s) URL"},
		"to another host with the secret": {from: redirecting(307, final.URL), redirects: 1, body: `{"key":"` + secret("key") + `"}`, kind: domain.Permanent, status: 307, says: "not for it"},
	} {
		t.Run(name, func(t *testing.T) {
			a, kind, reason := b.send(domain.Target{
				URL: tc.from.URL, Redirects: tc.redirects, Body: tc.body,
				Headers: map[string]string{"X-Key": secret("key"), "X-Plain": "plain", "Authorization": "Bearer " + secret("key")},
			})
			if kind != tc.kind || a.Status != tc.status || !strings.Contains(reason, tc.says) || len(a.Redirects) != tc.hops {
				t.Errorf("verdict = %s, HTTP %d, %d redirects (%s); want %s, HTTP %d, %d redirects, with %q", kind, a.Status, len(a.Redirects), reason, tc.kind, tc.status, tc.hops, tc.says)
			}
		})
	}
	req, body := final.last(t)
	if req.Header.Get("Authorization") != "" || req.Header.Get("X-Key") != "" || req.Header.Get("X-Plain") != "plain" || req.Method != http.MethodPost || body != `{"hello":"world"}` {
		t.Errorf("another host got %s %v %s; want the request without credentials", req.Method, req.Header, body)
	}
}

func TestOnlyWhatMayBeReached(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{Allowed: []netip.Prefix{}})
	r := newReceiver(t, nil)
	for _, url := range []string{r.URL, strings.Replace(r.URL, "127.0.0.1", "localhost", 1), "http://169.254.169.254/", "http://[::1]/", "http://[fe80::1]/"} {
		if _, kind, reason := b.send(domain.Target{URL: url}); kind != domain.Permanent || !strings.Contains(reason, "not public") {
			t.Errorf("%s: %s (%s), want permanent", url, kind, reason)
		}
	}
	if r.count() != 0 {
		t.Errorf("%d requests arrived, want none", r.count())
	}
}
