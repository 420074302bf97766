package twig

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func fixedNow() time.Time { return testNow }

// mustRender compiles and renders, or ends the test.
func mustRender(t testing.TB, o Options, template, data string) Result {
	t.Helper()
	r, err := tryRender(o, RenderOptions{Now: fixedNow}, template, data)
	if err != nil {
		t.Fatalf("%s: %v", template, err)
	}
	return r
}

func tryRender(o Options, ro RenderOptions, template, data string) (Result, error) {
	tm, err := Compile(template, o)
	if err != nil {
		return Result{}, err
	}
	c, err := DecodeContext([]byte(data))
	if err != nil {
		return Result{}, err
	}
	return tm.Render(context.Background(), c, ro)
}

const seedBody = `{
  "token": "{{ klaviyo_public_key }}",
  "event": "Reward Earned",
  "customer_properties": {
    "$email": "{{ profile.email }}",
    "$first_name": "{{ profile.first_name }}",
    "$last_name": "{{ profile.last_name }}"
  },
  "properties": {
    "reward_amount": {{ reward.amount }},
    "reward_balance": {{ profile.reward_balance }},
    "reward_expires_at": "{{ reward.expires_at }}"
  }
}`

const seedContext = `{"profile":{"email":"jane@example.com","first_name":"Jane","last_name":"Smith","reward_balance":25.00},
"reward":{"amount":10.0,"expires_at":"2026-12-31"}}`

func TestSeedBody(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]Mode{"JSON mode": ModeJSON, "plain": ModeText, "automatic": ModeAuto} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := tryRender(Options{Mode: mode}, RenderOptions{Variables: map[string]any{"klaviyo_public_key": "AbC123"}}, seedBody, seedContext)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.NewReplacer("{{ klaviyo_public_key }}", "AbC123", "{{ profile.email }}", "jane@example.com", "{{ profile.first_name }}", "Jane",
				"{{ profile.last_name }}", "Smith", "{{ reward.amount }}", "10", "{{ profile.reward_balance }}", "25", "{{ reward.expires_at }}", "2026-12-31").Replace(seedBody)
			if r.Output != want {
				t.Errorf("got %s\nwant %s", r.Output, want)
			}
			if len(r.Unresolved) > 0 {
				t.Errorf("unresolved: %+v", r.Unresolved)
			}
		})
	}
}

func TestUnresolved(t *testing.T) {
	t.Parallel()
	const data = `{"profile":{"address":{"city":"Ulm"},"nul":null,"list":[]},"zero":0}`
	for name, tc := range map[string]struct {
		template string
		want     []Unresolved
	}{
		"nothing is missing":                 {`{{ profile.address.city }}`, nil},
		"a misspelled step":                  {"a\n{{ profile.adress.city }}", []Unresolved{{Path: "profile.adress.city", Line: 2, Column: 4}}},
		"a missing variable":                 {`{{ nope }}`, []Unresolved{{Path: "nope", Line: 1, Column: 4}}},
		"null is not missing":                {`{{ profile.nul }}`, nil},
		"a step through null":                {`{{ profile.nul.a }}`, []Unresolved{{Path: "profile.nul.a", Line: 1, Column: 4}}},
		"a step through a number":            {`{{ zero.a }}`, []Unresolved{{Path: "zero.a", Line: 1, Column: 4}}},
		"?? is exempt":                       {`{{ nope.x ?? 'a' }}`, nil},
		"?: is exempt":                       {`{{ nope ?: 'a' }}`, nil},
		"default is exempt":                  {`{{ nope.y|default('a') }}`, nil},
		"is defined is exempt":               {`{{ nope.y is defined ? 1 : 0 }}`, nil},
		"the fallback is not exempt":         {`{{ nope ?? nada }}`, []Unresolved{{Path: "nada", Line: 1, Column: 12}}},
		"behind a filter":                    {`{{ nope|upper }}`, []Unresolved{{Path: "nope", Line: 1, Column: 4}}},
		"in a condition":                     {`{% if nope %}{% endif %}`, []Unresolved{{Path: "nope", Line: 1, Column: 7}}},
		"a branch that does not run":         {`{% if zero %}{{ nope }}{% endif %}`, nil},
		"once a place, in a loop":            {`{% for i in 1..3 %}{{ nope }}{% endfor %}`, []Unresolved{{Path: "nope", Line: 1, Column: 23}}},
		"each place, in order":               {`{{ b }}{{ a }}{{ b }}`, []Unresolved{{Path: "b", Line: 1, Column: 4}, {Path: "a", Line: 1, Column: 11}, {Path: "b", Line: 1, Column: 18}}},
		"a list's element that is not there": {`{{ profile.list[0] }}`, []Unresolved{{Path: "profile.list[0]", Line: 1, Column: 4}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := mustRender(t, Options{Mode: ModeText}, tc.template, data)
			if len(r.Unresolved) != len(tc.want) {
				t.Fatalf("unresolved = %+v, want %+v", r.Unresolved, tc.want)
			}
			for i, u := range r.Unresolved {
				if u != tc.want[i] {
					t.Errorf("unresolved = %+v, want %+v", u, tc.want[i])
				}
			}
			_, err := tryRender(Options{Mode: ModeText}, RenderOptions{Strict: true}, tc.template, data)
			var e *Error
			if (err != nil) != (len(tc.want) > 0) {
				t.Errorf("strict: error = %v", err)
			} else if err != nil && (!errors.As(err, &e) || e.Code != CodeUnresolved || e.Line != tc.want[0].Line || e.Column != tc.want[0].Column) {
				t.Errorf("strict: error = %+v", e)
			}
		})
	}
}

