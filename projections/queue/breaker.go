package queue

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Failed counts one more failure in a row of a target, over all processes, and gives the count.
func Failed(ctx context.Context, q schema.Querier, target string) (failures int, err error) {
	err = q.QueryRowContext(ctx, `INSERT INTO breakers AS b (target, failures) VALUES ($1, 1)
		ON CONFLICT (target) DO UPDATE SET failures = b.failures + 1 RETURNING failures`, target).Scan(&failures)
	if err != nil {
		return 0, fmt.Errorf("breaker of %s: %w", target, err)
	}
	return failures, nil
}

// Recovered ends a target's row of failures: it answered, or it was paused for them.
func Recovered(ctx context.Context, q schema.Querier, target string) error {
	if _, err := q.ExecContext(ctx, `UPDATE breakers SET failures = 0 WHERE target = $1 AND failures > 0`, target); err != nil {
		return fmt.Errorf("breaker of %s: %w", target, err)
	}
	return nil
}

// RetryTurn takes the next turn of a target whose retries have a budget, over all processes: not before the given time,
// and not before the retries that took theirs earlier have had it.
func RetryTurn(ctx context.Context, q schema.Querier, target string, notBefore time.Time, perSecond float64) (time.Time, error) {
	var turn sql.NullTime
	err := q.QueryRowContext(ctx, `INSERT INTO breakers AS b (target, retry_at) VALUES ($1, $2::timestamptz + make_interval(secs => $3))
		ON CONFLICT (target) DO UPDATE SET retry_at = greatest(b.retry_at, $2) + make_interval(secs => $3)
		RETURNING retry_at - make_interval(secs => $3)`, target, notBefore, 1/perSecond).Scan(&turn)
	if err != nil {
		return notBefore, fmt.Errorf("retry budget of %s: %w", target, err)
	}
	return turn.Time.UTC(), nil
}
