package schema

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// appendConns are a connection that appends and one that waits for the disk, opened together. A batch is flushed by
// the connection that was there before it was committed: after a crash in between, which may have taken the batch
// along, that connection is gone too, and nobody is told that the batch is safe.
type appendConns struct {
	call, flush preparedConn
	broken      atomic.Bool
}

// bounded has the server end a call that takes too long. A context with a deadline would do no more than ask it to, and costs two
// goroutines a call, in lib/pq and in database/sql: a tenth of what the service does for an event.
var bounded = fmt.Sprintf("SET statement_timeout = %d;", callTimeout.Milliseconds())

func (l *Ledger) connect() (*appendConns, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	c := &appendConns{
		call:  preparedConn{statement: appendCall, settings: bounded + "SET lock_timeout = '10s'; SET synchronous_commit = off"},
		flush: preparedConn{statement: flushCall, settings: bounded + "SET synchronous_commit = on"},
	}
	if err := errors.Join(c.flush.open(ctx, Direct(l.db)), c.call.open(ctx, Direct(l.db))); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *appendConns) close() {
	c.call.close()
	c.flush.close()
}

// appender commits what waits, batch after batch.
func (l *Ledger) appender() {
	var conns *appendConns
	for b := l.line.take(); b != nil; b = l.line.take() {
		for {
			if conns != nil && conns.broken.Load() {
				l.settled <- settled{conns: conns} // the last that the flusher hears of them
				conns = nil
			}
			fresh := conns == nil
			if fresh {
				var err error
				if conns, err = l.connect(); err != nil {
					refuse(b.requests, err)
					break
				}
			}
			err := l.commit(conns, b)
			if err == nil {
				break
			}
			conns.broken.Store(true)
			if fresh {
				refuse(b.requests, err)
				break
			}
			// The server may have been restarted since the last call, which a connection learns only when it is used. What
			// the call did after all, the next one finds by its ids.
		}
	}
	if conns != nil {
		conns.broken.Store(true)
		l.settled <- settled{conns: conns}
	}
}

// commit appends a batch in one call. When the call as a whole is refused for a reason that lies in one of the
// requests, each is tried alone, so that it fails none but itself.
//
// The commit does not wait for the disk, so the ledger's lock is not held while somebody else could be numbering. The
// flusher waits, and no caller is answered before. Whoever reads the events meanwhile and commits something that
// follows from them flushes them along: the write-ahead log is flushed in order. What is left to do for the answers is the
// flusher's too: until the next call is made the server has nothing to do.
//
// It returns an error when the database did not take the call, and nobody was answered.
func (l *Ledger) commit(conns *appendConns, b *batch) error {
	ctx := context.Background() // see bounded
	start := time.Now()         //nolint:forbidigo // measures how long it took; nothing is decided by it
	c, err := l.call(ctx, func(_ string, args ...any) (*sql.Rows, error) { return conns.call.stmt.QueryContext(ctx, args...) }, b)
	switch {
	case err == nil:
		l.metrics.seconds.Observe(time.Since(start).Seconds())
		l.bell.ring(b.types...)
		l.settled <- settled{c, conns}
	case Transient(err):
		return err
	case len(b.requests) > 1:
		for i, r := range b.requests {
			alone := newBatch()
			alone.add(r)
			if err := l.commit(conns, alone); err != nil {
				refuse(b.requests[i:], err)
				conns.broken.Store(true)
				return nil
			}
		}
	default:
		refuse(b.requests, err)
	}
	return nil
}

func refuse(requests []*request, err error) {
	for _, r := range requests {
		r.done <- answer{err: fmt.Errorf("append: %w", unavailable(err))}
	}
}

// flusher waits for the disk, once for all batches that were committed meanwhile, and answers their callers.
func (l *Ledger) flusher() {
	for first := range l.settled {
		waiting := []settled{first}
		for more := true; more; {
			select {
			case s, ok := <-l.settled:
				if more = ok; ok {
					waiting = append(waiting, s)
				}
			default:
				more = false
			}
		}
		var flushed *appendConns
		var err error
		for _, s := range waiting {
			if s.called == nil {
				s.conns.close()
				continue
			}
			if s.conns != flushed {
				flushed, err = s.conns, s.conns.wait()
			}
			if err != nil {
				refuse(s.requests, err)
				continue
			}
			for i, a := range s.answered() {
				s.requests[i].done <- a
			}
			l.line.done(s.batch)
		}
	}
}

// flushCall writes a record to the write-ahead log, so that its commit has something to wait for: itself, and so
// everything before it.
const flushCall = `SELECT pg_logical_emit_message(true, 'dispatch-ledger', '')`

// wait returns once everything that was committed before is on disk.
func (c *appendConns) wait() error {
	if _, err := c.flush.stmt.ExecContext(context.Background()); err != nil { // see bounded
		c.broken.Store(true)
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// preparedConn is a connection with one statement prepared on it.
type preparedConn struct {
	statement string
	settings  string // of the session, before anything else
	conn      *sql.Conn
	stmt      *sql.Stmt
}

func (a *preparedConn) close() {
	if a.stmt != nil {
		a.stmt.Close() // the connection goes with it
	}
	if a.conn != nil {
		Discard(a.conn)
	}
	a.conn, a.stmt = nil, nil
}

// open takes a connection and prepares it. After the database restarted, the pool may hold many that are dead, each of
// which it only notices when it is used.
func (a *preparedConn) open(ctx context.Context, db *sql.DB) (err error) {
	const deadAtMost = 100
	for range deadAtMost {
		if err = a.try(ctx, db); !errors.Is(err, driver.ErrBadConn) {
			return err
		}
	}
	return err
}

func (a *preparedConn) try(ctx context.Context, db *sql.DB) (err error) {
	if a.conn, err = db.Conn(ctx); err != nil {
		return err
	}
	if _, err := a.conn.ExecContext(ctx, a.settings); err != nil {
		a.close()
		return err
	}
	if a.stmt, err = a.conn.PrepareContext(ctx, a.statement); err != nil {
		a.close()
		return err
	}
	return nil
}
