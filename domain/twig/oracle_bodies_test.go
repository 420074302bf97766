package twig

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// bodies makes webhook bodies of the kind that people write, and contexts for them: mostly values of the type that a
// place wants, sometimes another.
type bodies struct {
	rand   *rand.Rand
	modern bool // constructs that Twig 3.5 does not have
	locals []string
	macros int
	blocks int
}

func (g *bodies) pick(n int) int { return g.rand.IntN(n) }

func (g *bodies) chance(percent int) bool { return g.rand.IntN(100) < percent }

func (g *bodies) of(list ...string) string { return list[g.rand.IntN(len(list))] }

// body is one case.
func (g *bodies) body() oracleCase {
	c := oracleCase{Context: g.context(), Templates: map[string]string{
		"money":  "{% macro price(v, currency = 'AUD') %}{{ v|number_format(2) }} {{ currency }}{% endmacro %}",
		"footer": "{{ profile.first_name|default('friend') }}{% if items %} ({{ items|length }}){% endif %}",
		"base":   "{% block head %}head{% endblock %}|{% block body %}{{ id }}{% endblock %}\n",
	}}
	switch g.pick(12) {
	case 0:
		c.Template = "{% extends 'base' %}\n{% block body %}" + g.nodes(2) + "{{ parent() }}{% endblock %}\n"
	case 1:
		c.Template = "{% import 'money' as money %}" + g.nodes(2) + "{{ money.price(" + g.num(1) + g.of("", ", 'EUR'") + ") }}"
	case 2, 3, 4:
		c.Template = g.object(3)
	default:
		c.Template = g.nodes(3)
	}
	return c
}

// object is a whole JSON body.
func (g *bodies) object(depth int) string {
	var b strings.Builder
	b.WriteString("{\n")
	for i := range 2 + g.pick(4) {
		if i > 0 {
			b.WriteString(",\n")
		}
		fmt.Fprintf(&b, "  %q: ", g.of("email", "first_name", "amount", "expires_at", "items", "$value", "properties", "tier"))
		switch g.pick(7) {
		case 0, 1:
			b.WriteString(`"` + g.print(g.any(depth)) + `"`)
		case 2:
			b.WriteString(g.print(g.num(depth)))
		case 3:
			b.WriteString("[" + g.forLoop(depth, `{"sku": "`+g.print("item.sku")+`", "n": `+g.print("loop.index")+`}{{ loop.last ? '' : ',' }}`) + "]")
		case 4:
			b.WriteString(g.print(g.any(depth) + "|json_encode"))
		case 5:
			b.WriteString("{% if " + g.boolean(depth) + " %}" + g.print(g.num(1)) + "{% else %}null{% endif %}")
		default:
			b.WriteString(`"` + g.of("Hello ", "", "$") + g.print(g.str(depth)) + g.of("", "!", " – ü") + `"`)
		}
	}
	b.WriteString("\n}" + g.of("", "\n"))
	return b.String()
}

func (g *bodies) print(e string) string {
	return g.of("{{ ", "{{ ", "{{ ", "{{", "{{- ", "{{~ ") + e + g.of(" }}", " }}", " }}", "}}", " -}}", " ~}}")
}

func (g *bodies) tag(s string) string {
	return g.of("{% ", "{% ", "{% ", "{%- ", "{%~ ", "{%") + s + g.of(" %}", " %}", " %}", " -%}", " ~%}", "%}")
}

func (g *bodies) nodes(depth int) string {
	var b strings.Builder
	for range 1 + g.pick(4) {
		b.WriteString(g.node(depth))
	}
	return b.String()
}

func (g *bodies) text() string {
	return g.of(" ", "\n", "a", ", ", "\"", "{", "}", "\n  \n", "é", "🎉", "\t", "%", "#", "x\r\ny", "<b>", "\\", "'", "{ {", "1")
}

