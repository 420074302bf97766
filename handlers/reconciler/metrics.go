package reconciler

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what reconciliations in this process did, labelled by connection and class, of which there are a few. Where the
// platforms stand is told by standings.
type metrics struct {
	runs        *prometheus.CounterVec
	differences *prometheus.CounterVec
	pushed      *prometheus.CounterVec
	phases      *prometheus.CounterVec
	last        *prometheus.GaugeVec
}

func newMetrics() metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return metrics{
		runs:        counter("ledger_reconciliations_total", "Reconciliations that ended in this process.", "platform", "outcome"),
		differences: counter("ledger_reconciliation_differences_total", "Differences found by reconciliations in this process.", "platform", "class"),
		pushed:      counter("ledger_suppressions_pushed_total", "Changes that a platform answered to.", "platform", "intent", "status"),
		phases:      counter("ledger_reconciliation_phase_seconds_total", "Time that reconciliations in this process took, by what they were at.", "platform", "phase"),
		last:        prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "ledger_reconciliation_last_timestamp_seconds", Help: "When the last reconciliation in this process ended."}, []string{"platform"}),
	}
}

func (m metrics) register(r prometheus.Registerer) error {
	var errs []error
	for _, c := range []prometheus.Collector{m.runs, m.differences, m.pushed, m.phases, m.last} {
		errs = append(errs, r.Register(c))
	}
	return errors.Join(errs...)
}
