package privacy

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Revealed is a recorded event with its sealed part, as whoever asked for it may see it.
type Revealed struct {
	domain.Recorded
	Seal   schema.Seal
	Secret json.RawMessage // the sealed fields; nil unless Seal is schema.SealClosed
}

// RevealEvent opens one event, after recording who sees it and why.
func (s *Service) RevealEvent(ctx context.Context, position int64, by By) (Revealed, error) {
	if err := by.check(); err != nil {
		return Revealed{}, err
	}
	e, err := schema.EventAt(ctx, s.DB, position)
	if err != nil {
		return Revealed{}, err
	}
	revealed, err := s.reveal(ctx, []domain.Recorded{e}, by, domain.SealedRevealed{
		ProfileID: e.Subject, DeliveryID: e.DeliveryID, Position: e.Position, What: "event", Reason: by.Reason,
	})
	if err != nil {
		return Revealed{}, err
	}
	return revealed[0], nil
}

// RevealDelivery opens everything that a delivery's stream holds, after recording who sees it and why. The error is
// schema.ErrNotFound where there is no such delivery.
func (s *Service) RevealDelivery(ctx context.Context, id uuid.UUID, by By) ([]Revealed, error) {
	if err := by.check(); err != nil {
		return nil, err
	}
	var events []domain.Recorded
	about := domain.SealedRevealed{DeliveryID: id, What: "delivery", Reason: by.Reason}
	for e, err := range schema.Events(ctx, s.DB, schema.Filter{DeliveryID: id}) {
		if err != nil {
			return nil, err
		}
		events = append(events, e)
		about.ProfileID = e.Subject
	}
	if len(events) == 0 {
		return nil, fmt.Errorf("delivery %s: %w", id, schema.ErrNotFound)
	}
	return s.reveal(ctx, events, by, about)
}

// reveal records, then opens. What is recorded and not shown after all, because the database went away, is an entry too
// many and not one too few.
func (s *Service) reveal(ctx context.Context, events []domain.Recorded, by By, about domain.SealedRevealed) ([]Revealed, error) {
	if _, err := s.record(ctx, by, about); err != nil {
		return nil, err
	}
	parts, err := s.Vault.Open(ctx, events)
	if err != nil {
		return nil, err
	}
	out := make([]Revealed, len(events))
	for i, part := range parts {
		out[i] = Revealed{Recorded: events[i], Seal: part.Seal, Secret: withoutPlaceholder(part.Secret)} //nolint:gosec // there is a part for each event
	}
	return out, nil
}

// withoutPlaceholder masks the places of secrets in a planned request: what stands there is of no use to anybody, and
// looks as if it were.
func withoutPlaceholder(secret []byte) json.RawMessage {
	var planned struct {
		Placeholder string `json:"placeholder"`
	}
	if secret == nil || json.Unmarshal(secret, &planned) != nil || planned.Placeholder == "" {
		return secret
	}
	return maskPlaceholders(secret, planned.Placeholder)
}
