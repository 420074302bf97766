package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
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

// Rebuild options.
type RebuildOptions struct {
	Slice    int64          // events in one transaction; 50,000 by default
	Progress func(Progress) // called after each slice; may be nil
}

const defaultSlice = 50_000

// Rebuild builds a projection anew beside the live one, from the first event on, and swaps it in with one atomic
// rename. Readers see the old tables until then and never half of the new. A rebuild that was interrupted goes on
// where it stopped, unless the definition has changed since.
func (e *Engine) Rebuild(ctx context.Context, d Definition, o RebuildOptions) error {
	if o.Slice <= 0 {
		o.Slice = defaultSlice
	}
	lock, err := e.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("rebuild %s: %w", d.Name, err)
	}
	defer lock.Close()
	var mine bool
	if err := lock.QueryRowContext(ctx, `SELECT pg_try_advisory_lock(hashtextextended($1, 0))`, e.live(d)+".rebuild").Scan(&mine); err != nil {
		return fmt.Errorf("rebuild %s: %w", d.Name, err)
	}
	if !mine {
		return fmt.Errorf("rebuild %s: another process is at it", d.Name)
	}
	defer lock.ExecContext(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock(hashtextextended($1, 0))`, e.live(d)+".rebuild") //nolint:errcheck // the session ends anyway

	shadow := e.live(d) + "__next"
	cursor := "rebuild." + d.Name
	position, err := e.prepareShadow(ctx, d, shadow, cursor)
	if err != nil {
		return fmt.Errorf("rebuild %s: %w", d.Name, err)
	}
	start, began := time.Now(), position //nolint:forbidigo // measures how long it took; nothing is decided by it
	for {
		head, err := schema.Head(ctx, e.db)
		if err != nil {
			return fmt.Errorf("rebuild %s: %w", d.Name, err)
		}
		if head-position <= o.Slice/10 {
			break // the rest goes with the swap
		}
		to := min(position+o.Slice, head)
		if err := e.buildSlice(ctx, d, shadow, cursor, schema.Slice{From: position, To: to}); err != nil {
			return fmt.Errorf("rebuild %s: %w", d.Name, err)
		}
		position = to
		if o.Progress != nil {
			p := Progress{Done: position, Total: head}
			if took := time.Since(start).Seconds(); took > 0 {
				p.Rate = float64(position-began) / took
				p.Left = time.Duration(float64(head-position) / p.Rate * float64(time.Second))
			}
			o.Progress(p)
		}
	}
	if err := e.swap(ctx, d, shadow, cursor); err != nil {
		return fmt.Errorf("rebuild %s: swap: %w", d.Name, err)
	}
	e.log.InfoContext(ctx, "projection rebuilt", slog.String("projection", d.Name), slog.Int64("position", position), slog.Duration("took", time.Since(start)))
	return nil
}

// prepareShadow gives the position that the shadow stands at: 0 for a new one.
func (e *Engine) prepareShadow(ctx context.Context, d Definition, shadow, cursor string) (position int64, err error) {
	tx, err := e.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback()
	var digest sql.NullString
	err = tx.QueryRowContext(ctx, `SELECT s.position, obj_description(to_regnamespace($2), 'pg_namespace')
		FROM subscriptions s WHERE s.name = $1 AND to_regnamespace($2) IS NOT NULL`, cursor, shadow).Scan(&position, &digest)
	if err == nil && digest.String == fmt.Sprintf("%x", d.Digest) {
		return position, nil
	}
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, err
	}
	if _, err := tx.ExecContext(ctx, "DROP SCHEMA IF EXISTS "+pq.QuoteIdentifier(shadow)+" CASCADE"); err != nil {
		return 0, err
	}
	if err := e.create(ctx, tx, shadow, d); err != nil {
		return 0, err
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("COMMENT ON SCHEMA %s IS '%x'", pq.QuoteIdentifier(shadow), d.Digest)); err != nil {
		return 0, err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO subscriptions (name, position, state) VALUES ($1, 0, 'paused')
		ON CONFLICT (name) DO UPDATE SET position = 0`, cursor); err != nil {
		return 0, err
	}
	return 0, tx.Commit()
}

// buildSlice applies a slice to the shadow and moves its cursor, in one transaction.
func (e *Engine) buildSlice(ctx context.Context, d Definition, shadow, cursor string, s schema.Slice) error {
	tx, err := e.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	failure, err := schema.Attempt(ctx, tx, s, func(ctx context.Context, tx *sql.Tx, s schema.Slice) error {
		return e.apply(ctx, tx, shadow, d, s)
	})
	if err != nil {
		return err
	}
	if failure != nil {
		return fmt.Errorf("event %d: %w", failure.Position, failure.Err)
	}
	if _, err := tx.ExecContext(ctx, `UPDATE subscriptions SET position = $2, updated_at = clock_timestamp() WHERE name = $1`, cursor, s.To); err != nil {
		return err
	}
	return tx.Commit()
}

// swap brings the shadow to where the live projection stands, while that holds still, and puts it in its place.
func (e *Engine) swap(ctx context.Context, d Definition, shadow, cursor string) error {
	tx, err := e.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var live, built int64
	if err := tx.QueryRowContext(ctx, `SELECT position FROM subscriptions WHERE name = $1 FOR UPDATE`, d.SubscriptionName()).Scan(&live); err != nil {
		return err
	}
	if err := tx.QueryRowContext(ctx, `SELECT position FROM subscriptions WHERE name = $1 FOR UPDATE`, cursor).Scan(&built); err != nil {
		return err
	}
	if built < live {
		failure, err := schema.Attempt(ctx, tx, schema.Slice{From: built, To: live}, func(ctx context.Context, tx *sql.Tx, s schema.Slice) error {
			return e.apply(ctx, tx, shadow, d, s)
		})
		if err != nil {
			return err
		}
		if failure != nil {
			return fmt.Errorf("event %d: %w", failure.Position, failure.Err)
		}
		built = live
	}
	old := e.live(d) + "__old"
	q := pq.QuoteIdentifier
	for _, statement := range []string{
		"DROP SCHEMA IF EXISTS " + q(old) + " CASCADE",
		"ALTER SCHEMA " + q(e.live(d)) + " RENAME TO " + q(old),
		"ALTER SCHEMA " + q(shadow) + " RENAME TO " + q(e.live(d)),
		"COMMENT ON SCHEMA " + q(e.live(d)) + " IS NULL",
		"DROP SCHEMA " + q(old) + " CASCADE",
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, `SELECT move_cursor($1, $2)`, d.SubscriptionName(), built); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM subscriptions WHERE name = $1`, cursor); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE projections SET version = $2, digest = $3, built_at = clock_timestamp() WHERE name = $1`,
		d.Name, d.Version, d.Digest[:]); err != nil {
		return err
	}
	return tx.Commit()
}
