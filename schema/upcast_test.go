package schema_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// The view's function says in SQL what domain says in Go, for every type of a later version and payloads of each.
func TestUpcastInSQLAndInGo(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t)
	for _, d := range domain.Declarations() {
		if d.Version == 1 {
			continue
		}
		t.Run(d.Type, func(t *testing.T) {
			names := []string{"time", "stamped_at", "size", "more"}
			for _, f := range d.Fields() {
				names = append(names, f.Name)
			}
			rapid.Check(t, func(rt *rapid.T) {
				payload := map[string]any{}
				for _, name := range rapid.SliceOfDistinct(rapid.SampledFrom(names), rapid.ID).Draw(rt, "fields") {
					payload[name] = rapid.SampledFrom([]any{nil, 1.5, "text", []any{"a"}, map[string]any{"v": 7.0}}).Draw(rt, "value")
				}
				if version := rapid.IntRange(1, d.Version).Draw(rt, "version"); version > 1 {
					payload["v"] = version
				}
				data, err := json.Marshal(payload)
				if err != nil {
					rt.Fatal(err)
				}
				inGo, err := domain.Upcast(d.Type, data)
				if err != nil {
					rt.Fatal(err)
				}
				var inSQL []byte
				if err := db.QueryRowContext(t.Context(), `SELECT upcast($1, $2::json)`, d.Type, string(data)).Scan(&inSQL); err != nil {
					rt.Fatal(err)
				}
				var one, other any
				if json.Unmarshal(inGo, &one) != nil || json.Unmarshal(inSQL, &other) != nil || !reflect.DeepEqual(one, other) {
					rt.Fatalf("%s is %s in Go and %s in SQL", data, inGo, inSQL)
				}
			})
		})
	}
	var same string
	if err := db.QueryRowContext(t.Context(), `SELECT upcast('consent.changed', '{"b": 1,  "a": 2}')`).Scan(&same); err != nil || same != `{"b": 1,  "a": 2}` {
		t.Errorf("a type of the first version comes out as %s, %v", same, err)
	}
}
