package broker

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/dispatcher"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/outbound"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// WriterConfig is what a writer works with.
type WriterConfig struct {
	Broker   Config
	DB       *sql.DB
	Vault    *schema.Vault
	Tokens   *schema.Tokens
	Intake   *intake.Service
	Limits   intake.Limits
	Adopt    func(ctx context.Context, delivery uuid.UUID, attempt int, o outbound.Outcome) error // dispatcher.Dispatcher's
	Now      func() time.Time
	Log      *slog.Logger
	Registry prometheus.Registerer
}

// Writer is a process with a connection to the ledger: it records what comes on the streams, and has claimed deliveries sent
// by the dispatchers that joined. It is the dispatcher.Sender of its claims. Any number of writers may run.
type Writer struct {
	WriterConfig
	broker  *Broker
	db      *sql.DB
	vault   *schema.Vault
	now     func() time.Time
	keys    keys
	pump    *pump
	id      string
	put     message.Publisher
	jobs    *outbox[outbound.Request]
	metrics writerMetrics

	mu      sync.Mutex
	waiting map[attemptKey]chan<- handed
}

// handed is a result on its way to whoever waits for it. recorded is called once the ledger has it.
type handed struct {
	result
	recorded func()
}

var _ dispatcher.Sender = (*Writer)(nil)

// NewWriter connects, makes the streams and reads the fleet's keys.
func NewWriter(ctx context.Context, c WriterConfig) (*Writer, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Broker.Log = c.Log
	w := &Writer{WriterConfig: c, db: c.DB, vault: c.Vault, now: c.Now, id: uuid.NewString(), waiting: map[attemptKey]chan<- handed{}}
	fleet, err := schema.Patiently(ctx, c.Vault.Fleet)
	if err != nil {
		return nil, err
	}
	w.keys.set(fleet.Newest, fleet.Keys)
	if w.broker, err = Connect(ctx, c.Broker); err != nil {
		return nil, err
	}
	w.pump = newPump(w.broker, c.DB, c.Vault, &w.keys, c.Now)
	w.metrics, err = newWriterMetrics(c.Registry, func() float64 { _, n := w.pump.capacity(); return float64(n) })
	if err == nil {
		w.put, err = w.broker.Publisher()
	}
	if err == nil {
		_, err = patiently(ctx, w.broker, "streams", func(ctx context.Context) (struct{}, error) { return struct{}{}, w.broker.Provision(ctx) })
	}
	if err != nil {
		w.broker.nc.Close()
		return nil, err
	}
	w.jobs = newOutbox(gatherMost*shards, gatherFor, w.publish)
	return w, nil
}

// Fences is the subscription by which the writer broadcasts withdrawals; it belongs with the other readers of the ledger.
func (w *Writer) Fences(ctx context.Context) (projections.Live, error) {
	head, err := schema.Patiently(ctx, func(ctx context.Context) (int64, error) { return schema.Head(ctx, w.db) })
	if err != nil {
		return projections.Live{}, err
	}
	return projections.Live{Subscription: w.pump.subscription(head), Handle: w.pump.handle}, nil
}

// Capacity is how many requests the dispatchers that are alive take at once, and how many they are.
func (w *Writer) Capacity() (requests, dispatchers int) { return w.pump.capacity() }