func (g *bodies) node(depth int) string {
	if depth <= 0 {
		if g.chance(40) {
			return g.text()
		}
		return g.print(g.any(1))
	}
	switch g.pick(16) {
	case 0, 1, 2, 3, 4:
		return g.text() + g.print(g.any(depth)) + g.text()
	case 5, 6:
		s := g.tag("if "+g.boolean(depth)) + g.nodes(depth-1)
		for range g.pick(2) {
			s += g.tag("elseif "+g.boolean(depth-1)) + g.nodes(depth-1)
		}
		if g.chance(50) {
			s += g.tag("else") + g.nodes(depth-1)
		}
		return s + g.tag("endif")
	case 7, 8:
		return g.forLoop(depth, g.nodes(depth-1)+g.of("", "{{ loop.index }}", "{{ loop.last ? '' : ', ' }}", "{{ loop.first }}{{ loop.revindex }}{{ loop.length }}", "{{ k }}={{ item }}", "{{ item.sku }}", "{% if not loop.last %},{% endif %}"))
	case 9:
		name := g.local()
		return g.tag("set "+name+" = "+g.any(depth)) + g.nodes(depth-1) + "{{ " + name + "|json_encode }}"
	case 10:
		name := g.local()
		return g.tag("set "+name) + g.nodes(depth-1) + g.tag("endset") + g.print(name+g.of("", "|trim", "|upper", "|length", "|e", "|raw", "|split(',')|length", " is empty ? 'e' : 'f'", " ~ 'x'", "|json_encode"))
	case 11:
		return g.tag("apply "+g.strFilter(1)+g.of("", "|upper", "|trim")) + g.nodes(depth-1) + g.tag("endapply")
	case 12:
		return g.tag("with {item: "+g.any(depth-1)+"}"+g.of("", " only")) + g.nodes(depth-1) + "{{ item|json_encode }}" + g.tag("endwith")
	case 13:
		g.macros++
		m := fmt.Sprintf("m%d", g.macros)
		return g.tag("macro "+m+"(a, b = "+g.of("1", "'x'", "null", "[1, 2]", "{k: 1}", "-1", "true")+")") + g.print(g.of("a", "b", "a ~ b", "a|default('none')", "varargs|join(',')", "a|json_encode", "b|json_encode", "id", "a.sku")) + g.nodes(0) + g.tag("endmacro") +
			"{{ _self." + m + "(" + g.of("", g.any(1), g.any(1)+", "+g.any(1), "b="+g.num(1), g.any(0)+", 2, 3, 4") + ") }}"
	case 14:
		g.blocks++
		b := fmt.Sprintf("b%d", g.blocks)
		if g.chance(30) {
			return "{% block " + b + " " + g.any(1) + " %}"
		}
		return g.tag("block "+b) + g.nodes(depth-1) + g.tag("endblock"+g.of("", " "+b)) + g.of("", "{{ block('"+b+"') }}")
	}
	return g.of("{# a comment #}", "{#- x -#}", "{#~ x\ny ~#}\n", "{% verbatim %}{{ x }} {% if %}{% endverbatim %}", "{% verbatim -%}\n  {{ y }}\n {%- endverbatim %}", "{% do id %}",
		"{{ include('footer') }}", "{% include 'footer' with {items: [1]} only %}", "{% include 'nope' ignore missing %}", "{% include ['nope', 'footer'] %}",
		"{% embed 'base' %}{% block head %}x{{ parent() }}{% endblock %}{% endembed %}", "{% from 'money' import price as p %}{{ p(2.5) }}",
		"{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{{ include('footer', {profile: {first_name: 'Z'}}, with_context = false) }}", "{{ block('nope') ?? 'no block' }}", "{% autoescape 'html' %}{{ profile.first_name }}{{ '<i>' }}{{ '<b>'|raw }}{{ note|e }}{% endautoescape %}",
		"{% autoescape 'js' %}{{ note }}{% endautoescape %}")
}

func (g *bodies) local() string {
	name := g.of("v", "w", "total", "name", "item")
	g.locals = append(g.locals, name)
	return name
}

