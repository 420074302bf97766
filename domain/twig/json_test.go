package twig

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// TestJSONMode shows what values become in each place, and what the author's own escaping means.
func TestJSONMode(t *testing.T) {
	t.Parallel()
	const data = `{"s":"plain","q":"say \"hi\"","nl":"a\nb\tc","bs":"a\\b","n":5,"f":10.0,"x":2.50,"t":true,"no":false,"nul":null,
		"num":"149.95","zip":"02134","neg":"-0.5","list":[1,"a"],"map":{"k":"v"},"empty":{},"ol":[],"sep":"\u2028","html":"<b>","e":"🎉é","items":[{"n":"A"},{"n":"B\""}]}`
	for name, tc := range map[string]struct{ template, want string }{
		"text where a value stands":          {`{"a": {{ s }}}`, `{"a": "plain"}`},
		"text in a string":                   {`{"a": "{{ s }}"}`, `{"a": "plain"}`},
		"quotes in a string":                 {`{"a": "{{ q }}"}`, `{"a": "say \"hi\""}`},
		"quotes where a value stands":        {`{"a": {{ q }}}`, `{"a": "say \"hi\""}`},
		"newlines and tabs":                  {`{"a": "{{ nl }}"}`, `{"a": "a\nb\tc"}`},
		"a backslash":                        {`{"a": "{{ bs }}"}`, `{"a": "a\\b"}`},
		"an integer":                         {`{"a": {{ n }}, "b": "{{ n }}"}`, `{"a": 5, "b": "5"}`},
		"a float prints as in Twig":          {`{"a": {{ f }}, "b": {{ x }}}`, `{"a": 10, "b": 2.5}`},
		"true where a value stands":          {`{"a": {{ t }}, "b": {{ no }}}`, `{"a": true, "b": false}`},
		"true in a string, as in Twig":       {`{"a": "{{ t }}", "b": "{{ no }}"}`, `{"a": "1", "b": ""}`},
		"null":                               {`{"a": {{ nul }}, "b": "{{ nul }}"}`, `{"a": null, "b": ""}`},
		"a missing variable":                 {`{"a": {{ nope }}, "b": "{{ nope }}"}`, `{"a": null, "b": ""}`},
		"text that is a number":              {`{"a": {{ num }}, "b": {{ neg }}, "c": "{{ num }}"}`, `{"a": 149.95, "b": -0.5, "c": "149.95"}`},
		"text that only looks like a number": {`{"a": {{ zip }}}`, `{"a": "02134"}`},
		"a list":                             {`{"a": {{ list }}, "b": {{ map }}}`, `{"a": [1,"a"], "b": {"k":"v"}}`},
		"an empty object stays one":          {`{"a": {{ empty }}, "b": {{ ol }}}`, `{"a": {}, "b": []}`},
		"a list in a string":                 {`{"a": "{{ list }}"}`, `{"a": "[1,\"a\"]"}`},
		"line separators":                    {`{"a": "{{ sep }}"}`, `{"a": "\u2028"}`},
		"emoji stay":                         {`{"a": "{{ e }}"}`, `{"a": "🎉é"}`},
		"a key":                              {`{ {{ s }}: 1, "{{ q }}": 2}`, `{ "plain": 1, "say \"hi\"": 2}`},
		"raw is the author's word":           {`{"a": {{ s|json_encode|raw }}, "b": {{ '[1]'|raw }}}`, `{"a": "plain", "b": [1]}`},
		"json_encode":                        {`{"a": {{ q|json_encode }}, "b": {{ map|json_encode }}}`, `{"a": "say \"hi\"", "b": {"k":"v"}}`},
		"json_encode, set before":            {`{% set j = map|json_encode %}{"a": {{ j }}}`, `{"a": {"k":"v"}}`},
		"json_encode in a string":            {`{"a": "{{ map|json_encode }}"}`, `{"a": "{\"k\":\"v\"}"}`},
		"e('js') in a string":                {`{"a": "{{ q|e('js') }}"}`, `{"a": "say\u0020\u0022hi\u0022"}`},
		"e('html')":                          {`{"a": "{{ html|e }}"}`, `{"a": "&lt;b&gt;"}`},
		"constants":                          {`{"a": {{ t ? 'true' : 'false' }}, "b": [1{{ t ? ',' : '' }}2]}`, `{"a": true, "b": [1,2]}`},
		"constants and values in a choice":   {`{"a": {{ t ? q : 'null' }}, "b": {{ no ? q : 'null' }}}`, `{"a": "say \"hi\"", "b": null}`},
		"constants behind ?? and ?:":         {`{"a": {{ nope ?? 'null' }}, "b": {{ q ?? 'null' }}, "c": {{ no ?: 'false' }}}`, `{"a": null, "b": "say \"hi\"", "c": false}`},
		"a constant with quotes in a string": {`{"a": "{{ t ? 'the "best"' : '' }}"}`, `{"a": "the \"best\""}`},
		"default":                            {`{"a": {{ nope|default('x') }}, "b": {{ nope|default(0) }}, "c": {{ nope|default(null) }}}`, `{"a": "x", "b": 0, "c": null}`},
		"default, then json_encode":          {`{"a": {{ nope|default(null)|json_encode }}}`, `{"a": null}`},
		"escaped by hand":                    {`{"a": "{{ q|replace({'"': '\\"'}) }}"}`, `{"a": "say \"hi\""}`},
		"escaped by hand, incompletely":      {`{"a": "{{ (q ~ nl)|replace({'"': '\\"'}) }}"}`, `{"a": "say \"hi\"a\nb\tc"}`},
		"encoded and trimmed by hand":        {`{"a": "{{ q|json_encode|trim('"') }}"}`, `{"a": "say \"hi\""}`},
		"encoded and sliced by hand":         {`{"a": "{{ q|json_encode[1:-1] }}"}`, `{"a": "say \"hi\""}`},
		"a loop with commas":                 {`[{% for i in items %}{"n": {{ i.n }}}{{ loop.last ? '' : ',' }}{% endfor %}]`, `[{"n": "A"},{"n": "B\""}]`},
		"a set block in a string":            {`{% set x %}Hi {{ q }}{% endset %}{"a": "{{ x }}"}`, `{"a": "Hi say \"hi\""}`},
		"a set block where a value stands":   {`{% set x %}Hi {{ q }}{% endset %}{"a": {{ x }}}`, `{"a": "Hi say \"hi\""}`},
		"a set block that is JSON":           {`{% set x %}[{% for i in items %}{"n": "{{ i.n }}"},{% endfor %}0]{% endset %}{"a": {{ x }}}`, `{"a": [{"n": "A"},{"n": "B\""},0]}`},
		"a set block of members":             {`{% set x %}"b": {{ q }}, "c": 1{% endset %}{"a": 0, {{ x }}}`, `{"a": 0, "b": "say \"hi\"", "c": 1}`},
		"a set block of a word":              {`{% set x %}{% if t %}true{% else %}false{% endif %}{% endset %}{"a": {{ x }}}`, `{"a": true}`},
		"a macro that makes JSON":            {`{% macro f(k, v) %}"{{ k }}": {{ v }}{% endmacro %}{ {{ _self.f('a', q) }}, {{ _self.f(q, n) }} }`, `{ "a": "say \"hi\"", "say \"hi\"": 5 }`},
		"a macro in a string":                {`{% macro f(v) %}<{{ v }}>{% endmacro %}{"a": "{{ _self.f(q) }}"}`, `{"a": "<say \"hi\">"}`},
		"a macro, raw":                       {`{% macro f(v) %}<{{ v }}>{% endmacro %}{"a": "{{ _self.f(q)|raw }}"}`, `{"a": "<say \"hi\">"}`},
		"a macro, filtered":                  {`{% macro f(v) %}<{{ v }}>{% endmacro %}{"a": "{{ _self.f(q)|upper }}"}`, `{"a": "<SAY \"HI\">"}`},
		"apply over a string":                {`{"a": "{% apply upper %}hi {{ nl }}{% endapply %}"}`, `{"a": "HI A\nB\tC"}`},
		"apply over a body":                  {`{% apply spaceless %}{"a": {{ q }}}{% endapply %}`, `{"a": "say \"hi\""}`},
		"apply that makes JSON":              {`{"a": {% apply json_encode|raw %}Hi {{ q }}{% endapply %}}`, `{"a": "Hi say \"hi\""}`},
		"autoescape false is plain Twig":     {`{% autoescape false %}{"a": "{{ s }}", "b": {{ t }}}{% endautoescape %}`, `{"a": "plain", "b": 1}`},
		"a block":                            {`{% block b %}{"a": {{ q }}}{% endblock %}`, `{"a": "say \"hi\""}`},
		"an interpolated string":             {`{"a": "{{ "x#{q}" }}", "b": {{ "x#{q}" }}}`, `{"a": "xsay \"hi\"", "b": "xsay \"hi\""}`},
		"a concatenation":                    {`{"a": {{ 'x' ~ q }}}`, `{"a": "xsay \"hi\""}`},
		"a backslash before a value":         {`{"a": "x\\{{ s }}"}`, `{"a": "x\\plain"}`},
		"a date":                             {`{"a": "{{ '2026-01-15'|date('c') }}", "b": {{ '2026-01-15'|date('Y') }}}`, `{"a": "2026-01-15T00:00:00+00:00", "b": 2026}`},
		"the shop's own dollar sign":         {`{"a": "${{ n|number_format(2) }}"}`, `{"a": "$5.00"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := tryRender(Options{Mode: ModeJSON}, RenderOptions{}, tc.template, data)
			if err != nil {
				t.Fatal(err)
			}
			if r.Output != tc.want {
				t.Errorf("got  %s\nwant %s", r.Output, tc.want)
			}
			if !json.Valid([]byte(r.Output)) {
				t.Error("output is not JSON")
			}
		})
	}
}

func TestStrictTypes(t *testing.T) {
	t.Parallel()
	r := mustRender(t, Options{Mode: ModeJSON, StrictTypes: true}, `{"a": {{ num }}}`, `{"num":"149.95"}`)
	if want := `{"a": "149.95"}`; r.Output != want {
		t.Errorf("got %s, want %s", r.Output, want)
	}
}

func TestInvalidJSON(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		template, expression string
		line, column         int
	}{
		"raw with a quote":     {"{\"a\": 1,\n \"b\": \"{{ q|raw }}\"}", "q|raw", 2, 8},
		"two values in a row":  {"{\"a\": {{ n }}{{ n }}{{ q }}}", "q", 1, 21},
		"no comma in a loop":   {"[{% for i in 1..2 %}{\"a\": {{ i }}}{% endfor %}]", "i", 1, 21},
		"an author's mistake":  {"{\"a\": {{ n }},}", "n", 1, 15},
		"a mistake at the end": {"{\"a\": {{ n }}", "n", 1, 7},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := tryRender(Options{Name: "body", Mode: ModeJSON}, RenderOptions{}, tc.template, `{"q":"\"","n":1}`)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("error = %v, want an *Error", err)
			}
			if e.Code != CodeInvalidJSON || e.Line != tc.line || e.Column != tc.column || e.Expression != tc.expression || e.Phase != "render" {
				t.Errorf("error = %+v, want %q at %d:%d", e, tc.expression, tc.line, tc.column)
			}
		})
	}
}

func TestModeAuto(t *testing.T) {
	t.Parallel()
	for template, want := range map[string]bool{
		`{"a": 1}`:                             true,
		"\n  [1]":                              true,
		`{{ a }}`:                              false,
		`Hello`:                                false,
		`{% set x = 1 %}{"a": 1}`:              true,
		`{# note #} {"a": 1}`:                  true,
		`{% set x %}{"a": 1}{% endset %}Hello`: false,
		`{% macro m(x) %}text{% endmacro %}{"a": 1}`:      true,
		`{% if a %}{"a": 1}{% else %}{"b": 1}{% endif %}`: true,
		`https://example.com/{{ id }}`:                    false,
		``:                                                false,
	} {
		tm, err := Compile(template, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if tm.IsJSON() != want {
			t.Errorf("%s: JSON = %t, want %t", template, tm.IsJSON(), want)
		}
	}
}

// TestNastyValues puts every nasty text into every place of bodies that people write: the output is JSON, and what
// stands in a string reads back as what went in.
func TestNastyValues(t *testing.T) {
	t.Parallel()
	bodies := []string{
		seedBody,
		`{"a": "{{ v }}", "b": {{ v }}, "c": {{ v|json_encode }}, "d": "{{ v|e('js') }}", "e": ["{{ v|upper }}", {{ v|default('x') }}]}`,
		`[{% for i in [v, v] %}{"k": "{{ i }}", "l": {{ i }}}{% if not loop.last %},{% endif %}{% endfor %}]`,
		`{% set x %}<{{ v }}>{% endset %}{% macro m(a) %}{"{{ a }}": "{{ a }}"}{% endmacro %}{"x": "{{ x }}", "y": {{ x }}, "m": {{ _self.m(v) }}}`,
		`{"a": "{% if v %}{{ v }}{% else %}none{% endif %}", "b": "{{ v ? v : 'n' }}", "c": {{ v ?? 'null' }}, "d": "{{ "#{v}!" }}"}`,
		`{"a": "{% apply lower %}{{ v }}{% endapply %}", "b": "{{ v|replace({'"': '\\"'}) }}", "c": "{{ v|json_encode|slice(1, -1) }}"}`,
	}
	for _, nasty := range []string{
		`"`, `\`, `\"`, "\n", "\r\n", "\t", "\x00", "\x1f", "\u2028", "🎉", "é", "</script>", `{{ x }}`, `", "admin": true, "x": "`, `'`, "a\\", "\\u00", `\n`, "",
		"1", "-1.5e3", "01", "true", "null", "[1]", "\xff\xfe", "\ufeff", "\x7f", `"}`, "{", "}", ",", ":", "%}", "}}",
	} {
		root := newArray(0)
		root.set(Key{Text: "v"}, nasty)
		profile := newArray(0)
		for _, k := range []string{"email", "first_name", "last_name", "reward_balance"} {
			profile.set(Key{Text: k}, nasty)
		}
		root.set(Key{Text: "profile"}, profile)
		for _, body := range bodies {
			tm, err := Compile(body, Options{Mode: ModeJSON})
			if err != nil {
				t.Fatal(err)
			}
			r, err := tm.Render(context.Background(), &Context{root: root}, RenderOptions{})
			if err != nil {
				if strings.Contains(nasty, "\xff") && strings.Contains(err.Error(), "UTF-8") {
					continue // refused, as Twig refuses it
				}
				t.Errorf("%q in %s: %v", nasty, body, err)
				continue
			}
			if !json.Valid([]byte(r.Output)) {
				t.Errorf("%q in %s: %s is not JSON", nasty, body, r.Output)
			}
			if body == bodies[1] {
				var got struct{ A, D string }
				if err := json.Unmarshal([]byte(r.Output), &got); err != nil || got.A != strings.ToValidUTF8(nasty, "\ufffd\ufffd") && got.A != nasty || got.D != nasty {
					t.Errorf("%q reads back as %q and %q (%v)", nasty, got.A, got.D, err)
				}
			}
		}
	}
}
