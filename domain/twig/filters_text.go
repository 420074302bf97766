package twig

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

func runeCount(s string) int { return utf8.RuneCountInString(s) }

// substring is PHP's mb_substr.
func substring(s string, start, length int64) string {
	if isASCII(s) {
		from, to := sliceBounds(int64(len(s)), start, length, false)
		return s[from:to]
	}
	runes := []rune(s)
	from, to := sliceBounds(int64(len(runes)), start, length, false)
	return string(runes[from:to])
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// upperCase and lowerCase are PHP's mb_strtoupper and mb_strtolower: full case mapping, no final sigma.
func upperCase(s string) string {
	if isASCII(s) {
		return strings.ToUpper(s)
	}
	return cases.Upper(language.Und).String(s)
}

func lowerCase(s string) string {
	if isASCII(s) || !strings.ContainsRune(s, 'İ') {
		return strings.ToLower(s)
	}
	return strings.ReplaceAll(strings.ToLower(strings.ReplaceAll(s, "İ", "i\u0307")), "İ", "i\u0307")
}

func filterUpper(r *run, a []Value) Value { return r.str(upperCase(r.textFor("upper", a[0]))) }
func filterLower(r *run, a []Value) Value { return r.str(lowerCase(r.textFor("lower", a[0]))) }

func filterCapitalize(r *run, a []Value) Value {
	s := r.textFor("capitalize", a[0])
	first := substring(s, 0, 1)
	return r.str(upperCase(first) + lowerCase(s[len(first):]))
}

// filterTitle is PHP's MB_CASE_TITLE: a cased letter after anything but a letter or a mark is capital.
func filterTitle(r *run, a []Value) Value {
	s := r.textFor("title", a[0])
	var b strings.Builder
	b.Grow(len(s))
	inWord := false
	for _, c := range s {
		switch {
		case caseIgnorable(c):
			b.WriteRune(c)
		case isCased(c):
			if inWord {
				b.WriteString(lowerCase(string(c)))
			} else {
				b.WriteString(titleCase(c))
			}
			inWord = true
		default:
			b.WriteRune(c)
			inWord = false
		}
	}
	return r.str(b.String())
}

// titleCase is a letter's capital at the start of a word, which may be several: ŉ is ʼN.
func titleCase(c rune) string {
	if c < utf8.RuneSelf {
		return string(unicode.ToTitle(c))
	}
	return cases.Title(language.Und).String(string(c))
}

func isCased(c rune) bool {
	return unicode.IsUpper(c) || unicode.IsLower(c) || unicode.IsTitle(c) || unicode.Is(unicode.Other_Lowercase, c) || unicode.Is(unicode.Other_Uppercase, c)
}

// caseIgnorable is Unicode's property: apostrophes, dots within words, marks and modifiers.
func caseIgnorable(c rune) bool {
	switch c {
	case '\'', '.', ':', '^', '`', '\u00a8', '\u00ad', '\u00af', '\u00b4', '\u00b7', '\u00b8', '\u2018', '\u2019', '\u2024', '\u2027':
		return true
	}
	return unicode.In(c, unicode.Mn, unicode.Me, unicode.Cf, unicode.Lm, unicode.Sk)
}

func filterTrim(r *run, a []Value) Value {
	s := r.textFor("trim", a[0])
	mask := opt(a, 1, nil)
	set := " \t\n\r\x00\x0b"
	if mask != nil {
		set = expandMask(r.text(mask))
	}
	side := r.text(opt(a, 2, "both"))
	trimmed := s
	switch side {
	case "both":
		trimmed = trimBytes(trimmed, set, true, true)
	case "left":
		trimmed = trimBytes(trimmed, set, true, false)
	case "right":
		trimmed = trimBytes(trimmed, set, false, true)
	default:
		r.fail(CodeArguments, `trim: the side must be "left", "right" or "both", got %s`, quoteShort(side))
	}
	if c, ok := a[0].(*capture); ok && mask == nil {
		json := trimJSON(c.json)
		return &capture{text: trimmed, json: json, hasJSON: c.hasJSON, dynamic: c.dynamic}
	}
	return trimmed
}

func trimBytes(s, set string, left, right bool) string {
	for left && s != "" && strings.IndexByte(set, s[0]) >= 0 {
		s = s[1:]
	}
	for right && s != "" && strings.IndexByte(set, s[len(s)-1]) >= 0 {
		s = s[:len(s)-1]
	}
	return s
}

// expandMask resolves "a..z" ranges, as PHP's trim does.
func expandMask(mask string) string {
	if !strings.Contains(mask, "..") {
		return mask
	}
	var b strings.Builder
	for i := 0; i < len(mask); i++ {
		if i+3 < len(mask) && mask[i+1] == '.' && mask[i+2] == '.' && mask[i+3] >= mask[i] {
			for c := int(mask[i]); c <= int(mask[i+3]); c++ {
				b.WriteByte(byte(c)) //nolint:gosec // between two bytes
			}
			i += 3
			continue
		}
		b.WriteByte(mask[i])
	}
	return b.String()
}

// prepareReplace refuses what cannot be replacements.
func prepareReplace(_ *parser, e *filterCall) {
	if c, ok := e.args[1].(*constant); ok {
		if a, ok := c.v.(*Array); ok {
			pairs := make([]string, 0, 2*a.Len())
			r := run{}
			for i, v := range a.vals {
				switch v.(type) {
				case string, int64, float64, bool, nil:
				default:
					return
				}
				pairs = append(pairs, a.key(i).String(), r.text(v))
			}
			e.cached = newTranslator(pairs)
		} else if c.v != nil {
			fail(CodeArguments, c.at(), "replace needs a mapping of texts to replacements, got %s", typeName(c.v))
		}
	}
}

func filterReplace(r *run, a []Value) Value {
	s := r.textFor("replace", a[0])
	pairs, ok := a[1].(*Array)
	if !ok {
		r.fail(CodeType, "replace needs a mapping of texts to replacements, got %s", typeName(a[1]))
	}
	list := make([]string, 0, 2*pairs.Len())
	for i, v := range pairs.vals {
		list = append(list, pairs.key(i).String(), r.text(v))
	}
	return r.translate(s, newTranslator(list))
}

// translator is PHP's strtr: at each place the longest key wins, and replacements are not looked at again.
type translator struct {
	from, to []string
	first    [256]bool
	shortest int
	longest  int
	index    map[string]int
}

func newTranslator(pairs []string) *translator {
	t := &translator{index: map[string]int{}, shortest: 1 << 30}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] == "" {
			continue
		}
		t.index[pairs[i]] = len(t.to)
		t.from = append(t.from, pairs[i])
		t.to = append(t.to, pairs[i+1])
		t.first[pairs[i][0]] = true
		t.shortest = min(t.shortest, len(pairs[i]))
		t.longest = max(t.longest, len(pairs[i]))
	}
	return t
}