// Run takes events and results in until ctx ends. The claims that wait for their results should have ended before.
func (w *Writer) Run(ctx context.Context) error {
	router, err := newRouter(w.Log)
	if err != nil {
		return err
	}
	add := func(name, topic string, s subscription, handle message.NoPublishHandlerFunc) {
		sub, subErr := w.broker.subscriber(s)
		if subErr != nil {
			err = errors.Join(err, subErr)
			return
		}
		router.AddConsumerHandler(name, topic, sub, handle)
	}
	take := w.taken(w.Intake, w.Limits, w.put)
	for i := range intakeReaders {
		add(fmt.Sprintf("broker.events.%d", i), "events", w.broker.eventsConsumer(), take)
	}
	for i := range resultReaders {
		add(fmt.Sprintf("broker.results.%d", i), "results", w.broker.resultsConsumer(), w.back)
	}
	add("broker.marks", "fences", subscription{name: "marks", ahead: 64, consumer: w.broker.inOrder(jetstream.DeliverNewPolicy, w.broker.mark())}, w.pump.marked)
	if err != nil {
		return err
	}
	if err := w.relay(ctx); err != nil {
		return err
	}
	if err := (&porter{broker: w.broker, tokens: w.Tokens, vault: w.vault}).open(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	living, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var wg sync.WaitGroup
	wg.Go(func() { w.pump.run(living) })
	wg.Go(func() { w.jobs.run(living) })
	wg.Go(func() { w.refresh(living) })
	ran := make(chan error, 1)
	go func() { ran <- router.Run(living) }()
	select {
	case <-ctx.Done():
	case err = <-ran:
		ran <- nil
	}
	const patience = 30 * time.Second
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	err = errors.Join(err, w.broker.Close(ending))
	end()
	wg.Wait()
	return errors.Join(err, router.Close(), <-ran)
}

// resultReaders is how many messages of results are recorded at once.
const resultReaders = 8

// keysInterval is how soon a writer knows of a key that another has made, and how old a key may become.
const (
	keysInterval = 2 * time.Second
	keyAge       = 24 * time.Hour
)

// refresh keeps the fleet's keys: those that other writers made, and a new one each day.
func (w *Writer) refresh(ctx context.Context) {
	ticker := time.NewTicker(keysInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		fleet, err := w.vault.Fleet(ctx)
		if err == nil && w.now().Sub(fleet.Newest.CreatedAt) > keyAge {
			fleet, err = w.vault.RotateFleet(ctx, fleet.Newest.Epoch)
		}
		if err != nil {
			w.Log.DebugContext(ctx, "reading the fleet's keys", slog.Any("error", err))
			continue
		}
		w.keys.set(fleet.Newest, fleet.Keys)
	}
}

// Send hands the request to a dispatcher and waits for what came of it. It is dispatcher.Sender.
func (w *Writer) Send(ctx context.Context, r outbound.Request) (outbound.Outcome, error) {
	answer := make(chan handed, 1)
	w.mu.Lock()
	w.waiting[keyOf(r)] = answer
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.waiting, keyOf(r))
		w.mu.Unlock()
		select {
		case late := <-answer: // it came as the waiting ended
			go w.adoptLate(context.WithoutCancel(ctx), late)
		default:
		}
	}()
	if !w.jobs.put(ctx, r) {
		return outbound.Outcome{}, fmt.Errorf("%w: %w", outbound.ErrReturned, ctx.Err())
	}
	longest := time.NewTimer(r.Timeout + LeaseGrace)
	defer longest.Stop()
	select {
	case h := <-answer:
		if h.Outcome == nil {
			h.recorded()
			return outbound.Outcome{}, fmt.Errorf("%w: %s", outbound.ErrReturned, h.Returned)
		}
		h.Outcome.Recorded, h.Outcome.Waited = h.recorded, h.Waited
		return *h.Outcome, nil
	case <-longest.C:
		return outbound.Outcome{}, errors.New("no dispatcher has told what came of it")
	case <-ctx.Done():
		return outbound.Outcome{}, ctx.Err()
	}
}

// adoptLate records a result that nobody waits for any more. Where that fails, the message that brought it comes again.
func (w *Writer) adoptLate(ctx context.Context, h handed) {
	ctx, cancel := context.WithTimeout(ctx, relayPatience)
	defer cancel()
	if h.Outcome != nil {
		if err := w.Adopt(ctx, h.DeliveryID, h.Attempt, *h.Outcome); err != nil {
			w.Log.WarnContext(ctx, "a late result could not be recorded; it comes again", slog.Any("error", err))
			return
		}
	}
	h.recorded()
}

// publish puts gathered jobs on the queue, a message for each lane.
func (w *Writer) publish(ctx context.Context, gathered []outbound.Request) {
	lanes := map[int][]outbound.Request{}
	for _, j := range gathered {
		s := shardOf(j.Target)
		lanes[s] = append(lanes[s], j)
	}
	_, dispatchers := w.pump.capacity()
	for shard, list := range lanes {
		each := (len(list) + dispatchers - 1) / max(1, dispatchers) // a batch is one dispatcher's: the others have something to do too
		for len(list) > 0 {
			n := min(len(list), gatherMost, max(1, list[0].Concurrency), max(1, each)) // who takes it can send so many of it at once
			b := batch{ID: uuid.NewString(), Writer: w.id, Jobs: list[:n]}
			list = list[n:]
			go w.carry(context.WithoutCancel(ctx), shard, b)
		}
	}
}

