package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/contacts"
)

func (a *api) consentRoutes() {
	tags := []string{"Consent"}
	register(a, huma.Operation{
		OperationID: "get-consent", Method: http.MethodGet, Path: "/v1/profiles/{id}/consent", Tags: tags,
		Summary: "What does a person agree to?",
		Description: "The answer that holds for each channel and purpose; what is absent was never asked, which is not consent. Two clocks, alone " +
			"or together: `as_of` counts only what had been decided by then (what held); `known_at` or `position` only what the ledger had heard of " +
			"by then (what we knew). `delivery` asks what was known when that message was last decided on. Where the CRM merged profiles, the " +
			"most restrictive of their answers holds until the person answers again.",
		Errors: []int{http.StatusUnprocessableEntity, http.StatusNotFound},
	}, a.getConsent)
	register(a, huma.Operation{
		OperationID: "put-consent", Method: http.MethodPut, Path: "/v1/profiles/{id}/consent", Tags: tags,
		Summary: "Record a decision by hand",
		Description: "Takes the data of a consent.changed event without its profile_id; decided_at is now unless given. With an Idempotency-Key, " +
			"the same request may be sent again; give decided_at with it.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/json": {Schema: a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[ConsentDecision](), true, "ConsentDecision")},
		}},
		Errors: []int{http.StatusConflict},
	}, a.putConsent)
	register(a, huma.Operation{
		OperationID: "get-consent-history", Method: http.MethodGet, Path: "/v1/profiles/{id}/history", Tags: tags,
		Summary:     "What did a person ever answer?",
		Description: "Every answer, in the order in which the ledger heard of them; those of profiles that the CRM merged with this one included, each under the profile that it was recorded for.",
	}, a.getConsentHistory)
	register(a, huma.Operation{
		OperationID: "list-consent-fields", Method: http.MethodGet, Path: "/v1/consent/fields", Tags: tags,
		Summary: "What do the CRM's field names mean?", Description: "The one table by which webhooks and imports are read, aliases included.",
	}, a.listConsentFields)
	register(a, huma.Operation{
		OperationID: "list-addresses", Method: http.MethodGet, Path: "/v1/profiles/{id}/addresses", Tags: tags,
		Summary:     "Which addresses does a person have, and do they work?",
		Description: "Current and former ones, by their keyed hashes, with the last report on each: bounced, invalid, verified, working. It is no consent, and changes none.",
	}, a.listAddresses)
	a.consentPolicyRoutes(tags)
	a.consentImportRoutes(tags)
	a.promptnessRoutes()
}

// ConsentDecision is the body of PUT …/consent: consent.changed without the person.
type ConsentDecision struct {
	Changes   []domain.ConsentChange `json:"changes" nullable:"false" minItems:"1" maxItems:"60" doc:"One to 60 answers, each for a channel and purpose."`
	DecidedAt *time.Time             `json:"decided_at,omitempty" doc:"When the person decided; now by default."`
	DecidedBy string                 `json:"decided_by" doc:"customer, staff, admin, import or platform"`
	Method    string                 `json:"method,omitempty" doc:"How: preference_centre, pos, sms_keyword, …"`
	Note      string                 `json:"note,omitempty" doc:"Why, in words (sealed)."`
	Contact   *domain.Contact        `json:"contact,omitempty" doc:"The addresses concerned (sealed)."`
	Evidence  map[string]string      `json:"evidence,omitempty" doc:"What proves it (sealed)."`
}

type ProfileInput struct {
	ID string `path:"id" format:"uuid"`
}

// Consent is what a person agreed to.
type Consent struct {
	ProfileID uuid.UUID       `json:"profile_id"`
	AsOf      *time.Time      `json:"as_of" doc:"Decisions made up to this time; null for all."`
	KnownAt   *time.Time      `json:"known_at" doc:"As heard of by this time; null for now."`
	Position  *int64          `json:"position" doc:"As known at this position; null for now."`
	Erased    bool            `json:"erased" doc:"The person's data was erased; the answers are kept so that an opt-out is still honoured."`
	Items     []consent.Entry `json:"items" nullable:"false" doc:"By channel and purpose."`
	Merges    []consent.Merge `json:"merges" nullable:"false" doc:"What made other profiles the same person, as far as it was known then."`
}

// Moment is where in time consent is asked for.
type Moment struct {
	AsOf     string `query:"as_of" format:"date-time" doc:"Only what had been decided by then."`
	KnownAt  string `query:"known_at" format:"date-time" doc:"Only what the ledger had heard of by then."`
	Position int64  `query:"position" minimum:"1" doc:"Only what the ledger had heard of up to this position."`
	Delivery string `query:"delivery" format:"uuid" doc:"What was known when this delivery was last decided on."`
}

func (a *api) moment(ctx context.Context, m Moment) (at consent.AsOf, err error) {
	if at.Decided, err = parseTime("query.as_of", m.AsOf); err != nil {
		return at, err
	}
	if at.Known, err = parseTime("query.known_at", m.KnownAt); err != nil {
		return at, err
	}
	delivery, err := parseUUID("query.delivery", m.Delivery)
	if err != nil {
		return at, err
	}
	at.Position = m.Position
	switch {
	case delivery == uuid.Nil:
	case m.Position > 0 || m.KnownAt != "":
		return at, badParameter("query.delivery", "says what was known, and so does position or known_at; give one of them")
	default:
		if at.Position, err = consent.DecidedOn(ctx, a.DB, delivery); err != nil {
			return at, err
		}
	}
	return at, nil
}

