package domain

import (
	"reflect"
	"testing"
)

func TestDiffTargets(t *testing.T) {
	t.Parallel()
	before := exampleTarget()
	before.Body = "{\n  \"a\": 1,\n  \"b\": 2\n}\n"
	after := before
	after.Body = "{\n  \"a\": 1,\n  \"b\": 3\n}\n"
	after.Headers = map[string]string{"Authorization": before.Headers["Authorization"], "X/New": "1"}
	after.Limits.Concurrency = 4
	after.Signing = []string{"one"}
	after.Condition = []byte(`{"==":[1,1]}`)
	got, err := DiffTargets(before, after)
	if err != nil {
		t.Fatal(err)
	}
	want := []Change{
		{Pointer: "/body", Before: []byte(`"{\n  \"a\": 1,\n  \"b\": 2\n}\n"`), After: []byte(`"{\n  \"a\": 1,\n  \"b\": 3\n}\n"`), Diff: "--- before\n+++ after\n@@ -1,4 +1,4 @@\n {\n   \"a\": 1,\n-  \"b\": 2\n+  \"b\": 3\n }\n"},
		{Pointer: "/condition", Before: []byte("null"), After: []byte(`{"==":[1,1]}`)},
		{Pointer: "/headers/X~1New", Before: []byte("null"), After: []byte(`"1"`)},
		{Pointer: "/headers/revision", Before: []byte(`"2026-07-15"`), After: []byte("null")},
		{Pointer: "/limits/concurrency", Before: []byte("16"), After: []byte("4")},
		{Pointer: "/signing", Before: []byte("null"), After: []byte(`["one"]`)},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("changes = %s, want %s", text(t, got), text(t, want))
	}
	if same, err := DiffTargets(before, before); err != nil || len(same) != 0 {
		t.Errorf("changes of the same = %v, %v; want none", same, err)
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Who writes a target cannot write how it was approved, or what it restores.
func TestADraftSaysNothingOfItsApproval(t *testing.T) {
	t.Parallel()
	for _, field := range []string{`"approved": {"proposal": 1, "proposed_by": "somebody"}`, `"restores": 3`} {
		if _, err := ParseTarget([]byte(`{"handle":"h","url":"https://example.com/","body":"{}",`+field+`}`), "h"); err == nil {
			t.Errorf("%s is taken, want it refused", field)
		}
	}
}
