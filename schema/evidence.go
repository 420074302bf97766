package schema

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
)

// EvidenceOptions say what goes into a bundle.
type EvidenceOptions struct {
	// Opener opens the sealed parts, so that they stand in the bundle in the clear. Nil leaves them out, as a hash each; the
	// events can be proven either way. Give one only to who may see personal data, and record that they did.
	Opener *Vault
}

// CollectEvidence puts together the evidence of a delivery under the newest checkpoint: its events, the firing, the target's version, and the
// person's stream up to the delivery's last event, and one further where there is one, which shows that none is missing.
//
// Errors: ErrNotFound for no such delivery; ErrTreeBehind when the newest checkpoint does not cover all of it yet, after
// which a Checkpointer's Sign, or a moment's patience, helps; ErrTree.
func CollectEvidence(ctx context.Context, db *sql.DB, delivery uuid.UUID, o EvidenceOptions) (evidence.Bundle, error) {
	b := evidence.Bundle{Format: evidence.Format, DeliveryID: delivery}
	events, err := evidenceEvents(ctx, db, delivery)
	if err != nil {
		return b, fmt.Errorf("evidence of delivery %s: %w", delivery, err)
	}
	c, err := LastCheckpoint(ctx, db)
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("%w: no checkpoint has been signed", ErrTreeBehind)
	}
	if err != nil {
		return b, fmt.Errorf("evidence of delivery %s: %w", delivery, err)
	}
	b.Checkpoint = c.Note
	opened := make([][]byte, len(events))
	if o.Opener != nil {
		if opened, err = o.Opener.openAll(ctx, events); err != nil {
			return b, fmt.Errorf("evidence of delivery %s: %w", delivery, err)
		}
	}
	for i, e := range events {
		path, err := inclusionPath(ctx, db, e.Position, c.Checkpoint)
		if err != nil {
			return b, fmt.Errorf("evidence of delivery %s: %w", delivery, err)
		}
		b.Events = append(b.Events, evidence.NewEvent(e, path, opened[i]))
	}
	return b, nil
}

// evidenceEvents finds the events that a delivery's story consists of, by position.
func evidenceEvents(ctx context.Context, q Querier, delivery uuid.UUID) ([]domain.Recorded, error) {
	events, err := allEvents(ctx, q, Filter{Stream: domain.DeliveryStream(delivery)})
	if err != nil {
		return nil, err
	}
	if len(events) == 0 {
		return nil, ErrNotFound
	}
	about, err := firingOf(events[0])
	if err != nil {
		return nil, err
	}
	last := events[len(events)-1].Position
	firing, err := EventAt(ctx, q, about.FiringPosition)
	if err != nil {
		return nil, err
	}
	events = append(events, firing)
	if about.TargetVersion > 0 {
		versions, err := allEvents(ctx, q, Filter{Stream: domain.TargetStream(about.Target), Types: []string{"target.changed"}, UpTo: events[0].Position, Descending: true})
		if err != nil {
			return nil, err
		}
		used := slices.IndexFunc(versions, func(e domain.Recorded) bool { return e.Version <= about.TargetVersion })
		if used < 0 {
			return nil, fmt.Errorf("version %d of target %s: %w", about.TargetVersion, about.Target, ErrNotFound)
		}
		events = append(events, versions[used])
	}
	if about.ProfileID != uuid.Nil {
		person, err := allEvents(ctx, q, Filter{Stream: domain.ProfileStream(about.ProfileID), UpTo: last})
		if err != nil {
			return nil, err
		}
		next, err := allEvents(ctx, q, Filter{Stream: domain.ProfileStream(about.ProfileID), After: last, Limit: 1})
		if err != nil {
			return nil, err
		}
		events = append(append(events, person...), next...)
	}
	slices.SortFunc(events, func(a, b domain.Recorded) int { return int(a.Position - b.Position) })
	return slices.CompactFunc(events, func(a, b domain.Recorded) bool { return a.Position == b.Position }), nil
}

func allEvents(ctx context.Context, q Querier, f Filter) ([]domain.Recorded, error) {
	var all []domain.Recorded
	for e, err := range Events(ctx, q, f) {
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

// firingOf reads which firing a delivery's first event answers.
func firingOf(first domain.Recorded) (domain.Firing, error) {
	p, err := domain.Decode(first.Type, first.Data, nil)
	if err != nil {
		return domain.Firing{}, err
	}
	switch p := p.(type) {
	case domain.DeliveryPlanned:
		return p.Firing, nil
	case domain.DeliveryWithheld:
		return p.Firing, nil
	case domain.DeliveryRejected:
		return p.Firing, nil
	}
	return domain.Firing{}, fmt.Errorf("event %d: a delivery does not begin with %s", first.Position, first.Type)
}

// openAll opens the sealed parts of events; what was erased or has expired stays closed.
func (v *Vault) openAll(ctx context.Context, events []domain.Recorded) ([][]byte, error) {
	parts, err := v.Open(ctx, events)
	if err != nil {
		return nil, err
	}
	opened := make([][]byte, len(events))
	for i, part := range parts {
		opened[i] = part.Secret
	}
	return opened, nil
}
