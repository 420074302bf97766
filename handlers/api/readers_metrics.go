package api

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dispatch-ledger/dispatch-ledger/projections"
)

// readerMetrics tell where every reader of the ledger stands, asked when they are collected.
type readerMetrics struct{ api *api }

var (
	behindDesc  = prometheus.NewDesc("ledger_reader_behind_events", "Events that a reader of the ledger has not taken yet.", []string{"kind", "name"}, nil)
	lateDesc    = prometheus.NewDesc("ledger_reader_behind_seconds", "How long ago the first of them was recorded; 0 at the head.", []string{"kind", "name"}, nil)
	parkedDesc  = prometheus.NewDesc("ledger_reader_parked", "1 for a reader that stands before an event that it cannot take.", []string{"kind", "name"}, nil)
	rebuildDesc = prometheus.NewDesc("ledger_rebuild_behind_events", "Events that a projection's rebuild has still to replay.", []string{"name", "state"}, nil)
)

// Describe implements prometheus.Collector.
func (m readerMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{behindDesc, lateDesc, parkedDesc, rebuildDesc} {
		to <- d
	}
}

// Collect implements prometheus.Collector. When the ledger cannot be asked, the metrics are absent.
func (m readerMetrics) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	all, err := projections.Statuses(ctx, m.api.DB)
	if err != nil {
		m.api.Log.WarnContext(ctx, "cannot measure where the ledger's readers stand", slog.Any("error", err))
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, s := range all {
		if s.Kind == "build" { // it stands where it was built to
			continue
		}
		parked := 0.0
		if s.State == "parked" {
			parked = 1
		}
		gauge(behindDesc, float64(s.Lag), s.Kind, s.Name)
		gauge(lateDesc, s.LagSeconds, s.Kind, s.Name)
		gauge(parkedDesc, parked, s.Kind, s.Name)
		if s.Rebuild != nil {
			gauge(rebuildDesc, float64(s.Head-s.Rebuild.Position), s.Name, s.Rebuild.State)
		}
	}
}
