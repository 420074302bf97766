package main

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func newBenchQuery(s *settings) *cobra.Command {
	var b queryBench
	cmd := &cobra.Command{
		Use: "query", Short: "The audit trail's look-ups and lists on a ledger of many deliveries, which is kept under --data-dir for the next run when that is given", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if b.deliveries < 1000 || b.times < 10 {
				return usagef("--deliveries is at least 1000 and --times at least 10")
			}
			if cmd.Flags().Changed("data-dir") { // an earlier run's ledger serves again
				return s.serving(cmd.Context(), func(ctx context.Context, st *store) error { return st.benchQuery(ctx, b) })
			}
			return s.benchmark(cmd, func(ctx context.Context, st *store) error { return st.benchQuery(ctx, b) })
		},
	}
	cmd.Flags().IntVar(&b.deliveries, "deliveries", 10_000_000, "how many; each is two events, a planned one and its attempt")
	cmd.Flags().IntVar(&b.times, "times", 300, "how often each question is asked")
	return cmd
}

type queryBench struct {
	deliveries, times int
}

// benchSource is what is made up of deliveries $1 to $2 of a ledger of $4: 200 targets of which the first have most deliveries
// and one had a hundred, long ago; a person for five deliveries; outcomes and reasons some of which are rare. $3 is the instant
// of the first; the others follow a millisecond apart. Each has two positions, of which a withheld one leaves the second empty.
const benchSource = `
FROM (SELECT i, $3::timestamptz + i * interval '1 millisecond' AS at, md5('d' || i)::uuid AS d, md5('f' || i)::uuid AS f, md5('p' || (i * 7919) % ($4::bigint / 5))::uuid AS p,
             CASE WHEN i < 5000 AND i % 50 = 0 THEN 'target-rare' ELSE 'target-' || floor(200 * power(((i * 104729) % 1000003) / 1000003.0::float8, 3)) END AS t,
             CASE WHEN i < 5000 AND i % 50 = 0 THEN 'reaction-rare' ELSE 'reaction-' || (i * 31) % 300 END AS r,
             (ARRAY['klaviyo', 'sfmc', 'braze', 'dotdigital', 'yotpo', 'webhook'])[1 + i % 7 % 6] AS platform, 1 + i * 5 / $4::bigint AS version,
             CASE WHEN i % 20 = 3 THEN 'withheld' WHEN i % 100 = 4 THEN 'rejected' WHEN i % 40 = 5 THEN 'failed' ELSE 'succeeded' END AS o,
             CASE WHEN i % 10000 = 45 THEN 'timeout' WHEN i % 40 = 5 THEN 'permanent' ELSE 'accepted' END AS v,
             CASE WHEN i % 20 = 3 THEN CASE WHEN i < 5000 THEN 'erased' ELSE 'consent' END WHEN i % 100 = 4 THEN 'unresolved' END AS reason,
             '{"decision":"' || CASE WHEN i % 5000 = 7 THEN 'flagged","reason":"opted_out' ELSE 'allowed","reason":"opted_in' END || '","channel":"email","purpose":"promo","status":"opted_in","as_of":' || 2 * i - 1 || '}' AS consent,
             encode(sha256(i::text::bytea), 'hex') AS body
      FROM generate_series($1::bigint, $2::bigint) i) x`

