package queue

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// A dead target's backlog, behind one delivery that went out and one that waits for another target: what the watchman and the
// sweeper ask again and again does not cost more for each delivery that waits, but for one pass over an index.
func TestABacklogIsNotGoneThroughAgainAndAgain(t *testing.T) {
	t.Parallel()
	const waiting = 20_000
	all := []projections.Definition{targets.Definition, deliveries.Definition, Definition}
	db, err := schema.Connect(schematest.Open(t).URL, schema.Options{Role: "ledger_service", Paths: projections.Paths("", all...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := projections.NewEngine(db, "", nil, all...).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `
		INSERT INTO targets SELECT h, 1, 1, 'enabled', '', '{}', now(), 'test', 1 FROM unnest(ARRAY['dead', 'live']) AS h;
		INSERT INTO pauses VALUES ('dead', 'failures', now() + interval '1 minute', '', 1, now() - interval '2 hours', now(), 1);
		INSERT INTO queue (delivery_id, target, priority, attempt, base, due_at, planned, since)
		SELECT gen_random_uuid(), 'dead', n % 2, 1, 0, now() - interval '1 hour', 10 + n, 10 + n FROM generate_series(1, 20000) AS n
		UNION ALL SELECT gen_random_uuid(), 'live', 0, 1, 0, now(), 100000, 100000;
		INSERT INTO deliveries (position, delivery_id, firing_id, firing_position, reaction, cause, target, target_version, platform, outcome, planned_at, finished_at, attempts, changed)
		SELECT n, gen_random_uuid(), gen_random_uuid(), n, 'r', 'reaction', CASE n WHEN 1 THEN 'live' ELSE 'dead' END, 1, 'webhook', CASE n WHEN 1 THEN 'succeeded' ELSE 'pending' END,
		       now() - interval '1 hour', CASE n WHEN 1 THEN now() - interval '10 minutes' END, 0, n FROM generate_series(1, 20000) AS n;
		INSERT INTO tallies VALUES (false, '2026-01-01', 'r', 'live', 1, 'webhook', 1, 1, 0, 0, 1, 0, 0, 0, 0, 0), (false, '2026-01-01', 'r', 'dead', 1, 'webhook', 2, 20000, 19999, 0, 0, 0, 0, 0, 0, 0);
		ANALYZE queue; ANALYZE deliveries`); err != nil {
		t.Fatal(err)
	}
	for what, ask := range map[string]struct {
		query string
		most  map[string]float64 // rows of each table that are looked at
	}{
		"the state of the queue":   {strings.ReplaceAll(stateQuery, "$1", "'planner'"), map[string]float64{"queue": waiting + 1, "deliveries": 100}},
		"what is held too long":    {strings.NewReplacer("$1", "'dead'", "$2", "600", "$3", "10").Replace(heldQuery), map[string]float64{"queue": 100, "deliveries": 0}},
		"what is not held so long": {strings.NewReplacer("$1", "'dead'", "$2", "10000", "$3", "10").Replace(heldQuery), map[string]float64{"queue": 0, "deliveries": 0}},
	} {
		var plan []byte
		if err := db.QueryRowContext(t.Context(), "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "+ask.query).Scan(&plan); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		read := rowsRead(t, plan)
		for table, most := range ask.most {
			if read[table] > most {
				t.Errorf("%s: %.0f rows of %s are read; %.0f should do\n%s", what, read[table], table, most, plan)
			}
		}
	}
	s, err := StateOf(t.Context(), db, "planner")
	if err != nil || s.Queued != waiting+1 || s.Due != waiting+1 || s.Held != waiting || s.Silent.Round(time.Minute) != 10*time.Minute || s.Paused["failures"] != 1 {
		t.Errorf("state = %+v (%v), want %d queued and due, all but one held, and silence since the last that went out", s, err, waiting+1)
	}
}

// rowsRead gives how many rows of each table a statement went through, by its plan as it was executed.
func rowsRead(t *testing.T, plan []byte) map[string]float64 {
	t.Helper()
	type node struct {
		Relation string  `json:"Relation Name"`
		Rows     float64 `json:"Actual Rows"`
		Removed  float64 `json:"Rows Removed by Filter"`
		Loops    float64 `json:"Actual Loops"`
		Plans    []node
	}
	var plans []struct{ Plan node }
	if err := json.Unmarshal(plan, &plans); err != nil {
		t.Fatal(err)
	}
	read := map[string]float64{}
	var walk func(node)
	walk = func(n node) {
		read[n.Relation] += (n.Rows + n.Removed) * n.Loops
		for _, child := range n.Plans {
			walk(child)
		}
	}
	walk(plans[0].Plan)
	return read
}

// What the database knows of the queue is what it held some time ago, which was nothing. A burst has come since: whatever reads the queue still
// finds its rows by their keys.
func TestNothingIsPlannedByWhatTheQueueHeld(t *testing.T) {
	t.Parallel()
	all := []projections.Definition{targets.Definition, Definition}
	db, err := schema.Connect(schematest.Open(t).URL, schema.Options{Role: "ledger_service", Paths: projections.Paths("", all...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := projections.NewEngine(db, "", nil, all...).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	const burst = `INSERT INTO queue (delivery_id, target, priority, attempt, base, due_at, planned, since) SELECT gen_random_uuid(), 'dead', 0, 1, 0, now(), n, n FROM generate_series(1, 5000) AS n`
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	for _, s := range []string{burst, "DELETE FROM queue", "ANALYZE queue", burst, "SET LOCAL ledger.slice_from = '0'; SET LOCAL ledger.slice_to = '20000'"} {
		if _, err := tx.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	queries := map[string]string{
		"leases that nobody needs": strings.ReplaceAll(sweepQuery, "$1", "'projection.queue'"),
		"claims that ran out":      strings.ReplaceAll(expiredQuery, "$1", "1000"),
	}
	for _, s := range Definition.Apply {
		queries[s.Name] = s.SQL
	}
	type node struct {
		Type     string `json:"Node Type"`
		Relation string `json:"Relation Name"`
		Index    string `json:"Index Cond"`
		Row      string `json:"TID Cond"`
		Plans    []node
	}
	for what, query := range queries {
		var text []byte
		if err := tx.QueryRowContext(t.Context(), "EXPLAIN (FORMAT JSON) "+query).Scan(&text); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		var plans []struct{ Plan node }
		if err := json.Unmarshal(text, &plans); err != nil {
			t.Fatal(err)
		}
		var walk func(node)
		walk = func(n node) {
			if n.Relation == "queue" && strings.HasSuffix(n.Type, "Scan") && n.Index == "" && n.Row == "" {
				t.Errorf("%s: goes through the queue\n%s", what, text)
			}
			for _, child := range n.Plans {
				walk(child)
			}
		}
		walk(plans[0].Plan)
	}
}
