package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Progress is how far a run over the ledger has come.
type Progress struct {
	Done, Total int64   // events
	Rate        float64 // events a second, of this run
	Left        time.Duration
}

// ErrBusy is a build that another process is at.
var ErrBusy = errors.New("another process is at it")

// ErrArchived is a ledger whose first events were detached into an archive: what is built from the start needs them back.
var ErrArchived = errors.New("events that are needed were archived")

// defaultSlice is how many events one transaction of a run applies. Larger ones gain little and hold a snapshot longer.
const defaultSlice = 100_000

// run is one replay of the ledger into a place, whose progress is kept in the table builds.
type run struct {
	e        *Engine
	d        Definition
	place    place
	purpose  string // rebuild or build
	by       string // kept from whoever asked, where empty
	slice    int64
	progress func(Progress)
	ended    func(error) // may be nil

	position int64
	goal     int64
	folded   map[string]int64 // bytes of what was folded on the way, by table
	indexed  bool             // what comes at the end was done: rows were folded, indexes made
	analyzed int64            // position at which the planner was last told
	start    time.Time
	began    int64         // position at start
	took     time.Duration // by a slice, of late; those that take long are given out first
	err      error         // why it has ended, where several run side by side
}

// buildSettings suit long statements over many events: no time for compiling plans, memory for sorting, and no waiting for the
// disk, since what a crash loses is built again.
const buildSettings = "SET LOCAL jit = off; SET LOCAL work_mem = '64MB'; SET LOCAL synchronous_commit = off; SET LOCAL max_parallel_workers_per_gather = 0"

// buildLock ends the name of the lock that a build holds, after its place.
const buildLock = ".build"

// exclusively runs do while no other process builds in the same place.
func (r *run) exclusively(ctx context.Context, do func() error) error {
	unlock, mine, err := schema.TryLock(ctx, r.e.db, r.place.schema+buildLock)
	if err != nil {
		return err
	}
	defer unlock()
	if !mine {
		return ErrBusy
	}
	r.start = time.Now() //nolint:forbidigo // measures how long it took; nothing is decided by it
	err = do()
	if err != nil {
		r.record(context.WithoutCancel(ctx), err)
	}
	return err
}

// record says in the table how a run ended. One that was asked to stop, or whose database went away, goes on later.
func (r *run) record(ctx context.Context, failed error) {
	state, position := "failed", sql.NullInt64{}
	var at *EventError
	switch {
	case errors.Is(failed, context.Canceled) && r.purpose == "build":
		state = "stopped"
	case errors.Is(failed, context.Canceled), schema.Transient(failed):
		return // a worker goes on with it
	case errors.As(failed, &at):
		position = sql.NullInt64{Int64: at.Position, Valid: true}
	}
	_, err := r.e.db.ExecContext(ctx, `UPDATE builds SET state = $2, error = $3, error_position = $4, updated_at = clock_timestamp() WHERE place = $1`,
		r.place.schema, state, failed.Error(), position)
	if err != nil {
		r.e.log.WarnContext(ctx, "the end of a build could not be recorded", logProjection(r.d), logError(err))
	}
}

// EventError is the event at which a projection cannot be built any further.
type EventError struct {
	Position int64
	Err      error
}

func (e *EventError) Error() string { return fmt.Sprintf("event %d: %s", e.Position, e.Err) }

// Unwrap gives the reason.
func (e *EventError) Unwrap() error { return e.Err }

