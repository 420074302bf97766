package twig

import (
	"strconv"
)

// Value is a value of a template: nil, bool, int64, float64, string, Markup, *Array, or one of the values that
// only templates make (a date, an interval, an arrow function, a capture).
type Value any

// Markup is text that is safe to print as it is, because an escaper or the template's author made it.
type Markup struct {
	Text string
	For  Safety // where it is safe
}

// Safety is a set of places that a Markup may be printed at without escaping.
type Safety uint8

// The places.
const (
	SafeHTML Safety = 1 << iota
	SafeJS
	SafeCSS
	SafeURL
	SafeAttribute
	SafeJSON // a whole JSON value, safe where a value stands (not inside a string)
	SafeAll  = SafeHTML | SafeJS | SafeCSS | SafeURL | SafeAttribute | SafeJSON
)

// Key is the key of an Array element: an integer, or a string that does not look like one.
type Key struct {
	Text  string
	Int   int64
	IsInt bool
}

func intKey(i int64) Key { return Key{Int: i, IsInt: true} }

// stringKey makes a key of text; decimal integers become integer keys, as in PHP.
func stringKey(s string) Key {
	if s == "" || len(s) > 20 || !isDigit(s[0]) && s[0] != '-' {
		return Key{Text: s}
	}
	if i, err := strconv.ParseInt(s, 10, 64); err == nil && strconv.FormatInt(i, 10) == s {
		return intKey(i)
	}
	return Key{Text: s}
}

func (k Key) String() string {
	if k.IsInt {
		return strconv.FormatInt(k.Int, 10)
	}
	return k.Text
}

func (k Key) value() Value {
	if k.IsInt {
		return k.Int
	}
	return k.Text
}

// indexFrom is the size from which an Array finds its keys by hash.
const indexFrom = 9

// Array is PHP's array: ordered, keyed by integers and strings. An Array that others can see is never changed.
type Array struct {
	vals   []Value
	keys   []Key         // nil while the keys are 0, 1, 2, …
	index  map[Key]int32 // built with the keys, from indexFrom elements on
	next   int64         // the next free integer key
	object bool          // decoded from a JSON object: prints {} when empty
}

// NewList makes an array with the keys 0, 1, 2, …
func NewList(vals ...Value) *Array {
	return &Array{vals: vals, next: int64(len(vals))}
}

func newArray(room int) *Array {
	return &Array{vals: make([]Value, 0, room)}
}

// Len is the number of elements.
func (a *Array) Len() int { return len(a.vals) }

// At returns the key and value of the i-th element.
func (a *Array) At(i int) (Key, Value) { return a.key(i), a.vals[i] }

func (a *Array) key(i int) Key {
	if a.keys == nil {
		return intKey(int64(i))
	}
	return a.keys[i]
}

// isList reports whether the keys are 0, 1, 2, … in order.
func (a *Array) isList() bool {
	for i, k := range a.keys {
		if !k.IsInt || k.Int != int64(i) {
			return false
		}
	}
	return true
}

func (a *Array) find(k Key) int {
	if a.keys == nil {
		if k.IsInt && k.Int >= 0 && k.Int < int64(len(a.vals)) {
			return int(k.Int)
		}
		return -1
	}
	if a.index != nil {
		if i, ok := a.index[k]; ok {
			return int(i)
		}
		return -1
	}
	if k.IsInt {
		for i := range a.keys {
			if a.keys[i].IsInt && a.keys[i].Int == k.Int {
				return i
			}
		}
		return -1
	}
	for i := range a.keys {
		if !a.keys[i].IsInt && a.keys[i].Text == k.Text {
			return i
		}
	}
	return -1
}

// Get returns the element with a key.
func (a *Array) Get(k Key) (Value, bool) {
	if i := a.find(k); i >= 0 {
		return a.vals[i], true
	}
	return nil, false
}

