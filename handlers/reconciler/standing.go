package reconciler

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
)

// Platform is a connected platform: its policy, what can be done there, and how far the two sides are apart.
type Platform struct {
	suppressions.Policy

	Title    string                 `json:"title" doc:"As people write it."`
	Reads    []domain.Channel       `json:"reads" nullable:"false" doc:"Channels whose opt-outs its list shows. On the others nothing is compared, and nothing that is written there is confirmed."`
	Writes   []domain.Channel       `json:"writes" nullable:"false" doc:"Channels on which our opt-outs are written there."`
	Closed   string                 `json:"closed,omitempty" format:"date" doc:"The day on which its vendor closed it; absent: it is there."`
	Cannot   []string               `json:"cannot" doc:"What the platform cannot do, each a sentence."`
	Standing suppressions.Standing  `json:"standing"`
	Coverage *suppressions.Coverage `json:"coverage" doc:"How many of our addresses it knew when its list was last read whole; null when it never was."`
	Last     *suppressions.Run      `json:"last_run" doc:"The last reconciliation; null when there was none."`
}

// Describe gives a connection as it stands. It asks the ledger alone, and needs no secret.
func (s *Service) Describe(ctx context.Context, p suppressions.Policy) (Platform, error) {
	out := Platform{Policy: p, Reads: []domain.Channel{}, Writes: []domain.Channel{}, Cannot: []string{}}
	out.ChangedAt = p.ChangedAt.UTC()
	if known, err := platforms.Lookup(p.Platform); err == nil {
		out.Title = known.Title
		l := &link{Policy: p, platform: known, caps: known.Caps}
		if client, err := known.Connect(platforms.Connection{HTTP: s.HTTP, URL: p.URL, Settings: p.Settings, Now: s.Now}); err == nil {
			l.client, l.caps = client, client.Caps()
		}
		out.Closed, out.Cannot = l.caps.Closed, append(out.Cannot, l.caps.Cannot...)
		for _, c := range l.channels() {
			if l.lists(c) {
				out.Reads = append(out.Reads, c)
			}
			if l.writes(c) {
				out.Writes = append(out.Writes, c)
			}
		}
	}
	var err error
	if out.Standing, err = suppressions.StandingOf(ctx, s.DB, p.Name, out.Reads); err != nil {
		return out, err
	}
	if len(out.Reads) > 0 {
		if out.Coverage, err = suppressions.CoverageOf(ctx, s.DB, p.Name); err != nil {
			return out, err
		}
	}
	runs, err := suppressions.Runs(ctx, s.DB, suppressions.RunFilter{Platform: p.Name, Limit: 1})
	if err == nil && len(runs) > 0 {
		out.Last = &runs[0]
	}
	return out, err
}

// standings are the metrics of where the platforms stand, asked when they are collected and not more often than once in a while.
// They are the same in every process, and need none of them to have run anything.
type standings struct {
	service *Service

	mu   sync.Mutex
	at   time.Time           // guarded by mu
	last []prometheus.Metric // guarded by mu
}

const standingsEvery = 15 * time.Second

func standingDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, []string{"platform"}, nil)
}

var (
	unconfirmedDesc = standingDesc("ledger_suppressions_unconfirmed", "Opt-outs written to a platform and not read back yet.")
	oldestDesc      = standingDesc("ledger_suppressions_oldest_unconfirmed_seconds", "How long ago the oldest of them was decided; 0 when there is none.")
	openDesc        = standingDesc("ledger_findings_open", "Differences that wait for a person.")
	waitingDesc     = standingDesc("ledger_suppressions_waiting", "Changes that wait to be written to a platform.")
	coverageDesc    = standingDesc("ledger_reconciliation_coverage_ratio", "Share of our addresses that the platform knew when it was last read whole.")
)

// Describe implements prometheus.Collector.
func (m *standings) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{unconfirmedDesc, oldestDesc, openDesc, waitingDesc, coverageDesc} {
		to <- d
	}
}

// Collect implements prometheus.Collector. When the ledger cannot be asked, the metrics are absent.
func (m *standings) Collect(to chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.service.Now()
	if m.last == nil || now.Sub(m.at) >= standingsEvery {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		last, err := m.ask(ctx, now)
		if err != nil {
			m.service.Log.WarnContext(ctx, "cannot measure where the platforms stand", slog.Any("error", err))
			return
		}
		m.at, m.last = now, last
	}
	for _, metric := range m.last {
		to <- metric
	}
}

func (m *standings) ask(ctx context.Context, now time.Time) ([]prometheus.Metric, error) {
	policies, err := suppressions.Policies(ctx, m.service.DB)
	if err != nil {
		return nil, err
	}
	out := []prometheus.Metric{}
	for _, p := range policies {
		described, err := m.service.Describe(ctx, p)
		if err != nil {
			return nil, err
		}
		gauge := func(d *prometheus.Desc, v float64) {
			out = append(out, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, p.Name))
		}
		at := described.Standing
		gauge(unconfirmedDesc, float64(at.Unconfirmed))
		gauge(openDesc, float64(at.Open))
		gauge(waitingDesc, float64(at.Waiting))
		age := 0.0
		if at.Oldest != nil {
			age = now.Sub(*at.Oldest).Seconds()
		}
		gauge(oldestDesc, age)
		if c := described.Coverage; c != nil {
			gauge(coverageDesc, c.Ratio())
		}
	}
	return out, nil
}
