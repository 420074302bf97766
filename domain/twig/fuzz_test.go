package twig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// FuzzValidJSON: our check and encoding/json's agree on everything.
func FuzzValidJSON(f *testing.F) {
	for _, s := range []string{
		`{}`, `[]`, `[1,]`, `{"a":1,}`, `{"a" : [true,false,null]}`, `"\u00e9\n"`, `-0.5e+10`, `01`, `1.`, `.5`, `-`, `1e`, `"`, `"\x"`, "\"\n\"", ` 1 `, `1 2`, ``,
		`{"a"}`, `{1:2}`, `[[[]]]`, `]`, `{"a":}`, "\ufeff1", `nul`, `truex`, `"\ud800"`, "\"\xff\"", "[\x00]",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, want := validJSONBytes(b), json.Valid(b); got != want {
			t.Errorf("%q: %t, want %t", b, got, want)
		}
	})
}

// checkRender holds a template to what must be true of every one: it compiles or is refused with a place, renders
// or fails with a place, and in JSON mode gives JSON.
func checkRender(t *testing.T, template, data string) {
	t.Helper()
	limits := Limits{Steps: 20_000, OutputBytes: 1 << 18, ValueBytes: 1 << 18, MemoryBytes: 4 << 20, SourceBytes: 1 << 16}
	c, err := DecodeContext([]byte(data))
	if err != nil {
		return
	}
	for _, mode := range []Mode{ModeText, ModeJSON, ModeHTML} {
		o := Options{
			Mode: mode, Limits: limits, Functions: []Function{{Name: "host", Params: []string{"a", "b"}}},
			Partials: lookup(map[string]string{"part": "{{ a }}{% block x %}[{{ b }}]{% endblock %}", "child": "{% extends 'part' %}{% block x %}{{ parent() }}{% endblock %}"}),
		}
		tm, err := Compile(template, o)
		if err != nil {
			checkError(t, template, err)
			return
		}
		ro := RenderOptions{Now: fixedNow, Functions: map[string]func([]any) (any, error){"host": func(a []any) (any, error) { return a, nil }}}
		r, err := tm.Render(context.Background(), c, ro)
		if err != nil {
			checkError(t, template, err)
			continue
		}
		if mode == ModeJSON && !json.Valid([]byte(r.Output)) {
			t.Errorf("%s\ngives %q, which is not JSON", template, r.Output)
		}
		again, err := tm.Render(context.Background(), c, ro)
		if err != nil || again.Output != r.Output {
			t.Errorf("%s\nrenders %q and then %q, %v", template, r.Output, again.Output, err)
		}
		tm.Paths()
	}
}

func checkError(t *testing.T, template string, err error) {
	t.Helper()
	var e *Error
	switch {
	case !errors.As(err, &e):
		t.Errorf("%s\nerror %v is no *Error", template, err)
	case e.Code == CodeInternal:
		t.Errorf("%s\ninternal error: %v", template, err)
	case e.Line < 1 && e.Code != CodeLimitSource, e.Column < 1 && e.Code != CodeLimitSource:
		t.Errorf("%s\nerror %v has no place", template, err)
	}
}

const fuzzContext = `{"a":1,"b":"say \"hi\"\n","c":null,"d":[1,2.5,"x",null,true],"e":{"f":{"g":"deep"},"h":[]},"s":"","i":{"0":"z","k":"v"},
"items":[{"n":"A","p":1.5,"q":2},{"n":"B\\","p":"2","q":null}],"t":"2026-01-31 10:00:00","u":"ünï🎉","big":1e300,"neg":-7,"ids":[{"handle":"k","identifier":"1"}]}`

// FuzzRender: any bytes.
func FuzzRender(f *testing.F) {
	for _, c := range readCases(f, "cases.jsonl") {
		f.Add(c.Template, string(c.Context))
	}
	for _, h := range hostile {
		if len(h.template) < 2000 {
			f.Add(h.template, fuzzContext)
		}
	}
	f.Add(seedBody, seedContext)
	f.Fuzz(func(t *testing.T, template, data string) { checkRender(t, template, data) })
}

