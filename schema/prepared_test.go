package schema_test

import (
	"testing"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// TestPreparedOutlivesWhatItWasPlannedOn: a table that is swapped for one of another shape costs one error and no more.
func TestPreparedOutlivesWhatItWasPlannedOn(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t).DB
	exec := func(query string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	exec(`CREATE TABLE shape (n int)`)
	exec(`INSERT INTO shape VALUES (1)`)
	p := schema.NewPrepared(db)
	count := func(q schema.Querier) (n int, err error) {
		rows, err := q.QueryContext(t.Context(), `SELECT * FROM shape WHERE n >= $1`, 0)
		if err != nil {
			return 0, err
		}
		defer rows.Close()
		for rows.Next() {
			n++
		}
		return n, rows.Err()
	}
	for range 3 {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		inside, err := count(p.In(tx))
		if err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		outside, err := count(p)
		if err != nil || inside != 1 || outside != 1 {
			t.Fatalf("%d rows inside a transaction and %d outside (%v), want 1 and 1", inside, outside, err)
		}
	}
	exec(`DROP TABLE shape; CREATE TABLE shape (n int, more text); INSERT INTO shape VALUES (1, 'a'), (2, 'b')`)
	failed := 0
	for range 5 {
		n, err := count(p)
		if err != nil {
			failed++
			continue
		}
		if n != 2 {
			t.Errorf("%d rows of the new table, want 2", n)
		}
	}
	if failed > 1 {
		t.Errorf("%d of 5 queries failed after the table was swapped", failed)
	}
}
