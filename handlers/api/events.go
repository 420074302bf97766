package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func (a *api) eventRoutes() {
	register(a, huma.Operation{
		OperationID: "accept-events", Method: http.MethodPost, Path: "/v1/events", Tags: []string{"Events"},
		Summary: "Send events in",
		Description: "CloudEvents 1.0: one in structured mode, several as a batch, or one in binary mode with its attributes in ce-* headers and its data as the body. " +
			"All of a request is recorded, or none of it. A repeat, known by its id, is answered with the position it has had since the first time, so after any doubt the same request may be sent again.\n\n" +
			"Accepted types: " + strings.Join(intake.AcceptedTypes(), ", ") + ".",
		DefaultStatus: http.StatusAccepted,
		MaxBodyBytes:  int64(a.Limits.RequestBytes) + 1, // Huma refuses a body that reaches its limit
		RequestBody:   a.eventBody(),
		Middlewares:   huma.Middlewares{a.admitBody},
		Errors:        []int{http.StatusBadRequest, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity},
	}, a.acceptEvents)
	register(a, huma.Operation{
		OperationID: "list-events", Method: http.MethodGet, Path: "/v1/events", Tags: []string{"Events"},
		Summary: "Read the ledger", Description: "Newest first unless order says otherwise. Filters combine.",
	}, a.listEvents)
	register(a, huma.Operation{
		OperationID: "get-event", Method: http.MethodGet, Path: "/v1/events/{position}", Tags: []string{"Events"},
		Summary: "Read one event", Errors: []int{http.StatusNotFound},
	}, a.getEvent)
}

// admitBody holds back what would take more memory than bodies may.
func (a *api) admitBody(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	size := int64(a.Limits.RequestBytes) + 1 // the most that will be read, also of a body that does not say its length
	if r.ContentLength >= 0 {
		size = min(size, r.ContentLength)
	}
	if !a.bodies.TryAcquire(size) {
		a.refuse(w, r.Context(), fmt.Errorf("%w: too many bodies at the same time", schema.ErrBusy))
		return
	}
	defer a.bodies.Release(size)
	next(ctx)
}

// eventBody describes what POST /v1/events takes: the attributes of a CloudEvent and, per accepted type, its payload.
func (a *api) eventBody() *huma.RequestBody {
	text := func(doc string) *huma.Schema { return &huma.Schema{Type: huma.TypeString, Description: doc} }
	event := &huma.Schema{
		Type: huma.TypeObject, Description: "A CloudEvent 1.0. Other extension attributes are allowed and not recorded.",
		Required: []string{"specversion", "id", "source", "type", "data"}, AdditionalProperties: true,
		Properties: map[string]*huma.Schema{
			"specversion":     {Type: huma.TypeString, Enum: []any{"1.0"}},
			"id":              text("Unique within source. A UUID becomes the ledger's id as it is; any other is mapped to one, together with source."),
			"source":          text("A URI reference: where the event comes from."),
			"type":            {Type: huma.TypeString, Enum: anys(intake.AcceptedTypes())},
			"time":            {Type: huma.TypeString, Format: "date-time", Description: "When it happened."},
			"datacontenttype": text("application/json, which is also what its absence means."),
			"correlationid":   text("The id of the event that started it all."),
			"causationid":     text("The id of the event that caused this one."),
			"data":            {Description: "The payload, as the type declares it."},
		},
	}
	var payloads []*huma.Schema
	for _, d := range domain.Declarations() {
		if d.Origin != domain.FromOutside {
			continue
		}
		example, err := json.Marshal(d.Example)
		if err != nil {
			a.errs = append(a.errs, fmt.Errorf("example of %s: %w", d.Type, err))
			continue
		}
		payload := &huma.Schema{
			Type: huma.TypeObject, Title: d.Type, Description: d.Summary, Properties: map[string]*huma.Schema{},
			Examples: []any{json.RawMessage(example)}, AdditionalProperties: false,
		}
		for _, f := range d.Fields() {
			doc := f.Doc
			if f.Sealed {
				doc = strings.TrimSpace(doc + " (sealed under the person's key)")
			}
			payload.Properties[f.Name] = &huma.Schema{Description: doc}
		}
		payloads = append(payloads, payload)
	}
	event.Properties["data"].OneOf = payloads
	a.huma.OpenAPI().Components.Schemas.Map()["CloudEvent"] = event
	ref := &huma.Schema{Ref: "#/components/schemas/CloudEvent"}
	return &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		intake.MediaTypeEvent: {Schema: ref},
		intake.MediaTypeBatch: {Schema: &huma.Schema{Type: huma.TypeArray, Items: ref}},
		"application/json":    {Schema: &huma.Schema{Description: "The payload alone; the attributes are ce-* headers."}},
	}}
}

func anys(texts []string) []any {
	out := make([]any, len(texts))
	for i, t := range texts {
		out[i] = t
	}
	return out
}

type acceptEventsInput struct {
	header  http.Header
	RawBody []byte `contentType:"application/json"`
}

// Resolve takes the headers, whose ce-* ones are the attributes of the binary mode.
func (in *acceptEventsInput) Resolve(ctx huma.Context) []error {
	in.header = http.Header{}
	ctx.EachHeader(func(name, value string) { in.header.Add(name, value) })
	return nil
}

type acceptEventsOutput struct {
	Body struct {
		Accepted []intake.Accepted `json:"accepted" nullable:"false" doc:"One for each event, in their order."`
	}
}

func (a *api) acceptEvents(ctx context.Context, in *acceptEventsInput) (*acceptEventsOutput, error) {
	events, err := intake.Parse(in.header, in.RawBody, a.Limits)
	if err != nil {
		return nil, err
	}
	out := &acceptEventsOutput{}
	out.Body.Accepted, err = a.intake.Accept(ctx, PrincipalOf(ctx).Name, events)
	return out, err
}

