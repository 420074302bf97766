package catalogue

import (
	"context"
	"fmt"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Diff says what differs between two versions of a target. A version of 0 is the current one for to, and the one before to for
// from; where there is none before, everything is new. The error is schema.ErrNotFound.
func (c Catalogue) Diff(ctx context.Context, handle string, from, to int64) (int64, int64, []domain.Change, error) {
	now, versions, err := c.History(ctx, handle)
	if err != nil {
		return 0, 0, nil, err
	}
	if to == 0 {
		to = now.Version
	}
	var before, after domain.Target
	var foundFrom, foundTo bool
	for _, v := range versions { // the newest first
		switch {
		case v.Version == to:
			after, foundTo = v.Target, true
		case v.Version == from, from == 0 && foundTo && !foundFrom:
			before, foundFrom, from = v.Target, true, v.Version
		}
	}
	if from == to {
		before, foundFrom = after, foundTo
	}
	if !foundTo {
		return 0, 0, nil, fmt.Errorf("target %q version %d: %w", handle, to, schema.ErrNotFound)
	}
	if !foundFrom && from != 0 {
		return 0, 0, nil, fmt.Errorf("target %q version %d: %w", handle, from, schema.ErrNotFound)
	}
	changes, err := domain.DiffTargets(before, after)
	return from, to, changes, err
}

// DiffProposal says what a proposal would change of the target as it is, and which version that is; 0 when there is none. Number
// 0 is the newest that is open. The error is schema.ErrNotFound.
func (c Catalogue) DiffProposal(ctx context.Context, handle string, number int64) (from int64, changes []domain.Change, err error) {
	p, err := c.Proposal(ctx, handle, number)
	if err != nil {
		return 0, nil, err
	}
	now, _, err := c.History(ctx, handle)
	if err != nil {
		return 0, nil, err
	}
	changes, err = domain.DiffTargets(now.Target, p.Target)
	return now.Version, changes, err
}