func (g *bodies) forLoop(depth int, inner string) string {
	head := g.of("item in ", "item in ", "k, item in ")
	over := g.list(depth)
	if g.chance(30) {
		over = g.mapping(depth)
	}
	s := g.tag("for "+head+over) + inner
	if g.chance(25) {
		s += g.tag("else") + g.nodes(0)
	}
	return s + g.tag("endfor")
}

func (g *bodies) any(depth int) string {
	if depth <= 0 {
		return g.atom()
	}
	switch g.pick(14) {
	case 0, 1, 2:
		return g.str(depth)
	case 3, 4:
		return g.num(depth)
	case 5:
		return g.boolean(depth)
	case 6:
		return g.list(depth) + g.of("|join(', ')", "|first", "|last", "|length", "|json_encode", "[0]", "[1].sku", "")
	case 7:
		return g.mapping(depth) + g.of("|keys|join(',')", "|json_encode", "|length", ".a", "['b']", "|join('-')", "")
	case 8, 9:
		return g.date(depth)
	case 10:
		if g.chance(60) {
			return g.atom() + " ?? " + g.any(depth-1)
		}
		return g.any(depth-1) + " ?: " + g.any(depth-1)
	case 11:
		return g.boolean(depth-1) + " ? " + g.any(depth-1) + g.of(" : "+g.any(depth-1), " : '-'", "")
	case 12:
		return "(" + g.any(depth-1) + ")" + g.of("|default('none')", "|default", "|json_encode", "|e", "|e('js')", "|length", "|upper", "|raw", "|e('url')", "|e('html_attr')", "|e('css')", "|url_encode")
	}
	return g.atom()
}

// atom is any variable or constant, of any type.
func (g *bodies) atom() string {
	if len(g.locals) > 0 && g.chance(20) {
		return g.locals[g.pick(len(g.locals))]
	}
	return g.of("id", "profile.email", "profile.first_name", "profile.last_name", "profile.tier.name", "profile.missing.deep", "nothing", "reward.amount", "reward.balance",
		"reward.expires_at", "items", "items[0]", "items[0].price", "items.0.qty", "tags", "flags.yes", "flags.no", "flags.null", "note", "empty", "zero", "count", "big", "tiny",
		"numeric", "attributes['comms'].email_promo", "attributes.comms.email_optout", "matrix", "matrix[1]", "words", "0", "1", "'x'", "null", "true", "false", "1.5", "''", "'0'", "[]", "{}", "item", "item.sku", "loop.index",
		"profile", "ids", "lookup[id]", "attribute(profile, 'email')", "profile[key]")
}

func (g *bodies) num(depth int) string {
	if depth <= 0 {
		return g.of("reward.amount", "reward.balance", "items[0].price", "items[0].qty", "zero", "count", "big", "tiny", "numeric", "1", "2", "0", "-3", "10.0", "2.5", "0.1", "100", "1234567.891", "loop.index", "count", "negative", "-0.5", "'12'", "'3.50'", "profile.points")
	}
	switch g.pick(14) {
	case 0, 1:
		return g.num(depth-1) + g.of(" + ", " - ", " * ", " / ", " // ", " % ", " ** ") + g.num(depth-1)
	case 2:
		return "(" + g.num(depth-1) + g.of(" + ", " - ", " * ", " / ") + g.num(depth-1) + ")"
	case 3:
		return g.num(depth-1) + "|round" + g.of("", "(1)", "(2)", "(0, 'floor')", "(1, 'ceil')", "(2, 'floor')", "(-1)", "(precision=1)", "(method='ceil')")
	case 4:
		return "(" + g.num(depth-1) + ")|number_format" + g.of("", "(2)", "(2, '.', ',')", "(0)", "(2, ',', '.')", "(1, '.', ' ')", "(decimal=2)", "(3, '', '')", "(2, '.', '')")
	case 5:
		return "(" + g.num(depth-1) + ")|abs"
	case 6:
		return g.of("max", "min") + "(" + g.of(g.num(depth-1)+", "+g.num(depth-1), "["+g.num(depth-1)+", "+g.num(depth-1)+"]", "tags", "words", g.any(0)+", "+g.any(0)) + ")"
	case 7:
		return g.list(depth-1) + "|length"
	case 8:
		return "items|reduce((carry, i) => carry + i.price * i.qty" + g.of("", ", 0", ", 10") + ")"
	case 9:
		return g.of("items", "matrix", "items|slice(0, 2)") + "|column('" + g.of("price", "qty", "a", "nope") + "')|reduce((c, v) => c + v)"
	case 10:
		return g.num(depth-1) + g.of(" b-and ", " b-or ", " b-xor ", " <=> ") + g.num(depth-1)
	case 11:
		return "-" + g.num(0)
	case 12:
		return "'" + g.of("%d", "%05.2f", "%s", "%x", "%'*10s", "%-6s|", "%+d", "%05d", "%.1e", "%u%%", "%b", "%2$s %1$s", "%c", "%10.3f", "%e", "%o", "%X", "%.3s", "%g") + "'|format(" + g.num(depth-1) + ", " + g.any(0) + ")"
	}
	return g.num(0)
}

