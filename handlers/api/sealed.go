package api

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Sealed stands where personal data would.
type Sealed struct {
	Sealed   bool            `json:"sealed,omitempty" doc:"There is personal data here, which is not shown."`
	Erased   bool            `json:"erased,omitempty" doc:"There was personal data here; the person was erased."`
	Expired  bool            `json:"expired,omitempty" doc:"There was personal data here; its retention has ended."`
	Revealed json.RawMessage `json:"revealed,omitempty" doc:"The personal data, where a request to reveal it said why."`
}

// sealOf shows the state of a sealed part, or the part itself where it may be seen; null for an event that never had any.
func sealOf(seal schema.Seal, secret json.RawMessage) *Sealed {
	switch {
	case secret != nil:
		return &Sealed{Revealed: secret}
	case seal == schema.SealClosed:
		return &Sealed{Sealed: true}
	case seal == schema.SealErased:
		return &Sealed{Erased: true}
	case seal == schema.SealExpired:
		return &Sealed{Expired: true}
	}
	return nil
}

// erased says whether a person was.
func (a *api) erased(ctx context.Context, profile uuid.UUID) (bool, error) {
	_, erased, err := a.Vault.Erasure(ctx, profile)
	return erased, err
}

// sealedOf says what is sealed of a delivery's events, by position.
func (a *api) sealedOf(ctx context.Context, delivery uuid.UUID) (map[int64]*Sealed, error) {
	var events []domain.Recorded
	for e, err := range schema.Events(ctx, a.reads(ctx), schema.Filter{DeliveryID: delivery}) {
		if err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	seals, err := a.Vault.Seals(ctx, events)
	if err != nil {
		return nil, err
	}
	out := make(map[int64]*Sealed, len(events))
	for i, e := range events {
		out[e.Position] = sealOf(seals[i], nil)
	}
	return out, nil
}
