package projections

import (
	"context"
	"fmt"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// bounds are those of a slice: after the first position, up to the second.
type bounds struct{ from, to int64 }

// slicesRemembered bounds what is remembered of slices: a hundred million events at the slices of a rebuild.
const slicesRemembered = 1000

// slice gives a slice for a projection to replay, with the types of the events in it where that spares statements. Each
// statement reads the whole slice for the few events that it is about, and most slices hold none of those of most statements; so
// one look at the types pays. The ledger never changes, so a look is remembered for the projections that come after.
func (e *Engine) slice(ctx context.Context, q schema.Querier, d Definition, from, to int64) (schema.Slice, error) {
	s := schema.Slice{From: from, To: to}
	if !d.choosy() {
		return s, nil
	}
	if types, ok := e.held.Get(bounds{from, to}); ok {
		s.Types = types
		return s, nil
	}
	rows, err := q.QueryContext(ctx, `SELECT DISTINCT type FROM events WHERE position > $1 AND position <= $2`, from, to)
	if err != nil {
		return s, fmt.Errorf("types of events %s: %w", s, err)
	}
	defer rows.Close()
	for rows.Next() {
		var t string
		if err := rows.Scan(&t); err != nil {
			return s, fmt.Errorf("types of events %s: %w", s, err)
		}
		s.Types = append(s.Types, t)
	}
	if err := rows.Err(); err != nil {
		return s, fmt.Errorf("types of events %s: %w", s, err)
	}
	e.held.Add(bounds{from, to}, s.Types)
	return s, nil
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
