package schema

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// ErrArchive is an archive that cannot be detached, or attached, as things stand.
var ErrArchive = errors.New("the archive does not fit")

// Partition is a piece of the events table.
type Partition struct {
	From, To int64 // the events after From, up to To
	Full     bool  // it is not written to any more
}

// Partitions are those that the ledger has, the oldest first.
func Partitions(ctx context.Context, q Querier) ([]Partition, error) {
	rows, err := q.QueryContext(ctx, `SELECT first - 1, past - 1, EXISTS (SELECT FROM events WHERE position = past) FROM partitions ORDER BY first`)
	if err != nil {
		return nil, fmt.Errorf("partitions: %w", unavailable(err))
	}
	defer rows.Close()
	var all []Partition
	for rows.Next() {
		var p Partition
		if err := rows.Scan(&p.From, &p.To, &p.Full); err != nil {
			return nil, fmt.Errorf("partitions: %w", unavailable(err))
		}
		all = append(all, p)
	}
	return all, rows.Err()
}

// Detached is the position up to which events were archived, as the ledger's own events say; 0 when none were.
func Detached(ctx context.Context, q Querier) (int64, error) {
	archived, err := Archived(ctx, q)
	if err != nil || len(archived) == 0 {
		return 0, err
	}
	return archived[len(archived)-1].To, nil
}

// Archived lists what is detached now, the oldest first: what the ledger's own events say.
func Archived(ctx context.Context, q Querier) ([]domain.LedgerArchived, error) {
	var all []domain.LedgerArchived
	for e, err := range Events(ctx, q, Filter{Stream: domain.ArchiveStream}) {
		if err != nil {
			return nil, err
		}
		p, err := domain.Decode(e.Type, e.Data, nil)
		if err != nil {
			return nil, fmt.Errorf("event %d: %w", e.Position, err)
		}
		switch p := p.(type) {
		case domain.LedgerArchived:
			all = append(all, p)
		case domain.LedgerRestored:
			if n := len(all); n > 0 && all[n-1].From == p.From {
				all = all[:n-1]
			}
		}
	}
	return all, nil
}

// Detach takes the ledger's oldest partition out of the database and records that, in one transaction of its owner. Whoever calls it
// has proven the archive's files. The partition must be full, and the tree must have grown over its last tile and the tree's next one, so
// that every proof can be had without its rows.
func (l *Ledger) Detach(ctx context.Context, owner *sql.DB, a domain.LedgerArchived, actor string) error {
	size, err := TreeSize(ctx, owner)
	if err != nil {
		return err
	}
	if need := (a.To + tileWidth - 1) / tileWidth * tileWidth; size < need {
		return fmt.Errorf("%w: the tree holds %d events and must hold %d first", ErrArchive, size, need)
	}
	// In a transaction of its own, because nothing waits for it.
	if _, err := owner.ExecContext(ctx, `SELECT remember_partition($1)`, a.From+1); err != nil {
		return fmt.Errorf("%w: %w", ErrArchive, unavailable(err))
	}
	return l.asOwner(ctx, owner, a, actor, func(tx *sql.Tx) error {
		var past int64
		if err := tx.QueryRowContext(ctx, `SELECT past FROM partitions WHERE first = $1`, a.From+1).Scan(&past); err != nil {
			return fmt.Errorf("%w: no partition begins at %d", ErrArchive, a.From+1)
		}
		if past != a.To+1 {
			return fmt.Errorf("%w: the partition from %d ends at %d, and the archive at %d", ErrArchive, a.From+1, past-1, a.To)
		}
		if _, err := tx.ExecContext(ctx, `SELECT detach_partition($1)`, a.From+1); err != nil {
			return fmt.Errorf("%w: %w", ErrArchive, unavailable(err))
		}
		return nil
	})
}

// Attach puts a detached partition back, from the events of its archive, and records that. It must be the last one that was detached, so
// that the ledger has no hole. Whoever calls it has proven the events.
func (l *Ledger) Attach(ctx context.Context, owner *sql.DB, r domain.LedgerRestored, events iter.Seq2[*domain.Recorded, error], actor string) error {
	return l.asOwner(ctx, owner, r, actor, func(tx *sql.Tx) error {
		var table string
		if err := tx.QueryRowContext(ctx, `SELECT make_restored($1)`, r.From+1).Scan(&table); err != nil {
			return fmt.Errorf("%w: %w", ErrArchive, unavailable(err))
		}
		n, err := Restore(ctx, tx, table, events)
		if err != nil {
			return err
		}
		if n != r.To-r.From {
			return fmt.Errorf("%w: it holds %d events, and %d were detached", ErrArchive, n, r.To-r.From)
		}
		if _, err := tx.ExecContext(ctx, `SELECT attach_restored($1, $2)`, r.From+1, r.To+1); err != nil {
			return fmt.Errorf("%w: %w", ErrArchive, unavailable(err))
		}
		return nil
	})
}

// asOwner does something in a transaction of the owner and records it in the same.
func (l *Ledger) asOwner(ctx context.Context, owner *sql.DB, what domain.Payload, actor string, do func(*sql.Tx) error) error {
	tx, err := owner.BeginTx(ctx, nil)
	if err != nil {
		return unavailable(err)
	}
	defer tx.Rollback()
	// Readers and appends wait behind us while we wait for them: not for long.
	if _, err := tx.ExecContext(ctx, `SET LOCAL lock_timeout = '10s'`); err != nil {
		return unavailable(err)
	}
	if err := do(tx); err != nil {
		return err
	}
	event, _, err := domain.New(uuid.New(), what)
	if err != nil {
		return err
	}
	event.Actor, event.Source = actor, "/archive"
	if _, err := l.AppendTx(ctx, tx, event); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return unavailable(err)
	}
	l.bell.ring()
	return nil
}
