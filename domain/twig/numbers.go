package twig

import (
	"math"
	"strconv"
	"strings"
)

func formatInt(i int) string { return strconv.Itoa(i) }

func filterRound(r *run, a []Value) Value {
	n := looseNumber(a[0])
	if _, ok := a[0].(string); ok {
		n = toFloat(a[0])
	}
	places := int(max(min(r.integer("round", opt(a, 1, int64(0))), 400), -400))
	method := r.text(opt(a, 2, "common"))
	if i, ok := n.(int64); ok && places >= 0 {
		return float64(i)
	}
	f := toFloat(n)
	switch method {
	case "common":
		return roundPHP(f, places)
	case "ceil":
		p := math.Pow(10, float64(places))
		return math.Ceil(f*p) / p
	case "floor":
		p := math.Pow(10, float64(places))
		return math.Floor(f*p) / p
	}
	r.fail(CodeArguments, `round: the method must be "common", "ceil" or "floor", got %s`, quoteShort(method))
	return nil
}

// roundPHP rounds half away from zero, after rounding to the 15 digits that a float is sure of, so that 1.005
// rounds to 1.01, as PHP 8.2 does.
func roundPHP(f float64, places int) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) || f == 0 {
		return f
	}
	magnitude := int(math.Floor(math.Log10(math.Abs(f))))
	precision := 14 - magnitude
	if precision > places && precision-15 < places {
		scaled := f * pow10(min(precision, 308))
		if precision > 308 {
			scaled *= pow10(precision - 308)
		}
		scaled = math.Round(scaled)
		use := places - precision
		use = max(use, -308)
		scaled *= math.Pow(10, float64(use))
		if math.Abs(scaled) < 1e15 {
			return unscale(math.Round(scaled), places)
		}
		return f
	}
	scaled := f * math.Pow(10, float64(places))
	if math.Abs(scaled) >= 1e15 || math.IsNaN(scaled) {
		return f
	}
	return unscale(math.Round(scaled), places)
}

func pow10(n int) float64 { return math.Pow(10, float64(n)) }

// unscale divides by a power of ten exactly: by way of the decimal text when the power is large.
func unscale(f float64, places int) float64 {
	switch {
	case places == 0:
		return f
	case places > 0 && places <= 22:
		return f / pow10(places)
	case places < 0 && places >= -22:
		return f * pow10(-places)
	}
	v, err := strconv.ParseFloat(strconv.FormatFloat(f, 'f', 0, 64)+"e"+strconv.Itoa(-places), 64)
	if err != nil {
		return 0
	}
	return v
}

func filterNumberFormat(r *run, a []Value) Value {
	def := r.root.options.Number
	if !def.Set {
		def = NumberFormat{Point: ".", Thousands: ","}
	}
	decimals := def.Decimals
	if v := opt(a, 1, nil); v != nil {
		decimals = int(max(min(r.integer("number_format", v), 1000), 0))
	}
	point, thousands := def.Point, def.Thousands
	if v := opt(a, 2, nil); v != nil {
		point = r.text(v)
	}
	if v := opt(a, 3, nil); v != nil {
		thousands = r.text(v)
	}
	return r.str(formatNumber(toFloat(a[0]), decimals, point, thousands))
}

// formatNumber is PHP's number_format.
func formatNumber(f float64, decimals int, point, thousands string) string {
	f = roundPHP(f, decimals)
	if math.IsNaN(f) {
		return "nan"
	}
	if math.IsInf(f, 0) {
		if f < 0 {
			return "-inf"
		}
		return "inf"
	}
	s := strconv.FormatFloat(math.Abs(f), 'f', decimals, 64)
	whole, fraction, _ := strings.Cut(s, ".")
	var b strings.Builder
	if f < 0 && strings.Trim(s, "0.") != "" {
		b.WriteByte('-')
	}
	for i, c := range []byte(whole) {
		if i > 0 && (len(whole)-i)%3 == 0 {
			b.WriteString(thousands)
		}
		b.WriteByte(c)
	}
	if decimals > 0 {
		b.WriteString(point)
		b.WriteString(fraction)
	}
	return b.String()
}

// filterFormat is PHP's sprintf.
func filterFormat(r *run, a []Value) Value {
	format := r.textFor("format", a[0])
	args := a[1:]
	var b []byte
	next := 0
	for i := 0; i < len(format); i++ {
		c := format[i]
		if c != '%' {
			b = append(b, c)
			continue
		}
		if i++; i >= len(format) {
			r.fail(CodeArguments, "format: the directive at the end is incomplete")
		}
		if format[i] == '%' {
			b = append(b, '%')
			continue
		}
		var d directive
		i = d.parse(r, format, i)
		at := d.argument - 1
		if d.argument == 0 {
			at = next
			next++
		}
		if at >= len(args) || args[at] == absent {
			r.fail(CodeArguments, "format: needs %d arguments, got %d", at+1, len(args))
		}
		b = d.append(r, b, args[at])
		if len(b) > r.limits.ValueBytes {
			r.charge(len(b))
		}
	}
	return r.str(string(b))
}

