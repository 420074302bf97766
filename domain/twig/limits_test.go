package twig

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
)

// hostile templates must end, in bounded time and memory, with the right error or sane output.
var hostile = map[string]struct {
	template string
	code     string // "" when the template is harmless after all
}{
	"macro recursion":             {`{% macro m() %}{{ _self.m() }}{% endmacro %}{{ _self.m() }}`, CodeLimitDepth},
	"mutual macros":               {`{% macro a() %}{{ _self.b() }}{% endmacro %}{% macro b() %}{{ _self.a() ~ 1 }}{% endmacro %}{{ _self.a() }}`, CodeLimitDepth},
	"block recursion":             {`{% block a %}{{ block('a') }}{% endblock %}`, CodeLimitDepth},
	"include of itself":           {`{{ include('self') }}`, CodeLimitDepth},
	"extends itself":              {`{% extends 'loop' %}`, CodeLimitDepth},
	"a huge range":                {`{% for i in 0..1000000000 %}{% endfor %}`, CodeLimitMemory},
	"nested loops":                {`{% for i in 1..1000 %}{% for j in 1..1000 %}{% for k in 1..1000 %}{% endfor %}{% endfor %}{% endfor %}`, CodeLimitSteps},
	"range with a float step":     {`{{ range(0, 1, 0.0000000001)|length }}`, CodeLimitMemory},
	"range of extremes":           {`{{ range(-9223372036854775807, 9223372036854775807)|length }}`, CodeLimitMemory},
	"doubling a string":           {`{% set s = 'x' %}{% for i in 1..60 %}{% set s = s ~ s %}{% endfor %}`, CodeLimitMemory},
	"doubling an array":           {`{% set s = [1] %}{% for i in 1..60 %}{% set s = s|merge(s) %}{% endfor %}`, CodeLimitMemory},
	"shared nesting, encoded":     {`{% set s = [1] %}{% for i in 1..40 %}{% set s = [s, s] %}{% endfor %}{{ s|json_encode }}`, CodeLimitSteps},
	"shared nesting, compared":    {`{% set s = [1] %}{% set u = [1] %}{% for i in 1..40 %}{% set s = [s, s] %}{% set u = [u, u] %}{% endfor %}{{ s == u }}`, CodeLimitSteps},
	"deep nesting, encoded":       {`{% set s = 1 %}{% for i in 1..5000 %}{% set s = [s] %}{% endfor %}{{ s|json_encode }}`, CodeLimitDepth},
	"deep nesting, compared":      {`{% set s = 1 %}{% set u = 1 %}{% for i in 1..5000 %}{% set s = [s] %}{% set u = [u] %}{% endfor %}{{ s == u }}`, CodeLimitDepth},
	"deep nesting, sorted":        {`{% set s = 1 %}{% set u = 1 %}{% for i in 1..5000 %}{% set s = [s] %}{% set u = [u] %}{% endfor %}{{ [s, u]|sort|length }}`, CodeLimitDepth},
	"deep nesting, in a query":    {`{% set s = 1 %}{% for i in 1..5000 %}{% set s = [s] %}{% endfor %}{{ s|url_encode }}`, CodeLimitDepth},
	"output bomb":                 {`{% set s = 'xxxxxxxxxx' %}{% for i in 1..16 %}{% set s = s ~ s %}{% endfor %}{% for i in 1..1000 %}{{ s }}{% endfor %}`, CodeLimitOutput},
	"captures of captures":        {`{% set s = 'x' %}{% for i in 1..60 %}{% set s %}{{ s }}{{ s }}{% endset %}{% endfor %}`, CodeLimitOutput},
	"padding":                     {`{{ '%999999999d'|format(1) }}`, CodeLimitMemory},
	"many paddings":               {`{{ ('%1000000d'|format(1) ~ '%1000000d'|format(1))|length }}`, ""},
	"replace that grows":          {`{% set s = 'aaaaaaaaaa' %}{% for i in 1..20 %}{% set s = s|replace({'a': 'aaaaaaaaaa'}) %}{% endfor %}`, CodeLimitMemory},
	"join that grows":             {`{{ (1..100000)|join('xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx') }}`, CodeLimitMemory},
	"batch with a huge fill":      {`{{ [1]|batch(100000000, 'x')|length }}`, CodeLimitMemory},
	"reduce that grows":           {`{{ (1..60)|reduce((c, v) => c ~ c, 'x')|length }}`, CodeLimitMemory},
	"arrow functions in a circle": {`{% set f = x => x|map(f) %}{{ [1]|map(f)|join }}`, CodeType},
	"number format":               {`{{ 1|number_format(1000000) }}`, ""},
	"division by zero":            {`{{ 1 / 0 }}`, CodeDivision},
	"modulo by zero":              {`{{ 1 % 0 }}`, CodeDivision},
	"smallest integer":            {`{{ (-9223372036854775807 - 1) / -1 }}{{ (-9223372036854775807 - 1) % -1 }}{{ -(-9223372036854775807 - 1) }}{{ (-9223372036854775807 - 1) // -1 }}`, ""},
	"a power of a power":          {`{{ 9 ** 9 ** 9 ** 9 }}`, ""},
	"cycle with a huge position":  {`{{ cycle([1, 2], -9223372036854775807) }}`, ""},
	"slice with extremes":         {`{{ 'abc'[-9223372036854775807:9223372036854775807] }}{{ [1][9223372036854775807:-9223372036854775807]|length }}`, ""},
	"round to nowhere":            {`{{ 1.5|round(99999999) }}{{ 1.5|round(-99999999) }}{{ 1e+300|round(300) }}`, ""},
	"a date far away":             {`{{ '2026-01-01'|date_modify('+99999999999999 years')|date }}`, CodeDate},
	"a year too far":              {`{{ 9223372036854775807|date('Y') }}`, ""},
	"many weekdays":               {`{{ '2026-01-01'|date_modify('+999999999 weekdays')|date('Y') }}`, ""},
	"a long date":                 {`{{ ('1 ' ~ ('+1 day '|replace({'+': '+1 day '}) ~ '+1 day')|replace({' ': ' +1 day '})|replace({' ': ' +1 day '})|replace({' ': ' +1 day '}))|date }}`, CodeDate},
	"a slow regular expression":   {`{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!' matches '/^(a+)+$/' ? 1 : 0 }}`, ""},
	"a repeated repeat":           {`{{ 'a' matches '/((a{1,100}){1,100}){1,100}/' }}`, CodeRegex},
	"a chain of additions":        {`{{ 1` + strings.Repeat(` + 1`, 10_000) + ` }}`, CodeLimitDepth},
	"a chain of filters":          {`{{ 'a'` + strings.Repeat(`|upper`, 10_000) + ` }}`, CodeLimitDepth},
	"a chain of attributes":       {`{{ a` + strings.Repeat(`.b`, 10_000) + ` }}`, CodeLimitDepth},
	"a chain of choices":          {`{{ ` + strings.Repeat(`a ? 1 : `, 10_000) + `1 }}`, CodeLimitDepth},
	"a tower of ifs":              {strings.Repeat(`{% if 1 %}`, 10_000) + strings.Repeat(`{% endif %}`, 10_000), CodeLimitDepth},
	"a tower of nots":             {`{{ ` + strings.Repeat(`not `, 10_000) + `1 }}`, CodeLimitDepth},
	"a tower of minuses":          {`{{ ` + strings.Repeat(`- `, 10_000) + `1 }}`, CodeLimitDepth},
	"a tower of strings":          {`{{ ` + strings.Repeat(`"#{`, 5_000) + `1` + strings.Repeat(`}"`, 5_000) + ` }}`, CodeLimitDepth},
	"a tower of brackets":         {`{{ ` + strings.Repeat(`[`, 10_000) + strings.Repeat(`]`, 10_000) + ` }}`, CodeLimitDepth},
	"many tokens on one line":     {`{{ [` + strings.Repeat(`1,`, 100_000) + `]|length }}`, ""},
	"many variables":              {`{% set a = 1 %}{% for i in 1..100000 %}{% with {('x' ~ i): i} %}{% endwith %}{% endfor %}`, ""},
	"a file":                      {`{{ source('/etc/passwd') }}`, CodePartial},
	"a relative file":             {`{% include '../../go.mod' %}`, CodePartial},
	"a callable by name":          {`{{ ['id']|map('system')|join }}`, CodeType},
	"a callable by name, sorted":  {`{{ ['id', 'x']|sort('passthru')|join }}`, CodeType},
	"attributes of nothing":       {`{{ null.a.b['c'][null].d }}{{ _self.a }}`, CodeUnknownMacro},
	"url encoding that grows":     {`{% set s = '%' %}{% for i in 1..40 %}{% set s = s|url_encode %}{% endfor %}{{ s|length }}`, ""},
	"nested captures":             {`{% for i in 1..10 %}{% set s %}{% for j in 1..100000 %}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}{% endset %}{% endfor %}`, CodeLimitOutput},
}

