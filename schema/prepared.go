package schema

import (
	"context"
	"database/sql"
	"sync"
)

// Prepared asks the database with statements that it prepares at their first use, so that what is asked again and again is
// parsed and planned once on each connection. It is for the program's own few queries: a statement is kept as long as the
// pool, unless it fails. Through a pooler, where nothing stays prepared, it asks without.
type Prepared struct {
	db         *sql.DB
	lent       bool // db goes through a pooler
	mu         sync.Mutex
	statements map[string]*sql.Stmt
}

var (
	_ Querier = (*Prepared)(nil)
	_ Querier = within{}
)

// NewPrepared prepares on db's connections.
func NewPrepared(db *sql.DB) *Prepared {
	return &Prepared{db: db, lent: Direct(db) != db, statements: map[string]*sql.Stmt{}}
}

// In asks inside a transaction, which should be of the same pool: of another it prepares each time.
func (p *Prepared) In(tx *sql.Tx) Querier {
	if p.lent {
		return tx
	}
	return within{p, tx}
}

func (p *Prepared) statement(ctx context.Context, query string) (*sql.Stmt, error) {
	p.mu.Lock()
	s, ok := p.statements[query]
	p.mu.Unlock()
	if ok {
		return s, nil
	}
	s, err := p.db.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if earlier, there := p.statements[query]; there {
		defer s.Close() // another goroutine was first
		return earlier, nil
	}
	p.statements[query] = s
	return s, nil
}

// forget drops a statement that failed: what it was planned on may have been replaced.
func (p *Prepared) forget(query string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.statements[query]; ok {
		delete(p.statements, query)
		s.Close()
	}
}

// QueryContext is that of sql.DB.
func (p *Prepared) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if p.lent {
		return p.db.QueryContext(ctx, query, args...)
	}
	s, err := p.statement(ctx, query) //nolint:sqlclosecheck // statements are kept
	if err != nil {
		return nil, err
	}
	rows, err := s.QueryContext(ctx, args...)
	if err != nil && ctx.Err() == nil {
		p.forget(query)
	}
	return rows, err
}

// QueryRowContext is that of sql.DB.
func (p *Prepared) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if p.lent {
		return p.db.QueryRowContext(ctx, query, args...)
	}
	s, err := p.statement(ctx, query) //nolint:sqlclosecheck // statements are kept
	if err != nil {
		return p.db.QueryRowContext(ctx, query, args...) // which says why
	}
	return s.QueryRowContext(ctx, args...)
}

// ExecContext is that of sql.DB.
func (p *Prepared) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if p.lent {
		return p.db.ExecContext(ctx, query, args...)
	}
	s, err := p.statement(ctx, query) //nolint:sqlclosecheck // statements are kept
	if err != nil {
		return nil, err
	}
	result, err := s.ExecContext(ctx, args...)
	if err != nil && ctx.Err() == nil {
		p.forget(query)
	}
	return result, err
}

// within is a Prepared inside a transaction.
type within struct {
	p  *Prepared
	tx *sql.Tx
}

func (w within) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	s, err := w.p.statement(ctx, query)
	if err != nil {
		return nil, err
	}
	rows, err := w.tx.StmtContext(ctx, s).QueryContext(ctx, args...) //nolint:sqlclosecheck // it ends with the transaction
	if err != nil && ctx.Err() == nil {
		w.p.forget(query)
	}
	return rows, err
}

func (w within) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	s, err := w.p.statement(ctx, query)
	if err != nil {
		return w.tx.QueryRowContext(ctx, query, args...)
	}
	return w.tx.StmtContext(ctx, s).QueryRowContext(ctx, args...) //nolint:sqlclosecheck // it ends with the transaction
}

func (w within) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	s, err := w.p.statement(ctx, query)
	if err != nil {
		return nil, err
	}
	result, err := w.tx.StmtContext(ctx, s).ExecContext(ctx, args...) //nolint:sqlclosecheck // it ends with the transaction
	if err != nil && ctx.Err() == nil {
		w.p.forget(query)
	}
	return result, err
}