// benchFill fills the ledger and the audit trail, table by table. The events' data are what the planner and the dispatcher
// record, without sealed parts.
var benchFill = []string{
	`INSERT INTO events (position, id, type, stream, version, subject, state, target, delivery_id, recorded_at, actor, source, correlation_id, data, leaf)
SELECT 2 * i - 1 + k, md5(k || 'e' || i)::uuid,
       CASE WHEN k = 1 THEN 'delivery.attempted' WHEN reason IS NOT NULL THEN 'delivery.' || o ELSE 'delivery.planned' END,
       'delivery-' || d, k + 1, p, CASE WHEN k = 1 OR reason IS NOT NULL THEN o ELSE 'pending' END, t, d,
       at, CASE WHEN k = 1 THEN 'dispatcher' ELSE 'planner' END, '/bench', f,
       CASE WHEN k = 1 THEN '{"delivery_id":"' || d || '","target":"' || t || '","profile_id":"' || p || '","attempt":1,"started_at":"' || to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                || '","duration_ms":' || 3 + i % 400 || ',"status":' || CASE WHEN o = 'succeeded' THEN 202 ELSE 500 END || ',"verdict":"' || v || '","outcome":"' || o || '","address":"198.51.100.7:443","worker":"bench/1"}'
            ELSE '{"delivery_id":"' || d || '","firing_id":"' || f || '","firing_position":' || 2 * i - 1 || ',"reaction":"' || r || '","trigger":"reward.created","cause":"reaction","target":"' || t
                || '","target_version":' || version || ',"platform":"' || platform || '","profile_id":"' || p || '","consent":' || consent || ',"reason":"' || coalesce(reason, '') || '","body_sha256":"' || body || '","body_bytes":512,"max_attempts":8}' END::json,
       sha256((2 * i + k)::text::bytea)` + benchSource + `, generate_series(0, 1) k WHERE k = 0 OR reason IS NULL ORDER BY 1`,
	`INSERT INTO deliveries (delivery_id, position, firing_id, firing_position, reaction, trigger, cause, target, target_version, platform, profile_id, outcome, reason,
       consent, body_sha256, max_attempts, planned_at, finished_at, attempts, against, changed)
SELECT d, 2 * i - 1, f, 2 * i - 1, r, 'reward.created', 'reaction', t, version, platform, p, o, coalesce(reason, v), consent::json, body, 8, at, at,
       CASE WHEN reason IS NULL THEN 1 ELSE 0 END, CASE WHEN i % 5000 = 7 THEN 'opted_out' END, 2 * i` + benchSource,
	`INSERT INTO attempts (delivery_id, attempt, position, started_at, duration_ms, status, verdict, outcome, address, worker, probe, recorded_at)
SELECT d, 1, 2 * i, at, 3 + i % 400, CASE WHEN o = 'succeeded' THEN 202 ELSE 500 END, v, o, '198.51.100.7:443', 'bench/1', false, at` + benchSource + ` WHERE reason IS NULL`,
	`INSERT INTO tallies AS y (bucket, reaction, target, target_version, platform, pending, retrying, succeeded, failed, withheld, rejected, cancelled, expired)
SELECT date_bin('15 minutes', at, '2000-01-01Z'), r, t, version, platform, 0, 0, count(*) FILTER (WHERE o = 'succeeded'), count(*) FILTER (WHERE o = 'failed'),
       count(*) FILTER (WHERE o = 'withheld'), count(*) FILTER (WHERE o = 'rejected'), 0, 0` + benchSource + ` GROUP BY 1, 2, 3, 4, 5
ON CONFLICT (bucket, reaction, target, target_version, platform) DO UPDATE SET
       succeeded = y.succeeded + excluded.succeeded, failed = y.failed + excluded.failed, withheld = y.withheld + excluded.withheld, rejected = y.rejected + excluded.rejected`,
}

