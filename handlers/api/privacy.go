package api

import (
	"bytes"
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	desk "github.com/dispatch-ledger/dispatch-ledger/handlers/privacy"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
)

func (a *api) privacyRoutes() {
	tags := []string{"Privacy"}
	register(a, huma.Operation{
		OperationID: "erase-profile", Method: http.MethodPost, Path: "/v1/profiles/{id}/erasure", Tags: tags,
		Summary: "Erase a person",
		Description: "Destroys the person's key, so that nothing sealed under it can be read any more, here or in a copy. What is queued for them is withheld, their answers " +
			"are kept so that an opt-out is still honoured, and the ledger verifies as before. Cannot be undone; safe to repeat.",
		Errors: []int{http.StatusBadRequest, http.StatusUnprocessableEntity},
	}, a.eraseProfile)
	register(a, huma.Operation{
		OperationID: "access-profile", Method: http.MethodGet, Path: "/v1/profiles/{id}/access", Tags: tags,
		Summary:     "Everything that is held on a person",
		Description: "With all sealed parts opened, which is recorded before it is shown.", Errors: []int{http.StatusUnprocessableEntity},
	}, a.accessProfile)
	register(a, huma.Operation{
		OperationID: "access-page", Method: http.MethodGet, Path: "/v1/profiles/{id}/access.html", Tags: tags,
		Summary: "The same, as a page for people", Description: "One file without scripts, good on paper.", Errors: []int{http.StatusUnprocessableEntity},
		Responses: map[string]*huma.Response{"200": {Description: "The page.", Content: map[string]*huma.MediaType{"text/html": {Schema: &huma.Schema{Type: huma.TypeString}}}}},
	}, a.accessPage)
	register(a, huma.Operation{
		OperationID: "reveal-event", Method: http.MethodPost, Path: "/v1/events/{position}/reveal", Tags: tags,
		Summary: "Read one event with its sealed part", Description: "Who reads it and why is recorded before it is shown.",
		Errors: []int{http.StatusBadRequest, http.StatusNotFound, http.StatusUnprocessableEntity},
	}, a.revealEvent)
	register(a, huma.Operation{
		OperationID: "reveal-delivery", Method: http.MethodPost, Path: "/v1/deliveries/{id}/reveal", Tags: tags,
		Summary: "Read one delivery with its request and its answers", Description: "Secrets stay masked. Who reads it and why is recorded before it is shown.",
		Errors: []int{http.StatusBadRequest, http.StatusNotFound, http.StatusUnprocessableEntity},
	}, a.revealDelivery)
	register(a, huma.Operation{
		OperationID: "list-retentions", Method: http.MethodGet, Path: "/v1/retentions", Tags: tags,
		Summary: "How long what is sealed is kept", Description: "By event type. A type that is not listed is kept for as long as the person is not erased.",
	}, a.listRetentions)
	register(a, huma.Operation{
		OperationID: "put-retention", Method: http.MethodPut, Path: "/v1/retentions/{type}", Tags: tags,
		Summary: "Set how long an event type's sealed parts are kept",
		Description: "In whole days after the day they were recorded on; 0 is for as long as the person is not erased. A shorter time holds for what is there " +
			"already: within the hour its keys are destroyed, and nothing brings them back.",
		Errors: []int{http.StatusBadRequest, http.StatusUnprocessableEntity},
	}, a.putRetention)
}

// desk acts for people.
func (a *api) desk() *desk.Service {
	return &desk.Service{Ledger: a.Ledger, Vault: a.Vault, DB: a.DB, Clock: a.Clock}
}

// by is who makes the request, and why.
func (a *api) by(ctx context.Context, reason string, path ...string) desk.By {
	return desk.By{Actor: PrincipalOf(ctx).Name, Source: source + pathOf(path...), Reason: strings.TrimSpace(reason)}
}

// Why is the body of a request that needs a reason.
type Why struct {
	Reason string `json:"reason" minLength:"1" maxLength:"1000" doc:"Why, in words, such as the number of the request. Kept for ever: it must not name the person."`
}

type eraseProfileInput struct {
	ProfileInput
	Body Why
}

