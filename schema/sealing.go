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

// SealEvents puts the secret halves that domain.New returned into their events, sealed under each event's subject, with
// the event's id as associated data, and then under the key of its type and of today. What concerns an erased person is
// dropped: the event is recorded without it.
func (v *Vault) SealEvents(ctx context.Context, events []domain.Event, secrets [][]byte) error {
	today := DayOf(v.clock())
	return v.sealEvents(ctx, events, secrets, func(domain.Event) (Day, bool) { return today, true })
}

// SealAgain is SealEvents for events that may repeat what the ledger holds: each that stands there is sealed in the
// period that it was first sealed in, so that the same content gives the same bytes on another day. Where that can no
// longer be done, because the person was erased or the retention has ended, it is given the bytes that stand there, and
// is judged by what is kept in the open.
func (v *Vault) SealAgain(ctx context.Context, events []domain.Event, secrets [][]byte) error {
	today := DayOf(v.clock())
	stored := make(map[uuid.UUID]domain.Recorded, len(events))
	for i := range events {
		if secrets[i] == nil {
			continue
		}
		recorded, err := EventByID(ctx, v.db, events[i].ID)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		stored[events[i].ID] = recorded
	}
	err := v.sealEvents(ctx, events, secrets, func(e domain.Event) (Day, bool) {
		sealed := stored[e.ID].Sealed
		if sealed == nil {
			return today, true
		}
		of, ok := periodOf(e.Type, sealed)
		return of.day, ok
	})
	if err != nil {
		return err
	}
	for i := range events {
		recorded, ok := stored[events[i].ID]
		if ok && events[i].Sealed == nil {
			events[i].Sealed = recorded.Sealed
		}
	}
	return nil
}

// sealEvents seals each event in the period of its type and the day that is said for it, or, where none is, as it was
// done before there were periods. An event whose person is erased, or whose day has expired, is left without.
func (v *Vault) sealEvents(ctx context.Context, events []domain.Event, secrets [][]byte, dayOf func(domain.Event) (Day, bool)) error {
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
		e.Sealed = nil
		inner, err := sealer.Seal(sealingSubject(e.Subject), e.ID[:], secrets[i])
		if errors.Is(err, ErrErased) {
			continue
		}
		if err != nil {
			return fmt.Errorf("seal event %s: %w", e.ID, err)
		}
		day, ok := dayOf(*e)
		if !ok {
			e.Sealed = inner
			continue
		}
		of := period{e.Type, day}
		key, err := v.ensurePeriod(ctx, of)
		if errors.Is(err, ErrExpired) {
			continue
		}
		if err != nil {
			return fmt.Errorf("seal event %s: %w", e.ID, err)
		}
		if e.Sealed, err = sealPeriod(key, of, e.ID[:], inner); err != nil {
			return fmt.Errorf("seal event %s: %w", e.ID, err)
		}
	}
	return nil
}

// Seal says what can be read of an event's sealed part.
type Seal string

// The states of a sealed part.
const (
	SealNone    Seal = ""        // there never was one
	SealClosed  Seal = "sealed"  // it can be opened
	SealErased  Seal = "erased"  // the person was erased
	SealExpired Seal = "expired" // its retention has ended
)

// Part is the sealed part of an event, opened.
type Part struct {
	Seal   Seal
	Secret []byte // JSON; nil unless Seal is SealClosed
}

// Open opens the sealed parts of recorded events, in their order. It looks up keys each time, as [Vault.Opener] does.
func (v *Vault) Open(ctx context.Context, recorded []domain.Recorded) ([]Part, error) {
	return v.look(ctx, recorded, true)
}

// Seals says what [Vault.Open] would open, and opens nothing.
func (v *Vault) Seals(ctx context.Context, recorded []domain.Recorded) ([]Seal, error) {
	parts, err := v.look(ctx, recorded, false)
	if err != nil {
		return nil, err
	}
	seals := make([]Seal, len(parts))
	for i := range parts {
		seals[i] = parts[i].Seal
	}
	return seals, nil
}

func (v *Vault) look(ctx context.Context, recorded []domain.Recorded, open bool) ([]Part, error) {
	subjects := make([]uuid.UUID, 0, len(recorded))
	wanted := map[period]struct{}{}
	for i := range recorded {
		if recorded[i].Sealed == nil {
			continue
		}
		subjects = append(subjects, sealingSubject(recorded[i].Subject))
		if of, ok := periodOf(recorded[i].Type, recorded[i].Sealed); ok {
			wanted[of] = struct{}{}
		}
	}
	opener, err := v.Opener(ctx, subjects)
	if err != nil {
		return nil, err
	}
	periods, err := v.readPeriods(ctx, wanted)
	if err != nil {
		return nil, err
	}
	parts := make([]Part, len(recorded))
	for i := range recorded {
		if recorded[i].Sealed == nil {
			continue
		}
		if parts[i], err = lookAt(opener, periods, &recorded[i], open); err != nil {
			return nil, fmt.Errorf("open event %d: %w", recorded[i].Position, err)
		}
	}
	return parts, nil
}

// lookAt says whether one event's sealed part can be opened, and opens it if it is to. An erased person's is erased,
// whether or not it has expired besides.
func lookAt(opener Opener, periods map[period]periodKey, e *domain.Recorded, open bool) (Part, error) {
	subject, sealed := sealingSubject(e.Subject), e.Sealed
	if _, err := usable(opener.keys, subject); errors.Is(err, ErrErased) {
		return Part{Seal: SealErased}, nil
	} else if err != nil {
		return Part{}, err
	}
	if of, ok := periodOf(e.Type, sealed); ok {
		stored, ok := periods[of]
		if !ok {
			return Part{}, fmt.Errorf("%w: of %s for %s: restore table period_keys from a backup", ErrNoKey, of.eventType, of.day)
		}
		key, err := stored.usable()
		if errors.Is(err, ErrExpired) {
			return Part{Seal: SealExpired}, nil
		}
		if err != nil {
			return Part{}, err
		}
		if open {
			if sealed, err = openPeriod(key, of, e.ID[:], sealed); err != nil {
				return Part{}, err
			}
		}
	}
	part := Part{Seal: SealClosed}
	if open {
		var err error
		if part.Secret, err = opener.Open(subject, e.ID[:], sealed); err != nil {
			return Part{}, err
		}
	}
	return part, nil
}

// Opened is a recorded event with its payload, sealed fields included.
type Opened struct {
	domain.Recorded
	Payload domain.Payload
	Erased  bool // the person was erased: the sealed fields are empty
	Expired bool // the retention has ended: the sealed fields are empty
}

// OpenEvents opens the sealed parts of recorded events and decodes their payloads. Erased and expired ones come without.
func (v *Vault) OpenEvents(ctx context.Context, recorded []domain.Recorded) ([]Opened, error) {
	parts, err := v.Open(ctx, recorded)
	if err != nil {
		return nil, err
	}
	out := make([]Opened, len(recorded))
	for i := range recorded {
		o := &out[i]
		o.Recorded, o.Erased, o.Expired = recorded[i], parts[i].Seal == SealErased, parts[i].Seal == SealExpired
		if o.Payload, err = domain.Decode(o.Type, o.Data, parts[i].Secret); err != nil {
			return nil, fmt.Errorf("event %d: %w", o.Position, err)
		}
	}
	return out, nil
}
