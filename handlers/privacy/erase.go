package privacy

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Erasure says what became of a request to erase a person.
type Erasure struct {
	ProfileID uuid.UUID `json:"profile_id"`
	ErasedAt  time.Time `json:"erased_at"`
	By        string    `json:"by" doc:"Who asked for it."`
	Reason    string    `json:"reason"`
	Position  int64     `json:"position" doc:"Of the profile.erased event."`
	Already   bool      `json:"already" doc:"The person was erased before; this request changed nothing."`
	Queued    int       `json:"queued" doc:"Deliveries that were still to be sent, and are withheld now."`
}

// unfinished are the outcomes of deliveries that may still be sent.
var unfinished = []domain.Outcome{domain.Pending, domain.Sending, domain.Retrying, domain.Held}

// queuedMax bounds the deliveries that are counted.
const queuedMax = 10_000

// Erase destroys a person's key and records that it did, in one transaction: whatever dies meanwhile, both have happened
// or neither. Before, it takes the keyed hashes of the person's addresses out of what is sealed, so that their opt-outs
// are recognised wherever the addresses turn up again. What is still queued is withheld by the dispatcher, which takes it
// at once; a request that is in flight at this moment cannot be called back.
//
// Safe to repeat: a person who was erased stays so, and the answer says when. Errors: *domain.InvalidError about the
// reason or the person; what the database says.
func (s *Service) Erase(ctx context.Context, profile uuid.UUID, by By) (Erasure, error) {
	if err := requireProfile(profile); err != nil {
		return Erasure{}, err
	}
	if err := by.check(); err != nil {
		return Erasure{}, err
	}
	hashes, err := s.hashes(ctx, profile)
	if err != nil {
		return Erasure{}, fmt.Errorf("erase: %w", err)
	}
	tx, err := s.DB.BeginTx(ctx, nil)
	if err != nil {
		return Erasure{}, fmt.Errorf("erase: %w", err)
	}
	defer tx.Rollback()
	err = s.Vault.Erase(ctx, tx, profile, by.Actor, by.Reason)
	if isErased(err) {
		return s.already(ctx, profile)
	}
	if err != nil {
		return Erasure{}, fmt.Errorf("erase: %w", err)
	}
	out := Erasure{ProfileID: profile, By: by.Actor, Reason: by.Reason}
	queued, err := deliveries.List(ctx, tx, deliveries.Filter{Profile: profile, Outcomes: unfinished, Limit: queuedMax})
	if err != nil {
		return Erasure{}, fmt.Errorf("erase: %w", err)
	}
	out.Queued = len(queued)
	e, err := by.event(domain.EventID(profile, "erased"), domain.ProfileErased{ProfileID: profile, Reason: by.Reason, ContactHashes: hashes})
	if err != nil {
		return Erasure{}, err
	}
	at, err := s.Ledger.AppendTx(ctx, tx, e)
	if err != nil {
		return Erasure{}, fmt.Errorf("erase: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return Erasure{}, fmt.Errorf("erase: %w", err)
	}
	out.ErasedAt, out.Position = at[0].RecordedAt, at[0].Position
	return out, nil
}

// already answers for somebody who was erased before.
func (s *Service) already(ctx context.Context, profile uuid.UUID) (Erasure, error) {
	stone, _, err := s.Vault.Erasure(ctx, profile)
	if err != nil {
		return Erasure{}, err
	}
	e, err := schema.EventByID(ctx, s.DB, domain.EventID(profile, "erased"))
	if err != nil {
		return Erasure{}, err
	}
	return Erasure{ProfileID: profile, ErasedAt: stone.At.UTC(), By: stone.By, Reason: stone.Reason, Position: e.Position, Already: true}, nil
}

// hashes gives the keyed hashes of every address that the ledger knows as the person's: those it hashed when it heard of
// them, and those that only what is sealed names.
func (s *Service) hashes(ctx context.Context, profile uuid.UUID) ([]domain.ContactHash, error) {
	events, err := s.about(ctx, profile)
	if err != nil {
		return nil, err
	}
	parts, err := s.Vault.Open(ctx, events)
	if err != nil {
		return nil, err
	}
	var all []domain.ContactHash
	for i, e := range events {
		var open struct {
			ContactHashes []domain.ContactHash `json:"contact_hashes"`
		}
		if err := json.Unmarshal(e.Data, &open); err == nil {
			all = append(all, open.ContactHashes...)
		}
		all = append(all, s.sealedHashes(parts[i].Secret)...)
	}
	slices.SortFunc(all, func(a, b domain.ContactHash) int {
		if a.Channel != b.Channel {
			return slices.Index(domain.Channels, a.Channel) - slices.Index(domain.Channels, b.Channel)
		}
		if a.Hash < b.Hash {
			return -1
		} else if a.Hash > b.Hash {
			return 1
		}
		return 0
	})
	return slices.Compact(all), nil
}

// sealedHashes finds the person's addresses where events have them: the contact of a decision, the context of a firing.
func (s *Service) sealedHashes(secret []byte) (hashes []domain.ContactHash) {
	var sealed struct {
		Contact domain.Contact  `json:"contact"`
		Context json.RawMessage `json:"context"`
	}
	if secret == nil || json.Unmarshal(secret, &sealed) != nil {
		return nil
	}
	for _, contact := range []domain.Contact{sealed.Contact, domain.ContactIn(sealed.Context)} {
		for _, channel := range domain.Channels {
			if hash, err := s.Vault.AddressHash(channel, contact.On(channel)); err == nil { // else nobody is reached by it
				hashes = append(hashes, hash)
			}
		}
	}
	return hashes
}
