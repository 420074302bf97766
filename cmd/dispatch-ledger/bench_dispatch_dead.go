package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// benchMore has more firings dispatched after those that were measured, and compares the most memory that each took.
func (st *store) benchMore(ctx context.Context, b dispatchBench) error {
	if b.more == 0 {
		return nil
	}
	before, err := mostMemory()
	if err != nil {
		return err
	}
	head, err := st.ledger.Head(ctx)
	if err != nil {
		return err
	}
	if err := st.fireMany(ctx, "bench", b.more); err != nil {
		return err
	}
	if err := st.untilRecorded(ctx, head, int64(b.more)); err != nil {
		return err
	}
	return st.compareMemory(before, fmt.Sprintf("after %d firings", b.firings), fmt.Sprintf("after %d more", b.more))
}

// compareMemory prints the most memory that this process took by an earlier moment and by now. It holds the bench and its
// sink besides the service.
func (st *store) compareMemory(before int64, first, then string) error {
	after, err := mostMemory()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(st.settings.env.stdout, "most memory of this process: %s %d MiB, %s %d MiB (%.2f times)\n", first, before>>20, then, after>>20, float64(after)/float64(before))
	return err
}

// warming is for how long firings are sent before any is timed.
const warming = 2 * time.Second

// benchLatency times single firings, from the start of POST /v1/events to the arrival of the request: alone, while deliveries
// to a target that never answers come in, and beside them once they are queued.
func (st *store) benchLatency(ctx context.Context, b dispatchBench, sink *benchSink) error {
	token := "bench-" + uuid.NewString()
	serving, stop := context.WithCancel(ctx)
	ready, served := make(chan string, 1), make(chan error, 1)
	go func() {
		served <- st.serve(serving, serveFlags{listen: "127.0.0.1:0", roles: []string{"api"}, bootstrapToken: token}, func(address string) { ready <- address })
	}()
	defer func() {
		stop()
		<-served //nolint:errcheck // the bench has what it wanted of it
	}()
	var address string
	select {
	case address = <-ready:
	case err := <-served:
		served <- err
		return err
	}
	d := demonstration{st: st, api: "http://" + address, token: token}
	fmt.Fprintf(st.settings.env.stdout, "from POST /v1/events to request received, %d a second:\n", b.perSecond)
	if _, err := d.time(ctx, b, sink, "", time.After(warming)); err != nil { // the first firings find everything cold
		return err
	}
	alone, err := d.time(ctx, b, sink, "nothing else", time.After(b.latency))
	if err != nil || b.dead == 0 {
		return errors.Join(err, st.printTimed(alone))
	}
	if err := st.benchTarget(ctx, "dead", "http://"+sink.address+"/dead", 16); err != nil {
		return err
	}
	var few int64 // the most memory, with a fifth of them queued
	queued := make(chan time.Time)
	queueing, queueingCtx := errgroup.WithContext(ctx)
	queueing.Go(func() error {
		defer close(queued)
		if err := st.fireUntilRead(queueingCtx, "dead", b.dead/5); err != nil {
			return err
		}
		var err error
		if few, err = mostMemory(); err != nil {
			return err
		}
		return st.fireUntilRead(queueingCtx, "dead", b.dead-b.dead/5)
	})
	arriving, err := d.time(ctx, b, sink, fmt.Sprintf("while %d deliveries to a dead target come in", b.dead), queued)
	if err := errors.Join(queueing.Wait(), err); err != nil {
		return err
	}
	standing, err := d.time(ctx, b, sink, fmt.Sprintf("beside %d deliveries queued to a dead target", b.dead), time.After(b.latency))
	if err != nil {
		return err
	}
	if err := st.printTimed(alone, arriving, standing); err != nil {
		return err
	}
	return st.compareMemory(few, fmt.Sprintf("with %d queued", b.dead/5), fmt.Sprintf("with %d", b.dead))
}

// fireUntilRead records firings and waits until every reader has read them: they are planned, queued and projected.
func (st *store) fireUntilRead(ctx context.Context, target string, n int) error {
	if err := st.fireMany(ctx, target, n); err != nil {
		return err
	}
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	// The planner answers each in the order in which they came, so all are answered once it has read up to here; then there
	// are no more of them to read than up to the head.
	for range 2 {
		head, err := st.ledger.Head(ctx)
		if err != nil {
			return err
		}
		for read := int64(0); read < head; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-ticker.C:
			}
			if err := st.db.QueryRowContext(ctx, `SELECT min(position) FROM subscriptions WHERE state = 'running'`).Scan(&read); err != nil {
				return err
			}
		}
	}
	return nil
}

// timed is how long single firings took, and what this process and the database's did meanwhile.
type timed struct {
	beside          string
	n               int
	p50, p99, worst time.Duration
	took            time.Duration
	spent           cpu
}

// printTimed prints how long firings took, each time beside the first.
func (st *store) printTimed(all ...timed) error {
	w := tabwriter.NewWriter(st.settings.env.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "BESIDE\tFIRINGS\tP50\tP99\tWORST\tP99 TIMES ALONE\tPROCESSORS BUSY")
	for _, t := range all {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%.2f\t%.2f\n", t.beside, t.n, t.p50.Round(10*time.Microsecond), t.p99.Round(10*time.Microsecond), t.worst.Round(10*time.Microsecond),
			t.p99.Seconds()/all[0].p99.Seconds(), (t.spent.service+t.spent.database).Seconds()/t.took.Seconds())
	}
	return w.Flush()
}

// time fires one at a time at the bench's pace until it is told to end, and measures each.
func (d demonstration) time(ctx context.Context, b dispatchBench, sink *benchSink, beside string, end <-chan time.Time) (t timed, err error) {
	type firing struct {
		sent    time.Time
		arrives <-chan time.Time
	}
	t.beside = beside
	before, err := d.st.spent(ctx)
	if err != nil {
		return t, err
	}
	start := time.Now()
	var firings []*firing
	group, sending := errgroup.WithContext(ctx)
	ticker := time.NewTicker(time.Second / time.Duration(b.perSecond))
	defer ticker.Stop()
	for more := true; more; {
		select {
		case <-ctx.Done():
			return t, errors.Join(ctx.Err(), group.Wait())
		case <-end:
			more = false
			continue
		case <-ticker.C:
		}
		f, i := &firing{}, len(firings)
		firings = append(firings, f)
		group.Go(func() error {
			event := uuid.New()
			f.arrives = sink.expect(domain.DeliveryID(event, "bench").String())
			data, err := json.Marshal(domain.ReactionFired{Reaction: "bench", Target: "bench", ProfileID: uuid.New(), Trigger: "reward.created", Cause: "reaction", Context: benchContext(i)})
			if err != nil {
				return err
			}
			f.sent = time.Now()
			_, err = d.send(sending, event.String(), "reaction.fired", string(data))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return t, err
	}
	t.took = time.Since(start)
	after, err := d.st.spent(ctx)
	if err != nil {
		return t, err
	}
	t.spent = after.since(before)
	all := make([]time.Duration, len(firings))
	for i, f := range firings {
		select {
		case at := <-f.arrives:
			all[i] = at.Sub(f.sent)
		case <-ctx.Done():
			return t, ctx.Err()
		}
	}
	if t.n = len(all); t.n == 0 {
		return t, errors.New("no firing was timed: it was over too soon")
	}
	slices.Sort(all)
	t.p50, t.p99, t.worst = all[t.n/2], all[t.n*99/100], all[t.n-1]
	return t, nil
}
