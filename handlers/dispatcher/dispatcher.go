package dispatcher

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

const source = "/dispatcher"

// Config is what a dispatcher works with.
type Config struct {
	DB     *sql.DB // with the projections on its search path
	Ledger *schema.Ledger
	Vault  *schema.Vault
	Client *http.Client // see NewClient
	Now    func() time.Time
	Log    *slog.Logger
	Worker string // names this process in leases and attempts: host/pid

	// Moved gives a channel that closes when the queue may have changed; nil polls only.
	Moved func() <-chan struct{}
	// Concurrency bounds the requests in flight in this process, over all targets. 256 by default.
	Concurrency int
	// Grace is how much longer than its target's timeout an attempt's lease lasts. 5s by default.
	Grace    time.Duration
	Registry prometheus.Registerer // nil: no metrics
}

// Dispatcher makes requests until its context ends.
type Dispatcher struct {
	Config
	versions *lru.Cache[version, targets.Target]
	metrics  metrics

	mu       sync.Mutex
	inFlight map[string]int // by target
	total    int
	freed    chan struct{} // a request has ended
	requests sync.WaitGroup
}

type version struct {
	handle string
	number int64
}

type metrics struct {
	attempts *prometheus.CounterVec
	seconds  prometheus.Histogram
	inFlight prometheus.GaugeFunc
	lost     prometheus.Counter
}

// Timing of the dispatcher.
const (
	pollInterval  = 200 * time.Millisecond // the safety net beneath wake-ups, and how late a retry may be noticed
	sweepInterval = time.Second
	claimAtOnce   = 128 // claims in one round trip
)

// New makes a dispatcher.
func New(c Config) (*Dispatcher, error) {
	if c.Concurrency <= 0 {
		c.Concurrency = 256
	}
	if c.Grace <= 0 {
		c.Grace = 5 * time.Second
	}
	cache, err := lru.New[version, targets.Target](1024)
	if err != nil {
		return nil, err
	}
	d := &Dispatcher{Config: c, versions: cache, inFlight: map[string]int{}, freed: make(chan struct{}, 1)}
	d.metrics = metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ledger_attempts_total", Help: "Attempts finished by this process, by verdict."}, []string{"verdict"}),
		seconds:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ledger_attempt_seconds", Help: "Time of one request.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 16)}),
		inFlight: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "ledger_attempts_in_flight", Help: "Requests in flight in this process."}, func() float64 {
			d.mu.Lock()
			defer d.mu.Unlock()
			return float64(d.total)
		}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{Name: "ledger_attempts_lost_total", Help: "Attempts recorded as lost: their worker died, their outcome is unknown."}),
	}
	if c.Registry != nil {
		c.Registry.MustRegister(d.metrics.attempts, d.metrics.seconds, d.metrics.inFlight, d.metrics.lost)
	}
	return d, nil
}

// Run claims and sends until ctx ends, then waits for the requests in flight, each of which is recorded.
func (d *Dispatcher) Run(ctx context.Context) error {
	defer d.requests.Wait()
	go d.sweep(ctx)
	patience := backoff.NewExponentialBackOff()
	patience.InitialInterval, patience.MaxInterval = 50*time.Millisecond, 5*time.Second
	for ctx.Err() == nil {
		var moved <-chan struct{}
		if d.Moved != nil {
			moved = d.Moved()
		}
		n, err := d.claim(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			d.Log.WarnContext(ctx, "claiming failed; trying again", slog.Any("error", err))
			d.wait(ctx, patience.NextBackOff(), nil)
			continue
		case n > 0:
			patience.Reset()
			continue
		}
		patience.Reset()
		d.wait(ctx, pollInterval, moved)
	}
	return nil
}