func (g *bodies) str(depth int) string {
	if depth <= 0 {
		return g.of("profile.email", "profile.first_name", "profile.last_name", "note", "empty", "'Jane Doe'", "\"it's\"", "'a,b,,c'", "'<b>&\"'", "tags[0]", "id", "numeric", "'ÄÖÜß é'", "'  pad  '", "\"line\\nbreak\"", "'back\\\\slash'", "\"tab\\there\"", "'a\\'b'", "\"a\\\"b\"", "'🎉x'", "words[1]", "'2026-03-01'", "reward.expires_at", "'/path?a=1&b=2'", "'%'", "key", "\"#{id}\"", "'i̇ Straße ŉ'")
	}
	switch g.pick(12) {
	case 0, 1, 2, 3:
		return g.of(g.str(depth-1), "("+g.str(depth-1)+")", g.any(0)) + "|" + g.strFilter(depth)
	case 4, 5:
		return g.str(depth-1) + " ~ " + g.any(depth-1)
	case 6:
		return "\"" + g.of("Hi #{"+g.str(0)+"}", "#{"+g.num(0)+"} pts", "a#{"+g.any(1)+"}b", "\\#{x}", "$#{"+g.num(0)+"}") + "\""
	case 7:
		return g.list(depth-1) + "|join" + g.of("(', ')", "", "(',', ' and ')", "('')", "(glue='-')")
	case 8:
		return "(" + g.str(depth-1) + ")" + g.of("[0:3]", "[1:]", "[:2]", "[-2:]", "[:-1]", "[2:1]", "|slice(1, 2)", "|slice(-3)", "|slice(0, -1)", "|first", "|last", "|reverse", "|length")
	case 9:
		return "(" + g.str(depth-1) + ")|split(" + g.of("','", "'', 2", "' '", "'.'", "',', 2", "',', -1", "''", "'a'") + ")|" + g.of("join('+')", "first", "last", "length", "json_encode", "map(x => x|upper)|join")
	case 10:
		return g.date(depth - 1)
	}
	return g.str(0)
}

func (g *bodies) strFilter(depth int) string {
	return g.of("upper", "lower", "title", "capitalize", "trim", "trim('x')", "trim(side='left')", "trim('a..z')", "trim(' ', 'right')", "e", "e('html')", "e('js')", "e('url')", "e('css')", "e('html_attr')", "raw", "nl2br", "striptags", "striptags('<b>')", "url_encode",
		"json_encode", "default('none')", "length", "reverse", "replace({'a': 'b'})", "replace({'\"': '\\\\\"'})", "replace({'%name%': "+g.any(0)+", 'e': 'E'})", "replace({(id): 'x', 1: 'one'})", "slice(0, 5)", "spaceless", "first", "last", "lower|capitalize", "json_encode|raw", "format(1)", "number_format", "date('Y')", "abs", "round",
		"json_encode("+g.of("0", "64", "128", "256", "constant('JSON_PRETTY_PRINT')", "constant('JSON_UNESCAPED_UNICODE') b-or constant('JSON_UNESCAPED_SLASHES')", "320", "16", "32", "1024")+")", "convert_encoding('UTF-8', 'ISO-8859-1')", "split(',')|join('|')", "batch(2)|length", "merge([1])|join", "keys|join", "sort|join", "column('a')|join")
}

