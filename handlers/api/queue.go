package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/dispatcher"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
)

func (a *api) queueRoutes() {
	tags := []string{"Queue"}
	register(a, huma.Operation{
		OperationID: "list-queue", Method: http.MethodGet, Path: "/v1/queue", Tags: tags,
		Summary:     "What waits, target by target, and what holds it",
		Description: "Targets for which something is queued, and those that are paused.",
	}, a.listQueue)
	register(a, huma.Operation{
		OperationID: "pause-target", Method: http.MethodPost, Path: "/v1/targets/{handle}/pause", Tags: tags,
		Summary:       "Hold everything that is queued for a target",
		Description:   "Nothing is sent and nothing is dropped, until the time that is named or until somebody resumes the target. Requests in flight end as they end. To have firings withheld instead, disable the target.",
		DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
	}, a.pauseTarget)
	register(a, huma.Operation{
		OperationID: "resume-target", Method: http.MethodPost, Path: "/v1/targets/{handle}/resume", Tags: tags,
		Summary:       "Release what is held for a target",
		Description:   "Whoever paused it: a person, its breaker, or its platform's rate limit. What is held goes out as fast as the target's limits allow.",
		DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict},
	}, a.resumeTarget)
	register(a, huma.Operation{
		OperationID: "discard-held", Method: http.MethodPost, Path: "/v1/targets/{handle}/discard", Tags: tags,
		Summary:     "Cancel everything that waits for a target",
		Description: "Begin with dry_run, which counts. Requests in flight are left to end. What is cancelled can be taken up again with a retry or a replay.",
		Errors:      []int{http.StatusBadRequest, http.StatusNotFound, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity},
	}, a.discardHeld)
	register(a, huma.Operation{
		OperationID: "describe-retries", Method: http.MethodPost, Path: "/v1/retry-schedules", Tags: tags,
		Summary:     "See when a failing delivery is tried again, and when it is given up",
		Description: "Of a target as it is, or with other rules that are not saved yet. Reads and records nothing.",
		Errors:      []int{http.StatusBadRequest, http.StatusNotFound, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity},
	}, a.describeRetries)
}

// QueuedTarget is what waits for a target.
type QueuedTarget struct {
	Target string     `json:"target"`
	Queued int        `json:"queued" doc:"Deliveries that are still to be sent."`
	Due    int        `json:"due" doc:"Of those, what could be sent now if nothing held it."`
	Oldest *time.Time `json:"oldest" doc:"When the first of them was due, or will be."`
	Pause  *Pause     `json:"pause" doc:"Null when nothing holds it."`
}

// Pause is why a target's deliveries are held.
type Pause struct {
	Cause  string     `json:"cause" enum:"rate_limited,failures,operator"`
	Reason string     `json:"reason"`
	Since  time.Time  `json:"since"`
	Until  *time.Time `json:"until" doc:"Null: until somebody resumes it. When it has passed, one request at a time tries whether the target answers again."`
	Pauses int        `json:"pauses" doc:"In a row."`
}

type listQueueOutput struct {
	Body struct {
		Items []QueuedTarget `json:"items" nullable:"false"`
	}
}

func (a *api) listQueue(ctx context.Context, _ *struct{}) (*listQueueOutput, error) {
	found, err := queue.Overview(ctx, a.DB)
	if err != nil {
		return nil, err
	}
	out := &listQueueOutput{}
	out.Body.Items = make([]QueuedTarget, len(found))
	for i, f := range found {
		q := QueuedTarget{Target: f.Target, Queued: f.Queued, Due: f.Due, Oldest: utc(f.Oldest)}
		if f.Pause.Cause != "" {
			p := f.Pause
			q.Pause = &Pause{Cause: p.Cause, Reason: p.Reason, Since: p.Since.UTC(), Until: utc(p.Until), Pauses: p.Pauses}
		}
		out.Body.Items[i] = q
	}
	return out, nil
}

type pauseTargetInput struct {
	TargetInput
	Body *struct {
		Reason string    `json:"reason,omitempty" maxLength:"1000" doc:"Why, in words."`
		Until  time.Time `json:"until,omitempty" doc:"When it is released by itself; left out: when somebody resumes it."`
	}
}