// prepare finds what an earlier run left in the place, or makes it anew. fits decides whether what is there at a position can
// be gone on from.
func (r *run) prepare(ctx context.Context, fits func(position int64) bool) error {
	if err := r.e.needsAll(ctx, r.e.db); err != nil {
		return err
	}
	tx, err := r.e.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var own, exists bool
	var digest []byte
	err = tx.QueryRowContext(ctx, `SELECT b.own, b.digest, b.position, b.indexed, to_regnamespace($1) IS NOT NULL FROM builds b WHERE b.place = $1 FOR UPDATE`,
		r.place.schema).Scan(&own, &digest, &r.position, &r.indexed, &exists)
	known := err == nil
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if !known {
		err := tx.QueryRowContext(ctx, `SELECT to_regnamespace($1) IS NOT NULL`, r.place.schema).Scan(&exists)
		if err != nil {
			return err
		}
		if exists {
			return fmt.Errorf("schema %s exists, and was not built by a projection; name another", r.place.schema)
		}
	}
	if !exists || own != r.place.own || string(digest) != string(r.d.Digest[:]) || !fits(r.position) {
		if exists {
			if err := r.e.drop(ctx, tx, place{schema: r.place.schema, own: own}); err != nil {
				return err
			}
		}
		if err := r.e.create(ctx, tx, r.place, r.d); err != nil {
			return err
		}
		if err := r.e.gather(ctx, tx, r.place, r.d); err != nil {
			return err
		}
		if err := r.autovacuum(ctx, tx, "SET (autovacuum_enabled = off)"); err != nil { // it would tidy what is still being written
			return err
		}
		r.position, r.indexed = 0, false
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO builds (place, projection, purpose, own, digest, position, goal, state, asked_by) VALUES ($1, $2, $3, $4, $5, $6, $7, 'running', $8)
		ON CONFLICT (place) DO UPDATE SET purpose = excluded.purpose, own = excluded.own, digest = excluded.digest, position = excluded.position, goal = excluded.goal,
			indexed = $9, asked_by = coalesce(nullif($8, ''), builds.asked_by), state = 'running', error = NULL, error_position = NULL, updated_at = clock_timestamp()`,
		r.place.schema, r.d.Name, r.purpose, r.place.own, r.d.Digest[:], r.position, r.goal, r.by, r.indexed)
	if err != nil {
		return err
	}
	r.began = r.position
	return tx.Commit()
}

// drop drops the schema of a build.
func (e *Engine) drop(ctx context.Context, tx *sql.Tx, p place) error {
	if p.own {
		_, err := tx.ExecContext(ctx, `SELECT drop_own_schema($1)`, p.schema)
		return err
	}
	_, err := tx.ExecContext(ctx, "DROP SCHEMA IF EXISTS "+pq.QuoteIdentifier(p.schema)+" CASCADE")
	return err
}

// replay applies slice after slice up to where upTo says, which is asked before each.
func (r *run) replay(ctx context.Context, upTo func(position int64) (goal int64, err error)) error {
	r.analyzed = r.position
	for {
		goal, err := upTo(r.position)
		if err != nil || r.position >= goal {
			return err
		}
		to := min(r.position+r.slice, goal)
		if err := r.apply(ctx, to, goal); err != nil {
			return err
		}
		if err := r.moved(ctx, to, goal); err != nil {
			return err
		}
	}
}

// moved tells of a slice that was committed, and has the planner look at the tables when they have doubled: what it knows of
// them grows old as they grow.
func (r *run) moved(ctx context.Context, to, goal int64) error {
	r.position = to
	if r.progress != nil {
		r.progress(r.told(goal))
	}
	if !r.indexed {
		if err := r.foldOnTheWay(ctx); err != nil {
			return err
		}
	}
	if r.place.own || r.position-r.analyzed < r.analyzed || r.position >= goal {
		return nil
	}
	r.analyzed = r.position
	return r.analyze(ctx, glance)
}

func (r *run) told(goal int64) Progress {
	p := Progress{Done: r.position, Total: goal}
	if took := time.Since(r.start).Seconds(); took > 0 {
		p.Rate = float64(r.position-r.began) / took
		if p.Rate > 0 {
			p.Left = time.Duration(float64(goal-r.position) / p.Rate * float64(time.Second))
		}
	}
	return p
}

// apply applies one slice and moves the position, in one transaction.
func (r *run) apply(ctx context.Context, to, goal int64) error {
	tx, err := r.e.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, buildSettings); err != nil {
		return err
	}
	if err := r.applyIn(ctx, tx, to, goal); err != nil {
		return err
	}
	return tx.Commit()
}

// applyIn is apply in a transaction that may hold other runs' slices too.
func (r *run) applyIn(ctx context.Context, tx *sql.Tx, to, goal int64) error {
	if err := r.slices(ctx, tx, to); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `UPDATE builds SET position = $2, goal = $3, rate = $4, updated_at = clock_timestamp() WHERE place = $1`,
		r.place.schema, to, goal, r.told(goal).Rate)
	return err
}

// applies is the definition as the next slice goes through it.
func (r *run) applies() Definition {
	if r.indexed {
		return r.d
	}
	return r.d.collecting()
}

// slices applies what lies between the run's position and another.
func (r *run) slices(ctx context.Context, tx *sql.Tx, to int64) error {
	slice := schema.Slice{From: r.position, To: to}
	var err error
	if r.place.desk.holds(slice) {
		slice.Types = r.place.desk.held
	} else if slice, err = r.e.slice(ctx, tx, r.d, r.position, to); err != nil {
		return err
	}
	failure, err := schema.AttemptSkipping(ctx, tx, r.d.SubscriptionName(), slice, func(ctx context.Context, tx *sql.Tx, s schema.Slice) error {
		return r.e.apply(ctx, tx, r.place, r.applies(), s)
	})
	if err != nil {
		return err
	}
	if failure != nil {
		return &EventError{Position: failure.Position, Err: failure.Err}
	}
	return nil
}

// How closely the planner looks at the tables: what it has to know to apply slices, it sees at a tenth of the usual sample, of
// which a rebuild takes several.
const (
	glance = "10"
	look   = "DEFAULT"
)

// analyze tells the planner what the tables hold.
func (r *run) analyze(ctx context.Context, closely string) error {
	tables, err := tablesIn(ctx, r.e.db, r.place.schema)
	if err != nil {
		return err
	}
	if !r.indexed { // what rows are collected in is read once, and what they are folded into is empty
		tables = slices.DeleteFunc(tables, func(table string) bool {
			return slices.ContainsFunc(r.d.Folds, func(f Statement) bool { return table == f.Name || table == collected+f.Name })
		})
	}
	if len(tables) == 0 {
		return nil
	}
	for i, table := range tables {
		tables[i] = pq.QuoteIdentifier(r.place.schema) + "." + pq.QuoteIdentifier(table)
	}
	tx, err := r.e.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, "SET LOCAL default_statistics_target = "+closely+"; ANALYZE "+strings.Join(tables, ", ")); err != nil {
		return err
	}
	return tx.Commit()
}

// index folds what was collected and makes what only readers need, once.
func (r *run) index(ctx context.Context) error {
	if r.indexed {
		return nil
	}
	tx, err := r.e.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, "SET LOCAL maintenance_work_mem = '128MB'; "+buildSettings); err != nil {
		return err
	}
	if err := r.e.fold(ctx, tx, r.place, r.d); err != nil {
		return err
	}
	if err := r.e.index(ctx, tx, r.place, r.d); err != nil {
		return err
	}
	if err := r.autovacuum(ctx, tx, "RESET (autovacuum_enabled)"); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE builds SET indexed = true WHERE place = $1`, r.place.schema); err != nil {
		return err
	}
	r.indexed = true
	return tx.Commit()
}

// autovacuum says whether the server tidies the tables by itself. An analyst's are left as they are: they belong to another role.
func (r *run) autovacuum(ctx context.Context, tx *sql.Tx, how string) error {
	if r.place.own {
		return nil
	}
	tables, err := tablesIn(ctx, tx, r.place.schema)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, table := range tables {
		fmt.Fprintf(&b, "ALTER TABLE %s.%s %s;\n", pq.QuoteIdentifier(r.place.schema), pq.QuoteIdentifier(table), how)
	}
	_, err = tx.ExecContext(ctx, b.String())
	return err
}
