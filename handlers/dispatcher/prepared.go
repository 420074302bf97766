package dispatcher

import (
	"context"
	"database/sql"
	"sync"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// prepared asks the database with statements that it prepares at their first use: what is asked for every claim is
// planned once on each connection. The queries are the program's own few.
type prepared struct {
	*sql.DB
	mu         sync.Mutex
	statements map[string]*sql.Stmt
}

var _ schema.Querier = (*prepared)(nil)

func newPrepared(db *sql.DB) *prepared {
	return &prepared{DB: db, statements: map[string]*sql.Stmt{}}
}

// QueryContext is that of sql.DB.
func (p *prepared) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	p.mu.Lock()
	s, ok := p.statements[query]
	p.mu.Unlock()
	if !ok {
		var err error
		if s, err = p.PrepareContext(ctx, query); err != nil {
			return nil, err
		}
		p.mu.Lock()
		if earlier, there := p.statements[query]; there {
			defer s.Close() // another goroutine was first
			s = earlier
		} else {
			p.statements[query] = s
		}
		p.mu.Unlock()
	}
	return s.QueryContext(ctx, args...) //nolint:sqlclosecheck // statements are kept as long as the pool
}