// Event is an event as the ledger holds it.
type Event struct {
	Position      int64           `json:"position"`
	ID            uuid.UUID       `json:"id"`
	Type          string          `json:"type"`
	Stream        string          `json:"stream" doc:"What it is about."`
	Version       int64           `json:"version" doc:"1, 2, 3, … within the stream."`
	ProfileID     *uuid.UUID      `json:"profile_id" nullable:"true" doc:"The person concerned."`
	Target        *string         `json:"target"`
	DeliveryID    *uuid.UUID      `json:"delivery_id" nullable:"true"`
	OccurredAt    *time.Time      `json:"occurred_at" doc:"By the producer's clock."`
	RecordedAt    time.Time       `json:"recorded_at" doc:"By the ledger's clock, never decreasing."`
	Actor         string          `json:"actor"`
	Source        string          `json:"source"`
	CorrelationID *uuid.UUID      `json:"correlation_id" nullable:"true"`
	CausationID   *uuid.UUID      `json:"causation_id" nullable:"true"`
	Data          json.RawMessage `json:"data" doc:"What is kept for ever."`
	Sealed        *Sealed         `json:"sealed" doc:"Whether there is personal data beside it; null when the event never had any."`
	Leaf          string          `json:"leaf" doc:"Hex: its leaf in the Merkle tree."`
}

func eventOf(r domain.Recorded, sealed *Sealed) Event {
	return Event{
		Position: r.Position, ID: r.ID, Type: r.Type, Stream: r.Stream, Version: r.Version, ProfileID: optional(r.Subject),
		Target: optional(r.Target), DeliveryID: optional(r.DeliveryID), OccurredAt: utc(r.OccurredAt), RecordedAt: r.RecordedAt.UTC(),
		Actor: r.Actor, Source: r.Source, CorrelationID: optional(r.CorrelationID), CausationID: optional(r.CausationID),
		Data: r.Data, Sealed: sealed, Leaf: hex.EncodeToString(r.Leaf),
	}
}

type listEventsInput struct {
	Paging
	Type     string `query:"type" doc:"One type, or several with commas."`
	Stream   string `query:"stream" doc:"Such as target-HANDLE, profile-ID or delivery-ID."`
	Profile  string `query:"profile" format:"uuid"`
	Target   string `query:"target"`
	Delivery string `query:"delivery" format:"uuid"`
	Actor    string `query:"actor" doc:"Who recorded it: a token's name, or a part of the service."`
	From     string `query:"from" format:"date-time" doc:"Recorded at this time or later."`
	To       string `query:"to" format:"date-time" doc:"Recorded before this time."`
	After    int64  `query:"after" minimum:"0" doc:"Positions above this one."`
	Order    string `query:"order" enum:"asc,desc" default:"desc"`
}

func (a *api) listEvents(ctx context.Context, in *listEventsInput) (*Listed[Event], error) {
	list := "events-" + in.Order
	cursor, err := positionCursor(list, in.Cursor)
	if err != nil {
		return nil, err
	}
	f := schema.Filter{After: in.After, Stream: in.Stream, Target: in.Target, Actor: in.Actor, Descending: in.Order == "desc", Limit: in.Limit + 1}
	switch {
	case cursor > 0 && f.Descending:
		f.UpTo = cursor - 1
	case cursor > 0:
		f.After = max(f.After, cursor)
	}
	if in.Type != "" {
		f.Types = strings.Split(in.Type, ",")
	}
	for _, t := range f.Types {
		if _, err := domain.Declared(t); err != nil {
			return nil, badParameter("query.type", "names an event type that there is not")
		}
	}
	if f.Subject, err = parseUUID("query.profile", in.Profile); err != nil {
		return nil, err
	}
	if f.DeliveryID, err = parseUUID("query.delivery", in.Delivery); err != nil {
		return nil, err
	}
	if f.From, f.To, err = parsePeriod(in.From, in.To); err != nil {
		return nil, err
	}
	if cursor == 1 && f.Descending {
		return &Listed[Event]{Body: Page[Event]{Items: []Event{}}}, nil // nothing stands below position 1
	}
	recorded, err := audit.Events(ctx, a.reads(ctx), f)
	if err != nil {
		return nil, err
	}
	items, err := a.show(ctx, recorded)
	if err != nil {
		return nil, err
	}
	return &Listed[Event]{Body: pageOf(list, items, in.Limit, func(e Event) string { return strconv.FormatInt(e.Position, 10) })}, nil
}

// show gives events in the API's shape.
func (a *api) show(ctx context.Context, recorded []domain.Recorded) ([]Event, error) {
	seals, err := a.Vault.Seals(ctx, recorded)
	if err != nil {
		return nil, err
	}
	items := make([]Event, len(recorded))
	for i, r := range recorded {
		items[i] = eventOf(r, sealOf(seals[i], nil))
	}
	return items, nil
}

type getEventInput struct {
	Position int64 `path:"position" minimum:"1"`
}

type getEventOutput struct{ Body Event }

func (a *api) getEvent(ctx context.Context, in *getEventInput) (*getEventOutput, error) {
	r, err := schema.EventAt(ctx, a.reads(ctx), in.Position)
	if err != nil {
		return nil, err
	}
	items, err := a.show(ctx, []domain.Recorded{r})
	if err != nil {
		return nil, err
	}
	return &getEventOutput{Body: items[0]}, nil
}

// pathOf is a path for a Location header.
func pathOf(elements ...string) string {
	var b strings.Builder
	for _, e := range elements {
		b.WriteString("/" + url.PathEscape(e))
	}
	return b.String()
}
