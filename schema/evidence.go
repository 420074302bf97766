package schema

import (
	"context"
	"database/sql"
	"encoding/json"
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

// CollectEvidence puts together the evidence of a delivery under the newest checkpoint: its events, the firing, the target's
// version, the streams of the person, of the profiles that are merged with theirs and of whoever a decision rests on, and the
// policies for legacy consent: up to the delivery's last event, and one further where there is one, which shows that none is
// missing.
//
// Errors: ErrNotFound for no such delivery; ErrTreeBehind when the newest checkpoint does not cover all of it yet, after
// which a Checkpointer's Sign, or a moment's patience, helps; ErrTree.
func CollectEvidence(ctx context.Context, db *sql.DB, delivery uuid.UUID, o EvidenceOptions) (evidence.Bundle, error) {
	b := evidence.Bundle{Format: evidence.Format, DeliveryID: delivery}
	events, last, err := evidenceEvents(ctx, db, delivery)
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
	// What came after the delivery shows that nothing is missing before it. It can wait for the next checkpoint; the rest cannot.
	events = slices.DeleteFunc(events, func(e domain.Recorded) bool { return e.Position > last && e.Position > c.Size })
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

// evidenceEvents finds the events that a delivery's story consists of, by position, and the position of its own last one.
func evidenceEvents(ctx context.Context, q Querier, delivery uuid.UUID) (_ []domain.Recorded, last int64, _ error) {
	events, err := allEvents(ctx, q, Filter{Stream: domain.DeliveryStream(delivery)})
	if err != nil {
		return nil, 0, err
	}
	if len(events) == 0 {
		return nil, 0, ErrNotFound
	}
	about, err := firingOf(events[0])
	if err != nil {
		return nil, 0, err
	}
	last = events[len(events)-1].Position
	firing, err := EventAt(ctx, q, about.FiringPosition)
	if err != nil {
		return nil, 0, err
	}
	events = append(events, firing)
	if about.TargetVersion > 0 {
		versions, err := allEvents(ctx, q, Filter{Stream: domain.TargetStream(about.Target), Types: []string{"target.changed"}, UpTo: events[0].Position, Descending: true})
		if err != nil {
			return nil, 0, err
		}
		used := slices.IndexFunc(versions, func(e domain.Recorded) bool { return e.Version <= about.TargetVersion })
		if used < 0 {
			return nil, 0, fmt.Errorf("version %d of target %s: %w", about.TargetVersion, about.Target, ErrNotFound)
		}
		events = append(events, versions[used])
	}
	profiles, err := onePerson(ctx, q, append(decidedAs(events), about.ProfileID), last)
	if err != nil {
		return nil, 0, err
	}
	streams := []string{domain.ConsentPolicyStream}
	for _, profile := range profiles {
		streams = append(streams, domain.ProfileStream(profile))
	}
	for _, stream := range streams {
		known, err := allEvents(ctx, q, Filter{Stream: stream, UpTo: last})
		if err != nil {
			return nil, 0, err
		}
		next, err := allEvents(ctx, q, Filter{Stream: stream, After: last, Limit: 1})
		if err != nil {
			return nil, 0, err
		}
		events = append(append(events, known...), next...)
	}
	slices.SortFunc(events, func(a, b domain.Recorded) int { return int(a.Position - b.Position) })
	return slices.CompactFunc(events, func(a, b domain.Recorded) bool { return a.Position == b.Position }), last, nil
}

// decidedAs lists the other profiles whose answers a delivery's decisions rest on.
func decidedAs(delivery []domain.Recorded) (profiles []uuid.UUID) {
	for _, e := range delivery {
		var said struct {
			Consent struct {
				DecidedAs uuid.UUID `json:"decided_as"`
			} `json:"consent"`
		}
		if json.Unmarshal(e.Data, &said) == nil {
			profiles = append(profiles, said.Consent.DecidedAs)
		}
	}
	return profiles
}

// onePerson gives these profiles and all that merges up to a position made one person with any of them.
func onePerson(ctx context.Context, q Querier, profiles []uuid.UUID, upTo int64) ([]uuid.UUID, error) {
	return IDs(ctx, q, `
		WITH RECURSIVE merged AS MATERIALIZED (
			SELECT d.winner_id, d.loser_id FROM events e, json_to_record(e.data) AS d (winner_id uuid, loser_id uuid)
			WHERE e.type IN ('profile.merged', 'consent.policy_changed') AND e.type = 'profile.merged' AND e.position <= $2
		), one (id) AS (
			SELECT unnest($1::uuid[]) UNION SELECT CASE WHEN m.winner_id = o.id THEN m.loser_id ELSE m.winner_id END
			FROM one o JOIN merged m ON o.id IN (m.winner_id, m.loser_id)
		)
		SELECT id FROM one WHERE id <> '00000000-0000-0000-0000-000000000000' ORDER BY id`, UUIDs(profiles), upTo)
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
