package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// rebuildWorld is a ledger of some thousand decisions with its projections at the head.
type rebuildWorld struct {
	t       *testing.T
	db      *sql.DB
	owner   *sql.DB
	url     string
	dataDir string
	engine  *projections.Engine
}

func newRebuildWorld(t *testing.T) *rebuildWorld {
	t.Helper()
	owner := schematest.Open(t)
	w := &rebuildWorld{t: t, url: owner.URL, owner: owner.DB, dataDir: t.TempDir()}
	var err error
	w.db, err = schema.Connect(w.url, schema.Options{Role: "ledger_service", Paths: projections.Paths("", builtIn...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.db.Close() })
	ledger := schema.OpenLedger(w.db, nil, nil)
	defer ledger.Close()
	w.engine = projections.NewEngine(w.db, "", nil, builtIn...)
	if _, err := w.engine.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		var events []domain.Event
		for range 1000 {
			e, _, err := domain.New(uuid.New(), domain.ConsentChanged{
				ProfileID: uuid.New(), DecidedBy: "customer", DecidedAt: time.Unix(1, 0).UTC(), Changes: []domain.ConsentChange{{Channel: domain.SMS, Purpose: domain.Promo, Status: domain.OptedIn}},
			})
			if err != nil {
				t.Fatal(err)
			}
			e.Actor, e.Source, e.OccurredAt = "test", "/test", time.Unix(1, 0).UTC()
			events = append(events, e)
		}
		if _, err := ledger.Append(t.Context(), events...); err != nil {
			t.Fatal(err)
		}
	}
	w.rebuild(t.Context()).wait() // brings the cursor to the head
	return w
}

// rebuilding is the program at work.
type rebuilding struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  bytes.Buffer
	done chan struct{}
}

func (w *rebuildWorld) rebuild(ctx context.Context) *rebuilding {
	w.t.Helper()
	r := &rebuilding{t: w.t, done: make(chan struct{})}
	r.cmd = exec.CommandContext(ctx, os.Args[0], "rebuild", "consent", "--slice", "100", "--database-url", w.url, "--data-dir", w.dataDir)
	r.cmd.Env = append(os.Environ(), asProgram+"=1")
	r.cmd.Stderr, r.cmd.Stdout = &r.out, &r.out
	if err := r.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() { r.cmd.Wait(); close(r.done) }()
	return r
}

func (r *rebuilding) kill() {
	r.cmd.Process.Kill()
	<-r.done
}

func (r *rebuilding) wait() {
	r.t.Helper()
	<-r.done
	if code := r.cmd.ProcessState.ExitCode(); code != exitDone {
		r.t.Errorf("rebuild ended with %d: %s", code, &r.out)
	}
}

// judge holds the live tables to be one whole version: all rows are there, and they follow from the ledger.
func (w *rebuildWorld) judge(when string) {
	w.t.Helper()
	var rows int
	if err := w.db.QueryRowContext(w.t.Context(), `SELECT count(*) FROM ledger_consent.consent_state`).Scan(&rows); err != nil || rows != 4000 {
		w.t.Errorf("%s: %d rows, %v", when, rows, err)
	}
	report, err := w.engine.Verify(w.t.Context())
	if err != nil || !report.OK() {
		w.t.Errorf("%s: %v, %v", when, report.Problems, err)
	}
}

// awaits returns when a session waits for a lock that the test holds.
func (w *rebuildWorld) awaits(query string) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		var waiting bool
		err := w.owner.QueryRowContext(w.t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%' || $1 || '%' AND datname = current_database())`, query).Scan(&waiting)
		if err != nil || time.Now().After(deadline) {
			w.t.Fatalf("nothing waits in %q: %v", query, err)
		}
		if waiting {
			return
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestKillDuringRebuildAndSwap(t *testing.T) {
	t.Parallel()
	w := newRebuildWorld(t)
	for range *strikes {
		r := w.rebuild(t.Context())
		<-time.After(time.Duration(mathrand.IntN(700)) * time.Millisecond)
		r.kill()
		w.judge("killed somewhere")
	}
	for _, moment := range []struct{ when, lock, waits string }{
		{"before the swap", `SELECT FROM subscriptions WHERE name = 'projection.consent' FOR UPDATE`, "FOR UPDATE"},
		{"in the swap, both schemas renamed", `SELECT FROM fences WHERE name = 'projection.consent' FOR UPDATE`, "move_cursor"},
		{"after the swap, the old tables not dropped", `SELECT count(*) FROM ledger_consent.consent_state`, "DROP SCHEMA"},
	} {
		if _, err := w.db.ExecContext(t.Context(), `INSERT INTO fences SELECT name, position FROM subscriptions WHERE name = 'projection.consent' ON CONFLICT DO NOTHING`); err != nil {
			t.Fatal(err)
		}
		tx, err := w.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(t.Context(), moment.lock); err != nil {
			t.Fatal(fmt.Errorf("%s: %w", moment.when, err))
		}
		r := w.rebuild(t.Context())
		w.awaits(moment.waits)
		r.kill()
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		w.judge("killed " + moment.when)
	}
	w.rebuild(t.Context()).wait()
	w.judge("in the end")
	var left int
	if err := w.db.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'ledger\_consent\_\_%'`).Scan(&left); err != nil || left > 0 {
		t.Errorf("%d schemas are left over, %v", left, err)
	}
}