func (g *bodies) boolean(depth int) string {
	if depth <= 0 {
		return g.of("flags.yes", "flags.no", "flags.null", "items", "empty", "nothing", "true", "false", "zero", "profile.first_name", "'0'", "'0.0'", "loop.last", "tags", "count", "attributes.comms.email_promo")
	}
	sub := func() string { return g.any(depth - 1) }
	switch g.pick(12) {
	case 0, 1, 2:
		return sub() + " " + g.of("==", "!=", "<", ">", "<=", ">=") + " " + sub()
	case 3:
		return g.boolean(depth-1) + g.of(" and ", " or ") + g.boolean(depth-1)
	case 4:
		return "not " + g.boolean(depth-1)
	case 5:
		return g.any(depth-1) + g.of(" in ", " not in ") + g.of(g.list(depth-1), g.str(depth-1), g.mapping(depth-1), g.atom())
	case 6, 7:
		tests := []string{"defined", "null", "empty", "iterable", "odd", "even", "same as(" + sub() + ")", "divisible by(2)", "none", "divisible by(" + g.of("3", "count", "1") + ")", "constant('PHP_VERSION')"}[:10]
		if g.modern {
			tests = append(tests, "sequence", "mapping")
		}
		test := g.of(tests...)
		subject := g.atom()
		if test != "defined" && g.chance(40) {
			subject = "(" + sub() + ")"
		}
		return subject + g.of(" is ", " is not ") + test
	case 8:
		return g.str(depth-1) + g.of(" starts with ", " ends with ") + g.of("'J'", "''", "'e'", g.str(0), g.atom())
	case 9:
		return g.str(depth-1) + " matches '" + g.of("/^J/", "/e$/i", "/\\\\d+/", "#a.c#s", "/^[\\\\w.]+@\\\\w+/", "{b}", "/É/iu", "~x|y~", "/^\\\\s*$/m") + "'"
	case 10:
		return g.list(depth-1) + g.of(" has some ", " has every ") + "(" + g.of("v => v > 1", "v => v", "x => x.qty > 1", "(v, k) => k == 0") + ")"
	}
	return "(" + g.boolean(depth-1) + ")"
}

func (g *bodies) list(depth int) string {
	if depth <= 0 {
		return g.of("items", "tags", "matrix", "words", "[1, 2, 3]", "['a', 'b']", "[]", "1..3", "ids", "lookup", "'a'..'e'", "range(1, 10, 3)", "[3, 1, 2]", "['b', 'a', 10, '9']", "numbers", "mixed", "[null, false, 0, '']", "nothing", "5..1", "range(0, 1, 0.25)", "'hello'|split('')")
	}
	arrow := func() string {
		return g.of("v => v", "v => v.sku", "v => v > 1", "(v, k) => k ~ ':' ~ v", "v => v|upper", "v => v.price * v.qty", "x => x is not empty", "v => { s: v }", "v => [v]", "(v, k) => k > 0", "v => v.qty", "v => v ~ id", "v => "+g.any(0))
	}
	switch g.pick(15) {
	case 0:
		return g.list(depth-1) + "|map(" + arrow() + ")"
	case 1:
		return g.list(depth-1) + "|filter(" + arrow() + ")"
	case 2:
		return g.list(depth-1) + "|sort" + g.of("", "((a, b) => a <=> b)", "((a, b) => b <=> a)", "((a, b) => a.price <=> b.price)", "((a, b) => b.sku <=> a.sku)")
	case 3:
		return g.list(depth-1) + "|slice(" + g.of("0, 2", "1", "-1", "1, 1", "0, -1", "-2, 1", "1, 2, true", "5") + ")"
	case 4:
		return g.list(depth-1) + "|merge(" + g.of(g.list(depth-1), "[4]", "{x: 1}", "tags") + ")"
	case 5:
		return g.list(depth-1) + "|batch(" + g.of("2", "3", "2, 'fill'", "3, ''", "1", "2.5") + ")"
	case 6:
		return g.list(depth-1) + "|reverse" + g.of("", "(true)")
	case 7:
		return g.list(depth-1) + "|column('" + g.of("sku", "price", "nope") + "')"
	case 8:
		return g.mapping(depth-1) + "|keys"
	case 9:
		return "[" + g.any(depth-1) + ", " + g.any(depth-1) + g.of("", ",") + "]"
	case 10:
		return g.list(depth-1) + g.of("[1:]", "[:2]", "[0:1]", "[-1:]", "[:-1]")
	case 11:
		return g.num(0) + ".." + g.num(0)
	case 12:
		if g.modern {
			return "[" + g.any(0) + ", ..." + g.list(depth-1) + "]"
		}
	case 13:
		return "range(" + g.of("1, 3", "3, 1", "0, 10, 5", "1, 2, 0.5", "'a', 'c'", "10, 0, -5", "zero, count") + ")"
	}
	return g.list(0)
}

