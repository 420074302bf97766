package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/broker"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// modelBench says what is measured and how far it is carried.
type modelBench struct {
	scaleBench
	factors  []int
	database int // cores of the largest database that is to be had; past them, as past what one lock takes, there are more ledgers
	costs    costs
}

// costs are what a delivery takes of processors, in microseconds, from its firing to its last attempt's record.
type costs struct {
	service  float64 // of the process that has the ledger, which sends too where there is no broker
	database float64
	writer   float64 // of the process that has the ledger, with a broker between; the embedded broker included
	sender   float64 // of the dispatcher behind the broker
	append   float64 // of an event, while its ledger's lock is held
}

func newBenchModel(s *settings) *cobra.Command {
	var b modelBench
	cmd := &cobra.Command{
		Use: "model", Short: "A simulation of dispatching, checked against what is measured here, and carried to a thousand times this load", Args: cobra.NoArgs,
		Long: "Measures what a delivery takes of processors, without and with a broker; simulates the queues of the other measurements of\n" +
			"bench scale from that alone, and prints how far off the simulation is; then simulates ten, a hundred and a thousand times the\n" +
			"load: which parts it takes, how busy they are, and what a million deliveries cost. With the four costs given, as an earlier run\n" +
			"printed them, nothing is measured.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if b.costs.service > 0 {
				return s.carry(b, float64(runtime.NumCPU())*1e6/(b.costs.service+b.costs.database))
			}
			return s.benchmark(cmd, func(ctx context.Context, st *store) error { return st.benchModel(ctx, b) })
		},
	}
	flags := cmd.Flags()
	flags.IntSliceVar(&b.dispatchers, "dispatchers", []int{1, 2, 4}, "how many dispatchers, one measurement each, that the model is held against")
	flags.IntVar(&b.firings, "firings", 1500, "firings for each measurement and dispatcher")
	flags.IntVar(&b.concurrency, "target-concurrency", 8, "the target's limits.concurrency: requests at once in each process")
	flags.DurationVar(&b.latency, "sink-latency", 50*time.Millisecond, "how late the sink answers")
	flags.IntSliceVar(&b.factors, "factors", []int{1, 10, 100, 1000}, "multiples of this machine's load to simulate")
	flags.IntVar(&b.database, "database-cores", 64, "cores of the largest database to reckon with; past them the ledger is divided")
	flags.Float64Var(&b.costs.service, "service-us", 0, "microseconds of processor of a delivery in one process without a broker; 0 measures")
	flags.Float64Var(&b.costs.database, "database-us", 0, "the same in the database")
	flags.Float64Var(&b.costs.writer, "writer-us", 0, "the same in a writer and the broker")
	flags.Float64Var(&b.costs.append, "append-us", 36, "microseconds that an event is appended under its ledger's lock, as bench append finds them")
	flags.Float64Var(&b.costs.sender, "sender-us", 0, "the same in a dispatcher behind the broker")
	return cmd
}

// benchModel measures, checks and carries on.
func (st *store) benchModel(ctx context.Context, b modelBench) error {
	sink, err := newBenchSink(ctx)
	if err != nil {
		return err
	}
	defer sink.server.Close()
	at := func(concurrency int, latency time.Duration) error {
		return st.benchTarget(ctx, "bench", "http://"+sink.address+slowly+latency.String(), concurrency)
	}
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
	behind := func(m scaleBench, n int) (float64, error) {
		return st.withDispatchers(ctx, n, c.URL, join, func() (float64, error) { return st.scaleOf(ctx, m, workerOptions{broker: c}, sink, n) })
	}
	// What a delivery costs, where nothing but the processor is the limit: at a lower rate the parts' idling would count as work.
	const wide, several = 64, 2
	fast := b.scaleBench
	fast.concurrency, fast.latency, fast.firings = wide, 0, several*b.firings
	if err := at(wide, 0); err != nil {
		return err
	}
	saturated, err := st.scaleOf(ctx, fast, workerOptions{}, sink, 1)
	if err != nil {
		return err
	}
	if st.took.service == 0 || st.took.database == 0 {
		return errors.New("the processor time of a delivery is not known on this system; give the four costs as flags")
	}
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(st.measuredOf) }
	b.costs.service, b.costs.database = each(st.took.service), each(st.took.database)
	fast.firings = b.firings
	carried, err := behind(fast, several)
	if err != nil {
		return err
	}
	b.costs.writer, b.costs.sender = each(st.took.service), each(st.took.senders)
	onDatabase := each(st.took.database)

	w := tabwriter.NewWriter(st.settings.env.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "WHAT\tMEASURED\tSIMULATED\tOFF BY\t\n")
	row := func(what string, measured, simulated float64, note string) {
		fmt.Fprintf(w, "%s\t%.0f/s\t%.0f/s\t%+.0f %%\t%s\n", what, measured, simulated, 100*(simulated/measured-1), note)
	}
	one, more := b.costs.service+b.costs.database, b.costs.writer+b.costs.sender+onDatabase
	const calibrated = "its processor time is the model's"
	row("one process, fast receiver", saturated, b.onThisMachine(one, wide, 0, wide), calibrated)
	row(fmt.Sprintf("%d behind a broker, fast receiver", several), carried, b.onThisMachine(more, several*wide, 0, several*wide), calibrated)
	if err := at(b.concurrency, b.latency); err != nil {
		return err
	}
	alone, err := st.scaleOf(ctx, b.scaleBench, workerOptions{}, sink, 1)
	if err != nil {
		return err
	}
	row(fmt.Sprintf("one process, receiver takes %s", b.latency), alone, b.onThisMachine(one, b.concurrency, b.latency, b.concurrency), "")
	for _, n := range b.dispatchers {
		rate, err := behind(b.scaleBench, n)
		if err != nil {
			return err
		}
		row(fmt.Sprintf("%d behind a broker, receiver takes %s", n, b.latency), rate, b.onThisMachine(more, n*b.concurrency, b.latency, 2*n*b.concurrency), "")
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(st.settings.env.stdout, "\nto carry this on without measuring: bench model --service-us %.0f --database-us %.0f --writer-us %.0f --sender-us %.0f\n",
		b.costs.service, b.costs.database, b.costs.writer, b.costs.sender)
	return st.settings.carry(b, saturated)
}

