package schema

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"time"
)

// TryLock makes this process the one that is at something, by a name that is the ledger's own. It reports false when
// somebody else is. The lock is a connection's: it goes when the process does.
func TryLock(ctx context.Context, db *sql.DB, name string) (unlock func(), locked bool, err error) {
	conn, err := Direct(db).Conn(ctx)
	if err != nil {
		return nil, false, unavailable(err)
	}
	const key = `(hashtextextended(current_schema() || '.' || $1, 0))`
	if err := conn.QueryRowContext(ctx, `SELECT pg_try_advisory_lock`+key, name).Scan(&locked); err != nil || !locked {
		return nil, false, errors.Join(unavailable(err), conn.Close())
	}
	return func() {
		done, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if _, err := conn.ExecContext(done, `SELECT pg_advisory_unlock`+key, name); err != nil {
			Discard(conn) // the lock must not go back to the pool
		}
		_ = conn.Close() // it goes back to the pool, or is gone
	}, true, nil
}

// Discard closes a connection for good, so that what was set on it does not travel back into the pool.
func Discard(conn *sql.Conn) {
	conn.Raw(func(any) error { return driver.ErrBadConn }) //nolint:errcheck // which is how a connection is thrown away
	conn.Close()                                           // it is gone
}
