package twig

import (
	"fmt"
	"strings"
	"testing"
)

func TestLint(t *testing.T) {
	t.Parallel()
	partials := map[string]string{"part": `{{ p.x }}`, "broken": `{{ `}
	for name, tc := range map[string]struct {
		template string
		options  LintOptions
		want     []string // rule line:column
	}{
		"the seed's body, as its platform wants it now": {
			`{"data": {"type": "event", "attributes": {"profile": {"email": "{{ profile.email }}"}, "value": {{ reward.amount }}}}}`, LintOptions{Platform: "klaviyo"}, nil,
		},
		"a syntax error":                          {`{{ a`, LintOptions{}, []string{"syntax 1:1"}},
		"an unknown filter":                       {`{{ a|uper }}`, LintOptions{}, []string{"unknown_filter 1:6"}},
		"a constant condition":                    {`{% if true %}a{% endif %}`, LintOptions{}, []string{"constant_condition 1:7"}},
		"a comparison with itself":                {`{% if a.b == a.b %}a{% endif %}`, LintOptions{}, []string{"constant_condition 1:7"}},
		"a constant after or":                     {`{% if a == 'x' or 'y' %}a{% endif %}`, LintOptions{}, []string{"constant_condition 1:9"}},
		"a branch never reached":                  {`{% if a.b %}a{% elseif a.b %}b{% endif %}`, LintOptions{}, []string{"dead_branch 1:24"}},
		"the same branch, negated":                {`{% if a.b %}a{% elseif not a.b %}b{% endif %}`, LintOptions{}, nil},
		"a quote in one branch":                   {`{"a": {% if x %}"{{ x }}{% else %}null{% endif %}, "b": 1}`, LintOptions{}, []string{"quote_in_one_branch 1:7", "invalid_json 1:53"}},
		"quotes in both branches":                 {`{"a": {% if x %}"{{ x }}"{% else %}null{% endif %}}`, LintOptions{}, nil},
		"a quote that never ends":                 {`{"a": "{{ x }}}`, LintOptions{}, []string{"unclosed_string 1:16", "invalid_json 1:16"}},
		"a comma too many":                        {`[{% for i in list %}{{ i }},{% endfor %}]`, LintOptions{}, []string{"invalid_json 1:41"}},
		"a comma in one branch":                   {`{"a": 1 {% if x %}, "b": {{ x }}{% endif %}}`, LintOptions{}, nil},
		"a comma missing in one branch":           {`{"a": 1 {% if x == 'gold' %} "b": {{ x }}{% endif %}}`, LintOptions{}, []string{"invalid_json 1:30"}},
		"raw":                                     {`{"a": "{{ x|raw }}"}`, LintOptions{}, []string{"invalid_json 1:8", "raw_value 1:8"}},
		"json_encode, raw":                        {`{"a": {{ x|json_encode|raw }}}`, LintOptions{}, nil},
		"an API key":                              {"{\"a\": 1,\n\"key\": \"pk_0123456789abcdef0123456789abcdef\"}", LintOptions{}, []string{"plaintext_secret 2:9"}},
		"a bearer token":                          {`Bearer abcdef0123456789abcdef`, LintOptions{}, []string{"plaintext_secret 1:1"}},
		"a password":                              {`{"client_secret": "s3cr3t-s3cr3t"}`, LintOptions{}, []string{"plaintext_secret 1:2"}},
		"a secret by name":                        {`Bearer {{ secret('braze') }}`, LintOptions{Options: Options{Functions: []Function{{Name: "secret", Params: []string{"name"}, Required: 1}}}}, nil},
		"Klaviyo's old body":                      {`{"token": "{{ k }}", "customer_properties": {}}`, LintOptions{Platform: "klaviyo"}, []string{"klaviyo_legacy_body 1:22"}},
		"Klaviyo's old address":                   {`{}`, LintOptions{Platform: "klaviyo", URL: "https://a.klaviyo.com/api/track"}, []string{"klaviyo_legacy_track 0:0"}},
		"Klaviyo's new address":                   {`{}`, LintOptions{Platform: "klaviyo", URL: "https://a.klaviyo.com/api/events"}, nil},
		"Braze to everybody":                      {`{"broadcast": true, "recipient_subscription_state": "all"}`, LintOptions{Platform: "braze"}, []string{"braze_broadcast 1:2", "braze_subscription_state 1:21"}},
		"Braze's field on another platform":       {`{"broadcast": true}`, LintOptions{Platform: "webhook"}, nil},
		"a field that the template puts together": {`{"{{ 'broad' ~ 'cast' }}": {{ not no }}}`, LintOptions{Platform: "braze"}, []string{"braze_broadcast 1:1"}},
		"SFMC resubscribing":                      {`{"resubscribe": true}`, LintOptions{Platform: "sfmc"}, []string{"sfmc_resubscribe 1:2"}},
		"a sample that lacks a variable": {
			`{{ a.b }}{{ a.c|default('x') }}{% if x %}{{ never }}{% endif %}`,
			LintOptions{Sample: mustContext(`{"a":{"z":1},"x":0}`)},
			[]string{"unresolved_variable 1:4", "unresolved_variable 1:45"},
		},
		"a constant of the environment": {`{{ key }}`, LintOptions{Sample: mustContext(`{}`), Variables: []string{"key"}}, nil},
		"an unknown partial":            {`{{ include('nope') }}`, LintOptions{Options: Options{Partials: lookup(partials)}}, []string{"unknown_partial 1:12"}},
		"a broken partial":              {`{{ include('broken') }}`, LintOptions{Options: Options{Partials: lookup(partials)}}, []string{"syntax 1:1"}},
		"a good partial":                {`{{ include('part') }}`, LintOptions{Options: Options{Partials: lookup(partials)}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, f := range Lint(tc.template, tc.options) {
				got = append(got, fmt.Sprintf("%s %d:%d", f.Rule, f.Line, f.Column))
				if f.Message == "" || f.Severity == "" {
					t.Errorf("finding without a message: %+v", f)
				}
			}
			want := tc.want
			if strings.Join(got, ", ") != strings.Join(want, ", ") {
				t.Errorf("got %s\nwant %s\n%+v", strings.Join(got, ", "), strings.Join(want, ", "), Lint(tc.template, tc.options))
			}
		})
	}
}

