package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	wnats "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/broker"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// clusterStrikes is how many faults the test of the cluster makes; the long run:
// go test ./cmd/dispatch-ledger -run TestClusterUnderFaults -cluster-faults 200 -timeout 30m
var clusterStrikes = flag.Int("cluster-faults", 6, "how many faults the test of the broker's cluster makes")

// asBroker is the environment variable that makes this test binary one server of a cluster: its configuration.
const asBroker = "DISPATCH_LEDGER_TEST_AS_BROKER"

// runBroker is a server of the cluster until it is killed.
func runBroker(config string) {
	var c broker.EmbeddedConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		panic(err)
	}
	if _, err := broker.StartEmbedded(c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitFailed)
	}
	select {}
}

// node is one server of the cluster.
type node struct {
	config broker.EmbeddedConfig
	cmd    *exec.Cmd
}

func (n *node) start(t *testing.T) {
	t.Helper()
	config, err := json.Marshal(n.config)
	if err != nil {
		t.Fatal(err)
	}
	n.cmd = exec.Command(os.Args[0])
	n.cmd.Env = append(os.Environ(), asBroker+"="+string(config))
	n.cmd.Stderr = os.Stderr
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (n *node) kill() {
	n.cmd.Process.Kill()
	n.cmd.Wait()
}

// freePorts are ports that nobody listens on at the moment.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}

// startCluster starts three servers, and gives the URL of all of them.
func startCluster(t *testing.T) (nodes []*node, url string) {
	t.Helper()
	ports := freePorts(t, 6)
	var urls, routes []string
	for i := range 3 {
		urls = append(urls, fmt.Sprintf("nats://dispatch-ledger:cluster@127.0.0.1:%d", ports[i]))
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", ports[3+i]))
	}
	for i := range 3 {
		n := &node{config: broker.EmbeddedConfig{
			Dir: t.TempDir(), Name: fmt.Sprint("node-", i), Port: ports[i], Password: "cluster", Cluster: "test", ClusterPort: ports[3+i], Routes: routes,
		}}
		n.start(t)
		t.Cleanup(n.kill)
		nodes = append(nodes, n)
	}
	return nodes, strings.Join(urls, ",")
}

// clusterWorld is a ledger, a writer, dispatchers and a cluster of brokers, each a process of its own, under load.
type clusterWorld struct {
	t        *testing.T
	database *schematest.Server
	dataDir  string
	broker   string
	nodes    []*node
	writer   *process
	join     string
	workers  []*process
	sink     *sink
	engine   *engine

	mu        sync.Mutex
	published map[string]bool      // ids of firings that the cluster has acknowledged
	withdrawn map[string]time.Time // by profile: when the withdrawal was known to be recorded
	late      []string             // requests that began too late after a withdrawal
}

func (w *clusterWorld) startWriter() {
	w.writer = startProgram(w.t, w.database.URL, w.dataDir, "--broker", w.broker, "--lease-grace", "5s")
	w.engine.at(w.writer.address)
}

func (w *clusterWorld) startDispatcher() *process {
	w.t.Helper()
	return startServe(w.t, "serve", "--roles", "dispatch", "--broker", w.broker, "--join", w.join, "--listen", "127.0.0.1:0",
		"--allow-network", "127.0.0.0/8", "--log-level", "warn", "--data-dir", w.t.TempDir(), "--concurrency", "64")
}

// newClusterWorld puts everything in place. It waits for the cluster to have a leader, as a writer's start needs one.
func newClusterWorld(t *testing.T, dispatchers int) *clusterWorld {
	t.Helper()
	w := &clusterWorld{
		t: t, database: schematest.NewServer(t), dataDir: t.TempDir(), engine: &engine{accepted: map[string]int64{}},
		published: map[string]bool{}, withdrawn: map[string]time.Time{},
	}
	w.sink = newSink(t)
	w.sink.watch = w.seen
	w.nodes, w.broker = startCluster(t)
	w.awaitCluster()
	w.startWriter()
	w.join = strings.TrimSpace(w.command("", "token", "create", "--role", "dispatcher", "--name", "fleet"))
	w.command(fmt.Sprintf("handle: sink\nplatform: webhook\nurl: %s\nbody: '{\"profile\": \"{{ p }}\"}'\nconsent: {channel: email, purpose: account, mode: enforce}\n"+
		"retry: {max_attempts: 30, timeout: 1s, base: 10ms, max: 200ms}\nlimits: {concurrency: 16}\n", w.sink.URL), "targets", "apply", "-")
	for range dispatchers {
		w.workers = append(w.workers, w.startDispatcher())
	}
	return w
}

// command runs the program against the ledger and gives what it prints.
func (w *clusterWorld) command(stdin string, args ...string) string {
	w.t.Helper()
	var stdout, stderr bytes.Buffer
	env := environ{lookup: os.LookupEnv, stdin: strings.NewReader(stdin), stdout: &stdout, stderr: &stderr}
	args = append(args, "--database-url", w.database.URL, "--data-dir", w.dataDir, "--log-level", "error")
	if code := run(w.t.Context(), env, args); code != exitDone {
		w.t.Fatalf("%v: exit code %d: %s", args, code, &stderr)
	}
	return stdout.String()
}

// awaitCluster returns once a stream with three copies can be made.
func (w *clusterWorld) awaitCluster() {
	w.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		b, err := broker.Connect(w.t.Context(), broker.Config{URL: w.broker, Ledger: "ledger"})
		if err == nil {
			err = b.Provision(w.t.Context())
			b.Close(w.t.Context())
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatal(err)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// load publishes firings to the cluster until ctx ends, each until it is acknowledged, and now and then has a person
// withdraw while firings for them are under way.
func (w *clusterWorld) load(ctx context.Context, done *sync.WaitGroup) {
	for i := range 4 {
		done.Go(func() {
			conn, err := nats.Connect(w.broker, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
			if err != nil {
				w.t.Error(err)
				return
			}
			defer conn.Close()
			put, err := wnats.NewPublisherWithNatsConn(conn, wnats.PublisherPublishConfig{
				Marshaler: &wnats.NATSMarshaler{}, SubjectCalculator: wnats.DefaultSubjectCalculator, JetStream: wnats.JetStreamConfig{TrackMsgId: true},
			}, nil)
			if err != nil {
				w.t.Error(err)
				return
			}
			subject := broker.EventsSubject("ledger", fmt.Sprint("engine-", i))
			for n := 0; ctx.Err() == nil; n++ {
				profile := uuid.NewString()
				firings := 1
				if n%5 == 0 {
					firings = 6
				}
				for range firings {
					w.publish(ctx, put, subject, profile)
				}
				if n%5 == 0 {
					done.Go(func() { w.withdraw(ctx, profile) })
				}
				<-time.After(25 * time.Millisecond)
			}
		})
	}
}

func (w *clusterWorld) publish(ctx context.Context, put message.Publisher, subject, profile string) {
	id := uuid.NewString()
	body := fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/engine","type":"reaction.fired","data":{"reaction":"r","target":"sink","profile_id":%q,"cause":"reaction","context":{"p":%q}}}`, id, profile, profile)
	for ctx.Err() == nil {
		if err := put.Publish(subject, message.NewMessage(id, []byte(body))); err == nil {
			w.mu.Lock()
			w.published[id] = true
			w.mu.Unlock()
			return
		}
		<-time.After(20 * time.Millisecond)
	}
}

// withdraw has a person opt out a moment later, and notes when the ledger has confirmed it.
func (w *clusterWorld) withdraw(ctx context.Context, profile string) {
	<-time.After(time.Duration(mathrand.IntN(100)) * time.Millisecond)
	body := fmt.Sprintf(`{"changes":[{"channel":"email","purpose":"all","status":"opted_out"}],"decided_at":%q,"decided_by":"customer","method":"preference_centre"}`, time.Now().UTC().Format(time.RFC3339Nano))
	for ctx.Err() == nil {
		w.engine.mu.Lock()
		address := w.engine.address
		w.engine.mu.Unlock()
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+address+"/v1/profiles/"+profile+"/consent", strings.NewReader(body))
		if err != nil {
			w.t.Error(err)
			return
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+testToken)
		if answer, err := http.DefaultClient.Do(req); err == nil {
			content, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			if answer.StatusCode < 300 {
				w.mu.Lock()
				w.withdrawn[profile] = time.Now()
				w.mu.Unlock()
				return
			}
			if answer.StatusCode < 500 && answer.StatusCode != http.StatusTooManyRequests {
				w.t.Errorf("withdrawing was refused: %s: %s", answer.Status, content)
				return
			}
		}
		<-time.After(20 * time.Millisecond)
	}
}

// grace is what a request may take from where it begins to the sink, on a machine that is busy killing processes.
const grace = time.Second

// seen holds a request that reached the sink against the withdrawals.
func (w *clusterWorld) seen(body []byte) {
	var got struct{ Profile string }
	if json.Unmarshal(body, &got) != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if at, ok := w.withdrawn[got.Profile]; ok && time.Since(at) > broker.Staleness+grace {
		w.late = append(w.late, fmt.Sprintf("%s: %s after the withdrawal was recorded", got.Profile, time.Since(at)))
	}
}

// strike makes one fault.
func (w *clusterWorld) strike() {
	w.t.Helper()
	select {
	case <-w.writer.done:
		w.t.Fatalf("the writer ended by itself: %s", w.writer.log)
	default:
	}
	moment := func() { <-time.After(time.Duration(100+mathrand.IntN(900)) * time.Millisecond) }
	switch fault := mathrand.IntN(6); fault {
	case 0: // a server of the cluster dies
		n := w.nodes[mathrand.IntN(len(w.nodes))]
		n.kill()
		moment()
		n.start(w.t)
	case 1: // a server is cut off: to the others as if the network were
		n := w.nodes[mathrand.IntN(len(w.nodes))]
		n.cmd.Process.Signal(syscall.SIGSTOP)
		moment()
		moment()
		n.cmd.Process.Signal(syscall.SIGCONT)
	case 2: // a dispatcher dies
		i := mathrand.IntN(len(w.workers))
		w.workers[i].kill()
		moment()
		w.workers[i] = w.startDispatcher()
	case 3: // the writer dies
		w.writer.kill()
		moment()
		w.startWriter()
	case 4: // the database dies
		w.database.Kill()
		moment()
		w.database.Restart()
	case 5: // two servers die: no majority for a while
		w.nodes[0].kill()
		w.nodes[1].kill()
		moment()
		w.nodes[0].start(w.t)
		w.nodes[1].start(w.t)
		w.awaitCluster()
	}
}

// judge waits until every firing that was acknowledged is accounted for, and asks the oracle.
func (w *clusterWorld) judge() {
	w.t.Helper()
	db, err := schema.Connect(w.database.URL, schema.Options{Paths: projections.Paths("", builtIn...)})
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	ctx := w.t.Context()
	w.settle(ctx, db)
	stands := map[string]bool{}
	for e, err := range schema.Events(ctx, db, schema.Filter{Types: []string{"reaction.fired"}}) {
		if err != nil {
			w.t.Fatal(err)
		}
		if stands[e.ID.String()] {
			w.t.Errorf("firing %s stands twice", e.ID)
		}
		stands[e.ID.String()] = true
	}
	for id := range w.published {
		if !stands[id] {
			w.t.Errorf("firing %s was acknowledged and is not in the ledger", id)
		}
	}
	(&faultWorld{sink: w.sink, engine: w.engine}).judgeRequests(ctx, w.t, db)
	for _, late := range w.late {
		w.t.Errorf("a request began too late: %s", late)
	}
	report, err := projections.NewEngine(db, "", nil, builtIn...).Verify(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, p := range report.Problems {
		w.t.Error(p)
	}
	w.t.Logf("%d firings acknowledged, %d withdrawals, %d requests seen by the sink, %d events verified", len(w.published), len(w.withdrawn), w.sink.total(), report.Head)
}

// settle returns once every firing that was acknowledged is in the ledger and settled. It gives up when nothing has moved for
// as long as anything may take.
func (w *clusterWorld) settle(ctx context.Context, db *sql.DB) {
	w.t.Helper()
	const patience = 90 * time.Second
	var head int64
	moved := time.Now()
	for {
		var firings, settled, behind int
		var now int64
		err := db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM events WHERE type = 'reaction.fired'), (SELECT count(*) FROM deliveries WHERE finished_at IS NOT NULL),
			(SELECT count(*) FROM subscriptions WHERE position < (SELECT max(position) FROM events)), (SELECT max(position) FROM events)`).Scan(&firings, &settled, &behind, &now)
		if err == nil && firings >= len(w.published) && firings == settled && behind == 0 {
			return
		}
		if now > head {
			head, moved = now, time.Now()
		}
		if time.Since(moved) > patience {
			w.t.Fatalf("nothing moves any more: %d firings acknowledged, %d in the ledger, %d settled, %d readers behind; %v; the writer says: %s", len(w.published), firings, settled, behind, err, w.writer.log)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// TestClusterUnderFaults kills and cuts off what there is, in random order, under load.
func TestClusterUnderFaults(t *testing.T) {
	t.Parallel()
	w := newClusterWorld(t, 3)
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	w.load(ctx, &load)
	for range *clusterStrikes {
		<-time.After(time.Duration(200+mathrand.IntN(400)) * time.Millisecond)
		w.strike()
	}
	<-time.After(500 * time.Millisecond)
	stop()
	load.Wait()
	w.judge()
}

// epoch is the newest key of the fleet.
func (w *clusterWorld) epoch() (epoch int64) {
	w.t.Helper()
	db, err := schema.Connect(w.database.URL, schema.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(w.t.Context(), `SELECT max(epoch) FROM fleet_keys`).Scan(&epoch); err != nil {
		w.t.Fatal(err)
	}
	return epoch
}

// TestARevokedDispatcherLeaves revokes the fleet's token under way: the key changes, dispatchers end, and nothing is lost.
func TestARevokedDispatcherLeaves(t *testing.T) {
	t.Parallel()
	w := newClusterWorld(t, 1)
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	w.load(ctx, &load)
	for w.sink.total() < 20 {
		<-time.After(10 * time.Millisecond)
	}
	stop()
	load.Wait()
	before := w.epoch()
	w.command("", "token", "revoke", "fleet")
	<-w.workers[0].done
	if after := w.epoch(); after <= before {
		t.Errorf("the fleet's key is still that of epoch %d: whoever had it reads what comes", after)
	}
	if code := w.workers[0].cmd.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(w.workers[0].log.String(), "not admitted") {
		t.Errorf("the revoked dispatcher ended with %d: %s", code, w.workers[0].log)
	}
	w.join = strings.TrimSpace(w.command("", "token", "create", "--role", "dispatcher", "--name", "next"))
	w.workers[0] = w.startDispatcher()
	w.judge()
}
