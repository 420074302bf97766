package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
)

func (a *api) pastContextRoutes() {
	register(a, huma.Operation{
		OperationID: "open-past-context", Method: http.MethodPost, Path: "/v1/contexts", Tags: []string{"Targets"},
		Summary:     "Open the context of a past delivery",
		Description: "To try a target with what really happened: give it to the preview, or to a test. It is somebody's data: who opens it, and why, is recorded before it is shown.",
		Errors:      []int{http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
	}, a.openPastContext)
}

type openPastContextInput struct {
	Body struct {
		Delivery uuid.UUID `json:"delivery" format:"uuid" doc:"Whose firing's context it is."`
		Why
	}
}

// PastContext is what a target was once fired with.
type PastContext struct {
	Delivery  uuid.UUID       `json:"delivery"`
	ProfileID *uuid.UUID      `json:"profile_id" nullable:"true" doc:"Whom it is about."`
	Reaction  string          `json:"reaction"`
	Target    string          `json:"target"`
	Cause     string          `json:"cause"`
	Context   json.RawMessage `json:"context" doc:"A JSON object."`
}

type openPastContextOutput struct{ Body PastContext }

func (a *api) openPastContext(ctx context.Context, in *openPastContextInput) (*openPastContextOutput, error) {
	past, err := a.trials().Past(ctx, author(ctx), in.Body.Delivery, in.Body.Reason)
	if err != nil {
		return nil, err
	}
	return &openPastContextOutput{Body: PastContext{
		Delivery: in.Body.Delivery, ProfileID: optional(past.ProfileID), Reaction: past.Reaction, Target: past.Target, Cause: past.Cause, Context: past.Context,
	}}, nil
}
