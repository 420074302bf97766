package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Problem is something that does not hold.
type Problem struct {
	Where    string `json:"where"`              // ledger, or projection and table
	Position int64  `json:"position,omitempty"` // of the event concerned; 0 when it is not about one
	Message  string `json:"message"`
}

func (p Problem) String() string {
	if p.Position > 0 {
		return fmt.Sprintf("%s: event %d: %s", p.Where, p.Position, p.Message)
	}
	return p.Where + ": " + p.Message
}

// Report is what Verify found.
type Report struct {
	Head     int64         `json:"head"`
	Took     time.Duration `json:"took"`
	Problems []Problem     `json:"problems"`
	Notes    []string      `json:"notes,omitempty"` // what could not be checked, and what it would take
}

// OK reports whether everything holds.
func (r Report) OK() bool { return len(r.Problems) == 0 }

// mostProblems bounds a report; the first ones tell the story.
const mostProblems = 20

func (r *Report) add(where string, position int64, format string, args ...any) {
	if len(r.Problems) < mostProblems {
		r.Problems = append(r.Problems, Problem{Where: where, Position: position, Message: fmt.Sprintf(format, args...)})
	}
}

// Verify judges a ledger by itself: positions and the versions of each stream have no gap, time never runs
// backwards, every event has the leaf that follows from its row and a payload that its declaration can read, and
// every projection equals its own rebuild up to where it stands. It works on one snapshot and leaves nothing behind.
func (e *Engine) Verify(ctx context.Context) (Report, error) {
	start := time.Now() //nolint:forbidigo // measures how long it took; nothing is decided by it
	var r Report
	tx, err := e.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		return r, fmt.Errorf("verify: %w", err)
	}
	defer tx.Rollback()
	if r.Head, err = schema.Head(ctx, tx); err != nil {
		return r, fmt.Errorf("verify: %w", err)
	}
	if err := verifyEvents(ctx, tx, &r); err != nil {
		return r, fmt.Errorf("verify: %w", err)
	}
	if err := verifyStreams(ctx, tx, &r); err != nil {
		return r, fmt.Errorf("verify: %w", err)
	}
	for _, d := range e.all {
		if err := e.verifyProjection(ctx, tx, d, &r); err != nil {
			return r, fmt.Errorf("verify %s: %w", d.Name, err)
		}
	}
	r.Took = time.Since(start)
	return r, nil
}

func verifyEvents(ctx context.Context, tx *sql.Tx, r *Report) error {
	kept, err := schema.Detached(ctx, tx)
	if err != nil {
		return err
	}
	next, last := kept+1, time.Time{}
	for rec, err := range schema.Events(ctx, tx, schema.Filter{}) {
		if err != nil {
			return err
		}
		if rec.Position != next {
			r.add("ledger", next, "is missing; the next one is %d", rec.Position)
		}
		next = rec.Position + 1
		if rec.RecordedAt.Before(last) {
			r.add("ledger", rec.Position, "was recorded at %s, before the event before it", rec.RecordedAt)
		}
		last = rec.RecordedAt
		leaf := domain.Leaf(domain.Digest(&rec.Event), rec.Position, rec.Version, rec.RecordedAt)
		if string(leaf[:]) != string(rec.Leaf) {
			r.add("ledger", rec.Position, "does not hash to its leaf: the row was changed after it was appended")
		}
		if _, err := domain.Decode(rec.Type, rec.Data, nil); err != nil {
			r.add("ledger", rec.Position, "%s", err)
		}
	}
	return nil
}

func verifyStreams(ctx context.Context, tx *sql.Tx, r *Report) error {
	rows, err := tx.QueryContext(ctx, `SELECT stream, count(*), max(version), count(DISTINCT version), max(position) FROM events
		GROUP BY stream
		HAVING count(*) <> max(version) - min(version) + 1 OR count(DISTINCT version) <> count(*)
			OR min(version) <> 1 + coalesce((SELECT max(a.version) FROM archived_events a WHERE a.stream = events.stream), 0) LIMIT $1`, mostProblems)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var stream string
		var count, top, distinct, position int64
		if err := rows.Scan(&stream, &count, &top, &distinct, &position); err != nil {
			return err
		}
		r.add("ledger", position, "stream %s holds %d events but its versions reach %d", stream, count, top)
	}
	return rows.Err()
}

