package console

import (
	"maps"
	"slices"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/projections/promptness"
)

type optOutsPage struct {
	Items     []promptness.OptOut
	Next      *string
	Report    *promptness.Report
	Policy    api.ConsentPolicy
	Steps     []optOutStep
	Filter    map[string]string
	MayList   bool
	MayPerson bool
}

// optOutStep is how long one step from decision to effect took.
type optOutStep struct {
	Name    string
	Measure promptness.Measure
	Waiting int
}

func (c *console) listOptOuts(v *visit) (err error) {
	ctx := v.r.Context()
	p := optOutsPage{MayList: v.may(api.ListOptOuts.ID), MayPerson: v.may(api.GetConsent.ID), Filter: map[string]string{"profile": v.value("profile"), "from": v.value("from"), "to": v.value("to")}}
	span := api.SumOptOuts.In()
	if span.From, span.To, err = v.period(); err != nil {
		return err
	}
	if p.MayList {
		in := api.ListOptOuts.In()
		in.Span, in.Profile, in.Cursor, in.Limit = *span, v.value("profile"), v.value("cursor"), pageSize
		if v.wantsCSV() {
			return export(v, c, "opt-outs", api.ListOptOuts, in, &in.Paging)
		}
		out, err := api.ListOptOuts.Call(ctx, c.Service, v.who, in)
		if err != nil {
			return err
		}
		p.Items, p.Next = out.Body.Items, out.Body.Next
	}
	policy, err := api.GetConsentPolicy.Call(ctx, c.Service, v.who, api.GetConsentPolicy.In())
	if err != nil {
		return err
	}
	p.Policy = policy.Body.ConsentPolicy
	if v.value("cursor") != "" || p.Filter["profile"] != "" {
		return c.page(v, "optouts", "Opt-outs", p) // the report is of all people, and stands on the first page
	}
	if span.From == "" {
		span.From = c.Clock().UTC().AddDate(0, 0, -optOutDays).Format(time.RFC3339)
	}
	sum, err := api.SumOptOuts.Call(ctx, c.Service, v.who, span)
	if err != nil {
		return err
	}
	p.Report = &sum.Body
	p.Steps = []optOutStep{{Name: "Decided to recorded", Measure: p.Report.Recorded}, {Name: "Decided to the last message all the same", Measure: p.Report.LastSent}}
	names := slices.Sorted(maps.Keys(p.Report.Platforms))
	for name := range p.Report.Waiting {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		p.Steps = append(p.Steps, optOutStep{Name: "Decided to confirmed by " + name, Measure: p.Report.Platforms[name], Waiting: p.Report.Waiting[name]})
	}
	return c.page(v, "optouts", "Opt-outs", p)
}

// optOutDays is how far back the report of opt-outs goes unless a period is chosen.
const optOutDays = 90
