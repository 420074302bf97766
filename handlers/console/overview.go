package console

import (
	"errors"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// overviewSpan is how far back the overview's plots go.
const overviewSpan = 24 * time.Hour

type overviewPage struct {
	Head         int64
	Checkpoint   *schema.Checkpoint
	Verification *api.Verification
	Sent         *sentOverview
	Waiting      []queue.Depth
	Due, Queued  int
	Oldest       time.Duration // how long the first due delivery has waited
	Readers      []projections.Status
	Parked       int
	Lag          int64
	Empty        bool // nothing was ever fired
	Platforms    int
	Undecided    int64 // differences with platforms that wait for a decision
	Unconfirmed  int64 // opt-outs that platforms have not confirmed
	Drift        *chart
	Proposals    int // changes of targets that wait for a second person
	Questions    []entry
}

// questions are what compliance asks, each one list.
var questions = []struct{ title, path, operation string }{
	{"What was sent to people who were opted out?", "/deliveries?against=opted_out", api.ListDeliveries.ID},
	{"Which firings never became a delivery, and why?", "/deliveries?outcome=withheld&outcome=rejected", api.ListDeliveries.ID},
	{"Which requests have an unknown outcome?", "/deliveries/unknown?open=yes", api.AuditUnknown.ID},
	{"Which opt-outs has a platform not confirmed?", "/opt-outs", api.SumOptOuts.ID},
	{"Who opted out, where and how?", "/consent-changes?status=opted_out", api.AuditConsentChanges.ID},
	{"Who changed a target?", "/ledger?type=target.changed", api.ListEvents.ID},
	{"Who looked at sealed data?", "/ledger?type=sealed.revealed", api.ListEvents.ID},
	{"Everything about one person, in order", "/people", api.GetConsent.ID},
}

type sentOverview struct {
	Totals   deliveries.Outcomes
	Outcomes chart
	Rows     []deliveries.Count // for the table beside the plot
	Latency  chart
	P50, P99 time.Duration // of the last period with attempts
	Targets  []deliveries.Count
}

func (c *console) overview(v *visit) (err error) {
	ctx := v.r.Context()
	p := overviewPage{}
	if p.Head, err = schema.Head(ctx, c.DB); err != nil {
		return err
	}
	switch checkpoint, err := schema.LastCheckpoint(ctx, c.DB); {
	case err == nil:
		p.Checkpoint = &checkpoint
	case !errors.Is(err, schema.ErrNotFound):
		return err
	}
	if v.may(api.GetVerification.ID) {
		out, err := api.GetVerification.Call(ctx, c.Service, v.who, api.GetVerification.In())
		if err != nil {
			return err
		}
		p.Verification = &out.Body
	}
	if v.may(api.AuditOutcomes.ID) {
		if p.Sent, err = c.sent(v); err != nil {
			return err
		}
		p.Empty = p.Sent.Totals.Total() == 0 && p.Head < 100
	}
	if v.may(api.ListProjections.ID) {
		if p.Waiting, err = queue.Depths(ctx, c.DB); err != nil {
			return err
		}
		for _, w := range p.Waiting {
			p.Due, p.Queued = p.Due+w.Due, p.Queued+w.Queued
			if age := c.Clock().Sub(w.Oldest); w.Due > 0 && age > p.Oldest {
				p.Oldest = age
			}
		}
		if p.Readers, err = projections.Statuses(ctx, c.DB); err != nil {
			return err
		}
		for _, s := range p.Readers {
			if s.State == "parked" {
				p.Parked++
			}
			if s.Kind == "projection" {
				p.Lag = max(p.Lag, s.Lag)
			}
		}
	}
	if err := c.waitingForPeople(v, &p); err != nil {
		return err
	}
	for _, q := range questions {
		if v.may(q.operation) {
			p.Questions = append(p.Questions, entry{Title: q.title, Path: q.path})
		}
	}
	return c.page(v, "overview", "Overview", p)
}

// waitingForPeople is what nobody but a person brings on, and how far platforms' lists are from ours.
func (c *console) waitingForPeople(v *visit, p *overviewPage) error {
	ctx := v.r.Context()
	if v.may(api.ListPlatforms.ID) {
		in := api.ListPlatforms.In()
		in.Limit = 500
		out, err := api.ListPlatforms.Call(ctx, c.Service, v.who, in)
		if err != nil {
			return err
		}
		p.Platforms = len(out.Body.Items)
		for _, connected := range out.Body.Items {
			p.Undecided += connected.Standing.Open
			p.Unconfirmed += connected.Standing.Unconfirmed
		}
	}
	if p.Platforms > 0 && v.may(api.ListReconciliations.ID) {
		in := api.ListReconciliations.In()
		in.Limit = runsPlotted
		out, err := api.ListReconciliations.Call(ctx, c.Service, v.who, in)
		if err != nil {
			return err
		}
		p.Drift = driftOf("every platform", out.Body.Items)
	}
	if v.may(api.ListProposals.ID) {
		in := api.ListProposals.In()
		in.Limit = 500
		out, err := api.ListProposals.Call(ctx, c.Service, v.who, in)
		if err != nil {
			return err
		}
		p.Proposals = len(out.Body.Items)
	}
	return nil
}

// sent is what went out in the last day, by quarter of an hour.
func (c *console) sent(v *visit) (*sentOverview, error) {
	ctx, now := v.r.Context(), c.Clock().UTC()
	to := now.Truncate(deliveries.Bucket).Add(deliveries.Bucket)
	from := to.Add(-overviewSpan)
	n := int(overviewSpan / deliveries.Bucket)
	call := func(by deliveries.By) ([]deliveries.Count, error) {
		in := api.AuditOutcomes.In()
		in.From, in.To, in.By = from.Format(time.RFC3339), to.Format(time.RFC3339), string(by)
		out, err := api.AuditOutcomes.Call(ctx, c.Service, v.who, in)
		if err != nil {
			return nil, err
		}
		return out.Body.Items, nil
	}
	rows, err := call(deliveries.ByPeriod)
	if err != nil {
		return nil, err
	}
	s := &sentOverview{Rows: rows, Outcomes: chart{Title: "Deliveries planned in each quarter of an hour, by outcome", From: from, Step: deliveries.Bucket}}
	if s.Targets, err = call(deliveries.ByTarget); err != nil {
		return nil, err
	}
	s.Targets = s.Targets[:min(len(s.Targets), 8)]
	for _, kind := range []struct {
		name, class string
		of          []domain.Outcome
	}{
		{"succeeded", "good", []domain.Outcome{domain.Succeeded}},
		{"under way", "busy", []domain.Outcome{domain.Pending, domain.Retrying}},
		{"withheld, cancelled, expired", "warn", []domain.Outcome{domain.Withheld, domain.Cancelled, domain.Expired}},
		{"failed, rejected", "bad", []domain.Outcome{domain.Failed, domain.Rejected}},
	} {
		line := series{Name: kind.name, Class: kind.class, Values: make([]float64, n)}
		for _, row := range rows {
			for _, o := range kind.of {
				if i := int(row.Bucket.Sub(from) / deliveries.Bucket); i >= 0 && i < n {
					line.Values[i] += float64(row.Outcomes.Of(o))
				}
			}
		}
		s.Outcomes.Series = append(s.Outcomes.Series, line)
	}
	for _, row := range rows {
		t, o := &s.Totals, row.Outcomes
		t.Pending += o.Pending
		t.Retrying += o.Retrying
		t.Succeeded += o.Succeeded
		t.Failed += o.Failed
		t.Withheld += o.Withheld
		t.Rejected += o.Rejected
		t.Cancelled += o.Cancelled
		t.Expired += o.Expired
	}
	latencies, err := deliveries.Latencies(ctx, c.DB, from, to)
	if err != nil {
		return nil, err
	}
	s.Latency = chart{Title: "How long attempts took, in milliseconds: the median and the slowest in a hundred", Unit: "ms", From: from, Step: deliveries.Bucket, Lines: true}
	half, slow := series{Name: "median", Class: "good", Values: make([]float64, n)}, series{Name: "99th percentile", Class: "busy", Values: make([]float64, n)}
	for _, l := range latencies {
		if i := int(l.Bucket.Sub(from) / deliveries.Bucket); i >= 0 && i < n {
			half.Values[i], slow.Values[i] = float64(l.P50)/float64(time.Millisecond), float64(l.P99)/float64(time.Millisecond)
			s.P50, s.P99 = l.P50, l.P99
		}
	}
	s.Latency.Series = []series{half, slow}
	return s, nil
}
