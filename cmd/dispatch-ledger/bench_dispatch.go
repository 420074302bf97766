package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
)

// dispatchBench says how much is measured.
type dispatchBench struct {
	firings, concurrency int
	more                 int           // firings that are dispatched after those, to see whether memory grows
	dead                 int           // deliveries queued to a target that never answers
	latency              time.Duration // how long single firings are timed
	perSecond            int
	profile              string // file for a CPU profile of the throughput run
}

func newBenchDispatch(s *settings) *cobra.Command {
	var b dispatchBench
	cmd := &cobra.Command{
		Use: "dispatch", Short: "From firings to requests received: rate beside a bare client, latency, and what a dead target costs another", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.benchmark(cmd, func(ctx context.Context, st *store) error { return st.benchDispatch(ctx, b) })
		},
	}
	cmd.Flags().IntVar(&b.firings, "firings", 20_000, "firings that wait when the workers start")
	cmd.Flags().IntVar(&b.concurrency, "target-concurrency", 64, "the target's limits.concurrency, and the bare client's")
	cmd.Flags().DurationVar(&b.latency, "latency", 10*time.Second, "how long single firings are timed; 0 leaves it out")
	cmd.Flags().IntVar(&b.perSecond, "per-second", 50, "single firings in a second")
	cmd.Flags().IntVar(&b.dead, "dead", 0, "deliveries to queue to a target that never answers while firings are timed, and before they are timed again; 0 leaves it out")
	cmd.Flags().IntVar(&b.more, "more", 0, "firings that wait a second time, to compare the most memory that each took; 0 leaves it out")
	cmd.Flags().StringVar(&b.profile, "cpu-profile", "", "file for a CPU profile of the throughput run")
	return cmd
}

// slowly begins the path of requests that the sink answers late.
const slowly = "/after/"

// benchSink receives requests, and says when those arrive that somebody waits for.
type benchSink struct {
	address  string
	server   *http.Server
	received atomic.Int64
	mu       sync.Mutex
	expected map[string]chan<- time.Time // by webhook-id; guarded by mu
	counted  func()                      // after each request; nil: nobody counts
}

func newBenchSink(ctx context.Context) (*benchSink, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	sink := &benchSink{address: l.Addr().String(), expected: map[string]chan<- time.Time{}}
	sink.server = &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now()
		if r.URL.Path == "/dead" {
			<-r.Context().Done()
			return
		}
		if wait, ok := strings.CutPrefix(r.URL.Path, slowly); ok { // as long as its last part says
			if d, err := time.ParseDuration(wait); err == nil {
				<-time.After(d)
			}
		}
		io.Copy(io.Discard, r.Body) //nolint:errcheck // a client that is gone is not counted on
		sink.arrived(r.Header.Get("webhook-id"), now)
		sink.received.Add(1)
		if sink.counted != nil {
			sink.counted()
		}
		w.WriteHeader(http.StatusAccepted)
	})}
	go sink.server.Serve(l) //nolint:errcheck // it ends with Close
	return sink, nil
}

