package console

import (
	"net/url"
	"slices"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/reconciler"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
)

type findingsPage struct {
	Kinds      []suppressions.Kind // what waits, by platform and class
	Alike      []choice            // what can be decided of all that are chosen at once; they are of one platform and class
	Waiting    int64               // of these
	Items      []finding
	Next       *string
	Filter     map[string]string
	Platforms  []string
	MayResolve bool
}

// finding is a difference that a person decides on, with what each decision does.
type finding struct {
	suppressions.Finding
	Choices []choice
}

// TakesEvidence reports whether one of the choices takes evidence.
func (f finding) TakesEvidence() bool {
	return slices.ContainsFunc(f.Choices, func(c choice) bool { return c.Evidence })
}

// choice is one way to decide.
type choice struct {
	Action, Does string
	Proposed     bool
	Evidence     bool // proof that the person agreed has to be given
}

// decisions are what can be decided, in words for who decides.
var decisions = map[string]string{
	domain.ActSuppressThere:   "Suppress there again: our opt-out is written to the platform",
	domain.ActResubscribe:     "Lift it there: the platform may send to the person again",
	domain.ActKeepSuppressed:  "Keep it suppressed there",
	domain.ActRecordOptIn:     "Record that the person opted in",
	domain.ActRecordOptOut:    "Record that the person opted out",
	domain.ActTakeAsGlobal:    "Take opt-outs of this list as opt-outs here",
	domain.ActIgnoreScope:     "Opt-outs of this list mean nothing here",
	domain.ActTryAgain:        "Try to write it again",
	domain.ActAcceptDivergent: "Leave both sides as they are",
}

func (c *console) listFindings(v *visit) error {
	ctx := v.r.Context()
	in := api.ListFindings.In()
	in.Platform, in.Profile, in.Run, in.Cursor, in.Limit = v.value("platform"), v.value("profile"), v.value("run"), v.value("cursor"), pageSize
	if in.State = one(v, "state", []string{"open", "resolved"}); in.State == "" && v.value("state") != "any" {
		in.State = "open"
	}
	in.Class = v.value("class")
	if v.wantsCSV() {
		return export(v, c, "findings", api.ListFindings, in, &in.Paging)
	}
	out, err := api.ListFindings.Call(ctx, c.Service, v.who, in)
	if err != nil {
		return err
	}
	p := findingsPage{Next: out.Body.Next, Filter: map[string]string{"platform": in.Platform, "profile": in.Profile, "run": in.Run, "state": in.State, "class": in.Class}, MayResolve: v.may(api.ResolveFinding.ID)}
	if p.Kinds, err = suppressions.Kinds(ctx, c.DB); err != nil {
		return err
	}
	for _, f := range out.Body.Items {
		item := finding{Finding: f}
		for _, action := range f.Actions {
			does, ok := decisions[action]
			if !ok {
				does = title(action)
			}
			item.Choices = append(item.Choices, choice{Action: action, Does: does, Proposed: action == f.Action, Evidence: action == domain.ActResubscribe || action == domain.ActRecordOptIn})
		}
		p.Items = append(p.Items, item)
	}
	p.together(in.State == "open" && in.Platform != "" && in.Class != "" && in.Run == "" && in.Profile == "")
	all := api.ListPlatforms.In()
	all.Limit = 500
	platforms, err := api.ListPlatforms.Call(ctx, c.Service, v.who, all)
	if err != nil {
		return err
	}
	for _, connected := range platforms.Body.Items {
		p.Platforms = append(p.Platforms, connected.Name)
	}
	if in.Platform != "" && !slices.Contains(p.Platforms, in.Platform) {
		p.Platforms = append(p.Platforms, in.Platform)
	}
	return c.page(v, "findings", "To be decided", p)
}

// together offers to decide alike on all findings of one platform and class, where that is what is shown, and more than one waits.
func (p *findingsPage) together(shown bool) {
	if !shown || len(p.Items) == 0 {
		return
	}
	for _, k := range p.Kinds {
		if k.Platform == p.Items[0].Platform && k.Class == p.Items[0].Class {
			p.Waiting = k.Open
		}
	}
	if p.Waiting < 2 {
		return
	}
	for _, ch := range p.Items[0].Choices {
		if slices.Contains(reconciler.Alike, ch.Action) {
			p.Alike = append(p.Alike, ch)
		}
	}
}

// resolveFindings decides alike on all that wait of one class on one platform.
func (c *console) resolveFindings(v *visit) error {
	in := api.ResolveFindings.In()
	in.Body.Platform, in.Body.Class, in.Body.Action, in.Body.Reason = v.value("platform"), v.value("class"), v.value("action"), v.value("reason")
	if in.Body.Action == "" || in.Body.Reason == "" {
		return needsReason()
	}
	out, err := api.ResolveFindings.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	if out.Body.More {
		return v.back("/findings?"+url.Values{"platform": {in.Body.Platform}, "class": {in.Body.Class}}.Encode(), "resolved_some")
	}
	return v.back("/findings", "resolved_alike")
}

func (c *console) resolveFinding(v *visit) error {
	in := api.ResolveFinding.In()
	in.ID, in.Body.Action, in.Body.Reason = v.r.PathValue("id"), v.value("action"), v.value("reason")
	if in.Body.Action == "" || in.Body.Reason == "" {
		return needsReason()
	}
	if text := v.value("evidence"); text != "" {
		in.Body.Evidence = map[string]string{"note": text}
	}
	if _, err := api.ResolveFinding.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/findings", "resolved")
}
