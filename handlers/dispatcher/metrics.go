package dispatcher

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics have labels of few values: a target's handle is none of them, because targets come and go.
type metrics struct {
	attempts *prometheus.CounterVec
	seconds  prometheus.Histogram
	handing  prometheus.Histogram
	inFlight prometheus.GaugeFunc
	lost     prometheus.Counter
	expired  prometheus.Counter
	pauses   *prometheus.CounterVec
	lastSent prometheus.Gauge
	queue    *prometheus.GaugeVec
	paused   *prometheus.GaugeVec
	silence  prometheus.Gauge
}

func newMetrics(l *lanes) metrics {
	return metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ledger_attempts_total", Help: "Attempts finished by this process, by verdict."}, []string{"verdict"}),
		seconds:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ledger_attempt_seconds", Help: "Time of one request.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 16)}),
		handing: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ledger_handover_seconds", Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
			Help: "Time that a delivery was in hand besides its request and its waiting for a slot of its target: the way to who sends it and back, and the record.",
		}),
		inFlight: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "ledger_attempts_in_hand", Help: "Claims of this process that are being sent or are about to be."}, func() float64 { return float64(l.inHand()) }),
		lost:     prometheus.NewCounter(prometheus.CounterOpts{Name: "ledger_attempts_lost_total", Help: "Attempts recorded as lost: their worker died, their outcome is unknown."}),
		expired:  prometheus.NewCounter(prometheus.CounterOpts{Name: "ledger_deliveries_expired_total", Help: "Deliveries whose time passed before they were sent."}),
		pauses:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ledger_target_pauses_total", Help: "Pauses of targets that this process recorded, by cause."}, []string{"cause"}),
		lastSent: prometheus.NewGauge(prometheus.GaugeOpts{Name: "ledger_last_accepted_timestamp_seconds", Help: "When a platform last accepted something. With firings coming in, an old value is silence: alert on it."}),
		queue:    prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "ledger_queue_deliveries", Help: "Deliveries still to be sent, over all processes: all that are queued, of those what is due, and what a pause holds."}, []string{"what"}),
		paused:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "ledger_targets_paused", Help: "Targets that are paused, by cause."}, []string{"cause"}),
		silence:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "ledger_silence_seconds", Help: "How long something has waited to go out without anything going out; 0 when nothing waits. Alert on it."}),
	}
}

func (m metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{m.attempts, m.seconds, m.handing, m.inFlight, m.lost, m.expired, m.pauses, m.lastSent, m.queue, m.paused, m.silence} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}
