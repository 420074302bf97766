package console

import (
	"net/http"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
)

type reconciliationPage struct {
	Runs                 []suppressions.Run
	Findings             []suppressions.Finding // to be decided
	Next                 *string                // of the findings
	MayStart, MayResolve bool
	MayFindings          bool
}

func (c *console) showReconciliation(v *visit) error {
	ctx := v.r.Context()
	in := api.ListReconciliations.In()
	in.Limit = 20
	runs, err := api.ListReconciliations.Call(ctx, c.Service, v.who, in)
	if err != nil {
		return err
	}
	p := reconciliationPage{Runs: runs.Body.Items, MayStart: v.may(api.StartReconciliation.ID), MayResolve: v.may(api.ResolveFinding.ID), MayFindings: v.may(api.ListFindings.ID)}
	if p.MayFindings {
		open := api.ListFindings.In()
		open.State, open.Limit, open.Cursor = "open", pageSize, v.value("cursor")
		out, err := api.ListFindings.Call(ctx, c.Service, v.who, open)
		if err != nil {
			return err
		}
		p.Findings, p.Next = out.Body.Items, out.Body.Next
	}
	return c.page(v, "reconciliation", "Reconciliation", p)
}

func (c *console) startReconciliation(v *visit) error {
	in := api.StartReconciliation.In()
	in.Body.Platform, in.Body.Check = v.value("platform"), v.value("check") == "yes"
	if in.Body.Platform == "" {
		return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "Which connection?", NextStep: "Give the name of a connection that the service was started with."}
	}
	if _, err := api.StartReconciliation.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/reconciliation", "started")
}

func (c *console) resolveFinding(v *visit) error {
	in := api.ResolveFinding.In()
	in.ID, in.Body.Action, in.Body.Reason = v.r.PathValue("id"), v.value("action"), v.value("reason")
	if in.Body.Action == "" || in.Body.Reason == "" {
		return needsReason()
	}
	if _, err := api.ResolveFinding.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/reconciliation", "resolved")
}
