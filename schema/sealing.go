package schema

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// Nobody is the subject whose key seals what concerns no person, such as the context of a firing without a profile.
var Nobody = uuid.MustParse("6e6f626f-6479-4000-8000-000000000000")

func sealingSubject(subject uuid.UUID) uuid.UUID {
	if subject == uuid.Nil {
		return Nobody
	}
	return subject
}

// SealEvents puts the secret halves that domain.New returned into their events, sealed under each event's subject with
// the event's id as associated data. What concerns an erased person is dropped: the event is recorded without it.
func (v *Vault) SealEvents(ctx context.Context, events []domain.Event, secrets [][]byte) error {
	subjects := make([]uuid.UUID, 0, len(events))
	for i := range events {
		if secrets[i] != nil {
			subjects = append(subjects, sealingSubject(events[i].Subject))
		}
	}
	if len(subjects) == 0 {
		return nil
	}
	sealer, err := v.Sealer(ctx, subjects)
	if err != nil {
		return err
	}
	for i := range events {
		if secrets[i] == nil {
			continue
		}
		e := &events[i]
		e.Sealed, err = sealer.Seal(sealingSubject(e.Subject), e.ID[:], secrets[i])
		if err != nil && !errors.Is(err, ErrErased) {
			return fmt.Errorf("seal event %s: %w", e.ID, err)
		}
	}
	return nil
}

// Opened is a recorded event with its payload, sealed fields included.
type Opened struct {
	domain.Recorded
	Payload domain.Payload
	Erased  bool // the person was erased: the sealed fields are empty
}

// OpenEvents opens the sealed parts of recorded events and decodes their payloads. Erased ones come without.
func (v *Vault) OpenEvents(ctx context.Context, recorded []domain.Recorded) ([]Opened, error) {
	subjects := make([]uuid.UUID, 0, len(recorded))
	for i := range recorded {
		if recorded[i].Sealed != nil {
			subjects = append(subjects, sealingSubject(recorded[i].Subject))
		}
	}
	opener, err := v.Opener(ctx, subjects)
	if err != nil {
		return nil, err
	}
	out := make([]Opened, len(recorded))
	for i := range recorded {
		o := &out[i]
		o.Recorded = recorded[i]
		var secret []byte
		if o.Sealed != nil {
			secret, err = opener.Open(sealingSubject(o.Subject), o.ID[:], o.Sealed)
			switch {
			case errors.Is(err, ErrErased):
				o.Erased = true
			case err != nil:
				return nil, fmt.Errorf("open event %d: %w", o.Position, err)
			}
		}
		if o.Payload, err = domain.Decode(o.Type, o.Data, secret); err != nil {
			return nil, fmt.Errorf("event %d: %w", o.Position, err)
		}
	}
	return out, nil
}