// benchQuery asks what people ask.
func (st *store) benchQuery(ctx context.Context, b queryBench) error {
	if err := st.fillForQueries(ctx, b.deliveries); err != nil {
		return err
	}
	db, pick := st.db, func() int { return 1 + rand.IntN(b.deliveries) } //nolint:gosec // not a secret
	id := func(kind string, i int) (out uuid.UUID) {
		if err := db.QueryRowContext(ctx, `SELECT md5($1)::uuid`, fmt.Sprint(kind, i)).Scan(&out); err != nil {
			return uuid.Nil
		}
		return out
	}
	list := func(f deliveries.Filter) func(context.Context) (int, error) {
		return func(ctx context.Context) (int, error) {
			found, err := deliveries.List(ctx, db, f)
			return len(found), err
		}
	}
	events := func(f schema.Filter) func(context.Context) (int, error) {
		f.Descending, f.Limit = true, 50
		return func(ctx context.Context) (int, error) {
			found, err := audit.Events(ctx, db, f)
			return len(found), err
		}
	}
	var first, last time.Time
	if err := db.QueryRowContext(ctx, `SELECT min(planned_at), max(planned_at) FROM deliveries`).Scan(&first, &last); err != nil {
		return err
	}
	middle := first.Add(last.Sub(first) / 2)
	ids := make([]uuid.UUID, b.times)
	people := make([]uuid.UUID, b.times)
	for i := range ids {
		ids[i], people[i] = id("d", pick()), id("p", pick()%(b.deliveries/5))
	}
	next := 0
	turn := func(all []uuid.UUID) uuid.UUID { next++; return all[next%len(all)] }
	questions := []struct {
		what   string
		keyed  bool
		answer func(context.Context) (int, error)
	}{
		{"a delivery with its attempts", true, func(ctx context.Context) (int, error) {
			_, err := deliveries.Get(ctx, db, turn(ids))
			return 1, err
		}},
		{"a person's deliveries", true, func(ctx context.Context) (int, error) {
			found, err := deliveries.List(ctx, db, deliveries.Filter{Profile: turn(people)})
			return len(found), err
		}},
		{"everything about a person", true, func(ctx context.Context) (int, error) {
			found, err := audit.Events(ctx, db, schema.Filter{Subject: turn(people), Limit: 50})
			return len(found), err
		}},
		{"a person's consent", true, func(ctx context.Context) (int, error) {
			found, err := consent.Read(ctx, db, turn(people), consent.AsOf{})
			return len(found.Held()), err
		}},
		{"a delivery's events", true, func(ctx context.Context) (int, error) {
			found, err := audit.Events(ctx, db, schema.Filter{DeliveryID: turn(ids), Limit: 50})
			return len(found), err
		}},
		{"deliveries, the newest", false, list(deliveries.Filter{})},
		{"deliveries that failed", false, list(deliveries.Filter{Outcomes: []domain.Outcome{domain.Failed}})},
		{"deliveries of a target", false, list(deliveries.Filter{Target: "target-3"})},
		{"deliveries of a rare target", false, list(deliveries.Filter{Target: "target-rare"})},
		{"failed deliveries of a target", false, list(deliveries.Filter{Target: "target-150", Outcomes: []domain.Outcome{domain.Failed}})},
		{"cancelled deliveries of a reaction (none)", false, list(deliveries.Filter{Reaction: "reaction-7", Outcomes: []domain.Outcome{domain.Cancelled}})},
		{"deliveries of a rare reaction", false, list(deliveries.Filter{Reaction: "reaction-rare"})},
		{"deliveries of a platform that failed", false, list(deliveries.Filter{Platform: "yotpo", Outcomes: []domain.Outcome{domain.Failed}})},
		{"withheld for a rare reason, long ago", false, list(deliveries.Filter{Reason: "erased", Outcomes: []domain.Outcome{domain.Withheld}})},
		{"sent to people who were opted out", false, list(deliveries.Filter{Against: deliveries.AgainstOptOut})},
		{"a target's deliveries in an hour of the middle", false, list(deliveries.Filter{Target: "target-3", From: middle, To: middle.Add(time.Hour)})},
		{"requests with an unknown outcome", false, func(ctx context.Context) (int, error) {
			found, err := deliveries.Unknown(ctx, db, 0, true, 50)
			return len(found), err
		}},
		{"events of a frequent type", false, events(schema.Filter{Types: []string{"delivery.planned"}})},
		{"events of a rare type, long ago", false, events(schema.Filter{Types: []string{"bench.rare"}})},
		{"events of a rare target", false, events(schema.Filter{Target: "target-rare"})},
		{"outcomes of a reaction in all time", false, func(ctx context.Context) (int, error) {
			found, err := deliveries.Counts(ctx, db, deliveries.CountFilter{Reaction: "reaction-7"}, deliveries.Together)
			return len(found), err
		}},
		{"outcomes of a target, version by version", false, func(ctx context.Context) (int, error) {
			found, err := deliveries.Counts(ctx, db, deliveries.CountFilter{Target: "target-3"}, deliveries.ByVersion)
			return len(found), err
		}},
	}
	out := tabwriter.NewWriter(st.settings.env.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintf(out, "%d DELIVERIES\tROWS\tP50\tP99\tMEANT\tHOLDS\n", b.deliveries)
	held := true
	for _, question := range questions {
		meant := 100 * time.Millisecond
		if question.keyed {
			meant = 20 * time.Millisecond
		}
		all := make([]time.Duration, b.times)
		rows := 0
		for i := range all {
			start := time.Now()
			n, err := question.answer(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", question.what, err)
			}
			all[i], rows = time.Since(start), n
		}
		slices.Sort(all)
		p99 := all[len(all)*99/100]
		held = held && p99 < meant
		fmt.Fprintf(out, "%s\t%d\t%s\t%s\t%s\t%v\n", question.what, rows, all[len(all)/2].Round(10*time.Microsecond), p99.Round(10*time.Microsecond), meant, p99 < meant)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if !held {
		return errUntrue
	}
	return nil
}

// fillForQueries makes the ledger that is asked, unless an earlier run has made it, and builds the projections from it as a
// rebuild does.
func (st *store) fillForQueries(ctx context.Context, n int) error {
	head, err := st.ledger.Head(ctx)
	if err != nil {
		return err
	}
	if head > 2*int64(n)+100 || head > 0 && head < 2*int64(n) {
		return fmt.Errorf("the ledger holds %d events, not the %d of %d deliveries; name another --data-dir", head, 2*n, n)
	}
	if head > 0 {
		return nil
	}
	owner, err := schema.Connect(st.url, schema.Options{Name: st.settings.name, Paths: projections.Paths(st.settings.name, builtIn...)})
	if err != nil {
		return err
	}
	defer owner.Close()
	say := func(format string, args ...any) { fmt.Fprintf(st.settings.env.stderr, format+"\n", args...) }
	begin, start := time.Now(), time.Now().Add(-time.Duration(n)*time.Millisecond).UTC()
	if _, err := owner.ExecContext(ctx, `SELECT ensure_partitions($1)`, 2*n+200); err != nil {
		return err
	}
	var indexes []string
	for _, of := range []string{st.settings.name + "_deliveries", st.settings.name} {
		again, err := withoutIndexes(ctx, owner, of)
		if err != nil {
			return err
		}
		indexes = append(indexes, again...)
	}
	if st.private { // what is made up may be lost
		for _, s := range []string{`ALTER SYSTEM SET fsync = off`, `ALTER SYSTEM SET full_page_writes = off`, `ALTER SYSTEM SET max_wal_size = '8GB'`, `SELECT pg_reload_conf()`} {
			if _, err := owner.ExecContext(ctx, s); err != nil {
				return err
			}
		}
	}
	const batch = 100_000
	for from := 1; from <= n; from += batch {
		to := min(from+batch-1, n)
		if err := fillBatch(ctx, owner, from, to, start, n); err != nil {
			return err
		}
		say("%d of %d deliveries in the ledger after %s", to, n, time.Since(begin).Round(time.Second))
	}
	// A type that occurred once, long ago: among the gaps that withheld deliveries leave.
	if _, err := owner.ExecContext(ctx, `INSERT INTO events (position, id, type, stream, version, recorded_at, actor, source, data, leaf)
		VALUES (6, gen_random_uuid(), 'bench.rare', 'bench', 1, $1, 'bench', '/bench', '{}', sha256('')),
		       ($2, gen_random_uuid(), 'bench.last', 'bench', 2, $3, 'bench', '/bench', '{}', sha256(''))`, start.Add(3*time.Millisecond), 2*n+1, start.Add(time.Duration(n+1)*time.Millisecond)); err != nil {
		return err
	}
	for _, index := range indexes {
		if _, err := owner.ExecContext(ctx, index); err != nil {
			return err
		}
	}
	say("indexed after %s", time.Since(begin).Round(time.Second))
	lastSaid := time.Now()
	if err := st.engine.Rebuild(ctx, audit.Definition, projections.RebuildOptions{Progress: func(p projections.Progress) {
		if time.Since(lastSaid) > 10*time.Second {
			lastSaid = time.Now()
			say("projection audit: %d of %d events, %.0f a second, %s left", p.Done, p.Total, p.Rate, p.Left.Round(time.Second))
		}
	}}); err != nil {
		return err
	}
	for _, d := range []projections.Definition{consent.Definition, deliveries.Definition} {
		if _, err := owner.ExecContext(ctx, `SELECT move_cursor($1, $2)`, d.SubscriptionName(), 2*n+1); err != nil {
			return err
		}
	}
	for _, table := range []string{"events", "deliveries", "attempts", "tallies", "blocks"} {
		if _, err := owner.ExecContext(ctx, `VACUUM ANALYZE `+table); err != nil {
			return err
		}
	}
	say("made in %s", time.Since(begin).Round(time.Second))
	return nil
}

// withoutIndexes drops a schema's indexes other than those of keys, and gives the statements that make them again.
func withoutIndexes(ctx context.Context, db *sql.DB, name string) (again []string, err error) {
	rows, err := db.QueryContext(ctx, `SELECT i.indexname, i.indexdef FROM pg_indexes i WHERE i.schemaname = $1
		AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conname = i.indexname AND c.connamespace = $1::regnamespace)
		AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = format('%I.%I', i.schemaname, i.indexname)::regclass)
		AND (i.schemaname LIKE '%\_deliveries' OR i.tablename LIKE 'events%')`, name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var drop []string
	for rows.Next() {
		var index, definition string
		if err := rows.Scan(&index, &definition); err != nil {
			return nil, err
		}
		again, drop = append(again, strings.Replace(definition, " ON ONLY ", " ON ", 1)), append(drop, "DROP INDEX "+pq.QuoteIdentifier(name)+"."+pq.QuoteIdentifier(index))
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for _, statement := range drop {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return nil, err
		}
	}
	return again, nil
}

func fillBatch(ctx context.Context, db *sql.DB, from, to int, start time.Time, n int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, `SET LOCAL synchronous_commit = off`); err != nil {
		return err
	}
	for _, statement := range benchFill {
		if _, err := tx.ExecContext(ctx, statement, from, to, start, n); err != nil {
			return err
		}
	}
	return tx.Commit()
}
