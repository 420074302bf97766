package console

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/dispatcher"
)

type replaysPage struct {
	Filter    map[string]string
	Outcomes  []domain.Outcome
	Chosen    map[string]bool
	Platforms []string
	List      string // address of the deliveries that the filter selects

	Counted *api.Replay // a dry run
	ID      uuid.UUID   // of the replay that may follow: a form that is sent twice asks once
	MayAsk  bool
	Items   []api.Replay
	Next    *string
	Running bool
}

// replayFilter reads a filter from a form or an address.
func replayFilter(v *visit) (f domain.ReplayFilter, p replaysPage, err error) {
	if err := v.r.ParseForm(); err != nil {
		return f, p, err
	}
	f.Target, f.Reaction, f.Platform = v.value("target"), v.value("reaction"), one(v, "platform", domain.Platforms)
	p.Chosen, p.Outcomes, p.Platforms = map[string]bool{}, dispatcher.Replayable, domain.Platforms
	if !slices.Contains(p.Outcomes, domain.Withheld) {
		p.Outcomes = append(slices.Clone(p.Outcomes), domain.Withheld)
	}
	for _, o := range p.Outcomes {
		if slices.Contains(v.r.Form["outcome"], string(o)) {
			f.Outcomes, p.Chosen[string(o)] = append(f.Outcomes, o), true
		}
	}
	p.Filter = map[string]string{"target": f.Target, "reaction": f.Reaction, "platform": f.Platform, "from": v.value("from"), "to": v.value("to")}
	p.List = listOf(f)
	for name, end := range map[string]*time.Time{"from": &f.From, "to": &f.To} {
		if p.Filter[name] == "" {
			continue
		}
		if *end, err = parseMoment(p.Filter[name]); err != nil {
			return f, p, &api.Problem{Status: http.StatusUnprocessableEntity, Title: "A time cannot be read", Detail: name + " is not a time such as 2026-11-23T04:05.", NextStep: "Correct it and send the form again."}
		}
	}
	p.List = listOf(f)
	return f, p, nil
}

// listOf is the address of the deliveries that a filter selects.
func listOf(f domain.ReplayFilter) string {
	q := url.Values{}
	for _, o := range f.Outcomes {
		q.Add("outcome", string(o))
	}
	for name, value := range map[string]string{"target": f.Target, "reaction": f.Reaction, "platform": f.Platform} {
		if value != "" {
			q.Set(name, value)
		}
	}
	for name, end := range map[string]time.Time{"from": f.From, "to": f.To} {
		if !end.IsZero() {
			q.Set(name, rfc(end))
		}
	}
	return "/deliveries?" + q.Encode()
}

// listReplays shows those there were, and counts what another would do.
func (c *console) listReplays(v *visit) error {
	ctx := v.r.Context()
	f, p, err := replayFilter(v)
	if err != nil {
		return err
	}
	p.MayAsk, p.ID = v.may(api.ReplayDeliveries.ID), uuid.New()
	if v.value("count") != "" && p.MayAsk {
		if len(f.Outcomes) == 0 {
			return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "Which deliveries?", NextStep: "Choose at least one outcome."}
		}
		in := api.ReplayDeliveries.In()
		b := &in.Body
		b.Target, b.Reaction, b.Platform, b.Outcomes, b.From, b.To, b.DryRun = f.Target, f.Reaction, f.Platform, f.Outcomes, f.From, f.To, true
		out, err := api.ReplayDeliveries.Call(ctx, c.Service, v.who, in)
		if err != nil {
			return err
		}
		p.Counted = &out.Body
	} else if len(p.Chosen) == 0 {
		p.Chosen[string(domain.Failed)] = true
	}
	in := api.ListReplays.In()
	in.Limit, in.Cursor = 20, v.value("cursor")
	out, err := api.ListReplays.Call(ctx, c.Service, v.who, in)
	if err != nil {
		return err
	}
	p.Items, p.Next = out.Body.Items, out.Body.Next
	p.Running = slices.ContainsFunc(p.Items, func(r api.Replay) bool { return r.State == domain.ReplayRunning })
	return c.page(v, "replays", "Replays", p)
}

func (c *console) askReplay(v *visit) error {
	f, _, err := replayFilter(v)
	if err != nil {
		return err
	}
	in := api.ReplayDeliveries.In()
	b := &in.Body
	b.Target, b.Reaction, b.Platform, b.Outcomes, b.From, b.To, b.Reason = f.Target, f.Reaction, f.Platform, f.Outcomes, f.From, f.To, v.value("reason")
	if b.ID, err = uuid.Parse(v.value("id")); err != nil || len(f.Outcomes) == 0 {
		return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "Nothing was chosen", NextStep: "Choose what to try again, and have it counted first."}
	}
	if b.Reason == "" {
		return needsReason()
	}
	if text := v.value("rate"); text != "" {
		if b.Rate, err = strconv.ParseFloat(text, 64); err != nil || b.Rate < 0 || b.Rate > 10_000 {
			return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "The rate cannot be read", NextStep: "Give deliveries a second, such as 20, or none."}
		}
	}
	out, err := api.ReplayDeliveries.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	return v.back("/replays/"+out.Body.ID.String(), "replay")
}

type replayPage struct {
	api.Replay
	Done      int // deliveries that were looked at
	List      string
	MayCancel bool
}

func (c *console) showReplay(v *visit) error {
	in := api.GetReplay.In()
	in.ID = v.r.PathValue("id")
	out, err := api.GetReplay.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	r := out.Body
	return c.page(v, "replay", "Replay "+strings.ToLower(in.ID)[:8], replayPage{
		Replay: r, Done: r.Requeued + r.Skipped + r.Refused, List: listOf(r.Filter), MayCancel: v.may(api.CancelReplay.ID) && r.State == domain.ReplayRunning,
	})
}

func (c *console) cancelReplay(v *visit) error {
	in := api.CancelReplay.In()
	in.ID = v.r.PathValue("id")
	if _, err := api.CancelReplay.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/replays/"+in.ID, "replay_cancelled")
}
