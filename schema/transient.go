package schema

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/lib/pq"
)

// Transient reports whether an error says something about the database's health or the moment, and nothing about
// what was asked: a lost connection, a server that starts or stops, a deadlock, a full disk. Trying again may succeed.
func Transient(err error) bool {
	if err == nil {
		return false
	}
	var pqErr *pq.Error
	if errors.As(err, &pqErr) {
		switch pqErr.Code.Class() {
		case "08", // connection
			"40", // serialization, deadlock
			"53", // resources
			"55", // locks not available in time
			"57", // shutdown, crash, starting up, statement cancelled
			"58": // system error outside PostgreSQL
			return true
		}
		return false
	}
	var netErr net.Error
	return errors.As(err, &netErr) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, syscall.ENOENT) || // the socket of a server that is not up yet
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, ErrUnavailable)
}

// patience is how long a process that starts waits for a database that has gone away meanwhile.
const patience = 2 * time.Minute

// Patiently does what a process needs of the database before it can work, again while the database is away: one that restarts
// at that moment must not end the process. It gives up after two minutes, when ctx ends, and at once at any other error.
func Patiently[T any](ctx context.Context, do func(context.Context) (T, error)) (T, error) {
	growing := backoff.NewExponentialBackOff()
	growing.InitialInterval, growing.MaxInterval = 100*time.Millisecond, 2*time.Second
	return backoff.Retry(ctx, func() (T, error) {
		v, err := do(ctx)
		if err != nil && !Transient(err) {
			return v, backoff.Permanent(err)
		}
		return v, err
	}, backoff.WithBackOff(growing), backoff.WithMaxElapsedTime(patience))
}
