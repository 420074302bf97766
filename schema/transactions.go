package schema

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/lib/pq"
)

// ErrPooler is a URL that leads to a connection pooler where a session of PostgreSQL is needed.
var ErrPooler = errors.New("this database URL leads to a connection pooler such as PgBouncer, which keeps no session for its clients: give the pooler's as --database-url and the server's own as --session-database-url")

// Direct is the pool for what needs a session: settings and statements that outlast a transaction, locks of a session,
// LISTEN. It is db itself, unless db goes through a pooler.
func Direct(db *sql.DB) *sql.DB {
	if t, ok := db.Driver().(*transactions); ok {
		return t.direct
	}
	return db
}

// sessionConnector opens connections that are sessions of PostgreSQL, and notices when they are not.
type sessionConnector struct {
	*pq.Connector
	path string // the search path that was asked for
}

// Connect opens a connection. It fails with ErrPooler where a pooler refuses what a session begins with, or drops it.
func (c sessionConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		var pqErr *pq.Error
		if errors.As(err, &pqErr) && strings.Contains(pqErr.Message, "unsupported startup parameter") {
			return nil, fmt.Errorf("%w (it says: %s)", ErrPooler, pqErr.Message)
		}
		return nil, err
	}
	path, err := searchPath(ctx, conn)
	if err == nil && path != c.path {
		err = ErrPooler
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func searchPath(ctx context.Context, conn driver.Conn) (string, error) {
	rows, err := conn.(pqConn).QueryContext(ctx, "SHOW search_path", nil)
	if err != nil {
		return "", err
	}
	path := make([]driver.Value, 1)
	err = errors.Join(rows.Next(path), rows.Close())
	return fmt.Sprint(path[0]), err
}

// transactions connects through a pooler that lends a session of PostgreSQL for one transaction at a time. What a session
// would be told once, each transaction is told as it begins, in the same round trip; what is asked outside a transaction gets
// one of its own; and no statement stays prepared beyond the transaction that prepared it.
type transactions struct {
	*pq.Connector
	settings string  // statements after BEGIN
	direct   *sql.DB // past the pooler
}

// Connect opens a connection to the pooler.
func (t *transactions) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := t.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &lentConn{pqConn: conn.(pqConn), settings: t.settings}, nil
}

// Driver is how Direct finds the other pool.
func (t *transactions) Driver() driver.Driver { return t }

// Open is not how connections are opened.
func (t *transactions) Open(string) (driver.Conn, error) { return t.Connect(context.Background()) }

// Close closes the other pool when this one is closed.
func (t *transactions) Close() error { return t.direct.Close() }

// pqConn is what lib/pq's connections can do.
type pqConn interface {
	driver.Conn
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.QueryerContext
	driver.SessionResetter
	driver.Tx
	driver.Validator
}

// pqRows is what lib/pq's rows can do.
type pqRows interface {
	driver.RowsColumnTypeDatabaseTypeName
	driver.RowsColumnTypeLength
	driver.RowsColumnTypePrecisionScale
	driver.RowsColumnTypeScanType
	driver.RowsNextResultSet
}

// lentConn is a connection to the pooler.
type lentConn struct {
	pqConn
	settings string
	within   bool          // a transaction
	prepared []driver.Stmt // in it
}

// enter begins a transaction.
func (c *lentConn) enter(ctx context.Context, mode string) error {
	if _, err := c.pqConn.ExecContext(ctx, "BEGIN"+mode+c.settings, nil); err != nil {
		if c.IsValid() {
			_ = c.pqConn.Rollback() // it may have begun; otherwise the connection counts as bad from here on
		}
		return err
	}
	c.within = true
	return nil
}

// leave ends the transaction: it is committed unless something failed in it.
func (c *lentConn) leave(failed error) error {
	for _, s := range c.prepared {
		_ = s.Close() // while it is the same session that it was prepared in
	}
	c.within, c.prepared = false, nil
	if failed == nil {
		return c.pqConn.Commit()
	}
	if c.IsValid() {
		_ = c.pqConn.Rollback() // or the connection is bad and dropped, which does the same
	}
	return failed
}

// BeginTx begins a transaction.
func (c *lentConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	mode := ""
	if o.Isolation != 0 {
		mode = " ISOLATION LEVEL " + sql.IsolationLevel(o.Isolation).String()
	}
	if o.ReadOnly {
		mode += " READ ONLY"
	}
	if err := c.enter(ctx, mode); err != nil {
		return nil, err
	}
	return lentTx{c}, nil
}