func (g *bodies) mapping(depth int) string {
	if depth <= 0 {
		return g.of("profile", "reward", "flags", "attributes.comms", "{a: 1, b: 'x'}", "{'a': null}", "{}", "items[0]", "lookup", "{1: 'one', '2': 'two'}", "{b: 2, a: 1}", "{'x y': true}", "nothing", "matrix")
	}
	switch g.pick(9) {
	case 0:
		return "{a: " + g.any(depth-1) + ", b: " + g.any(depth-1) + g.of("", ",") + "}"
	case 1:
		return "{(" + g.any(depth-1) + "): " + g.any(depth-1) + "}"
	case 2:
		return g.mapping(depth-1) + "|merge(" + g.mapping(depth-1) + ")"
	case 3:
		return g.mapping(depth-1) + "|filter(" + g.of("v => v", "(v, k) => k != 'a'", "v => v is not null", "(v, k) => v is same as(1)") + ")"
	case 4:
		return g.mapping(depth-1) + "|map(" + g.of("v => v ~ '!'", "(v, k) => k", "v => v") + ")"
	case 5:
		return g.mapping(depth-1) + "|sort"
	case 6:
		return g.mapping(depth-1) + "|slice(0, 1)"
	case 7:
		return g.of("{id}", "{id, count}", "{'k': "+g.any(0)+", 'l': {m: "+g.any(0)+"}}", "{0: 'a', 1: 'b'}", "{1: 'a', 0: 'b'}", "{true: 1, null: 2}")
	}
	return g.mapping(0)
}

