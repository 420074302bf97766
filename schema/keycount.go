package schema

import (
	"context"
	"fmt"
)

// KeyCount says how many keys a vault holds.
type KeyCount struct {
	Subjects    int `json:"subjects"` // people with a key
	Erased      int `json:"erased"`   // people whose key is destroyed
	Periods     int `json:"periods"`  // event types and days with a key
	Ended       int `json:"ended"`    // event types and days whose key is destroyed
	Secrets     int `json:"secrets"`  // versions of named secrets
	WrappingKey int `json:"wrapping_key"`
}

// Count counts the vault's keys.
func (v *Vault) Count(ctx context.Context) (c KeyCount, err error) {
	err = v.db.QueryRowContext(ctx, `SELECT
		(SELECT count(*) FROM subject_keys WHERE erased_at IS NULL), (SELECT count(*) FROM subject_keys WHERE erased_at IS NOT NULL),
		(SELECT count(*) FROM period_keys WHERE destroyed_at IS NULL), (SELECT count(*) FROM period_keys WHERE destroyed_at IS NOT NULL),
		(SELECT count(*) FROM secret_versions), (SELECT max(id) FROM wrapping_keys)`).
		Scan(&c.Subjects, &c.Erased, &c.Periods, &c.Ended, &c.Secrets, &c.WrappingKey)
	if err != nil {
		return c, fmt.Errorf("count keys: %w", unavailable(err))
	}
	return c, nil
}
