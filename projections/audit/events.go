package audit

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// blockSize is the number of positions in a block; apply.sql says the same.
const blockSize = 256

// Events reads the events that a filter selects, in order of position; f.Limit must be set.
//
// A person's, a stream's and a delivery's have an index. Types, targets and actors are looked for only in the blocks where they
// occur, so that a rare one is found as fast as a frequent one. What this projection has not seen yet is read as well.
func Events(ctx context.Context, q schema.Querier, f schema.Filter) ([]domain.Recorded, error) {
	if f.Subject != uuid.Nil || f.Stream != "" || f.DeliveryID != uuid.Nil || len(f.Types) == 0 && f.Target == "" && f.Actor == "" {
		return read(ctx, q, f)
	}
	var seen int64
	if err := q.QueryRowContext(ctx, `SELECT position FROM subscriptions WHERE name = $1`, Definition.SubscriptionName()).Scan(&seen); err != nil {
		return nil, fmt.Errorf("audit events: %w", err)
	}
	newer, older := f, f
	newer.After = max(f.After, seen)
	if f.UpTo == 0 || f.UpTo > seen {
		older.UpTo = seen
	}
	parts := []func(schema.Filter) ([]domain.Recorded, error){
		func(f schema.Filter) ([]domain.Recorded, error) {
			if f.UpTo > 0 && f.UpTo <= f.After {
				return nil, nil
			}
			return read(ctx, q, f)
		},
		func(f schema.Filter) ([]domain.Recorded, error) { return inBlocks(ctx, q, f) },
	}
	filters := []schema.Filter{newer, older}
	order := []int{1, 0}
	if f.Descending {
		order = []int{0, 1}
	}
	var out []domain.Recorded
	for _, i := range order {
		part := filters[i]
		if part.Limit = f.Limit - len(out); part.Limit <= 0 {
			break
		}
		found, err := parts[i](part)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

func read(ctx context.Context, q schema.Querier, f schema.Filter) (out []domain.Recorded, err error) {
	for e, err := range schema.Events(ctx, q, f) {
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// inBlocks looks into the blocks where everything that is asked for occurs.
func inBlocks(ctx context.Context, q schema.Querier, f schema.Filter) ([]domain.Recorded, error) {
	if f.UpTo <= f.After {
		return nil, nil
	}
	if met, err := met(ctx, q, f); err != nil || !met {
		return nil, err
	}
	bounds, err := bounds(ctx, q, f)
	if err != nil || bounds[1] <= bounds[0] {
		return nil, err
	}
	f.After, f.UpTo = bounds[0], bounds[1]
	low, high := f.After/blockSize, (f.UpTo-1)/blockSize
	var out []domain.Recorded
	// The most recent blocks nearly always suffice, so few are looked for at first.
	for size := 16; ; size = min(2*size, 1024) {
		blocks, err := blocksOf(ctx, q, f, low, high, size)
		if err != nil {
			return nil, err
		}
		found, err := scanBlocks(ctx, q, f, blocks, f.Limit-len(out))
		if err != nil {
			return nil, err
		}
		if out = append(out, found...); len(out) >= f.Limit || len(blocks) < size {
			return out, nil
		}
		if last := blocks[len(blocks)-1]; f.Descending {
			high = last - 1
		} else {
			low = last + 1
		}
	}
}

// blocksOf gives the first blocks between two where everything that is asked for occurs, as a filter's order has it. Each name is
// followed along its index and the names meet on the way, so none of them is gone through to its end.
func blocksOf(ctx context.Context, q schema.Querier, f schema.Filter, low, high int64, size int) ([]int64, error) {
	direction := "ASC"
	if f.Descending {
		direction = "DESC"
	}
	page := fmt.Sprintf(" ORDER BY block %s LIMIT %d", direction, size)
	args := []any{low, high}
	var sets []string
	in := func(dimension, name string) {
		args = append(args, name)
		sets = append(sets, fmt.Sprintf("(SELECT block FROM blocks WHERE dimension = '%s' AND name = $%d AND block BETWEEN $1 AND $2) s%d", dimension, len(args), len(sets)))
	}
	if f.Target != "" {
		in("target", f.Target)
	}
	if f.Actor != "" {
		in("actor", f.Actor)
	}
	switch {
	case len(f.Types) == 1:
		in("type", f.Types[0])
	case len(f.Types) > 1:
		each := page
		if len(sets) > 0 {
			each = "" // which of them meet the others is not known yet
		}
		args = append(args, pq.Array(f.Types))
		sets = append(sets, fmt.Sprintf("(SELECT DISTINCT b.block FROM unnest($%d::text[]) AS n (name) CROSS JOIN LATERAL (SELECT block FROM blocks WHERE dimension = 'type' AND name = n.name AND block BETWEEN $1 AND $2%s) b) s%d",
			len(args), each, len(sets)))
	}
	query := "SELECT block FROM " + sets[0]
	for _, set := range sets[1:] {
		query += " JOIN " + set + " USING (block)"
	}
	rows, err := q.QueryContext(ctx, query+page, args...)
	if err != nil {
		return nil, fmt.Errorf("audit events: %w", err)
	}
	defer rows.Close()
	var blocks []int64
	for rows.Next() {
		var b int64
		if err := rows.Scan(&b); err != nil {
			return nil, fmt.Errorf("audit events: %w", err)
		}
		blocks = append(blocks, b)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("audit events: %w", err)
	}
	return blocks, nil
}

// met reports whether there is an event that has all that is asked for.
func met(ctx context.Context, q schema.Querier, f schema.Filter) (met bool, err error) {
	err = q.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM met WHERE (cardinality($1::text[]) = 0 OR type = ANY($1)) AND ($2 = '' OR actor = $2) AND ($3 = '' OR target = $3))`,
		pq.Array(append([]string{}, f.Types...)), f.Actor, f.Target).Scan(&met)
	if err != nil {
		return false, fmt.Errorf("audit events: %w", err)
	}
	return met, nil
}

// bounds are the positions that a filter reaches from (exclusive) to, its times included.
func bounds(ctx context.Context, q schema.Querier, f schema.Filter) (b [2]int64, err error) {
	b = [2]int64{f.After, f.UpTo}
	at := func(t any) (p int64, err error) {
		err = q.QueryRowContext(ctx, `SELECT position_before($1)`, t).Scan(&p)
		return p, err
	}
	if !f.From.IsZero() {
		p, err := at(f.From)
		if err != nil {
			return b, fmt.Errorf("audit events: %w", err)
		}
		b[0] = max(b[0], p)
	}
	if !f.To.IsZero() {
		p, err := at(f.To)
		if err != nil {
			return b, fmt.Errorf("audit events: %w", err)
		}
		b[1] = min(b[1], p)
	}
	return b, nil
}

// scanBlocks reads what a filter selects in some blocks, which are in order.
func scanBlocks(ctx context.Context, q schema.Querier, f schema.Filter, blocks []int64, limit int) ([]domain.Recorded, error) {
	if len(blocks) == 0 {
		return nil, nil
	}
	f.Limit = limit
	return read(ctx, q, f.Within(blocks, blockSize))
}
