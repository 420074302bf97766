package twig

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// truthy is PHP's conversion to bool.
func truthy(v Value) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case int64:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != "" && v != "0"
	case Markup:
		return v.Text != "" && v.Text != "0"
	case *capture: // an object in PHP
		return v.text != ""
	case *Array:
		return len(v.vals) > 0
	}
	return true
}

// text is PHP's conversion to string.
func (r *run) text(v Value) string {
	switch v := v.(type) {
	case nil:
		return ""
	case bool:
		if v {
			return "1"
		}
		return ""
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return formatFloat(v)
	case string:
		return v
	case Markup:
		return v.Text
	case *capture:
		return v.text
	case *Array:
		return "Array"
	}
	r.fail(CodeType, "%s cannot be printed: it has no text", typeName(v))
	return ""
}

// textFor is text for what takes text alone: PHP converts numbers, booleans and null, but no arrays.
func (r *run) textFor(what string, v Value) string {
	if _, ok := v.(*Array); ok {
		r.fail(CodeType, "%q needs text, got an array", what)
	}
	return r.text(v)
}

// appendText is text without the allocation.
func (r *run) appendText(b []byte, v Value) []byte {
	switch v := v.(type) {
	case int64:
		return strconv.AppendInt(b, v, 10)
	case float64:
		return appendFloat(b, v, 14, 'E')
	}
	return append(b, r.text(v)...)
}

// formatFloat prints as PHP's echo does: 14 significant digits.
func formatFloat(f float64) string { return string(appendFloat(make([]byte, 0, 24), f, 14, 'E')) }

// appendFloat prints a float as PHP does. With 17 digits it prints the shortest text that reads back the same.
func appendFloat(b []byte, f float64, precision int, exponent byte) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(b, "INF"...)
	case math.IsInf(f, -1):
		return append(b, "-INF"...)
	case math.IsNaN(f):
		return append(b, "NAN"...)
	}
	if f == math.Trunc(f) && math.Abs(f) < 1e14 && !(f == 0 && math.Signbit(f)) {
		return strconv.AppendInt(b, int64(f), 10)
	}
	digits := precision - 1
	if precision == 17 {
		digits = -1
	}
	var buf [40]byte
	s := strconv.AppendFloat(buf[:0], f, 'e', digits, 64)
	if s[0] == '-' {
		b = append(b, '-')
		s = s[1:]
	}
	e := len(s) - 1
	for s[e] != 'e' {
		e--
	}
	exp, _ := strconv.Atoi(string(s[e+1:]))
	mantissa := append([]byte{s[0]}, s[min(2, e):e]...)
	for len(mantissa) > 1 && mantissa[len(mantissa)-1] == '0' {
		mantissa = mantissa[:len(mantissa)-1]
	}
	point := exp + 1 // where the decimal point stands in the digits
	switch {
	case point < -3 || point > precision:
		b = append(b, mantissa[0], '.')
		if len(mantissa) == 1 {
			b = append(b, '0')
		}
		b = append(b, mantissa[1:]...)
		b = append(b, exponent)
		if exp >= 0 {
			b = append(b, '+')
		}
		return strconv.AppendInt(b, int64(exp), 10)
	case point <= 0:
		b = append(b, '0', '.')
		for ; point < 0; point++ {
			b = append(b, '0')
		}
		return append(b, mantissa...)
	case point >= len(mantissa):
		b = append(b, mantissa...)
		for n := len(mantissa); n < point; n++ {
			b = append(b, '0')
		}
		return b
	}
	b = append(b, mantissa[:point]...)
	b = append(b, '.')
	return append(b, mantissa[point:]...)
}

// numericPrefix reads the number that a string starts with, as PHP does: white space before it is allowed. whole
// says that nothing but white space follows; the value is nil when there is no number.
func numericPrefix(s string) (v Value, whole bool) {
	start := 0
	for start < len(s) && isSpace(s[start]) {
		start++
	}
	i := start
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		i++
	}
	first := i
	i = digits(s, i)
	isFloat := false
	count := i - first
	if i < len(s) && s[i] == '.' {
		j := digits(s, i+1)
		if j > i+1 || count > 0 {
			count += j - i - 1
			i = j
			isFloat = true
		}
	}
	if count == 0 {
		return nil, false
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		j := i + 1
		if j < len(s) && (s[j] == '-' || s[j] == '+') {
			j++
		}
		if k := digits(s, j); k > j {
			i = k
			isFloat = true
		}
	}
	end := i
	for end < len(s) && isSpace(s[end]) {
		end++
	}
	whole = end == len(s)
	number := s[start:i]
	if !isFloat {
		if n, err := strconv.ParseInt(number, 10, 64); err == nil {
			return n, whole
		}
	}
	f, _ := strconv.ParseFloat(number, 64) // out of range gives ±Inf, as PHP
	return f, whole
}

