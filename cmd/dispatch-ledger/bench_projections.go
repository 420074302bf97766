package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// projectionBench says how much is measured.
type projectionBench struct {
	events  int
	atOnce  int
	singles int  // events of the baselines that take them one by one
	all     bool // nothing but all at once, beside the first baseline
	fill    bool // make the events and measure nothing
	filled  bool // they are there
}

func newBenchProjections(s *settings) *cobra.Command {
	var b projectionBench
	cmd := &cobra.Command{
		Use: "projections", Args: cobra.NoArgs,
		Short: "Projections live and rebuilt, beside one statement over everything, a Go handler an event, and stock watermill-sql",
		RunE: func(cmd *cobra.Command, _ []string) error {
			held := int64(0)
			if b.filled {
				held = int64(b.events)
			}
			if (b.fill || b.filled) && !cmd.Flags().Changed("data-dir") {
				return usagef("--fill-only and --filled are about the ledger of a --data-dir; name one")
			}
			return s.benchmarkOn(cmd, held, func(ctx context.Context, st *store) error { return st.benchProjections(ctx, b) })
		},
	}
	cmd.Flags().IntVar(&b.events, "events", 200_000, "mixed events in the ledger")
	cmd.Flags().IntVar(&b.atOnce, "at-once", 2, "projections that are rebuilt at the same time")
	cmd.Flags().IntVar(&b.singles, "singles", 20_000, "events of the baselines that take them one by one")
	cmd.Flags().BoolVar(&b.all, "all-only", false, "measure only the rebuild of all, beside one statement over everything")
	cmd.Flags().BoolVar(&b.fill, "fill-only", false, "put the events into the ledger of --data-dir and measure nothing: to measure on them several times, or `rebuild` in a process of its own")
	cmd.Flags().BoolVar(&b.filled, "filled", false, "measure on the events that --fill-only put there")
	cmd.MarkFlagsMutuallyExclusive("fill-only", "filled")
	return cmd
}

func (st *store) benchProjections(ctx context.Context, b projectionBench) error {
	out := st.settings.env.stdout
	start := time.Now()
	if !b.filled {
		if err := st.fill(ctx, b.events); err != nil {
			return err
		}
	}
	owner, err := schema.Connect(st.url, schema.Options{Name: st.settings.name})
	if err != nil {
		return err
	}
	defer owner.Close()
	if _, err := owner.ExecContext(ctx, `VACUUM ANALYZE events`); err != nil {
		return err
	}
	if b.filled {
		fmt.Fprintf(out, "%d mixed events\n", b.events)
	} else {
		fmt.Fprintf(out, "%d mixed events, appended in %s\n", b.events, time.Since(start).Round(time.Second))
	}
	if b.fill {
		return nil
	}
	var lines []measured
	measure := func(what string, n int, do func() error) error {
		before, err := st.spent(ctx)
		if err != nil {
			return err
		}
		began := time.Now()
		if err := do(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		lines = append(lines, measured{what: what, n: n, rate: float64(n) / time.Since(began).Seconds()})
		after, err := st.spent(ctx)
		fmt.Fprintf(st.settings.env.stderr, "%s: %.0f/s; %s\n", what, lines[len(lines)-1].rate, after.since(before).each("an event", "service", n))
		return err
	}
	steps := []struct {
		what string
		n    int
		do   func() error
	}{
		{"consent: one statement over everything", b.events, func() error {
			_, err := st.engine.Build(ctx, consent.Definition.WithoutFold(), projections.BuildOptions{Into: "bench_one", Slice: int64(b.events)})
			return err
		}},
		{"consent: through the subscriber, slices of 20,000", b.events, func() error { return st.readThrough(ctx, consent.Definition, liveSlice) }},
		{"consent: rebuilt and swapped", b.events, func() error { return st.engine.Rebuild(ctx, consent.Definition, projections.RebuildOptions{}) }},
		{"consent: a Go handler an event", b.singles, func() error { return goHandler(ctx, owner, b.singles) }},
		{"consent: stock watermill-sql, one insert a message", b.singles, nil},
	}
	for _, d := range st.engine.Definitions() {
		if d.Name != consent.Definition.Name {
			steps = append(steps, struct {
				what string
				n    int
				do   func() error
			}{d.Name + ": rebuilt and swapped", b.events, func() error { return st.engine.Rebuild(ctx, d, projections.RebuildOptions{}) }})
		}
	}
	all := st.engine.Definitions()
	steps = append(steps, struct {
		what string
		n    int
		do   func() error
	}{fmt.Sprintf("all %d rebuilt, %d at once", len(all), b.atOnce), b.events, func() error {
		return st.engine.RebuildAll(ctx, all, b.atOnce, func(projections.Definition) projections.RebuildOptions { return projections.RebuildOptions{} })
	}})
	if b.all {
		steps = append(steps[:1:1], steps[len(steps)-1])
	}
	for _, step := range steps {
		if step.do == nil {
			drain, err := stockSubscriber(ctx, owner, step.n)
			if err != nil {
				return err
			}
			step.do = drain
		}
		if err := measure(step.what, step.n, step.do); err != nil {
			return err
		}
	}
	if err := printMemory(out); err != nil {
		return err
	}
	return printMeasured(out, "one statement", lines)
}

// readThrough brings a live projection from the start of the ledger to its head, as serve does.
func (st *store) readThrough(ctx context.Context, d projections.Definition, slice int) error {
	head, err := st.ledger.Head(ctx)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	topic, err := schema.OpenTopic(st.db, st.ledger, "", schema.Options{Name: st.settings.name}, st.log)
	if err != nil {
		return err
	}
	defer topic.Close()
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 30 * time.Second}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	for _, live := range st.engine.Live(slice) {
		if live.Subscription.Name == d.SubscriptionName() {
			if err := projections.AddTo(ctx, router, topic, live.Subscription, live.Handle); err != nil {
				return err
			}
		}
	}
	done := make(chan error, 1)
	go func() { done <- router.Run(ctx) }()
	for {
		moved := topic.Moved(d.SubscriptionName())
		var position int64
		if err := st.db.QueryRowContext(ctx, `SELECT position FROM subscriptions WHERE name = $1`, d.SubscriptionName()).Scan(&position); err != nil {
			return err
		}
		if position >= head {
			stop()
			return errors.Join(topic.Close(), <-done)
		}
		select {
		case <-moved:
		case <-time.After(time.Second):
		case err := <-done:
			return err
		}
	}
}

