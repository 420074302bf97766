package catalogue

import (
	"context"
	"fmt"
	"slices"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// propose records a change that takes two people. A repeat of what is proposed already records nothing.
func (c Catalogue) propose(ctx context.Context, by Author, now targets.Target, t domain.TargetChanged) (int64, error) {
	open, version, err := c.proposals(ctx, t.Handle)
	if err != nil {
		return 0, err
	}
	for _, p := range open {
		if p.State == "open" && p.Base == now.Revision && same(p.Target, t.Target) {
			return p.Number, nil
		}
	}
	at, err := c.append(ctx, entry{by, domain.TargetProposed{Target: t.Target, Reason: t.Reason, Restores: t.Restores, Base: now.Revision}, &version})
	if err != nil {
		return 0, err
	}
	return at[0].Version, nil
}

// Proposals gives what is proposed for a target, the newest first, from its stream in the ledger.
func (c Catalogue) Proposals(ctx context.Context, handle string) ([]targets.Proposal, error) {
	list, _, err := c.proposals(ctx, handle)
	if err != nil {
		return nil, err
	}
	now, _, err := c.History(ctx, handle)
	for i := range list {
		list[i].Stale = list[i].State == "open" && list[i].Base != now.Revision
	}
	slices.Reverse(list)
	return list, err
}

// proposals reads the stream, and gives its version.
func (c Catalogue) proposals(ctx context.Context, handle string) (list []targets.Proposal, version int64, err error) {
	decide := func(r domain.Recorded, number int64, reason string) {
		for i := range list {
			if list[i].Number == number {
				list[i].State, list[i].DecidedAt, list[i].DecidedBy, list[i].Decision = r.State, &r.RecordedAt, r.Actor, reason
			}
		}
	}
	for r, err := range schema.Events(ctx, c.DB, schema.Filter{Stream: domain.ProposalStream(handle)}) {
		if err != nil {
			return nil, 0, err
		}
		payload, err := domain.Decode(r.Type, r.Data, nil)
		if err != nil {
			return nil, 0, fmt.Errorf("event %d: %w", r.Position, err)
		}
		version = r.Version
		switch p := payload.(type) {
		case domain.TargetProposed:
			list = append(list, targets.Proposal{
				Target: p.Target, Number: r.Version, State: r.State, Reason: p.Reason, Restores: p.Restores, Base: p.Base,
				ProposedAt: r.RecordedAt, ProposedBy: r.Actor, Position: r.Position,
			})
		case domain.TargetApproved:
			decide(r, p.Proposal, p.Reason)
		case domain.TargetDeclined:
			decide(r, p.Proposal, p.Reason)
		}
	}
	return list, version, nil
}

// Proposal gives one proposal for a target; 0 is the newest that is open. The error is schema.ErrNotFound.
func (c Catalogue) Proposal(ctx context.Context, handle string, number int64) (targets.Proposal, error) {
	list, err := c.Proposals(ctx, handle)
	if err != nil {
		return targets.Proposal{}, err
	}
	return find(list, handle, number)
}

// find looks a proposal up in a list that has the newest first.
func find(list []targets.Proposal, handle string, number int64) (targets.Proposal, error) {
	for _, p := range list {
		if p.Number == number || number == 0 && p.State == "open" {
			return p, nil
		}
	}
	if number == 0 {
		return targets.Proposal{}, fmt.Errorf("an open proposal for target %q: %w", handle, schema.ErrNotFound)
	}
	return targets.Proposal{}, fmt.Errorf("proposal %d for target %q: %w", number, handle, schema.ErrNotFound)
}

// undecided gives a proposal that can still be decided on, and the version of its stream that says so: of two who decide at
// the same moment, the second one's event is refused.
func (c Catalogue) undecided(ctx context.Context, handle string, number int64) (targets.Proposal, int64, error) {
	list, version, err := c.proposals(ctx, handle)
	if err != nil {
		return targets.Proposal{}, 0, err
	}
	slices.Reverse(list)
	p, err := find(list, handle, number)
	if err == nil && p.State != "open" {
		err = fmt.Errorf("%w: it was %s by %s", ErrStale, p.State, p.DecidedBy)
	}
	return p, version, err
}

// Approve makes a proposed change, in the name of somebody else than who proposed it. Both events are recorded or neither.
//
// Errors: schema.ErrNotFound; ErrSamePerson; ErrStale; schema.ErrConflict when something happened at the same moment.
func (c Catalogue) Approve(ctx context.Context, by Author, handle string, number int64, reason string) (Result, error) {
	p, version, err := c.undecided(ctx, handle, number)
	if err != nil {
		return Result{}, err
	}
	before, _, err := c.History(ctx, handle)
	if err != nil {
		return Result{}, err
	}
	switch {
	case before.Revision != p.Base:
		return Result{}, fmt.Errorf("%w: the target has changed since; propose it again", ErrStale)
	case p.ProposedBy == by.Name:
		return Result{}, fmt.Errorf("%w: %s proposed it", ErrSamePerson, by.Name)
	}
	partials, err := targets.PartialsNow(ctx, c.DB)
	if err != nil {
		return Result{}, err
	}
	if _, err := domain.CompileTarget(p.Target, partials); err != nil { // a partial may have changed since
		return Result{}, err
	}
	changed := domain.TargetChanged{
		Target: p.Target, Reason: p.Reason, Restores: p.Restores,
		Approved: &domain.Approval{Proposal: p.Number, ProposedBy: p.ProposedBy, ProposedAt: p.ProposedAt.UTC()},
	}
	approved := domain.TargetApproved{Handle: handle, Proposal: p.Number, Reason: reason}
	if _, err := c.append(ctx, entry{by, changed, &p.Base}, entry{by, approved, &version}); err != nil {
		return Result{}, err
	}
	after, _, err := c.History(ctx, handle)
	return Result{Before: before, After: after}, err
}

// Decline ends a proposal without making its change. Who proposed it may withdraw it so.
//
// Errors: schema.ErrNotFound; ErrStale when it was decided on already; schema.ErrConflict.
func (c Catalogue) Decline(ctx context.Context, by Author, handle string, number int64, reason string) (targets.Proposal, error) {
	p, version, err := c.undecided(ctx, handle, number)
	if err != nil {
		return p, err
	}
	if _, err := c.append(ctx, entry{by, domain.TargetDeclined{Handle: handle, Proposal: p.Number, Reason: reason}, &version}); err != nil {
		return p, err
	}
	return c.Proposal(ctx, handle, p.Number)
}