// directive is one %… of a format.
type directive struct {
	argument  int // 1-based, 0 for the next
	left      bool
	plus      bool
	pad       byte
	width     int
	precision int // -1 when not given
	verb      byte
}

func (d *directive) parse(r *run, s string, i int) int {
	d.pad, d.precision = ' ', -1
	number := func() int {
		j := digits(s, i)
		n, _ := strconv.Atoi(s[i:j]) // too large stays too large
		if n > 1<<20 {
			r.fail(CodeLimitMemory, "format: a width of %d is too large", n)
		}
		i = j
		return n
	}
	if j := digits(s, i); j > i && j < len(s) && s[j] == '$' {
		if d.argument = number(); d.argument == 0 {
			r.fail(CodeArguments, "format: arguments count from 1")
		}
		i++
	}
flags:
	for i < len(s) {
		switch s[i] {
		case '-':
			d.left = true
		case '+':
			d.plus = true
		case '0', ' ':
			d.pad = s[i]
		case '\'':
			if i++; i >= len(s) {
				r.fail(CodeArguments, "format: the padding is missing")
			}
			d.pad = s[i]
		default:
			break flags
		}
		i++
	}
	d.width = number()
	if i < len(s) && s[i] == '.' {
		i++
		d.precision = number()
	}
	if i < len(s) && s[i] == 'l' {
		i++
	}
	if i >= len(s) || !strings.ContainsRune("bcdeEfFgGosuxX", rune(s[i])) {
		r.fail(CodeArguments, "format: unknown directive in %s", quoteShort(s))
	}
	d.verb = s[i]
	return i
}

func (d *directive) append(r *run, b []byte, v Value) []byte {
	var s string
	numeric := true
	switch d.verb {
	case 's':
		s, numeric = r.text(v), false
		if d.precision >= 0 && d.precision < len(s) {
			s = s[:d.precision]
		}
	case 'd':
		s = strconv.FormatInt(bound(v), 10)
		if d.plus && s[0] != '-' {
			s = "+" + s
		}
	case 'u':
		s = strconv.FormatUint(uint64(toInt(v)), 10) //nolint:gosec // PHP wraps too
	case 'x':
		s = strconv.FormatUint(uint64(toInt(v)), 16) //nolint:gosec // PHP wraps too
	case 'X':
		s = strings.ToUpper(strconv.FormatUint(uint64(toInt(v)), 16)) //nolint:gosec // PHP wraps too
	case 'o':
		s = strconv.FormatUint(uint64(toInt(v)), 8) //nolint:gosec // PHP wraps too
	case 'b':
		s = strconv.FormatUint(uint64(toInt(v)), 2) //nolint:gosec // PHP wraps too
	case 'c':
		return append(b, byte(toInt(v))) //nolint:gosec // a byte is what %c is
	default:
		s = d.float(toFloat(v))
	}
	missing := d.width - len(s)
	switch {
	case missing <= 0:
		return append(b, s...)
	case d.left:
		b = append(b, s...)
		pad := d.pad
		if pad == '0' && numeric && d.verb != 'd' {
			pad = '0'
		}
		return appendRepeated(b, pad, missing)
	case d.pad == '0' && numeric && (s[0] == '-' || s[0] == '+'):
		b = append(b, s[0])
		return append(appendRepeated(b, '0', missing), s[1:]...)
	}
	return append(appendRepeated(b, d.pad, missing), s...)
}

func appendRepeated(b []byte, c byte, n int) []byte {
	for range n {
		b = append(b, c)
	}
	return b
}

func (d *directive) float(f float64) string {
	precision := d.precision
	if precision < 0 {
		precision = 6
	}
	if f == 0 && d.verb != 'g' && d.verb != 'G' {
		f = 0 // PHP drops the sign of -0
	}
	precision = min(precision, 53)
	var s string
	switch d.verb {
	case 'e', 'E':
		s = strconv.FormatFloat(f, 'e', precision, 64)
		mantissa, exponent, _ := strings.Cut(s, "e")
		n, _ := strconv.Atoi(exponent)
		s = mantissa + string(d.verb)
		if n >= 0 {
			s += "+"
		}
		s += strconv.Itoa(n)
	case 'g', 'G':
		s = string(appendFloat(nil, f, max(precision, 1), d.verb-'g'+'e'))
		s = strings.Replace(s, ".0e", "e", 1)
	default:
		s = strconv.FormatFloat(f, 'f', precision, 64)
	}
	if d.plus && f >= 0 {
		s = "+" + s
	}
	return s
}
