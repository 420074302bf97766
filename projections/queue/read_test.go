package queue

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// What waits for a later time costs the others nothing: neither question reads it.
func TestWhatIsDueLaterIsNotRead(t *testing.T) {
	t.Parallel()
	database := schematest.Open(t)
	all := []projections.Definition{targets.Definition, Definition}
	db, err := schema.Connect(database.URL, schema.Options{Role: "ledger_service", Paths: projections.Paths("", all...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := projections.NewEngine(db, "", nil, all...).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `
		INSERT INTO targets SELECT h, 1, 1, 'enabled', '', '{}', now(), 'test', 1 FROM unnest(ARRAY['dead', 'live']) AS h;
		INSERT INTO queue (delivery_id, target, priority, attempt, base, due_at, planned, since)
		SELECT gen_random_uuid(), 'dead', 0, 2, 0, now() + interval '1 hour' + n * interval '1 ms', n, n FROM generate_series(1, 20000) AS n
		UNION ALL SELECT gen_random_uuid(), 'live', 0, 1, 0, now(), 20000 + n, 20000 + n FROM generate_series(1, 10) AS n`); err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), byIndex); err != nil {
		t.Fatal(err)
	}
	for what, query := range map[string]string{
		"what is due": workQuery,
		"a claim":     strings.NewReplacer("$1", "ARRAY['dead', 'live']", "$2", "ARRAY[5, 5]", "$3", "ARRAY[1, 1]", "$4", "ARRAY[0, 0]", "$5", "ARRAY[0, 0]", "$6", "ARRAY[false, false]", "$7", "'test'").Replace(dueQuery),
	} {
		var plan string
		if err := conn.QueryRowContext(t.Context(), "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "+query).Scan(&plan); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if regexp.MustCompile(`"(Rows Removed by Filter|Actual Rows)": \d{3}`).MatchString(plan) {
			t.Errorf("%s reads all that is due later:\n%s", what, plan)
		}
	}

	claimer := NewClaimer(db)
	defer claimer.Close()
	work, err := claimer.Work(t.Context())
	if err != nil || len(work) != 1 || work[0].Target != "live" {
		t.Errorf("due are %+v (%v), want the live target alone", work, err)
	}
	if _, err := db.ExecContext(t.Context(), `UPDATE queue SET due_at = now() WHERE planned = 20000`); err != nil {
		t.Fatal(err)
	}
	if work, err := claimer.Work(t.Context()); err != nil || len(work) != 2 || work[0].Target != "dead" {
		t.Errorf("due are %+v (%v), want both targets, by name", work, err)
	}
	if _, err := claimer.Due(t.Context(), "test", []Wanted{{Target: "dead", Free: 5, Lease: time.Second}}); err != nil {
		t.Error(err) // there are no events behind these rows; that the statement runs is what is asked
	}
}
