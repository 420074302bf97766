package twig

import (
	"strings"
)

// generated is a context made up for lint, and what is special about it.
type generated struct {
	root  *Array
	what  string
	plain bool // nothing is special: a usual event
}

// generatedMax bounds how many contexts lint renders.
const generatedMax = 160

// generateContexts makes contexts that have a template's paths: a usual one; ones where all texts are nasty; and,
// path by path, ones where a value is null, missing, false, another of the values that the template compares it
// with, or an empty list.
func generateContexts(paths []Path) []generated {
	list := []generated{{buildContext(paths, nil, "text"), "every variable has a usual value", true}}
	for _, nasty := range []struct{ what, text string }{
		{"texts have quotes", `say "hi" \ there`},
		{"texts have newlines", "first\nsecond\r\n\tthird"},
		{"texts have emoji and accents", "Zoë 🎉 \u2028 ünï"},
		{"texts are empty", ""},
		{"texts look like numbers", "007"},
	} {
		list = append(list, generated{buildContext(paths, nil, nasty.text), nasty.what, false})
	}
	for i := range paths {
		p := &paths[i]
		type variant struct {
			what  string
			value Value
		}
		variants := []variant{{"null", nil}, {"missing", absent}}
		switch {
		case p.used.list:
			variants = append(variants, variant{"an empty list", newArray(0)})
		case p.used.boolean:
			variants = append(variants, variant{"false", false}, variant{"true", true})
		case p.used.number:
			variants = append(variants, variant{"0", int64(0)}, variant{"negative", -1.5})
		}
		for _, v := range p.used.equals {
			variants = append(variants, variant{quoteValue(v), v})
		}
		for _, v := range variants {
			if len(list) >= generatedMax {
				return list
			}
			value := v.value
			list = append(list, generated{
				buildContext(paths, func(name string) (Value, bool) { return value, name == p.Name }, "text"),
				p.Name + " is " + v.what, false,
			})
		}
	}
	return list
}

func quoteValue(v Value) string {
	if s, ok := v.(string); ok {
		return quoteShort(s)
	}
	return string((&run{limits: &Limits{OutputBytes: 1 << 20, Steps: 1 << 20, ValueBytes: 1 << 20, MemoryBytes: 1 << 20}}).encodeJSON(nil, v, 0))
}

// buildContext puts a value at each path.
func buildContext(paths []Path, override func(name string) (Value, bool), text string) *Array {
	root := newArray(0)
	root.object = true
	for i := range paths {
		p := &paths[i]
		value := usualValue(p, text)
		if override != nil {
			if v, ok := override(p.Name); ok {
				value = v
			}
		}
		put(root, strings.Split(strings.ReplaceAll(p.Name, "[]", ".[]"), "."), value)
	}
	return root
}

// usualValue is a value that suits what a path is used as.
func usualValue(p *Path, text string) Value {
	name := strings.ToLower(p.Name[strings.LastIndexByte(p.Name, '.')+1:])
	switch {
	case p.used.list:
		return NewList(text, text)
	case p.used.mapping:
		a := newArray(1)
		a.object = true
		a.set(Key{Text: "key"}, text)
		return a
	case p.used.date || strings.HasSuffix(name, "_at") || strings.HasSuffix(name, "_date"):
		return "2026-01-15T10:30:00Z"
	case p.used.number || strings.Contains(name, "amount") || strings.Contains(name, "balance") || strings.Contains(name, "total") ||
		strings.Contains(name, "price") || strings.Contains(name, "points") || strings.Contains(name, "count") || strings.Contains(name, "quantity"):
		return 12.5
	case p.used.boolean || strings.HasPrefix(name, "is_") || strings.HasPrefix(name, "has_"):
		return true
	}
	return text
}

// put stores a value at a path, making the arrays on the way. Both elements of a list get it.
func put(a *Array, segments []string, value Value) {
	key := stringKey(segments[0])
	if segments[0] == "[]" {
		for i := range 2 {
			putAt(a, intKey(int64(i)), segments, value)
		}
		return
	}
	putAt(a, key, segments, value)
}

func putAt(a *Array, key Key, segments []string, value Value) {
	if len(segments) == 1 {
		if value == absent {
			return
		}
		if old, ok := a.Get(key); ok {
			if _, isArray := old.(*Array); isArray {
				if _, replaces := value.(string); replaces {
					return // something below it was put first
				}
			}
		}
		a.set(key, value)
		return
	}
	child, _ := a.Get(key)
	inner, ok := child.(*Array)
	if child == nil && hasKey(a, key) {
		return // overridden to null: nothing below it
	}
	if !ok {
		inner = newArray(0)
		if segments[1] != "[]" {
			inner.object = true
			inner.keys = []Key{}
		}
		a.set(key, inner)
	} else if segments[1] == "[]" && len(segments) > 2 {
		for i, v := range inner.vals { // a list of texts becomes a list of mappings
			if _, isArray := v.(*Array); !isArray {
				e := newArray(0)
				e.object = true
				e.keys = []Key{}
				inner.vals[i] = e
			}
		}
		if inner.Len() == 0 && inner.keys == nil {
			return // overridden to an empty list
		}
	}
	put(inner, segments[1:], value)
}

func hasKey(a *Array, k Key) bool { return a.find(k) >= 0 }
