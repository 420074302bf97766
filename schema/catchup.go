package schema

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/lib/pq"
)

const (
	whileOthers  = 5 * time.Millisecond // how soon CatchUp looks again at a subscription that another process is at
	catchUpTries = 6                    // of a slice, where the database is the reason that it fails
)

// CatchUp handles what a subscription has not handled yet of the ledger up to a position, here and now: for a program that
// keeps nothing running, and cannot go on before it is done. Each slice is one transaction, as by a Topic, and the two may be
// at one subscription together: what another process has hold of is waited for.
//
// A subscription that is parked, or that the handler parks, is left there. One that comes after others only gets as far as
// they are: bring those up first.
func (l *Ledger) CatchUp(ctx context.Context, db *sql.DB, s Subscription, handle SliceHandler, upTo int64, log *slog.Logger) error {
	if s.Limit <= 0 {
		s.Limit = 1000
	}
	if err := s.create(ctx, db); err != nil {
		return err
	}
	for {
		var behind bool
		err := db.QueryRowContext(ctx, `SELECT position < $2 FROM subscriptions WHERE name = $1 AND state = 'running'`, s.Name, upTo).Scan(&behind)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("catch up %s: %w", s.Name, unavailable(err))
		}
		if !behind {
			return nil
		}
		worked, err := backoff.Retry(ctx, func() (bool, error) {
			worked, err := l.catchUpSlice(ctx, db, s, handle, log)
			if err != nil && !Transient(err) {
				err = backoff.Permanent(err)
			}
			return worked, err
		}, backoff.WithMaxTries(catchUpTries))
		if err != nil {
			return fmt.Errorf("catch up %s: %w", s.Name, err)
		}
		if worked {
			l.bell.ring(s.Appends...)
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(whileOthers):
		}
	}
}

// catchUpSlice handles one slice. It reports false when the subscription is not to be had.
func (l *Ledger) catchUpSlice(ctx context.Context, db *sql.DB, s Subscription, handle SliceHandler, log *slog.Logger) (worked bool, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return false, unavailable(err)
	}
	defer tx.Rollback()
	var slice Slice
	var types pq.StringArray
	var moved bool
	err = tx.QueryRowContext(ctx, selectSlice, s.Name, s.Limit, pq.Array(s.After), pq.Array(make([]string, len(s.After))), len(s.Appends) == 0, pq.Array(s.Types), true).Scan(&slice.From, &slice.To, &types, &moved)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, unavailable(err)
	}
	if moved {
		return true, unavailable(tx.Commit())
	}
	slice.Types = types
	if err := handleSlice(ctx, tx, s, slice, handle, log); err != nil {
		return false, err
	}
	if _, err := tx.ExecContext(ctx, moveCursor, s.Name, slice.To); err != nil {
		return false, unavailable(err)
	}
	if err := tx.Commit(); err != nil {
		return false, unavailable(err)
	}
	return true, nil
}

// handleSlice runs a handler over a slice, and parks the subscription at an event that it cannot take. An error leaves the
// transaction to be rolled back, and the slice to come again.
func handleSlice(ctx context.Context, tx *sql.Tx, s Subscription, slice Slice, handle SliceHandler, log *slog.Logger) error {
	if len(s.Types) > 0 && !slice.MayHold(s.Types...) {
		return nil // there is nothing to do, and so nothing that the fence would keep from being done without acknowledgement
	}
	failure, err := AttemptSkipping(ctx, tx, s.Name, slice, handle)
	switch {
	case err != nil:
		return err
	case failure == nil:
		return fence(ctx, tx, s.Name, slice.To)
	}
	log.ErrorContext(ctx, "subscription parked", slog.String("subscription", s.Name), slog.Int64("position", failure.Position), slog.Any("error", failure.Err))
	return park(ctx, tx, s.Name, failure)
}
