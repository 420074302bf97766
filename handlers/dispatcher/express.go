package dispatcher

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/planner"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// express is the way of deliveries that nothing holds up: they are claimed in the transaction that plans them, and leave once
// it is committed. Neither the queue nor a second commit lies in between. Whatever has to wait its turn, for a limit or for
// what was there before it, goes by the queue.
type express struct {
	mu      sync.Mutex
	running bool
	working context.Context //nolint:containedctx // of the requests, since the dispatcher ran first
	queued  map[string]bool // targets for which something that is due was left in the queue when it was last looked at
	looked  bool            // whether it ever was

	claimed []job // by the planner's transaction at hand, which is one at a time
}

var _ planner.Express = (*Dispatcher)(nil)

func (e *express) open(working context.Context) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running, e.working = true, working
}

func (e *express) shut() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running = false
}

func (e *express) waiting(targets map[string]bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.queued, e.looked = targets, true
}

// anyWaiting reports whether something that is due was left in the queue, as far as is known.
func (e *express) anyWaiting() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.looked || len(e.queued) > 0
}

// begin gives the targets that nothing waits for; ok says that requests are made at all. If so, the function it was given is
// called before a stopping dispatcher counts the requests that it waits for.
func (e *express) begin(count func()) (queued map[string]bool, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.running || !e.looked {
		return nil, false
	}
	count()
	return e.queued, true
}

func (e *express) add(claimed []job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.claimed = append(e.claimed, claimed...)
}

// take gives what was claimed since it was last asked, and the context of its requests.
func (e *express) take() (working context.Context, claimed []job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	claimed, e.claimed = e.claimed, nil
	return e.working, claimed
}

// Claim claims what may leave as soon as it is planned: what is due at once, in no order, of a target without a rate for
// which nothing waits and that has room. A dispatcher whose requests others make claims nothing.
func (d *Dispatcher) Claim(ctx context.Context, tx schema.Querier, planned []planner.Planned) error {
	if _, fleet := d.Sender.(Fleet); fleet || len(planned) == 0 {
		return nil
	}
	queued, ok := d.express.begin(func() { d.requests.Add(1) })
	if !ok {
		return nil
	}
	defer d.requests.Done()
	room, width := map[string]int{}, map[string]int{}
	var fresh []queue.Fresh
	var of []planner.Planned
	for _, p := range planned {
		t := p.With
		if _, known := room[t.Handle]; !known && !queued[t.Handle] && math.IsInf(t.Limits.Rate.PerSecond(), 1) {
			room[t.Handle] = d.lanes.room(t.Handle, t.Limits.Concurrency)
		}
		if !p.DueAt.IsZero() || p.Ordered || room[t.Handle] <= 0 {
			continue
		}
		room[t.Handle]--
		width[t.Handle] = t.Limits.Concurrency
		fresh = append(fresh, queue.Fresh{Planned: p.Recorded, Until: p.ExpiresAt, Lease: time.Duration(t.Retry.Timeout) + d.Grace})
		of = append(of, p)
	}
	if len(fresh) == 0 {
		return nil
	}
	claimed := d.Now()
	claims, err := queue.ClaimFresh(ctx, tx, d.Worker, fresh)
	if err != nil || len(claims) == 0 {
		return err
	}
	byID := make(map[uuid.UUID]planner.Planned, len(of))
	for _, p := range of {
		byID[p.Recorded.DeliveryID] = p
	}
	jobs := make([]job, 0, len(claims))
	for _, c := range claims {
		p := byID[c.Planned.DeliveryID]
		// Read from what is recorded, as everybody else will: that is what is sent.
		payload, err := domain.Decode(p.Type, p.Data, p.Secret)
		if err != nil {
			return err
		}
		jobs = append(jobs, job{
			Claim: c, opened: schema.Opened{Recorded: p.Recorded, Payload: payload}, claimed: claimed,
			plan: plan{work: queue.Work{Target: p.With.Handle, State: p.With.State, Version: p.With.Version, Position: p.With.Position}, target: p.With, width: p.With.Limits.Concurrency},
		})
	}
	d.lanes.enter(claims, func(target string) int { return width[target] })
	d.requests.Add(len(claims))
	d.express.add(jobs)
	return nil
}

// Ended sends what was claimed, if its transaction was committed.
func (d *Dispatcher) Ended() {
	if ctx, jobs := d.express.take(); len(jobs) > 0 {
		go d.depart(ctx, jobs)
	}
}

// depart starts the requests of claims that hold. Those that do not were never made: their transaction came to nothing.
func (d *Dispatcher) depart(ctx context.Context, jobs []job) {
	claims := make([]queue.Claim, len(jobs))
	for i, j := range jobs {
		claims[i] = j.Claim
	}
	standing, err := queue.Standing(ctx, d.reads, d.Worker, claims)
	if err != nil {
		d.Log.WarnContext(ctx, "cannot tell whether claims hold; giving them back", slog.Int("claims", len(claims)), slog.Any("error", err))
		d.release(ctx, claims...)
	}
	holds := make(map[uuid.UUID]bool, len(standing))
	for _, c := range standing {
		holds[c.Planned.DeliveryID] = true
	}
	for _, j := range jobs {
		if holds[j.Planned.DeliveryID] {
			delete(holds, j.Planned.DeliveryID) // should one delivery be there twice, it is sent once
			go d.deliver(ctx, j)
			continue
		}
		d.end(j.Planned.Target)
	}
}
