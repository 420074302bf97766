package schema

import (
	"testing"

	"github.com/lib/pq"
)

// FuzzArray holds: what array writes, lib/pq's own reader takes for the same strings.
func FuzzArray(f *testing.F) {
	f.Add("", `a"b\c`)
	f.Add("NULL", "{,}")
	f.Fuzz(func(t *testing.T, one, two string) {
		var a array
		a.quoted(one)
		a.quoted(two)
		var got pq.StringArray
		if err := got.Scan(a.String()); err != nil || len(got) != 2 || got[0] != one || got[1] != two {
			t.Errorf("%q, %q came back as %q (%v)", one, two, got, err)
		}
	})
}