// set stores an element, replacing one with the same key in its place.
func (a *Array) set(k Key, v Value) {
	if i := a.find(k); i >= 0 {
		a.vals[i] = v
		return
	}
	if a.keys == nil {
		if k.IsInt && k.Int == int64(len(a.vals)) && a.next == k.Int {
			a.vals = append(a.vals, v)
			a.next++
			return
		}
		a.keys = make([]Key, len(a.vals), max(cap(a.vals), len(a.vals)+1))
		for i := range a.keys {
			a.keys[i] = intKey(int64(i))
		}
	}
	a.vals = append(a.vals, v)
	a.keys = append(a.keys, k)
	if k.IsInt && k.Int >= a.next {
		a.next = k.Int
		if a.next < 1<<63-1 {
			a.next++
		}
	}
	switch {
	case a.index != nil:
		a.index[k] = int32(len(a.vals) - 1) //nolint:gosec // bounded by Limits.ValueBytes
	case len(a.vals) >= indexFrom:
		a.index = make(map[Key]int32, 2*len(a.vals))
		for i, key := range a.keys {
			a.index[key] = int32(i)
		}
	}
}

// add stores an element under the next free integer key.
func (a *Array) add(v Value) {
	if a.keys == nil {
		a.vals = append(a.vals, v)
		a.next++
		return
	}
	a.set(intKey(a.next), v)
}

// identity finds the element of a profile's list of identities that has a handle: an array of
// {handle, identifier} can be asked for by handle, with or without "_id". Active and primary ones win.
func (a *Array) identity(handle string) *Array {
	var found *Array
	rank := 0
	for _, v := range a.vals {
		e, ok := v.(*Array)
		if !ok {
			return nil
		}
		h, ok := e.Get(Key{Text: "handle"})
		if !ok {
			return nil
		}
		if _, ok = e.Get(Key{Text: "identifier"}); !ok {
			return nil
		}
		name, _ := h.(string)
		r := 0
		switch {
		case name == handle:
			r = 8
		case name+"_id" == handle || handle+"_id" == name:
			r = 4
		default:
			continue
		}
		if active, ok := e.Get(Key{Text: "is_active"}); !ok || truthy(active) {
			r += 2
		}
		if primary, ok := e.Get(Key{Text: "is_primary"}); ok && truthy(primary) {
			r++
		}
		if r > rank {
			found, rank = e, r
		}
	}
	return found
}

// toArray makes an array of a Go value that a host gave: maps in key order, slices, and the values themselves.
func (r *run) fromGo(v any, depth int) Value {
	if depth > 64 {
		r.fail(CodeLimitDepth, "value of a host function is nested too deep")
	}
	switch v := v.(type) {
	case nil, bool, int64, float64, string, Markup, *Array:
		return v
	case int:
		return int64(v)
	case int32:
		return int64(v)
	case float32:
		return float64(v)
	case []byte:
		return string(v)
	case []any:
		a := newArray(len(v))
		for _, e := range v {
			a.add(r.fromGo(e, depth+1))
		}
		return a
	case []string:
		a := newArray(len(v))
		for _, e := range v {
			a.add(e)
		}
		return a
	case map[string]any:
		a := newArray(len(v))
		a.object = true
		for _, k := range sortedKeys(v) {
			a.set(stringKey(k), r.fromGo(v[k], depth+1))
		}
		return a
	case map[string]string:
		a := newArray(len(v))
		a.object = true
		for _, k := range sortedKeys(v) {
			a.set(stringKey(k), v[k])
		}
		return a
	}
	r.fail(CodeType, "a host function or variable gave a %T, which templates cannot use", v)
	return nil
}

// toGo is the way back: what a host function gets as an argument.
func toGo(v Value) any {
	switch v := v.(type) {
	case *Array:
		if v.isList() && !v.object {
			list := make([]any, len(v.vals))
			for i, e := range v.vals {
				list[i] = toGo(e)
			}
			return list
		}
		m := make(map[string]any, len(v.vals))
		for i, e := range v.vals {
			m[v.key(i).String()] = toGo(e)
		}
		return m
	case Markup:
		return v.Text
	case *capture:
		return v.text
	case *date:
		return v.t
	}
	return v
}
