package twig

import (
	"strings"
)

// kind is what a token is.
type kind uint8

const (
	tokEOF kind = iota
	tokText
	tokPrintStart // {{
	tokPrintEnd   // }}
	tokTagStart   // {%
	tokTagEnd     // %}
	tokName
	tokNumber
	tokString
	tokInterpolationStart // #{
	tokInterpolationEnd   // }
	tokOperator           // symbols and words; words are normalised to single spaces
	tokPunctuation        // one of ( ) [ ] { } , : . | ?
	tokArrow              // =>
	tokSpread             // ...
)

func (k kind) String() string {
	switch k {
	case tokEOF:
		return "end of template"
	case tokText:
		return "text"
	case tokPrintStart:
		return `"{{"`
	case tokPrintEnd:
		return `end of print statement ("}}")`
	case tokTagStart:
		return `"{%"`
	case tokTagEnd:
		return `end of tag ("%}")`
	case tokName:
		return "name"
	case tokNumber:
		return "number"
	case tokString:
		return "string"
	case tokInterpolationStart:
		return `"#{"`
	case tokInterpolationEnd:
		return `"}"`
	case tokOperator:
		return "operator"
	case tokPunctuation:
		return "punctuation"
	case tokArrow:
		return `"=>"`
	case tokSpread:
		return `"..."`
	}
	return "token"
}

// token is one lexical unit; text is the operator, name, number or unescaped string.
type token struct {
	kind       kind
	start, end int32
	text       string
}

// wordOperators are operators only when a space or an opening bracket follows, and never after "." or "|". The first word
// decides which are tried; longer ones come first.
var wordOperators = map[byte][][]string{
	'n': {{"not", "in"}, {"not"}},
	'i': {{"is", "not"}, {"is"}, {"in"}},
	's': {{"starts", "with"}},
	'e': {{"ends", "with"}},
	'h': {{"has", "every"}, {"has", "some"}},
	'm': {{"matches"}},
	'a': {{"and"}},
	'o': {{"or"}},
	'x': {{"xor"}},
	'b': {{"b-and"}, {"b-xor"}, {"b-or"}},
}

// symbolOperators in the order they are tried.
var symbolOperators = []string{"<=>", "**", "//", "..", "==", "!=", "<=", ">=", "??", "<", ">", "+", "-", "~", "*", "/", "%", "="}

const (
	whitespace     = " \t\n\r\x00\x0b" // what PHP's trim takes away
	lineWhitespace = " \t\x00\x0b"
)

type bracket struct {
	char byte
	pos  int32
}

// lexer turns a source into tokens in one pass, applying Twig's white space control.
type lexer struct {
	text     string
	pos      int
	tokens   []token
	brackets []bracket
}

func lex(text string) []token {
	l := &lexer{text: text, tokens: make([]token, 0, len(text)/6+8)}
	l.template()
	return l.tokens
}

func (l *lexer) emit(k kind, start, end int, text string) {
	l.tokens = append(l.tokens, token{kind: k, start: int32(start), end: int32(end), text: text}) //nolint:gosec // bounded source
}

func (l *lexer) fail(at int, format string, args ...any) {
	fail(CodeSyntax, int32(at), format, args...) //nolint:gosec // bounded source
}

func (l *lexer) emitText(start, end int) {
	if end > start {
		l.emit(tokText, start, end, l.text[start:end])
	}
}

// template lexes text and finds the constructs in it.
func (l *lexer) template() {
	for {
		open := l.nextOpening(l.pos)
		if open < 0 {
			l.emitText(l.pos, len(l.text))
			break
		}
		inner := open + 2
		end := open
		if inner < len(l.text) {
			switch l.text[inner] {
			case '-':
				end = l.pos + len(strings.TrimRight(l.text[l.pos:open], whitespace))
				inner++
			case '~':
				end = l.pos + len(strings.TrimRight(l.text[l.pos:open], lineWhitespace))
				inner++
			}
		}
		l.emitText(l.pos, end)
		l.pos = inner
		switch l.text[open+1] {
		case '#':
			l.comment(open)
		case '%':
			if !l.verbatim(open) {
				l.emit(tokTagStart, open, inner, "")
				l.expression(open, '%')
			}
		default:
			l.emit(tokPrintStart, open, inner, "")
			l.expression(open, '}')
		}
	}
	l.emit(tokEOF, len(l.text), len(l.text), "")
}

