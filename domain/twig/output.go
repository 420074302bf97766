package twig

import (
	"math"
	"unicode/utf8"
)

// place is where in a JSON text the output stands.
type place uint8

const (
	placeValue  place = iota // between tokens: a value, a key, a comma may follow
	placeString              // inside a string
	placeEscape              // inside a string, after a backslash
	places
)

// transit says which place a text leads to from each place.
type transit [places]place

func transitOf(text string) (t transit) {
	for p := range t {
		t[p] = advance(place(p), text)
	}
	return t
}

// advance follows a text from a place.
func advance(p place, text string) place {
	for i := range len(text) {
		switch c := text[i]; {
		case p == placeEscape:
			p = placeString
		case c == '"' && p == placeString:
			p = placeValue
		case c == '"':
			p = placeString
		case c == '\\' && p == placeString:
			p = placeEscape
		}
	}
	return p
}

// sink collects output. In JSON mode it carries the place it stands at, so that a value takes the form that belongs
// there whoever prints it; the text outside values is the author's and goes through untouched.
//
// A capture (set, a macro called for its value) in JSON mode collects twice: the text as plain Twig has it, and the
// JSON that the same prints would make where a value stands.
type sink struct {
	plain     []byte
	json      []byte
	place     place
	wantPlain bool
	wantJSON  bool
	dynamic   bool // something other than the author's text and constants was printed
}

// capture is the result of a set block or of a macro called for its value: Twig's Markup. In JSON mode it also
// knows its JSON form.
type capture struct {
	text    string
	json    string
	hasJSON bool
	dynamic bool
}

// how says what a print does with its value in JSON mode; the compiler decides it.
type how uint8

const (
	asValue    how = iota // escape for the place
	asIs                  // |raw: the author vouches for it
	asConstant            // a string in the template: as it is, unless that makes no JSON
	asRepaired            // escaped by hand in the template: complete, don't repeat
)

// writeText writes the author's text.
func (r *run) writeText(s string, t *transit) {
	o := r.out
	if o.wantPlain {
		o.plain = append(o.plain, s...)
	}
	if o.wantJSON {
		o.json = append(o.json, s...)
		o.place = t[o.place]
	}
	r.checkOutput(o)
}

func (r *run) checkOutput(o *sink) {
	if len(o.plain) > r.limits.OutputBytes || len(o.json) > r.limits.OutputBytes {
		r.fail(CodeLimitOutput, "output is larger than %d bytes", r.limits.OutputBytes)
	}
}

// writeRaw writes text that is printed as it is.
func (r *run) writeRaw(s string) {
	o := r.out
	if o.wantPlain {
		o.plain = append(o.plain, s...)
	}
	if o.wantJSON {
		o.json = append(o.json, s...)
		o.place = advance(o.place, s)
	}
	r.checkOutput(o)
}

// print writes a value.
func (r *run) print(v Value, h how) {
	o := r.out
	if o.wantPlain {
		o.plain = r.appendText(o.plain, v)
	}
	if o.wantJSON {
		r.printJSON(o, v, h)
	}
	r.checkOutput(o)
}

func (r *run) printJSON(o *sink, v Value, h how) {
	if h == asConstant && r.repair && o.place != placeValue {
		h = asRepaired
	}
	if h == asIs || h == asConstant {
		s := r.text(v)
		o.json = append(o.json, s...)
		o.place = advance(o.place, s)
		return
	}
	o.dynamic = true
	if o.place == placeValue {
		r.printJSONValue(o, v)
		return
	}
	if o.place == placeEscape { // a backslash of the author's before a value: the value starts the string anew
		o.json = append(o.json, '\\')
		o.place = placeString
	}
	switch v := v.(type) {
	case Markup:
		if v.For&SafeJS != 0 {
			o.json = append(o.json, v.Text...)
			o.place = advance(o.place, v.Text)
			return
		}
		o.json = r.appendJSONText(o.json, v.Text, h == asRepaired)
	case string:
		o.json = r.appendJSONText(o.json, v, h == asRepaired)
	case int64, float64:
		o.json = r.appendText(o.json, v)
	case *Array:
		o.json = r.appendJSONText(o.json, string(r.encodeJSON(nil, v, jsonFlagsPrint)), false)
	default:
		o.json = r.appendJSONText(o.json, r.text(v), h == asRepaired)
	}
}

