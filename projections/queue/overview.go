package queue

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Queued is what waits for a target, and what holds it.
type Queued struct {
	Depth
	Pause Pause // zero: nothing holds it
}

// Overview gives the targets for which something is queued, and those that are paused, by handle.
func Overview(ctx context.Context, q schema.Querier) ([]Queued, error) {
	rows, err := q.QueryContext(ctx, `
		SELECT coalesce(d.target, p.target), coalesce(d.queued, 0), coalesce(d.due, 0), d.oldest, coalesce(p.cause, ''), coalesce(p.reason, ''),
		       CASE WHEN isfinite(p.until) THEN p.until END, p.since, coalesce(p.pauses, 0)
		FROM (SELECT target, count(*) AS queued, count(*) FILTER (WHERE due_at <= clock_timestamp()) AS due, min(due_at) AS oldest FROM queue GROUP BY target) d
		FULL JOIN (SELECT * FROM pauses WHERE cause IS NOT NULL) p ON p.target = d.target
		ORDER BY 1`)
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	defer rows.Close()
	out := []Queued{}
	for rows.Next() {
		var x Queued
		var oldest, until, since sql.NullTime
		if err := rows.Scan(&x.Target, &x.Queued, &x.Due, &oldest, &x.Pause.Cause, &x.Pause.Reason, &until, &since, &x.Pause.Pauses); err != nil {
			return nil, fmt.Errorf("queue: %w", err)
		}
		x.Oldest, x.Pause.Until, x.Pause.Since = oldest.Time, until.Time, since.Time
		if x.Pause.Cause != "" {
			x.Pause.Target = x.Target
		}
		out = append(out, x)
	}
	return out, rows.Err()
}