// carry publishes a batch and watches over it: one that nobody takes in time is taken back, so that no dispatcher begins it
// any more and its claims can be given back.
func (w *Writer) carry(ctx context.Context, shard int, b batch) {
	msg, err := w.keys.seal("jobs", b.ID, b)
	if err == nil {
		err = w.put.Publish(w.broker.jobs(shard), msg)
	}
	if err != nil {
		w.Log.WarnContext(ctx, "jobs could not be put on the queue", slog.Int("jobs", len(b.Jobs)), slog.Any("error", err))
	} else {
		timer := time.NewTimer(takePatience)
		defer timer.Stop()
		<-timer.C
	}
	if !w.anyWaits(b) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	switch err := w.broker.take(ctx, b.ID, w.id); {
	case err == nil:
		w.metrics.back.Inc()
		for _, j := range b.Jobs {
			w.hand(handed{result: result{DeliveryID: j.DeliveryID, Attempt: j.Attempt, Returned: "no dispatcher took it in time"}, recorded: func() {}})
		}
	case !errors.Is(err, errTaken): // their leases decide
		w.Log.WarnContext(ctx, "it is not known whether jobs were taken", slog.Any("error", err))
	}
}

func (w *Writer) anyWaits(b batch) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, j := range b.Jobs {
		if _, ok := w.waiting[keyOf(j)]; ok {
			return true
		}
	}
	return false
}

// hand gives a result to whoever waits for it in this process, and reports whether somebody does.
func (w *Writer) hand(h handed) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	answer, ok := w.waiting[h.key()]
	if ok {
		delete(w.waiting, h.key())
		answer <- h
	}
	return ok
}

// back takes a message of results in and acknowledges it once the ledger has all of them: those that somebody here waits
// for, by him; those of another writer, by asking it; and those of one that died, here.
func (w *Writer) back(msg *message.Message) error {
	var r results
	epoch, err := w.keys.open("results", msg, &r)
	if errors.Is(err, errSealed) && epoch > w.keys.epoch() {
		return err // of a key that this writer is about to read
	}
	if err != nil {
		w.Log.WarnContext(msg.Context(), "results that no member of the fleet has sealed are dropped", slog.Any("error", err))
		return nil
	}
	if r.Writer != w.id && w.askOther(msg.Context(), r.Writer, msg) {
		return nil
	}
	return w.settle(msg.Context(), r)
}

func (w *Writer) settle(ctx context.Context, r results) error {
	var recorded sync.WaitGroup
	var errs []error
	for _, one := range r.Results {
		recorded.Add(1)
		if w.hand(handed{one, sync.OnceFunc(recorded.Done)}) {
			continue
		}
		if one.Outcome != nil {
			w.metrics.adopted.Inc()
			errs = append(errs, w.Adopt(ctx, one.DeliveryID, one.Attempt, *one.Outcome))
		}
		recorded.Done()
	}
	done := make(chan struct{})
	go func() { recorded.Wait(); close(done) }()
	select {
	case <-done:
		return errors.Join(errs...)
	case <-ctx.Done():
		return errors.Join(append(errs, ctx.Err())...)
	}
}

// relay lets other writers hand over results that this one waits for.
func (w *Writer) relay(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	_, err := w.broker.nc.Subscribe(w.broker.prefix+"writer."+w.id, func(m *nats.Msg) {
		go func() {
			msg := message.NewMessage("", m.Data)
			msg.Metadata.Set(epochHeader, m.Header.Get(epochHeader))
			var r results
			if _, err := w.keys.open("results", msg, &r); err != nil {
				return
			}
			limited, cancel := context.WithTimeout(ctx, relayPatience)
			defer cancel()
			answer, err := json.Marshal(w.settle(limited, r) == nil)
			if err != nil {
				return
			}
			if err := m.Respond(answer); err != nil {
				w.Log.DebugContext(ctx, "answer to another writer", slog.Any("error", err))
			}
		}()
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return nil
}

const relayPatience = 20 * time.Second

// askOther hands results to the writer that waits for them. It reports false when that one is gone.
func (w *Writer) askOther(ctx context.Context, writer string, msg *message.Message) bool {
	ctx, cancel := context.WithTimeout(ctx, relayPatience)
	defer cancel()
	m := nats.NewMsg(w.broker.prefix + "writer." + writer)
	m.Data = msg.Payload
	m.Header.Set(epochHeader, msg.Metadata.Get(epochHeader))
	answer, err := w.broker.nc.RequestMsgWithContext(ctx, m)
	var recorded bool
	return err == nil && json.Unmarshal(answer.Data, &recorded) == nil && recorded
}