func (g *bodies) date(depth int) string {
	value := g.of("reward.expires_at", "joined", "stamp", "stamp_ms", "'2026-02-28'", "'2024-02-29 23:59:59'", "'2026-03-29T02:30:00+01:00'", "'2026-01-31'", "iso", "'@86400'", "'1 January 2026'", "'2026-W05'", "'15 Aug 2025 5pm'", "'2026-02-03T04:05:06.789Z'", "'10/12/2026'", "'2026.07.01'", "'20260203'", "'20260203T040506'", "'Sat, 30 Apr 2016 17:52:13 GMT'", "'2026-06-01 10:00 America/New_York'", "'2026-06-01 10:00:00 AEST'", "'first day of january 2026'", "'last friday of march 2026'", "dmy", "'2026-10-04T02:30:00 Australia/Sydney'")
	modify := g.of("+1 day", "-1 month", "+14 days", "last day of this month", "next monday", "+1 week 2 days", "midnight", "first day of next month", "tomorrow", "-3 hours", "+1 year", "noon", "sunday", "+90 minutes", "monday this week", "last day of february", "+2 weekdays", "first monday of next month", "-1 fortnight", "yesterday noon", "+1 month -1 day", "previous friday", "saturday this week", "10:30", "+36 hours", "last year", "12 hours ago", "-5 weekdays")
	format := g.of("Y-m-d", "c", "jS F Y", "d/m/Y H:i", "D, d M Y H:i:s O", "U", "N w z t L o W", "G g h A a B", "e T P p Z I", "y n j S", "l", "\\\\D\\\\a\\\\y d", "H\\\\hi", "r", "F j, Y, g:i a", "M jS", "Y-m-d\\\\TH:i:s\\\\Z", "M. 'y", "DATE_ATOM", "")
	zone := g.of("'Australia/Sydney'", "'Europe/Paris'", "'America/New_York'", "'UTC'", "'+02:00'", "false", "'Asia/Kathmandu'", "timezone", "'EST'")
	switch g.pick(9) {
	case 0, 1, 2:
		return value + "|date('" + format + "')"
	case 3:
		return value + "|date('" + format + "', " + zone + ")"
	case 4, 5:
		return value + "|date_modify('" + modify + "')|date('" + g.of("Y-m-d H:i", format) + "')"
	case 6:
		return g.of("date("+value+") < date("+g.of("'2026-06-01'", value)+")", "date("+value+", "+zone+").format('c')", "date("+value+")|date('"+format+"')", "date("+value+").timestamp", "date("+value+") == date("+value+")", "date("+value+")|date_modify('"+modify+"')|date('c', "+zone+")")
	case 7:
		return "date('" + g.of("2026-01-01", "2026-12-31 10:00", "2024-02-29") + "').diff(date('" + g.of("2025-02-03", "2027-01-01 09:30", "2026-01-01", "2026-03-31") + "'))" + g.of(".days", ".m", ".y", ".invert", "|date('%a days')", "|date('%R%y %m %d %h %i %s')", ".format('%R%a')", "|date", "|date('%Y-%M-%D %H:%I:%S %%')", ".d", ".h")
	}
	return value + "|date(" + g.of("format='"+format+"'", "'"+format+"', timezone="+zone, "timezone="+zone+", format='"+format+"'", "") + ")"
}