func mustContext(s string) *Context {
	c, err := DecodeContext([]byte(s))
	if err != nil {
		panic(err)
	}
	return c
}

func lookup(m map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		s, ok := m[name]
		return s, ok
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		template string
		want     string
	}{
		"variables":            {`{{ a }}{{ b.c }}{{ b.c }}`, "a b.c"},
		"a loop":               {`{% for i in order.items %}{{ i.sku }}{{ i.opts.size }}{{ loop.index }}{% endfor %}`, "order.items order.items[].sku order.items[].opts.size"},
		"a loop over keys":     {`{% for k, v in m %}{{ k }}{{ v }}{% endfor %}`, "m"},
		"an alias":             {`{% set p = profile %}{{ p.email }}{% set q = 1 %}{{ q }}`, "profile profile.email"},
		"arrow functions":      {`{{ items|filter(i => i.ok)|map(i => i.n * x)|join }}`, "items items[].ok items[].n x"},
		"optional":             {`{{ a ?? 1 }}{{ b|default(c) }}{{ d is defined ? d : e }}`, "a? b? c d e"},
		"optional and not":     {`{{ a ?? 1 }}{{ a }}`, "a"},
		"macros see nothing":   {`{% macro m(x) %}{{ x }}{{ y }}{% endmacro %}{{ _self.m(z) }}`, "z"},
		"branches":             {`{% if a %}{{ b }}{% else %}{{ c }}{% endif %}{{ d ? e : f }}`, "a b c d e f"},
		"positions in lists":   {`{{ a[0].b }}{{ a|first.c }}{{ (a|last).d }}`, "a[].b a a[].c a[].d"},
		"dynamic keys":         {`{{ a[k] }}`, "a[] k"},
		"with":                 {`{% with {x: p.q} %}{{ x.r }}{% endwith %}{{ x }}`, "p.q p.q.r x"},
		"a partial":            {`{{ include('part') }}`, "p.x"},
		"a partial of its own": {`{{ include('part', {}, false) }}`, ""},
		"interpolation":        {`{{ "x #{a.b}" }}`, "a.b"},
		"a block":              {`{% block t %}{{ a }}{% endblock %}`, "a"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tm, err := Compile(tc.template, Options{Partials: lookup(map[string]string{"part": "{{ p.x }}"})})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range tm.Paths() {
				s := p.Name
				if p.Optional {
					s += "?"
				}
				if p.Line < 1 || p.Column < 1 {
					t.Errorf("%s has no place", p.Name)
				}
				got = append(got, s)
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("got %s, want %s", strings.Join(got, " "), tc.want)
			}
		})
	}
}

func TestPartialNames(t *testing.T) {
	t.Parallel()
	partials := map[string]string{"a": `{{ include('b') }}`, "b": `{% block z %}{% endblock %}`, "base": "", "m": ""}
	tm, err := Compile(`{% extends 'base' %}{% use 'b' %}{% import 'm' as m %}{% block x %}{% include ['a', 'zz'] ignore missing %}{% include dynamic %}{% endblock %}`, Options{Partials: lookup(partials)})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(tm.PartialNames(), " "); got != "base b m a zz" {
		t.Errorf("PartialNames = %s", got)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	tm, err := Compile(`{{ a.b }}{% for i in l %}{{ i.x }}{{ i.y }}{% endfor %}{% for i in e %}{{ i.z }}{% endfor %}{{ p.identities.klaviyo_id }}{{ nope }}`, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range tm.Check(mustContext(`{"a":{"b":null},"l":[{"x":1}],"e":[],"p":{"identities":[{"handle":"klaviyo","identifier":"1"}]}}`)) {
		got = append(got, u.Path)
	}
	if strings.Join(got, " ") != "l[].y nope" {
		t.Errorf("Check = %v", got)
	}
}

func TestCache(t *testing.T) {
	t.Parallel()
	c := NewCache(2)
	compile := func(text string, o Options, version string) *Template {
		tm, err := c.Compile(text, o, version)
		if err != nil {
			t.Fatal(err)
		}
		return tm
	}
	a := compile("a", Options{}, "")
	if compile("a", Options{}, "") != a {
		t.Error("the same source is compiled twice")
	}
	for name, other := range map[string]*Template{
		"another mode":    compile("a", Options{Mode: ModeJSON}, ""),
		"another zone":    compile("a", Options{Timezone: "Europe/Paris"}, ""),
		"another version": compile("a", Options{}, "2"),
		"other globals":   compile("a", Options{Globals: map[string]any{"x": 1}}, ""),
	} {
		if other == a {
			t.Errorf("%s gives the same template", name)
		}
	}
	if c.Len() != 2 {
		t.Errorf("Len = %d, want 2", c.Len())
	}
	if compile("a", Options{}, "") == a {
		t.Error("the least recently used template is kept")
	}
	if _, err := c.Compile("{{", Options{}, ""); err == nil || c.Len() != 2 {
		t.Error("a broken template is kept")
	}
}