func TestCompileErrors(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		template, code string
		line, column   int
		hint           string
	}{
		"an unknown filter":           {"{{ a|uper }}", CodeUnknownFilter, 1, 6, `"upper"`},
		"a filter of Jinja":           {"{{ a|tojson }}", CodeUnknownFilter, 1, 6, `"json_encode"`},
		"an unknown function":         {"x\n {{ dat() }}", CodeUnknownFunction, 2, 5, `"date"`},
		"an unknown test":             {"{{ a is defind }}", CodeUnknownTest, 1, 9, `"defined"`},
		"an unknown tag":              {"{% fro x in y %}", CodeUnknownTag, 1, 4, `"for"`},
		"elif":                        {"{% if a %}{% elif b %}{% endif %}", CodeUnknownTag, 1, 14, `"elseif"`},
		"else if":                     {"{% if a %}{% else if b %}{% endif %}", CodeSyntax, 1, 19, `"elseif"`},
		"a Python conditional":        {"{{ a if b else c }}", CodeSyntax, 1, 6, `y ? x : z`},
		"&&":                          {"{{ a && b }}", CodeSyntax, 1, 6, `"and"`},
		"||":                          {"{{ a || b }}", CodeSyntax, 1, 7, ``},
		"!":                           {"{{ !a }}", CodeSyntax, 1, 4, `"not"`},
		"===":                         {"{{ a === b }}", CodeSyntax, 1, 8, ``},
		"if behind for":               {"{% for a in b if a %}{% endfor %}", CodeSyntax, 1, 15, `filter`},
		"an unclosed print":           {"{{ a ", CodeSyntax, 1, 1, ``},
		"an unclosed string":          {"{{ 'a }}", CodeSyntax, 1, 4, ``},
		"an unclosed comment":         {"a{# b", CodeSyntax, 1, 2, ``},
		"an unclosed tag":             {"{% if a %}", CodeSyntax, 1, 11, ``},
		"an unclosed bracket":         {"{{ f(a }}", CodeSyntax, 1, 5, ``},
		"an end without a beginning":  {"{% endif %}", CodeSyntax, 1, 4, ``},
		"a missing argument":          {"{{ a|split }}", CodeArguments, 1, 6, ``},
		"an unknown argument":         {"{{ a|slice(stat=1) }}", CodeArguments, 1, 12, `"start"`},
		"an argument given twice":     {"{{ a|date('Y', format='m') }}", CodeArguments, 1, 16, ``},
		"a macro without _self":       {"{% macro m() %}{% endmacro %}{{ m() }}", CodeUnknownFunction, 1, 33, `_self.m`},
		"a filter called as function": {"{{ upper(a) }}", CodeUnknownFunction, 1, 4, `value|upper`},
		"look-around":                 {"{{ a matches '/(?=x)/' }}", CodeRegex, 1, 14, ``},
		"a bad regular expression":    {"{{ a matches '/(/' }}", CodeRegex, 1, 14, ``},
		"a framework's tag":           {"{% trans %}", CodeUnsupported, 1, 4, ``},
		"dump":                        {"{{ dump(a) }}", CodeUnsupported, 1, 4, ``},
		"columns count characters":    {"é{{ ü|nope }}", CodeUnknownFilter, 1, 7, ``},
		"too deep":                    {"{{ " + strings.Repeat("(", 1000) + " }}", CodeSyntax, 1, 1003, ``},
		"too deep, closed":            {"{{ " + strings.Repeat("(", 1000) + "1" + strings.Repeat(")", 1000) + " }}", CodeLimitDepth, 1, 259, ``},
		"too large":                   {strings.Repeat("x", 300<<10), CodeLimitSource, 0, 0, ``},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Compile(tc.template, Options{Name: "body"})
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("Compile = %v, want an *Error", err)
			}
			if e.Code != tc.code || e.Line != tc.line || e.Column != tc.column || e.Phase != "compile" || e.Template != "body" {
				t.Errorf("error = %+v, want code %s at %d:%d", e, tc.code, tc.line, tc.column)
			}
			if !strings.Contains(e.Suggestion, tc.hint) {
				t.Errorf("suggestion = %q, want it to contain %q", e.Suggestion, tc.hint)
			}
		})
	}
}