// scratch is the place of a verification, gone with its transaction.
func (e *Engine) scratch(d Definition) place { return place{schema: e.live(d) + "__check"} }

// verifyProjection rebuilds a projection in a scratch schema, up to where the live one stands, and compares them
// table by table, row by row.
func (e *Engine) verifyProjection(ctx context.Context, tx *sql.Tx, d Definition, r *Report) error {
	where := "projection " + d.Name
	var position int64
	var state string
	err := tx.QueryRowContext(ctx, `SELECT position, state FROM subscriptions WHERE name = $1`, d.SubscriptionName()).Scan(&position, &state)
	if errors.Is(err, sql.ErrNoRows) {
		r.add(where, 0, "was never installed")
		return nil
	}
	if err != nil {
		return err
	}
	switch err := e.needsAll(ctx, tx); {
	case errors.Is(err, ErrArchived):
		r.Notes = append(r.Notes, where+" was not held against its rebuild: "+err.Error())
		return nil
	case err != nil:
		return err
	}
	if _, err := tx.ExecContext(ctx, buildSettings); err != nil {
		return err
	}
	scratch := e.scratch(d)
	if err := e.create(ctx, tx, scratch, d); err != nil {
		return err
	}
	for from := int64(0); from < position; from += defaultSlice {
		slice, err := e.slice(ctx, tx, d, from, min(from+defaultSlice, position))
		if err != nil {
			return err
		}
		failure, err := schema.AttemptSkipping(ctx, tx, d.SubscriptionName(), slice, func(ctx context.Context, tx *sql.Tx, s schema.Slice) error {
			return e.apply(ctx, tx, scratch, d, s)
		})
		if err != nil {
			return err
		}
		if failure != nil {
			r.add(where, failure.Position, "cannot be rebuilt: %s", failure.Err)
			return nil
		}
	}
	tables, err := tablesIn(ctx, tx, scratch.schema)
	if err != nil {
		return err
	}
	for _, table := range tables {
		if err := compare(ctx, tx, e.live(d), scratch.schema, table, where, r); err != nil {
			return err
		}
	}
	return nil
}

// compare holds a live table against its rebuild, row by row.
func compare(ctx context.Context, tx *sql.Tx, live, rebuilt, table, where string, r *Report) error {
	name := pq.QuoteIdentifier(table)
	rows, err := tx.QueryContext(ctx, fmt.Sprintf(`
		SELECT 'stands in the live table and does not follow from the ledger', x.row FROM (SELECT t::text AS row FROM %[1]s t EXCEPT ALL SELECT t::text FROM %[2]s t) x
		UNION ALL
		SELECT 'follows from the ledger and is missing in the live table', x.row FROM (SELECT t::text AS row FROM %[2]s t EXCEPT ALL SELECT t::text FROM %[1]s t) x
		LIMIT 4`, pq.QuoteIdentifier(live)+"."+name, pq.QuoteIdentifier(rebuilt)+"."+name))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var what, row string
		if err := rows.Scan(&what, &row); err != nil {
			return err
		}
		r.add(where+", table "+table, 0, "%s: %s", what, row)
	}
	return rows.Err()
}

func tablesIn(ctx context.Context, q schema.Querier, where string) ([]string, error) {
	rows, err := q.QueryContext(ctx, `SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace($1) AND relkind IN ('r', 'p') ORDER BY 1`, where)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var tables []string
	for rows.Next() {
		var t string
		if err := rows.Scan(&t); err != nil {
			return nil, err
		}
		tables = append(tables, t)
	}
	return tables, rows.Err()
}