// printJSONValue writes a value where JSON expects one.
func (r *run) printJSONValue(o *sink, v Value) {
	switch v := v.(type) {
	case Markup:
		if v.For&(SafeJSON|SafeJS) != 0 {
			o.json = append(o.json, v.Text...)
			o.place = advance(o.place, v.Text)
			return
		}
		r.printJSONValue(o, v.Text)
	case *capture:
		switch {
		case v.hasJSON && v.isJSON():
			o.json = append(o.json, v.json...)
			o.place = advance(o.place, v.json)
		default:
			r.printJSONValue(o, v.text)
		}
	case string:
		if !r.root.options.StrictTypes && isJSONNumber(v) {
			o.json = append(o.json, v...)
			return
		}
		o.json = append(o.json, '"')
		o.json = r.appendJSONText(o.json, v, false)
		o.json = append(o.json, '"')
	case float64: // as Twig prints it, 0.3 for 0.1 + 0.2, where that is JSON
		if math.IsInf(v, 0) || math.IsNaN(v) {
			o.json = r.encodeJSON(o.json, v, jsonFlagsPrint)
			return
		}
		o.json = appendFloat(o.json, v, 14, 'E')
	default:
		o.json = r.encodeJSON(o.json, v, jsonFlagsPrint)
	}
}

// isJSON decides whether a capture printed where a value stands is JSON, or text to be quoted.
func (c *capture) isJSON() bool {
	s := trimJSON(c.json)
	if s == "" {
		return !c.dynamic && c.json != "" || len(c.json) > 0 && c.text == ""
	}
	if s == "," {
		return true
	}
	fragment := s
	if fragment[0] == ',' {
		fragment = fragment[1:]
	}
	if n := len(fragment); n > 0 && fragment[n-1] == ',' {
		fragment = fragment[:n-1]
	}
	return validJSON(s) || validJSON("{"+fragment+"}") || validJSON("["+fragment+"]")
}

// appendJSONText escapes text for a JSON string. With repair, escapes that are already there stay.
func (r *run) appendJSONText(b []byte, s string, repair bool) []byte {
	if len(s) > 1<<14 {
		r.work(len(s) >> 10)
	}
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			ch, size := utf8.DecodeRuneInString(s[i:])
			switch {
			case ch == utf8.RuneError && size == 1:
				b = append(append(b, s[start:i]...), "\ufffd"...)
			case ch == '\u2028' || ch == '\u2029':
				b = append(append(b, s[start:i]...), `\u202`...)
				b = append(b, "89"[ch-'\u2028'])
			default:
				i += size
				continue
			}
			i += size
			start = i
			continue
		}
		if c == '\\' && repair {
			if n := escapeLength(s[i:]); n > 0 {
				i += n
				continue
			}
		}
		b = append(b, s[start:i]...)
		b = appendControl(b, c)
		i++
		start = i
	}
	return append(b, s[start:]...)
}

const hexDigits = "0123456789abcdef"

// appendControl escapes a quote, a backslash or a control character.
func appendControl(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	case '\b':
		return append(b, '\\', 'b')
	case '\f':
		return append(b, '\\', 'f')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

// escapeLength measures a valid JSON escape at the start of s, 0 when there is none.
func escapeLength(s string) int {
	if len(s) < 2 {
		return 0
	}
	switch s[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(s) >= 6 && isHex(s[2]) && isHex(s[3]) && isHex(s[4]) && isHex(s[5]) {
			return 6
		}
	}
	return 0
}

// isJSONNumber reports whether text is a number as JSON writes it.
func isJSONNumber(s string) bool {
	i := 0
	if i < len(s) && s[i] == '-' {
		i++
	}
	first := i
	i = digits(s, i)
	if i == first || i > first+1 && s[first] == '0' {
		return false
	}
	if i < len(s) && s[i] == '.' {
		j := digits(s, i+1)
		if j == i+1 {
			return false
		}
		i = j
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		j := digits(s, i)
		if j == i {
			return false
		}
		i = j
	}
	return i == len(s)
}
