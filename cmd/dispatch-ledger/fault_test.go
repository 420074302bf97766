package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// strikes is how often a fault test strikes; a longer run: go test ./cmd/dispatch-ledger -run Kill -faults 50, or with
// DISPATCH_LEDGER_TEST_FAULTS=50.
var strikes = flag.Int("faults", faultsWanted(), "how often a fault test kills")

func faultsWanted() int {
	if n, err := strconv.Atoi(os.Getenv("DISPATCH_LEDGER_TEST_FAULTS")); err == nil && n > 0 {
		return n
	}
	return 4
}

// asProgram is the environment variable that makes this test binary behave as the program, so that fault tests can
// kill real processes of it.
const asProgram = "DISPATCH_LEDGER_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	if config := os.Getenv(asBroker); config != "" {
		runBroker(config)
	}
	os.Exit(m.Run())
}

// process is a running program.
type process struct {
	cmd     *exec.Cmd
	address string // of its API
	log     *bytes.Buffer
	done    chan struct{} // closed when it has ended
}

const testToken = "test-token-0123456789abcdef"

// startProgram runs the program, with a ledger, until it serves.
func startProgram(t *testing.T, databaseURL, dataDir string, args ...string) *process {
	t.Helper()
	return startServe(t, append([]string{
		"serve", "--database-url", databaseURL, "--data-dir", dataDir, "--listen", "127.0.0.1:0", "--bootstrap-token", testToken,
		"--allow-network", "127.0.0.0/8", "--lease-grace", "1s", "--log-level", "warn",
	}, args...)...)
}

// startServe runs the program until it serves.
func startServe(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0], args...), log: &bytes.Buffer{}, done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	p.cmd.Stderr = p.log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, after, ok := strings.Cut(lines.Text(), "Serving on http://"); ok {
			p.address, _, _ = strings.Cut(after, " ")
			break
		}
	}
	go func() {
		io.Copy(io.Discard, out)
		p.cmd.Wait()
		close(p.done)
	}()
	if p.address == "" {
		<-p.done
		t.Fatalf("the program did not serve: %s", p.log)
	}
	return p
}

// kill ends the process as a power cut would, and waits for it to be gone.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// sink is a platform that now and then fails, and knows every request that reached it.
type sink struct {
	*httptest.Server
	mu    sync.Mutex
	seen  map[string]int    // requests by delivery id
	took  map[string]int    // those that it took, whether or not its answer arrived
	watch func(body []byte) // is shown each request; nil: nobody
}

func newSink(t *testing.T) *sink {
	return newSinkThat(t, func() (takes bool, answer http.HandlerFunc) {
		n := mathrand.IntN(100)
		return n >= 10, func(w http.ResponseWriter, _ *http.Request) { // after an aborted answer nobody knows either
			switch {
			case n < 10:
				w.WriteHeader(http.StatusServiceUnavailable)
			case n < 15:
				panic(http.ErrAbortHandler)
			default:
				<-time.After(time.Duration(n) * time.Millisecond / 4) // requests in flight when the process dies
				w.WriteHeader(http.StatusAccepted)
			}
		}
	})
}

