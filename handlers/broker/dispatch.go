package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/dispatcher"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/outbound"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// DispatchConfig is what a dispatcher without a database works with.
type DispatchConfig struct {
	Broker     Config
	Join       func(ctx context.Context) (schema.Fleet, error) // for a process that has the vault; nil: with Credential
	Credential Credential
	Sender     dispatcher.Sender // makes the requests: dispatcher.HTTP
	Name       string            // of this process, in the trail: host/pid
	Capacity   int               // requests at once; 256 by default
	Drain      time.Duration     // how long requests in flight may take to end once Run's context has ended; 30s by default
	Now        func() time.Time
	Log        *slog.Logger
	Registry   prometheus.Registerer // nil: no metrics
}

// Dispatcher takes jobs from the broker, sends them, and puts back what came of them. It has no connection to the ledger.
type Dispatcher struct {
	DispatchConfig
	broker  *Broker // for all but pulling jobs
	pulling *Broker // drained first
	keys    keys
	gate    *gate
	id      string // of this run, for taking batches
	put     message.Publisher
	returns *outbox[addressed]
	room    *semaphore.Weighted
	slots   slots
	sending sync.WaitGroup
	wake    chan struct{}
	metrics dispatchMetrics

	mu       sync.Mutex
	draining bool
}

// addressed is a result and the writer that waits for it.
type addressed struct {
	writer string
	result
}

// NewDispatcher connects and joins. It gives up with ErrNotJoined or ErrConfig, which waiting does not mend.
func NewDispatcher(ctx context.Context, c DispatchConfig) (*Dispatcher, error) {
	if c.Capacity <= 0 {
		c.Capacity = 256
	}
	if c.Drain <= 0 {
		c.Drain = 30 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Broker.Log = c.Log
	d := &Dispatcher{DispatchConfig: c, id: c.Name + "/" + uuid.NewString(), room: semaphore.NewWeighted(int64(c.Capacity)), wake: make(chan struct{}, 1)}
	var err error
	if d.metrics, err = newDispatchMetrics(c.Registry); err != nil {
		return nil, err
	}
	if d.broker, err = Connect(ctx, c.Broker); err != nil {
		return nil, err
	}
	if d.pulling, err = Connect(ctx, c.Broker); err != nil {
		d.broker.nc.Close()
		return nil, err
	}
	if d.put, err = d.broker.Publisher(); err != nil {
		return nil, err
	}
	d.gate = newGate(d.broker, &d.keys, d.id, c.Capacity, c.Now, d.renewSoon)
	d.returns = newOutbox(returnMost, returnFor, d.give)
	patience := backoff.NewExponentialBackOff()
	patience.MaxInterval = 5 * time.Second
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		err := d.admit(ctx)
		if errors.Is(err, ErrNotJoined) || errors.Is(err, ErrConfig) {
			err = backoff.Permanent(err)
		} else if err != nil {
			c.Log.WarnContext(ctx, "cannot join the fleet yet; trying again", slog.Any("error", err))
		}
		return struct{}{}, err
	}, backoff.WithBackOff(patience), backoff.WithMaxElapsedTime(0))
	if err == nil && c.Join != nil { // the writer in this process may not have come to it yet
		_, err = patiently(ctx, d.broker, "streams", func(ctx context.Context) (struct{}, error) { return struct{}{}, d.broker.Provision(ctx) })
	}
	if err != nil {
		d.broker.nc.Close()
		d.pulling.nc.Close()
		return nil, err
	}
	return d, nil
}

func (d *Dispatcher) admit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if d.Join != nil {
		fleet, err := d.Join(ctx)
		if err == nil {
			d.keys.set(fleet.Newest, fleet.Keys)
		}
		return err
	}
	_, _, err := d.broker.joinWith(ctx, d.Credential, &d.keys)
	return err
}

func (d *Dispatcher) renewSoon() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// renewInterval is how often a dispatcher asks for the keys although it lacks none.
const renewInterval = time.Minute

// renew asks for the keys when they are missing and now and then. A dispatcher whose token was revoked ends here.
func (d *Dispatcher) renew(ctx context.Context) error {
	ticker := time.NewTicker(renewInterval)
	defer ticker.Stop()
	for {
		select {
		case <-d.wake:
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		switch err := d.admit(ctx); {
		case errors.Is(err, ErrNotJoined):
			return err
		case err != nil && ctx.Err() == nil:
			d.Log.DebugContext(ctx, "asking for the fleet's keys", slog.Any("error", err))
		}
		select { // somebody who lacks a key asks with every message
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil
		}
	}
}

// Run sends until ctx ends, then waits for what is in flight and for its results to be with the cluster. An error is that
// it was told to leave the fleet.
func (d *Dispatcher) Run(ctx context.Context) error {
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	living, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()

	router, err := newRouter(d.Log)
	if err != nil {
		return err
	}
	listening, err := d.broker.subscriber(subscription{name: "fences", ahead: 256, consumer: d.broker.inOrder(deliverAll, d.broker.fence(), d.broker.tide())})
	if err != nil {
		return err
	}
	router.AddConsumerHandler("broker.gate", "fences", listening, d.gate.handle)
	for shard := range shards {
		lane, err := d.pulling.subscriber(d.pulling.jobsConsumer(shard))
		if err != nil {
			return err
		}
		router.AddConsumerHandler(fmt.Sprintf("broker.jobs.%d", shard), d.broker.jobs(shard), lane, d.handle)
	}
	var wg sync.WaitGroup
	wg.Go(func() { d.gate.run(living) })
	wg.Go(func() { d.returns.run(living) })
	wg.Go(func() {
		if err := d.renew(living); err != nil {
			leave(err)
		}
	})
	ran := make(chan error, 1)
	go func() { ran <- router.Run(living) }()
	select {
	case <-ctx.Done():
	case err := <-ran: // it could not begin, such as when the streams are not there yet
		end()
		wg.Wait()
		d.broker.nc.Close()
		d.pulling.nc.Close()
		return err
	}

	d.mu.Lock()
	d.draining = true
	d.mu.Unlock()
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.Drain)
	defer cancel()
	err = d.pulling.Close(ending)
	d.awaitSending(ending)
	end()
	wg.Wait()
	d.flush()
	err = errors.Join(err, d.broker.Close(ending), router.Close(), <-ran)
	if cause := context.Cause(ctx); errors.Is(cause, ErrNotJoined) {
		return errors.Join(cause, err)
	}
	return err
}

