package all_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/twig"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	_ "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/all" // all of them
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulators"
)

// contexts are the firings that every ready-made target must turn into something its platform takes.
var contexts = map[string]string{
	"everything there": `{"profile":{"id":"8fc344db-713e-4590-ab26-e82d77ba3313","email":"jane@example.com","mobile":"+61400000001","first_name":"Jane",
	  "last_name":"O\"Brien\n","reward_balance":40,"tier":"gold"},"reward":{"amount":10.5,"expires_at":"2026-12-31","created_at":"2026-08-20T09:00:00Z"}}`,
	"no more than the guide names": `{"profile":{"id":"8fc344db-713e-4590-ab26-e82d77ba3313","email":"jane@example.com","mobile":"+61400000001"},"reward":{"amount":10}}`,
}

var now = time.Date(2026, 8, 20, 10, 0, 0, 0, time.UTC)

// Every integration that the comms guide names has a target file, and every target file renders to a body that its
// platform's dialect and its simulator accept.
func TestReadyMadeTargets(t *testing.T) {
	t.Parallel()
	templates, err := platforms.Templates()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]int{}
	for _, template := range templates {
		have[template.Platform]++
		for name, context := range contexts {
			t.Run(template.Name+", "+name, func(t *testing.T) {
				t.Parallel()
				rendered := render(t, template, context)
				send(t, template.Platform, rendered)
			})
		}
	}
	for _, platform := range domain.Platforms {
		if have[platform] == 0 {
			t.Errorf("%s has no ready-made target", platform)
		}
	}
}

// Each row of the comms guide's table of integrations has a file that posts to that very call.
func TestEachIntegrationOfTheGuideHasATarget(t *testing.T) {
	t.Parallel()
	templates, err := platforms.Templates()
	if err != nil {
		t.Fatal(err)
	}
	posts := map[string]string{}
	for _, template := range templates {
		u, err := url.Parse(render(t, template, contexts["everything there"]).URL)
		if err != nil {
			t.Fatal(err)
		}
		posts[template.Name] = template.Platform + " " + u.Path
	}
	for row, want := range map[string]struct{ name, posts string }{
		"Klaviyo: server-side track event":           {"klaviyo-reward-earned", "klaviyo /api/events"},
		"Klaviyo: identify":                          {"klaviyo-identify", "klaviyo /api/profile-import"},
		"Salesforce Marketing Cloud: triggered send": {"sfmc-triggered-send", "sfmc /messaging/v1/messageDefinitionSends/key:reward-earned/send"},
		"Braze: track users":                         {"braze-track-users", "braze /users/track"},
		"Braze: track event":                         {"braze-track-event", "braze /users/track"},
		"Dotdigital: transactional email":            {"dotdigital-reward-earned", "dotdigital /v2/email/triggered-campaign"},
		"Yotpo (SMSBump): SMS":                       {"yotpo-reward-earned", "yotpo /messaging/v3/stores/YOUR-STORE-ID/customers/events"},
		"custom, in-house":                           {"webhook-reward-earned", "webhook /dispatch"},
	} {
		if posts[want.name] != want.posts {
			t.Errorf("%s: %s posts to %q, want %q", row, want.name, posts[want.name], want.posts)
		}
	}
}

type request struct {
	method string
	domain.Rendering
}

func render(t *testing.T, template platforms.Template, context string) request {
	t.Helper()
	asJSON, err := yaml.YAMLToJSON(template.YAML)
	if err != nil {
		t.Fatal(err)
	}
	target, err := domain.ParseTarget(asJSON, template.Name)
	if err != nil {
		t.Fatal(err)
	}
	if target.Platform != template.Platform {
		t.Errorf("platform %q in a file of %s", target.Platform, template.Platform)
	}
	compiled, err := domain.CompileTarget(target.Target, domain.Partials{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := twig.DecodeContext([]byte(context))
	if err != nil {
		t.Fatal(err)
	}
	rendering, err := compiled.Render(t.Context(), data, domain.Environment{Now: func() time.Time { return now }, Secret: func(name string) string { return "SECRET-" + name }})
	if err != nil {
		t.Fatal(err)
	}
	if len(rendering.Unresolved) > 0 {
		t.Errorf("unresolved: %+v", rendering.Unresolved)
	}
	return request{target.Method, rendering}
}

// credentials are what the simulators' account authenticates with, in place of the target's secrets.
var credentials = map[string]string{
	"klaviyo": "Klaviyo-API-Key demo-key", "braze": "Bearer demo-key", "webhook": "Bearer demo-key",
	"dotdigital": "Basic ZGVtby1rZXk6ZGVtby1zZWNyZXQ=", // demo-key:demo-secret
}

var token = regexp.MustCompile(`"access_token":"([^"]+)"`)

func send(t *testing.T, platform string, r request) {
	t.Helper()
	p, err := platforms.Lookup(platform)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Dialect.Validate([]byte(r.Body)); err != nil {
		t.Fatalf("%v\n%s", err, r.Body)
	}
	sim, err := simulators.New(platform, simulator.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(strings.ReplaceAll(r.URL, "YOUR-STORE-ID", "demo-key"))
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{"Content-Type": {"application/json"}}
	for name, value := range r.Headers {
		header.Set(name, value)
	}
	switch platform {
	case "sfmc":
		header.Set("Authorization", "Bearer "+accessToken(t, sim, "/v2/token", `{"grant_type":"client_credentials","client_id":"demo-key","client_secret":"demo-secret"}`))
	case "yotpo":
		header.Set("X-Yotpo-Token", accessToken(t, sim, "/core/v3/stores/demo-key/access_tokens", `{"secret":"demo-secret"}`))
	default:
		if !strings.Contains(header.Get("Authorization"), "SECRET-") {
			t.Errorf("Authorization = %q, want a secret by name", header.Get("Authorization"))
		}
		header.Set("Authorization", credentials[platform])
	}
	prepared, err := p.Dialect.Prepare(platforms.Request{DeliveryID: "8fc344db-713e-4590-ab26-e82d77ba3313", At: now, Method: r.method, URL: u, Header: header, Body: []byte(r.Body)})
	if err != nil {
		t.Fatal(err)
	}
	req := httptest.NewRequestWithContext(t.Context(), prepared.Method, prepared.URL.String(), bytes.NewReader(prepared.Body))
	req.Header = prepared.Header
	rec := httptest.NewRecorder()
	sim.ServeHTTP(rec, req)
	if v := p.Dialect.Classify(rec.Code, rec.Header(), rec.Body.Bytes(), now); v.Kind != domain.Accepted {
		t.Errorf("%d %+v\n%s\n%s", rec.Code, v, rec.Body, prepared.Body)
	}
	if !json.Valid(prepared.Body) {
		t.Errorf("prepared body is not JSON: %s", prepared.Body)
	}
}

func accessToken(t *testing.T, sim http.Handler, path, body string) string {
	t.Helper()
	rec := httptest.NewRecorder()
	sim.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body)))
	found := token.FindStringSubmatch(rec.Body.String())
	if found == nil {
		t.Fatalf("no token in %s", rec.Body)
	}
	return found[1]
}