// newSinkThat makes a sink that is told for each request whether it takes it, and how it answers.
func newSinkThat(t *testing.T, does func() (takes bool, answer http.HandlerFunc)) *sink {
	s := &sink{seen: map[string]int{}, took: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if s.watch != nil {
			s.watch(body)
		}
		id := r.Header.Get("Idempotency-Key")
		if id == "" {
			id = r.Header.Get("Webhook-Id")
		}
		takes, answer := does()
		s.mu.Lock()
		s.seen[id]++
		if takes {
			s.took[id]++
		}
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// engine fires at a service that comes and goes, and remembers what was accepted.
type engine struct {
	mu       sync.Mutex
	address  string
	accepted map[string]int64 // position by CloudEvents id
}

func (e *engine) at(address string) {
	e.mu.Lock()
	e.address = address
	e.mu.Unlock()
}

// fire sends one firing until it is accepted, as a reaction engine has to.
func (e *engine) fire(ctx context.Context, target string) error {
	id := uuid.NewString()
	body := fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/engine","type":"reaction.fired","data":{"reaction":"r","target":%q,"profile_id":%q,"cause":"reaction","context":{"n":1}}}`, id, target, uuid.NewString())
	for {
		e.mu.Lock()
		address := e.address
		e.mu.Unlock()
		at, err := post(ctx, "http://"+address+"/v1/events", body)
		if err == nil {
			e.mu.Lock()
			e.accepted[id] = at
			e.mu.Unlock()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func post(ctx context.Context, url, body string) (position int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/cloudevents+json")
	req.Header.Set("Authorization", "Bearer "+testToken)
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err
	}
	if answer.StatusCode != http.StatusAccepted {
		return 0, fmt.Errorf("%s: %s", answer.Status, content)
	}
	var got struct{ Accepted []struct{ Position int64 } }
	if err := json.Unmarshal(content, &got); err != nil || len(got.Accepted) != 1 {
		return 0, fmt.Errorf("%s: %w", content, err)
	}
	return got.Accepted[0].Position, nil
}

// faultWorld is a service under load, with somebody who looks after it.
type faultWorld struct {
	url     string
	dataDir string
	args    []string // of the program besides
	sink    *sink
	engine  *engine
	load    sync.WaitGroup
	stop    context.CancelFunc
}

// newFaultWorld puts a target in place and starts firing at it.
func newFaultWorld(t *testing.T, databaseURL string, args ...string) (*faultWorld, *process) {
	t.Helper()
	w := &faultWorld{url: databaseURL, dataDir: t.TempDir(), args: args, sink: newSink(t), engine: &engine{accepted: map[string]int64{}}}
	p := startProgram(t, w.url, w.dataDir, args...)
	w.engine.at(p.address)
	w.applyTarget(t)
	ctx, stop := context.WithCancel(t.Context())
	w.stop = stop
	for range 8 {
		w.load.Go(func() {
			for ctx.Err() == nil {
				if err := w.engine.fire(ctx, "sink"); err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				select { // enough to have requests in flight at any moment; judging takes as long as there are firings
				case <-time.After(10 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	return w, p
}

// applyTarget puts the target in place that leads to the sink.
func (w *faultWorld) applyTarget(t *testing.T) {
	t.Helper()
	file := fmt.Sprintf("handle: sink\nplatform: webhook\nurl: %s\nbody: '{\"n\": {{ n }}}'\nretry: {max_attempts: 20, timeout: 1s, base: 10ms, max: 200ms}\nlimits: {concurrency: 32}\n", w.sink.URL)
	w.run(t, file, "targets", "apply", "-")
}

// run runs a command of the program.
func (w *faultWorld) run(t *testing.T, stdin string, command ...string) {
	t.Helper()
	var stderr bytes.Buffer
	env := environ{lookup: os.LookupEnv, stdin: strings.NewReader(stdin), stdout: io.Discard, stderr: &stderr}
	if code := run(t.Context(), env, append(append(command, "--database-url", w.url, "--data-dir", w.dataDir, "--log-level", "error"), w.args...)); code != exitDone {
		t.Fatalf("%s: exit code %d: %s", strings.Join(command, " "), code, &stderr)
	}
}

// connect opens the world's ledger.
func (w *faultWorld) connect(t *testing.T) *sql.DB {
	t.Helper()
	db, err := schema.Connect(w.url, schema.Options{Paths: projections.Paths("", builtIn...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// pause lets the load go on for a random while.
func (w *faultWorld) pause() { <-time.After(time.Duration(200+mathrand.IntN(600)) * time.Millisecond) }

// judge ends the load, waits for every delivery to be settled, and holds the ledger against what the engine was told
// and what the sink saw.
func (w *faultWorld) judge(t *testing.T) {
	t.Helper()
	w.stop()
	w.load.Wait()
	db := w.connect(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		var firings, settled, behind int
		err := db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM events WHERE type = 'reaction.fired'), (SELECT count(*) FROM deliveries WHERE finished_at IS NOT NULL),
			(SELECT count(*) FROM subscriptions WHERE position < (SELECT max(position) FROM events))`).Scan(&firings, &settled, &behind)
		if err != nil {
			t.Fatal(err)
		}
		if firings == settled && behind == 0 {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%d of %d deliveries settled, %d readers behind", settled, firings, behind)
		}
	}
	w.judgeEvents(ctx, t, db)
	w.judgeRequests(ctx, t, db)
	report, err := projections.NewEngine(db, "", nil, builtIn...).Verify(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range report.Problems {
		t.Error(p)
	}
	t.Logf("%d firings accepted, %d requests seen by the sink, %d events verified", len(w.engine.accepted), w.sink.total(), report.Head)
}

// judgeEvents finds every accepted event exactly once, where the engine was told that it stands.
func (w *faultWorld) judgeEvents(ctx context.Context, t *testing.T, db *sql.DB) {
	t.Helper()
	stands := map[uuid.UUID]int64{}
	for e, err := range schema.Events(ctx, db, schema.Filter{Types: []string{"reaction.fired"}}) {
		if err != nil {
			t.Fatal(err)
		}
		if at, twice := stands[e.ID]; twice {
			t.Errorf("event %s stands at %d and %d", e.ID, at, e.Position)
		}
		stands[e.ID] = e.Position
	}
	for id, position := range w.engine.accepted {
		if got := stands[uuid.MustParse(id)]; got != position {
			t.Errorf("event %s was accepted at position %d and stands at %d", id, position, got)
		}
	}
}

// judgeRequests accounts for every request that the sink saw: each is an attempt of the ledger, answered or lost.
func (w *faultWorld) judgeRequests(ctx context.Context, t *testing.T, db *sql.DB) {
	t.Helper()
	w.sink.mu.Lock()
	defer w.sink.mu.Unlock()
	duplicates, unknown := 0, 0
	for id, requests := range w.sink.seen {
		d, err := deliveries.Get(ctx, db, uuid.MustParse(id))
		if err != nil {
			t.Errorf("the sink saw a request that the ledger knows nothing of: %s", err)
			continue
		}
		doubtful := 0
		for _, a := range d.Trail {
			if a.Verdict == domain.Lost || a.Verdict == domain.NetworkError || a.Verdict == domain.Timeout {
				doubtful++
			}
		}
		if len(d.Trail) < requests {
			t.Errorf("delivery %s: the sink saw %d requests, the ledger holds %d attempts", id, requests, len(d.Trail))
		}
		if d.Attempts > 1 {
			duplicates++
		}
		if again := w.sink.took[id] - 1; again > doubtful {
			t.Errorf("delivery %s: the sink took it %d times, and only %d attempts are marked as of unknown outcome", id, again+1, doubtful)
		}
		unknown += doubtful
	}
	t.Logf("%d deliveries took more than one attempt; %d attempts ended with an unknown outcome, each marked", duplicates, unknown)
}

func (s *sink) total() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, requests := range s.seen {
		n += requests
	}
	return n
}

func TestKillTheProcess(t *testing.T) {
	t.Parallel()
	w, p := newFaultWorld(t, schematest.Open(t).URL)
	for range *strikes {
		w.pause()
		p.kill()
		p = startProgram(t, w.url, w.dataDir)
		w.engine.at(p.address)
	}
	w.pause()
	w.judge(t)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	<-p.done
	if code := p.cmd.ProcessState.ExitCode(); code != exitDone {
		t.Errorf("after SIGTERM the program ended with %d: %s", code, p.log)
	}
}

func TestKillPostgreSQL(t *testing.T) {
	t.Parallel()
	server := schematest.NewServer(t)
	w, _ := newFaultWorld(t, server.URL)
	for range *strikes {
		w.pause()
		server.Kill()
		w.pause()
		server.Restart()
	}
	w.pause()
	w.judge(t)
}

func TestTheDemoChecksItself(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	env := environ{lookup: func(string) (string, bool) { return "", false }, stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr}
	if code := run(t.Context(), env, []string{"demo", "--once", "--ledger", "demo_" + strings.ToLower(rand.Text()[:8])}); code != exitDone {
		t.Errorf("demo --once ended with %d\n%s%s", code, &stdout, &stderr)
	}
	for _, want := range []string{"SUCCEEDED", "WITHHELD", "REJECTED", "HTTP 429", "HTTP 503", "2 were recognised as repeats", "every leaf and every projection follows"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("the demo does not show %q", want)
		}
	}
	if strings.Contains(stdout.String(), "demo-key") {
		t.Error("the demo prints a secret")
	}
}
