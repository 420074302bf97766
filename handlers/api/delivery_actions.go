package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/dispatcher"
)

func (a *api) deliveryActionRoutes() {
	tags := []string{"Deliveries"}
	register(a, huma.Operation{
		OperationID: "retry-delivery", Method: http.MethodPost, Path: "/v1/deliveries/{id}/retry", Tags: tags,
		Summary: "Try a delivery again that has ended",
		Description: "With the request that was planned: it is not rendered anew. Begin with dry_run. The answer says what has changed since: the target's version, and consent then and now. " +
			"Consent is asked again before the request leaves.",
		DefaultStatus: http.StatusAccepted, Errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
	}, a.retryDelivery)
	register(a, huma.Operation{
		OperationID: "cancel-delivery", Method: http.MethodPost, Path: "/v1/deliveries/{id}/cancel", Tags: tags,
		Summary:       "Stop a delivery that is still to be sent",
		Description:   "A request that is in flight cannot be called back: if the platform takes it, the delivery has succeeded after all.",
		DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict},
	}, a.cancelDelivery)
}

func (a *api) controls() dispatcher.Controls {
	return dispatcher.Controls{DB: a.DB, Ledger: a.Ledger, Vault: a.Vault, Now: a.Clock}
}

// RetryReason says why a delivery is tried again.
type RetryReason struct {
	Reason        string `json:"reason,omitempty" maxLength:"1000" doc:"Why, in words."`
	DryRun        bool   `json:"dry_run,omitempty" doc:"Only say what has changed since; put nothing back."`
	EvenSucceeded bool   `json:"even_succeeded,omitempty" doc:"Send it again although it succeeded, which may reach the person twice."`
}

type retryDeliveryInput struct {
	ID   string `path:"id" format:"uuid"`
	Body *RetryReason
}

// Requeued says what has changed since a delivery was planned that is tried again.
type Requeued struct {
	ID             uuid.UUID       `json:"id"`
	Attempt        int             `json:"attempt" doc:"Number of the next attempt."`
	DueAt          time.Time       `json:"due_at"`
	Was            domain.Outcome  `json:"was" doc:"What the delivery was before." enum:"pending,sending,retrying,held,succeeded,failed,withheld,rejected,cancelled,expired"`
	PlannedVersion int64           `json:"planned_version" doc:"The target's version that the request was rendered with."`
	CurrentVersion int64           `json:"current_version" doc:"The target's version now."`
	ConsentThen    domain.Decision `json:"consent_then"`
	ConsentNow     domain.Decision `json:"consent_now" doc:"Withheld here is withheld again, unless it changes before the request leaves."`
}

type retryDeliveryOutput struct{ Body Requeued }

func (a *api) retryDelivery(ctx context.Context, in *retryDeliveryInput) (*retryDeliveryOutput, error) {
	id, err := parseUUID("path.id", in.ID)
	if err != nil {
		return nil, err
	}
	again := dispatcher.Again{Actor: PrincipalOf(ctx).Name}
	if in.Body != nil {
		again.Reason, again.Sent, again.DryRun = in.Body.Reason, in.Body.EvenSucceeded, in.Body.DryRun
	}
	r, err := a.controls().Retry(ctx, id, again)
	if err != nil {
		return nil, err
	}
	return &retryDeliveryOutput{Body: Requeued{
		ID: id, Attempt: r.Attempt, DueAt: r.DueAt, Was: r.Was, PlannedVersion: r.PlannedVersion, CurrentVersion: r.CurrentVersion,
		ConsentThen: r.ConsentThen, ConsentNow: r.ConsentNow,
	}}, nil
}

// CancelReason says why a delivery is stopped.
type CancelReason struct {
	Reason string `json:"reason,omitempty" maxLength:"1000" doc:"Why, in words."`
}

type cancelDeliveryInput struct {
	ID   string `path:"id" format:"uuid"`
	Body *CancelReason
}

func (a *api) cancelDelivery(ctx context.Context, in *cancelDeliveryInput) (*struct{}, error) {
	id, err := parseUUID("path.id", in.ID)
	if err != nil {
		return nil, err
	}
	reason := ""
	if in.Body != nil {
		reason = in.Body.Reason
	}
	return nil, a.controls().Cancel(ctx, id, PrincipalOf(ctx).Name, reason)
}