func (l *lexer) nextOpening(from int) int {
	for i := from; i+1 < len(l.text); i++ {
		j := strings.IndexByte(l.text[i:], '{')
		if j < 0 {
			return -1
		}
		i += j
		if i+1 < len(l.text) && (l.text[i+1] == '{' || l.text[i+1] == '%' || l.text[i+1] == '#') {
			return i
		}
	}
	return -1
}

// closing reports whether a closing delimiter stands at i, and where the text after it starts. A newline after a
// tag or comment goes too; after "}}" it stays.
func (l *lexer) closing(i int, delimiter string) (next int, ok bool) {
	rest := l.text[i:]
	newline := delimiter != "}}"
	switch {
	case strings.HasPrefix(rest, "-"+delimiter):
		next = i + 1 + len(delimiter)
		return len(l.text) - len(strings.TrimLeft(l.text[next:], " \t\n\r\f\v")), true
	case strings.HasPrefix(rest, "~"+delimiter):
		next = i + 1 + len(delimiter)
		return len(l.text) - len(strings.TrimLeft(l.text[next:], lineWhitespace)), true
	case strings.HasPrefix(rest, delimiter):
		next = i + len(delimiter)
		if newline && next < len(l.text) && l.text[next] == '\n' {
			next++
		}
		return next, true
	}
	return i, false
}

func (l *lexer) comment(open int) {
	i := strings.Index(l.text[l.pos:], "#}")
	if i < 0 {
		l.fail(open, "unclosed comment")
	}
	at := l.pos + i
	if at > l.pos && (l.text[at-1] == '-' || l.text[at-1] == '~') {
		at--
	}
	l.pos, _ = l.closing(at, "#}")
}

// verbatim handles {% verbatim %}…{% endverbatim %}, whose content is text.
func (l *lexer) verbatim(open int) bool {
	i := l.skipSpace(l.pos)
	if !strings.HasPrefix(l.text[i:], "verbatim") {
		return false
	}
	i = l.skipSpace(i + len("verbatim"))
	next, ok := l.closing(i, "%}")
	if !ok {
		return false
	}
	if l.text[i] == '%' {
		next = i + 2 // the newline after a plain verbatim tag stays
	}
	for from := next; ; {
		j := strings.Index(l.text[from:], "{%")
		if j < 0 {
			l.fail(open, `unclosed "verbatim" tag`)
		}
		tag := from + j
		from = tag + 2
		end := tag
		if from < len(l.text) && l.text[from] == '-' {
			end = next + len(strings.TrimRight(l.text[next:tag], whitespace))
			from++
		} else if from < len(l.text) && l.text[from] == '~' {
			end = next + len(strings.TrimRight(l.text[next:tag], lineWhitespace))
			from++
		}
		k := l.skipSpace(from)
		if !strings.HasPrefix(l.text[k:], "endverbatim") {
			continue
		}
		k = l.skipSpace(k + len("endverbatim"))
		after, ok := l.closing(k, "%}")
		if !ok {
			continue
		}
		if l.text[k] == '%' {
			after = k + 2
		}
		l.emitText(next, end)
		l.pos = after
		return true
	}
}

func (l *lexer) skipSpace(i int) int {
	for i < len(l.text) && isSpace(l.text[i]) {
		i++
	}
	return i
}

func isSpace(c byte) bool {
	return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f'
}

