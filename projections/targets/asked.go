package targets

import (
	"context"
	"fmt"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Asked lists what the targets that are not deleted ask consent for, each channel and purpose once. Modes are left out.
func Asked(ctx context.Context, q schema.Querier) ([]domain.ConsentRule, error) {
	rows, err := q.QueryContext(ctx, `
		SELECT DISTINCT config->'consent'->>'channel', config->'consent'->>'purpose' FROM targets
		WHERE state <> 'deleted' AND config->'consent'->>'channel' IS NOT NULL`)
	if err != nil {
		return nil, fmt.Errorf("targets: %w", err)
	}
	defer rows.Close()
	var rules []domain.ConsentRule
	for rows.Next() {
		var r domain.ConsentRule
		if err := rows.Scan(&r.Channel, &r.Purpose); err != nil {
			return nil, fmt.Errorf("targets: %w", err)
		}
		rules = append(rules, r)
	}
	return rules, rows.Err()
}