type getConsentInput struct {
	ProfileInput
	Moment
}

type getConsentOutput struct{ Body Consent }

func (a *api) getConsent(ctx context.Context, in *getConsentInput) (*getConsentOutput, error) {
	profile, err := parseUUID("path.id", in.ID)
	if err != nil {
		return nil, err
	}
	at, err := a.moment(ctx, in.Moment)
	if err != nil {
		return nil, err
	}
	dossier, err := consent.Read(ctx, a.DB, profile, at)
	if err != nil {
		return nil, err
	}
	erased, err := a.erased(ctx, profile)
	if err != nil {
		return nil, err
	}
	return &getConsentOutput{Body: Consent{
		ProfileID: profile, AsOf: utc(at.Decided), KnownAt: utc(at.Known), Position: optional(at.Position), Erased: erased,
		Items: dossier.Held(), Merges: dossier.Merges,
	}}, nil
}

type getConsentHistoryInput struct {
	ProfileInput
	Paging
}

// answersPerEvent is more answers than one event holds.
const answersPerEvent = 100

func (a *api) getConsentHistory(ctx context.Context, in *getConsentHistoryInput) (*Listed[consent.Entry], error) {
	profile, err := parseUUID("path.id", in.ID)
	if err != nil {
		return nil, err
	}
	after, err := positionCursor("history", in.Cursor)
	if err != nil {
		return nil, err
	}
	dossier, err := consent.Read(ctx, a.reads(ctx), profile, consent.AsOf{})
	if err != nil {
		return nil, err
	}
	// One event has several entries: the place of one is its event's position and its number within the event.
	var entries []consent.Entry
	places := map[int]int64{}
	var place, last int64
	for _, e := range dossier.Answers {
		if place++; e.Position != last {
			place, last = e.Position*answersPerEvent, e.Position
		}
		if place > after {
			places[len(entries)] = place
			entries = append(entries, e)
		}
	}
	return &Listed[consent.Entry]{Body: pageOf("history", entries, in.Limit, func(consent.Entry) string { return strconv.FormatInt(places[in.Limit-1], 10) })}, nil
}

func (a *api) listAddresses(ctx context.Context, in *ProfileInput) (*Listed[contacts.Address], error) {
	profile, err := parseUUID("path.id", in.ID)
	if err != nil {
		return nil, err
	}
	list, err := contacts.Of(ctx, a.DB, profile)
	if err != nil {
		return nil, err
	}
	return &Listed[contacts.Address]{Body: Page[contacts.Address]{Items: list}}, nil
}

func (a *api) listConsentFields(context.Context, *struct{}) (*Listed[domain.CommsField], error) {
	return &Listed[domain.CommsField]{Body: Page[domain.CommsField]{Items: domain.CommsFields}}, nil
}

type putConsentInput struct {
	ProfileInput
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"256" doc:"Your name for this decision, so that a repeat is recognised."`
	RawBody        []byte `contentType:"application/json"`
}

type putConsentOutput struct{ Body intake.Accepted }

func (a *api) putConsent(ctx context.Context, in *putConsentInput) (*putConsentOutput, error) {
	profile, err := parseUUID("path.id", in.ID)
	if err != nil {
		return nil, err
	}
	body, err := without(in.RawBody, nil)
	if err != nil {
		return nil, err
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(body, &object); err != nil {
		return nil, err
	}
	if _, given := object["profile_id"]; given {
		return nil, domain.Invalid("/profile_id", "is given by the path; leave it out")
	}
	now := a.Clock().UTC().Truncate(time.Microsecond)
	for name, value := range map[string]any{"profile_id": profile, "decided_at": now} {
		if _, given := object[name]; given {
			continue
		}
		if object[name], err = json.Marshal(value); err != nil {
			return nil, err
		}
	}
	data, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	id := in.IdempotencyKey
	if id == "" {
		id = domain.NewID().String()
	}
	accepted, err := a.intake.Accept(ctx, PrincipalOf(ctx).Name, []intake.Event{{
		ID: id, Source: source + pathOf("v1", "profiles", profile.String(), "consent"), Type: domain.TypeOf(domain.ConsentChanged{}), Time: now, Data: data,
	}})
	if err != nil {
		return nil, ofBody(err)
	}
	return &putConsentOutput{Body: accepted[0]}, nil
}

// ofBody points a refusal at the body, which is the data of the event that it became.
func ofBody(err error) error {
	var refused *intake.RefusedError
	if !errors.As(err, &refused) || !errors.Is(err, domain.ErrInvalid) {
		return err
	}
	p := kindOf(domain.ErrInvalid).problem(nil)
	for _, r := range refused.Refusals {
		p.Errors = append(p.Errors, ProblemField{Pointer: strings.TrimPrefix(r.Pointer, "/data"), Detail: r.Detail})
	}
	return p
}
