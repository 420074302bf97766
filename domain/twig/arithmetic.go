package twig

import (
	"math"
	"math/big"
	"math/bits"
)

// arithmetic is +, -, *, / and ** on PHP's numbers: integers stay integers until they overflow.
func (r *run) arithmetic(op operator, a, b Value) Value {
	x, y := r.number(a, op.String()), r.number(b, op.String())
	i, okI := x.(int64)
	j, okJ := y.(int64)
	if okI && okJ {
		if v, ok := r.integers(op, i, j); ok {
			return v
		}
	}
	f, g := toFloat(x), toFloat(y)
	switch op {
	case opAdd:
		return f + g
	case opSub:
		return f - g
	case opMul:
		return f * g
	case opPow:
		return powFloat(f, g)
	}
	if g == 0 {
		r.fail(CodeDivision, "division by zero")
	}
	return f / g
}

// integers computes with integers; ok is false when the result is not one.
func (r *run) integers(op operator, i, j int64) (v Value, ok bool) {
	switch op {
	case opAdd:
		s := i + j
		return s, (s > i) == (j > 0)
	case opSub:
		s := i - j
		return s, (s < i) == (j > 0)
	case opMul:
		return multiply(i, j)
	case opPow:
		if j < 0 {
			return nil, false
		}
		result := int64(1)
		for base := i; ; {
			if j&1 == 1 {
				p, ok := multiply(result, base)
				if !ok {
					return nil, false
				}
				result = p.(int64) // multiply gives an int64 when ok
			}
			if j >>= 1; j == 0 {
				return result, true
			}
			p, ok := multiply(base, base)
			if !ok {
				return nil, false
			}
			base = p.(int64)
		}
	case opDiv:
		if j == 0 {
			r.fail(CodeDivision, "division by zero")
		}
		if j == -1 {
			return -i, i != math.MinInt64
		}
		return i / j, i%j == 0
	}
	return nil, false
}

func multiply(i, j int64) (Value, bool) {
	neg := (i < 0) != (j < 0)
	hi, lo := bits.Mul64(magnitude(i), magnitude(j))
	if hi != 0 || lo > 1<<63 || lo == 1<<63 && !neg {
		return nil, false
	}
	if neg {
		return -int64(lo), true //nolint:gosec // lo is at most 1<<63
	}
	return int64(lo), true //nolint:gosec // lo is below 1<<63
}

func magnitude(i int64) uint64 {
	if i < 0 {
		return -uint64(i) //nolint:gosec // two's complement gives the magnitude, of the smallest integer too
	}
	return uint64(i)
}

// modulo is PHP's %: on integers, with the sign of the dividend.
func (r *run) modulo(a, b Value) Value {
	i, j := toInt(r.number(a, "%")), toInt(r.number(b, "%"))
	if j == 0 {
		r.fail(CodeDivision, "modulo by zero")
	}
	if j == -1 {
		return int64(0)
	}
	return i % j
}

// floorDivide is Twig's //: the quotient, rounded down to an integer.
func (r *run) floorDivide(a, b Value) Value {
	switch q := r.arithmetic(opDiv, a, b).(type) {
	case int64:
		return q
	case float64:
		return floatToInt(math.Floor(q))
	}
	return nil
}

// negate is unary minus.
func (r *run) negate(v Value) Value {
	return r.arithmetic(opMul, v, int64(-1))
}

// rangeOf is PHP's range(): integers, floats or single letters, counting up or down.
func (r *run) rangeOf(low, high, step Value) *Array {
	st := looseNumber(step)
	f, fractional := st.(float64)
	if fractional && f == math.Trunc(f) && math.Abs(f) < 1e15 {
		st, fractional = int64(f), false
	}
	floats := fractional || isFloat(low) || isFloat(high)
	l, okL := plainText(low)
	h, okH := plainText(high)
	if okL && okH && l != "" && h != "" {
		x, y := wholeNumber(l), wholeNumber(h)
		if x == nil && y == nil && !fractional {
			return r.letters(l[0], h[0], step)
		}
		floats = floats || isFloat(x) || isFloat(y)
	}
	if !floats {
		return r.integerRange(bound(low), bound(high), toInt(st))
	}
	x, y, s := toFloat(low), toFloat(high), math.Abs(toFloat(st))
	if x != y && (s == 0 || math.Abs(y-x) < s || math.IsNaN(s)) {
		r.fail(CodeArguments, "range: the step must not exceed the range")
	}
	n := math.Floor(math.Abs(y-x)/s+1) - 1
	if math.IsNaN(n) || n*arrayElementBytes > float64(r.limits.ValueBytes) {
		r.fail(CodeLimitMemory, "range is too large")
	}
	if y < x {
		s = -s
	}
	a := r.array(int(n) + 1)
	for k := range int(n) + 1 {
		if k == 0 {
			a.add(x) // -0 stays
			continue
		}
		a.add(x + float64(k)*s)
	}
	return a
}

