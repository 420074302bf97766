package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
)

func (a *api) targetChangeRoutes() {
	tags := []string{"Targets"}
	register(a, huma.Operation{
		OperationID: "diff-target", Method: http.MethodGet, Path: "/v1/targets/{handle}/diff", Tags: tags,
		Summary: "See what differs between two versions", Description: "Without parameters: what the last change did. With proposal: what it would do.", Errors: []int{http.StatusNotFound},
	}, a.diffTarget)
	register(a, huma.Operation{
		OperationID: "roll-back-target", Method: http.MethodPost, Path: "/v1/targets/{handle}/rollback", Tags: tags,
		Summary: "Make an earlier version the current one", Description: "Records it as a new version. A target that is disabled sends again.",
		Responses: proposed(), Errors: []int{http.StatusBadRequest, http.StatusNotFound},
	}, a.rollBackTarget)
	register(a, huma.Operation{
		OperationID: "move-target", Method: http.MethodPost, Path: "/v1/targets/{handle}/url", Tags: tags,
		Summary: "Give a target another URL", Description: "From the inspector to production, in one recorded step: the rest of the target stays as it is.",
		Responses: proposed(), Errors: []int{http.StatusBadRequest, http.StatusNotFound},
	}, a.moveTarget)
	register(a, huma.Operation{
		OperationID: "list-proposals", Method: http.MethodGet, Path: "/v1/proposals", Tags: tags,
		Summary: "List the changes of targets that wait for approval", Description: "The newest first. The list may be some milliseconds behind.",
	}, a.listProposals)
	register(a, huma.Operation{
		OperationID: "list-target-proposals", Method: http.MethodGet, Path: "/v1/targets/{handle}/proposals", Tags: tags,
		Summary: "Read what was proposed for a target", Description: "The newest first, decided ones included.",
	}, a.listTargetProposals)
	register(a, huma.Operation{
		OperationID: "get-target-proposal", Method: http.MethodGet, Path: "/v1/targets/{handle}/proposals/{number}", Tags: tags,
		Summary: "Read a proposal", Errors: []int{http.StatusNotFound},
	}, a.getProposal)
	register(a, huma.Operation{
		OperationID: "approve-target-proposal", Method: http.MethodPost, Path: "/v1/targets/{handle}/proposals/{number}/approve", Tags: tags,
		Summary: "Approve a proposed change", Description: "It holds from then on. Whoever proposed it cannot approve it, and nobody can once the target has changed.",
		Errors: []int{http.StatusBadRequest, http.StatusNotFound, http.StatusConflict},
	}, a.approveProposal)
	register(a, huma.Operation{
		OperationID: "decline-target-proposal", Method: http.MethodPost, Path: "/v1/targets/{handle}/proposals/{number}/decline", Tags: tags,
		Summary: "Decline a proposed change, or withdraw one's own", Errors: []int{http.StatusBadRequest, http.StatusNotFound, http.StatusConflict},
	}, a.declineProposal)
}

func proposed() map[string]*huma.Response {
	return map[string]*huma.Response{"202": {Description: "Proposed: Location is the proposal, which somebody else has to approve."}}
}

// Diff is what differs between two versions of a target.
type Diff struct {
	From    int64           `json:"from" doc:"Version; 0 when there was none before."`
	To      int64           `json:"to" doc:"Version; 0 for a proposal."`
	Changes []domain.Change `json:"changes" nullable:"false"`
}

type diffTargetInput struct {
	TargetInput
	From     int64 `query:"from" minimum:"1" doc:"Version; the one before to by default."`
	To       int64 `query:"to" minimum:"1" doc:"Version; the current one by default."`
	Proposal int64 `query:"proposal" minimum:"1" doc:"Number of a proposal, instead of to."`
}

type diffTargetOutput struct{ Body Diff }

func (a *api) diffTarget(ctx context.Context, in *diffTargetInput) (*diffTargetOutput, error) {
	if in.Proposal > 0 && in.To > 0 {
		return nil, badParameter("query.to", "is not given beside proposal")
	}
	var d Diff
	var err error
	if in.Proposal > 0 {
		d.From, d.Changes, err = a.catalogue.DiffProposal(ctx, in.Handle, in.Proposal)
	} else {
		d.From, d.To, d.Changes, err = a.catalogue.Diff(ctx, in.Handle, in.From, in.To)
	}
	if err != nil {
		return nil, err
	}
	return &diffTargetOutput{Body: d}, nil
}

// Rollback names the version to return to.
type Rollback struct {
	Version int64  `json:"version" minimum:"1"`
	Reason  string `json:"reason,omitempty" maxLength:"1024" doc:"Why, in words."`
}

type rollBackTargetInput struct {
	TargetInput
	Body Rollback
}

func (a *api) rollBackTarget(ctx context.Context, in *rollBackTargetInput) (*targetOutput, error) {
	old, err := a.catalogue.Version(ctx, in.Handle, in.Body.Version)
	if err != nil {
		return nil, err
	}
	done, err := a.catalogue.RollBack(ctx, author(ctx), in.Handle, in.Body.Version, in.Body.Reason)
	if err != nil {
		return nil, err
	}
	return answerChange(done, old.Target), nil
}

