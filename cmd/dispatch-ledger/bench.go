package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func newBench(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure, each figure beside a named baseline in the same run, on a database of its own",
	}
	cmd.AddCommand(newBenchAppend(s), newBenchProjections(s), newBenchVerify(s), newBenchRender(s), newBenchDispatch(s), newBenchScale(s), newBenchModel(s), newBenchPart(), newBenchQuery(s), newBenchReconcile(s))
	return cmd
}

// benchmark gives a command a ledger of its own, on a private database in a temporary directory unless one is named.
// It must be an empty one: figures are only worth something when it is known what they were measured on.
func (s *settings) benchmark(cmd *cobra.Command, do func(context.Context, *store) error) error {
	return s.benchmarkOn(cmd, 0, do)
}

// benchmarkOn is benchmark on a ledger that holds so many events already.
func (s *settings) benchmarkOn(cmd *cobra.Command, held int64, do func(context.Context, *store) error) error {
	if !cmd.Flags().Changed("data-dir") {
		dir, err := os.MkdirTemp("", "dispatch-ledger-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // PostgreSQL runs as another user than root, and has to be able to enter
			return err
		}
		s.dataDir = dir
	}
	return s.serving(cmd.Context(), func(ctx context.Context, st *store) error {
		head, err := st.ledger.Head(ctx)
		switch {
		case err != nil:
			return err
		case head != held && held == 0:
			return fmt.Errorf("the ledger holds %d events; measure on an empty one", head)
		case head != held:
			return fmt.Errorf("the ledger holds %d events and not %d; fill one with --fill-only and the same --events and --data-dir", head, held)
		}
		return do(ctx, st)
	})
}

func newBenchAppend(s *settings) *cobra.Command {
	var callers, preload, rounds int
	var each time.Duration
	var ids string
	cmd := &cobra.Command{
		Use: "append", Short: "Concurrent callers appending single events, beside stock watermill-sql publishing and a plain INSERT", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			newID, ok := idMakers[ids]
			switch {
			case !ok:
				return usagef("--ids is v7 or v4, not %q", ids)
			case rounds < 1:
				return usagef("--rounds is at least 1")
			}
			return s.benchmark(cmd, func(ctx context.Context, st *store) error {
				return st.benchAppend(ctx, callers, preload, rounds, each, newID)
			})
		},
	}
	cmd.Flags().IntVar(&callers, "callers", 64, "goroutines, each waiting for its own event")
	cmd.Flags().IntVar(&preload, "preload", 200_000, "events that the ledger holds before anything is measured")
	cmd.Flags().DurationVar(&each, "duration", 5*time.Second, "of each measurement")
	cmd.Flags().IntVar(&rounds, "rounds", 5, "parts that each measurement is made in, by turns with the others")
	cmd.Flags().StringVar(&ids, "ids", "v7", "what the events' ids are, in the ledger and in the plain table: UUIDs in order of time (v7), or at random (v4)")
	return cmd
}

// idMakers are the kinds of ids that emitters give their events.
var idMakers = map[string]func() uuid.UUID{
	"v4": uuid.New,
	"v7": domain.NewID,
}

// measured is one line of a benchmark.
type measured struct {
	what     string
	n        int
	rate     float64 // a second
	p50, p99 time.Duration
}

// printMeasured writes the lines, each with its ratio to the first.
func printMeasured(w io.Writer, baseline string, lines []measured) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(t, "WHAT\tEVENTS/S\tP50\tP99\tTIMES %s\n", strings.ToUpper(baseline))
	for _, m := range lines {
		fmt.Fprintf(t, "%s\t%.0f\t%s\t%s\t%.2f\n", m.what, m.rate, m.p50.Round(10*time.Microsecond), m.p99.Round(10*time.Microsecond), m.rate/lines[0].rate)
	}
	return t.Flush()
}

// hammered is what came of calling something from several goroutines for a while, or for several whiles.
type hammered struct {
	calls []time.Duration
	took  time.Duration
	spent cpu
}

