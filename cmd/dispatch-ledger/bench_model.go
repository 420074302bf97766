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

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/dispatcher"
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
	writer   float64 // of the process that has the ledger, with a broker between
	broker   float64
	sender   float64 // of the dispatcher behind the broker
	event    float64 // while its ledger's lock is held
	call     float64 // the same of a call that appends, for however many events
}

func newBenchModel(s *settings) *cobra.Command {
	var b modelBench
	cmd := &cobra.Command{
		Use: "model", Short: "A simulation of dispatching, checked against what is measured here, and carried to a thousand times this load", Args: cobra.NoArgs,
		Long: "Measures what a delivery takes of each process's processors, without and with a broker, and with a fast and a slow receiver;\n" +
			"simulates each measurement's queues, with processors that all processes share, and prints beside what was measured how far off\n" +
			"the simulation is; then simulates ten, a hundred and a thousand times the load on machines of their own: which parts it takes, how busy they are, and what a million deliveries cost. With the costs given, as an earlier run\n" +
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
	flags.Float64Var(&b.costs.writer, "writer-us", 0, "the same in a writer")
	flags.Float64Var(&b.costs.broker, "broker-us", 0, "the same in the broker")
	flags.Float64Var(&b.costs.event, "append-us", 0, "microseconds that an event is appended under its ledger's lock")
	flags.Float64Var(&b.costs.call, "append-call-us", 0, "the same of a call, for all the events that wait together")
	flags.Float64Var(&b.costs.sender, "sender-us", 0, "the same in a dispatcher behind the broker")
	return cmd
}

// benchModel measures, checks and carries on.
func (st *store) benchModel(ctx context.Context, b modelBench) (err error) {
	g, err := st.startGround(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.stop()) }()
	const several = 2
	fast := b.scaleBench
	fast.concurrency, fast.latency, fast.firings = 64, 0, several*b.firings
	w := tabwriter.NewWriter(st.settings.env.stdout, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "receiver takes\tprocesses that send\tms of a delivery: service\tdatabase\tbroker\tsenders\tsink\tprocessors busy\tms handed over: measured\tsimulated\tmeasured\tsimulated\toff by\t\n")
	check := func(m scaleBench, n int, lag time.Duration) (point, error) {
		if err := g.aim(ctx, m); err != nil {
			return point{}, err
		}
		p, err := g.measure(ctx, m, n)
		if err != nil {
			return p, err
		}
		if p.spent.service == 0 || p.spent.database == 0 {
			return p, errors.New("the processor time of a delivery is not known on this system; give the costs as flags")
		}
		if lag == 0 {
			lag = m.lagOf(p)
		}
		got := m.onThisMachine(p, lag)
		ms := func(d time.Duration) float64 { return p.each(d) / 1000 }
		fmt.Fprintf(w, "%s\t%s\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.0f %%\t%.0f\t%.0f\t%.0f/s\t%.0f/s\t%+.0f %%\t\n", m.latency, p,
			ms(p.spent.service), ms(p.spent.database), ms(p.spent.parts[partBroker]), ms(p.spent.parts[partSenders]), ms(p.spent.parts[partSink]), 100*p.busy(),
			1000*p.handing.Seconds(), 1000*got.handing.Seconds(), p.rate, got.rate, 100*(got.rate/p.rate-1))
		return p, nil
	}
	// What a delivery costs, where nothing but the processor is the limit: at a lower rate the parts' idling counts as work.
	saturated, err := check(fast, 0, 0)
	if err != nil {
		return err
	}
	b.costs.service, b.costs.database = saturated.each(saturated.spent.service), saturated.each(saturated.spent.database)
	fast.firings = b.firings
	carried, err := check(fast, several, 0)
	if err != nil {
		return err
	}
	b.costs.writer, b.costs.broker, b.costs.sender = carried.each(carried.spent.service), carried.each(carried.spent.parts[partBroker]), carried.each(carried.spent.parts[partSenders])
	if _, err := check(b.scaleBench, 0, 0); err != nil {
		return err
	}
	var lag time.Duration
	for _, n := range b.dispatchers {
		p, err := check(b.scaleBench, n, lag)
		if err != nil {
			return err
		}
		if lag == 0 {
			lag = b.lagOf(p)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if b.costs.call, b.costs.event, err = st.appendCosts(ctx); err != nil { // at the end: nobody is to plan them
		return err
	}
	fmt.Fprintf(st.settings.env.stdout, "\nan append: %.0f us for each event and %.0f us for each call, between which all that waits is gathered\n"+
		"to carry this on without measuring: bench model --service-us %.0f --database-us %.0f --writer-us %.0f --broker-us %.0f --sender-us %.0f --append-us %.0f --append-call-us %.0f\n",
		b.costs.event, b.costs.call, b.costs.service, b.costs.database, b.costs.writer, b.costs.broker, b.costs.sender, b.costs.event, b.costs.call)
	return st.settings.carry(b, saturated.rate)
}

// appendCosts times appends of one event and of many, and gives what a call and an event take, in microseconds.
func (st *store) appendCosts(ctx context.Context) (call, event float64, err error) {
	const calls, many = 200, 100
	next := func(n int) ([]domain.Event, error) {
		events := make([]domain.Event, n)
		for i := range events {
			e, _, err := domain.New(uuid.New(), domain.ReactionFired{Reaction: "bench", Target: "bench", ProfileID: uuid.New(), Trigger: "bench.append", Cause: "reaction", Context: benchContext(i)})
			if err != nil {
				return nil, err
			}
			e.Actor, e.Source = "bench", "/bench"
			events[i] = e
		}
		return events, nil
	}
	took := func(n int) (each float64, err error) {
		var sum time.Duration
		for range calls {
			events, err := next(n)
			if err != nil {
				return 0, err
			}
			start := time.Now()
			if _, err := st.ledger.Append(ctx, events...); err != nil {
				return 0, err
			}
			sum += time.Since(start)
		}
		return float64(sum.Microseconds()) / calls, nil
	}
	if _, err := took(many); err != nil { // the first ones make connections and plans
		return 0, 0, err
	}
	one, err := took(1)
	if err != nil {
		return 0, 0, err
	}
	all, err := took(many)
	if err != nil {
		return 0, 0, err
	}
	event = (all - one) / (many - 1)
	return max(0, one-event), event, nil
}

// predicted is what the model says of a point.
type predicted struct {
	rate    float64
	handing time.Duration // of a delivery: in hand besides its request and its waiting for a slot
}

// onThisMachine simulates a point: all processes share this machine's processors, in equal parts, for what each took of them at
// this point; a slot of the target, at one of the dispatchers, is held by a request from its first byte to its last; and a delivery besides waits for lag, for disks
// and for others to gather with. As many are in hand as the dispatcher claims: the slots, and those that are on their way.
func (b scaleBench) onThisMachine(p point, lag time.Duration) predicted {
	slots := b.concurrency * max(1, p.dispatchers)
	us := func(v float64) time.Duration { return time.Duration(v * float64(time.Microsecond)) }
	machine := &pool{"this machine", runtime.NumCPU()}
	sending := p.each(p.spent.parts[partSink]) + p.each(p.spent.parts[partSenders])/2
	rest := max(0, p.each(p.spent.total())-sending)
	stations := []station{
		{name: "the way there and back", mean: lag},
		{name: "service, database and broker", mean: us(rest), varies: true, pool: machine},
		{name: "slots", servers: slots, apart: p.dispatchers, holds: 2},
		{name: "requests", mean: us(sending), varies: true, pool: machine},
		{name: "receiver", mean: b.latency},
	}
	const slot = 2
	var out predicted
	underWay := slots
	for range 8 { // the dispatcher's own rule, to where it comes to rest
		got := simulate(stations, load{underWay: underWay}, 20_000, 1)
		request := time.Duration(got.busy[slot] * float64(slots) / got.perSecond * float64(time.Second))
		out = predicted{got.perSecond, got.mean - got.waited[slot] - request}
		next := slots + dispatcher.Ahead(slots, request, out.handing)
		if next == underWay {
			break
		}
		underWay = next
	}
	return out
}

// lagOf is how long a delivery must wait, besides for processors, to be handed over in the time that was measured.
func (b scaleBench) lagOf(p point) time.Duration {
	low, high := time.Duration(0), p.handing
	for range 12 {
		if middle := (low + high) / 2; b.onThisMachine(p, middle).handing < p.handing {
			low = middle
		} else {
			high = middle
		}
	}
	return low
}

// capacityPlan is what a load takes.
type capacityPlan struct {
	ledgers, database, writers, broker, senders, slots int
}

// utilisation that parts are planned for, so that queues stay short.
const planned = 0.7

// eventsEach is how many events a delivery is: fired, planned, attempted.
const eventsEach = 3

// gathered is how many events one call appends at most.
const gathered = 1000

// planFor reckons how many of each part a load takes, in cores.
func (b modelBench) planFor(perSecond float64) capacityPlan {
	cores := func(us float64) int { return max(1, int(math.Ceil(perSecond*us/1e6/planned))) }
	p := capacityPlan{database: cores(b.costs.database), writers: cores(b.costs.writer), broker: cores(b.costs.broker), senders: cores(b.costs.sender)}
	p.ledgers = max((p.database+b.database-1)/b.database, int(math.Ceil(perSecond*eventsEach*b.costs.event/1e6/planned)))
	p.slots = max(1, int(math.Ceil(perSecond*b.latency.Seconds()/planned)))
	return p
}

// carry simulates multiples of a load, with the parts that each takes, each part on machines of its own.
func (s *settings) carry(b modelBench, base float64) error {
	w := tabwriter.NewWriter(s.env.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "\nLOAD\tDELIVERIES A SECOND\tLEDGERS\tDATABASE CORES\tWRITER CORES\tBROKER CORES\tSENDER CORES\tREQUESTS IN FLIGHT\tSIMULATED\tP99\tBUSIEST\n")
	slices.Sort(b.factors)
	for _, f := range b.factors {
		rate := base * float64(f)
		p := b.planFor(rate)
		// One ledger of them, with its part of everything: the others are the same.
		on := func(name string, cores int, us float64) station {
			return station{name: name, mean: time.Duration(us * float64(time.Microsecond)), varies: true, pool: &pool{name, (cores + p.ledgers - 1) / p.ledgers}}
		}
		stations := []station{
			{ // a call for the events of all that wait
				name: "the ledger's lock", servers: 1, mean: time.Duration(eventsEach * b.costs.event * float64(time.Microsecond)), varies: true,
				call: time.Duration(b.costs.call * float64(time.Microsecond)), most: gathered / eventsEach,
			},
			on("database", p.database, b.costs.database), on("writers", p.writers, b.costs.writer), on("broker", p.broker, b.costs.broker),
			on("senders", p.senders, b.costs.sender),
			{name: "receivers", servers: (p.slots + p.ledgers - 1) / p.ledgers, mean: b.latency},
		}
		got := simulate(stations, load{perSecond: rate / float64(p.ledgers)}, 100_000, 1)
		name, part := got.busiest(stations)
		fmt.Fprintf(w, "%d\t%.0f\t%d\t%d\t%d\t%d\t%d\t%d\t%.0f/s\t%s\t%s, %.0f %%\n", f, rate, p.ledgers, p.database, p.writers, p.broker, p.senders, p.slots,
			got.perSecond*float64(p.ledgers), got.p99.Round(time.Millisecond), name, 100*part)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	hours := func(us float64) float64 { return us / 3600 }
	c := b.costs
	_, err := fmt.Fprintf(s.env.stdout, "\na million deliveries: %.2f core hours in one process (%.2f of them the database's); %.2f with a broker (%.2f the database's, %.2f the senders', %.2f the broker's)\n",
		hours(c.service+c.database), hours(c.database), hours(c.writer+c.broker+c.sender+c.database), hours(c.database), hours(c.sender), hours(c.broker))
	return err
}

// busiest is the part of which most is taken.
func (s simulated) busiest(stations []station) (name string, part float64) {
	for i, at := range stations {
		busy := s.busy[i]
		switch {
		case at.pool != nil:
			busy = s.pools[at.pool]
		case at.call > 0: // it is always at some call; what more of them can be gathered for is another matter
			busy = s.perSecond * at.mean.Seconds()
		}
		if busy > part {
			name, part = at.name, busy
		}
	}
	return name, part
}