// number is the operand of arithmetic.
func (r *run) number(v Value, operator string) Value {
	switch v := v.(type) {
	case int64, float64:
		return v
	case nil:
		return int64(0)
	case bool:
		if v {
			return int64(1)
		}
		return int64(0)
	case string:
		if n, _ := numericPrefix(v); n != nil {
			return n
		}
		r.fail(CodeType, "unsupported operand of %q: the text %s is no number", operator, quoteShort(v))
	case Markup:
		return r.number(v.Text, operator)
	case *capture:
		r.fail(CodeType, "unsupported operand of %q: captured text; to compute, set the variable with \"=\"", operator)
	}
	r.fail(CodeType, "unsupported operand of %q: %s", operator, typeName(v))
	return nil
}

// looseNumber is PHP's cast: text without a number is 0.
func looseNumber(v Value) Value {
	switch v := v.(type) {
	case int64, float64:
		return v
	case bool:
		if v {
			return int64(1)
		}
	case string:
		if n, _ := numericPrefix(v); n != nil {
			return n
		}
	case Markup:
		return looseNumber(v.Text)
	case *capture: // an object in PHP
		return int64(1)
	case *Array:
		if len(v.vals) > 0 {
			return int64(1)
		}
	}
	return int64(0)
}

func toFloat(v Value) float64 {
	if s, ok := v.(string); ok && strings.HasPrefix(s, "-0") {
		if n, _ := numericPrefix(s); n == int64(0) {
			return math.Copysign(0, -1)
		}
	}
	switch n := looseNumber(v).(type) {
	case int64:
		return float64(n)
	case float64:
		return n
	}
	return 0
}

func toInt(v Value) int64 {
	switch n := looseNumber(v).(type) {
	case int64:
		return n
	case float64:
		return floatToInt(n)
	}
	return 0
}

// integer is an argument that PHP declares as an integer: text must be a number.
func (r *run) integer(what string, v Value) int64 {
	if s, ok := asText(v); ok && wholeNumber(s) == nil {
		r.fail(CodeType, "%q needs an integer, got %s", what, quoteShort(s))
	}
	return toInt(v)
}

// floatToInt casts as PHP does on 64 bits: out of range wraps, NaN and infinities are 0.
func floatToInt(f float64) int64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	if f >= -9.223372036854775808e18 && f < 9.223372036854775808e18 {
		return int64(f)
	}
	m := math.Mod(math.Trunc(f), 18446744073709551616)
	if m < 0 {
		m += 18446744073709551616
	}
	return int64(uint64(m)) //nolint:gosec // wrapping is the point
}

// asText reports whether the value is text, and which.
func asText(v Value) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case Markup:
		return v.Text, true
	case *capture:
		return v.text, true
	}
	return "", false
}

// plainText is asText for what is a string in PHP, not an object.
func plainText(v Value) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case Markup:
		return v.Text, true
	}
	return "", false
}

// arrayKey converts a value to a key as PHP does.
func (r *run) arrayKey(v Value) Key {
	switch v := v.(type) {
	case int64:
		return intKey(v)
	case string:
		return stringKey(v)
	case nil:
		return Key{}
	case bool:
		if v {
			return intKey(1)
		}
		return intKey(0)
	case float64:
		return intKey(floatToInt(v))
	case Markup:
		return stringKey(v.Text)
	case *capture:
		return stringKey(v.text)
	}
	r.fail(CodeType, "%s cannot be a key", typeName(v))
	return Key{}
}

// mappingKey is the key of a mapping literal. A variable is cast to text first, so that 1.5 stays 1.5.
func (r *run) mappingKey(e expr) Key {
	v := e.eval(r)
	if _, ok := e.(*variable); ok {
		return stringKey(r.text(v))
	}
	return r.arrayKey(v)
}

// typeName names a value's type in an error.
func typeName(v Value) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case string, Markup, *capture:
		return "a string"
	case *Array:
		return "an array"
	case *date:
		return "a date"
	case *interval:
		return "a date interval"
	case *closure:
		return "an arrow function"
	}
	return "a value"
}

func quoteShort(s string) string {
	if len(s) > 40 {
		s = strings.ToValidUTF8(s[:40], "") + "…"
	}
	return strconv.Quote(s)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
