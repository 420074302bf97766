package schema

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// ErrNotParked is a reader that is not parked where somebody wants it to go on.
var ErrNotParked = errors.New("the reader is not parked there")

// AttemptSkipping is Attempt for a named reader: it passes over an event at which the handler fails when an operator had
// the reader skip it. An event that the handler can take is never skipped, whatever was recorded.
func AttemptSkipping(ctx context.Context, tx *sql.Tx, reader string, slice Slice, handle SliceHandler) (*Failure, error) {
	for {
		failure, err := Attempt(ctx, tx, slice, handle)
		if err != nil || failure == nil {
			return nil, err
		}
		skip, err := skipped(ctx, tx, reader, failure.Position)
		switch {
		case err != nil:
			return nil, err
		case !skip:
			return failure, nil
		case failure.Position == slice.To:
			return nil, nil
		}
		slice = Slice{From: failure.Position, To: slice.To}
	}
}

// skipped reports whether an operator had a reader skip an event.
func skipped(ctx context.Context, q Querier, reader string, position int64) (yes bool, err error) {
	err = q.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM events WHERE stream = $1 AND type = 'reader.skipped' AND (data->>'position')::bigint = $2)`,
		domain.ReaderStream(reader), position).Scan(&yes)
	if err != nil {
		return false, fmt.Errorf("what %s skips: %w", reader, unavailable(err))
	}
	return yes, nil
}

// Skip has a parked reader pass over the event at which it fails, and records who decided that and why. Errors: ErrNotFound
// for no such reader; ErrNotParked when it is not parked at that position.
func (l *Ledger) Skip(ctx context.Context, reader string, position int64, actor, source, reason string) (Appended, error) {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return Appended{}, fmt.Errorf("skip: %w", unavailable(err))
	}
	defer tx.Rollback()
	id, err := parkedAt(ctx, tx, reader, position)
	if err != nil {
		return Appended{}, err
	}
	event, _, err := domain.New(uuid.New(), domain.ReaderSkipped{Reader: reader, Position: position, EventID: id, Reason: reason})
	if err != nil {
		return Appended{}, err
	}
	event.Actor, event.Source = actor, source
	if err := unpark(ctx, tx, reader); err != nil {
		return Appended{}, err
	}
	appended, err := l.AppendTx(ctx, tx, event)
	if err != nil {
		return Appended{}, err
	}
	if err := tx.Commit(); err != nil {
		return Appended{}, fmt.Errorf("skip: %w", unavailable(err))
	}
	l.bell.ring()
	return appended[0], nil
}

// Resume has a parked reader try again the event at which it failed, after the cause was mended. Errors as of Skip.
func (l *Ledger) Resume(ctx context.Context, reader string) error {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("resume: %w", unavailable(err))
	}
	defer tx.Rollback()
	if _, err := parkedAt(ctx, tx, reader, 0); err != nil {
		return err
	}
	if err := unpark(ctx, tx, reader); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("resume: %w", unavailable(err))
	}
	l.bell.ring()
	return nil
}

// parkedAt locks a reader's cursor and gives the id of the event that it is parked at, which must be the one at position;
// 0 is wherever it is.
func parkedAt(ctx context.Context, tx *sql.Tx, reader string, position int64) (id uuid.UUID, err error) {
	var state string
	var at sql.NullInt64
	err = tx.QueryRowContext(ctx, `SELECT state, error_position FROM subscriptions WHERE name = $1 FOR UPDATE`, reader).Scan(&state, &at)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return id, fmt.Errorf("reader %q: %w; dispatch-ledger projections lists them", reader, ErrNotFound)
	case err != nil:
		return id, fmt.Errorf("reader %s: %w", reader, unavailable(err))
	case state != "parked":
		return id, fmt.Errorf("%w: %s is %s", ErrNotParked, reader, state)
	case position != 0 && at.Int64 != position:
		return id, fmt.Errorf("%w: %s is parked at event %d, not at %d", ErrNotParked, reader, at.Int64, position)
	}
	err = tx.QueryRowContext(ctx, `SELECT id FROM events WHERE position = $1`, at.Int64).Scan(&id)
	return id, unavailable(err)
}

func unpark(ctx context.Context, tx *sql.Tx, reader string) error {
	_, err := tx.ExecContext(ctx, `UPDATE subscriptions SET state = 'running', error = NULL, error_position = NULL, updated_at = clock_timestamp() WHERE name = $1`, reader)
	return unavailable(err)
}
