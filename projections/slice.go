package projections

import (
	"context"
	"fmt"

	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// bounds are those of a slice: after the first position, up to the second.
type bounds struct{ from, to int64 }

// slicesRemembered bounds what is remembered of slices: a hundred million events at the slices of a rebuild.
const slicesRemembered = 1000

// slice gives a slice for a projection to replay, with the types of the events in it where that spares statements. Each
// statement reads the whole slice for the few events that it is about, and most slices hold none of those of most statements; so
// one look at the types pays. The ledger never changes, so a look is remembered for the projections that come after.
func (e *Engine) slice(ctx context.Context, q schema.Querier, d Definition, from, to int64) (s schema.Slice, err error) {
	s = schema.Slice{From: from, To: to}
	if d.choosy() {
		s.Types, err = e.typesIn(ctx, q, from, to)
	}
	return s, err
}

func (e *Engine) typesIn(ctx context.Context, q schema.Querier, from, to int64) (types []string, err error) {
	if types, ok := e.held.Get(bounds{from, to}); ok {
		return types, nil
	}
	err = q.QueryRowContext(ctx, `SELECT array_agg(type) FROM (SELECT DISTINCT type FROM events WHERE position > $1 AND position <= $2) held`, from, to).Scan(pq.Array(&types))
	if err != nil {
		return nil, fmt.Errorf("types of events %s: %w", schema.Slice{From: from, To: to}, err)
	}
	e.held.Add(bounds{from, to}, types)
	return types, nil
}

// choosy reports whether several of the projection's statements are about some types of events only.
func (d Definition) choosy() bool {
	n := 0
	for _, st := range d.Apply {
		if len(st.On) > 0 {
			n++
		}
	}
	return n > 1
}
