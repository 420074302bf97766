package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/dispatcher"
)

func (a *api) replayRoutes() {
	tags := []string{"Deliveries"}
	register(a, huma.Operation{
		OperationID: "replay-deliveries", Method: http.MethodPost, Path: "/v1/replays", Tags: tags,
		Summary: "Try many deliveries again",
		Description: "Those that the filter selects, newest first, with the requests that were planned; what succeeded is passed over. Begin with dry_run, which counts. " +
			"The answer says where to look for the replay: a worker puts the deliveries back, goes on after a restart, and puts none back twice. What is planned meanwhile is none of it. " +
			"With an id of your own the request can be repeated.",
		Responses: map[string]*huma.Response{"202": {Description: "Asked for: a worker puts the deliveries back. The body is the replay, as it is read at Location."}},
		Errors:    []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity},
	}, a.replayDeliveries)
	register(a, huma.Operation{
		OperationID: "list-replays", Method: http.MethodGet, Path: "/v1/replays", Tags: tags, Summary: "List replays, the newest first",
	}, a.listReplays)
	register(a, huma.Operation{
		OperationID: "get-replay", Method: http.MethodGet, Path: "/v1/replays/{id}", Tags: tags, Summary: "See how far a replay has come", Errors: []int{http.StatusNotFound},
	}, a.getReplay)
	register(a, huma.Operation{
		OperationID: "cancel-replay", Method: http.MethodPost, Path: "/v1/replays/{id}/cancel", Tags: tags,
		Summary:       "Stop a replay",
		Description:   "What it has put back stays in the queue, at most ten seconds' worth of its rate ahead.",
		DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict},
	}, a.cancelReplay)
}

type replayInput struct {
	Body struct {
		ID       uuid.UUID        `json:"id,omitempty" doc:"Of the replay; a new one when it is left out."`
		Target   string           `json:"target,omitempty" maxLength:"128" doc:"Handle of the target."`
		Reaction string           `json:"reaction,omitempty" maxLength:"256" doc:"Handle of the reaction."`
		Platform string           `json:"platform,omitempty" maxLength:"128"`
		Outcomes []domain.Outcome `json:"outcomes,omitempty" doc:"failed, expired and cancelled when left out; withheld may be named besides." enum:"failed,expired,cancelled,withheld"`
		From     time.Time        `json:"from,omitempty" doc:"Planned at this time or later."`
		To       time.Time        `json:"to,omitempty" doc:"Planned before this time."`
		Rate     float64          `json:"rate,omitempty" minimum:"0" maximum:"10000" doc:"Deliveries a second; 0 goes as fast as the targets' own limits allow."`
		DryRun   bool             `json:"dry_run,omitempty" doc:"Count, and put nothing back."`
		Reason   string           `json:"reason,omitempty" maxLength:"1000" doc:"Why, in words."`
	}
}

// Replay is many deliveries that are tried again, and how far that has come.
type Replay struct {
	ID        *uuid.UUID             `json:"id" nullable:"true" doc:"Null for a dry run, which is kept nowhere."`
	State     string                 `json:"state" enum:"counted,running,done,cancelled" doc:"counted: a dry run."`
	Filter    domain.ReplayFilter    `json:"filter"`
	Rate      float64                `json:"rate" doc:"Deliveries a second; 0 goes as fast as the targets' own limits allow."`
	Reason    string                 `json:"reason"`
	By        string                 `json:"by"`
	Selected  int                    `json:"selected" doc:"Deliveries that the filter selected when it was asked for; counting ends at a million."`
	Outcomes  map[domain.Outcome]int `json:"outcomes,omitempty" doc:"Of a dry run: what they are."`
	Requeued  int                    `json:"requeued" doc:"Put back into the queue so far."`
	Skipped   int                    `json:"skipped" doc:"Without a request."`
	Refused   int                    `json:"refused" doc:"Erased, their target withdrawn, or changed at that moment."`
	AskedAt   *time.Time             `json:"asked_at"`
	UpdatedAt *time.Time             `json:"updated_at"`
}

func replayOf(r dispatcher.Replay) Replay {
	return Replay{
		ID: &r.ID, State: r.State, Filter: r.Filter, Rate: r.Rate, Reason: r.Reason, By: r.By, Selected: r.Selected,
		Requeued: r.Requeued, Skipped: r.Skipped, Refused: r.Refused, AskedAt: &r.AskedAt, UpdatedAt: &r.UpdatedAt,
	}
}

type replayOutput struct {
	Status   int
	Location string `header:"Location"`
	Body     Replay
}

func (a *api) replayDeliveries(ctx context.Context, in *replayInput) (*replayOutput, error) {
	b := in.Body
	ask := dispatcher.AskReplay{
		ID: b.ID, Rate: b.Rate, Actor: PrincipalOf(ctx).Name, Reason: b.Reason,
		Filter: domain.ReplayFilter{Target: b.Target, Reaction: b.Reaction, Platform: b.Platform, Outcomes: b.Outcomes, From: b.From, To: b.To},
	}
	if len(ask.Filter.Outcomes) == 0 {
		ask.Filter.Outcomes = dispatcher.Replayable
	}
	if b.DryRun {
		counted := Replay{State: "counted", Filter: ask.Filter, Rate: b.Rate, Reason: b.Reason, By: ask.Actor}
		var err error
		if counted.Outcomes, err = a.controls().CountReplay(ctx, ask.Filter); err != nil {
			return nil, err
		}
		for _, n := range counted.Outcomes {
			counted.Selected += n
		}
		return &replayOutput{Status: http.StatusOK, Body: counted}, nil
	}
	r, err := a.controls().Replay(ctx, ask)
	if err != nil {
		return nil, err
	}
	return &replayOutput{Status: http.StatusAccepted, Location: "/v1/replays/" + r.ID.String(), Body: replayOf(r)}, nil
}

func (a *api) listReplays(ctx context.Context, in *Paging) (*Listed[Replay], error) {
	before, err := positionCursor("replays", in.Cursor)
	if err != nil {
		return nil, err
	}
	found, err := a.controls().Replays(ctx, before, in.Limit+1)
	if err != nil {
		return nil, err
	}
	page := pageOf("replays", found, in.Limit, func(r dispatcher.Replay) string { return strconv.FormatInt(r.Position, 10) })
	out := &Listed[Replay]{Body: Page[Replay]{Items: make([]Replay, len(page.Items)), Next: page.Next}}
	for i, r := range page.Items {
		out.Body.Items[i] = replayOf(r)
	}
	return out, nil
}

type oneReplayInput struct {
	ID string `path:"id" format:"uuid"`
}

type oneReplayOutput struct{ Body Replay }

func (a *api) getReplay(ctx context.Context, in *oneReplayInput) (*oneReplayOutput, error) {
	id, err := parseUUID("path.id", in.ID)
	if err != nil {
		return nil, err
	}
	r, err := a.controls().ReplayByID(ctx, id)
	if err != nil {
		return nil, err
	}
	return &oneReplayOutput{Body: replayOf(r)}, nil
}

func (a *api) cancelReplay(ctx context.Context, in *oneReplayInput) (*struct{}, error) {
	id, err := parseUUID("path.id", in.ID)
	if err != nil {
		return nil, err
	}
	return nil, a.controls().CancelReplay(ctx, id, PrincipalOf(ctx).Name)
}