// expect gives when the first request of a delivery arrives. Of others the sink remembers nothing, so that what it holds does
// not grow with what it receives.
func (b *benchSink) expect(id string) <-chan time.Time {
	at := make(chan time.Time, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expected[id] = at
	return at
}

func (b *benchSink) arrived(id string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if at, ok := b.expected[id]; ok {
		at <- now
		delete(b.expected, id)
	}
}

// benchContext is the context of one firing, about 400 bytes of it; the event is about 500.
func benchContext(i int) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"profile":{"email":"person-%d@example.com","first_name":"Person","last_name":"Number %[1]d","reward_balance":%[1]d},`+
		`"reward":{"amount":10,"expires_at":"2026-12-31","note":%q}}`, i, strings.Repeat("n", 220)))
}

const benchBody = `{"email": "{{ profile.email }}", "name": "{{ profile.first_name }} {{ profile.last_name }}", "balance": {{ profile.reward_balance }},
 "amount": {{ reward.amount }}, "expires": "{{ reward.expires_at|date('j F Y') }}", "note": "{{ reward.note }}"}`

func (st *store) benchTarget(ctx context.Context, handle, url string, concurrency int) error {
	t := domain.TargetChanged{Target: domain.Target{
		Handle: handle, Platform: "webhook", URL: url, Body: benchBody,
		Consent: &domain.ConsentRule{Channel: domain.Email, Purpose: "service"},
		Limits:  domain.Limits{Concurrency: concurrency}, Retry: domain.Retry{Timeout: domain.Duration(10 * time.Second)},
	}}
	t.Normalize()
	if err := t.Validate(); err != nil {
		return err
	}
	return st.applyTarget(ctx, t)
}

// fireMany records firings of one target in batches, each about a person of its own.
func (st *store) fireMany(ctx context.Context, target string, n int) error {
	const batch = 500
	service := st.intake()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for from := 0; from < n; from += batch {
		group.Go(func() error {
			events := make([]intake.Event, min(batch, n-from))
			for i := range events {
				data, err := json.Marshal(domain.ReactionFired{Reaction: "bench", Target: target, ProfileID: uuid.New(), Trigger: "reward.created", Cause: "reaction", Context: benchContext(from + i)})
				if err != nil {
					return err
				}
				events[i] = intake.Event{ID: uuid.NewString(), Source: "/bench", Type: "reaction.fired", Time: time.Now(), Data: data}
			}
			_, err := service.Accept(ctx, "bench", events)
			return err
		})
	}
	return group.Wait()
}

// benchDispatch measures, in this order: a bare client, the ledger's dispatch of what waits, single firings, and single
// firings beside a dead target.
func (st *store) benchDispatch(ctx context.Context, b dispatchBench) (err error) {
	sink, err := newBenchSink(ctx)
	if err != nil {
		return err
	}
	defer sink.server.Close()
	out := st.settings.env.stdout

	bare, err := bareClient(ctx, "http://"+sink.address+"/bare", b.concurrency, b.firings)
	if err != nil {
		return err
	}
	if err := st.benchTarget(ctx, "bench", "http://"+sink.address+"/live", b.concurrency); err != nil {
		return err
	}
	start := time.Now()
	if err := st.fireMany(ctx, "bench", b.firings); err != nil {
		return err
	}
	accepted := float64(b.firings) / time.Since(start).Seconds()

	working, stop := context.WithCancel(ctx)
	worked := make(chan error, 1)
	sink.received.Store(0)
	stopProfile, err := profileCPU(b.profile)
	if err != nil {
		stop()
		return err
	}
	before, err := st.spent(ctx)
	if err != nil {
		stop()
		return err
	}
	start = time.Now()
	go func() {
		worked <- st.work(working, workerOptions{allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, variables: map[string]any{}, concurrency: 256, grace: 5 * time.Second})
	}()
	defer func() {
		stop()
		err = errors.Join(err, <-worked)
	}()
	if err := st.untilRecorded(ctx, 0, int64(b.firings)); err != nil {
		return err
	}
	took := time.Since(start)
	stopProfile()
	after, err := st.spent(ctx)
	if err != nil {
		return err
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	rate := float64(b.firings) / took.Seconds()
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "WHAT\tA SECOND\tTIMES BARE\n")
	fmt.Fprintf(w, "bare client, %d at once, nothing recorded\t%.0f\t1.00\n", b.concurrency, bare)
	fmt.Fprintf(w, "firings accepted, in batches\t%.0f\t%.2f\n", accepted, accepted/bare)
	fmt.Fprintf(w, "deliveries: planned, sent, each attempt recorded\t%.0f\t%.2f\n", rate, rate/bare)
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d firings in %s, %d requests received, heap %d MiB\n", b.firings, took.Round(time.Millisecond), sink.received.Load(), memory.HeapAlloc>>20)
	fmt.Fprintln(out, after.since(before).each("a delivery", "service with the sink", b.firings))
	if err := st.benchMore(ctx, b); err != nil {
		return err
	}
	if b.latency == 0 {
		return nil
	}
	return st.benchLatency(ctx, b, sink)
}

// untilRecorded waits until so many attempts stand in the ledger after a position.
func (st *store) untilRecorded(ctx context.Context, after, n int64) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	var seen int64
	for seen < n {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		var more, head int64
		if err := st.db.QueryRowContext(ctx, `SELECT count(*) FILTER (WHERE type = 'delivery.attempted' AND state = 'succeeded'), coalesce(max(position), $1) FROM events WHERE position > $1`, after).Scan(&more, &head); err != nil {
			return err
		}
		seen, after = seen+more, head
	}
	return nil
}

// bareClient posts bodies of the size of the bench's and gives the rate a second.
func bareClient(ctx context.Context, url string, concurrency, n int) (float64, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConns: concurrency, MaxIdleConnsPerHost: concurrency}}
	defer client.CloseIdleConnections()
	body := append([]byte(nil), benchContext(1)...)
	group, ctx := errgroup.WithContext(ctx)
	var left atomic.Int64
	left.Store(int64(n))
	start := time.Now()
	for range concurrency {
		group.Go(func() error {
			for left.Add(-1) >= 0 {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
				if err != nil {
					return err
				}
				req.Header.Set("Content-Type", "application/json")
				answer, err := client.Do(req)
				if err != nil {
					return err
				}
				io.Copy(io.Discard, answer.Body) //nolint:errcheck // a sink's empty answer
				answer.Body.Close()
			}
			return nil
		})
	}
	err := group.Wait()
	return float64(n) / time.Since(start).Seconds(), err
}

// profileCPU writes a CPU profile into a file until it is stopped; without a file it does nothing.
func profileCPU(file string) (stop func(), err error) {
	if file == "" {
		return func() {}, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}, nil
}
