package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// rebuildWorld is a ledger of some thousand decisions and some hundred deliveries, with its projections at the head.
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
	var sent []domain.Event
	for i := range 300 {
		f := domain.Firing{FiringID: uuid.New(), Reaction: "r", Cause: "reaction", Target: "t", TargetVersion: 1, Platform: "webhook", ProfileID: uuid.New()}
		id := domain.DeliveryID(f.FiringID, "t")
		for _, p := range []domain.Payload{
			domain.DeliveryPlanned{DeliveryID: id, Firing: f, BodySHA256: "00", MaxAttempts: 3},
			domain.DeliveryAttempted{DeliveryID: id, Target: "t", ProfileID: f.ProfileID, Attempt: 1, StartedAt: time.Unix(int64(i), 0).UTC(), Verdict: domain.Accepted, Outcome: domain.Succeeded, DurationMS: 3},
		} {
			e, _, err := domain.New(uuid.New(), p)
			if err != nil {
				t.Fatal(err)
			}
			e.Actor, e.Source = "test", "/test"
			sent = append(sent, e)
		}
	}
	if _, err := ledger.Append(t.Context(), sent...); err != nil {
		t.Fatal(err)
	}
	w.rebuild(t.Context(), "consent").wait() // brings the cursor to the head
	return w
}

// rebuilding is the program at work.
type rebuilding struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  bytes.Buffer
	done chan struct{}
}

func (w *rebuildWorld) rebuild(ctx context.Context, what ...string) *rebuilding {
	w.t.Helper()
	r := &rebuilding{t: w.t, done: make(chan struct{})}
	r.cmd = exec.CommandContext(ctx, os.Args[0], append(what, "--slice", "100", "--database-url", w.url, "--data-dir", w.dataDir)...)
	r.cmd.Args = slices.Insert(r.cmd.Args, 1, "rebuild")
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
		r := w.rebuild(t.Context(), "consent")
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
		r := w.rebuild(t.Context(), "consent")
		w.awaits(moment.waits)
		r.kill()
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		w.judge("killed " + moment.when)
	}
	w.rebuild(t.Context(), "consent").wait()
	w.judge("in the end")
	var left int
	if err := w.db.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'ledger\_consent\_\_%'`).Scan(&left); err != nil || left > 0 {
		t.Errorf("%d schemas are left over, %v", left, err)
	}
}

// Killed while several go side by side, wherever each of them is, all of them go on where they were, and end whole.
func TestKillAmidSeveralSideBySide(t *testing.T) {
	t.Parallel()
	w := newRebuildWorld(t)
	names := make([]string, len(builtIn))
	for i, d := range builtIn {
		names[i] = d.SubscriptionName()
	}
	// what is seen of the rebuilds: those begun, those whose rows were folded, and where they are.
	type seen struct{ begun, finishing, least, most int64 }
	look := func() (s seen) {
		err := w.owner.QueryRowContext(t.Context(), `SELECT count(*), count(*) FILTER (WHERE indexed), coalesce(min(position), 0), coalesce(max(position), 0) FROM ledger.builds`).
			Scan(&s.begun, &s.finishing, &s.least, &s.most)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	all := int64(len(builtIn))
	kill := func(r *rebuilding, when string, reached func(seen) bool) seen {
		for !reached(look()) {
			select {
			case <-r.done:
				if !reached(look()) {
					t.Fatalf("%s: it ended first: %s", when, &r.out)
				}
			case <-time.After(time.Millisecond):
			}
		}
		r.kill()
		w.judge("killed " + when)
		return look()
	}
	args := []string{"--all", "--at-once", "2"}
	tx, err := w.db.BeginTx(t.Context(), nil) // holds each of them up before its swap
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(t.Context(), `SELECT FROM subscriptions FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	amid := kill(w.rebuild(t.Context(), args...), "amid the slices", func(s seen) bool { return s.begun == all && s.least >= 1000 })
	further := kill(w.rebuild(t.Context(), args...), "when it had gone on", func(s seen) bool { return s.least >= amid.most })
	if amid.begun != all || further.begun != all || further.least < amid.least {
		t.Errorf("killed at %+v it went on to %+v", amid, further)
	}
	// Those whose rows were folded and whose indexes were made wait for the swap.
	held := kill(w.rebuild(t.Context(), args...), "before any swap", func(s seen) bool { return s.finishing >= 2 })
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if held.begun != all || held.finishing >= all {
		t.Errorf("killed before any swap, %+v", held)
	}
	kill(w.rebuild(t.Context(), args...), "amid the swaps", func(s seen) bool { return s.begun < all })
	w.rebuild(t.Context(), args...).wait()
	w.judge("in the end")
	var left, behind int
	if err := w.owner.QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'ledger\_%\_\_%'),
		(SELECT count(*) FROM ledger.subscriptions WHERE name = ANY ($1) AND position < (SELECT max(position) FROM ledger.events))`, pq.Array(names)).Scan(&left, &behind); err != nil || left > 0 || behind > 0 {
		t.Errorf("%d schemas are left over, %d projections are behind, %v", left, behind, err)
	}
}