func (a *api) pauseTarget(ctx context.Context, in *pauseTargetInput) (*struct{}, error) {
	var reason string
	var until time.Time
	if in.Body != nil {
		reason, until = in.Body.Reason, in.Body.Until
	}
	return nil, a.controls().Pause(ctx, in.Handle, PrincipalOf(ctx).Name, reason, until)
}

type resumeTargetInput struct {
	TargetInput
	Body *struct {
		Reason string `json:"reason,omitempty" maxLength:"1000" doc:"Why, in words."`
	}
}

func (a *api) resumeTarget(ctx context.Context, in *resumeTargetInput) (*struct{}, error) {
	reason := ""
	if in.Body != nil {
		reason = in.Body.Reason
	}
	return nil, a.controls().Resume(ctx, in.Handle, PrincipalOf(ctx).Name, reason)
}

type discardHeldInput struct {
	TargetInput
	Body struct {
		Reason string `json:"reason" minLength:"1" maxLength:"1000" doc:"Why, in words."`
		DryRun bool   `json:"dry_run,omitempty" doc:"Count, and cancel nothing."`
	}
}

// Discarded is what cancelling a target's queue did.
type Discarded struct {
	DryRun    bool `json:"dry_run"`
	Waiting   int  `json:"waiting" doc:"Deliveries in the queue that nobody was sending."`
	Cancelled int  `json:"cancelled" doc:"Of those; the others went out at this moment."`
}

type discardHeldOutput struct{ Body Discarded }

func (a *api) discardHeld(ctx context.Context, in *discardHeldInput) (*discardHeldOutput, error) {
	got, err := a.controls().Discard(ctx, dispatcher.Discard{Target: in.Handle, Actor: PrincipalOf(ctx).Name, Reason: in.Body.Reason, DryRun: in.Body.DryRun})
	if err != nil {
		return nil, err
	}
	return &discardHeldOutput{Body: Discarded{DryRun: in.Body.DryRun, Waiting: got.Waiting, Cancelled: got.Cancelled}}, nil
}

type describeRetriesInput struct {
	Body struct {
		Handle      string             `json:"handle,omitempty" maxLength:"128" doc:"A target whose rules hold where the request names no others; left out: the defaults."`
		Retry       *domain.Retry      `json:"retry,omitempty" doc:"In place of the target's."`
		QuietHours  *domain.QuietHours `json:"quiet_hours,omitempty" doc:"In place of the target's."`
		ExpireAfter domain.Duration    `json:"expire_after,omitempty" doc:"In place of the target's."`
		Due         time.Time          `json:"due,omitempty" doc:"When the delivery is due; now when it is left out."`
		Zone        string             `json:"zone,omitempty" maxLength:"64" doc:"Time zone of the words, such as Australia/Sydney; that of due when it is left out."`
	}
}

type describeRetriesOutput struct {
	Body struct {
		Schedules []domain.RetrySchedule `json:"schedules" nullable:"false" doc:"One for each rule, and one for all that no rule is about."`
	}
}

func (a *api) describeRetries(ctx context.Context, in *describeRetriesInput) (*describeRetriesOutput, error) {
	b := in.Body
	t := domain.Target{Handle: "draft", URL: "https://example.com", Body: "{}"}
	if b.Handle != "" {
		known, err := targets.Get(ctx, a.DB, b.Handle)
		if err != nil {
			return nil, err
		}
		t = known.Target
	}
	if b.Retry != nil {
		t.Retry = *b.Retry
	}
	if b.QuietHours != nil {
		t.QuietHours = b.QuietHours
	}
	if b.ExpireAfter > 0 {
		t.ExpireAfter = b.ExpireAfter
	}
	if b.Due.IsZero() {
		b.Due = a.Clock()
	}
	if b.Zone != "" {
		where, err := time.LoadLocation(b.Zone)
		if err != nil {
			return nil, domain.Invalid("/zone", "is no zone such as Australia/Sydney")
		}
		b.Due = b.Due.In(where)
	}
	t.Normalize()
	if err := t.Validate(); err != nil {
		return nil, err
	}
	out := &describeRetriesOutput{}
	out.Body.Schedules = t.Schedules(b.Due)
	return out, nil
}
