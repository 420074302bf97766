package schema_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// TestArraysArriveAsTheyWere asks PostgreSQL what it read of the arrays that go to it in binary.
func TestArraysArriveAsTheyWere(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t).DB
	a, b := uuid.New(), uuid.New()
	at := time.Date(1969, 7, 20, 20, 17, 40, 123456000, time.UTC)
	for name, c := range map[string]struct {
		typ  string
		arg  []byte
		want []string // as text; "∅" is null
	}{
		"uuids, one of them null":   {"uuid[]", schema.ArrayOfUUIDs(a, uuid.Nil, b), []string{a.String(), "∅", b.String()}},
		"no uuids":                  {"uuid[]", schema.UUIDs(nil), nil},
		"uuids":                     {"uuid[]", schema.UUIDs([]uuid.UUID{a, uuid.Nil}), []string{a.String(), uuid.Nil.String()}},
		"texts that need quoting":   {"text[]", schema.ArrayOfTexts(`a"b\c{,}`, "NULL", "", "zürich"), []string{`a"b\c{,}`, "NULL", "∅", "zürich"}},
		"times before the epoch":    {"timestamptz[]", schema.ArrayOfTimes(at, time.Time{}), []string{"1969-07-20 20:17:40.123456+00", "∅"}},
		"bytes, and none":           {"bytea[]", schema.ArrayOfBytes([]byte{0, 255}, []byte{}, nil), []string{`\x00ff`, `\x`, "∅"}},
		"integers of eight bytes":   {"bigint[]", schema.ArrayOfBigints(-1, 1<<40), []string{"-1", "1099511627776"}},
		"integers of four bytes":    {"int[]", schema.ArrayOfInts(-7, 1<<30), []string{"-7", "1073741824"}},
		"an array that is all null": {"text[]", schema.ArrayOfTexts("", ""), []string{"∅", "∅"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got pq.StringArray
			err := db.QueryRowContext(t.Context(), `SELECT coalesce((SELECT array_agg(coalesce(x::text, '∅') ORDER BY ord) FROM unnest($1::`+c.typ+`) WITH ORDINALITY AS u (x, ord)), '{}')`, c.arg).Scan(&got)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(c.want) {
				t.Fatalf("got %q, want %q", got, c.want)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("element %d is %q, want %q", i, got[i], c.want[i])
				}
			}
		})
	}
}

// FuzzArray holds: an array reads as what was written, used again or not.
func FuzzArray(f *testing.F) {
	f.Add("", `a"b\c`)
	f.Add("NULL", "{,}")
	f.Fuzz(func(t *testing.T, one, two string) {
		first := bytes.Clone(schema.ArrayOfTexts(one, two))
		if again := schema.ArrayOfTextsAgain(one, two); !bytes.Equal(first, again) {
			t.Errorf("a buffer that is used again gives %x, a new one %x", again, first)
		}
		if want := 20 + 8 + len(one) + len(two); len(first) != want {
			t.Errorf("%q, %q take %d bytes, want %d", one, two, len(first), want)
		}
	})
}
