package console

import (
	"html"
	"regexp"
	"strings"
	"testing"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// A template is coloured by what its parts are, and none of it is lost or let through as HTML.
func TestHighlight(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ source, want string }{
		"a key and a value":                      {`{"a": "b"}`, `{<k>"a":</k> <s>"b"</s>}`},
		"an expression inside a string":          {`"a": "x {{ b }} y", "c": 1`, `<k>"a":</k> <s>"x </s><v>{{ b }}</v><s> y"</s>, <k>"c":</k> <l>1</l>`},
		"a string of one expression":             {`["{{ b }}", "c"]`, `[<s>"</s><v>{{ b }}</v><s>"</s>, <s>"c"</s>]`},
		"quotes inside an expression":            {`"{{ a|default("x") }}": 2`, `<s>"</s><v>{{ a|default("x") }}</v><s>"</s>: <l>2</l>`},
		"an escaped quote":                       {`"a\"b", true`, `<s>"a\"b"</s>, <l>true</l>`},
		"a quote that is not closed":             {"5\" screen\n\"a\"", "<l>5</l><s>\" screen</s>\n<s>\"a\"</s>"},
		"a statement and a comment":              {`{% if a %}{# b #}1{% endif %}`, `<t>{% if a %}</t><c>{# b #}</c><l>1</l><t>{% endif %}</t>`},
		"what is not ended":                      {`{{ a`, `<v>{{ a</v>`},
		"a word with a digit":                    {`a1 true2`, `a1 true2`},
		"markup, which is not let through":       {`<script>"<b>"`, `<script><s>"<b>"</s>`},
		"an expression with an object, not Twig": {`{ {"a": 1} }`, `{ {<k>"a":</k> <l>1</l>} }`},
	} {
		got := string(highlight(tc.source, nil))
		if html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(got, "")) != tc.source {
			t.Errorf("%s: the text of %s is not %s", name, got, tc.source)
		}
		short := regexp.MustCompile(`<span class="t-(\w)\w*">([^<]*)</span>`).ReplaceAllStringFunc(got, func(span string) string {
			m := regexp.MustCompile(`<span class="t-(\w+)">([^<]*)</span>`).FindStringSubmatch(span)
			letter := map[string]string{"comment": "c", "tag": "t", "var": "v", "key": "k", "text": "s", "lit": "l"}[m[1]]
			return "<" + letter + ">" + m[2] + "</" + letter + ">"
		})
		if html.UnescapeString(short) != tc.want {
			t.Errorf("%s: %s\nwant %s", name, html.UnescapeString(short), tc.want)
		}
	}
	marked := string(highlight("{\n\"a\": {{ b.c }}, {{ b.c }}\n{{ b.c }}", []domain.Unresolved{{Name: "b.c", Part: "body", Line: 2}, {Name: "b.c", Part: "url", Line: 3}}))
	if strings.Count(marked, "<mark") != 2 {
		t.Errorf("marked: %s, want line 2 of the body alone", marked)
	}
}

func FuzzHighlight(f *testing.F) {
	for _, s := range []string{`{"a": "{{ b }}", "c": 1}`, "{% x\n\"", `{#`, "\"\\", "é\"é", "\xff{{"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, source string) {
		joined := ""
		for _, p := range partsOf(source) {
			joined += p.text
		}
		if joined != source {
			t.Errorf("%q becomes %q", source, joined)
		}
	})
}