func TestIdentities(t *testing.T) {
	t.Parallel()
	const list = `{"profile":{"identities":[{"handle":"pos","identifier":"P1","is_primary":true},
		{"handle":"klaviyo","identifier":"old","is_active":false},{"handle":"klaviyo","identifier":"01HX","is_active":true}]}}`
	const mapping = `{"profile":{"identities":{"klaviyo":"01HX","pos":"P1"}}}`
	for name, tc := range map[string]struct{ data, template, want string }{
		"a list, by handle":             {list, `{{ profile.identities.klaviyo }}`, "01HX"},
		"a list, by handle and _id":     {list, `{{ profile.identities.klaviyo_id }}`, "01HX"},
		"a list, in brackets":           {list, `{{ profile.identities['pos'] }}`, "P1"},
		"a list, a field of one":        {list, `{{ profile.identities.klaviyo.handle }}`, "klaviyo"},
		"a list, an unknown handle":     {list, `{{ profile.identities.braze|default('none') }}`, "none"},
		"a list, defined":               {list, `{{ profile.identities.klaviyo is defined ? 1 : 0 }}`, "1"},
		"a list, by position":           {list, `{{ profile.identities[0].identifier }}`, "P1"},
		"a list, looped over":           {list, `{% for i in profile.identities %}{{ i.handle }} {% endfor %}`, "pos klaviyo klaviyo "},
		"a mapping":                     {mapping, `{{ profile.identities.klaviyo }}`, "01HX"},
		"a list that has no identities": {`{"l":[{"a":1}]}`, `{{ l.a|default('none') }}`, "none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if r := mustRender(t, Options{Mode: ModeText}, tc.template, tc.data); r.Output != tc.want || len(r.Unresolved) > 0 {
				t.Errorf("got %q (unresolved %v), want %q", r.Output, r.Unresolved, tc.want)
			}
		})
	}
}

func TestHostFunctions(t *testing.T) {
	t.Parallel()
	o := Options{Functions: []Function{{Name: "secret", Params: []string{"name"}, Required: 1}, {Name: "unsubscribe_url"}}}
	tm, err := Compile(`{"a": "{{ secret('key') }}", "b": {{ unsubscribe_url() }}, "c": "{{ secret(name: x) }}"}`, o)
	if err != nil {
		t.Fatal(err)
	}
	calls := tm.Functions()
	if len(calls) != 3 || calls[0].Name != "secret" || calls[0].Args[0] != "key" || calls[0].Column != 11 || calls[2].Args[0] != nil {
		t.Errorf("Functions = %+v", calls)
	}
	c, err := DecodeContext([]byte(`{"x":"other"}`))
	if err != nil {
		t.Fatal(err)
	}
	functions := map[string]func([]any) (any, error){
		"secret":          func(args []any) (any, error) { return args[0].(string) + `"!`, nil },
		"unsubscribe_url": func([]any) (any, error) { return "https://x.test/u/1", nil },
	}
	r, err := tm.Render(context.Background(), c, RenderOptions{Functions: functions})
	if want := `{"a": "key\"!", "b": "https://x.test/u/1", "c": "other\"!"}`; err != nil || r.Output != want {
		t.Errorf("got %s, %v, want %s", r.Output, err, want)
	}
	failing := errors.New("no such secret")
	functions["secret"] = func([]any) (any, error) { return nil, failing }
	_, err = tm.Render(context.Background(), c, RenderOptions{Functions: functions})
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeFunction || !errors.Is(err, failing) || e.Column != 11 {
		t.Errorf("error = %+v", e)
	}
	if _, err = tm.Render(context.Background(), c, RenderOptions{}); !errors.As(err, &e) || e.Code != CodeFunction {
		t.Errorf("without implementations: error = %v", err)
	}
}

func TestDecodeContext(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ raw, message string }{
		"an object":           {`{"a":1}`, ""},
		"nothing":             {"", ""},
		"null":                {"null", ""},
		"PHP's empty mapping": {"[]", ""},
		"a list":              {`[1]`, "context must be a JSON object of variables, got a list"},
		"a string":            {`"x"`, "context must be a JSON object of variables, got a string"},
		"half an object":      {`{"a":`, "context is not JSON: it ends too early (line 1)"},
		"no JSON":             {"{\n'a': 1}", "context is not JSON: invalid character '\\'' (line 2, byte 2)"},
		"two objects":         {`{} {}`, "context is not JSON: something follows the JSON object (line 1, byte 4)"},
		"too deep":            {strings.Repeat(`{"a":`, 600) + "1" + strings.Repeat("}", 600), "context is not JSON: nested more than 512 deep (line 1, byte 2561)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := DecodeContext([]byte(tc.raw))
			var e *Error
			switch {
			case tc.message == "" && err != nil:
				t.Errorf("error = %v", err)
			case tc.message != "" && (!errors.As(err, &e) || e.Code != CodeContext || e.Message != tc.message):
				t.Errorf("error = %v, want %s", err, tc.message)
			}
		})
	}
}