func (d *Dispatcher) awaitSending(ctx context.Context) {
	done := make(chan struct{})
	go func() { d.sending.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		d.Log.WarnContext(ctx, "requests are still in flight; they count as lost when their leases run out")
	}
}

// flush gives back what the outbox still holds.
func (d *Dispatcher) flush() {
	var rest []addressed
	for {
		select {
		case a := <-d.returns.in:
			rest = append(rest, a)
			continue
		default:
		}
		break
	}
	if len(rest) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		d.give(ctx, rest)
	}
}

// Ready reports why no request can begin at the moment: nil, or ErrStale.
func (d *Dispatcher) Ready() error { return d.gate.admit(0, nil) }

// handle takes a batch of jobs. The message is acknowledged once it is known whose the batch is; from then on its fate is in
// the starts, and what comes of its jobs in the results.
func (d *Dispatcher) handle(msg *message.Message) error {
	ctx := msg.Context()
	d.mu.Lock()
	draining := d.draining
	d.mu.Unlock()
	if draining {
		return errDraining
	}
	var b batch
	if _, err := d.keys.open("jobs", msg, &b); err != nil {
		d.renewSoon()
		return err // another, or this one with the key that it lacks, gets it
	}
	n := int64(min(len(b.Jobs), d.Capacity))
	if err := d.room.Acquire(ctx, n); err != nil {
		return err
	}
	if err := d.broker.take(ctx, b.ID, d.id); err != nil {
		d.room.Release(n)
		if errors.Is(err, errTaken) {
			d.metrics.passed.Inc()
			return nil
		}
		return err
	}
	d.sending.Add(len(b.Jobs))
	left := n
	var mu sync.Mutex
	for _, j := range b.Jobs {
		go func() {
			defer d.sending.Done()
			defer func() {
				mu.Lock()
				defer mu.Unlock()
				if left > 0 {
					left--
					d.room.Release(1)
				}
			}()
			d.returns.put(context.WithoutCancel(ctx), addressed{b.Writer, d.send(context.WithoutCancel(ctx), j)})
		}()
	}
	return nil
}

var errDraining = errors.New("this dispatcher is shutting down")

// send makes one request, if nothing that it depends on was withdrawn.
func (d *Dispatcher) send(ctx context.Context, j outbound.Request) result {
	r := result{DeliveryID: j.DeliveryID, Attempt: j.Attempt, Dispatcher: d.Name}
	arrived := d.Now()
	leave, ok := d.slots.enter(ctx, j.Target, j.Concurrency, slotPatience)
	if !ok {
		d.metrics.returned.Inc()
		r.Returned = "its target's slots were taken for too long"
		return r
	}
	defer leave()
	r.Waited = d.Now().Sub(arrived)
	if err := d.mayBegin(ctx, j); err != nil {
		d.metrics.returned.Inc()
		r.Returned = err.Error()
		return r
	}
	out, err := d.Sender.Send(ctx, j)
	if err != nil {
		r.Returned = err.Error()
		return r
	}
	d.metrics.attempts.WithLabelValues(string(out.Verdict.Kind)).Inc()
	r.Outcome = &out
	return r
}

// mayBegin asks the gate, and waits a moment for it to know.
func (d *Dispatcher) mayBegin(ctx context.Context, j outbound.Request) error {
	keys := keysOf(j)
	deadline := d.Now().Add(waitFresh)
	for {
		err := d.gate.admit(j.Known, keys)
		if !errors.Is(err, ErrStale) || d.Now().After(deadline) {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// give puts results back, and does not stop trying: the requests have left, and only this process knows what came of them.
func (d *Dispatcher) give(ctx context.Context, gathered []addressed) {
	byWriter := map[string][]result{}
	for _, a := range gathered {
		byWriter[a.writer] = append(byWriter[a.writer], a.result)
	}
	for writer, list := range byWriter {
		msg, err := d.keys.seal("results", "", results{Writer: writer, Results: list})
		if err != nil {
			d.Log.ErrorContext(ctx, "results cannot be sealed; their attempts count as lost", slog.Any("error", err))
			continue
		}
		d.sending.Add(1)
		go func() {
			defer d.sending.Done()
			patience := backoff.NewExponentialBackOff()
			patience.InitialInterval, patience.MaxInterval = 50*time.Millisecond, 2*time.Second
			_, err := backoff.Retry(context.WithoutCancel(ctx), func() (struct{}, error) {
				return struct{}{}, d.put.Publish(d.broker.results(), msg)
			}, backoff.WithBackOff(patience), backoff.WithMaxElapsedTime(15*time.Minute))
			if err != nil {
				d.Log.ErrorContext(ctx, "results could not be put back; their attempts count as lost", slog.Int("results", len(list)), slog.Any("error", err))
			}
		}()
	}
}
