package dispatcher

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/outbound"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/tracing"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

const source = "/dispatcher"

// Sender makes the requests of attempts that are claimed. *outbound.Sender makes them itself; another may carry them to
// whoever does.
type Sender interface {
	// Send makes one request and gives what came of it. An error is not an outcome: outbound.ErrReturned says that the
	// request did not leave, and the claim is given back; any other, that nobody knows, and the claim's lease runs out.
	Send(ctx context.Context, r outbound.Request) (outbound.Outcome, error)
}

// Fleet is a Sender whose capacity comes and goes: it has others make the requests.
type Fleet interface {
	// Capacity is how many requests may be in flight now, over all targets, and in how many processes. A target's own limit
	// of concurrency counts for each.
	Capacity() (requests, processes int)
}

// Config is what a dispatcher works with.
type Config struct {
	DB     *sql.DB // with the projections on its search path
	Ledger *schema.Ledger
	Vault  *schema.Vault
	Sender Sender // makes the requests
	Now    func() time.Time
	Log    *slog.Logger
	Worker string // names this process in leases and attempts: host/pid

	// Moved gives a channel that closes when the queue may have changed; nil polls only.
	Moved func() <-chan struct{}
	// Concurrency bounds the requests in flight in this process, over all targets. 256 by default.
	Concurrency int
	// Drain is how long the requests in flight may take to end and be recorded once Run's context has ended. 30s by default.
	Drain time.Duration
	// Grace is how much longer than its target's timeout an attempt's lease lasts. 5s by default.
	Grace    time.Duration
	Registry prometheus.Registerer // nil: no metrics
	Tracer   *tracing.Tracer       // nil: no spans
}

// Dispatcher makes requests until its context ends.
type Dispatcher struct {
	Config
	versions *lru.Cache[version, targets.Target]
	current  *lru.Cache[int64, targets.Target] // by the position of the last event about it
	metrics  metrics
	reads    *schema.Prepared
	consents consents
	lanes    *lanes
	freed    chan struct{} // a request has ended
	requests sync.WaitGroup
	express  express
}

type version struct {
	handle string
	number int64
}

// Timing of the dispatcher.
const (
	pollInterval  = 200 * time.Millisecond // the safety net beneath wake-ups, and how late a retry may be noticed
	sweepInterval = time.Second
	paceInterval  = 50 * time.Millisecond // how often tokens are asked for, and how many may be taken at once
	giveBackAfter = 500 * time.Millisecond
	claimAtOnce   = 256 // claims in one round trip
)

// New makes a dispatcher.
func New(c Config) (*Dispatcher, error) {
	if c.Concurrency <= 0 {
		c.Concurrency = 256
	}
	if c.Grace <= 0 {
		c.Grace = 5 * time.Second
	}
	if c.Drain <= 0 {
		c.Drain = 30 * time.Second
	}
	versions, err := lru.New[version, targets.Target](1024)
	if err != nil {
		return nil, err
	}
	current, err := lru.New[int64, targets.Target](1024)
	if err != nil {
		return nil, err
	}
	d := &Dispatcher{Config: c, versions: versions, current: current, lanes: newLanes(c.Concurrency), reads: schema.NewPrepared(c.DB), freed: make(chan struct{}, 1)}
	d.consents.look = func(ctx context.Context, profiles []uuid.UUID) (consent.Known, error) {
		return consent.Look(ctx, d.reads, profiles)
	}
	d.metrics = newMetrics(d.lanes)
	return d, d.metrics.register(c.Registry)
}

// Run claims and sends until ctx ends, then waits for the requests in flight, each of which is recorded.
func (d *Dispatcher) Run(ctx context.Context) error {
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	d.express.open(working)
	var sweeping sync.WaitGroup
	sweeping.Go(func() { d.sweep(ctx) })
	if d.Registry != nil {
		sweeping.Go(func() { d.stand(ctx) })
	}
	claimer := queue.NewClaimer(d.DB)
	d.claimUntil(ctx, working, claimer)
	d.express.shut()
	claimer.Close()
	sweeping.Wait()

	drain := time.AfterFunc(d.Drain, func() {
		d.Log.WarnContext(ctx, "requests are still in flight; they are cut off, and count as lost when their leases run out", slog.Int("requests", d.lanes.inHand()))
		stop()
	})
	defer drain.Stop()
	d.requests.Wait()
	return nil
}

