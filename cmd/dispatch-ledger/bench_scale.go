package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
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
		Use: "scale", Short: "Deliveries a second by the number of dispatchers behind a broker, beside one process without a broker", Args: cobra.NoArgs,
		Long: "Deliveries a second to a sink that answers late, so that it and not the processor is the limit: first by one process\n" +
			"without a broker, then by one writer and so many dispatchers behind a broker. Each of them, the broker and the sink are processes\n" +
			"of their own. What all of them take of this machine's processors stands beside it: near 100 %, they are the limit.",
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

func (st *store) benchScale(ctx context.Context, b scaleBench) (err error) {
	g, err := st.startGround(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.stop()) }()
	if err := g.aim(ctx, b); err != nil {
		return err
	}
	most := float64(b.concurrency) / b.latency.Seconds()
	w := tabwriter.NewWriter(st.settings.env.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "PROCESSES THAT SEND\tDELIVERIES A SECOND\tTIMES ONE WITHOUT A BROKER\tOF WHAT THE SINK ALLOWS\tOF THIS MACHINE'S %d PROCESSORS\n", runtime.NumCPU())
	var alone point
	for _, n := range append([]int{0}, b.dispatchers...) {
		p, err := g.measure(ctx, b, n)
		if err != nil {
			return err
		}
		if n == 0 {
			alone = p
		}
		fmt.Fprintf(w, "%s\t%.0f\t%.2f\t%.2f\t%.0f %%\n", p, p.rate, p.rate/alone.rate, p.rate/(most*float64(max(1, n))), 100*p.busy())
	}
	return w.Flush()
}

// point is one measurement.
type point struct {
	dispatchers int     // behind a broker; 0: one process without a broker
	rate        float64 // deliveries a second
	of          int     // deliveries that it was measured over
	took        time.Duration
	spent       cpu
	handing     time.Duration // of a delivery: in hand besides its request and its waiting for a slot
}

func (p point) String() string {
	if p.dispatchers == 0 {
		return "1, without a broker"
	}
	return fmt.Sprintf("%d behind the broker", p.dispatchers)
}

// busy is the part of this machine's processors that was taken, by all that the benchmark runs.
func (p point) busy() float64 {
	return p.spent.total().Seconds() / p.took.Seconds() / float64(runtime.NumCPU())
}

// each is microseconds of a delivery.
func (p point) each(d time.Duration) float64 { return float64(d.Microseconds()) / float64(p.of) }

// ground is what measurements of scale are made on: a sink, a broker, and what dispatchers join with.
type ground struct {
	st     *store
	sink   farSink
	broker *part
	config broker.Config
	join   string
}

func (st *store) startGround(ctx context.Context) (g *ground, err error) {
	g = &ground{st: st}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.stop())
		}
	}()
	if g.sink, err = st.startSink(ctx); err != nil {
		return g, err
	}
	if g.broker, err = st.startBroker(ctx); err != nil {
		return g, err
	}
	g.config = broker.Config{URL: g.broker.said, Ledger: st.settings.name, Replicas: 1}
	token, _, err := st.tokens.Create(ctx, schema.TokenRequest{Name: "bench-dispatchers", Role: schema.RoleDispatcher, CreatedBy: "bench"})
	if err != nil {
		return g, err
	}
	fleet, err := st.vault.Fleet(ctx)
	if err != nil {
		return g, err
	}
	g.join = broker.Credential{Token: token, Public: fleet.Public}.String()
	return g, nil
}

func (g *ground) stop() error {
	return errors.Join(g.st.stopPart(g.broker), g.st.stopPart(g.sink.part))
}

// aim points the target at the sink.
func (g *ground) aim(ctx context.Context, b scaleBench) error {
	return g.st.benchTarget(ctx, "bench", "http://"+g.sink.said+slowly+b.latency.String(), b.concurrency)
}

// measure has so many dispatchers send what was fired before, or where they are none this process, between a tenth of the
// requests and nine tenths.
func (g *ground) measure(ctx context.Context, b scaleBench, n int) (p point, err error) {
	o := workerOptions{allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, variables: map[string]any{}, concurrency: 256, grace: 5 * time.Second}
	firings := b.firings * max(1, n)
	if n > 0 {
		o.broker = &g.config
	}
	if err := g.st.fireMany(ctx, "bench", firings); err != nil {
		return p, err
	}
	reached, err := g.sink.expect(firings)
	if err != nil {
		return p, err
	}
	working, stop := context.WithCancel(ctx)
	worked := make(chan error, 1)
	go func() { worked <- g.st.work(working, o) }()
	var running []*part
	defer func() {
		stop()
		for _, d := range running {
			err = errors.Join(err, g.st.stopPart(d))
		}
		err = errors.Join(err, <-worked)
		g.st.registry = prometheus.NewRegistry() // for the next, whose metrics are registered once each
	}()
	for range n {
		d, err := g.st.startPart(ctx, partSenders, []string{environmentName("join") + "=" + g.join},
			"serve", "--roles", roleDispatch, "--broker", g.config.URL, "--listen", "127.0.0.1:0", "--allow-network", "127.0.0.0/8", "--ledger", g.st.settings.name)
		if err != nil {
			return p, err
		}
		running = append(running, d)
	}
	next := func() (at time.Time, spent cpu, err error) {
		select {
		case at, ok := <-reached:
			if !ok {
				return at, spent, errors.New("the sink ended")
			}
			spent, err = g.st.spent(ctx)
			return at, spent, err
		case err := <-worked:
			worked <- nil
			return at, spent, errors.Join(errors.New("the worker ended"), err)
		case <-ctx.Done():
			return at, spent, ctx.Err()
		}
	}
	first, before, err := next()
	if err != nil {
		return p, err
	}
	last, after, err := next()
	if err != nil {
		return p, err
	}
	p = point{dispatchers: n, of: firings*9/10 - firings/10, took: last.Sub(first), spent: after.since(before)}
	p.rate = float64(p.of) / p.took.Seconds()
	if _, _, err = next(); err != nil {
		return p, err
	}
	p.handing, err = meanOf(g.st.registry, "ledger_handover_seconds")
	return p, err
}

// meanOf is the mean of what a histogram has observed.
func meanOf(r *prometheus.Registry, name string) (time.Duration, error) {
	families, err := r.Gather()
	if err != nil {
		return 0, err
	}
	for _, f := range families {
		if f.GetName() == name {
			h := f.GetMetric()[0].GetHistogram()
			return time.Duration(h.GetSampleSum() / max(1, float64(h.GetSampleCount())) * float64(time.Second)), nil
		}
	}
	return 0, fmt.Errorf("nothing is measured as %s", name)
}
