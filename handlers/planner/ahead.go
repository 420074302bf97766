package planner

import (
	"context"
	"fmt"
	"slices"

	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Looking ahead. Firings are answered in the order of the ledger, and a hundred thousand of one target would have those of
// others wait until the last of them is planned. So while the planner is behind, and a slice is crowded by few targets, it
// answers along with the slice firings of others that lie ahead. Those of one target keep their order: where one is left for
// the cursor to come to, so are those after it.
const (
	crowdedFrom = 50   // firings of one target in a slice that have those of others wait
	crowdedPart = 10   // a target of which more than one in so many events is a firing is passed over too, after aheadEach of them
	aheadLooks  = 4    // looks with one slice
	aheadKept   = 5000 // firings answered ahead that the cursor has not come to; with more of them, none is looked for
)

// reach is how far ahead a planner looks with one slice.
type reach struct {
	look int64 // events looked at in one look
	most int   // firings answered
	each int   // of them of one target
}

var defaultReach = reach{look: 5000, most: 200, each: 50}

// ahead is how far this process has looked.
type ahead struct {
	seen int64            // firings up to here were answered, or left
	left map[string]int64 // by target: some of its firings up to here were left
	took []int64          // positions of the firings that were answered with the last slice that had any
}

// answeredAhead gives the positions after one of the firings that were answered before their turn.
func answeredAhead(ctx context.Context, q schema.Querier, after int64) (map[int64]bool, error) {
	rows, err := q.QueryContext(ctx, `SELECT position FROM planned_ahead WHERE position > $1`, after)
	if err != nil {
		return nil, fmt.Errorf("answered ahead: %w", err)
	}
	defer rows.Close()
	var all map[int64]bool
	for rows.Next() {
		var position int64
		if err := rows.Scan(&position); err != nil {
			return nil, fmt.Errorf("answered ahead: %w", err)
		}
		if all == nil {
			all = map[int64]bool{}
		}
		all[position] = true
	}
	return all, rows.Err()
}

// turn gives those of a slice's firings that are still to be answered, and the firings that are answered ahead with them. It
// notes both in the slice's transaction.
func (p *Planner) turn(ctx context.Context, tx schema.Querier, s schema.Slice, fired []domain.Recorded, answered map[int64]bool) ([]domain.Recorded, error) {
	passed := false
	for position := range answered {
		passed = passed || position <= s.To
	}
	if passed {
		if _, err := tx.ExecContext(ctx, `DELETE FROM planned_ahead WHERE position <= $1`, s.To); err != nil {
			return nil, fmt.Errorf("answered ahead: %w", err)
		}
		fired = slices.DeleteFunc(fired, func(f domain.Recorded) bool { return answered[f.Position] })
	}
	if s.Len() < sliceLimit || len(answered) > aheadKept {
		return fired, nil // it keeps up, or has looked far enough
	}
	more, err := p.lookAhead(ctx, tx, s, fired, answered)
	if err != nil || len(more) == 0 {
		return fired, err
	}
	p.ahead.took = p.ahead.took[:0]
	for _, f := range more {
		p.ahead.took = append(p.ahead.took, f.Position)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO planned_ahead (position) SELECT unnest($1::bigint[])`, pq.Array(p.ahead.took)); err != nil {
		return nil, fmt.Errorf("answer ahead: %w", err)
	}
	return append(fired, more...), nil
}

// lookAhead finds firings after a slice of targets other than those that crowd it.
func (p *Planner) lookAhead(ctx context.Context, tx schema.Querier, s schema.Slice, fired []domain.Recorded, answered map[int64]bool) (found []domain.Recorded, err error) {
	a := &p.ahead
	for _, position := range a.took {
		if position > s.From && !answered[position] { // that slice came to nothing, and with it all that was found then
			*a = ahead{}
		}
	}
	if a.left == nil {
		a.left = map[string]int64{}
	}
	a.seen = max(a.seen, s.To)
	of := map[string]int{}
	crowded := false
	for _, f := range fired {
		if of[f.Target]++; of[f.Target] == crowdedFrom {
			a.left[f.Target], crowded = a.seen, true
		}
	}
	if !crowded {
		return nil, nil
	}
	var others []string // that are not looked for
	for target, at := range a.left {
		if at > s.To || of[target] >= crowdedFrom {
			others = append(others, target)
		} else {
			delete(a.left, target)
		}
	}
	var upTo int64 // nothing is planned by older targets or consent than its firing
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(min(position), 0) FROM subscriptions WHERE name = ANY($1)`, pq.Array(p.Subscription().After)).Scan(&upTo); err != nil {
		return nil, fmt.Errorf("look ahead: %w", err)
	}
	each, began, full := map[string]int{}, a.seen, false
	for range aheadLooks {
		look := schema.Filter{After: a.seen, UpTo: min(upTo, a.seen+p.reach.look), Types: []string{"reaction.fired"}, TargetsNot: others}
		if look.UpTo <= look.After || full {
			break
		}
		a.seen = look.UpTo
		for f, err := range schema.Events(ctx, tx, look) {
			if err != nil {
				return nil, err
			}
			if answered[f.Position] || slices.Contains(others, f.Target) {
				continue
			}
			if each[f.Target] >= p.reach.each && int64(each[f.Target]*crowdedPart) > f.Position-began {
				others = append(others, f.Target)
				continue
			}
			if full = len(found) >= p.reach.most || each[f.Target] >= p.reach.each; full { // the next slice goes on here
				a.seen = f.Position - 1
				break
			}
			each[f.Target]++
			found = append(found, f)
		}
	}
	for _, target := range others {
		a.left[target] = a.seen
	}
	return found, nil
}
