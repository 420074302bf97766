package console

import (
	"html/template"
	"regexp"
	"strings"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// token finds what the eye looks for in a template: comments, statements, expressions, and the JSON around them.
var token = regexp.MustCompile(`(?s)(\{#.*?#\})|(\{%.*?%\})|(\{\{.*?\}\})|("(?:[^"\\{]|\\.|\{[^{%#])*"\s*:)|("(?:[^"\\{]|\\.|\{[^{%#])*")|(\b(?:true|false|null|-?\d+(?:\.\d+)?)\b)`)

var tokenClasses = []string{"", "t-comment", "t-tag", "t-var", "t-key", "t-text", "t-lit"}

// highlight colours a template, and marks the expressions that name a variable which a context lacked.
func highlight(source string, unresolved []domain.Unresolved) template.HTML {
	lines := map[int][]string{}
	for _, u := range unresolved {
		lines[u.Line] = append(lines[u.Line], u.Name)
	}
	var b strings.Builder
	at, line := 0, 1
	plain := func(text string) {
		b.WriteString(template.HTMLEscapeString(text))
		line += strings.Count(text, "\n")
	}
	for _, m := range token.FindAllStringSubmatchIndex(source, -1) {
		plain(source[at:m[0]])
		text := source[m[0]:m[1]]
		at = m[1]
		class := ""
		for group := 1; group < len(tokenClasses); group++ {
			if m[2*group] >= 0 {
				class = tokenClasses[group]
			}
		}
		missing := ""
		if class == "t-var" || class == "t-tag" {
			for l := line; l <= line+strings.Count(text, "\n"); l++ {
				for _, name := range lines[l] {
					if strings.Contains(text, name) {
						missing = name
					}
				}
			}
		}
		if missing != "" {
			b.WriteString(`<mark class="missing" title="` + template.HTMLEscapeString(missing) + ` is not in this context">`)
			plain(text)
			b.WriteString(`</mark>`)
			continue
		}
		b.WriteString(`<span class="` + class + `">`)
		plain(text)
		b.WriteString(`</span>`)
	}
	plain(source[at:])
	return template.HTML(b.String()) //nolint:gosec // everything from outside is escaped
}
