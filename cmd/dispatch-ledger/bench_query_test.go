package main

import (
	"io"
	"testing"

	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// What bench query measures is a ledger like any other: each event hashes to its leaf, and what was copied into the audit trail is
// what the projection makes of the events. Every question finds something that it is about.
func TestTheLedgerOfBenchQueryVerifies(t *testing.T) {
	t.Parallel()
	url := schematest.Open(t).URL
	db, err := schema.Connect(url, schema.Options{Role: "ledger_service", Paths: projections.Paths("", builtIn...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	ledger := schema.OpenLedger(db, nil, nil)
	t.Cleanup(ledger.Close)
	st := &store{url: url, db: db, ledger: ledger, engine: projections.NewEngine(db, "", nil, builtIn...), settings: &settings{name: schema.DefaultName, env: environ{stdout: io.Discard, stderr: io.Discard}}}
	if _, err := st.engine.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	const n = 6000
	if err := st.fillForQueries(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	report, err := st.engine.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range report.Problems {
		t.Error(p)
	}
	if report.Head < 2*n*90/100 {
		t.Errorf("%d events; want nearly two for each of %d deliveries", report.Head, n)
	}
	questions, err := questionsOf(t.Context(), db, queryBench{deliveries: n, times: 10})
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range questions {
		if _, err := q.answer(t.Context()); err != nil {
			t.Errorf("%s: %v", q.what, err)
		}
	}
}
