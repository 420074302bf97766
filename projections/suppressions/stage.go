package suppressions

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Row is what one page of a platform's list says about one address in one scope.
type Row struct {
	Scope     string // "" for the whole account, else kind:id
	Hash      []byte // of the address
	Gone      bool   // the platform says that it would send
	Reason    string
	Class     string
	Native    string
	At        time.Time
	Precision string
	Address   string // only of whom it would send to
}

// Stage adds a page to what a run has read. seq is the number of rows that were there before.
func Stage(ctx context.Context, tx *sql.Tx, run uuid.UUID, channel domain.Channel, seq int64, rows []Row) error {
	if len(rows) == 0 {
		return nil
	}
	// Losing the page loses nothing: it is unlogged, and the run counts what is there before it believes it.
	if _, err := tx.ExecContext(ctx, `SET LOCAL synchronous_commit = off`); err != nil {
		return fmt.Errorf("stage: %w", err)
	}
	stmt, err := tx.PrepareContext(ctx, pq.CopyIn("reconciled_rows", "run", "seq", "channel", "scope", "hash", "gone", "reason", "class", "native", "at", "precision", "address")) //nolint:staticcheck // it quotes the names
	if err != nil {
		return fmt.Errorf("stage: %w", err)
	}
	defer stmt.Close()
	id := run.String()
	for i := range rows {
		r := &rows[i]
		if _, err := stmt.ExecContext(ctx, id, seq+int64(i), string(channel), r.Scope, r.Hash, r.Gone, null(r.Reason), null(r.Class), null(r.Native), at(r.At), null(r.Precision), null(r.Address)); err != nil {
			return fmt.Errorf("stage: %w", err)
		}
	}
	if _, err := stmt.ExecContext(ctx); err != nil {
		return fmt.Errorf("stage: %w", err)
	}
	return nil
}

func null(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func at(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}

// Staged counts the rows of a run, of which a crash of the database leaves none.
func Staged(ctx context.Context, q schema.Querier, run uuid.UUID) (n int64, err error) {
	err = q.QueryRowContext(ctx, `SELECT count(*) FROM reconciled_rows WHERE run = $1`, run).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("staged rows: %w", err)
	}
	return n, nil
}

// Unstage forgets what a run has read, and what it made of it.
//
// Where no other run is under way the tables are emptied at once, whatever they hold: millions of deleted rows would stay in the
// way of whoever reads next. A run that begins at that very moment and loses a page finds that out, and reads again.
func Unstage(ctx context.Context, tx *sql.Tx, run uuid.UUID) error {
	var others bool
	err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM reconciliations WHERE id <> $1 AND (staged > 0 OR phase <> 'pull'))`, run).Scan(&others)
	if err != nil {
		return fmt.Errorf("forget the pages of a run: %w", err)
	}
	if !others {
		if _, err := tx.ExecContext(ctx, `TRUNCATE reconciled_rows, reconciled_state`); err != nil {
			return fmt.Errorf("forget the pages of a run: %w", err)
		}
		return nil
	}
	for _, query := range []string{`DELETE FROM reconciled_rows WHERE run = $1`, `DELETE FROM reconciled_state WHERE run = $1`} {
		if _, err := tx.ExecContext(ctx, query, run); err != nil {
			return fmt.Errorf("forget the pages of a run: %w", err)
		}
	}
	return nil
}
