package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/omneo"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// hooksAtOnce bounds the webhooks that are worked on at the same time: each holds a connection.
const hooksAtOnce = 4

func (a *api) hookRoutes() {
	register(a, huma.Operation{
		OperationID: "take-omneo-hook", Method: http.MethodPost, Path: "/v1/hooks/omneo", Tags: []string{"Consent"},
		Summary: "Take a webhook of the CRM's",
		Description: "For profile.created, profile.updated, profile.merged and profile.deleted; register the URL with `?event=` and the trigger's name. " +
			"X-Omneo-Hmac-SHA256 holds the hex HMAC-SHA256 of the raw body under the secret omneo_webhook_secret. What it says is durable when it is answered; a repeat has no effect.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}}}},
		Errors:      []int{http.StatusUnauthorized, http.StatusServiceUnavailable},
	}, a.takeOmneoHook)
}

type omneoHookInput struct {
	Event     string `query:"event" maxLength:"64" doc:"The trigger that the URL is registered for."`
	Signature string `header:"X-Omneo-Hmac-SHA256" maxLength:"128" doc:"Hex HMAC-SHA256 of the raw body."`
	Timestamp string `header:"X-Omneo-Timestamp" maxLength:"64" doc:"When it was sent, where the sender says so: within five minutes of our clock. The signature may then cover it, a dot and the body."`
	Named     string `header:"X-Omneo-Event" maxLength:"64"`
	RawBody   []byte `contentType:"application/json"`
}

type omneoHookOutput struct{ Body omneo.Taken }

func (a *api) takeOmneoHook(ctx context.Context, in *omneoHookInput) (*omneoHookOutput, error) {
	secret, err := a.Vault.Secret(ctx, omneo.SecretName)
	if errors.Is(err, schema.ErrNoSecret) {
		return nil, errHookNotSetUp
	}
	if err != nil {
		return nil, err
	}
	secrets := []string{secret.Reveal()}
	if before, ok := secret.RevealPrevious(); ok {
		secrets = append(secrets, before)
	}
	h := http.Header{}
	h.Set(omneo.SignatureHeader, in.Signature)
	h.Set(omneo.TimestampHeader, in.Timestamp)
	h.Set("X-Omneo-Event", in.Named)
	if err := omneo.Verify(h, in.RawBody, a.Clock(), secrets...); err != nil {
		a.metrics.refused.Inc()
		return nil, err
	}
	hook, err := omneo.Decode(h, in.Event, in.RawBody)
	if err != nil {
		return nil, err
	}
	select {
	case a.hooks <- struct{}{}:
		defer func() { <-a.hooks }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	service := omneo.Service{Ledger: a.Ledger, Vault: a.Vault, DB: a.DB, Intake: a.intake, Clock: a.Clock}
	taken, err := service.Take(ctx, "omneo", hook)
	if err != nil {
		return nil, err
	}
	return &omneoHookOutput{Body: taken}, nil
}
