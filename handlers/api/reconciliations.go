package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/reconciler"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
)

func (a *api) reconciliationRoutes() {
	tags := []string{"Reconciliation"}
	register(a, huma.Operation{
		OperationID: "list-reconciliations", Method: http.MethodGet, Path: "/v1/reconciliations", Tags: tags,
		Summary: "List reconciliations", Description: "The newest first, with what each counted: the drift over time. Ask for text/csv to have it as a table.",
	}, a.listReconciliations)
	register(a, huma.Operation{
		OperationID: "start-reconciliation", Method: http.MethodPost, Path: "/v1/reconciliations", Tags: tags,
		Summary: "Compare a platform's list with our consent",
		Description: "Records that a run begins; a worker does it. Without a mode, everything is read when the last full run is older than the policy says, else what changed. " +
			"With check nothing is recorded about anybody and nothing is written to the platform.",
		DefaultStatus: http.StatusAccepted, Errors: []int{http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
	}, a.startReconciliation)
	register(a, huma.Operation{
		OperationID: "get-reconciliation", Method: http.MethodGet, Path: "/v1/reconciliations/{id}", Tags: tags,
		Summary: "Read a reconciliation", Errors: []int{http.StatusNotFound},
	}, a.getReconciliation)
	register(a, huma.Operation{
		OperationID: "list-reconciliation-findings", Method: http.MethodGet, Path: "/v1/reconciliations/{id}/findings", Tags: tags,
		Summary: "List what a reconciliation found",
		Description: "Each difference with its class and what was done about it: record (their opt-out was recorded here), push (ours was written there), lift, report (that the address does not work, or works again), ask (a person decides), known (a person is being asked already). " +
			"Differences that wait for a person have an id, that of their finding. The lists of a platform's last 20 runs are kept.",
		Errors: []int{http.StatusNotFound},
	}, a.listReconciliationFindings)
	register(a, huma.Operation{
		OperationID: "approve-reconciliation", Method: http.MethodPost, Path: "/v1/reconciliations/{id}/approval", Tags: tags,
		Summary: "Let a held reconciliation go on", Description: "One that would change more than its policy allows waits for this.",
		Errors: []int{http.StatusBadRequest, http.StatusNotFound, http.StatusPreconditionFailed, http.StatusUnprocessableEntity},
	}, a.approveReconciliation)
	register(a, huma.Operation{
		OperationID: "stop-reconciliation", Method: http.MethodPost, Path: "/v1/reconciliations/{id}/stop", Tags: tags,
		Summary: "End a reconciliation that waits", Description: "What it recorded stays; what it would still have done is left.",
		Errors: []int{http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
	}, a.stopReconciliation)
	register(a, huma.Operation{
		OperationID: "list-findings", Method: http.MethodGet, Path: "/v1/findings", Tags: tags,
		Summary: "List findings", Description: "Differences that the facts do not decide, each explained and with the action that is proposed, in the order in which they were raised.",
	}, a.listFindings)
	register(a, huma.Operation{
		OperationID: "get-finding", Method: http.MethodGet, Path: "/v1/findings/{id}", Tags: tags, Summary: "Read a finding", Errors: []int{http.StatusNotFound},
	}, a.getFinding)
	register(a, huma.Operation{
		OperationID: "resolve-finding", Method: http.MethodPost, Path: "/v1/findings/{id}/resolution", Tags: tags,
		Summary:     "Decide on a finding",
		Description: "Does what the action says, and records who decided and why. What is to be written to the platform leaves within seconds. To resubscribe somebody there, or to record an opt-in, evidence is required; it is kept sealed.",
		Errors:      []int{http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
	}, a.resolveFinding)
	register(a, huma.Operation{
		OperationID: "resolve-findings", Method: http.MethodPost, Path: "/v1/findings/resolutions", Tags: tags,
		Summary:     "Decide alike on all open findings of one class",
		Description: "Does the same about each, as if it had been decided on alone, up to a thousand in a request: call again while more is true. Only actions that let nobody be written to can be taken so: " + strings.Join(reconciler.Alike, ", ") + ".",
		Errors:      []int{http.StatusBadRequest, http.StatusUnprocessableEntity},
	}, a.resolveFindings)
}

type listReconciliationsInput struct {
	Paging

	Platform string `query:"platform" maxLength:"128" doc:"Only this connection's."`
}

func (a *api) listReconciliations(ctx context.Context, in *listReconciliationsInput) (*Listed[suppressions.Run], error) {
	before, err := positionCursor("reconciliations", in.Cursor)
	if err != nil {
		return nil, err
	}
	runs, err := suppressions.Runs(ctx, a.reads(ctx), suppressions.RunFilter{Platform: in.Platform, Before: before, Limit: in.Limit + 1})
	if err != nil {
		return nil, err
	}
	return &Listed[suppressions.Run]{Body: pageOf("reconciliations", runs, in.Limit, func(r suppressions.Run) string { return strconv.FormatInt(r.Position, 10) })}, nil
}

type startReconciliationInput struct {
	Body struct {
		Platform string `json:"platform" minLength:"1" maxLength:"128" doc:"Name of the connection."`
		Mode     string `json:"mode,omitempty" enum:"full,incremental" doc:"What is read; absent: as the policy says."`
		Check    bool   `json:"check,omitempty" doc:"Compare and report, no more."`
	}
}

// StartedRun says where a run is to be looked for.
type StartedRun struct {
	ID       uuid.UUID `json:"id"`
	Platform string    `json:"platform"`
	State    string    `json:"state"`
}

type startReconciliationOutput struct {
	Location string `header:"Location"`
	Body     StartedRun
}

func (a *api) startReconciliation(ctx context.Context, in *startReconciliationInput) (*startReconciliationOutput, error) {
	id, err := a.Reconciler.Start(ctx, reconciler.Request{Platform: in.Body.Platform, Mode: in.Body.Mode, Check: in.Body.Check, Trigger: "api", Actor: PrincipalOf(ctx).Name})
	if err != nil {
		return nil, err
	}
	return &startReconciliationOutput{Location: "/v1/reconciliations/" + id.String(), Body: StartedRun{ID: id, Platform: in.Body.Platform, State: "running"}}, nil
}

// RunInput names a reconciliation. It is exported because the parameters of a struct that is not are passed over where it is
// embedded.
type RunInput struct {
	ID string `path:"id" format:"uuid"`
}

func (in RunInput) uuid() uuid.UUID {
	id, err := uuid.Parse(in.ID)
	if err != nil {
		return uuid.Nil // which nothing has
	}
	return id
}

type runOutput struct{ Body suppressions.Run }

func (a *api) getReconciliation(ctx context.Context, in *RunInput) (*runOutput, error) {
	r, err := suppressions.RunByID(ctx, a.reads(ctx), in.uuid())
	if err != nil {
		return nil, err
	}
	return &runOutput{Body: r}, nil
}

type listRunFindingsInput struct {
	RunInput
	Paging

	Action string `query:"action" enum:"record,push,lift,ask,report,known" doc:"Only what was done so."`
}

func (a *api) listReconciliationFindings(ctx context.Context, in *listRunFindingsInput) (*Listed[suppressions.Difference], error) {
	after, err := positionCursor("differences", in.Cursor)
	if err != nil {
		return nil, err
	}
	if _, err := suppressions.RunByID(ctx, a.reads(ctx), in.uuid()); err != nil {
		return nil, err
	}
	found, err := suppressions.Differences(ctx, a.reads(ctx), in.uuid(), in.Action, after, in.Limit+1)
	if err != nil {
		return nil, err
	}
	return &Listed[suppressions.Difference]{Body: pageOf("differences", found, in.Limit, func(d suppressions.Difference) string { return strconv.FormatInt(d.N, 10) })}, nil
}

type decideRunInput struct {
	RunInput

	Body struct {
		Reason string `json:"reason" minLength:"1" maxLength:"2000" doc:"Why, in words."`
	}
}

func (a *api) approveReconciliation(ctx context.Context, in *decideRunInput) (*struct{}, error) {
	return nil, a.Reconciler.Approve(ctx, in.uuid(), PrincipalOf(ctx).Name, in.Body.Reason)
}

func (a *api) stopReconciliation(ctx context.Context, in *decideRunInput) (*struct{}, error) {
	return nil, a.Reconciler.Stop(ctx, in.uuid(), PrincipalOf(ctx).Name, in.Body.Reason)
}

type listFindingsInput struct {
	Paging

	Platform string `query:"platform" maxLength:"128" doc:"Only this connection's."`
	Class    string `query:"class" maxLength:"64" doc:"Only those of this class."`
	State    string `query:"state" enum:"open,resolved" doc:"Only those in this state."`
	Run      string `query:"run" doc:"Only those that this reconciliation raised."`
	Profile  string `query:"profile" doc:"Only those about this person."`
}

func (a *api) listFindings(ctx context.Context, in *listFindingsInput) (*Listed[suppressions.Finding], error) {
	after, err := positionCursor("findings", in.Cursor)
	if err != nil {
		return nil, err
	}
	f := suppressions.FindingFilter{Platform: in.Platform, Class: in.Class, State: in.State, After: after, Limit: in.Limit + 1}
	if f.Run, err = parseUUID("query.run", in.Run); err != nil {
		return nil, err
	}
	if f.Profile, err = parseUUID("query.profile", in.Profile); err != nil {
		return nil, err
	}
	found, err := suppressions.Findings(ctx, a.DB, f)
	if err != nil {
		return nil, err
	}
	return &Listed[suppressions.Finding]{Body: pageOf("findings", found, in.Limit, func(f suppressions.Finding) string { return strconv.FormatInt(f.Position, 10) })}, nil
}

type findingOutput struct{ Body suppressions.Finding }

func (a *api) getFinding(ctx context.Context, in *RunInput) (*findingOutput, error) {
	f, err := suppressions.FindingByID(ctx, a.DB, in.uuid())
	if err != nil {
		return nil, err
	}
	return &findingOutput{Body: f}, nil
}

type resolveFindingInput struct {
	RunInput

	Body struct {
		Action   string            `json:"action" minLength:"1" maxLength:"64" doc:"One of the finding's actions."`
		Reason   string            `json:"reason" minLength:"1" maxLength:"2000" doc:"Why, in words."`
		Evidence map[string]string `json:"evidence,omitempty" doc:"What proves that the person agreed; kept sealed."`
	}
}

// ResolvedFinding says what was decided.
type ResolvedFinding struct {
	ID     uuid.UUID `json:"id"`
	Action string    `json:"action"`
	State  string    `json:"state"`
}

type resolveFindingOutput struct{ Body ResolvedFinding }

func (a *api) resolveFinding(ctx context.Context, in *resolveFindingInput) (*resolveFindingOutput, error) {
	err := a.Reconciler.Resolve(ctx, in.uuid(), reconciler.Resolution{Action: in.Body.Action, Reason: in.Body.Reason, Evidence: in.Body.Evidence, Actor: PrincipalOf(ctx).Name})
	if err != nil {
		return nil, fmt.Errorf("finding: %w", err)
	}
	return &resolveFindingOutput{Body: ResolvedFinding{ID: in.uuid(), Action: in.Body.Action, State: "resolved"}}, nil
}

type resolveFindingsInput struct {
	Body struct {
		Platform string `json:"platform" minLength:"1" maxLength:"128" doc:"Name of the connection."`
		Class    string `json:"class" minLength:"1" maxLength:"64" doc:"Class of the findings."`
		Action   string `json:"action" minLength:"1" maxLength:"64" doc:"What is done about each of them."`
		Reason   string `json:"reason" minLength:"1" maxLength:"2000" doc:"Why, in words."`
	}
}

// ResolvedFindings says on how many was decided.
type ResolvedFindings struct {
	Resolved int  `json:"resolved"`
	More     bool `json:"more" doc:"There are others still."`
}

type resolveFindingsOutput struct{ Body ResolvedFindings }

func (a *api) resolveFindings(ctx context.Context, in *resolveFindingsInput) (*resolveFindingsOutput, error) {
	n, more, err := a.Reconciler.ResolveAlike(ctx, in.Body.Platform, in.Body.Class, reconciler.Resolution{Action: in.Body.Action, Reason: in.Body.Reason, Actor: PrincipalOf(ctx).Name})
	if err != nil {
		return nil, fmt.Errorf("findings: %w", err)
	}
	return &resolveFindingsOutput{Body: ResolvedFindings{Resolved: n, More: more}}, nil
}