func (r *run) translate(s string, t *translator) string {
	if len(t.to) == 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	start := 0
	for i := 0; i < len(s); {
		if !t.first[s[i]] {
			i++
			continue
		}
		matched := false
		for n := min(t.longest, len(s)-i); n >= t.shortest; n-- {
			if j, ok := t.index[s[i:i+n]]; ok {
				b = append(append(b, s[start:i]...), t.to[j]...)
				i += n
				start = i
				matched = true
				break
			}
		}
		if !matched {
			i++
		}
		if len(b) > r.limits.ValueBytes {
			r.charge(len(b))
		}
		if i&4095 == 0 {
			r.work(1 + t.longest/16)
		}
	}
	return r.str(string(append(b, s[start:]...)))
}

func filterSplit(r *run, a []Value) Value {
	s, delimiter := r.textFor("split", a[0]), r.textFor("split", a[1])
	limit := opt(a, 2, nil)
	if delimiter == "" {
		if limit != nil && toInt(limit) > 1 && int64(runeCount(s)) < toInt(limit) && a[0] != nil {
			return NewList(a[0]) // as it is: a number stays one
		}
		return r.chunks(s, limit)
	}
	r.charge(strings.Count(s, delimiter)*arrayElementBytes + len(s))
	n := int64(1<<62 - 1)
	if limit != nil {
		n = toInt(limit)
	}
	result := newArray(4)
	parts := strings.Split(s, delimiter)
	switch {
	case n > 0 && int64(len(parts)) > n:
		parts = strings.SplitN(s, delimiter, int(n))
	case n < 0:
		parts = parts[:max(len(parts)+int(max(n, -1<<30)), 0)]
	case n == 0:
		parts = strings.SplitN(s, delimiter, 1)
	}
	for _, p := range parts {
		result.add(p)
	}
	return result
}

