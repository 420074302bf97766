package projections_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// counts is a projection that counts target events, and fails at handles that are no numbers once it is asked to.
const (
	countTables = "CREATE TABLE counts (handle text PRIMARY KEY, n bigint NOT NULL);\n"
	countApply  = `-- name: counting
-- on: target.disabled
INSERT INTO counts AS c (handle, n)
SELECT target, count(*) FROM slice WHERE type = 'target.disabled' GROUP BY target
ON CONFLICT (handle) DO UPDATE SET n = c.n + excluded.n;
`
)

func define(t testing.TB, name, tables, apply string) projections.Definition {
	t.Helper()
	d, err := projections.Load(name, 1, fstest.MapFS{"tables.sql": {Data: []byte(tables)}, "apply.sql": {Data: []byte(apply)}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// disable appends an event about each handle, one a call, so that each has a time of its own.
func (w world) disable(t testing.TB, handles ...string) {
	t.Helper()
	for _, h := range handles {
		if err := w.append(t.Context(), domain.TargetDisabled{Handle: h}); err != nil {
			t.Fatal(err)
		}
	}
}

// counted reads the table of a build.
func (w world) counted(t testing.TB, where string) map[string]int64 {
	t.Helper()
	rows, err := w.ledger.DB().QueryContext(t.Context(), "SELECT handle, n FROM "+where+".counts")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	got := map[string]int64{}
	for rows.Next() {
		var handle string
		var n int64
		if err := rows.Scan(&handle, &n); err != nil {
			t.Fatal(err)
		}
		got[handle] = n
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return got
}

func wantCounts(t testing.TB, got map[string]int64, want string) {
	t.Helper()
	if text := fmt.Sprint(got); text != want {
		t.Errorf("counts = %s, want %s", text, want)
	}
}

func TestBuildAsOf(t *testing.T) {
	t.Parallel()
	d := define(t, "counts", countTables, countApply)
	w := newWorld(t, d)
	w.disable(t, "a", "b", "a")
	third, err := schema.EventAt(t.Context(), w.ledger.DB(), 3)
	if err != nil {
		t.Fatal(err)
	}
	w.disable(t, "a", "a")

	for at, want := range map[time.Time]int64{third.RecordedAt: 3, third.RecordedAt.Add(-time.Microsecond): 2, third.RecordedAt.Add(time.Hour): 5, third.RecordedAt.Add(-time.Hour): 0} {
		if got, err := schema.PositionAt(t.Context(), w.ledger.DB(), at); got != want || err != nil {
			t.Errorf("PositionAt(%s) = %d, %v, want %d", at, got, err, want)
		}
	}

	built, err := w.engine.Build(t.Context(), d, projections.BuildOptions{UpTo: 3, By: "test"})
	if err != nil || built.Schema != "ledger_counts_at_3" || built.Position != 3 {
		t.Fatalf("Build = %+v, %v", built, err)
	}
	wantCounts(t, w.counted(t, built.Schema), "map[a:2 b:1]")

	var slices int
	count := func(projections.Progress) { slices++ }
	if built, err = w.engine.Build(t.Context(), d, projections.BuildOptions{Into: built.Schema, Slice: 1, Progress: count}); err != nil || slices != 2 || built.Position != 5 {
		t.Errorf("bringing it up to date: %+v, %v, in %d slices, want the two that it lacked", built, err, slices)
	}
	wantCounts(t, w.counted(t, built.Schema), "map[a:4 b:1]")
	if built, err = w.engine.Build(t.Context(), d, projections.BuildOptions{Into: built.Schema, UpTo: 2}); err != nil || built.Position != 2 {
		t.Errorf("taking it back: %+v, %v", built, err)
	}
	wantCounts(t, w.counted(t, built.Schema), "map[a:1 b:1]")

	if err := w.engine.Drop(t.Context(), built.Schema); err != nil {
		t.Error(err)
	}
	for _, into := range []string{built.Schema, "ledger", "ledger_counts", "public"} {
		if err := w.engine.Drop(t.Context(), into); !errors.Is(err, schema.ErrNotFound) {
			t.Errorf("Drop(%s) = %v, want ErrNotFound", into, err)
		}
	}
	for name, o := range map[string]projections.BuildOptions{
		"the ledger's schema": {Into: "ledger"}, "a live one": {Into: "ledger_counts"}, "one that is somebody's": {Into: "public"},
		"a bad name": {Into: `x"; DROP`}, "beyond the head": {UpTo: 99}, "nowhere": {},
	} {
		if built, err := w.engine.Build(t.Context(), d, o); err == nil {
			t.Errorf("%s: Build = %+v, want an error", name, built)
		}
	}
}

// A statement costs a reading of the whole slice, so one that is about nothing in it is left out.
func TestStatementsAboutNothingAreLeftOut(t *testing.T) {
	t.Parallel()
	d := define(t, "counts", countTables, countApply+"\n-- name: about something else\n-- on: target.enabled\nSELECT 1/0;\n")
	w := newWorld(t, d)
	w.disable(t, "a", "b")
	built, err := w.engine.Build(t.Context(), d, projections.BuildOptions{Into: "narrow", By: "test"})
	if err != nil {
		t.Fatal(err)
	}
	wantCounts(t, w.counted(t, built.Schema), "map[a:1 b:1]")
	if err := w.append(t.Context(), domain.TargetEnabled{Handle: "a"}); err != nil {
		t.Fatal(err)
	}
	var at *projections.EventError
	if _, err := w.engine.Build(t.Context(), d, projections.BuildOptions{Into: "narrow", By: "test"}); !errors.As(err, &at) || at.Position != 3 {
		t.Errorf("what is about it: %v, want the failure at event 3", err)
	}
}

// Whoever died at a build is told from who is at it.
func TestAnInterruptedBuildIsSeen(t *testing.T) {
	t.Parallel()
	d := define(t, "counts", countTables, countApply)
	w := newWorld(t, d)
	w.disable(t, "a", "b")
	state := func() string {
		all, err := projections.Statuses(t.Context(), w.ledger.DB())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			if s.Kind == "build" {
				return s.State
			}
		}
		return "none"
	}
	var during string
	look := func(projections.Progress) { during = state() }
	if _, err := w.engine.Build(t.Context(), d, projections.BuildOptions{Into: "aside", By: "test", Progress: look}); err != nil {
		t.Fatal(err)
	}
	if after := state(); during != "running" || after != "built" {
		t.Errorf("state %q while it is built and %q after, want running and built", during, after)
	}
	if _, err := w.ledger.DB().ExecContext(t.Context(), `UPDATE builds SET state = 'running', position = 1`); err != nil { // as a process that was killed leaves it
		t.Fatal(err)
	}
	if got := state(); got != "interrupted" {
		t.Errorf("state %q with nobody at it, want interrupted", got)
	}
}

func TestAnAnalystsOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, consent.Definition)
	w.disable(t, "a", "b", "a")
	d := define(t, "mine", countTables, countApply)
	o := projections.BuildOptions{Into: "mine", Own: true}
	built, err := w.engine.Build(t.Context(), d, o)
	if err != nil || built.Position != 3 {
		t.Fatalf("Build = %+v, %v", built, err)
	}
	t.Cleanup(func() {
		list, err := projections.Statuses(w.ctx(), w.ledger.DB())
		if err != nil {
			t.Error(err)
		}
		for _, s := range list {
			if s.Kind == "build" {
				if err := w.engine.Drop(w.ctx(), s.Name); err != nil {
					t.Error(err)
				}
			}
		}
	})
	wantCounts(t, w.counted(t, "mine"), "map[a:2 b:1]")
	w.disable(t, "c")
	if built, err = w.engine.Build(t.Context(), d, o); err != nil || built.Position != 4 {
		t.Errorf("brought up to date: %+v, %v", built, err)
	}
	wantCounts(t, w.counted(t, "mine"), "map[a:2 b:1 c:1]")

	// What it tries, and what is said of it. Nothing of it takes effect.
	for name, tc := range map[string]struct{ tables, apply, want string }{
		"a mistake in tables.sql":   {"CREATE TABLE x (\n  n int,\n  m nonsense)", "SELECT 1", `tables.sql line 3: type "nonsense" does not exist`},
		"a syntax error":            {countTables, "-- about it\n\nSELEC 1\nFROM slice", `event 1: projection hostile, apply.sql line 3, statement "apply": syntax error`},
		"a column that is not":      {countTables, "-- name: first\nSELECT 1;\n-- name: second\nSELECT 1,\n  nothing FROM slice", `event 1: projection hostile, apply.sql line 5, statement "second": column "nothing" does not exist`},
		"a value that does not fit": {countTables, "-- name: cast\nINSERT INTO counts SELECT 'x', target::int FROM slice WHERE target = 'b'", `event 2: projection hostile, apply.sql, statement "cast": invalid input syntax for type integer`},
		"deleting events":           {countTables, "DELETE FROM events", "permission denied for table events"},
		"appending":                 {countTables, "SELECT ensure_partitions(1)", "permission denied for function ensure_partitions"},
		"writing a live projection": {countTables, "DELETE FROM ledger_consent.consent_state", "permission denied for table consent_state"},
		"another analyst's":         {countTables, "DELETE FROM mine.counts", "permission denied for table counts"},
		"dropping another's":        {countTables, "DROP SCHEMA mine CASCADE", "must be owner of schema mine"},
		"moving a cursor":           {countTables, "UPDATE subscriptions SET position = 0", "permission denied for table subscriptions"},
		"reading secrets":           {countTables, "SELECT * FROM subject_keys", "permission denied for table subject_keys"},
		"taking the role off":       {countTables, "RESET ROLE; DELETE FROM builds", `cannot set parameter "role" within security-definer function`},
		"taking the role off by hand": {
			countTables, "SET ROLE ledger_service", `cannot set parameter "role" within security-definer function`,
		},
		"committing":           {countTables, "COMMIT", "EXECUTE of transaction commands is not implemented"},
		"a file of the server": {countTables, "COPY counts FROM '/etc/passwd'", "pg_read_server_files"},
		"the function that bounds it": {
			countTables, "-- name: loosen\nALTER FUNCTION ledger_run(text) SECURITY INVOKER;\n-- name: go\nSELECT ledger_run('DELETE FROM builds')", "was changed by what ran in it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			into := "own_" + strings.ReplaceAll(strings.ReplaceAll(name, " ", "_"), "'", "")
			into = strings.NewReplacer(".", "").Replace(into)
			_, err := w.engine.Build(t.Context(), define(t, "hostile", tc.tables, tc.apply), projections.BuildOptions{Into: into, Own: true, Slice: 1})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Build = %v\nwant %q", err, tc.want)
			}
		})
	}
	if n := w.counted(t, "mine"); len(n) != 3 {
		t.Errorf("afterwards another's table holds %v", n)
	}
	if report, err := w.engine.Verify(t.Context()); err != nil || !report.OK() {
		t.Errorf("afterwards the ledger: %v, %v", report.Problems, err)
	}
}