func (d *Dispatcher) claimUntil(ctx, working context.Context, claimer *queue.Claimer) {
	patience := backoff.NewExponentialBackOff()
	patience.InitialInterval, patience.MaxInterval = 50*time.Millisecond, 5*time.Second
	for ctx.Err() == nil {
		var moved <-chan struct{}
		if d.Moved != nil {
			moved = d.Moved()
		}
		n, paced, err := d.claim(ctx, working, claimer)
		switch {
		case err != nil && ctx.Err() == nil:
			d.Log.WarnContext(ctx, "claiming failed; trying again", slog.Any("error", err))
			d.wait(ctx, patience.NextBackOff(), nil)
			continue
		case n > 0 && !paced:
			patience.Reset()
			continue
		}
		patience.Reset()
		if paced { // tokens come back with time alone
			d.wait(ctx, paceInterval, nil)
			continue
		}
		d.wait(ctx, pollInterval, moved)
	}
}

// wait returns after a while, or when there may be something to claim.
func (d *Dispatcher) wait(ctx context.Context, longest time.Duration, moved <-chan struct{}) {
	timer := time.NewTimer(longest)
	defer timer.Stop()
	freed := d.freed
	if moved == nil || !d.express.anyWaiting() {
		freed = nil // nobody waits for it
	}
	select {
	case <-moved:
	case <-freed:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// claim takes what is due, as far as there is room, and starts the requests. It gives the number of claims, and whether
// a rate is all that keeps it from more.
func (d *Dispatcher) claim(ctx, working context.Context, claimer *queue.Claimer) (n int, paced bool, err error) {
	work, err := claimer.Work(ctx)
	if err != nil {
		return 0, false, err
	}
	wanted, plans, err := d.wanted(ctx, work)
	if err != nil {
		return 0, false, err
	}
	waiting := make(map[string]bool, len(work))
	for _, w := range work {
		waiting[w.Target] = true
	}
	defer func() { d.express.waiting(waiting) }()
	if len(wanted) == 0 {
		return 0, false, nil
	}
	claimed := d.Now()
	claims, err := claimer.Due(ctx, d.Worker, wanted)
	if err != nil {
		return 0, false, err
	}
	// From here on each claim must end in an event, or be given back. If this process dies, the lease's end sees to it.
	taken := map[string]int{}
	for _, c := range claims {
		taken[c.Planned.Target]++
	}
	paced = len(wanted) > 0
	for _, w := range wanted {
		paced = paced && w.Rate > 0
		if taken[w.Target] < w.Free {
			delete(waiting, w.Target) // that was all
		}
	}
	if len(claims) == 0 {
		return 0, paced, nil
	}
	d.lanes.enter(claims, func(target string) int { return plans[target].width })
	d.requests.Add(len(claims))
	go d.begin(working, claims, plans, claimed)
	return len(claims), paced, nil
}

// plan is what a claim round knows of a target.
type plan struct {
	work   queue.Work
	target targets.Target // as it is now
	width  int            // how many requests to it may be in flight
}

// wanted says how much more each target may take, the urgent first.
func (d *Dispatcher) wanted(ctx context.Context, work []queue.Work) ([]queue.Wanted, map[string]plan, error) {
	var wanted []queue.Wanted
	plans := make(map[string]plan, len(work))
	processes := 1
	fleet, elsewhere := d.Sender.(Fleet)
	if elsewhere {
		var requests int
		requests, processes = fleet.Capacity()
		if d.lanes.widen(requests); requests == 0 {
			return nil, nil, nil
		}
	}
	for _, w := range work {
		if w.Paused {
			continue
		}
		t, ok := d.current.Get(w.Position)
		if !ok {
			var err error
			if t, err = targets.Get(ctx, d.DB, w.Target); err != nil {
				return nil, nil, err
			}
			d.current.Add(t.Position, t)
		}
		if q := t.QuietHours; q != nil && q.ProfileZone == "" {
			if _, quiet := q.Until(d.Now(), ""); quiet {
				continue
			}
		}
		width := t.Limits.Concurrency * processes
		free := min(d.lanes.room(w.Target, width), claimAtOnce)
		if elsewhere { // each of them keeps to the limit; those that are on their way need no slot here
			width += d.lanes.ahead(w.Target, width)
		}
		probe := w.Cause == domain.PausedByFailures
		if probe {
			free = min(free, 1)
		}
		if free <= 0 {
			continue
		}
		plans[w.Target] = plan{work: w, target: t, width: width}
		next := queue.Wanted{Target: w.Target, Free: free, Lease: time.Duration(t.Retry.Timeout) + d.Grace, Probe: probe}
		if perSecond := t.Limits.Rate.PerSecond(); !math.IsInf(perSecond, 1) {
			next.Rate, next.Burst = perSecond, max(1, perSecond*paceInterval.Seconds())
		}
		wanted = append(wanted, next)
	}
	return wanted, plans, nil
}

// begin reads what the claims need, all of them at once, and starts their requests.
func (d *Dispatcher) begin(ctx context.Context, claims []queue.Claim, plans map[string]plan, claimed time.Time) {
	recorded := make([]domain.Recorded, len(claims))
	var profiles []uuid.UUID
	for i, c := range claims {
		recorded[i] = c.Planned
		if c.Planned.Subject != uuid.Nil {
			profiles = append(profiles, c.Planned.Subject)
		}
	}
	var opened []schema.Opened
	reading, _ := errgroup.WithContext(ctx)
	reading.Go(func() error { _, err := d.Vault.Sealer(ctx, append(profiles, schema.Nobody)); return err }) // for the answers, all at once
	var unopened error
	reading.Go(func() error { opened, unopened = d.Vault.OpenEvents(ctx, recorded); return nil })
	err := reading.Wait()
	if err == nil && schema.Transient(unopened) {
		err = unopened
	}
	switch {
	case err == nil && unopened == nil:
		for i, c := range claims {
			go d.deliver(ctx, job{Claim: c, plan: plans[c.Planned.Target], opened: opened[i], claimed: claimed})
		}
		return
	case err == nil && len(claims) > 1:
		for _, c := range claims { // one of them cannot be read; it fails none but itself
			d.begin(ctx, []queue.Claim{c}, plans, claimed)
		}
		return
	case err == nil:
		d.unreadable(ctx, claims[0], unopened)
	default:
		d.Log.WarnContext(ctx, "cannot read what was claimed; giving it back", slog.Any("error", err))
		d.wait(ctx, giveBackAfter, nil) // as long as they are in hand they are not claimed again
		d.release(ctx, claims...)
	}
	for _, c := range claims {
		d.end(c.Planned.Target)
	}
}

// unreadable ends a delivery whose planned request cannot be read.
func (d *Dispatcher) unreadable(ctx context.Context, c queue.Claim, cause error) {
	d.Log.ErrorContext(ctx, "a planned request cannot be read; it is not sent", slog.String("delivery", c.Planned.DeliveryID.String()), slog.Any("error", cause))
	d.record(ctx, c, domain.DeliveryAttempted{
		DeliveryID: c.Planned.DeliveryID, Target: c.Planned.Target, ProfileID: c.Planned.Subject, Attempt: c.Attempt, Worker: d.Worker,
		StartedAt: d.Now().UTC().Truncate(time.Microsecond), Verdict: domain.Permanent, Outcome: domain.Failed,
		Reason: "not sent: the planned request cannot be read; see the log, and run: dispatch-ledger verify",
	})
}

// release gives back claims whose requests never left. What cannot be given back counts as lost when its lease runs out.
func (d *Dispatcher) release(ctx context.Context, claims ...queue.Claim) {
	if err := queue.Release(ctx, d.DB, d.Worker, claims); err != nil {
		d.Log.WarnContext(ctx, "claims could not be given back; they count as lost when their leases run out", slog.Int("claims", len(claims)), slog.Any("error", err))
	}
}

func (d *Dispatcher) end(target string) {
	d.lanes.leave(target)
	d.requests.Done()
	select {
	case d.freed <- struct{}{}:
	default:
	}
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
