package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/broker"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// scaleBench says how much is measured.
type scaleBench struct {
	dispatchers []int
	firings     int // for each dispatcher
	concurrency int
	latency     time.Duration
}

func newBenchScale(s *settings) *cobra.Command {
	var b scaleBench
	cmd := &cobra.Command{
		Use: "scale", Short: "Deliveries a second by the number of dispatchers behind an embedded broker, beside one process without a broker", Args: cobra.NoArgs,
		Long: "Deliveries a second to a sink that answers late, so that it and not the processor is the limit: first by one process\n" +
			"without a broker, then by one writer and so many dispatchers, each a process of its own, over an embedded broker.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.benchmark(cmd, func(ctx context.Context, st *store) error { return st.benchScale(ctx, b) })
		},
	}
	cmd.Flags().IntSliceVar(&b.dispatchers, "dispatchers", []int{1, 2, 4}, "how many dispatchers, one measurement each")
	cmd.Flags().IntVar(&b.firings, "firings", 3000, "firings for each dispatcher")
	cmd.Flags().IntVar(&b.concurrency, "target-concurrency", 8, "the target's limits.concurrency: requests at once in each process")
	cmd.Flags().DurationVar(&b.latency, "sink-latency", 50*time.Millisecond, "how late the sink answers")
	return cmd
}

func (st *store) benchScale(ctx context.Context, b scaleBench) error {
	sink, err := newBenchSink(ctx)
	if err != nil {
		return err
	}
	defer sink.server.Close()
	if err := st.benchTarget(ctx, "bench", "http://"+sink.address+slowly+b.latency.String(), b.concurrency); err != nil {
		return err
	}
	most := float64(b.concurrency) / b.latency.Seconds()
	w := tabwriter.NewWriter(st.settings.env.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "PROCESSES THAT SEND\tDELIVERIES A SECOND\tTIMES ONE WITHOUT A BROKER\tOF WHAT THE SINK ALLOWS\n")
	row := func(what string, rate, alone float64, n int) {
		fmt.Fprintf(w, "%s\t%.0f\t%.2f\t%.2f\n", what, rate, rate/alone, rate/(most*float64(n)))
	}
	alone, err := st.scaleOf(ctx, b, workerOptions{}, sink, 1)
	if err != nil {
		return err
	}
	row("1, without a broker", alone, alone, 1)
	token, _, err := st.tokens.Create(ctx, schema.TokenRequest{Name: "bench-dispatchers", Role: schema.RoleDispatcher, CreatedBy: "bench"})
	if err != nil {
		return err
	}
	fleet, err := st.vault.Fleet(ctx)
	if err != nil {
		return err
	}
	c, err := st.brokerConfig(brokerFlags{url: brokerEmbedded})
	if err != nil {
		return err
	}
	join := broker.Credential{Token: token, Public: fleet.Public}.String()
	for _, n := range b.dispatchers {
		rate, err := st.withDispatchers(ctx, n, c.URL, join, func() (float64, error) {
			return st.scaleOf(ctx, b, workerOptions{broker: c}, sink, n)
		})
		if err != nil {
			return err
		}
		row(fmt.Sprintf("%d behind the broker", n), rate, alone, n)
	}
	return w.Flush()
}

// scaleOf has the worker send what was fired before, and gives the rate from the first request to the last.
func (st *store) scaleOf(ctx context.Context, b scaleBench, o workerOptions, sink *benchSink, n int) (rate float64, err error) {
	o.allowed, o.variables, o.concurrency, o.grace = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, map[string]any{}, 256, 5*time.Second
	sink.received.Store(0)
	firings := b.firings * n
	if err := st.fireMany(ctx, "bench", firings); err != nil {
		return 0, err
	}
	working, stop := context.WithCancel(ctx)
	worked := make(chan error, 1)
	go func() { worked <- st.work(working, o) }()
	defer func() {
		stop()
		err = errors.Join(err, <-worked)
		st.newRegistry()
	}()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	// Measured between a tenth and nine tenths: neither the start nor the last requests in flight count.
	var first time.Time
	var before cpu
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		case err := <-worked:
			worked <- nil
			return 0, errors.Join(errors.New("the worker ended"), err)
		}
		got := int(sink.received.Load())
		switch {
		case first.IsZero() && got >= firings/10:
			first = time.Now()
			if before, err = st.spent(ctx); err != nil {
				return 0, err
			}
		case !first.IsZero() && got >= firings*9/10 && rate == 0:
			rate = float64(firings*8/10) / time.Since(first).Seconds()
			after, err := st.spent(ctx)
			if err != nil {
				return 0, err
			}
			st.took, st.measuredOf = after.since(before), firings*8/10
		case got >= firings:
			return rate, nil
		}
	}
}

// withDispatchers runs so many dispatchers as processes of their own.
func (st *store) withDispatchers(ctx context.Context, n int, url, join string, do func() (float64, error)) (rate float64, err error) {
	program, err := os.Executable()
	if err != nil {
		return 0, err
	}
	var running []*exec.Cmd
	defer func() {
		st.senders.forget()
		for _, cmd := range running {
			err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
		}
	}()
	// A dispatcher joins once a writer answers, so the writer has to run first.
	type measurement struct {
		rate float64
		err  error
	}
	done := make(chan measurement, 1)
	go func() {
		rate, err := do()
		done <- measurement{rate, err}
	}()
	for range n {
		var stderr bytes.Buffer
		cmd := exec.CommandContext(ctx, program, "serve", "--roles", roleDispatch, "--broker", url, "--listen", "127.0.0.1:0", "--allow-network", "127.0.0.0/8", "--ledger", st.settings.name) //nolint:gosec // this program itself
		cmd.Env = append(os.Environ(), environmentName("join")+"="+join)
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			return 0, err
		}
		if err := cmd.Start(); err != nil {
			return 0, fmt.Errorf("start a dispatcher: %w", err)
		}
		running = append(running, cmd)
		st.senders.add(cmd.Process.Pid)
		if !bufio.NewScanner(out).Scan() {
			return 0, fmt.Errorf("a dispatcher did not start: %s", strings.TrimSpace(stderr.String()))
		}
		go io.Copy(io.Discard, out) //nolint:errcheck // nothing in it matters any more
	}
	m := <-done
	return m.rate, m.err
}

// newRegistry lets the worker be started again, whose metrics are registered once each.
func (st *store) newRegistry() { st.registry = prometheus.NewRegistry() }