// context is an event.
func (g *bodies) context() json.RawMessage {
	name := func() string {
		return g.of(`"Jane"`, `"O'Brien"`, `"Zoë"`, `"李明"`, `"Ann \"Nan\" Lee"`, `"<script>"`, `""`, `null`, `"Mary-Jane  Smith"`, `"josé maría"`, `"🎉 Party"`, `"a\\b\nc"`, `"ǅungla ﬁ"`, `" pad "`, `"ИВАН"`)
	}
	number := func() string {
		return g.of("10", "10.0", "25.00", "149.95", "0", "-3", "0.1", "1e3", "1234567.891", "99.999", "2.675", "1.005", "0.5", "1e21", "1e-7", "9007199254740993", "100", "33.333333333333336", "-0.0", `"149.95"`, `"12"`, `null`, "3", "7", "123456789012345678", "1.0E+25", `" 5"`, `"5 apples"`, `"1e3"`, "1.5e300", "0.30000000000000004")
	}
	date := func() string {
		return g.of(`"2026-12-31"`, `"2026-12-31T23:59:59Z"`, `"2026-01-15 00:00:00"`, `1767225600`, `"2026-06-01T10:00:00+10:00"`, `null`, `"2026-02-30"`, `"2026-12-31T23:59:59.123456Z"`, `"0"`, `1767225600.75`, `"tomorrow-ish"`, `"1767225600"`, `"-86400"`, `""`)
	}
	item := func() string {
		return `{"sku":` + g.of(`"A1"`, `"B-2"`, `"ünï"`, `"00012"`, `"q\"t"`, `null`) + `,"price":` + number() + `,"qty":` + g.of("1", "2", "0", "3", `"2"`, "1.5") + g.of("", `,"tags":["x"]`, `,"meta":{"a":[1,{"b":null}]}`) + `}`
	}
	items := make([]string, g.pick(4))
	for i := range items {
		items[i] = item()
	}
	boolean := func() string { return g.of("true", "false", "null", "1", `"true"`, `""`, `"0"`) }
	return json.RawMessage(`{"id":` + g.of(`"8fc344db-713e-4590-ab26-e82d77ba3313"`, `"x1"`, `42`, `"42"`) +
		`,"key":` + g.of(`"email"`, `"tier"`, `"nope"`, `0`) +
		`,"profile":{"email":` + g.of(`"jane@example.com"`, `"JANE+x@EXAMPLE.com"`, `""`, `null`) + `,"first_name":` + name() + `,"last_name":` + name() +
		`,"tier":` + g.of(`{"handle":"gold","name":"Gold"}`, `null`, `"gold"`, `[]`, `{}`) + `,"points":` + number() + `}` +
		`,"reward":{"amount":` + number() + `,"balance":` + number() + `,"expires_at":` + date() + `}` +
		`,"items":[` + strings.Join(items, ",") + `]` +
		`,"tags":` + g.of(`["vip","stylist-client"]`, `[]`, `["b","a","c"]`, `[3,"3",3.0]`, `{"x":"y"}`, `["<a>"]`) +
		`,"numbers":` + g.of(`[3,1,2]`, `[10,9,"8",1.5]`, `[0.1,0.2]`, `[1e20,-1]`, `["10","9","2"]`) + `,"mixed":` + g.of(`[1,"a",null,true,2.5,[1],{"k":"v"}]`, `["1","01",1,true]`, `[null,false,"",0,"0"]`, `["a","B","c","A"]`) +
		`,"flags":{"yes":` + boolean() + `,"no":` + boolean() + `,"null":null}` +
		`,"attributes":{"comms":{"email_promo":` + boolean() + `,"email_optout":` + boolean() + `}}` +
		`,"note":` + g.of(`"line one\nline two"`, `"say \"hi\""`, `"tab\there"`, `"100%"`, `"a/b & c"`, `"émoji 🎉"`, `"<p>html</p>"`, `"\\ back"`, `"a\u2028b"`, `"\u0000\u0001"`, `"\u007f"`, `" x "`, `"%name% is"`, `"i̇"`) +
		`,"empty":` + g.of(`""`, `[]`, `{}`, `null`) + `,"zero":` + g.of("0", "0.0", `"0"`, `"0.0"`) + `,"count":` + g.of("3", "1", "12", `"4"`, "2.0") + `,"negative":` + g.of("-7", "-7.5", `"-2"`) +
		`,"big":` + g.of("9223372036854775807", "9223372036854775808", "1e15", "123456789.987654321", "1e14", "999999999999999", "100000000000000000000") + `,"tiny":` + g.of("0.00001", "1e-10", "0.0001", "0.1234567890123456", "5e-324") +
		`,"numeric":` + g.of(`"12.50"`, `"007"`, `"1e2"`, `"0x1A"`, `" 12"`, `"12 "`, `"-0"`, `".5"`, `"5."`, `"1_000"`, `"1,234.5"`) +
		`,"words":` + g.of(`["apple","Banana","cherry"]`, `["é","z","a"]`, `["10","9","1e1"]`, `[""]`) + `,"matrix":` + g.of(`[[1,2],[3,4]]`, `{"a":{"b":1}}`, `[{"a":1},{"a":2},{"b":3}]`, `[]`) +
		`,"ids":` + g.of(`[{"handle":"klaviyo","identifier":"01HX"}]`, `[]`, `[5,6]`) + `,"lookup":` + g.of(`{"x1":"found","42":"answer"}`, `{"5":"five","a":"b"}`, `{"0":"zero","1":"one"}`, `{"":"empty"}`, `{"b":1,"a":2,"10":3,"9":4}`) +
		`,"joined":"` + g.of("2023-01-15 00:00:00", "2024-02-29", "2020-05-05T05:05:05.5+05:30") + `","stamp":` + strconv.Itoa(g.pick(2_000_000_000)) + `,"stamp_ms":1767225600123,"iso":"2026-02-03T14:15:16+11:00","dmy":` + g.of(`"31-12-2026"`, `"03.02.2026"`, `"2/3/2026"`) + `,"timezone":` + g.of(`"Australia/Melbourne"`, `"UTC"`, `null`) + `}`)
}
