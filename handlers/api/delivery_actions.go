package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/dispatcher"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
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
	register(a, huma.Operation{
		OperationID: "replay-deliveries", Method: http.MethodPost, Path: "/v1/replays", Tags: tags,
		Summary: "Try many deliveries again",
		Description: "Those that the filter selects, newest first, at most limit in one call; what succeeded is passed over. Begin with dry_run, which counts. " +
			"To go on, or after an interruption, send the same id again with the cursor of next: what was put back under an id is not put back twice.",
		Errors: []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity},
	}, a.replayDeliveries)
}

func (a *api) controls() dispatcher.Controls {
	return dispatcher.Controls{DB: a.DB, Ledger: a.Ledger, Vault: a.Vault, Now: a.Clock}
}

// RetryReason says why a delivery is tried again.
type RetryReason struct {
	_             struct{} `additionalProperties:"false"`
	Reason        string   `json:"reason,omitempty" maxLength:"1000" doc:"Why, in words."`
	DryRun        bool     `json:"dry_run,omitempty" doc:"Only say what has changed since; put nothing back."`
	EvenSucceeded bool     `json:"even_succeeded,omitempty" doc:"Send it again although it succeeded, which may reach the person twice."`
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
	_      struct{} `additionalProperties:"false"`
	Reason string   `json:"reason,omitempty" maxLength:"1000" doc:"Why, in words."`
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

// replayable are the outcomes that a replay selects unless it names others.
var replayable = []domain.Outcome{domain.Failed, domain.Expired, domain.Cancelled}

type replayInput struct {
	Body struct {
		ID       uuid.UUID        `json:"id,omitempty" doc:"Of the replay; a new one when it is left out."`
		Target   string           `json:"target,omitempty" doc:"Handle of the target."`
		Reaction string           `json:"reaction,omitempty" doc:"Handle of the reaction."`
		Platform string           `json:"platform,omitempty"`
		Outcomes []domain.Outcome `json:"outcomes,omitempty" doc:"failed, expired and cancelled when left out; withheld may be named besides." enum:"failed,expired,cancelled,withheld"`
		From     time.Time        `json:"from,omitempty" doc:"Planned at this time or later."`
		To       time.Time        `json:"to,omitempty" doc:"Planned before this time."`
		Limit    int              `json:"limit,omitempty" minimum:"1" maximum:"10000" default:"1000" doc:"Most in one call."`
		Cursor   string           `json:"cursor,omitempty" doc:"The next of the call before."`
		Rate     float64          `json:"rate,omitempty" minimum:"0" maximum:"10000" doc:"Deliveries a second; 0 goes as fast as the targets' own limits allow."`
		DryRun   bool             `json:"dry_run,omitempty" doc:"Count, and put nothing back."`
		Reason   string           `json:"reason,omitempty" maxLength:"1000" doc:"Why, in words."`
	}
}

// Replayed is what a call of a replay did.
type Replayed struct {
	ID       uuid.UUID              `json:"id"`
	DryRun   bool                   `json:"dry_run"`
	Matched  int                    `json:"matched" doc:"Deliveries that the filter selects, at most limit."`
	Requeued int                    `json:"requeued" doc:"Of those, put back into the queue; in a dry run, how many would be."`
	Skipped  int                    `json:"skipped" doc:"Without a request, or put back under this id before."`
	Refused  int                    `json:"refused" doc:"Erased, their target withdrawn, or changed at this moment."`
	Until    *time.Time             `json:"until" doc:"When the next one would be due: the pace goes on there with the cursor of next."`
	Total    map[domain.Outcome]int `json:"total,omitempty" doc:"Of a dry run: all deliveries that the filter selects, whatever the limit, by outcome; counting ends at a million."`
	Next     *string                `json:"next" doc:"Cursor of the next call; null when that was all."`
}

type replayOutput struct{ Body Replayed }

func (a *api) replayDeliveries(ctx context.Context, in *replayInput) (*replayOutput, error) {
	b := in.Body
	if b.ID == uuid.Nil {
		b.ID = uuid.New()
	}
	if len(b.Outcomes) == 0 {
		b.Outcomes = replayable
	}
	if i := slices.IndexFunc(b.Outcomes, func(o domain.Outcome) bool { return !o.Final() || o == domain.Succeeded || o == domain.Rejected }); i >= 0 {
		return nil, domain.Invalid("/outcomes/"+strconv.Itoa(i), "is not failed, expired, cancelled or withheld")
	}
	before, start, err := replayCursor(b.Cursor)
	if err != nil {
		return nil, err
	}
	got, err := a.controls().Replay(ctx, dispatcher.Replay{
		ID: b.ID, Rate: b.Rate, Start: start, DryRun: b.DryRun, Actor: PrincipalOf(ctx).Name, Reason: b.Reason,
		Filter: deliveries.Filter{Target: b.Target, Reaction: b.Reaction, Platform: b.Platform, Outcomes: b.Outcomes, From: b.From, To: b.To, Before: before, Limit: b.Limit},
	})
	if err != nil {
		return nil, err
	}
	out := &replayOutput{Body: Replayed{ID: b.ID, DryRun: b.DryRun, Matched: got.Matched, Requeued: got.Requeued, Skipped: got.Skipped, Refused: got.Refused, Total: got.Total}}
	if !got.Until.IsZero() {
		until := got.Until.UTC()
		out.Body.Until = &until
	}
	if got.Next > 0 {
		out.Body.Next = optional(encodeCursor("replay", fmt.Sprintf("%d@%d", got.Next, later(got.Until, start).UnixMilli())))
	}
	return out, nil
}

// replayCursor says where a replay goes on: below which position, and when the next delivery is due, so that its rate holds
// from call to call.
func replayCursor(cursor string) (before int64, start time.Time, err error) {
	key, err := decodeCursor("replay", cursor)
	if err != nil || key == "" {
		return 0, start, err
	}
	var due int64
	if n, err := fmt.Sscanf(key, "%d@%d", &before, &due); n != 2 || err != nil || before < 0 {
		return 0, start, errBadCursor
	}
	if due > 0 {
		start = time.UnixMilli(due)
	}
	return before, start, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
