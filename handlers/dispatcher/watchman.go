package dispatcher

import (
	"context"
	"log/slog"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/planner"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
)

const (
	watchInterval = 5 * time.Second
	watchShare    = 200             // it looks at the queue for no more than one part in so many of the time: a look takes longer the more is queued
	silentFor     = 5 * time.Minute // before the log says so; whoever wants to hear of it sooner alerts on the metric
)

// stand watches the queue as a whole, and says when firings come in and nothing goes out.
func (d *Dispatcher) stand(ctx context.Context) {
	var told time.Time
	for {
		began := d.Now()
		s, err := queue.StateOf(ctx, d.DB, planner.Name)
		switch {
		case err != nil && ctx.Err() == nil:
			d.Log.WarnContext(ctx, "the queue cannot be read; its metrics are old", slog.Any("error", err))
		case err == nil:
			d.metrics.show(s)
			if s.Silent >= silentFor && d.Now().Sub(told) >= silentFor {
				told = d.Now()
				d.Log.WarnContext(ctx, "silence: deliveries wait and nothing goes out", slog.Duration("for", s.Silent.Round(time.Second)), slog.Int("due", s.Due), slog.Int("held", s.Held))
			}
		}
		d.wait(ctx, max(watchInterval, watchShare*d.Now().Sub(began)), nil)
		if ctx.Err() != nil {
			return
		}
	}
}

// show puts the state of the queue where it is scraped.
func (m metrics) show(s queue.State) {
	m.queue.WithLabelValues("queued").Set(float64(s.Queued))
	m.queue.WithLabelValues("due").Set(float64(s.Due))
	m.queue.WithLabelValues("held").Set(float64(s.Held))
	for _, cause := range []string{domain.PausedByLimit, domain.PausedByFailures, domain.PausedByOperator} {
		m.paused.WithLabelValues(cause).Set(float64(s.Paused[cause]))
	}
	m.silence.Set(s.Silent.Seconds())
}