// hammer calls do from so many goroutines for a while.
func (h *hammered) hammer(ctx context.Context, callers int, each time.Duration, do func(context.Context) error) error {
	var mu sync.Mutex
	var failed error
	var wg sync.WaitGroup
	start := time.Now()
	for range callers {
		wg.Go(func() {
			var mine []time.Duration
			for time.Since(start) < each {
				began := time.Now()
				if err := do(ctx); err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
				mine = append(mine, time.Since(began))
			}
			mu.Lock()
			h.calls = append(h.calls, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	h.took += time.Since(start)
	return failed
}

// measured sums it up.
func (h *hammered) measured(what string) measured {
	slices.Sort(h.calls)
	n := len(h.calls)
	return measured{what: what, n: n, rate: float64(n) / h.took.Seconds(), p50: h.calls[n/2], p99: h.calls[n*99/100]}
}

const benchBytes = 600

func (st *store) benchAppend(ctx context.Context, callers, preload, rounds int, each time.Duration, newID func() uuid.UUID) error {
	payload := []byte(`{"pad":"` + strings.Repeat("x", benchBytes-10) + `"}`)
	event := func() domain.Event {
		return domain.Event{
			ID: newID(), Type: "reaction.fired", Stream: fmt.Sprintf("reaction-%d", rand.IntN(100_000)), //nolint:gosec // not a secret
			Keys:       domain.Keys{Subject: uuid.New(), Target: "bench"},
			OccurredAt: time.Now(), Actor: "bench", Source: "/bench", Data: payload,
		}
	}
	for done := 0; done < preload; {
		events := make([]domain.Event, min(10_000, preload-done))
		for i := range events {
			events[i] = event()
		}
		if _, err := st.ledger.Append(ctx, events...); err != nil {
			return err
		}
		done += len(events)
	}
	owner, err := schema.Connect(st.url, schema.Options{Name: st.settings.name})
	if err != nil {
		return err
	}
	defer owner.Close()
	owner.SetMaxOpenConns(callers)
	owner.SetMaxIdleConns(callers)
	// As autovacuum would have left it.
	if _, err := owner.ExecContext(ctx, `VACUUM (ANALYZE) events`); err != nil {
		return err
	}
	stock, err := stockPublisher(ctx, owner, payload)
	if err != nil {
		return err
	}
	plain, err := plainInsert(ctx, owner, payload, newID)
	if err != nil {
		return err
	}
	contestants := []struct {
		what string
		do   func(context.Context) error
		got  hammered
	}{
		{what: "stock watermill-sql, one message a call", do: stock},
		{what: "plain INSERT with a sequence, no order", do: plain},
		{what: "ledger, one event a call", do: func(ctx context.Context) error {
			_, err := st.ledger.Append(ctx, event())
			return err
		}},
	}
	// By turns: a machine whose speed changes changes it for all of them.
	for range rounds {
		for i := range contestants {
			c := &contestants[i]
			before, err := st.spent(ctx)
			if err != nil {
				return err
			}
			if err := c.got.hammer(ctx, callers, each/time.Duration(rounds), c.do); err != nil {
				return fmt.Errorf("%s: %w", c.what, err)
			}
			after, err := st.spent(ctx)
			if err != nil {
				return err
			}
			c.got.spent = c.got.spent.plus(after.since(before))
		}
	}
	var lines []measured
	var costs []string
	for i := range contestants {
		c := &contestants[i]
		line := c.got.measured(c.what)
		lines = append(lines, line)
		costs = append(costs, c.what+": "+c.got.spent.each("an event", "callers and service", line.n))
	}
	out := st.settings.env.stdout
	fmt.Fprintf(out, "%d callers, %d bytes an event, %d events in the ledger before\n", callers, benchBytes, preload)
	if err := printMeasured(out, "stock", lines); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, strings.Join(costs, "\n"))
	return err
}

// stockPublisher is watermill-sql as it comes, one message in each call.
func stockPublisher(ctx context.Context, db *sql.DB, payload []byte) (func(context.Context) error, error) {
	schemaAdapter := wsql.DefaultPostgreSQLSchema{}
	p, err := wsql.NewPublisher(db, wsql.PublisherConfig{SchemaAdapter: schemaAdapter, AutoInitializeSchema: true}, watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	publish := func(context.Context) error {
		return p.Publish("bench_stock", message.NewMessage(watermill.NewUUID(), payload))
	}
	return publish, publish(ctx)
}

// plainInsert is what one would write first: a sequence, two unique indexes, every caller commits its own row.
func plainInsert(ctx context.Context, db *sql.DB, payload []byte, newID func() uuid.UUID) (func(context.Context) error, error) {
	_, err := db.ExecContext(ctx, `CREATE TABLE bench_plain (position bigserial PRIMARY KEY, id uuid UNIQUE, stream text, version bigserial,
		subject uuid, recorded_at timestamptz DEFAULT clock_timestamp(), data json, leaf bytea, UNIQUE (stream, version))`)
	if err != nil {
		return nil, err
	}
	leaf := make([]byte, 32)
	stmt, err := db.PrepareContext(ctx, `INSERT INTO bench_plain (id, stream, subject, data, leaf) VALUES ($1, $2, $3, $4, $5)`) //nolint:sqlclosecheck // closed with its database
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		_, err := stmt.ExecContext(ctx, newID(), fmt.Sprintf("reaction-%d", rand.IntN(100_000)), uuid.New(), string(payload), leaf) //nolint:gosec // not a secret
		return err
	}, nil
}
