package domain

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
)

// Change is one difference between two versions of a target.
type Change struct {
	Pointer string          `json:"pointer" doc:"RFC 6901 JSON pointer into the target"`
	Before  json.RawMessage `json:"before" doc:"null when it was not there"`
	After   json.RawMessage `json:"after" doc:"null when it is no longer there"`
	Diff    string          `json:"diff,omitempty" doc:"of a text of several lines: the unified difference"`
}

// DiffTargets lists what differs between two versions of a target, by pointer. Objects are compared field by field, lists as
// a whole.
func DiffTargets(before, after Target) ([]Change, error) {
	a, err := document(before)
	if err != nil {
		return nil, err
	}
	b, err := document(after)
	if err != nil {
		return nil, err
	}
	changes := []Change{}
	return changes, compare(&changes, "", a, b)
}

// document is a target as decoded JSON.
func document(t Target) (map[string]any, error) {
	raw, err := marshal(t)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var out map[string]any
	return out, d.Decode(&out)
}

func compare(changes *[]Change, pointer string, before, after map[string]any) error {
	names := slices.AppendSeq(slices.Collect(maps.Keys(before)), maps.Keys(after))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		at := pointer + "/" + pointerToken(name)
		a, was := before[name]
		b, is := after[name]
		x, objectBefore := a.(map[string]any)
		y, objectAfter := b.(map[string]any)
		if objectBefore && objectAfter && at != "/condition" && at != "/sample" {
			if err := compare(changes, at, x, y); err != nil {
				return err
			}
			continue
		}
		from, err := marshal(a)
		if err != nil {
			return err
		}
		to, err := marshal(b)
		if err != nil {
			return err
		}
		if was == is && bytes.Equal(from, to) {
			continue
		}
		*changes = append(*changes, Change{Pointer: at, Before: from, After: to, Diff: unified(a, b)})
	}
	return nil
}

// unified compares texts of which one has several lines.
func unified(before, after any) string {
	a, _ := before.(string)
	b, _ := after.(string)
	if !strings.Contains(strings.TrimSpace(a), "\n") && !strings.Contains(strings.TrimSpace(b), "\n") {
		return ""
	}
	return udiff.Unified("before", "after", a, b)
}
