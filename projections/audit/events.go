package audit

import (
	"context"
	"fmt"
	"strings"

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
	var sets []string
	args := []any{f.After / blockSize, (f.UpTo - 1) / blockSize}
	in := func(dimension string, names []string) {
		args = append(args, pq.Array(names))
		match := fmt.Sprintf("name = ANY($%d)", len(args))
		if len(names) == 1 {
			match = fmt.Sprintf("name = ($%d::text[])[1]", len(args)) // equality keeps the index's order
		}
		sets = append(sets, fmt.Sprintf("SELECT block FROM blocks WHERE dimension = '%s' AND %s AND block BETWEEN $1 AND $2", dimension, match))
	}
	if f.Target != "" {
		in("target", []string{f.Target})
	}
	if f.Actor != "" {
		in("actor", []string{f.Actor})
	}
	if len(f.Types) > 0 {
		in("type", f.Types)
	}
	direction := "ASC"
	if f.Descending {
		direction = "DESC"
	}
	candidates := "SELECT DISTINCT block FROM (" + sets[0] + ") s"
	if len(sets) > 1 {
		candidates = strings.Join(sets, " INTERSECT ")
	}
	rows, err := q.QueryContext(ctx, candidates+" ORDER BY block "+direction, args...)
	if err != nil {
		return nil, fmt.Errorf("audit events: %w", err)
	}
	defer rows.Close()
	var blocks []int64
	var out []domain.Recorded
	flush := func() error {
		found, err := scanBlocks(ctx, q, f, blocks, f.Limit-len(out))
		out, blocks = append(out, found...), blocks[:0]
		return err
	}
	// The most recent blocks nearly always suffice, so few are read at first.
	size := 16
	for rows.Next() {
		var b int64
		if err := rows.Scan(&b); err != nil {
			return nil, fmt.Errorf("audit events: %w", err)
		}
		if blocks = append(blocks, b); len(blocks) == size {
			if err := flush(); err != nil {
				return nil, err
			}
			if len(out) >= f.Limit {
				return out, nil
			}
			size = min(2*size, 1024)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("audit events: %w", err)
	}
	return out, flush()
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
