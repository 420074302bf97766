package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/broker"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/dispatcher"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/outbound"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/planner"
	_ "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/all" // the platforms that targets may name
	"github.com/dispatch-ledger/dispatch-ledger/handlers/reconciler"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/tracing"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// workerOptions say how a process works on the ledger.
type workerOptions struct {
	allowed     []netip.Prefix // networks that targets may reach besides the public ones
	variables   map[string]any // constants that templates may name
	environment string         // selects among those that targets have
	publicURL   string         // where links in messages lead; empty: templates that ask for one fail
	concurrency int
	grace       time.Duration
	outside     outside
	drain       time.Duration
	tracer      *tracing.Tracer     // nil: no spans
	broker      *broker.Config      // by which dispatchers are reached; nil: this process dispatches
	reconciler  *reconciler.Service // nil: the platforms' lists are left to another process
}

// liveSlice is the largest slice of a live projection: short transactions, and still fast when catching up.
const liveSlice = 20_000

// rebuildsAtOnce bounds what rebuilding takes from the service that goes on meanwhile.
const rebuildsAtOnce = 2

// work keeps the projections, plans, dispatches and grows the tree until ctx ends, then lets what has begun end.
func (st *store) work(ctx context.Context, o workerOptions) error {
	hot, err := st.connect("dispatch-ledger work", true)
	if err != nil {
		return err
	}
	defer hot.Close()
	topic, err := schema.OpenTopic(hot, st.ledger, st.url, schema.Options{Name: st.settings.name}, st.log)
	if err != nil {
		return err
	}
	defer topic.Close()
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 30 * time.Second}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	plan, err := planner.New(st.ledger, st.vault, time.Now, o.variables, st.log)
	if err != nil {
		return err
	}
	plan.Address, err = schema.Patiently(ctx, func(ctx context.Context) (func(domain.Link) (string, error), error) {
		return st.addresses(ctx, o.publicURL)
	})
	if err != nil {
		return err
	}
	plan.Environment, plan.Tracer, plan.Reads = o.environment, o.tracer, schema.NewPrepared(hot)
	readers := append(st.engine.Live(liveSlice),
		projections.Live{Subscription: plan.Subscription(), Handle: plan.Handle},
		projections.Live{Subscription: schema.TreeSubscription, Handle: schema.GrowTree})
	c := dispatcher.Config{
		DB: hot, Ledger: st.ledger, Vault: st.vault, Now: time.Now, Log: st.log,
		Worker: workerName(), Moved: func() <-chan struct{} { return topic.Moved(queue.Definition.SubscriptionName()) },
		Concurrency: o.concurrency, Grace: o.grace, Drain: o.drain, Registry: st.registry, Tracer: o.tracer,
	}
	var carry *broker.Writer
	if o.broker == nil {
		c.Sender = outbound.New(outbound.NewClient(outbound.Options{Allowed: o.allowed}), time.Now)
	} else {
		if carry, err = st.writer(ctx, *o.broker); err != nil {
			return err
		}
		fences, err := carry.Fences(ctx)
		if err != nil {
			return err
		}
		readers = append(readers, fences)
		c.Sender, c.Grace = carry, max(o.grace, broker.LeaseGrace)
	}
	if o.reconciler != nil {
		readers = append(readers, projections.Live{Subscription: o.reconciler.Subscription(), Handle: o.reconciler.Watch})
	}
	for _, r := range readers {
		if err := projections.AddTo(ctx, router, topic, r.Subscription, r.Handle); err != nil {
			if ctx.Err() != nil {
				return nil // asked to stop before it began
			}
			return err
		}
	}
	send, err := dispatcher.New(c)
	if err != nil {
		return err
	}
	plan.Express = send
	sign, err := schema.Patiently(ctx, st.checkpointer)
	if err != nil {
		return err
	}
	stamp, err := o.outside.join(st, sign)
	if err != nil {
		return err
	}
	keep, err := st.keeper()
	if err != nil {
		return err
	}
	if _, err := schema.Patiently(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, st.askOutdated(ctx) }); err != nil {
		return err
	}

	var wg sync.WaitGroup
	errs := make(chan error, 5)
	// The dispatcher ends first: what it records then is still projected.
	routing, stopRouting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRouting()
	wg.Go(func() { errs <- router.Run(routing) })
	wg.Go(func() { errs <- sign.Run(ctx) })
	if stamp != nil {
		wg.Go(func() { stamp.Run(ctx) })
	}
	wg.Go(func() { keep.Run(ctx) })
	if o.reconciler != nil {
		wg.Go(func() { errs <- o.reconciler.Run(ctx, func() <-chan struct{} { return topic.Moved(reconciler.Name) }) })
	}
	wg.Go(func() { st.engine.Keep(ctx, rebuildsAtOnce) })
	wg.Go(func() { st.controls().WorkReplays(ctx, st.log.With(slog.String("part", "replays"))) })
	if carry != nil {
		carry.Adopt = send.Adopt
		wg.Go(func() { errs <- carry.Run(routing) })
	}
	errs <- send.Run(ctx)
	if err := topic.Close(); err != nil {
		st.log.DebugContext(ctx, "close topic", slog.Any("error", err))
	}
	stopRouting()
	wg.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	return err
}

