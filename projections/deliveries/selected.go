package deliveries

import (
	"context"
	"fmt"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// SelectedMax is where Selected stops counting.
const SelectedMax = 1_000_000

// Selected says how many deliveries a filter selects, by outcome, whatever its Limit, and at most SelectedMax in all.
func Selected(ctx context.Context, q schema.Querier, f Filter) (map[domain.Outcome]int, error) {
	f.Limit = SelectedMax
	query, args := f.query()
	rows, err := q.QueryContext(ctx, `SELECT x.outcome, count(*) FROM (`+query+`) x GROUP BY x.outcome`, args...)
	if err != nil {
		return nil, fmt.Errorf("count deliveries: %w", err)
	}
	defer rows.Close()
	out := map[domain.Outcome]int{}
	for rows.Next() {
		var outcome domain.Outcome
		var n int
		if err := rows.Scan(&outcome, &n); err != nil {
			return nil, fmt.Errorf("count deliveries: %w", err)
		}
		out[outcome] = n
	}
	return out, rows.Err()
}