// Move is where a target leads from now on.
type Move struct {
	URL    string `json:"url" maxLength:"8192" doc:"A template, as in the target."`
	Reason string `json:"reason,omitempty" maxLength:"1024" doc:"Why, in words."`
}

type moveTargetInput struct {
	TargetInput
	Body Move
}

func (a *api) moveTarget(ctx context.Context, in *moveTargetInput) (*targetOutput, error) {
	done, err := a.catalogue.Move(ctx, author(ctx), in.Handle, in.Body.URL, in.Body.Reason)
	if err != nil {
		return nil, err
	}
	wanted := done.Before.Target
	wanted.URL = in.Body.URL
	return answerChange(done, wanted), nil
}

// TargetConfig is a target as its author writes it.
type TargetConfig domain.Target

// Proposal is a change of a target that takes two people.
type Proposal struct {
	Target     TargetConfig `json:"target" doc:"What it becomes."`
	Number     int64        `json:"number"`
	State      string       `json:"state" enum:"open,approved,declined"`
	Stale      bool         `json:"stale" doc:"The target has changed since: it can be declined only."`
	Reason     *string      `json:"reason"`
	Restores   *int64       `json:"restores" doc:"The version that it would roll back to."`
	Base       int64        `json:"base" doc:"The target's revision that it was decided on; 0 when there was none."`
	ProposedAt time.Time    `json:"proposed_at"`
	ProposedBy string       `json:"proposed_by"`
	DecidedAt  *time.Time   `json:"decided_at"`
	DecidedBy  *string      `json:"decided_by"`
	Decision   *string      `json:"decision" doc:"Why, in words."`
	Position   int64        `json:"position"`
}

func proposalOf(p targets.Proposal) Proposal {
	return Proposal{
		Target: TargetConfig(p.Target), Number: p.Number, State: p.State, Stale: p.Stale, Reason: optional(p.Reason), Restores: optional(p.Restores), Base: p.Base,
		ProposedAt: p.ProposedAt.UTC(), ProposedBy: p.ProposedBy, DecidedAt: utcOf(p.DecidedAt), DecidedBy: optional(p.DecidedBy), Decision: optional(p.Decision), Position: p.Position,
	}
}

type listProposalsInput struct{ Paging }

func proposalPage(list []targets.Proposal, limit int) *Listed[Proposal] {
	items := make([]Proposal, len(list))
	for i, p := range list {
		items[i] = proposalOf(p)
	}
	return &Listed[Proposal]{Body: pageOf("proposals", items, limit, func(p Proposal) string { return strconv.FormatInt(p.Position, 10) })}
}

func (a *api) listProposals(ctx context.Context, in *listProposalsInput) (*Listed[Proposal], error) {
	before, err := positionCursor("proposals", in.Cursor)
	if err != nil {
		return nil, err
	}
	list, err := targets.Proposals(ctx, a.DB, "", true, before, in.Limit+1)
	if err != nil {
		return nil, err
	}
	return proposalPage(list, in.Limit), nil
}

type listTargetProposalsInput struct {
	TargetInput
	Paging
}

func (a *api) listTargetProposals(ctx context.Context, in *listTargetProposalsInput) (*Listed[Proposal], error) {
	before, err := positionCursor("proposals", in.Cursor)
	if err != nil {
		return nil, err
	}
	list, err := targets.Proposals(ctx, a.DB, in.Handle, false, before, in.Limit+1)
	if err != nil {
		return nil, err
	}
	return proposalPage(list, in.Limit), nil
}

type ProposalInput struct {
	TargetInput
	Number int64 `path:"number" minimum:"1"`
}

type proposalOutput struct{ Body Proposal }

func (a *api) getProposal(ctx context.Context, in *ProposalInput) (*proposalOutput, error) {
	p, err := a.catalogue.Proposal(ctx, in.Handle, in.Number)
	if err != nil {
		return nil, err
	}
	return &proposalOutput{Body: proposalOf(p)}, nil
}

type decideInput struct {
	ProposalInput
	Body *SwitchReason
}

func (in *decideInput) reason() string {
	if in.Body == nil {
		return ""
	}
	return in.Body.Reason
}

func (a *api) approveProposal(ctx context.Context, in *decideInput) (*targetOutput, error) {
	done, err := a.catalogue.Approve(ctx, author(ctx), in.Handle, in.Number, in.reason())
	if err != nil {
		return nil, err
	}
	return answerChange(done, done.After.Target), nil
}

func (a *api) declineProposal(ctx context.Context, in *decideInput) (*proposalOutput, error) {
	p, err := a.catalogue.Decline(ctx, author(ctx), in.Handle, in.Number, in.reason())
	if err != nil {
		return nil, err
	}
	return &proposalOutput{Body: proposalOf(p)}, nil
}
