package console

import (
	"net/http"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
)

// pageSize is how many rows a list shows at a time.
const pageSize = 50

type deliveriesPage struct {
	Items     []api.DeliverySummary
	Next      *string
	Outcomes  []domain.Outcome
	Chosen    map[string]bool
	Filter    map[string]string
	Platforms []string
	Replay    string // address of a replay of these; empty for who may not
}

func (c *console) listDeliveries(v *visit) error {
	in := api.ListDeliveries.In()
	in.Target, in.Reaction, in.Profile, in.Reason, in.Cursor, in.Limit = v.value("target"), v.value("reaction"), v.value("profile"), v.value("reason"), v.value("cursor"), pageSize
	in.Platform = one(v, "platform", domain.Platforms)
	in.Against = one(v, "against", []string{"opted_out", "any"})
	if err := v.r.ParseForm(); err != nil {
		return err
	}
	chosen := map[string]bool{}
	for _, o := range domain.Outcomes {
		for _, given := range v.r.Form["outcome"] {
			if given == string(o) {
				chosen[given] = true
				if in.Outcome != "" {
					in.Outcome += ","
				}
				in.Outcome += given
			}
		}
	}
	var err error
	if in.From, in.To, err = v.period(); err != nil {
		return err
	}
	if v.wantsCSV() {
		return export(v, c, "deliveries", api.ListDeliveries, in, &in.Paging)
	}
	out, err := api.ListDeliveries.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	replay := ""
	if v.may(api.ReplayDeliveries.ID) {
		replay = "/replays?" + v.r.Form.Encode()
	}
	return c.page(v, "deliveries", "Deliveries", deliveriesPage{
		Replay: replay, Items: out.Body.Items, Next: out.Body.Next, Outcomes: domain.Outcomes, Platforms: domain.Platforms, Chosen: chosen,
		Filter: map[string]string{"target": in.Target, "reaction": in.Reaction, "profile": in.Profile, "platform": in.Platform, "reason": in.Reason, "against": in.Against, "from": v.value("from"), "to": v.value("to")},
	})
}

type deliveryPage struct {
	api.Delivery
	MayRetry, MayCancel, MayReveal, MayProve, MayPerson, MayEvents bool
	Steps                                                          []step
}

// step is a moment in a delivery's life.
type step struct {
	At       time.Time
	What     string
	Tone     string
	Detail   string
	Position int64
	Attempt  *api.Attempt
}

func (c *console) showDelivery(v *visit) error {
	in := api.GetDelivery.In()
	in.ID = v.r.PathValue("id")
	out, err := api.GetDelivery.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	return c.page(v, "delivery", "Delivery "+out.Body.ID.String()[:8], c.deliveryPage(v, out.Body))
}

func (c *console) deliveryPage(v *visit, d api.Delivery) deliveryPage {
	p := deliveryPage{
		Delivery: d,
		MayRetry: v.may(api.RetryDelivery.ID) && d.Outcome.Final() && d.BodySHA256 != nil, MayCancel: v.may(api.CancelDelivery.ID) && !d.Outcome.Final(),
		MayReveal: v.may(api.RevealDelivery.ID), MayProve: v.may(api.GetEvidence.ID), MayPerson: v.may(api.GetConsent.ID), MayEvents: v.may(api.GetEvent.ID),
	}
	p.Steps = stepsOf(d)
	return p
}

// stepsOf tells a delivery's life in order.
func stepsOf(d api.Delivery) []step {
	steps := []step{{What: "Fired", Tone: "calm", Detail: "by " + d.Firing.Reaction + " (" + d.Firing.Cause + ")", Position: d.Firing.Position, At: d.PlannedAt}}
	planned := step{At: d.PlannedAt, Position: d.Position, Tone: tone(d.Outcome)}
	switch {
	case d.Outcome == domain.Withheld && len(d.Attempts) == 0:
		planned.What = "Withheld"
	case d.Outcome == domain.Rejected:
		planned.What = "Rejected"
	default:
		planned.What, planned.Tone = "Planned", "calm"
	}
	if d.Detail != nil && planned.What != "Planned" {
		planned.Detail = *d.Detail
	} else if d.Consent != nil {
		planned.Detail = d.Consent.Explain()
	}
	steps = append(steps, planned)
	for i, a := range d.Attempts {
		s := step{At: a.StartedAt, What: "Attempt " + decimal(a.Attempt), Tone: tone(a.Verdict), Position: a.Position, Attempt: &d.Attempts[i]}
		if a.Reason != nil {
			s.Detail = *a.Reason
		}
		steps = append(steps, s)
	}
	if d.FinishedAt != nil && len(d.Attempts) > 0 {
		s := step{At: *d.FinishedAt, What: title(string(d.Outcome)), Tone: tone(d.Outcome)}
		if d.Detail != nil {
			s.Detail = *d.Detail
		}
		steps = append(steps, s)
	}
	return steps
}

func (c *console) evidence(v *visit) error {
	in := api.GetEvidence.In()
	in.ID = v.r.PathValue("id")
	out, err := api.GetEvidence.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	return v.download("evidence-"+in.ID+".json", "application/json", out.Body)
}

// download sends a file to be kept.
func (v *visit) download(name, kind string, content []byte) error {
	v.w.Header().Set("Content-Type", kind)
	v.w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
	v.w.WriteHeader(http.StatusOK)
	_, err := v.w.Write(content)
	return err
}

func (c *console) retryDelivery(v *visit) error {
	in := api.RetryDelivery.In()
	in.ID = v.r.PathValue("id")
	in.Body = &api.RetryReason{Reason: v.value("reason"), EvenSucceeded: v.value("even_succeeded") == "yes"}
	if _, err := api.RetryDelivery.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/deliveries/"+in.ID, "retried")
}

func (c *console) cancelDelivery(v *visit) error {
	in := api.CancelDelivery.In()
	in.ID = v.r.PathValue("id")
	in.Body = &api.CancelReason{Reason: v.value("reason")}
	if _, err := api.CancelDelivery.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/deliveries/"+in.ID, "cancelled")
}

type unknownPage struct {
	Items []api.Unknown
	Next  *string
	Open  bool
}

func (c *console) listUnknown(v *visit) error {
	in := api.AuditUnknown.In()
	in.Cursor, in.Limit, in.Open = v.value("cursor"), pageSize, v.value("open") == "yes"
	if v.wantsCSV() {
		return export(v, c, "unknown-outcomes", api.AuditUnknown, in, &in.Paging)
	}
	out, err := api.AuditUnknown.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	return c.page(v, "unknown", "Unknown outcomes", unknownPage{out.Body.Items, out.Body.Next, in.Open})
}