const upsertConsent = `INSERT INTO bench_consent VALUES ($1, $2, $3, $4) ON CONFLICT (profile, channel, purpose) DO UPDATE SET status = excluded.status`

const benchConsent = `CREATE TABLE IF NOT EXISTS bench_consent (profile text, channel text, purpose text, status text, PRIMARY KEY (profile, channel, purpose))`

// goHandler projects consent as one would write it first: a callback in Go for each event, a thousand in a transaction.
func goHandler(ctx context.Context, db *sql.DB, n int) error {
	if _, err := db.ExecContext(ctx, benchConsent); err != nil {
		return err
	}
	var events []domain.Recorded
	flush := func() error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		upsert, err := tx.PrepareContext(ctx, upsertConsent) //nolint:sqlclosecheck // it ends with its transaction
		if err != nil {
			return err
		}
		for _, e := range events {
			if e.Type != "consent.changed" {
				continue
			}
			p, err := domain.DecodeAs[domain.ConsentChanged](e.Data, nil)
			if err != nil {
				return err
			}
			for _, c := range p.Changes {
				if _, err := upsert.ExecContext(ctx, p.ProfileID.String(), string(c.Channel), string(c.Purpose), string(c.Status)); err != nil {
					return err
				}
			}
		}
		events = events[:0]
		return tx.Commit()
	}
	for e, err := range schema.Events(ctx, db, schema.Filter{UpTo: int64(n)}) {
		if err != nil {
			return err
		}
		if events = append(events, e); len(events) == 1000 {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// stockSubscriber is watermill-sql as it comes: n messages in its table, which the function it returns drains with one insert
// each in the message's transaction.
func stockSubscriber(ctx context.Context, db *sql.DB, n int) (func() error, error) {
	const topic = "bench_stock"
	if _, err := db.ExecContext(ctx, benchConsent); err != nil {
		return nil, err
	}
	publisher, err := wsql.NewPublisher(db, wsql.PublisherConfig{SchemaAdapter: wsql.DefaultPostgreSQLSchema{}, AutoInitializeSchema: true}, watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	h := newBenchHistory(2, 1000)
	for made := 0; made < n; {
		batch := make([]*message.Message, min(500, n-made))
		for i := range batch {
			events := h.add(nil, h.consent(h.people[h.random.IntN(len(h.people))]))
			if h.err != nil {
				return nil, h.err
			}
			batch[i] = message.NewMessage(events[0].ID.String(), events[0].Data)
		}
		if err := publisher.Publish(topic, batch...); err != nil {
			return nil, err
		}
		made += len(batch)
	}
	return func() error {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		subscriber, err := wsql.NewSubscriber(db, wsql.SubscriberConfig{
			ConsumerGroup: "bench", SchemaAdapter: wsql.DefaultPostgreSQLSchema{SubscribeBatchSize: 1000}, OffsetsAdapter: wsql.DefaultPostgreSQLOffsetsAdapter{}, InitializeSchema: true,
		}, watermill.NopLogger{})
		if err != nil {
			return err
		}
		defer subscriber.Close()
		messages, err := subscriber.Subscribe(ctx, topic)
		if err != nil {
			return err
		}
		for range n {
			select {
			case msg := <-messages:
				if err := stockInsert(msg); err != nil {
					return err
				}
				msg.Ack()
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}, nil
}

func stockInsert(msg *message.Message) error {
	tx, ok := wsql.TxFromContext(msg.Context())
	if !ok {
		return errors.New("the message carries no transaction")
	}
	p, err := domain.DecodeAs[domain.ConsentChanged](msg.Payload, nil)
	if err != nil {
		return err
	}
	for _, c := range p.Changes {
		if _, err := tx.ExecContext(msg.Context(), upsertConsent, p.ProfileID.String(), string(c.Channel), string(c.Purpose), string(c.Status)); err != nil {
			return err
		}
	}
	return nil
}