// errRolledBack is why a transaction is not committed.
var errRolledBack = errors.New("rolled back")

// lentTx is a transaction that somebody began.
type lentTx struct{ c *lentConn }

func (t lentTx) Commit() error { return t.c.leave(nil) }

func (t lentTx) Rollback() error {
	if err := t.c.leave(errRolledBack); !errors.Is(err, errRolledBack) {
		return err
	}
	return nil
}

// ExecContext executes in the transaction at hand, or in one of its own.
func (c *lentConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if c.within {
		return c.pqConn.ExecContext(ctx, query, args)
	}
	if err := c.enter(ctx, ""); err != nil {
		return nil, err
	}
	result, err := c.pqConn.ExecContext(ctx, query, args)
	return result, c.leave(err)
}

// QueryContext asks in the transaction at hand, or in one of its own that ends with the rows.
func (c *lentConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if c.within {
		return c.pqConn.QueryContext(ctx, query, args)
	}
	if err := c.enter(ctx, ""); err != nil {
		return nil, err
	}
	rows, err := c.pqConn.QueryContext(ctx, query, args)
	return c.lend(rows, err)
}

// lend gives rows whose end is that of the transaction.
func (c *lentConn) lend(rows driver.Rows, err error) (driver.Rows, error) {
	if err != nil {
		return nil, c.leave(err)
	}
	return &lentRows{pqRows: rows.(pqRows), c: c}, nil
}

// PrepareContext prepares in the transaction at hand; outside of one, at each use.
func (c *lentConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if !c.within {
		return lentStmt{c, query}, nil
	}
	s, err := c.pqConn.PrepareContext(ctx, query)
	if err == nil {
		c.prepared = append(c.prepared, s)
	}
	return s, err
}

// lentRows ends the transaction that was begun for it.
type lentRows struct {
	pqRows
	c      *lentConn
	failed error
	left   bool
}

// Next reads a row. Behind the last one the transaction is committed: whether it could be is part of the answer.
func (r *lentRows) Next(dest []driver.Value) error {
	err := r.pqRows.Next(dest)
	switch {
	case err == nil || errors.Is(err, io.EOF) && r.HasNextResultSet():
		return err
	case !errors.Is(err, io.EOF):
		r.failed = err
		return err
	}
	if left := r.leave(); left != nil {
		return left
	}
	return err
}

func (r *lentRows) leave() error {
	if r.left {
		return nil
	}
	r.left = true
	return r.c.leave(r.failed)
}

// Close reads what is left and commits, unless reading failed.
func (r *lentRows) Close() error {
	if r.left {
		return r.pqRows.Close()
	}
	if err := r.pqRows.Close(); err != nil && r.failed == nil {
		r.failed = err
	}
	return r.leave()
}

// lentStmt is a statement that is prepared anew in each transaction that it runs in.
type lentStmt struct {
	c     *lentConn
	query string
}

// NumInput leaves counting the arguments to PostgreSQL.
func (s lentStmt) NumInput() int { return -1 }

// Close has nothing to close.
func (s lentStmt) Close() error { return nil }

func (s lentStmt) prepare(ctx context.Context) (driver.Stmt, error) {
	if err := s.c.enter(ctx, ""); err != nil {
		return nil, err
	}
	p, err := s.c.PrepareContext(ctx, s.query)
	if err != nil {
		return nil, s.c.leave(err)
	}
	return p, nil
}

// ExecContext executes in a transaction of its own.
func (s lentStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	p, err := s.prepare(ctx)
	if err != nil {
		return nil, err
	}
	result, err := p.(driver.StmtExecContext).ExecContext(ctx, args)
	return result, s.c.leave(err)
}

// QueryContext asks in a transaction of its own, which ends with the rows.
func (s lentStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	p, err := s.prepare(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := p.(driver.StmtQueryContext).QueryContext(ctx, args)
	return s.c.lend(rows, err)
}

// Exec is ExecContext of an older driver.
func (s lentStmt) Exec([]driver.Value) (driver.Result, error) { return nil, driver.ErrSkip }

// Query is QueryContext of an older driver.
func (s lentStmt) Query([]driver.Value) (driver.Rows, error) { return nil, driver.ErrSkip }