// fussy fails at handles that are no numbers.
const fussyApply = `-- name: adding up
-- on: target.disabled
INSERT INTO counts AS c (handle, n)
SELECT 'sum', sum(target::bigint) FROM slice WHERE type = 'target.disabled' HAVING count(*) > 0
ON CONFLICT (handle) DO UPDATE SET n = c.n + excluded.n;
`

func TestSkippingIsAnOperatorsActAndAnEvent(t *testing.T) {
	t.Parallel()
	d := define(t, "fussy", countTables, fussyApply)
	w := newWorld(t, d)
	w.disable(t, "1", "2", "three", "4", "five", "6")
	live := w.engine.Live(100)[0]
	err := w.park(t, live)
	var statement *projections.StatementError
	if !errors.As(err, &statement) || statement.Statement != "adding up" || !strings.Contains(err.Error(), "event 3") {
		t.Errorf("parked by %v, want event 3 and the statement", err)
	}
	status := func() projections.Status {
		list, err := projections.Statuses(t.Context(), w.ledger.DB())
		if err != nil || len(list) != 1 {
			t.Fatalf("Statuses = %v, %v", list, err)
		}
		return list[0]
	}
	if s := status(); s.State != "parked" || s.Position != 2 || s.ErrorPosition == nil || *s.ErrorPosition != 3 || s.Lag != 4 || s.LagSeconds <= 0 || !strings.Contains(*s.Error, "adding up") {
		t.Errorf("status = %+v", s)
	}
	wantCounts(t, w.counted(t, "ledger_fussy"), "map[sum:3]")
	var tries int
	if err := w.ledger.DB().QueryRowContext(t.Context(), `SELECT tries FROM failures WHERE reader = 'projection.fussy' AND position = 3`).Scan(&tries); err != nil || tries < 3 {
		t.Errorf("the failure is recorded with %d tries, %v", tries, err)
	}

	// A rebuild stops at the same event and leaves the live tables alone.
	err = w.engine.Rebuild(t.Context(), d, projections.RebuildOptions{})
	var at *projections.EventError
	if !errors.As(err, &at) || at.Position != 3 {
		t.Errorf("Rebuild = %v, want it to stop at event 3", err)
	}
	if s := status(); s.Rebuild == nil || s.Rebuild.State != "failed" || s.Rebuild.ErrorPosition == nil || *s.Rebuild.ErrorPosition != 3 {
		t.Errorf("status after the failed rebuild = %+v", s)
	}

	if _, err := w.ledger.Skip(t.Context(), d.SubscriptionName(), 5, "olga", "/test", "no number"); !errors.Is(err, schema.ErrNotParked) {
		t.Errorf("skipping an event that it is not parked at = %v", err)
	}
	if _, err := w.ledger.Skip(t.Context(), "projection.none", 5, "olga", "/test", "no number"); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("skipping for nobody = %v", err)
	}
	if err := w.ledger.Resume(t.Context(), d.SubscriptionName()); err != nil {
		t.Fatal(err)
	}
	if err := w.park(t, live); err == nil {
		t.Error("it went on after Resume, though nothing was mended")
	}
	for _, p := range []int64{3, 5} {
		appended, err := w.ledger.Skip(t.Context(), d.SubscriptionName(), p, "olga", "/test", "no number")
		if err != nil {
			t.Fatal(err)
		}
		e, err := schema.EventAt(t.Context(), w.ledger.DB(), appended.Position)
		if err != nil || e.Type != "reader.skipped" || e.Actor != "olga" {
			t.Errorf("recorded as %+v, %v", e, err)
		}
		err = w.park(t, live)
		if (err == nil) != (p == 5) {
			t.Errorf("after skipping event %d: %v", p, err)
		}
	}
	wantCounts(t, w.counted(t, "ledger_fussy"), "map[sum:13]")
	if report, err := w.engine.Verify(t.Context()); err != nil || !report.OK() {
		t.Errorf("Verify = %v, %v", report.Problems, err)
	}
	if err := w.engine.Rebuild(t.Context(), d, projections.RebuildOptions{Slice: 2}); err != nil {
		t.Error(err)
	}
	wantCounts(t, w.counted(t, "ledger_fussy"), "map[sum:13]")
}