// chunks splits a text by characters, limit of them a piece.
func (r *run) chunks(s string, limit Value) Value {
	size := 1
	if limit != nil && toInt(limit) > 1 {
		size = int(min(toInt(limit), 1<<30))
	}
	runes := []rune(s)
	result := r.array(len(runes)/size + 1)
	if len(runes) == 0 {
		result.add("")
		return result
	}
	for i := 0; i < len(runes); i += size {
		result.add(string(runes[i:min(i+size, len(runes))]))
	}
	return result
}

func filterNl2br(r *run, a []Value) Value {
	s := r.textFor("nl2br", a[0])
	r.charge(len(s) + 6*strings.Count(s, "\n"))
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '\n' && c != '\r' {
			b.WriteByte(c)
			continue
		}
		b.WriteString("<br />")
		b.WriteByte(c)
		if i+1 < len(s) && (s[i+1] == '\n' || s[i+1] == '\r') && s[i+1] != c {
			i++
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func filterSpaceless(r *run, a []Value) Value {
	s := strings.Trim(r.textFor("spaceless", a[0]), whitespace)
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '>')
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i+1])
		s = s[i+1:]
		if rest := strings.TrimLeft(s, " \t\n\r\f\v"); strings.HasPrefix(rest, "<") {
			s = rest
		}
	}
}

// filterStripTags is PHP's strip_tags for the tags and comments that occur in text.
func filterStripTags(r *run, a []Value) Value {
	s := r.textFor("striptags", a[0])
	allowed := map[string]bool{}
	switch v := opt(a, 1, nil).(type) {
	case nil:
	case *Array:
		for _, e := range v.vals {
			allowed[strings.ToLower(r.text(e))] = true
		}
	default:
		for _, tag := range strings.FieldsFunc(strings.ToLower(r.text(v)), func(c rune) bool { return c == '<' || c == '>' || c == ' ' || c == '/' }) {
			allowed[tag] = true
		}
	}
	s = strings.ReplaceAll(s, "\x00", "")
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '<')
		if i < 0 {
			b.WriteString(s)
			break
		}
		if i+1 < len(s) && isSpace(s[i+1]) { // "a < b" is no tag
			b.WriteString(s[:i+2])
			s = s[i+2:]
			continue
		}
		b.WriteString(s[:i])
		s = s[i:]
		end := tagEnd(s)
		if end < 0 {
			break
		}
		if allowed[tagName(s[:end])] {
			b.WriteString(s[:end])
		}
		s = s[end:]
	}
	return b.String()
}

// tagEnd is where a tag ends, -1 when it never does.
func tagEnd(s string) int {
	if strings.HasPrefix(s, "<!--") {
		if i := strings.Index(s, "-->"); i >= 0 {
			return i + 3
		}
		return -1
	}
	quote := byte(0)
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '>':
			return i + 1
		}
	}
	return -1
}

func tagName(tag string) string {
	name := strings.TrimLeft(tag, "</ \t\n\r")
	for i := range len(name) {
		if c := name[i]; isSpace(c) || c == '>' || c == '/' {
			return strings.ToLower(name[:i])
		}
	}
	return strings.ToLower(name)
}

func filterURLEncode(r *run, a []Value) Value {
	list, ok := a[0].(*Array)
	if !ok {
		s := r.text(a[0])
		r.charge(3 * len(s))
		return rawURLEncode(s)
	}
	var b strings.Builder
	r.query(&b, list, "", 0)
	return r.str(b.String())
}

// query is PHP's http_build_query: nested keys in brackets, nulls left out, booleans as 1 and 0.
func (r *run) query(b *strings.Builder, a *Array, prefix string, depth int) {
	if depth > 64 {
		r.fail(CodeLimitDepth, "value is nested too deep for a query")
	}
	for i, v := range a.vals {
		r.step()
		key := rawURLEncode(a.key(i).String())
		if prefix != "" {
			key = prefix + "%5B" + key + "%5D"
		}
		switch v := v.(type) {
		case nil:
			continue
		case *Array:
			r.query(b, v, key, depth+1)
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		if b.Len() > r.limits.ValueBytes {
			r.charge(b.Len())
		}
		b.WriteString(key)
		b.WriteByte('=')
		if v == false {
			b.WriteByte('0')
		} else {
			b.WriteString(rawURLEncode(r.text(v)))
		}
	}
}

func filterConvertEncoding(r *run, a []Value) Value {
	s := r.textFor("convert_encoding", a[0])
	to, from := r.text(a[1]), r.text(a[2])
	text, err := convertEncoding(s, to, from)
	if err != nil {
		r.fail(CodeArguments, "convert_encoding: %s", err)
	}
	return r.str(text)
}
