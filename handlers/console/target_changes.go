package console

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
)

// comparison is what differs between two versions of a target.
type comparison struct {
	From, To int64
	Diff     []diffLine
}

// compare shows what differs between the versions that the address names; nil when it names none.
func compare(v *visit, versions []api.Target) (*comparison, error) {
	if v.value("from") == "" || v.value("to") == "" {
		return nil, nil //nolint:nilnil // nothing to compare is an answer
	}
	text := func(name string) (int64, string, error) {
		n, _ := strconv.ParseInt(v.value(name), 10, 64)
		for _, t := range versions {
			if t.Version == n {
				return n, asFile(t.Target), nil
			}
		}
		return 0, "", &api.Problem{Status: http.StatusNotFound, Title: "There is no such version", NextStep: "Choose two of the list."}
	}
	from, before, err := text("from")
	if err != nil {
		return nil, err
	}
	to, after, err := text("to")
	if err != nil {
		return nil, err
	}
	return &comparison{from, to, diff(before, after)}, nil
}

// rollBack makes an earlier version the current one again.
func (c *console) rollBack(v *visit) error {
	in := api.RollBackTarget.In()
	in.Handle = v.r.PathValue("handle")
	in.Body.Version, _ = strconv.ParseInt(v.value("version"), 10, 64)
	in.Body.Reason = v.value("reason")
	before, err := c.target(v, in.Handle)
	if err != nil {
		return err
	}
	out, err := api.RollBackTarget.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	return v.back("/targets/"+in.Handle, outcomeOf(out.Body, revisionOf(before)))
}

func revisionOf(t *api.Target) int64 {
	if t == nil {
		return 0
	}
	return t.Revision
}

// moveTarget leads a target to another address, from the inspector to production: one recorded step, the rest as it is.
func (c *console) moveTarget(v *visit) error {
	in := api.MoveTarget.In()
	in.Handle, in.Body.URL, in.Body.Reason = v.r.PathValue("handle"), v.value("url"), v.value("reason")
	if in.Body.URL == "" {
		return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "Where to?", NextStep: "Give the address, such as https://a.klaviyo.com/api/events."}
	}
	before, err := c.target(v, in.Handle)
	if err != nil {
		return err
	}
	out, err := api.MoveTarget.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	word := outcomeOf(out.Body, revisionOf(before))
	if word == "saved" {
		word = "moved"
	}
	return v.back("/targets/"+in.Handle, word)
}

// testSeconds is how long a test at a target's own address is waited for before its page is shown as far as it has come.
const testSeconds = 5

// fireTest sends a test to the target's own address: a firing like any other, of which the cause says that it was a test.
func (c *console) fireTest(v *visit) error {
	request := api.TestRequest{To: "url", Wait: testSeconds}
	if text := v.value("profile"); text != "" {
		id, err := uuid.Parse(text)
		if err != nil {
			return notAPerson()
		}
		request.Profile = &id
	}
	if text := v.value("context"); text != "" {
		if !json.Valid([]byte(text)) {
			return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "The context is not JSON", NextStep: "Go back and correct it: a JSON object."}
		}
		request.Context = json.RawMessage(text)
	}
	in := api.TestTarget.In()
	in.Handle = v.r.PathValue("handle")
	var err error
	if in.RawBody, err = json.Marshal(request); err != nil {
		return err
	}
	out, err := api.TestTarget.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	if out.Body.Delivery == nil {
		return v.back("/deliveries?target="+in.Handle, "fired")
	}
	return v.back("/deliveries/"+out.Body.Delivery.ID.String(), "fired")
}

// proposal is a change that takes two people, with what it changes.
type proposal struct {
	api.Proposal
	Diff       []diffLine
	Own        bool // the visitor proposed it
	MayApprove bool
	MayDecline bool
}

func (c *console) shown(v *visit, p api.Proposal, now *api.Target) proposal {
	before := ""
	if now != nil {
		before = asFile(now.Target)
	}
	own, open := p.ProposedBy == v.who.Name, p.State == "open"
	return proposal{
		Proposal: p, Diff: diff(before, asFile(domain.Target(p.Target))), Own: own,
		MayApprove: open && !own && !p.Stale && v.may(api.ApproveProposal.ID), MayDecline: open && v.may(api.DeclineProposal.ID),
	}
}

// proposalsOf are the changes that wait, and those that were decided lately, of one target.
func (c *console) proposalsOf(v *visit, now api.Target) ([]proposal, error) {
	if !v.may(api.ListTargetProposals.ID) {
		return nil, nil
	}
	in := api.ListTargetProposals.In()
	in.Handle, in.Limit = now.Handle, 10
	out, err := api.ListTargetProposals.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return nil, err
	}
	var all []proposal
	for _, p := range out.Body.Items {
		all = append(all, c.shown(v, p, &now))
	}
	return all, nil
}

type proposalsPage struct {
	Items []proposal
	Next  *string
}

func (c *console) listProposals(v *visit) error {
	in := api.ListProposals.In()
	in.Limit, in.Cursor = pageSize, v.value("cursor")
	out, err := api.ListProposals.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	p := proposalsPage{Next: out.Body.Next}
	for _, item := range out.Body.Items {
		now, err := c.target(v, item.Target.Handle)
		if err != nil {
			return err
		}
		p.Items = append(p.Items, c.shown(v, item, now))
	}
	return c.page(v, "proposals", "Proposed changes", p)
}

func (c *console) approveProposal(v *visit) error {
	in := api.ApproveProposal.In()
	in.Handle = v.r.PathValue("handle")
	in.Number, _ = strconv.ParseInt(v.r.PathValue("number"), 10, 64)
	fill(&in.Body).Reason = v.value("reason")
	if _, err := api.ApproveProposal.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/targets/"+in.Handle, "approved")
}

func (c *console) declineProposal(v *visit) error {
	in := api.DeclineProposal.In()
	in.Handle = v.r.PathValue("handle")
	in.Number, _ = strconv.ParseInt(v.r.PathValue("number"), 10, 64)
	fill(&in.Body).Reason = v.value("reason")
	if _, err := api.DeclineProposal.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/targets/"+in.Handle, "declined")
}