// A newer program keeps the older one's tables by the older one's SQL until its own are swapped in, and an older one that
// still runs keeps the newer tables by the newer SQL.
func TestANewVersionIsBuiltInTheBackground(t *testing.T) {
	t.Parallel()
	one := define(t, "counts", countTables, countApply)
	two, err := projections.Load("counts", 2, fstest.MapFS{
		"tables.sql":  {Data: []byte("CREATE TABLE counts (handle text PRIMARY KEY, n bigint NOT NULL, last bigint NOT NULL);\n")},
		"indexes.sql": {Data: []byte("CREATE INDEX counts_last ON counts (last);\n")},
		"apply.sql":   {Data: []byte(strings.NewReplacer("(handle, n)", "(handle, n, last)", "count(*) FROM", "count(*) * 10, max(position) FROM", "+ excluded.n", "+ excluded.n, last = excluded.last").Replace(countApply))},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, one)
	older := w.engine.Live(100)[0]
	w.disable(t, "a", "b")
	if err := w.park(t, older); err != nil {
		t.Fatal(err)
	}

	engine := projections.NewEngine(w.ledger.DB(), "", nil, two)
	outdated, err := engine.Install(t.Context())
	if err != nil || len(outdated) != 1 {
		t.Fatalf("Install = %v, %v, want the one that is outdated", outdated, err)
	}
	newer := engine.Live(100)[0]
	w.disable(t, "a")
	if err := w.park(t, newer); err != nil {
		t.Errorf("the newer program on the older tables: %v", err)
	}
	wantCounts(t, w.counted(t, "ledger_counts"), "map[a:2 b:1]")

	if err := engine.AskRebuild(t.Context(), two, "test"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := w.untilDone(t)
	engine.Keep(ctx, 1)
	stop()
	wantCounts(t, w.counted(t, "ledger_counts"), "map[a:20 b:10]")
	w.disable(t, "b")
	if err := w.park(t, older); err != nil {
		t.Errorf("the older program on the newer tables: %v", err)
	}
	w.disable(t, "b")
	if err := w.park(t, newer); err != nil {
		t.Error(err)
	}
	wantCounts(t, w.counted(t, "ledger_counts"), "map[a:20 b:30]")
	var indexes int
	if err := w.ledger.DB().QueryRowContext(t.Context(), `SELECT count(*) FROM pg_indexes WHERE schemaname = 'ledger_counts' AND indexname = 'counts_last'`).Scan(&indexes); err != nil || indexes != 1 {
		t.Errorf("indexes.sql made %d indexes, %v", indexes, err)
	}
	if report, err := engine.Verify(t.Context()); err != nil || !report.OK() {
		t.Errorf("Verify = %v, %v", report.Problems, err)
	}
}