// FuzzGrammar: any template of the language, made from the fuzzer's bytes.
func FuzzGrammar(f *testing.F) {
	for i := range 64 {
		f.Add([]byte(strings.Repeat(fmt.Sprint(i*i*7919), 12)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		g := &grammar{bytes: b}
		checkRender(t, g.template(3), fuzzContext)
	})
}

// grammar makes templates out of bytes: each choice takes one.
type grammar struct {
	bytes []byte
	i     int
	vars  []string
}

func (g *grammar) pick(n int) int {
	if g.i >= len(g.bytes) {
		return 0
	}
	b := int(g.bytes[g.i])
	g.i++
	return b % n
}

func (g *grammar) of(list ...string) string { return list[g.pick(len(list))] }

func (g *grammar) template(depth int) string {
	var b strings.Builder
	for range 1 + g.pick(4) {
		b.WriteString(g.node(depth))
	}
	return b.String()
}

func (g *grammar) node(depth int) string {
	open, end := g.of("{%", "{%-", "{%~"), g.of("%}", "-%}", "~%}")
	tag := func(s string) string { return open + " " + s + " " + end }
	if depth <= 0 {
		return g.of(`"`, "{", ":", " text ", "\n", `\`, ",", "[", "}")
	}
	name := g.of("v", "w", "a", "items")
	switch g.pick(16) {
	case 0:
		return g.of(`{"a": `, `"`, " text ", "\n  ", `\"`, ",", "[", "]", "}", "é🎉", "${")
	case 1, 2, 3, 4:
		return g.of("{{", "{{-", "{{~") + " " + g.expr(depth) + " " + g.of("}}", "-}}", "~}}")
	case 5:
		return tag("if "+g.expr(depth)) + g.template(depth-1) + "{% elseif " + g.expr(depth-1) + " %}" + g.template(depth-1) + "{% else %}" + g.template(depth-1) + "{% endif %}"
	case 6:
		return tag("for "+name+" in "+g.expr(depth)) + g.template(depth-1) + "{{ loop.index }}{{ loop.parent." + name + " }}{% else %}" + g.template(depth-1) + "{% endfor %}"
	case 7:
		return tag("for k, "+name+" in "+g.expr(depth)) + g.template(depth-1) + "{% endfor %}"
	case 8:
		return tag("set " + name + " = " + g.expr(depth))
	case 9:
		return tag("set "+name) + g.template(depth-1) + "{% endset %}"
	case 10:
		return tag("apply "+g.filter(depth-1)) + g.template(depth-1) + "{% endapply %}"
	case 11:
		return tag("with {"+name+": "+g.expr(depth-1)+"} "+g.of("", "only")) + g.template(depth-1) + "{% endwith %}"
	case 12:
		return tag("autoescape "+g.of("false", "'html'", "'js'", "'json'")) + g.template(depth-1) + "{% endautoescape %}"
	case 13:
		g.vars = append(g.vars, name)
		m := fmt.Sprintf("m%d", len(g.vars))
		return "{% macro " + m + "(x, y = 1) %}" + g.template(depth-1) + "{{ x }}{% endmacro %}{{ _self." + m + "(" + g.expr(depth-1) + ") }}"
	case 14:
		g.vars = append(g.vars, name)
		b := fmt.Sprintf("b%d", len(g.vars))
		return "{% block " + b + " %}" + g.template(depth-1) + "{% endblock %}{{ block('" + b + "') }}"
	}
	return g.of("{{ include('part') }}", "{% include 'child' with {a: 2} only %}", "{% embed 'part' %}{% block x %}{{ parent() }}{% endblock %}{% endembed %}", "{# c #}", "{% verbatim %}{{ x }}{% endverbatim %}", "{% do 1 %}")
}

func (g *grammar) expr(depth int) string {
	if depth <= 0 {
		return g.of("a", "b", "c", "d", "e.f.g", "e.h", "i", "items", "t", "u", "big", "neg", "nope.x", "1", "2.5", "'x'", `"y"`, "null", "true", "[]", "{}", "0", "-1", "''", "'0'", "s", "loop.index", "ids.k", "_context", "v", "w", "'/x/'", "9223372036854775807")
	}
	sub := func() string { return g.expr(depth - 1) }
	switch g.pick(14) {
	case 0:
		return sub()
	case 1:
		return "(" + sub() + " " + g.of("+", "-", "*", "/", "//", "%", "**", "~", "..") + " " + sub() + ")"
	case 2:
		return sub() + " " + g.of("==", "!=", "<", ">", "<=", ">=", "<=>", "in", "not in", "and", "or", "xor", "b-and", "b-or", "b-xor", "starts with", "ends with", "matches") + " " + sub()
	case 3:
		return "(" + sub() + " ? " + sub() + " : " + sub() + ")"
	case 4:
		return "(" + sub() + g.of(" ?: ", " ?? ") + sub() + ")"
	case 5, 6, 7:
		return "(" + sub() + ")|" + g.filter(depth)
	case 8:
		return "(" + sub() + ") is " + g.of("", "not ") + g.of("null", "empty", "iterable", "odd", "even", "sequence", "mapping", "same as("+sub()+")", "divisible by(3)")
	case 9:
		return "[" + sub() + ", " + g.of("", "...") + sub() + "]"
	case 10:
		return "{k: " + sub() + ", (" + sub() + "): 2}"
	case 11:
		return "(" + sub() + ")" + g.of(".n", "[0]", "['k']", "[1:2]", "[:-1]", "["+sub()+"]")
	case 12:
		return g.of("max", "min") + "([" + sub() + ", " + sub() + "])"
	}
	return g.of("range(1, 3)", "cycle([1, 2], "+sub()+")", "date("+sub()+").timestamp", "not "+sub(), "-"+g.expr(0), `"x #{`+sub()+`}"`, "random(["+sub()+"])", "host("+sub()+")", "constant('DATE_ATOM')", "date('2026-01-01').diff(date('2025-02-03')).days", "(("+sub()+") has some x => x)")
}

func (g *grammar) filter(depth int) string {
	arg := func() string { return g.expr(min(depth-1, 1)) }
	switch g.pick(4) {
	case 0:
		return g.of("upper", "lower", "title", "capitalize", "trim", "length", "first", "last", "reverse", "keys", "sort", "json_encode", "raw", "e", "nl2br", "striptags", "url_encode", "abs", "round", "number_format", "date", "spaceless", "shuffle")
	case 1:
		return g.of("default", "join", "split", "merge", "date_modify", "column", "format", "slice", "round", "number_format", "batch", "trim", "date") + "(" + arg() + ")"
	case 2:
		return g.of("map", "filter", "find", "sort", "reduce") + "((x, y) => " + arg() + ")"
	}
	return g.of("replace({'a': "+arg()+"})", "e('js')", "e('json')", "e('html_attr')", "slice("+arg()+", "+arg()+")", "batch(2, "+arg()+")", "number_format(2, ',', '.')", "json_encode(128)", "replace({'\"': '\\\\\"'})", "date('D c', 'Europe/Paris')", "split('', 2)", "join(', ', ' and ')", "json_encode|trim('\"')")
}