// wait returns after a while, or when there may be something to claim.
func (d *Dispatcher) wait(ctx context.Context, longest time.Duration, moved <-chan struct{}) {
	timer := time.NewTimer(longest)
	defer timer.Stop()
	select {
	case <-moved:
	case <-d.freed:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// claim takes what is due, as far as there is room, and starts the requests. It gives the number of claims.
func (d *Dispatcher) claim(ctx context.Context) (int, error) {
	wanted, err := d.wanted(ctx)
	if err != nil || len(wanted) == 0 {
		return 0, err
	}
	claimed := d.Now()
	claims, err := queue.Due(ctx, d.DB, d.Worker, wanted)
	if err != nil || len(claims) == 0 {
		return 0, err
	}
	// From here on each claim must end in an event. If this process dies, the lease's end sees to it.
	d.start(claims)
	recorded := make([]domain.Recorded, len(claims))
	profiles := make([]uuid.UUID, 0, len(claims))
	for i, c := range claims {
		recorded[i] = c.Planned
		if c.Planned.Subject != uuid.Nil {
			profiles = append(profiles, c.Planned.Subject)
		}
	}
	opened, err := d.Vault.OpenEvents(ctx, recorded)
	if err == nil {
		var views map[uuid.UUID]map[domain.Channel]domain.ConsentView
		if views, err = consent.Views(ctx, d.DB, profiles); err == nil {
			for i, c := range claims {
				go d.deliver(context.WithoutCancel(ctx), job{Claim: c, opened: opened[i], views: views[c.Planned.Subject], claimed: claimed})
			}
			return len(claims), nil
		}
	}
	// Nothing was sent. The leases run out and the attempts are recorded as lost, which errs on the side of doubt.
	for _, c := range claims {
		d.end(c.Planned.Target)
	}
	return 0, err
}

// wanted says how much more each target may take: the enabled ones by their limits, the deleted ones to be settled.
func (d *Dispatcher) wanted(ctx context.Context) ([]queue.Wanted, error) {
	d.mu.Lock()
	room := min(d.Concurrency-d.total, claimAtOnce)
	d.mu.Unlock()
	if room <= 0 {
		return nil, nil
	}
	busy, err := targets.WithWork(ctx, d.DB)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var wanted []queue.Wanted
	for _, t := range busy {
		free := t.Limits.Concurrency - d.inFlight[t.Handle]
		if t.State == "disabled" || free <= 0 {
			continue
		}
		wanted = append(wanted, queue.Wanted{Target: t.Handle, Free: min(free, max(1, room/len(busy))), Lease: time.Duration(t.Retry.Timeout) + d.Grace})
	}
	return wanted, nil
}

func (d *Dispatcher) start(claims []queue.Claim) {
	d.requests.Add(len(claims))
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range claims {
		d.inFlight[c.Planned.Target]++
		d.total++
	}
}

func (d *Dispatcher) end(target string) {
	d.mu.Lock()
	if d.inFlight[target]--; d.inFlight[target] == 0 {
		delete(d.inFlight, target)
	}
	d.total--
	d.mu.Unlock()
	d.requests.Done()
	select {
	case d.freed <- struct{}{}:
	default:
	}
}

// sweep records the attempts whose workers died, and drops the leases that nobody needs any more.
func (d *Dispatcher) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := d.sweepOnce(ctx); err != nil && ctx.Err() == nil {
			d.Log.WarnContext(ctx, "sweeping leases failed; trying again", slog.Any("error", err))
		}
	}
}

func (d *Dispatcher) sweepOnce(ctx context.Context) error {
	lost, err := queue.Expired(ctx, d.DB, 1000)
	if err != nil {
		return err
	}
	for _, l := range lost {
		t, err := d.version(ctx, l.Target, l.TargetVersion)
		if err != nil {
			return err
		}
		payload := domain.DeliveryAttemptLost{
			DeliveryID: l.DeliveryID, Target: l.Target, ProfileID: l.ProfileID, Attempt: l.Attempt, Worker: l.Worker, ClaimedAt: l.ClaimedAt,
		}
		payload.Outcome, payload.NextAttemptAt = t.Retry.After(l.Attempt, true, d.Now(), time.Time{})
		e, _, err := domain.New(attemptID(l.DeliveryID, l.Attempt), payload)
		if err != nil {
			return err
		}
		e.Actor, e.Source, e.CorrelationID, e.CausationID = d.Worker, source, l.CorrelationID, l.PlannedID
		_, err = d.Ledger.Append(ctx, e)
		switch {
		case errors.Is(err, schema.ErrIDReused): // its worker, or another sweeper, recorded it at this moment
		case err != nil:
			return err
		default:
			d.metrics.lost.Inc()
			d.Log.WarnContext(ctx, "attempt lost: its worker died, its outcome is unknown", slog.String("delivery", l.DeliveryID.String()), slog.Int("attempt", l.Attempt), slog.String("worker", l.Worker))
		}
	}
	return queue.Sweep(ctx, d.DB)
}

// attemptID is the id of the one event that ends an attempt. Whoever is first to record it is believed.
func attemptID(delivery uuid.UUID, attempt int) uuid.UUID {
	return domain.EventID(delivery, fmt.Sprintf("attempt-%d", attempt))
}

// version gives the version of a target that a delivery was planned with.
func (d *Dispatcher) version(ctx context.Context, handle string, number int64) (targets.Target, error) {
	key := version{handle, number}
	if t, ok := d.versions.Get(key); ok {
		return t, nil
	}
	t, err := targets.Version(ctx, d.DB, handle, number)
	if err != nil {
		return t, err
	}
	d.versions.Add(key, t)
	return t, nil
}
