package twig

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// strategies are the names that escape and autoescape know.
var strategies = append(slices.Clone(ownStrategies), "json")

// ownStrategies are those of Twig itself.
var ownStrategies = []string{"html", "js", "css", "url", "html_attr"}

// escape applies a strategy. With automatic, Twig's Markup stays as it is.
func (r *run) escape(v Value, strategy string, automatic bool) Value {
	switch m := v.(type) {
	case *capture:
		if automatic {
			return v
		}
	case Markup:
		if automatic && m.For == SafeAll {
			return v
		}
	case string:
	default: // Twig's own strategies leave what is no text as it is, even a float whose text they would change
		if slices.Contains(ownStrategies, strategy) {
			return v
		}
		if _, ok := v.(float64); ok {
			return v
		}
		if _, ok := v.(int64); ok {
			return v
		}
	}
	s := r.text(v)
	r.charge(len(s))
	switch strategy {
	case "html":
		return Markup{Text: r.str(escapeHTML(s)), For: SafeHTML}
	case "js":
		return Markup{Text: r.str(r.escapeJS(s)), For: SafeJS}
	case "css":
		return Markup{Text: r.str(r.escapeCSS(s)), For: SafeCSS}
	case "html_attr":
		return Markup{Text: r.str(r.escapeAttribute(s)), For: SafeAttribute | SafeHTML}
	case "url":
		return Markup{Text: r.str(rawURLEncode(s)), For: SafeURL}
	case "json":
		return Markup{Text: string(r.appendJSONText(nil, s, false)), For: SafeJS}
	}
	failHint(CodeArguments, r.at, didYouMean(strategy, strategies), "unknown escaping strategy %q", strategy)
	return nil
}

var htmlEscaper = strings.NewReplacer("&", "&amp;", `"`, "&quot;", "'", "&#039;", "<", "&lt;", ">", "&gt;")

// escapeHTML is PHP's htmlspecialchars: bytes that are no UTF-8 become U+FFFD.
func escapeHTML(s string) string {
	if !utf8.ValidString(s) {
		s = validUTF8(s)
	}
	return htmlEscaper.Replace(s)
}

// validUTF8 replaces each run of bytes that are no UTF-8 by U+FFFD.
func validUTF8(s string) string { return strings.ToValidUTF8(s, "\ufffd") }

// eachRune walks valid text; escaping anything else is an error, as in Twig.
func (r *run) eachRune(s, strategy string, f func(b *strings.Builder, c rune)) string {
	if !utf8.ValidString(s) {
		r.fail(CodeType, "text for the %s strategy is not valid UTF-8", strategy)
	}
	var b strings.Builder
	b.Grow(len(s) + len(s)/2)
	for _, c := range s {
		f(&b, c)
	}
	return b.String()
}

func isAlphanumeric(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func (r *run) escapeJS(s string) string {
	return r.eachRune(s, "js", func(b *strings.Builder, c rune) {
		switch {
		case isAlphanumeric(c) || c == ',' || c == '.' || c == '_':
			b.WriteRune(c)
		case c == '\\':
			b.WriteString(`\\`)
		case c == '/':
			b.WriteString(`\/`)
		case c == '\b':
			b.WriteString(`\b`)
		case c == '\f':
			b.WriteString(`\f`)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\t':
			b.WriteString(`\t`)
		default:
			writeUTF16(b, c, "%04X")
		}
	})
}

// writeUTF16 writes \u escapes, two for a rune beyond the basic plane.
func writeUTF16(b *strings.Builder, c rune, format string) {
	if c > 0xffff {
		c -= 0x10000
		fmt.Fprintf(b, `\u`+format+`\u`+format, 0xd800+(c>>10), 0xdc00+(c&0x3ff))
		return
	}
	fmt.Fprintf(b, `\u`+format, c)
}

func (r *run) escapeCSS(s string) string {
	return r.eachRune(s, "css", func(b *strings.Builder, c rune) {
		if isAlphanumeric(c) {
			b.WriteRune(c)
		} else {
			fmt.Fprintf(b, `\%X `, c)
		}
	})
}

func (r *run) escapeAttribute(s string) string {
	return r.eachRune(s, "html_attr", func(b *strings.Builder, c rune) {
		switch {
		case isAlphanumeric(c) || c == ',' || c == '.' || c == '-' || c == '_':
			b.WriteRune(c)
		case c == '"':
			b.WriteString("&quot;")
		case c == '&':
			b.WriteString("&amp;")
		case c == '<':
			b.WriteString("&lt;")
		case c == '>':
			b.WriteString("&gt;")
		case c <= 0x1f && c != '\t' && c != '\n' && c != '\r' || c >= 0x7f && c <= 0x9f:
			b.WriteString("&#xFFFD;")
		case c > 0x7f:
			fmt.Fprintf(b, "&#x%04X;", c)
		default:
			fmt.Fprintf(b, "&#x%02X;", c)
		}
	})
}

// rawURLEncode is PHP's rawurlencode (RFC 3986).
func rawURLEncode(s string) string {
	const upperHex = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(s))
	for i := range len(s) {
		c := s[i]
		if isAlphanumeric(rune(c)) || c == '-' || c == '.' || c == '_' || c == '~' {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		}
	}
	return b.String()
}
