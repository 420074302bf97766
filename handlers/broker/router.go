package broker

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
)

const deliverAll = jetstream.DeliverAllPolicy

// newRouter is Watermill's router. A handler that panics fails its message and no more.
func newRouter(log *slog.Logger) (*message.Router, error) {
	r, err := message.NewRouter(message.RouterConfig{CloseTimeout: 30 * time.Second}, watermill.NewSlogLoggerWithLevelMapping(log, map[slog.Level]slog.Level{
		slog.LevelError: slog.LevelDebug, slog.LevelInfo: slog.LevelDebug - 4, // a handler's error is a message that comes again
	}))
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	r.AddMiddleware(middleware.Recoverer)
	return r, nil
}

// dispatchMetrics are a dispatcher's.
type dispatchMetrics struct {
	attempts *prometheus.CounterVec
	returned prometheus.Counter
	passed   prometheus.Counter
}

func newDispatchMetrics(r prometheus.Registerer) (dispatchMetrics, error) {
	m := dispatchMetrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ledger_broker_attempts_total", Help: "Requests that this dispatcher made, by verdict."}, []string{"verdict"}),
		returned: prometheus.NewCounter(prometheus.CounterOpts{Name: "ledger_broker_returned_total", Help: "Jobs sent back unsent: withdrawn since they were claimed, or this dispatcher was cut off."}),
		passed:   prometheus.NewCounter(prometheus.CounterOpts{Name: "ledger_broker_passed_total", Help: "Batches of jobs that another dispatcher had taken already."}),
	}
	return m, register(r, m.attempts, m.returned, m.passed)
}

// writerMetrics are a writer's.
type writerMetrics struct {
	rejected prometheus.Counter
	adopted  prometheus.Counter
	back     prometheus.Counter
	fleet    prometheus.GaugeFunc
}

func newWriterMetrics(r prometheus.Registerer, dispatchers func() float64) (writerMetrics, error) {
	m := writerMetrics{
		rejected: prometheus.NewCounter(prometheus.CounterOpts{Name: "ledger_broker_rejected_total", Help: "Messages on the stream of events that are no events and were put aside."}),
		adopted:  prometheus.NewCounter(prometheus.CounterOpts{Name: "ledger_broker_adopted_total", Help: "Results recorded for a writer that had died."}),
		back:     prometheus.NewCounter(prometheus.CounterOpts{Name: "ledger_broker_taken_back_total", Help: "Batches of jobs that no dispatcher took in time."}),
		fleet:    prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "ledger_broker_dispatchers", Help: "Dispatchers that this writer hears."}, dispatchers),
	}
	return m, register(r, m.rejected, m.adopted, m.back, m.fleet)
}

func register(r prometheus.Registerer, all ...prometheus.Collector) error {
	if r == nil {
		return nil
	}
	for _, c := range all {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("broker: %w", err)
		}
	}
	return nil
}
