package console

import (
	"net/http"
	"slices"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
)

// runsPlotted is how many runs the plot of the drift goes back.
const runsPlotted = 60

type reconciliationPage struct {
	Platforms []api.Platform
	Platform  string // only this one's runs
	Runs      []suppressions.Run
	Next      *string
	Drift     []drift
	Open      int64 // findings that wait for a decision, on all platforms
	Running   bool
	MayStart  bool
	MayDecide bool
}

// drift is how far one platform and we were apart, run by run.
type drift struct {
	Platform string
	*chart
}

func (c *console) showReconciliation(v *visit) error {
	ctx := v.r.Context()
	in := api.ListReconciliations.In()
	in.Platform, in.Cursor, in.Limit = v.value("platform"), v.value("cursor"), runsPlotted
	if v.wantsCSV() {
		return export(v, c, "reconciliations", api.ListReconciliations, in, &in.Paging)
	}
	runs, err := api.ListReconciliations.Call(ctx, c.Service, v.who, in)
	if err != nil {
		return err
	}
	all := api.ListPlatforms.In()
	all.Limit = 500
	platforms, err := api.ListPlatforms.Call(ctx, c.Service, v.who, all)
	if err != nil {
		return err
	}
	p := reconciliationPage{
		Platforms: platforms.Body.Items, Platform: in.Platform, Runs: runs.Body.Items, Next: runs.Body.Next,
		MayStart: v.may(api.StartReconciliation.ID), MayDecide: v.may(api.ListFindings.ID),
	}
	for _, connected := range p.Platforms {
		p.Open += connected.Standing.Open
		if p.Platform != "" && p.Platform != connected.Name {
			continue
		}
		of := api.ListReconciliations.In()
		of.Platform, of.Limit = connected.Name, runsPlotted
		past, err := api.ListReconciliations.Call(ctx, c.Service, v.who, of)
		if err != nil {
			return err
		}
		if plot := driftOf(connected.Name, past.Body.Items); plot != nil {
			p.Drift = append(p.Drift, drift{connected.Name, plot})
		}
	}
	p.Running = slices.ContainsFunc(p.Runs, func(r suppressions.Run) bool { return r.FinishedAt == nil && r.Held == nil })
	return c.page(v, "reconciliation", "Reconciliation", p)
}

// driftOf plots what each of a platform's runs found that differs, by what was done about it, the oldest first; nil before the
// second that found something. Runs that only report found what the next one finds again, and are left out.
func driftOf(platform string, newestFirst []suppressions.Run) *chart {
	runs := slices.Clone(newestFirst)
	slices.Reverse(runs)
	runs = slices.DeleteFunc(runs, func(r suppressions.Run) bool { return r.Counts == nil || r.Check })
	if len(runs) < 2 {
		return nil
	}
	plot := &chart{Title: "Differences that each run of " + platform + " found, by what was done about them", Step: time.Hour}
	found := false
	for _, kind := range []struct{ name, class, planned string }{
		{"recorded here", "busy", "record"}, {"written there", "good", "push"}, {"lifted there", "warn", "lift"}, {"to be decided", "bad", "ask"},
	} {
		line := series{Name: kind.name, Class: kind.class}
		for _, r := range runs {
			line.Values = append(line.Values, float64(r.Counts.Planned[kind.planned]))
			found = found || r.Counts.Planned[kind.planned] > 0
		}
		plot.Series = append(plot.Series, line)
	}
	if !found {
		return nil
	}
	for _, r := range []suppressions.Run{runs[0], runs[len(runs)/2], runs[len(runs)-1]} {
		plot.Labels = append(plot.Labels, r.StartedAt.UTC().Format("2 Jan 15:04"))
	}
	return plot
}

func (c *console) startReconciliation(v *visit) error {
	in := api.StartReconciliation.In()
	in.Body.Platform, in.Body.Check, in.Body.Mode = v.value("platform"), v.value("check") == "yes", one(v, "mode", []string{"full", "incremental"})
	if in.Body.Platform == "" {
		return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "Which platform?", NextStep: "Choose one of those that are connected."}
	}
	out, err := api.StartReconciliation.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	return v.back("/reconciliation/"+out.Body.ID.String(), "started")
}

// runActions are what a run does about a difference, as the list of them may be narrowed to.
var runActions = []string{"record", "push", "lift", "ask", "report", "known"}

type runPage struct {
	suppressions.Run
	Items     []suppressions.Difference
	Next      *string
	Action    string
	Actions   []string
	MayDecide bool // on a run that waits
	MayList   bool
	MayPerson bool
}

func (c *console) showRun(v *visit) error {
	ctx := v.r.Context()
	get := api.GetReconciliation.In()
	get.ID = v.r.PathValue("id")
	run, err := api.GetReconciliation.Call(ctx, c.Service, v.who, get)
	if err != nil {
		return err
	}
	p := runPage{Run: run.Body, Action: one(v, "action", runActions), Actions: runActions, MayDecide: v.may(api.ApproveRun.ID), MayList: v.may(api.ListRunFindings.ID), MayPerson: v.may(api.GetConsent.ID)}
	if !p.MayList {
		return c.page(v, "run", "Run of "+p.Platform, p)
	}
	in := api.ListRunFindings.In()
	in.ID, in.Action, in.Cursor, in.Limit = get.ID, p.Action, v.value("cursor"), pageSize
	if v.wantsCSV() {
		return export(v, c, "differences", api.ListRunFindings, in, &in.Paging)
	}
	found, err := api.ListRunFindings.Call(ctx, c.Service, v.who, in)
	if err != nil {
		return err
	}
	p.Items, p.Next = found.Body.Items, found.Body.Next
	return c.page(v, "run", "Run of "+p.Platform, p)
}

func (c *console) approveRun(v *visit) error {
	in := api.ApproveRun.In()
	in.ID, in.Body.Reason = v.r.PathValue("id"), v.value("reason")
	if in.Body.Reason == "" {
		return needsReason()
	}
	if _, err := api.ApproveRun.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/reconciliation/"+in.ID, "run_approved")
}

func (c *console) stopRun(v *visit) error {
	in := api.StopRun.In()
	in.ID, in.Body.Reason = v.r.PathValue("id"), v.value("reason")
	if in.Body.Reason == "" {
		return needsReason()
	}
	if _, err := api.StopRun.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/reconciliation/"+in.ID, "run_stopped")
}
