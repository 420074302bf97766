package schema

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"time"

	"github.com/lib/pq"
)

// TryLock makes this process the one that is at something, by a name that is the ledger's own. It reports false when
// somebody else is. The lock is a connection's: it goes when the process does.
func TryLock(ctx context.Context, db *sql.DB, name string) (unlock func(), locked bool, err error) {
	unlock, mine, err := TryLocks(ctx, db, name)
	return unlock, len(mine) == 1, err
}

// TryLocks is TryLock for several things by one connection: it says of which names this process is the one. unlock is never nil.
func TryLocks(ctx context.Context, db *sql.DB, names ...string) (unlock func(), mine []string, err error) {
	conn, err := Direct(db).Conn(ctx)
	if err != nil {
		return func() {}, nil, unavailable(err)
	}
	const key = `(hashtextextended(current_schema() || '.' || name, 0))`
	if err := conn.QueryRowContext(ctx, `SELECT coalesce(array_agg(name) FILTER (WHERE pg_try_advisory_lock`+key+`), '{}') FROM unnest($1::text[]) AS name`,
		pq.Array(names)).Scan(pq.Array(&mine)); err != nil || len(mine) == 0 {
		if err != nil {
			Discard(conn) // it may hold some of them
			return func() {}, nil, unavailable(err)
		}
		return func() {}, nil, conn.Close()
	}
	return func() {
		done, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if _, err := conn.ExecContext(done, `SELECT pg_advisory_unlock`+key+` FROM unnest($1::text[]) AS name`, pq.Array(mine)); err != nil {
			Discard(conn) // the locks must not go back to the pool
		}
		_ = conn.Close() // it goes back to the pool, or is gone
	}, mine, nil
}

// Held is an SQL expression that says whether somebody holds the lock of TryLock by a name, which is an SQL expression too. It is
// for telling who died at something from who is at it.
func Held(name string) string {
	return `EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
		AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
		AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended(current_schema() || '.' || ` + name + `, 0))`
}

// Discard closes a connection for good, so that what was set on it does not travel back into the pool.
func Discard(conn *sql.Conn) {
	conn.Raw(func(any) error { return driver.ErrBadConn }) //nolint:errcheck // which is how a connection is thrown away
	conn.Close()                                           // it is gone
}
