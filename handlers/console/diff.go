package console

import (
	"strings"

	"github.com/aymanbagabas/go-udiff"
)

// diffLine is a line of what changed between two files.
type diffLine struct {
	Kind string // added, removed, same or gap
	Text string
}

// diff compares two files line by line, with some lines around each change.
func diff(before, after string) []diffLine {
	if before == after {
		return nil
	}
	unified, err := udiff.ToUnifiedDiff("", "", before, udiff.Strings(before, after), 3)
	if err != nil {
		return []diffLine{{Kind: "same", Text: err.Error()}} // the edits are the library's own
	}
	var out []diffLine
	for i, hunk := range unified.Hunks {
		if i > 0 {
			out = append(out, diffLine{Kind: "gap", Text: "…"})
		}
		for _, l := range hunk.Lines {
			kind := map[udiff.OpKind]string{udiff.Delete: "removed", udiff.Insert: "added", udiff.Equal: "same"}[l.Kind]
			out = append(out, diffLine{Kind: kind, Text: strings.TrimSuffix(l.Content, "\n")})
		}
	}
	return out
}
