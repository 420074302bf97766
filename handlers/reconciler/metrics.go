package reconciler

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are labelled by connection and class, of which there are a few.
type metrics struct {
	runs        *prometheus.CounterVec
	differences *prometheus.CounterVec
	pushed      *prometheus.CounterVec
	unconfirmed *prometheus.GaugeVec
	oldest      *prometheus.GaugeVec
	open        *prometheus.GaugeVec
	waiting     *prometheus.GaugeVec
	phases      *prometheus.CounterVec
	coverage    *prometheus.GaugeVec
	last        *prometheus.GaugeVec
}

func newMetrics() metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"platform"})
	}
	return metrics{
		runs:        counter("ledger_reconciliations_total", "Reconciliations that ended in this process.", "platform", "outcome"),
		differences: counter("ledger_reconciliation_differences_total", "Differences found by reconciliations in this process.", "platform", "class"),
		pushed:      counter("ledger_suppressions_pushed_total", "Changes that a platform answered to.", "platform", "intent", "status"),
		phases:      counter("ledger_reconciliation_phase_seconds_total", "Time that reconciliations in this process took, by what they were at.", "platform", "phase"),
		unconfirmed: gauge("ledger_suppressions_unconfirmed", "Opt-outs written to a platform and not read back yet."),
		oldest:      gauge("ledger_suppressions_oldest_unconfirmed_seconds", "Age of the oldest opt-out that a platform has not confirmed; 0 when there is none."),
		open:        gauge("ledger_findings_open", "Differences that wait for a person."),
		waiting:     gauge("ledger_suppressions_waiting", "Changes that wait to be written to a platform."),
		coverage:    gauge("ledger_reconciliation_coverage_ratio", "Share of our addresses that the platform knew when it was last read whole."),
		last:        gauge("ledger_reconciliation_last_timestamp_seconds", "When the last reconciliation ended."),
	}
}

func (m metrics) register(r prometheus.Registerer) error {
	var errs []error
	for _, c := range []prometheus.Collector{m.runs, m.differences, m.pushed, m.phases, m.unconfirmed, m.oldest, m.open, m.waiting, m.coverage, m.last} {
		errs = append(errs, r.Register(c))
	}
	return errors.Join(errs...)
}
