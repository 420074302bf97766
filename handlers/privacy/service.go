package privacy

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// ErrReason refuses an action without a reason, or with one that names the person.
var ErrReason = fmt.Errorf("%w: reason", domain.ErrInvalid)

// Service does what privacy asks for. All fields are required; its methods are safe for concurrent use.
type Service struct {
	Ledger *schema.Ledger
	Vault  *schema.Vault
	DB     *sql.DB
	Clock  func() time.Time
}

// By says who asks for something, from where, and why. The reason is kept for ever, so it must not name the person.
type By struct {
	Actor  string // the name of a token, or cli: and a user
	Source string // /v1/… or /cli
	Reason string // in words
}

// reasonMax bounds a reason, in bytes.
const reasonMax = 1000

// check refuses what must not stand in the ledger for ever.
func (b By) check() error {
	reason := strings.TrimSpace(b.Reason)
	switch {
	case reason == "":
		return domain.Invalid("/reason", "is empty: say why, such as the number of the request")
	case len(reason) > reasonMax:
		return domain.Invalid("/reason", "is longer than %d bytes", reasonMax)
	case strings.Contains(reason, "@"):
		return domain.Invalid("/reason", "seems to hold an address; it is kept for ever, so refer to the request by its number")
	}
	return nil
}

// event makes an event of what was done.
func (b By) event(id uuid.UUID, payload domain.Payload) (domain.Event, error) {
	e, _, err := domain.New(id, payload)
	e.Actor, e.Source = b.Actor, b.Source
	return e, err
}

// record appends one event.
func (s *Service) record(ctx context.Context, by By, payload domain.Payload) (schema.Appended, error) {
	e, err := by.event(uuid.New(), payload)
	if err != nil {
		return schema.Appended{}, err
	}
	at, err := s.Ledger.Append(ctx, e)
	if err != nil {
		return schema.Appended{}, err
	}
	return at[0], nil
}

// about reads all events about a person, in order.
func (s *Service) about(ctx context.Context, profile uuid.UUID) ([]domain.Recorded, error) {
	var all []domain.Recorded
	for e, err := range schema.Events(ctx, s.DB, schema.Filter{Subject: profile}) {
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

// requireProfile refuses who is nobody.
func requireProfile(profile uuid.UUID) error {
	if profile == uuid.Nil || profile == schema.Nobody {
		return domain.Invalid("/profile_id", "is nobody's id")
	}
	return nil
}

// isErased reports whether an error says that the person was erased already.
func isErased(err error) bool { return errors.Is(err, schema.ErrErased) }