func isNameStart(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x7f
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// expression lexes until the closing delimiter of the tag (%) or print (}), or, inside a string, until the
// interpolation's brace (0).
func (l *lexer) expression(open int, until byte) {
	depth := len(l.brackets)
	for {
		l.pos = l.skipSpace(l.pos)
		if l.pos >= len(l.text) {
			if len(l.brackets) > depth {
				b := l.brackets[len(l.brackets)-1]
				l.fail(int(b.pos), "unclosed %q", string(b.char))
			}
			switch until {
			case '%':
				l.fail(open, `unclosed tag: "%%}" is missing`)
			case '}':
				l.fail(open, `unclosed print statement: "}}" is missing`)
			}
			l.fail(open, `unclosed interpolation in a string: "}" is missing`)
		}
		if len(l.brackets) == depth {
			switch until {
			case '%':
				if next, ok := l.closing(l.pos, "%}"); ok {
					l.emit(tokTagEnd, l.pos, next, "")
					l.pos = next
					return
				}
			case '}':
				if next, ok := l.closing(l.pos, "}}"); ok {
					l.emit(tokPrintEnd, l.pos, next, "")
					l.pos = next
					return
				}
			default:
				if l.text[l.pos] == '}' {
					l.emit(tokInterpolationEnd, l.pos, l.pos+1, "")
					l.pos++
					return
				}
			}
		}
		l.next()
	}
}

// next lexes one token of an expression.
func (l *lexer) next() {
	c, rest, at := l.text[l.pos], l.text[l.pos:], l.pos
	switch {
	case strings.HasPrefix(rest, "..."):
		l.take(tokSpread, 3)
	case strings.HasPrefix(rest, "=>"):
		l.take(tokArrow, 2)
	case isNameStart(c):
		if !l.wordOperator() {
			n := 1
			for n < len(rest) && (isNameStart(rest[n]) || isDigit(rest[n])) {
				n++
			}
			l.take(tokName, n)
		}
	case isDigit(c):
		l.take(tokNumber, numberLength(rest))
	case c == '"':
		l.doubleQuoted()
	case c == '\'':
		n := 1
		for n < len(rest) && rest[n] != '\'' {
			if rest[n] == '\\' {
				n++
			}
			n++
		}
		if n >= len(rest) {
			l.fail(at, `unclosed string: "'" is missing`)
		}
		l.emit(tokString, at, at+n+1, unescape(rest[1:n]))
		l.pos += n + 1
	case c == '#':
		if i := strings.IndexByte(rest, '\n'); i >= 0 {
			l.pos += i
		} else {
			l.pos = len(l.text)
		}
	default:
		l.symbol(c, rest, at)
	}
}

func (l *lexer) take(k kind, n int) {
	l.emit(k, l.pos, l.pos+n, l.text[l.pos:l.pos+n])
	l.pos += n
}

func (l *lexer) symbol(c byte, rest string, at int) {
	for _, op := range symbolOperators {
		if strings.HasPrefix(rest, op) {
			l.take(tokOperator, len(op))
			return
		}
	}
	switch c {
	case '(', '[', '{':
		l.brackets = append(l.brackets, bracket{c, int32(at)}) //nolint:gosec // bounded source
	case ')', ']', '}':
		if len(l.brackets) == 0 {
			l.fail(at, "unexpected %q", string(c))
		}
		b := l.brackets[len(l.brackets)-1]
		if b.char != map[byte]byte{')': '(', ']': '[', '}': '{'}[c] {
			l.fail(int(b.pos), "unclosed %q", string(b.char))
		}
		l.brackets = l.brackets[:len(l.brackets)-1]
	case '?', ':', '.', ',', '|':
	case '&':
		failHint(CodeSyntax, int32(at), `write "and"`, "unexpected character %q", "&") //nolint:gosec // bounded source
	case '!':
		failHint(CodeSyntax, int32(at), `write "not"`, "unexpected character %q", "!") //nolint:gosec // bounded source
	case '`':
		failHint(CodeSyntax, int32(at), `quote with ' or "`, "unexpected character %q", "`") //nolint:gosec // bounded source
	default:
		l.fail(at, "unexpected character %q", string(c))
	}
	l.take(tokPunctuation, 1)
}

// wordOperator lexes an operator made of words, such as "not in".
func (l *lexer) wordOperator() bool {
	candidates := wordOperators[l.text[l.pos]]
	if candidates == nil || l.pos > 0 && (l.text[l.pos-1] == '.' || l.text[l.pos-1] == '|') {
		return false
	}
words:
	for _, words := range candidates {
		i := l.pos
		for n, word := range words {
			if n > 0 {
				after := l.skipSpace(i)
				if after == i {
					continue words
				}
				i = after
			}
			if !strings.HasPrefix(l.text[i:], word) {
				continue words
			}
			i += len(word)
		}
		if i < len(l.text) && !isSpace(l.text[i]) && strings.IndexByte("()[{", l.text[i]) < 0 {
			continue
		}
		l.emit(tokOperator, l.pos, i, strings.Join(words, " "))
		l.pos = i
		return true
	}
	return false
}

// numberLength measures digits, an optional fraction and an optional exponent with its sign ("1e3" is no number).
func numberLength(s string) int {
	n := digits(s, 0)
	if n+1 < len(s) && s[n] == '.' && isDigit(s[n+1]) {
		n = digits(s, n+1)
	}
	if n+2 < len(s) && (s[n] == 'e' || s[n] == 'E') && (s[n+1] == '+' || s[n+1] == '-') && isDigit(s[n+2]) {
		n = digits(s, n+2)
	}
	return n
}

func digits(s string, i int) int {
	for i < len(s) && isDigit(s[i]) {
		i++
	}
	return i
}

// doubleQuoted lexes a string in double quotes and the interpolations in it.
func (l *lexer) doubleQuoted() {
	open := l.pos
	l.pos++
	start := l.pos
	for {
		if l.pos >= len(l.text) {
			l.fail(open, `unclosed string: """ is missing`)
		}
		switch c := l.text[l.pos]; {
		case c == '\\':
			l.pos += 2
		case c == '"':
			l.emit(tokString, open, l.pos+1, unescape(l.text[start:l.pos]))
			l.pos++
			return
		case c == '#' && strings.HasPrefix(l.text[l.pos:], "#{"):
			// a string token followed by an interpolation is one string: the parser joins them
			l.emit(tokString, open, l.pos, unescape(l.text[start:l.pos]))
			l.emit(tokInterpolationStart, l.pos, l.pos+2, "")
			l.pos += 2
			if len(l.brackets) > 4096 {
				fail(CodeLimitDepth, int32(open), "strings nested too deep") //nolint:gosec // bounded source
			}
			l.brackets = append(l.brackets, bracket{'"', int32(open)}) //nolint:gosec // bounded source
			l.expression(l.pos-2, 0)
			l.brackets = l.brackets[:len(l.brackets)-1]
			open, start = l.pos, l.pos
		default:
			l.pos++
		}
	}
}

// unescape resolves the backslash escapes of a Twig string; a backslash before any other character goes away.
func unescape(s string) string {
	i := strings.IndexByte(s, '\\')
	if i < 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i >= 0 {
		b.WriteString(s[:i])
		s = s[i+1:]
		if s == "" {
			break
		}
		n := 1
		switch c := s[0]; c {
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'r':
			b.WriteByte('\r')
		case 'f':
			b.WriteByte('\f')
		case 'v':
			b.WriteByte('\v')
		case 'x':
			v := byte(0)
			for n < len(s) && n < 3 && isHex(s[n]) {
				v = v<<4 | hexValue(s[n])
				n++
			}
			if n == 1 {
				v = 'x'
			}
			b.WriteByte(v)
		case '0', '1', '2', '3', '4', '5', '6', '7':
			v := 0
			for n = 0; n < len(s) && n < 3 && s[n] >= '0' && s[n] <= '7'; n++ {
				v = v<<3 | int(s[n]-'0')
			}
			b.WriteByte(byte(v))
		default:
			b.WriteByte(c)
		}
		s = s[n:]
		i = strings.IndexByte(s, '\\')
	}
	b.WriteString(s)
	return b.String()
}

func isHex(c byte) bool {
	return isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func hexValue(c byte) byte {
	switch {
	case isDigit(c):
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	default:
		return c - 'A' + 10
	}
}
