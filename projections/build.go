package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// BuildOptions say how a projection is built beside the live ones, to be queried and dropped.
type BuildOptions struct {
	Into     string // SQL schema; empty is one named after the projection and the position
	UpTo     int64  // the last event; 0 is the head when it begins
	Own      bool   // an analyst's: it runs under a role that reads what ledger_reader reads and can write this schema only
	Slice    int64
	By       string
	Progress func(Progress)
}

// Built is a projection that stands in a schema of its own.
type Built struct {
	Schema   string
	Position int64 // every event up to here has had its effect
}

var schemaName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// Build replays the ledger into a schema of its own. What an earlier build left there is gone on from when it was of the
// same SQL and has not come further: so a build that was interrupted is resumed, and one that is asked for again is brought up
// to date. It stays until Drop.
//
// Errors: ErrBusy; ErrArchived; *StatementError for a mistake in the SQL, inside an *EventError when it shows at an event.
func (e *Engine) Build(ctx context.Context, d Definition, o BuildOptions) (Built, error) {
	head, err := schema.Head(ctx, e.db)
	if err != nil {
		return Built{}, fmt.Errorf("build %s: %w", d.Name, err)
	}
	switch {
	case o.UpTo < 0 || o.UpTo > head:
		return Built{}, fmt.Errorf("build %s up to position %d: the ledger ends at %d", d.Name, o.UpTo, head)
	case o.UpTo == 0 && o.Into == "" && !o.Own:
		return Built{}, fmt.Errorf("build %s: name a schema, a position or a time", d.Name)
	case o.Into == "" && o.UpTo == 0:
		o.Into = fmt.Sprintf("%s_own_%s", e.name, d.Name)
	case o.Into == "":
		o.Into = fmt.Sprintf("%s_%s_at_%d", e.name, d.Name, o.UpTo)
	}
	if o.UpTo == 0 {
		o.UpTo = head
	}
	if err := e.mayBuildIn(o.Into); err != nil {
		return Built{}, fmt.Errorf("build %s: %w", d.Name, err)
	}
	if o.Slice <= 0 {
		o.Slice = defaultSlice
	}
	r := &run{
		e: e, d: d, place: place{schema: o.Into, own: o.Own}, purpose: "build", by: o.By, slice: o.Slice, progress: o.Progress, goal: o.UpTo,
	}
	if err := r.exclusively(ctx, func() error { return r.build(ctx) }); err != nil {
		return Built{}, fmt.Errorf("build %s: %w", d.Name, err)
	}
	return Built{Schema: o.Into, Position: r.position}, nil
}

func (r *run) build(ctx context.Context) error {
	if err := r.prepare(ctx, func(position int64) bool { return position <= r.goal }); err != nil {
		return err
	}
	if err := r.replay(ctx, func(int64) (int64, error) { return r.goal, nil }); err != nil {
		return err
	}
	if err := r.index(ctx); err != nil {
		return err
	}
	if !r.place.own {
		if err := r.analyze(ctx, look); err != nil {
			return err
		}
	}
	_, err := r.e.db.ExecContext(ctx, `UPDATE builds SET state = 'built', updated_at = clock_timestamp() WHERE place = $1`, r.place.schema)
	return err
}

// mayBuildIn refuses the schemas that are the ledger's.
func (e *Engine) mayBuildIn(into string) error {
	if !schemaName.MatchString(into) {
		return fmt.Errorf("schema name %q: use lower-case letters, digits and _, starting with a letter", into)
	}
	taken := into == e.name
	for _, d := range e.all {
		for _, s := range []string{e.live(d), e.next(d).schema, e.old(d), e.scratch(d).schema} {
			taken = taken || into == s
		}
	}
	if taken {
		return fmt.Errorf("schema %s is the ledger's own; name another", into)
	}
	return nil
}

// Drop drops the schema of a build. ErrNotFound is a schema that none was built in: nothing else is ever dropped.
func (e *Engine) Drop(ctx context.Context, into string) error {
	tx, err := e.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("drop %s: %w", into, err)
	}
	defer tx.Rollback()
	var own bool
	err = tx.QueryRowContext(ctx, `DELETE FROM builds WHERE place = $1 AND purpose = 'build' RETURNING own`, into).Scan(&own)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("drop %s: %w: no projection was built in it", into, schema.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("drop %s: %w", into, err)
	}
	var exists bool
	if err := tx.QueryRowContext(ctx, `SELECT to_regnamespace($1) IS NOT NULL`, into).Scan(&exists); err != nil {
		return fmt.Errorf("drop %s: %w", into, err)
	}
	if exists {
		if err := e.drop(ctx, tx, place{schema: into, own: own}); err != nil {
			return fmt.Errorf("drop %s: %w", into, err)
		}
	}
	return tx.Commit()
}

// PositionAt is the position of the last event that was recorded at or before a time: what the ledger knew then. It is 0
// before the first event.
func PositionAt(ctx context.Context, q schema.Querier, at time.Time) (int64, error) {
	return schema.PositionAt(ctx, q, at)
}

// needsAll refuses to build from the first event on when that one was archived.
func (e *Engine) needsAll(ctx context.Context, q schema.Querier) error {
	first, err := schema.FirstKept(ctx, q)
	if err != nil {
		return err
	}
	if first > 1 {
		return fmt.Errorf("%w: the ledger begins at event %d; give the archives of those before it: dispatch-ledger rebuild NAME --archive DIR, or attach them: archive attach DIR", ErrArchived, first)
	}
	return nil
}
