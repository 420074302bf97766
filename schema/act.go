package schema

import (
	"context"
	"database/sql"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// Act does something and records it, in one transaction: neither is there without the other. by says who does it, from where
// and when; what was done is what do returns.
func (l *Ledger) Act(ctx context.Context, by domain.Event, do func(*sql.Tx) (domain.Payload, error)) error {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	payload, err := do(tx)
	if err != nil {
		return err
	}
	e, _, err := domain.New(uuid.New(), payload)
	if err != nil {
		return err
	}
	e.Actor, e.Source, e.OccurredAt = by.Actor, by.Source, by.OccurredAt
	if _, err := l.AppendTx(ctx, tx, e); err != nil {
		return err
	}
	return tx.Commit()
}

// IDs reads what a query gives in its one column.
func IDs(ctx context.Context, q Querier, query string, args ...any) (ids []uuid.UUID, err error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id uuid.UUID
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}
