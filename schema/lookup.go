package schema

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"

	"github.com/google/uuid"
	"github.com/pressly/goose/v3"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// EventByID reads the event with an id, or ErrNotFound. Each partition has an index on ids, so it costs one probe a
// partition.
func EventByID(ctx context.Context, q Querier, id uuid.UUID) (domain.Recorded, error) {
	e, err := scanEvent(q.QueryRowContext(ctx, "SELECT "+eventColumns+" FROM events WHERE id = $1", id))
	if errors.Is(err, sql.ErrNoRows) {
		return domain.Recorded{}, fmt.Errorf("event %s: %w", id, ErrNotFound)
	}
	return e, err
}

// ErrNotMigrated is a database whose tables are not this program's version.
var ErrNotMigrated = errors.New("the database is not migrated to this program's version")

// Migrated reports whether the ledger on db's search path stands at this program's version, as ErrNotMigrated if not.
func Migrated(ctx context.Context, q Querier) error {
	entries, err := fs.ReadDir(Migrations(), ".")
	if err != nil {
		return err
	}
	var want, have int64
	for _, entry := range entries {
		version, err := goose.NumericComponent(entry.Name())
		if err != nil {
			return err
		}
		want = max(want, version)
	}
	if err := q.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied`).Scan(&have); err != nil {
		return unavailable(err)
	}
	switch {
	case have < want:
		return fmt.Errorf("%w: it is at %d, not %d; run 'dispatch-ledger migrate'", ErrNotMigrated, have, want)
	case have > want:
		return fmt.Errorf("%w: it is at %d, later than %d; run a later version of the program", ErrNotMigrated, have, want)
	}
	return nil
}
