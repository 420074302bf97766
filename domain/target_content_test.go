package domain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/dispatch-ledger/dispatch-ledger/domain/twig"
)

func compiled(t *testing.T, file string) *CompiledTarget {
	t.Helper()
	changed, err := ParseTargetFile([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	c, err := CompileTarget(changed.Target, Partials{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func rendered(t *testing.T, c *CompiledTarget, context string, env Environment) (Rendering, error) {
	t.Helper()
	data, err := twig.DecodeContext([]byte(context))
	if err != nil {
		t.Fatal(err)
	}
	if env.Secret == nil {
		env.Secret = func(name string) string { return "__secret_" + name + "__" }
	}
	return c.Render(t.Context(), data, env)
}

// No value of a context leads a request to another host than the author wrote.
func TestTheHostIsTheAuthors(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		url, value string
		want       string // "" is refused
	}{
		"in the path":                       {"https://api.example.com/{{ v }}", "x", "https://api.example.com/x"},
		"in the query":                      {"https://api.example.com?v={{ v }}", "x", "https://api.example.com?v=x"},
		"a subdomain":                       {"https://{{ v }}.example.com/in", "acme", "https://acme.example.com/in"},
		"a subdomain that ends the host":    {"https://{{ v }}.example.com/in", "evil.test/", ""},
		"a subdomain that begins a query":   {"https://{{ v }}.example.com/in", "evil.test?", ""},
		"a subdomain that begins a comment": {"https://{{ v }}.example.com/in", "evil.test#", ""},
		"a subdomain with a backslash":      {"https://{{ v }}.example.com/in", `evil.test\`, ""},
		"a subdomain with a user":           {"https://{{ v }}.example.com/in", "evil.test@", ""},
		"a subdomain that is escaped":       {"https://{{ v }}.example.com/in", "evil.test%2f", ""},
		"a line break":                      {"https://{{ v }}.example.com/in", "a\nb", ""},
		"a port":                            {"https://example.com:{{ v }}/in", "8443", "https://example.com:8443/in"},
		"a port that is none":               {"https://example.com:{{ v }}/in", "80@evil.test", ""},
		"all of the host":                   {"https://{{ v }}/in", "api.example.com:8443", "https://api.example.com:8443/in"},
		"a conditional":                     {"https://{% if v %}eu{% else %}us{% endif %}.example.com/in", "x", "https://eu.example.com/in"},
		"a conditional with a value":        {"https://{% if v %}{{ v }}{% endif %}.example.com/in", "evil.test/", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := Target{Handle: "h", URL: tc.url, Body: "{}"}
			c, err := CompileTarget(target, Partials{})
			if err != nil {
				t.Fatal(err)
			}
			context, err := json.Marshal(map[string]string{"v": tc.value})
			if err != nil {
				t.Fatal(err)
			}
			got, err := rendered(t, c, string(context), Environment{})
			var refused *RenderError
			if tc.want == "" && (!errors.As(err, &refused) || refused.Reason != "invalid_url") {
				t.Errorf("URL = %q, %v; want it refused", got.URL, err)
			}
			if tc.want != "" && (err != nil || got.URL != tc.want) {
				t.Errorf("URL = %q, %v; want %q", got.URL, err, tc.want)
			}
		})
	}
	for _, url := range []string{"https://api.example.com{{ v }}", "https://api.example.com{{ v }}{{ w }}"} {
		if _, err := CompileTarget(Target{Handle: "h", URL: url, Body: "{}"}, Partials{}); err == nil || !strings.Contains(err.Error(), "/url") {
			t.Errorf("%s: err = %v, want one at /url", url, err)
		}
	}
}

func TestAFormIsEncoded(t *testing.T) {
	t.Parallel()
	c := compiled(t, `
handle: form
url: https://example.com/in
form:
  email: "{{ profile.email }}"
  "reward amount": "{{ reward.amount }}"
  key: "{{ secret('k') }}"
`)
	got, err := rendered(t, c, `{"profile":{"email":"a&b=c@example.com"},"reward":{}}`, Environment{})
	if err != nil {
		t.Fatal(err)
	}
	if want := "email=a%26b%3Dc%40example.com&key=__secret_k__&reward+amount="; got.Body != want || c.ContentType != formType {
		t.Errorf("body = %q of %s, want %q", got.Body, c.ContentType, want)
	}
	if len(got.Unresolved) != 1 || got.Unresolved[0].Part != "form/reward amount" {
		t.Errorf("unresolved = %+v, want reward.amount in form/reward amount", got.Unresolved)
	}
}

func TestVariablesByEnvironment(t *testing.T) {
	t.Parallel()
	c := compiled(t, `
handle: variables
url: https://{{ host }}/in
body: |
  {"store": {{ store }}, "live": {{ live }}, "name": "{{ name }}"}
variables: {host: test.example.com, store: 7, live: false, name: all}
environments:
  production: {host: example.com, live: true, name: production}
`)
	for environment, want := range map[string]string{
		"":           `https://test.example.com/in {"store": 7, "live": false, "name": "service"}`,
		"staging":    `https://test.example.com/in {"store": 7, "live": false, "name": "service"}`,
		"production": `https://example.com/in {"store": 7, "live": true, "name": "service"}`,
	} {
		got, err := rendered(t, c, `{}`, Environment{Name: environment, Variables: map[string]any{"name": "service"}})
		if err != nil {
			t.Fatal(err)
		}
		if said := got.URL + " " + strings.TrimSpace(got.Body); said != want {
			t.Errorf("in %q: %s, want %s", environment, said, want)
		}
	}
	if got := c.VariableNames(); len(got) != 4 {
		t.Errorf("names = %v, want four", got)
	}
	only := Target{Environments: map[string]map[string]any{"production": {"host": "example.com"}}}
	if got := only.Constants("production", nil); got["host"] != "example.com" {
		t.Errorf("of a target that has constants in one environment alone, they are %v there", got)
	}
}

// many gives so many entries of a YAML mapping.
func many(n int, entry string) string {
	entries := make([]string, n)
	for i := range entries {
		entries[i] = fmt.Sprintf(entry, i)
	}
	return "{" + strings.Join(entries, ", ") + "}"
}

// Each file is refused, and the refusal says where.
func TestTargetFilesThatAreRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ file, pointer string }{
		"both a body and a form":            {"form: {a: b}", "/form"},
		"a form in JSON":                    {"body: ''\nform: {a: b}\ncontent_type: application/json", "/form"},
		"a media type with a line break":    {`content_type: "text/plain\r\nX-Evil: 1"`, "/content_type"},
		"a media type that is none":         {"content_type: json", "/content_type"},
		"XML for Klaviyo":                   {"platform: klaviyo\ncontent_type: text/xml", "/content_type"},
		"too many redirects":                {"redirects: 6", "/redirects"},
		"fewer redirects than none":         {"redirects: -1", "/redirects"},
		"approval by nobody":                {"approval: maybe", "/approval"},
		"a sample that is a list":           {"sample: [1]", "/sample"},
		"a variable of a strange name":      {"variables: {a-b: 1}", "/variables"},
		"a variable that is a list":         {"variables: {a: [1]}", "/variables/a"},
		"a variable that is a book":         {"variables: {a: " + strings.Repeat("x", maxConstant+1) + "}", "/variables/a"},
		"more variables than there may be":  {"variables: " + many(maxVariables+1, "v%d: 1"), "/variables"},
		"more environments than may be":     {"environments: " + many(maxEnvironments+1, "e%d: {}"), "/environments"},
		"an environment without a name":     {"environments: {'': {}}", "/environments"},
		"a variable that is null":           {"environments: {test: {a: null}}", "/environments/test/a"},
		"a signing secret with its value":   {"signing: ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw=']", "/signing/0"},
		"an HMAC secret with a space":       {"hmac: 'not a name'", "/hmac"},
		"TLS with nothing in it":            {"tls: {}", "/tls"},
		"a certificate in the file":         {"tls: {certificate: '-----BEGIN CERTIFICATE-----'}", "/tls/certificate"},
		"auth of no kind":                   {"auth: {}", "/auth"},
		"auth of two kinds":                 {"auth: {basic: {username: a, password: b}, oauth2: {token_url: 'https://x', client_id: a, client_secret: b}}", "/auth"},
		"auth beside a header":              {"auth: {basic: {username: a, password: b}}\nheaders: {authorization: \"{{ secret('x') }}\"}", "/auth"},
		"a user name with a colon":          {"auth: {basic: {username: 'a:b', password: b}}", "/auth/basic/username"},
		"a token URL that is a file":        {"auth: {oauth2: {token_url: 'file:///etc/passwd', client_id: a, client_secret: b}}", "/auth/oauth2/token_url"},
		"a token URL that is a template":    {"auth: {oauth2: {token_url: 'https://{{ x }}/', client_id: a, client_secret: b}}", "/auth/oauth2/token_url"},
		"a token request with a grant type": {"auth: {oauth2: {token_url: 'https://x', client_id: a, client_secret: b, params: {grant_type: password}}}", "/auth/oauth2/params/grant_type"},
		"a scope with a space":              {"auth: {oauth2: {token_url: 'https://x', client_id: a, client_secret: b, scopes: ['a b']}}", "/auth/oauth2/scopes/0"},
		"a header with a line break":        {"headers: {X-A: \"a\\nb\"}", "/headers/X-A"},
		"a header that is the client's":     {"headers: {Host: evil}", "/headers/Host"},
		"a field that there is not":         {"redirect: 3", "/redirect"},
		"a body that YAML makes a number":   {"body: 7", "/body"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := "handle: h\nurl: https://example.com/\n" + tc.file
			if !strings.Contains(tc.file, "body:") {
				file += "\nbody: '{}'"
			}
			changed, err := ParseTargetFile([]byte(file))
			var invalid *InvalidError
			if !errors.As(err, &invalid) || invalid.Pointer != tc.pointer {
				t.Errorf("target = %+v, err = %v; want one at %s", changed.Target, err, tc.pointer)
			}
		})
	}
}

// What somebody edits is all of the target: nothing is lost by looking at it as a file.
func TestTargetAsAFile(t *testing.T) {
	t.Parallel()
	changed, err := ParseTargetFile([]byte(`handle: welcome
url: https://example.com/in
headers: {X-Version: "2026-07-15"}
body: |
  {"name": "{{ name }}",
   "tier": 1}
condition: {"!==": [{"var": "profile.bounced"}, true]}
sample: {"z": {"name": "Ada \ud83d\ude00", "n": 12345678901234567890}, "a": [1.50, null, "yes"]}
environments: {production: {region: "eu"}}
`))
	if err != nil {
		t.Fatal(err)
	}
	file, err := changed.File()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"condition:\n", "sample:\n", "body: |\n  {\"name\": \"{{ name }}\",\n", "X-Version: \"2026-07-15\""} {
		if !strings.Contains(string(file), want) {
			t.Errorf("the file lacks %q:\n%s", want, file)
		}
	}
	if strings.Index(string(file), "\n  z:") > strings.Index(string(file), "\n  a:") {
		t.Errorf("the order of the sample's fields is lost:\n%s", file)
	}
	back, err := ParseTargetFile(file)
	if err != nil || !reflect.DeepEqual(back.Target.Headers, changed.Headers) || !bytes.Equal(compact(t, back.Sample), compact(t, changed.Sample)) || !bytes.Equal(compact(t, back.Condition), compact(t, changed.Condition)) {
		t.Errorf("read again, it is %+v (%v), want %+v", back.Target, err, changed.Target)
	}
}

func compact(t *testing.T, raw []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
