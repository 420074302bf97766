package intake

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/tracing"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// AheadMax is how far ahead of our clock a decision may claim to have been made. The later decision wins, so one from
// the future would outlast every answer that the person gives until then.
const AheadMax = 5 * time.Minute

// Service accepts events. All fields but the last are required; its methods are safe for concurrent use.
type Service struct {
	Ledger *schema.Ledger
	Vault  *schema.Vault
	Clock  func() time.Time
	Tracer *tracing.Tracer // nil: no spans
}

// Accepted says where an event stands in the ledger.
type Accepted struct {
	ID        string    `json:"id" doc:"The event's id as its producer gave it."`
	EventID   uuid.UUID `json:"event_id" doc:"The event's id in the ledger: the same where it is a UUID, else derived from source and id."`
	Position  int64     `json:"position" doc:"Where the event stands."`
	Duplicate bool      `json:"duplicate" doc:"It stood there before, with the same content."`
}

// AcceptedTypes lists the event types that producers may send.
func AcceptedTypes() []string {
	var types []string
	for _, d := range domain.Declarations() {
		if d.Origin == domain.FromOutside {
			types = append(types, d.Type)
		}
	}
	return types
}

// Accept records the events of one request in order, all or none, and returns once they are durable. actor is who
// sent them: the name of a token.
//
// Safe to repeat: events that stand in the ledger are answered with their position, which is also what to do after
// schema.ErrUnavailable. Errors: *RefusedError around ErrInvalidEvent, ErrUnknownType, ErrInternalType,
// schema.ErrIDReused or schema.ErrTooLarge; schema.ErrBusy; and any that is schema.Transient.
func (s *Service) Accept(ctx context.Context, actor string, events []Event) ([]Accepted, error) {
	began := s.Clock()
	records := make([]domain.Event, len(events))
	secrets := make([][]byte, len(events))
	var bad refusals
	for i := range events {
		records[i], secrets[i] = s.record(i, &events[i], &bad)
		records[i].Actor = actor
	}
	if err := bad.err(); err != nil {
		return nil, err
	}
	if err := s.Vault.SealEvents(ctx, records, secrets); err != nil {
		return nil, fmt.Errorf("intake: %w", err)
	}
	appended, err := s.Ledger.Append(ctx, records...)
	if errors.Is(err, schema.ErrIDReused) {
		// Or a repeat whose like was sealed on another day, or before its person was erased.
		if err := s.Vault.SealAgain(ctx, records, secrets); err != nil {
			return nil, fmt.Errorf("intake: %w", err)
		}
		appended, err = s.Ledger.Append(ctx, records...)
	}
	if err != nil {
		return nil, refusedByLedger(err)
	}
	s.trace(ctx, began, records, appended)
	accepted := make([]Accepted, len(events))
	for i, at := range appended {
		accepted[i] = Accepted{ID: events[i].ID, EventID: at.ID, Position: at.Position, Duplicate: at.Duplicate}
	}
	return accepted, nil
}

// trace begins the trace of each firing that was not there before.
func (s *Service) trace(ctx context.Context, began time.Time, records []domain.Event, appended []schema.Appended) {
	if !s.Tracer.On() {
		return
	}
	for i, at := range appended {
		if at.Duplicate || records[i].Type != "reaction.fired" {
			continue
		}
		_, span := s.Tracer.Begin(ctx, tracing.Span{Name: "reaction.fired", Firing: at.ID, ID: tracing.Fired(at.ID), Kind: trace.SpanKindConsumer, Start: began},
			attribute.String("dispatch.target", records[i].Target), attribute.String("cloudevents.event_source", records[i].Source), attribute.Int64("dispatch.position", at.Position))
		span.End()
	}
}

// Check reports what Accept would refuse, as a *RefusedError, without recording anything.
func (s *Service) Check(events []Event) error {
	var bad refusals
	for i := range events {
		s.record(i, &events[i], &bad)
	}
	return bad.err()
}

// record turns a CloudEvent into the ledger's event and the half of its payload that is to be sealed.
func (s *Service) record(index int, e *Event, bad *refusals) (domain.Event, []byte) {
	d, err := domain.Declared(e.Type)
	switch {
	case err != nil:
		bad.add(index, ErrUnknownType, "/type", "is no event type of this ledger; it takes %s", strings.Join(AcceptedTypes(), ", "))
		return domain.Event{}, nil
	case d.Origin != domain.FromOutside:
		bad.add(index, ErrInternalType, "/type", "is recorded by the ledger itself; it takes %s", strings.Join(AcceptedTypes(), ", "))
		return domain.Event{}, nil
	}
	payload, err := domain.Parse(e.Type, e.Data)
	if err != nil {
		bad.payload(index, "/data", err)
		return domain.Event{}, nil
	}
	occurred := e.Time
	if payload, occurred, err = s.complete(payload, occurred); err != nil {
		bad.payload(index, "/data", err)
		return domain.Event{}, nil
	}
	record, secret, err := domain.New(EventID(e.Source, e.ID), payload)
	if err != nil {
		bad.payload(index, "/data", err)
		return domain.Event{}, nil
	}
	record.Source, record.OccurredAt = e.Source, occurred
	record.CorrelationID, record.CausationID = e.CorrelationID, e.CausationID
	return record, secret
}

// refusedByLedger turns what the ledger says about one event into a refusal of it.
func refusedByLedger(err error) error {
	var item *schema.ItemError
	if !errors.As(err, &item) {
		return err
	}
	r := Refusal{Index: item.Index, Err: item.Err, Detail: "is not taken by the ledger"}
	switch {
	case errors.Is(err, schema.ErrIDReused):
		r.Pointer, r.Detail, r.Err = "/id", "stands in the ledger with other content; give this event an id of its own", schema.ErrIDReused
	case errors.Is(err, schema.ErrTooLarge):
		r.Detail, r.Err = "is too large", schema.ErrTooLarge
	case errors.Is(err, domain.ErrInvalid):
		r.Err = ErrInvalidEvent
	}
	return &RefusedError{Refusals: []Refusal{r}}
}
