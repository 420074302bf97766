package twig

import (
	"encoding/json"
	"math"
	"strings"
	"unicode/utf8"
)

// flags of json_encode, as PHP's constants have them.
const (
	jsonHexTag            = 1
	jsonHexAmp            = 2
	jsonHexApos           = 4
	jsonHexQuot           = 8
	jsonForceObject       = 16
	jsonNumericCheck      = 32
	jsonUnescapedSlashes  = 64
	jsonPrettyPrint       = 128
	jsonUnescapedUnicode  = 256
	jsonPartialOutput     = 512
	jsonPreserveZero      = 1024
	jsonInvalidIgnore     = 1 << 20
	jsonInvalidSubstitute = 1 << 21

	// jsonFlagsPrint is how a value is printed in JSON mode: shortest, UTF-8 kept, and never a failure for bad bytes.
	jsonFlagsPrint = jsonUnescapedSlashes | jsonUnescapedUnicode | jsonInvalidSubstitute | jsonOwn

	jsonOwn = 1 << 40 // not PHP's: an empty object stays {}, U+2028 is escaped, numbers that are none are errors
)

const jsonDepth = 512

// encodeJSON appends a value as PHP's json_encode writes it.
func (r *run) encodeJSON(b []byte, v Value, flags int64) []byte {
	e := jsonEncoder{r: r, b: b, flags: flags}
	e.value(v, 0)
	return e.b
}

type jsonEncoder struct {
	r     *run
	b     []byte
	flags int64
}

func (e *jsonEncoder) has(flag int64) bool { return e.flags&flag != 0 }

func (e *jsonEncoder) value(v Value, depth int) {
	r := e.r
	switch v := v.(type) {
	case nil:
		e.b = append(e.b, "null"...)
	case bool:
		if v {
			e.b = append(e.b, "true"...)
		} else {
			e.b = append(e.b, "false"...)
		}
	case int64:
		e.b = r.appendText(e.b, v)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			r.fail(CodeType, "%s cannot be written as JSON", formatFloat(v))
		}
		e.b = appendFloat(e.b, v, 17, 'e')
		if e.has(jsonPreserveZero) && v == math.Trunc(v) && math.Abs(v) < 1e15 {
			e.b = append(e.b, ".0"...)
		}
	case string:
		e.string(v)
	case Markup:
		e.string(v.Text)
	case *capture:
		e.string(v.text)
	case *Array:
		e.array(v, depth)
	case *date:
		if e.has(jsonOwn) {
			e.string(v.t.Format("2006-01-02T15:04:05-07:00"))
			return
		}
		zoneType, zone := v.zoneType()
		a := newArray(3)
		a.set(Key{Text: "date"}, v.t.Format("2006-01-02 15:04:05.000000"))
		a.set(Key{Text: "timezone_type"}, zoneType)
		a.set(Key{Text: "timezone"}, zone)
		e.array(a, depth)
	case *loopState:
		e.array(v.array(), depth)
	default:
		e.b = append(e.b, "{}"...)
	}
	if len(e.b) > r.limits.OutputBytes {
		r.fail(CodeLimitMemory, "JSON is larger than %d bytes", r.limits.OutputBytes)
	}
}

func (e *jsonEncoder) array(a *Array, depth int) {
	if depth >= jsonDepth {
		e.r.fail(CodeLimitDepth, "value is nested too deep for JSON")
	}
	list := a.isList() && !e.has(jsonForceObject) && !(e.has(jsonOwn) && a.object)
	open, end := byte('{'), byte('}')
	if list {
		open, end = '[', ']'
	}
	e.b = append(e.b, open)
	for i, v := range a.vals {
		e.r.step()
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.newline(depth + 1)
		if !list {
			e.key(a.key(i))
		}
		e.value(v, depth+1)
	}
	if a.Len() > 0 {
		e.newline(depth)
	}
	e.b = append(e.b, end)
}

func (e *jsonEncoder) key(k Key) {
	numeric := e.flags & jsonNumericCheck
	e.flags &^= jsonNumericCheck
	e.string(k.String())
	e.flags |= numeric
	e.b = append(e.b, ':')
	if e.has(jsonPrettyPrint) {
		e.b = append(e.b, ' ')
	}
}

func (e *jsonEncoder) newline(depth int) {
	if !e.has(jsonPrettyPrint) {
		return
	}
	e.b = append(e.b, '\n')
	for range depth {
		e.b = append(e.b, "    "...)
	}
}

func (e *jsonEncoder) string(s string) {
	if e.has(jsonNumericCheck) {
		if n, whole := numericPrefix(s); n != nil && whole {
			e.value(n, 0)
			return
		}
	}
	e.r.charge(len(s))
	e.b = append(e.b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			e.ascii(c)
			i++
			continue
		}
		ch, size := utf8.DecodeRuneInString(s[i:])
		i += size
		switch {
		case ch == utf8.RuneError && size == 1:
			switch {
			case e.has(jsonInvalidIgnore):
			case e.has(jsonInvalidSubstitute) && e.has(jsonUnescapedUnicode):
				e.b = append(e.b, "\ufffd"...)
			case e.has(jsonInvalidSubstitute):
				e.b = append(e.b, `\ufffd`...)
			default:
				e.r.fail(CodeType, "text is not valid UTF-8 and cannot be written as JSON")
			}
		case e.has(jsonUnescapedUnicode) && ch != '\u2028' && ch != '\u2029':
			e.b = append(e.b, s[i-size:i]...)
		default:
			var b strings.Builder
			writeUTF16(&b, ch, "%04x")
			e.b = append(e.b, b.String()...)
		}
	}
	e.b = append(e.b, '"')
}

func (e *jsonEncoder) ascii(c byte) {
	switch {
	case c < 0x20 || c == '\\':
		e.b = appendControl(e.b, c)
	case c == '"' && e.has(jsonHexQuot):
		e.b = append(e.b, `\u0022`...)
	case c == '"':
		e.b = append(e.b, `\"`...)
	case c == '/' && !e.has(jsonUnescapedSlashes):
		e.b = append(e.b, `\/`...)
	case c == '<' && e.has(jsonHexTag):
		e.b = append(e.b, `\u003C`...)
	case c == '>' && e.has(jsonHexTag):
		e.b = append(e.b, `\u003E`...)
	case c == '&' && e.has(jsonHexAmp):
		e.b = append(e.b, `\u0026`...)
	case c == '\'' && e.has(jsonHexApos):
		e.b = append(e.b, `\u0027`...)
	default:
		e.b = append(e.b, c)
	}
}

func validJSONBytes(b []byte) bool { return json.Valid(b) }

func validJSON(s string) bool { return json.Valid([]byte(s)) }

func trimJSON(s string) string { return strings.Trim(s, " \t\r\n") }
