package platforms

import (
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Node is a place in a JSON body under inspection. It remembers its JSON pointer, so that what is found wrong says
// where. A node that is absent is still a node: Get on it gives another absent one.
type Node struct {
	Pointer  string
	value    any // nil when absent or null
	problems *Problems
}

// Inspect parses a body for inspection; what is found wrong goes into problems. Numbers keep their text. The error
// is that of [CheckJSON].
func Inspect(platform string, body []byte, problems *Problems) (Node, error) {
	if err := CheckJSON(platform, body); err != nil {
		return Node{}, err
	}
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.UseNumber()
	n := Node{problems: problems}
	if err := dec.Decode(&n.value); err != nil {
		problems.Add("", "not valid JSON: %v", err)
		return n, problems.Err(platform)
	}
	return n, nil
}

// Reject notes a problem at this place.
func (n Node) Reject(format string, args ...any) { n.problems.Add(n.Pointer, format, args...) }

// RejectClass notes a problem of a class at this place.
func (n Node) RejectClass(class error, format string, args ...any) {
	n.problems.AddClass(class, n.Pointer, format, args...)
}

// Get is the member of an object, absent when there is none.
func (n Node) Get(name string) Node {
	child := Node{Pointer: n.Pointer + "/" + pointerToken(name), problems: n.problems}
	if object, ok := n.value.(map[string]any); ok {
		child.value = object[name]
	}
	return child
}

// At follows names from here.
func (n Node) At(names ...string) Node {
	for _, name := range names {
		n = n.Get(name)
	}
	return n
}

// Items are the elements of an array; nothing for anything else.
func (n Node) Items() []Node {
	array, _ := n.value.([]any)
	items := make([]Node, len(array))
	for i, v := range array {
		items[i] = Node{Pointer: n.Pointer + "/" + strconv.Itoa(i), value: v, problems: n.problems}
	}
	return items
}

// Members are the members of an object in name order; nothing for anything else.
func (n Node) Members() iter.Seq2[string, Node] {
	return func(yield func(string, Node) bool) {
		object, _ := n.value.(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(object)) {
			if !yield(name, n.Get(name)) {
				return
			}
		}
	}
}

// Walk visits this place and everything below it, parents first.
func (n Node) Walk(visit func(Node)) {
	visit(n)
	for _, item := range n.Items() {
		item.Walk(visit)
	}
	for _, member := range n.Members() {
		member.Walk(visit)
	}
}

// Present reports whether there is a value here that is not null.
func (n Node) Present() bool { return n.value != nil }

// IsObject reports whether an object stands here.
func (n Node) IsObject() bool { _, ok := n.value.(map[string]any); return ok }

// IsArray reports whether an array stands here.
func (n Node) IsArray() bool { _, ok := n.value.([]any); return ok }

// Text is the string here; ok is false for anything else.
func (n Node) Text() (text string, ok bool) { text, ok = n.value.(string); return text, ok }

// Number is the number here; ok is false for anything else.
func (n Node) Number() (number float64, ok bool) {
	text, isNumber := n.value.(json.Number)
	if !isNumber {
		return 0, false
	}
	number, err := text.Float64()
	return number, err == nil
}

// Bool is the boolean here; ok is false for anything else.
func (n Node) Bool() (value, ok bool) { value, ok = n.value.(bool); return value, ok }

// Len is the number of elements or members here.
func (n Node) Len() int {
	switch v := n.value.(type) {
	case []any:
		return len(v)
	case map[string]any:
		return len(v)
	}
	return 0
}

// Filled is the non-empty string here; anything else, or blank text, is noted as a problem.
func (n Node) Filled() (string, bool) {
	text, ok := n.Text()
	switch {
	case !n.Present():
		n.Reject("is required")
		return "", false
	case !ok:
		n.Reject("must be a string")
		return "", false
	case strings.TrimSpace(text) == "":
		n.Reject("must not be empty")
		return "", false
	}
	return text, true
}

// NeedObject notes a problem when no object stands here, and reports whether one does.
func (n Node) NeedObject() bool {
	switch {
	case n.IsObject():
		return true
	case !n.Present():
		n.Reject("is required")
	default:
		n.Reject("must be an object")
	}
	return false
}

// NeedArray notes a problem when no array of 1 to most elements stands here, and reports whether one does.
func (n Node) NeedArray(most int) bool {
	switch {
	case !n.Present():
		n.Reject("is required")
	case !n.IsArray():
		n.Reject("must be an array")
	case n.Len() == 0:
		n.Reject("must not be empty")
	case n.Len() > most:
		n.Reject("has %d elements; the platform takes %d at most", n.Len(), most)
	default:
		return true
	}
	return false
}

// pointerToken escapes a member name for use in a JSON pointer (RFC 6901).
func pointerToken(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
