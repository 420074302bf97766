package console

import (
	"html/template"
	"regexp"
	"strings"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// literal is what JSON has besides strings, where a word begins.
var literal = regexp.MustCompile(`^(?:true|false|null|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\b`)

// key is a string that names a field.
var key = regexp.MustCompile(`^"(?:[^"\\{\n]|\\.|\{[^{%#\n])*"\s*:`)

// twigs are the parts of a template, by how they begin: where they end, and their class.
var twigs = []struct{ open, end, class string }{{"{#", "#}", "t-comment"}, {"{%", "%}", "t-tag"}, {"{{", "}}", "t-var"}}

// part is a stretch of a template of one kind.
type part struct{ class, text string }

// partsOf takes a template apart, and the JSON around it: a string goes on behind an expression inside it, and ends at the latest
// with its line. assets/app.js does the same while somebody types.
func partsOf(source string) (parts []part) {
	plain, quoted, word := "", false, true
	flush := func() {
		if plain != "" {
			class := ""
			if quoted {
				class = "t-text"
			}
			parts = append(parts, part{class, plain})
			plain = ""
		}
	}
next:
	for source != "" {
		for _, t := range twigs {
			if strings.HasPrefix(source, t.open) {
				length := len(source)
				if end := strings.Index(source[2:], t.end); end >= 0 {
					length = end + 4
				}
				flush()
				parts = append(parts, part{t.class, source[:length]})
				source, word = source[length:], true
				continue next
			}
		}
		c := source[0]
		switch {
		case quoted && c == '\\' && len(source) > 1:
			plain, source = plain+source[:2], source[2:]
			continue
		case c == '"' && quoted:
			plain += `"`
			flush()
			quoted = false
		case c == '"':
			flush()
			if name := key.FindString(source); name != "" {
				parts, source = append(parts, part{"t-key", name}), source[len(name):]
				continue
			}
			quoted, plain = true, `"`
		case c == '\n' && quoted:
			flush()
			quoted, plain = false, "\n"
		default:
			if value := literal.FindString(source); value != "" && !quoted && word {
				flush()
				parts, source, word = append(parts, part{"t-lit", value}), source[len(value):], false
				continue
			}
			plain += source[:1]
		}
		word = strings.IndexByte(" \t\n:,[({", c) >= 0
		source = source[1:]
	}
	flush()
	return parts
}

// highlight colours a template, and marks the expressions that name a variable which a context lacked.
func highlight(source string, unresolved []domain.Unresolved) template.HTML {
	lines := map[int][]string{}
	for _, u := range unresolved {
		if u.Partial == "" && u.Part == "body" {
			lines[u.Line] = append(lines[u.Line], u.Name)
		}
	}
	var b strings.Builder
	line := 1
	for _, p := range partsOf(source) {
		text, last := template.HTMLEscapeString(p.text), line+strings.Count(p.text, "\n")
		missing := ""
		for l := line; l <= last && (p.class == "t-var" || p.class == "t-tag"); l++ {
			for _, name := range lines[l] {
				if strings.Contains(p.text, name) {
					missing = name
				}
			}
		}
		line = last
		switch {
		case missing != "":
			b.WriteString(`<mark class="missing" title="` + template.HTMLEscapeString(missing) + ` is not in this context">` + text + `</mark>`)
		case p.class == "":
			b.WriteString(text)
		default:
			b.WriteString(`<span class="` + p.class + `">` + text + `</span>`)
		}
	}
	return template.HTML(b.String()) //nolint:gosec // everything from outside is escaped
}