type eraseProfileOutput struct{ Body desk.Erasure }

func (a *api) eraseProfile(ctx context.Context, in *eraseProfileInput) (*eraseProfileOutput, error) {
	profile, err := parseUUID("path.id", in.ID)
	if err != nil {
		return nil, err
	}
	done, err := a.desk().Erase(ctx, profile, a.by(ctx, in.Body.Reason, "v1", "profiles", profile.String(), "erasure"))
	return &eraseProfileOutput{Body: done}, err
}

type accessProfileInput struct {
	ProfileInput
	Reason string `header:"Reveal-Reason" required:"true" minLength:"1" maxLength:"1000" doc:"Why, in words. A header, so that no log of addresses holds it."`
}

type accessProfileOutput struct{ Body desk.Access }

func (a *api) accessProfile(ctx context.Context, in *accessProfileInput) (*accessProfileOutput, error) {
	profile, err := parseUUID("path.id", in.ID)
	if err != nil {
		return nil, err
	}
	held, err := a.desk().Access(ctx, profile, a.by(ctx, in.Reason, "v1", "profiles", profile.String(), "access"))
	return &accessProfileOutput{Body: held}, err
}

type accessPageOutput struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

func (a *api) accessPage(ctx context.Context, in *accessProfileInput) (*accessPageOutput, error) {
	held, err := a.accessProfile(ctx, in)
	if err != nil {
		return nil, err
	}
	var page bytes.Buffer
	if err := held.Body.WriteHTML(&page); err != nil {
		return nil, err
	}
	return &accessPageOutput{ContentType: "text/html; charset=utf-8", Body: page.Bytes()}, nil
}

type revealEventInput struct {
	Position int64 `path:"position" minimum:"1"`
	Body     Why
}

func (a *api) revealEvent(ctx context.Context, in *revealEventInput) (*getEventOutput, error) {
	revealed, err := a.desk().RevealEvent(ctx, in.Position, a.by(ctx, in.Body.Reason, "v1", "events"))
	if err != nil {
		return nil, err
	}
	return &getEventOutput{Body: eventOf(revealed.Recorded, sealOf(revealed.Seal, revealed.Secret))}, nil
}

type revealDeliveryInput struct {
	ID   string `path:"id" format:"uuid"`
	Body Why
}

func (a *api) revealDelivery(ctx context.Context, in *revealDeliveryInput) (*getDeliveryOutput, error) {
	id, err := parseUUID("path.id", in.ID)
	if err != nil {
		return nil, err
	}
	revealed, err := a.desk().RevealDelivery(ctx, id, a.by(ctx, in.Body.Reason, "v1", "deliveries", id.String()))
	if err != nil {
		return nil, err
	}
	d, err := deliveries.Get(ctx, a.DB, id)
	if err != nil {
		return nil, err
	}
	sealed := make(map[int64]*Sealed, len(revealed))
	for _, r := range revealed {
		sealed[r.Position] = sealOf(r.Seal, r.Secret)
	}
	return &getDeliveryOutput{Body: deliveryOf(d, sealed)}, nil
}

type listRetentionsOutput struct {
	Body struct {
		Items []desk.Retention `json:"items" nullable:"false"`
	}
}

func (a *api) listRetentions(ctx context.Context, _ *struct{}) (*listRetentionsOutput, error) {
	out := &listRetentionsOutput{}
	var err error
	out.Body.Items, err = a.desk().Retentions(ctx)
	return out, err
}

type putRetentionInput struct {
	Type string `path:"type" doc:"The event type, such as delivery.planned."`
	Body struct {
		Days int `json:"days" minimum:"0" doc:"Whole days; 0 is for as long as the person is not erased."`
		Why
	}
}

type putRetentionOutput struct{ Body desk.Retention }

func (a *api) putRetention(ctx context.Context, in *putRetentionInput) (*putRetentionOutput, error) {
	set, err := a.desk().Retain(ctx, in.Type, in.Body.Days, a.by(ctx, in.Body.Reason, "v1", "retentions", in.Type))
	return &putRetentionOutput{Body: set}, err
}
