package twig

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// pattern is a compiled regular expression of "matches".
type pattern struct{ re *regexp.Regexp }

// matches is text matches pattern.
func (r *run) matches(text, expression Value, compiled *pattern) bool {
	s := r.textFor("matches", text)
	if compiled == nil {
		p, ok := asText(expression)
		if !ok {
			p = r.text(expression)
		}
		var err error
		if compiled, err = compilePattern(p); err != nil {
			r.fail(CodeRegex, "%s", err)
		}
		r.work(len(p))
	}
	r.work(len(s) >> 6)
	return compiled.re.MatchString(s)
}

var delimiters = map[byte]byte{'(': ')', '[': ']', '{': '}', '<': '>'}

// compilePattern reads a pattern as PHP writes it, /…/flags, and compiles it with Go's engine, which runs in linear
// time and therefore has no look-around and no back-references.
func compilePattern(s string) (*pattern, error) {
	if len(s) > 4096 {
		return nil, errors.New("the regular expression is longer than 4096 bytes")
	}
	s = strings.TrimLeft(s, " \t\n\r\f\v")
	if s == "" {
		return nil, errors.New("the regular expression is empty")
	}
	open := s[0]
	if isAlphanumeric(rune(open)) || open == '\\' {
		return nil, fmt.Errorf("the regular expression %s has no delimiters: write it as /…/", quoteShort(s))
	}
	end := open
	if e, ok := delimiters[open]; ok {
		end = e
	}
	i := strings.LastIndexByte(s, end)
	if i <= 0 {
		return nil, fmt.Errorf("the regular expression %s has no ending delimiter %q", quoteShort(s), string(end))
	}
	body, modifiers := s[1:i], s[i+1:]
	var flags string
	var dollarEnd, anchored, extended, unicode bool
	for _, m := range modifiers {
		switch m {
		case 'i', 'm', 's', 'U':
			flags += string(m)
		case 'x':
			extended = true
		case 'D':
			dollarEnd = true
		case 'A':
			anchored = true
		case 'u':
			unicode = true
		case 'S', '\n', ' ':
		default:
			return nil, fmt.Errorf("the regular expression %s has the unknown modifier %q", quoteShort(s), string(m))
		}
	}
	translated, err := translatePattern(body, strings.Contains(flags, "m"), dollarEnd, extended, unicode)
	if err != nil {
		return nil, err
	}
	if anchored {
		translated = `\A(?:` + translated + `)`
	}
	if flags != "" {
		translated = "(?" + flags + ")" + translated
	}
	re, err := regexp.Compile(translated)
	if err != nil {
		return nil, fmt.Errorf("the regular expression %s is invalid: %s", quoteShort(s), strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return &pattern{re}, nil
}

// translatePattern rewrites what PCRE writes otherwise than Go.
func translatePattern(s string, multiline, dollarEnd, extended, unicode bool) (string, error) {
	var b strings.Builder
	inClass := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s):
			i++
			switch next := s[i]; {
			case next == 'h':
				b.WriteString(map[bool]string{true: ` \t`, false: `[ \t]`}[inClass])
			case next == 'R' && !inClass:
				b.WriteString(`(?:\r\n|\n|\r)`)
			case next == 'Z' && !inClass:
				b.WriteString(`(?:\n?\z)`)
			case next == 'e':
				b.WriteString(`\x1b`)
			case unicode && next == 'w':
				b.WriteString(map[bool]string{true: `\p{L}\p{N}_`, false: `[\p{L}\p{N}_]`}[inClass])
			case unicode && next == 'W' && !inClass:
				b.WriteString(`[^\p{L}\p{N}_]`)
			case unicode && next == 'd':
				b.WriteString(`\p{Nd}`)
			case unicode && next == 'D':
				b.WriteString(`\P{Nd}`)
			case strings.IndexByte("/#~@!\"'%,;:=<>&` _", next) >= 0: // Go escapes none of these
				b.WriteByte(next)
			case next >= '1' && next <= '9' && !inClass:
				return "", errors.New("back-references are not available in regular expressions")
			default:
				b.WriteByte('\\')
				b.WriteByte(next)
			}
		case inClass:
			if c == '[' && !strings.HasPrefix(s[i:], "[:") {
				b.WriteByte('\\')
			}
			if c == ']' {
				inClass = false
			}
			b.WriteByte(c)
			if strings.HasPrefix(s[i:], "[:") {
				if j := strings.Index(s[i:], ":]"); j > 0 {
					b.WriteString(s[i+1 : i+j+2])
					i += j + 1
				}
			}
		case c == '[':
			inClass = true
			b.WriteByte(c)
			if i+1 < len(s) && s[i+1] == '^' {
				i++
				b.WriteByte('^')
			}
			if i+1 < len(s) && s[i+1] == ']' {
				i++
				b.WriteString(`\]`)
			}
		case c == '(' && i+2 < len(s) && s[i+1] == '?':
			rest := s[i+2:]
			if strings.HasPrefix(rest, "=") || strings.HasPrefix(rest, "!") || strings.HasPrefix(rest, "<=") || strings.HasPrefix(rest, "<!") {
				return "", errors.New("look-around is not available in regular expressions")
			}
			b.WriteByte(c)
		case c == '$' && !multiline && !dollarEnd:
			b.WriteString(`(?:\n?\z)`)
		case extended && isSpace(c):
		case extended && c == '#':
			for i+1 < len(s) && s[i+1] != '\n' {
				i++
			}
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}
