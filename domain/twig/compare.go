package twig

import (
	"math"
	"strings"
)

// equal is PHP 8's ==.
func (r *run) equal(a, b Value) bool {
	switch a := a.(type) {
	case string:
		if b, ok := b.(string); ok {
			return a == b || looksNumeric(a) && looksNumeric(b) && r.compareText(a, b) == 0
		}
	case int64:
		if b, ok := b.(int64); ok {
			return a == b
		}
	case bool:
		return a == truthy(b)
	}
	if b, ok := b.(bool); ok {
		return b == truthy(a)
	}
	if x, ok := a.(*Array); ok {
		y, ok := b.(*Array)
		if !ok {
			return b == nil && len(x.vals) == 0
		}
		return r.equalArrays(x, y)
	}
	return r.compare(a, b) == 0
}

// looksNumeric is a cheap test before the expensive one.
func looksNumeric(s string) bool {
	if s == "" {
		return false
	}
	c := s[0]
	return c <= '9'
}

func (r *run) equalArrays(a, b *Array) bool {
	if a == b {
		return true
	}
	if len(a.vals) != len(b.vals) {
		return false
	}
	r.enter()
	defer r.leave()
	for i, v := range a.vals {
		r.step()
		w, ok := b.Get(a.key(i))
		if !ok || !r.equal(v, w) {
			return false
		}
	}
	return true
}

// identical is ===, for "is same as".
func (r *run) identical(a, b Value) bool {
	if x, ok := a.(*Array); ok {
		y, ok := b.(*Array)
		if !ok || len(x.vals) != len(y.vals) {
			return false
		}
		if x == y {
			return true
		}
		r.enter()
		defer r.leave()
		for i, v := range x.vals {
			r.step()
			if x.key(i) != y.key(i) || !r.identical(v, y.vals[i]) {
				return false
			}
		}
		return true
	}
	if m, ok := a.(Markup); ok {
		a = m.Text
	}
	if m, ok := b.(Markup); ok {
		b = m.Text
	}
	switch x := a.(type) {
	case nil, bool, int64, float64, string:
		return a == b
	case *capture: // Twig's Markup: an object, identical to itself alone
		y, ok := b.(*capture)
		return ok && x == y
	case *closure, *date, *interval:
		return a == b
	}
	return false
}

// uncomparable is what compare answers when PHP finds neither value smaller (NaN, arrays with other keys).
const uncomparable = 2

// comparable is a value as a comparison with another sees it. Captured text is an object in PHP: it is its text
// beside text, and 1 beside a number.
func comparable(v, other Value) Value {
	switch v := v.(type) {
	case Markup:
		return v.Text
	case *capture:
		switch other.(type) {
		case int64, float64:
			return int64(1)
		case *Array:
			return v
		}
		return v.text
	}
	return v
}

// compare is PHP 8's <=>.
func (r *run) compare(a, b Value) int {
	r.step()
	a, b = comparable(a, b), comparable(b, a)
	switch x := a.(type) {
	case nil:
		switch y := b.(type) {
		case nil:
			return 0
		case string:
			return strings.Compare("", y)
		}
		return compareBool(false, truthy(b))
	case bool:
		return compareBool(x, truthy(b))
	case int64:
		switch y := b.(type) {
		case int64:
			return compareOrdered(x, y)
		case float64:
			return compareFloat(float64(x), y)
		case string:
			return r.compareNumberText(x, y)
		}
	case float64:
		switch y := b.(type) {
		case int64:
			return compareFloat(x, float64(y))
		case float64:
			return compareFloat(x, y)
		case string:
			return r.compareNumberText(x, y)
		}
	case string:
		switch y := b.(type) {
		case string:
			return r.compareText(x, y)
		case int64, float64:
			return -r.compareNumberText(y, x)
		case nil:
			return strings.Compare(x, "")
		}
	case *Array:
		if y, ok := b.(*Array); ok {
			return r.compareArrays(x, y)
		}
	case *date:
		if y, ok := b.(*date); ok {
			return x.t.Compare(y.t)
		}
	}
	switch y := b.(type) {
	case nil:
		return compareBool(truthy(a), false)
	case bool:
		return compareBool(truthy(a), y)
	}
	// an object is 1 beside a number, and greater than any text
	switch x := a.(type) {
	case int64, float64:
		if isObject(b) {
			return r.compare(x, int64(1))
		}
	case string:
		if isObject(b) {
			return -1
		}
	}
	if isObject(a) {
		switch y := b.(type) {
		case int64, float64:
			return r.compare(int64(1), y)
		case string:
			return 1
		}
	}
	// arrays are greater than anything else, objects greater still
	if isObject(a) != isObject(b) {
		if isObject(b) {
			return -1
		}
		return 1
	}
	if _, ok := a.(*Array); ok {
		return 1
	}
	if _, ok := b.(*Array); ok {
		return -1
	}
	return 1
}

// isObject reports whether a value is an object in PHP that has no text.
func isObject(v Value) bool {
	switch v.(type) {
	case *date, *interval, *closure, *capture:
		return true
	}
	return false
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func compareOrdered[T int64 | float64 | string](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func compareFloat(a, b float64) int {
	if math.IsNaN(a) || math.IsNaN(b) {
		return uncomparable
	}
	return compareOrdered(a, b)
}

// compareNumberText compares a number with text: as numbers when the text is one, else as texts.
func (r *run) compareNumberText(n Value, s string) int {
	if m, whole := numericPrefix(s); m != nil && whole {
		return r.compare(n, m)
	}
	return strings.Compare(r.text(n), s)
}

func (r *run) compareText(a, b string) int {
	if looksNumeric(a) && looksNumeric(b) {
		m, whole := numericPrefix(a)
		if m != nil && whole {
			if n, whole := numericPrefix(b); n != nil && whole {
				return r.compare(m, n)
			}
		}
	}
	return strings.Compare(a, b)
}

// compareArrays: the longer is greater; equally long ones compare by key in the order of the first.
func (r *run) compareArrays(a, b *Array) int {
	if c := compareOrdered(int64(len(a.vals)), int64(len(b.vals))); c != 0 {
		return c
	}
	r.enter()
	defer r.leave()
	for i, v := range a.vals {
		w, ok := b.Get(a.key(i))
		if !ok {
			return uncomparable
		}
		if c := r.compare(v, w); c != 0 {
			return c
		}
	}
	return 0
}

// contains is Twig's "in".
func (r *run) contains(needle, haystack Value) bool {
	if s, ok := asText(haystack); ok {
		switch needle.(type) {
		case string, Markup, *capture, int64, float64:
			return strings.Contains(s, r.text(needle))
		}
		return false
	}
	a, ok := haystack.(*Array)
	if !ok {
		return false
	}
	for _, v := range a.vals {
		r.step()
		if r.equal(needle, v) {
			return true
		}
	}
	return false
}
