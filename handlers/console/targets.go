package console

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
)

func decimal[T ~int | ~int64](n T) string { return strconv.FormatInt(int64(n), 10) }

// title is a code as the beginning of a sentence.
func title(code string) string {
	text := strings.ReplaceAll(code, "_", " ")
	for i, r := range text {
		return string(unicode.ToUpper(r)) + text[i+len(string(r)):]
	}
	return text
}

type targetsPage struct {
	Items     []api.Target
	Next      *string
	MayEdit   bool
	Proposals int      // that wait for a decision
	Templates []string // that a new target may begin as
}

func (c *console) listTargets(v *visit) error {
	in := api.ListTargets.In()
	in.Cursor, in.Limit = v.value("cursor"), pageSize
	if v.wantsCSV() {
		return export(v, c, "targets", api.ListTargets, in, &in.Paging)
	}
	out, err := api.ListTargets.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	p := targetsPage{Items: out.Body.Items, Next: out.Body.Next, MayEdit: v.may(api.PutTarget.ID)}
	templates, err := platforms.Templates()
	if err != nil {
		return err
	}
	for _, t := range templates {
		p.Templates = append(p.Templates, t.Name)
	}
	if v.may(api.ListProposals.ID) {
		open := api.ListProposals.In()
		open.Limit = 500
		waiting, err := api.ListProposals.Call(v.r.Context(), c.Service, v.who, open)
		if err != nil {
			return err
		}
		p.Proposals = len(waiting.Body.Items)
	}
	return c.page(v, "targets", "Targets", p)
}

type targetPage struct {
	api.Target
	File      string
	Versions  []targetVersion
	Compared  *comparison
	Proposals []proposal
	Queue     *api.QueuedTarget // what waits for it, and what holds that; nil when nothing does
	MayEdit   bool
	MaySwitch bool
	MayDelete bool
	MayList   bool
	MayTest   bool
}

// targetVersion is one version: what it changed, and what was sent by it.
type targetVersion struct {
	api.Target
	Until *time.Time // when the next version replaced it
	Diff  []diffLine
	Sent  deliveries.Outcomes
}

func (c *console) showTarget(v *visit) error {
	handle := v.r.PathValue("handle")
	get := api.GetTarget.In()
	get.Handle = handle
	now, err := api.GetTarget.Call(v.r.Context(), c.Service, v.who, get)
	if err != nil {
		return err
	}
	in := api.ListTargetVersions.In()
	in.Handle, in.Limit = handle, 200
	versions, err := api.ListTargetVersions.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	counts := api.AuditOutcomes.In()
	counts.Target, counts.By = handle, string(deliveries.ByVersion)
	sent, err := api.AuditOutcomes.Call(v.r.Context(), c.Service, v.who, counts)
	if err != nil {
		return err
	}
	p := targetPage{
		Target: now.Body, File: asFile(now.Body.Target),
		MayEdit: v.may(api.PutTarget.ID), MaySwitch: v.may(api.DisableTarget.ID), MayDelete: v.may(api.DeleteTarget.ID), MayList: v.may(api.ListDeliveries.ID), MayTest: v.may(api.TestTarget.ID),
	}
	if p.Compared, err = compare(v, versions.Body.Items); err != nil {
		return err
	}
	if p.Proposals, err = c.proposalsOf(v, now.Body); err != nil {
		return err
	}
	if p.Queue, err = c.queueOf(v, handle); err != nil {
		return err
	}
	items := versions.Body.Items
	for i, t := range items {
		tv := targetVersion{Target: t}
		if i > 0 {
			tv.Until = &items[i-1].ChangedAt
		}
		before := ""
		if i+1 < len(items) {
			before = asFile(items[i+1].Target)
		}
		tv.Diff = diff(before, asFile(t.Target))
		for _, s := range sent.Body.Items {
			if s.Version == t.Version {
				tv.Sent = s.Outcomes
			}
		}
		p.Versions = append(p.Versions, tv)
	}
	return c.page(v, "target", now.Body.Handle, p)
}

// queueOf is what waits for a target; nil when nothing does, and for who may not see it.
func (c *console) queueOf(v *visit, handle string) (*api.QueuedTarget, error) {
	if !v.may(api.ListQueue.ID) {
		return nil, nil //nolint:nilnil // nothing to show is an answer
	}
	out, err := api.ListQueue.Call(v.r.Context(), c.Service, v.who, api.ListQueue.In())
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(out.Body.Items, func(q api.QueuedTarget) bool { return q.Target == handle }); i >= 0 {
		return &out.Body.Items[i], nil
	}
	return nil, nil //nolint:nilnil // nothing waits
}

func (c *console) switchTarget(v *visit) error {
	handle, op, word := v.r.PathValue("handle"), api.DisableTarget, "disabled"
	if v.value("to") == "enabled" {
		op, word = api.EnableTarget, "enabled"
	}
	in := op.In()
	in.Handle = handle
	in.Body = &api.SwitchReason{Reason: v.value("reason")}
	if _, err := op.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/targets/"+handle, word)
}

func (c *console) deleteTarget(v *visit) error {
	in := api.DeleteTarget.In()
	in.Handle, in.Reason = v.r.PathValue("handle"), v.value("reason")
	if v.value("confirm") != in.Handle {
		return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "The handle does not match", Detail: "To withdraw a target, type its handle.", NextStep: "Go back and type " + in.Handle + "."}
	}
	if _, err := api.DeleteTarget.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/targets", "deleted")
}
