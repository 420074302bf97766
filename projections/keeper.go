package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// keeper gives what keeps a projection's live tables: its statements, or those of the version that the tables were built by
// when that is another one. So a newer program's statements never meet an older one's tables: these serve, and are kept,
// until a rebuild has swapped the new ones in.
func (e *Engine) keeper(d Definition) schema.SliceHandler {
	var standing atomic.Pointer[Definition] // what the live tables were last seen to be of
	standing.Store(&d)
	return func(ctx context.Context, tx *sql.Tx, s schema.Slice) error {
		now := standing.Load()
		err := e.applyIf(ctx, tx, place{schema: e.live(d)}, *now, s, e.standsAs(*now))
		if !isOutdated(err) {
			return err
		}
		if err := schema.Again(ctx, tx, s); err != nil {
			return err
		}
		other, err := e.standing(ctx, tx, d)
		if err != nil {
			return err
		}
		standing.Store(&other)
		return e.applyIf(ctx, tx, place{schema: e.live(d)}, other, s, e.standsAs(other))
	}
}

// standsAs is the statement that fails when the live tables are not of a definition.
func (e *Engine) standsAs(d Definition) string {
	return fmt.Sprintf("SELECT %s.check_projection(%s, '\\x%x');\n", pq.QuoteIdentifier(e.name), pq.QuoteLiteral(d.Name), d.Digest)
}

// isOutdated tells the failure of that statement.
func isOutdated(err error) bool {
	var pqErr *pq.Error
	return errors.As(err, &pqErr) && pqErr.Code == "LG001"
}

// standing is the definition that the live tables were built by.
func (e *Engine) standing(ctx context.Context, q schema.Querier, d Definition) (Definition, error) {
	var digest []byte
	var apply sql.NullString
	err := q.QueryRowContext(ctx, `SELECT version, digest, apply FROM projections WHERE name = $1`, d.Name).Scan(&d.Version, &digest, &apply)
	if err != nil {
		return d, fmt.Errorf("projection %s: %w", d.Name, err)
	}
	if len(digest) != len(d.Digest) {
		return d, fmt.Errorf("projection %s: its digest has %d bytes", d.Name, len(digest))
	}
	copy(d.Digest[:], digest)
	if apply.Valid {
		d.Source, d.Apply = apply.String, statements(apply.String)
	}
	return d, nil
}
