package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/lib/pq"
	"golang.org/x/sync/errgroup"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// RebuildOptions say how a projection is rebuilt. The zero value will do.
type RebuildOptions struct {
	Slice    int64          // events in one transaction; 100,000 by default
	By       string         // who asked for it
	Progress func(Progress) // called after each slice; may be nil
	Ended    func(error)    // called when it has ended, which may be before others do that it goes with; may be nil
}

// next is the place beside the live schema, and old the one behind it, for the moment of the swap.
func (e *Engine) next(d Definition) place { return place{schema: e.live(d) + "__next"} }
func (e *Engine) old(d Definition) string { return e.live(d) + "__old" }

// Rebuild builds a projection anew beside the live one, from the first event on, and swaps it in with one atomic
// rename. Readers see the old tables until then and never half of the new. A rebuild that was interrupted goes on
// where it stopped, unless the definition has changed since.
//
// Errors: ErrBusy; *EventError with the event that it cannot be built beyond, after which the old tables go on serving.
func (e *Engine) Rebuild(ctx context.Context, d Definition, o RebuildOptions) error {
	return e.RebuildAll(ctx, []Definition{d}, 1, func(Definition) RebuildOptions { return o })
}

// RebuildAll rebuilds several projections: side by side, so that the ledger is read once for all of them, by as many sessions at
// a time as atOnce says. It goes on with the others when one fails.
func (e *Engine) RebuildAll(ctx context.Context, all []Definition, atOnce int, o func(Definition) RebuildOptions) error {
	runs := make([]*run, len(all))
	places := make([]string, len(all))
	for i, d := range all {
		options := o(d)
		if options.Slice <= 0 {
			options.Slice = defaultSlice
		}
		runs[i] = &run{e: e, d: d, place: e.next(d), purpose: "rebuild", by: options.By, slice: options.Slice, progress: options.Progress, ended: options.Ended}
		places[i] = runs[i].place.schema + buildLock
	}
	unlock, mine, err := schema.TryLocks(ctx, e.db, places...)
	if err != nil {
		for _, r := range runs {
			r.tell(err)
		}
		return fmt.Errorf("rebuild: %w", err)
	}
	defer unlock()
	for i, r := range runs {
		r.start = time.Now() //nolint:forbidigo // measures how long it took; nothing is decided by it
		if !slices.Contains(mine, places[i]) {
			r.fail(ctx, ErrBusy)
		}
	}
	each(ctx, runs, atOnce, (*run).begin)
	e.sideBySide(ctx, runs, atOnce)
	longestFirst(runs) // whose tables are large takes long to make indexes, too
	each(ctx, runs, atOnce, (*run).finish)

	var errs []error
	for _, r := range runs {
		if r.err != nil {
			errs = append(errs, fmt.Errorf("rebuild %s: %w", r.d.Name, r.err))
		}
	}
	return errors.Join(errs...)
}

// each does something with the runs that have not failed, as many at a time as atOnce says.
func each(ctx context.Context, runs []*run, atOnce int, do func(*run, context.Context) error) {
	var group errgroup.Group
	group.SetLimit(max(1, atOnce))
	for _, r := range runs {
		if r.err == nil {
			group.Go(func() error { r.fail(ctx, do(r, ctx)); return nil })
		}
	}
	_ = group.Wait() // each run keeps its own error
}

// fail says, when there is an error, that the run has ended with it, without waiting for those that it goes with.
func (r *run) fail(ctx context.Context, err error) {
	if err == nil {
		return
	}
	r.err = err
	if !errors.Is(err, ErrBusy) {
		r.record(context.WithoutCancel(ctx), err)
	}
	r.tell(err)
}

// tell tells whoever wants to know that the run has ended.
func (r *run) tell(err error) {
	if r.ended != nil {
		r.ended(err)
	}
}

// begin makes the shadow, or finds what an interrupted run left of it.
func (r *run) begin(ctx context.Context) error {
	if err := r.dropOld(ctx); err != nil { // a process died between swap and drop
		return err
	}
	if err := r.prepare(ctx, func(int64) bool { return true }); err != nil {
		return err
	}
	r.e.log.InfoContext(ctx, "rebuilding a projection", logProjection(r.d), slog.Int64("from", r.position))
	return nil
}

// near is how far a rebuild goes before the swap: to the head, but for the last of what came in since its beginning, which
// goes with the swap.
func (e *Engine) near(ctx context.Context) (func(position, slice int64) (int64, error), error) {
	first, err := schema.Head(ctx, e.db)
	return func(position, slice int64) (int64, error) {
		head, err := schema.Head(ctx, e.db)
		if position >= first && head-position <= slice/10 {
			head = position
		}
		return head, err
	}, err
}

// finish swaps a shadow in that has come near the head.
func (r *run) finish(ctx context.Context) error {
	if err := r.index(ctx); err != nil {
		return err
	}
	if err := r.analyze(ctx, look); err != nil {
		return err
	}
	near, err := r.e.near(ctx)
	if err != nil {
		return err
	}
	// While the indexes were made, and the others finished.
	if err := r.replay(ctx, func(position int64) (int64, error) { return near(position, r.slice) }); err != nil {
		return err
	}
	if err := r.swap(ctx); err != nil {
		return fmt.Errorf("swap: %w", err)
	}
	if err := r.dropOld(ctx); err != nil {
		return err
	}
	r.e.log.InfoContext(ctx, "projection rebuilt", logProjection(r.d), slog.Int64("position", r.position), slog.Duration("took", time.Since(r.start)))
	r.tell(nil)
	return nil
}

// swap brings the shadow to where the live projection stands, while that holds still, and puts it in its place.
//
// If we were to crash before the commit, the live tables stay and the shadow is gone on with; after it, the new ones serve
// and the old ones are dropped by the next rebuild.
func (r *run) swap(ctx context.Context) error {
	tx, err := r.e.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var live int64
	if err := tx.QueryRowContext(ctx, `SELECT position FROM subscriptions WHERE name = $1 FOR UPDATE`, r.d.SubscriptionName()).Scan(&live); err != nil {
		return err
	}
	if r.position < live {
		if err := r.slices(ctx, tx, live); err != nil {
			return err
		}
		r.position = live
	}
	q := pq.QuoteIdentifier
	for _, statement := range []string{
		"ALTER SCHEMA " + q(r.e.live(r.d)) + " RENAME TO " + q(r.e.old(r.d)),
		"ALTER SCHEMA " + q(r.place.schema) + " RENAME TO " + q(r.e.live(r.d)),
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, `SELECT move_cursor($1, $2)`, r.d.SubscriptionName(), r.position); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM builds WHERE place = $1`, r.place.schema); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE projections SET version = $2, digest = $3, apply = $4, built_at = clock_timestamp() WHERE name = $1`,
		r.d.Name, r.d.Version, r.d.Digest[:], r.d.Source); err != nil {
		return err
	}
	return tx.Commit()
}

// dropOld drops the tables that were swapped out. Whoever still reads them is waited for here, and not during the swap.
func (r *run) dropOld(ctx context.Context) error {
	_, err := r.e.db.ExecContext(ctx, "DROP SCHEMA IF EXISTS "+pq.QuoteIdentifier(r.e.old(r.d))+" CASCADE")
	return err
}

func logProjection(d Definition) slog.Attr { return slog.String("projection", d.Name) }
func logError(err error) slog.Attr         { return slog.Any("error", err) }
