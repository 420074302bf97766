package domain

import (
	"maps"
	"mime"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// formType is the media type of an HTML form.
const formType = "application/x-www-form-urlencoded"

// Content is how a body is written and what is escaped in it.
type Content string

// The contents of a body.
const (
	ContentJSON Content = "json" // values are escaped for the place they stand in, and what is rendered is checked
	ContentForm Content = "form" // fields are encoded
	ContentText Content = "text" // as it stands: XML, CSV, plain text
)

// Content tells how the target's body is written, from its content type.
func (t Target) Content() Content {
	media, _, err := mime.ParseMediaType(t.ContentType)
	switch {
	case err != nil:
		return ContentText
	case media == formType:
		return ContentForm
	case media == "application/json" || media == "text/json" || strings.HasSuffix(media, "+json"):
		return ContentJSON
	}
	return ContentText
}

// fieldPart names the template of one field of a form.
func fieldPart(name string) string { return "form/" + pointerToken(name) }

const maxFields = 256

func (t Target) validateContent() error {
	media, _, err := mime.ParseMediaType(t.ContentType)
	switch {
	case err != nil || strings.ContainsAny(t.ContentType, "\r\n") || !strings.Contains(media, "/"):
		return Invalid("/content_type", "is %q; it is a media type such as application/json", clip(t.ContentType))
	case t.Platform != "webhook" && t.Content() != ContentJSON:
		return Invalid("/content_type", "is %q; %s takes JSON", clip(t.ContentType), t.Platform)
	case len(t.Form) == 0:
		return nil
	case t.Body != "":
		return Invalid("/form", "and body cannot both be given")
	case t.Content() != ContentForm:
		return Invalid("/form", "goes with content_type %s, or without one", formType)
	case len(t.Form) > maxFields:
		return Invalid("/form", "holds %d fields, more than %d", len(t.Form), maxFields)
	}
	size := 0
	for name, value := range t.Form {
		if name == "" {
			return Invalid("/form", "holds a field without a name")
		}
		size += len(name) + len(value)
	}
	if size > maxBody {
		return Invalid("/form", "is %d bytes, more than %d", size, maxBody)
	}
	return nil
}

// encodeForm writes fields as a form does, by name.
func encodeForm(fields map[string]string) string {
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(fields)) {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(url.QueryEscape(name) + "=" + url.QueryEscape(fields[name]))
	}
	return b.String()
}

// expressions are the tags of a template, a conditional or loop with what stands in it. What is nested deeper makes a
// pattern that nothing matches.
var expressions = regexp.MustCompile(`(?s)\{%-?\s*(?:if|for)\b.*?\{%-?\s*end(?:if|for)\s*-?%\}|\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}`)

// hostOf is the part of a URL template that says whom it speaks to, and the pattern that a rendered URL's host and port must
// match: what the author wrote as it stands, and letters, digits, '.', '_', '-' and ':' where there is an expression. So no value
// can lead a request elsewhere, not even one that holds a slash.
func hostOf(template string) (pattern *regexp.Regexp, err error) {
	_, rest, _ := strings.Cut(template, "://")
	var b strings.Builder
	b.WriteString(`^(?i)`)
	literal := ""
	for rest != "" {
		at := expressions.FindStringIndex(rest)
		if at == nil {
			at = []int{len(rest), len(rest)}
		}
		text := rest[:at[0]]
		if end := strings.IndexAny(text, "/?#\\"); end >= 0 { // what follows is path and query
			b.WriteString(regexp.QuoteMeta(text[:end]))
			return regexp.Compile(b.String() + `$`)
		}
		b.WriteString(regexp.QuoteMeta(text))
		literal += text
		if at[0] == at[1] {
			return regexp.Compile(b.String() + `$`)
		}
		b.WriteString(`[a-z0-9._:\[\]-]*`)
		rest = rest[at[1]:]
		if rest == "" && literal != "" && !strings.HasSuffix(literal, ":") {
			return nil, Invalid("/url", "ends its host in an expression, which could make another host of it; write the slash that ends the host: https://host/{{ … }}")
		}
	}
	return regexp.Compile(b.String() + `$`)
}

func (t Target) validateURL() error {
	_, err := hostOf(t.URL)
	return err
}

func pointerToken(name string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(name) }

func digits(n int) string { return strconv.Itoa(n) }

// Texts are what the target's author wrote of a request: the templates of its body, URL and headers.
func (t Target) Texts() []string {
	texts := []string{t.Body, t.URL}
	for _, header := range t.Headers {
		texts = append(texts, header)
	}
	return texts
}