// onThisMachine simulates deliveries that all share this machine's processors and so many slots of a receiver.
func (b modelBench) onThisMachine(microseconds float64, slots int, latency time.Duration, underWay int) float64 {
	stations := []station{{name: "processors", servers: runtime.NumCPU(), mean: time.Duration(microseconds * float64(time.Microsecond)), varies: true}}
	if latency > 0 {
		stations = append(stations, station{name: "receiver", servers: slots, mean: latency})
	}
	return simulate(stations, load{underWay: underWay}, 20_000, 1).perSecond
}

// plan is what a load takes.
type capacityPlan struct {
	ledgers, database, writers, senders, slots int
}

// utilisation that parts are planned for, so that queues stay short.
const planned = 0.7

// eventsEach is how many events a delivery is: fired, planned, attempted.
const eventsEach = 3

// planFor reckons how many of each part a load takes, in cores.
func (b modelBench) planFor(perSecond float64) capacityPlan {
	cores := func(us float64) int { return max(1, int(math.Ceil(perSecond*us/1e6/planned))) }
	p := capacityPlan{database: cores(b.costs.database), writers: cores(b.costs.writer), senders: cores(b.costs.sender)}
	p.ledgers = max((p.database+b.database-1)/b.database, int(math.Ceil(perSecond*eventsEach*b.costs.append/1e6/planned)))
	p.slots = max(1, int(math.Ceil(perSecond*b.latency.Seconds()/planned)))
	return p
}

// carry simulates multiples of a load, with the parts that each takes.
func (s *settings) carry(b modelBench, base float64) error {
	w := tabwriter.NewWriter(s.env.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "\nLOAD\tDELIVERIES A SECOND\tLEDGERS\tDATABASE CORES\tWRITER CORES\tSENDER CORES\tREQUESTS IN FLIGHT\tSIMULATED\tP99\tBUSIEST\n")
	slices.Sort(b.factors)
	for _, f := range b.factors {
		rate := base * float64(f)
		p := b.planFor(rate)
		// One ledger of them, with its part of everything: the others are the same.
		part := func(n int) int { return (n + p.ledgers - 1) / p.ledgers }
		us := func(v float64) time.Duration { return time.Duration(v * float64(time.Microsecond)) }
		stations := []station{
			{"the ledger's lock", 1, us(eventsEach * b.costs.append), true},
			{"database", part(p.database), us(b.costs.database), true},
			{"writers", part(p.writers), us(b.costs.writer), true},
			{"senders", part(p.senders), us(b.costs.sender), true},
			{"receivers", part(p.slots), b.latency, false},
		}
		got := simulate(stations, load{perSecond: rate / float64(p.ledgers)}, 100_000, 1)
		busiest := 0
		for i := range stations {
			if got.busy[i] > got.busy[busiest] {
				busiest = i
			}
		}
		fmt.Fprintf(w, "%d\t%.0f\t%d\t%d\t%d\t%d\t%d\t%.0f/s\t%s\t%s, %.0f %%\n", f, rate, p.ledgers, p.database, p.writers, p.senders, p.slots,
			got.perSecond*float64(p.ledgers), got.p99.Round(time.Millisecond), stations[busiest].name, 100*got.busy[busiest])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	hours := func(us float64) float64 { return us / 3600 }
	_, err := fmt.Fprintf(s.env.stdout, "\na million deliveries: %.2f core hours in one process (%.2f of them the database's); %.2f with a broker (%.2f the database's, %.2f the senders')\n",
		hours(b.costs.service+b.costs.database), hours(b.costs.database), hours(b.costs.writer+b.costs.sender+b.costs.database), hours(b.costs.database), hours(b.costs.sender))
	return err
}

// sumUp tells what came of a simulation, from a moment on.
func sumUp(stations []station, took, busy []time.Duration, skipped int, from, until time.Duration) simulated {
	s := simulated{busy: make([]float64, len(stations))}
	seen := slices.Clone(took[skipped:])
	if len(seen) == 0 || until <= from {
		return s
	}
	slices.Sort(seen)
	var sum time.Duration
	for _, d := range seen {
		sum += d
	}
	s.perSecond = float64(len(seen)) / (until - from).Seconds()
	s.mean, s.p99 = sum/time.Duration(len(seen)), seen[len(seen)*99/100]
	for i, b := range busy {
		if stations[i].servers > 0 {
			s.busy[i] = b.Seconds() / until.Seconds() / float64(stations[i].servers)
		}
	}
	return s
}
