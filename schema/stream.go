package schema

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// streamChunk is how many events one query of Stream reads: some megabytes, a fraction of a second.
const streamChunk = 16_384

// Stream reads the events after one position, up to another, as fast as they can be had: in short queries of a range each, in
// PostgreSQL's binary form. The ledger below the head never changes, so no snapshot has to hold them together. An event, its
// byte slices above all, is good until the next one. A position that is missing is an error that wraps ErrNotFound.
func Stream(ctx context.Context, db *sql.DB, from, to int64) iter.Seq2[*domain.Recorded, error] {
	return func(yield func(*domain.Recorded, error) bool) {
		query, err := db.PrepareContext(ctx, selectWire)
		if err != nil {
			yield(nil, fmt.Errorf("read events: %w", unavailable(err)))
			return
		}
		defer query.Close()
		next := from + 1
		for at := from; at < to; at += streamChunk {
			done, err := streamRange(ctx, query, at, min(at+streamChunk, to), &next, yield)
			if err == nil && !done && next != min(at+streamChunk, to)+1 {
				err = fmt.Errorf("event %d: %w", next, ErrNotFound)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if done {
				return
			}
		}
	}
}

func streamRange(ctx context.Context, query *sql.Stmt, from, to int64, next *int64, yield func(*domain.Recorded, error) bool) (done bool, err error) {
	rows, err := query.QueryContext(ctx, from, to)
	if err != nil {
		return false, fmt.Errorf("read events: %w", unavailable(err))
	}
	defer rows.Close()
	var w wireReader
	for rows.Next() {
		e, err := w.scan(rows)
		if err != nil {
			return false, err
		}
		if e.Position != *next {
			return false, fmt.Errorf("event %d: %w", *next, ErrNotFound)
		}
		*next++
		if !yield(e, nil) {
			return true, nil
		}
	}
	if err := rows.Err(); err != nil {
		return false, fmt.Errorf("read events: %w", unavailable(err))
	}
	return false, nil
}

// Restore puts events back as they were, positions and leaves included, into a table of the shape of events. It belongs to a
// transaction of the ledger's owner.
func Restore(ctx context.Context, tx *sql.Tx, table string, events iter.Seq2[*domain.Recorded, error]) (n int64, err error) {
	copying, err := tx.PrepareContext(ctx, pq.CopyIn(table, "position", "id", "type", "stream", "version", "subject", "channel", "purpose", "state", "target", "delivery_id", //nolint:sqlclosecheck,staticcheck // closed below, before it is told how it went; it quotes the names
		"occurred_at", "recorded_at", "actor", "source", "correlation_id", "causation_id", "data", "sealed", "leaf"))
	if err != nil {
		return 0, fmt.Errorf("restore: %w", unavailable(err))
	}
	defer copying.Close()
	for e, err := range events {
		if err != nil {
			return n, err
		}
		var sealed any
		if e.Sealed != nil {
			sealed = e.Sealed
		}
		_, err = copying.ExecContext(ctx, e.Position, e.ID.String(), e.Type, e.Stream, e.Version, idOrNull(e.Subject), orNull(e.Channel), orNull(e.Purpose), orNull(e.State),
			orNull(e.Target), idOrNull(e.DeliveryID), timeOrNull(e.OccurredAt), e.RecordedAt, e.Actor, e.Source, idOrNull(e.CorrelationID), idOrNull(e.CausationID),
			string(e.Data), sealed, e.Leaf)
		if err != nil {
			return n, fmt.Errorf("restore event %d: %w", e.Position, unavailable(err))
		}
		n++
	}
	if _, err := copying.ExecContext(ctx); err != nil {
		return n, fmt.Errorf("restore: %w", unavailable(err))
	}
	return n, nil
}

func idOrNull(id uuid.UUID) any {
	if id == uuid.Nil {
		return nil
	}
	return id.String()
}

func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}

func timeOrNull(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}
