package schema

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"

	wsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/lib/pq"
)

// SliceHandler has its effects in tx and nowhere else. It may be called again for the same slice, or for a part
// of it, after its effects were rolled back.
type SliceHandler func(ctx context.Context, tx *sql.Tx, s Slice) error

// Handler runs a SliceHandler as the handler of a subscription's messages, each attempt under a savepoint.
//
// An error that says something about the moment (Transient) rolls the transaction back, and the slice comes again.
// Any other is taken to be about an event: the slice is bisected to the first event at which the handler fails,
// what comes before it takes effect, and the subscription is parked there, with the reason. No event is ever skipped.
//
// The message is never nacked: watermill-sql would send it again inside the same, perhaps broken, transaction. A
// transaction that was rolled back cannot be acknowledged either, so the subscriber gives it up and reads anew.
func (t *Topic) Handler(s Subscription, handle SliceHandler) message.NoPublishHandlerFunc {
	return func(msg *message.Message) error {
		ctx := msg.Context()
		slice, err := SliceOf(msg)
		if err != nil {
			return err
		}
		tx, ok := wsql.TxFromContext(ctx)
		if !ok {
			return errors.New("the message carries no transaction")
		}
		if err := handleSlice(ctx, tx, s, slice, handle, t.log); err != nil {
			t.log.WarnContext(ctx, "slice given up; it comes again", slog.String("subscription", s.Name), slog.String("slice", slice.String()), slog.Any("error", err))
			tx.Rollback() // a connection that is gone has rolled back already
		}
		return nil
	}
}

// Failure is the first event at which a handler fails.
type Failure struct {
	Position int64 // of that event; everything before it has taken effect
	Tries    int   // how often the handler was run to find it
	Err      error
}

// Attempt runs the handler over a slice inside tx, under a savepoint. When it fails for a reason that lies in an
// event, the part of the slice before that event has taken effect and the failure is returned. An error is
// transient, and leaves the transaction to be rolled back.
func Attempt(ctx context.Context, tx *sql.Tx, slice Slice, handle SliceHandler) (*Failure, error) {
	tries := 0
	try := func(piece Slice) error {
		tries++
		return attempt(ctx, tx, piece, handle)
	}
	err := try(slice)
	if err == nil {
		return nil, nil
	}
	if Transient(err) || ctx.Err() != nil {
		return nil, err
	}
	// Everything up to done has taken effect; the handler failed on a slice that ends at failed.
	done, failed := slice.From, slice.To
	for failed-done > 1 {
		middle := done + (failed-done)/2
		switch err := try(Slice{From: done, To: middle}); {
		case err == nil:
			done = middle
		case Transient(err) || ctx.Err() != nil:
			return nil, err
		default:
			failed = middle
		}
	}
	switch err := try(Slice{From: done, To: failed}); {
	case err == nil && failed == slice.To:
		return nil, nil // it passes in pieces: there is no event at fault
	case err == nil:
		return Attempt(ctx, tx, Slice{From: failed, To: slice.To}, handle)
	case Transient(err) || ctx.Err() != nil:
		return nil, err
	default:
		return &Failure{Position: failed, Tries: tries, Err: err}, nil
	}
}

// attempt runs the handler once under a savepoint, and rolls back to it when the handler fails or panics.
func attempt(ctx context.Context, tx *sql.Tx, slice Slice, handle SliceHandler) (err error) {
	// Without arguments, several statements travel in one round trip.
	if _, err := tx.ExecContext(ctx, "SAVEPOINT attempt; "+slice.bounds()); err != nil {
		return err
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		end := "RELEASE SAVEPOINT attempt"
		if err != nil {
			end = "ROLLBACK TO SAVEPOINT attempt; RELEASE SAVEPOINT attempt"
		}
		if _, endErr := tx.ExecContext(context.WithoutCancel(ctx), end); endErr != nil {
			err = errors.Join(err, fmt.Errorf("%w: %w", ErrUnavailable, endErr))
		}
	}()
	return handle(ctx, tx, slice)
}

// Again undoes what a handler did in its present attempt, so that it may try in another way.
func Again(ctx context.Context, tx *sql.Tx, slice Slice) error {
	_, err := tx.ExecContext(ctx, "ROLLBACK TO SAVEPOINT attempt; "+slice.bounds())
	return err
}

// fence makes the commit depend on the cursor standing at position.
func fence(ctx context.Context, tx *sql.Tx, name string, position int64) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO fences (name, position) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET position = excluded.position`, name, position)
	if err != nil {
		return fmt.Errorf("fence: %w", unavailable(err))
	}
	return nil
}

// park stops the subscription just before the event at fault.
func park(ctx context.Context, tx *sql.Tx, name string, f *Failure) error {
	_, err := tx.ExecContext(ctx, `UPDATE subscriptions SET position = $2, state = 'parked', error = $3, error_position = $4,
		updated_at = clock_timestamp() WHERE name = $1`, name, f.Position-1, describe(f.Err), f.Position)
	if err != nil {
		return fmt.Errorf("park %s: %w", name, unavailable(err))
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO failures (reader, position, error, tries) VALUES ($1, $2, $3, $4)`, name, f.Position, describe(f.Err), f.Tries)
	if err != nil {
		return fmt.Errorf("park %s: %w", name, unavailable(err))
	}
	return fence(ctx, tx, name, f.Position-1)
}

// describe says what PostgreSQL said, with its detail and the statement's place.
func describe(err error) string {
	text := err.Error()
	var pqErr *pq.Error
	if errors.As(err, &pqErr) {
		if pqErr.Detail != "" && !strings.Contains(text, pqErr.Detail) {
			text += "; " + pqErr.Detail
		}
		if pqErr.Where != "" {
			text += "; " + pqErr.Where
		}
	}
	const longest = 2000
	if len(text) > longest {
		text = text[:longest] + "…"
	}
	return text
}