// catchUp brings the projections and the tree to the head, for a command that runs the database itself: nobody else
// does. Nothing is planned and nothing is sent.
func (st *store) catchUp(ctx context.Context) error {
	return st.catchUpWith(ctx, append(st.engine.Live(liveSlice), projections.Live{Subscription: schema.TreeSubscription, Handle: schema.GrowTree}))
}

// catchUpLists is catchUp for a reconciler, which asks for it between its steps: only what it reads is brought up.
func (st *store) catchUpLists(ctx context.Context) error {
	return st.catchUpWith(ctx, slices.DeleteFunc(st.engine.Live(liveSlice), func(l projections.Live) bool {
		return !slices.Contains(reconciler.Reads, l.Subscription.Name)
	}))
}

func (st *store) catchUpWith(ctx context.Context, readers []projections.Live) error {
	head, err := st.ledger.Head(ctx)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for _, r := range readers {
		group.Go(func() error { return st.ledger.CatchUp(ctx, st.db, r.Subscription, r.Handle, head, st.log) })
	}
	return group.Wait()
}

// askOutdated has the projections of an older version brought up to this program's, in the background; the old tables serve
// until then.
func (st *store) askOutdated(ctx context.Context) error {
	for _, d := range st.outdated {
		if err := st.engine.AskRebuild(ctx, d, fmt.Sprintf("version %d of the definition", d.Version)); err != nil {
			return err
		}
	}
	return nil
}

// checkpointer signs the tree, with a memory of the last checkpoint outside the database.
func (st *store) checkpointer(ctx context.Context) (*schema.Checkpointer, error) {
	origin, err := schema.Origin(ctx, st.db)
	if err != nil {
		return nil, err
	}
	keys, err := st.vault.SigningKeys(ctx, origin)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(st.settings.dataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	return &schema.Checkpointer{
		DB: st.db, Origin: origin, Keys: keys, Clock: time.Now, Log: st.log.With(slog.String("part", "checkpoints")),
		Anchors: st.settings.anchors(),
	}, nil
}

func workerName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}

// newReconciler makes what keeps the platforms' lists in step. settle brings the projections up to date; nil waits for whoever
// keeps them.
func (st *store) newReconciler(allowed []netip.Prefix, settle func(context.Context) error, registry prometheus.Registerer) (*reconciler.Service, error) {
	return reconciler.New(reconciler.Config{
		DB: st.db, Ledger: st.ledger, Vault: st.vault, HTTP: outbound.NewClient(outbound.Options{Allowed: allowed}).HTTP(), Now: st.now, Sleep: st.sleep,
		Settle: settle, Log: st.log.With(slog.String("part", "reconciler")), Registry: registry,
	})
}