func TestHostile(t *testing.T) {
	t.Parallel()
	partials := map[string]string{"self": `{{ include('self') }}`, "loop": `{% extends 'loop' %}`}
	for name, tc := range hostile {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, mode := range []Mode{ModeText, ModeJSON} {
				o := Options{Mode: mode, Partials: func(name string) (string, bool) { s, ok := partials[name]; return s, ok }}
				r, err := tryRender(o, RenderOptions{Now: fixedNow}, tc.template, `{}`)
				var e *Error
				switch {
				case err == nil:
					if tc.code != "" && mode == ModeText {
						t.Errorf("output %.40q, want the error %s", r.Output, tc.code)
					}
				case !errors.As(err, &e):
					t.Errorf("error = %v, want an *Error", err)
				case mode == ModeJSON && (e.Code == CodeInvalidJSON || tc.code == "" && e.Code == CodeType): // INF is no JSON
				case mode == ModeJSON && strings.HasPrefix(e.Code, "limit_") && strings.HasPrefix(tc.code, "limit_"): // captures count twice
				case e.Code != tc.code:
					t.Errorf("error = %+v, want %q", e, tc.code)
				case e.Line < 1 || e.Column < 1:
					t.Errorf("error %s has no place", e)
				}
			}
		})
	}
}

func TestUseInACircle(t *testing.T) {
	t.Parallel()
	o := Options{Partials: func(string) (string, bool) { return `{% use 'a' %}`, true }}
	var e *Error
	if _, err := Compile(`{% use 'a' %}`, o); !errors.As(err, &e) || e.Code != CodePartial {
		t.Errorf("error = %v", err)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	tm, err := Compile(`{% for i in 1..1000 %}{% for j in 1..900 %}{{ stop() }}{% endfor %}{% endfor %}`, Options{Functions: []Function{{Name: "stop"}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	calls := 0
	stop := func([]any) (any, error) {
		if calls++; calls == 100 {
			cancel()
		}
		return "", nil
	}
	_, err = tm.Render(ctx, nil, RenderOptions{Functions: map[string]func([]any) (any, error){"stop": stop}})
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeCancelled || !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
	if calls > 3000 {
		t.Errorf("rendering went on for %d calls", calls)
	}
}

// TestConcurrent renders one template and one context from many goroutines; the race detector is the judge.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	const template = `{% set p = profile %}{% for i in items %}{% set n = loop.index %}{{ include('part', {i: i}) }}{% endfor %}{{ p|merge({a: 1})|json_encode }}
{% macro m(x) %}{{ x }}{% endmacro %}{{ _self.m(items|map(i => i.n)|join) }}{{ '2026-01-01'|date('D') }}{{ 'next monday'|date('D') }}{{ 'aé'|upper }}`
	o := Options{Mode: ModeText, Partials: func(string) (string, bool) { return `[{{ i.n }}]`, true }}
	tm, err := Compile(template, o)
	if err != nil {
		t.Fatal(err)
	}
	c, err := DecodeContext([]byte(`{"profile":{"x":1},"items":[{"n":1},{"n":2}]}`))
	if err != nil {
		t.Fatal(err)
	}
	const want = "[1][2]{\"x\":1,\"a\":1}\n12ThuMonAÉ"
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 50 {
				r, err := tm.Render(context.Background(), c, RenderOptions{Now: fixedNow})
				if err != nil || r.Output != want {
					t.Errorf("got %q, %v", r.Output, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestNoClock(t *testing.T) {
	t.Parallel()
	var e *Error
	if _, err := tryRender(Options{}, RenderOptions{}, `{{ 'now'|date }}`, `{}`); !errors.As(err, &e) || e.Code != CodeDate {
		t.Errorf("error = %v", err)
	}
	r, err := tryRender(Options{}, RenderOptions{}, `{{ '2026-01-15'|date('D') }}`, `{}`)
	if err != nil || r.Output != "Thu" {
		t.Errorf("a fixed date needs a clock: %q, %v", r.Output, err)
	}
}