func (r *run) integerRange(low, high, step int64) *Array {
	size := magnitude(step)
	span := uint64(high) - uint64(low) //nolint:gosec // the distance, whatever the signs
	if high < low {
		span = uint64(low) - uint64(high) //nolint:gosec // as above
	}
	if span == 0 {
		return NewList(low)
	}
	if size > span || size == 0 {
		r.fail(CodeArguments, "range: the step must not exceed the range")
	}
	n := span / size
	if n > uint64(r.limits.ValueBytes/arrayElementBytes) { //nolint:gosec // limits are positive
		r.fail(CodeLimitMemory, "range has %d elements, too many", n+1)
	}
	a := r.array(int(n) + 1)      //nolint:gosec // bounded by the line above
	for i := range int64(n) + 1 { //nolint:gosec // bounded, as above
		if high < low {
			a.add(low - i*int64(size)) //nolint:gosec // stays inside the range
		} else {
			a.add(low + i*int64(size)) //nolint:gosec // stays inside the range
		}
	}
	return a
}

func (r *run) letters(low, high byte, step Value) *Array {
	n := int(magnitude(toInt(step))) //nolint:gosec // a step beyond 255 gives one letter
	if n == 0 && low != high {
		r.fail(CodeArguments, "range: the step must not be 0")
	}
	a := r.array(max(int(high)-int(low), int(low)-int(high)) + 1)
	for c := int(low); ; {
		a.add(string([]byte{byte(c)})) //nolint:gosec // low and high are bytes
		if high == low {
			return a
		}
		if high > low {
			if c += n; c > int(high) {
				return a
			}
		} else if c -= n; c < int(high) {
			return a
		}
	}
}

// bound is an end of a range of integers: of text, the nearest integer there is.
func bound(v Value) int64 {
	if s, ok := plainText(v); ok {
		switch f := toFloat(s); {
		case f >= math.MaxInt64:
			return math.MaxInt64
		case f <= math.MinInt64:
			return math.MinInt64
		}
	}
	return toInt(v)
}

func isFloat(v Value) bool {
	_, ok := v.(float64)
	return ok
}

// wholeNumber is the number that a text is, nil when it is none.
func wholeNumber(s string) Value {
	if n, whole := numericPrefix(s); whole {
		return n
	}
	return nil
}

// bitwiseText is PHP's |, ^ and & on two texts: byte by byte.
func bitwiseText(op operator, x, y string) string {
	if len(x) > len(y) {
		x, y = y, x
	}
	b := []byte(y)
	for i := range len(x) {
		switch op {
		case opBitOr:
			b[i] |= x[i]
		case opBitXor:
			b[i] ^= x[i]
		case opBitAnd:
			b[i] &= x[i]
		}
	}
	if op != opBitOr {
		b = b[:len(x)]
	}
	return string(b)
}

// powFloat is C's pow: math.Pow is off in the last digits for large whole exponents, so those are computed exactly and
// rounded once.
func powFloat(x, y float64) float64 {
	n := int(math.Abs(math.Min(math.Max(y, -4096), 4096)))
	if y != math.Trunc(y) || math.Abs(y) > 2048 || n < 2 || x == 0 || math.IsNaN(x) || math.IsInf(x, 0) {
		return math.Pow(x, y)
	}
	product, base := big.NewFloat(1).SetPrec(powPrecision), big.NewFloat(x).SetPrec(powPrecision)
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			product.Mul(product, base)
		}
		base.Mul(base, base)
	}
	if y < 0 {
		product.Quo(big.NewFloat(1).SetPrec(powPrecision), product)
	}
	f, _ := product.Float64() // ±Inf when it is out of range, as in C
	return f
}

const powPrecision = 256
