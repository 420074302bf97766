package api

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/promptness"
)

func (a *api) promptnessRoutes() {
	tags := []string{"Consent"}
	register(a, huma.Operation{
		OperationID: "list-opt-outs", Method: http.MethodGet, Path: "/v1/consent/opt-outs", Tags: tags,
		Summary: "How soon was each opt-out honoured?",
		Description: "Newest first: when it was decided and recorded, when the last message left all the same, when each platform confirmed that it suppresses the address, and " +
			"whether all of that came before the deadline of the ledger's policy (`GET /v1/consent/policy`; the five business days of Australia's Spam Act by default).",
	}, a.listOptOuts)
	register(a, huma.Operation{
		OperationID: "sum-opt-outs", Method: http.MethodGet, Path: "/v1/consent/opt-outs/report", Tags: tags,
		Summary:     "How soon are opt-outs honoured?",
		Description: "The median, the 95th percentile and the longest of each step, by platform, and how many came too late, of the opt-outs decided in a span of time.",
	}, a.sumOptOuts)
	if err := a.Registry.Register(&promptnessMetrics{api: a}); err != nil {
		a.errs = append(a.errs, err)
	}
}

// Span is a span of time.
type Span struct {
	From string `query:"from" format:"date-time" doc:"Decided at or after."`
	To   string `query:"to" format:"date-time" doc:"Decided before."`
}

func (s Span) filter() (f promptness.Filter, err error) {
	f.From, f.To, err = parsePeriod(s.From, s.To)
	return f, err
}

type listOptOutsInput struct {
	Span
	Profile     string `query:"profile" format:"uuid" doc:"Of one person."`
	Unconfirmed string `query:"unconfirmed" doc:"Only what this platform was asked and has not confirmed; any for any platform."`
	Paging
}

func (a *api) listOptOuts(ctx context.Context, in *listOptOutsInput) (*Listed[promptness.OptOut], error) {
	f, err := in.filter()
	if err != nil {
		return nil, err
	}
	if f.Profile, err = parseUUID("query.profile", in.Profile); err != nil {
		return nil, err
	}
	if f.Open = in.Unconfirmed; f.Open != "" && f.Open != promptness.AnyPlatform && !slices.Contains(domain.Platforms, f.Open) {
		return nil, badParameter("query.unconfirmed", "is none of %s, %s", promptness.AnyPlatform, strings.Join(domain.Platforms, ", "))
	}
	cursor, err := positionCursor("opt-outs", in.Cursor)
	if err != nil {
		return nil, err
	}
	before, skip := cursor/answersPerEvent, int(cursor%answersPerEvent) // the event that the page before ended in, and how many of it it showed
	if f.Before, f.Limit = before, in.Limit+1+skip; before > 0 {
		f.Before++ // it may hold more
	}
	policy, err := consent.Policy(ctx, a.reads(ctx))
	if err != nil {
		return nil, err
	}
	var items []promptness.OptOut
	for o, err := range promptness.OptOuts(ctx, a.reads(ctx), policy.Promptness, a.Clock(), f) {
		if err != nil {
			return nil, err
		}
		items = append(items, o)
	}
	items = items[min(skip, len(items)):]
	return &Listed[promptness.OptOut]{Body: pageOf("opt-outs", items, in.Limit, func(last promptness.OptOut) string {
		n := 0 // how many of the page are of the last one's event, from this page and the ones before
		for _, o := range items[:in.Limit] {
			if o.Position == last.Position {
				n++
			}
		}
		if last.Position == before {
			n += skip
		}
		return strconv.FormatInt(last.Position*answersPerEvent+int64(n), 10)
	})}, nil
}

type sumOptOutsOutput struct{ Body promptness.Report }

func (a *api) sumOptOuts(ctx context.Context, in *Span) (*sumOptOutsOutput, error) {
	f, err := in.filter()
	if err != nil {
		return nil, err
	}
	policy, err := consent.Policy(ctx, a.reads(ctx))
	if err != nil {
		return nil, err
	}
	r, err := promptness.Sum(ctx, a.reads(ctx), policy.Promptness, a.Clock(), f)
	if err != nil {
		return nil, err
	}
	return &sumOptOutsOutput{Body: r}, nil
}

// promptnessMetrics asks the ledger when it is scraped, and not more often than once in a while.
type promptnessMetrics struct {
	api *api

	mu   sync.Mutex
	at   time.Time           // guarded by mu
	last []prometheus.Metric // guarded by mu
}

const promptnessEvery = 30 * time.Second

var (
	openDesc    = prometheus.NewDesc("ledger_optouts_unconfirmed", "Opt-outs that a platform was asked to honour and has not confirmed.", []string{"platform"}, nil)
	overdueDesc = prometheus.NewDesc("ledger_optouts_overdue", "Of those, the ones whose deadline has passed. Alert on anything above 0.", []string{"platform"}, nil)
	oldestDesc  = prometheus.NewDesc("ledger_optouts_oldest_unconfirmed_seconds", "How long ago the oldest of them was decided.", []string{"platform"}, nil)
	lagDesc     = prometheus.NewDesc("ledger_optouts_recorded_after_seconds", "The longest time from decision to record, of the opt-outs recorded in the last 24 hours.", nil, nil)
	dayDesc     = prometheus.NewDesc("ledger_optouts_recorded", "Opt-outs recorded in the last 24 hours.", nil, nil)
)

// Describe implements prometheus.Collector.
func (m *promptnessMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{openDesc, overdueDesc, oldestDesc, lagDesc, dayDesc} {
		to <- d
	}
}

// Collect implements prometheus.Collector. When the ledger cannot be asked, the metrics are absent.
func (m *promptnessMetrics) Collect(to chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.api.Clock()
	if m.last == nil || now.Sub(m.at) >= promptnessEvery {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		last, err := m.ask(ctx, now)
		if err != nil {
			m.api.Log.WarnContext(ctx, "cannot measure how soon opt-outs are honoured", slog.Any("error", err))
			return
		}
		m.at, m.last = now, last
	}
	for _, metric := range m.last {
		to <- metric
	}
}

func (m *promptnessMetrics) ask(ctx context.Context, now time.Time) ([]prometheus.Metric, error) {
	policy, err := consent.Policy(ctx, m.api.DB)
	if err != nil {
		return nil, err
	}
	waiting, err := promptness.Unconfirmed(ctx, m.api.DB, policy.Promptness, now)
	if err != nil {
		return nil, err
	}
	lag, count, err := promptness.Lag(ctx, m.api.DB, now.Add(-24*time.Hour))
	if err != nil {
		return nil, err
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
		return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	out := []prometheus.Metric{gauge(lagDesc, lag), gauge(dayDesc, float64(count))}
	for _, w := range waiting {
		out = append(out, gauge(openDesc, float64(w.Open), w.Platform), gauge(overdueDesc, float64(w.Overdue), w.Platform), gauge(oldestDesc, now.Sub(w.Oldest).Seconds(), w.Platform))
	}
	return out, nil
}
