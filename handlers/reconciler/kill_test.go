package reconciler_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/reconciler"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// The environment of a process that reconciles until it is killed.
const (
	envDatabase = "RECONCILER_TEST_DATABASE"
	envKey      = "RECONCILER_TEST_KEY"
	envPlatform = "RECONCILER_TEST_PLATFORM"
	envProxy    = "RECONCILER_TEST_PROXY"
)

// reconcileAsProgram is that process: what TestMain runs instead of the tests when the environment says so.
func reconcileAsProgram(ctx context.Context) error {
	w, err := openWorld(ctx, os.Getenv(envDatabase), os.Getenv(envKey))
	if err != nil {
		return err
	}
	clock := &remote{client: &http.Client{Transport: hostless{strings.TrimPrefix(os.Getenv(envProxy), "http://")}}}
	if err := clock.sleep(ctx, 0); err != nil {
		return err
	}
	service, err := reconciler.New(reconciler.Config{
		DB: w.ledger.DB(), Ledger: w.ledger, Vault: w.vault, Now: clock.now, Settle: w.settle, HTTP: clock.client, Sleep: clock.sleep,
	})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		err := service.Work(ctx, os.Getenv(envPlatform), nil)
		switch {
		case errors.Is(err, reconciler.ErrRunning): // the one before us is dead; its connection is not yet
			return struct{}{}, err
		case errors.Is(err, schema.ErrNotFound):
			return struct{}{}, nil
		case err != nil:
			return struct{}{}, backoff.Permanent(err)
		}
		return struct{}{}, nil
	}, backoff.WithBackOff(backoff.NewConstantBackOff(10*time.Millisecond)))
	if err == nil {
		fmt.Println("done")
	}
	return err
}

// remote is the clock of the test that started this process: whoever waits moves it for all.
type remote struct {
	client *http.Client
	ahead  atomic.Int64 // nanoseconds
}

func (r *remote) now() time.Time { return time.Now().Add(time.Duration(r.ahead.Load())) }

func (r *remote) sleep(ctx context.Context, d time.Duration) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://clock.test/?wait="+strconv.FormatInt(int64(d), 10), nil)
	if err != nil {
		return err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	ahead, err := strconv.ParseInt(string(said), 10, 64)
	r.ahead.Store(ahead)
	return err
}

// hostless sends every request to one address, with the host that was asked for in its Host header.
type hostless struct{ address string }

// RoundTrip implements http.RoundTripper.
func (h hostless) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Host = r.URL.Host
	r.URL.Scheme, r.URL.Host = "http", h.address
	return http.DefaultTransport.RoundTrip(r)
}

// TestKilled kills the process that reconciles with SIGKILL, at ten random points, and each time another one goes on. The end
// is that of a run that nobody disturbed.
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, platform := range platformsUnderTest() {
		t.Run(platform, func(t *testing.T) {
			t.Parallel()
			var ahead atomic.Int64
			w := newWorldAt(t, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
			server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if wait, err := strconv.ParseInt(r.URL.Query().Get("wait"), 10, 64); err == nil && r.Host == "clock.test" {
					fmt.Fprint(rw, ahead.Add(wait))
					return
				}
				w.mu.Lock()
				sim := w.sims[r.Host]
				w.mu.Unlock()
				sim.ServeHTTP(rw, r)
			}))
			t.Cleanup(server.Close)
			c := w.connect(t, platform, nil, simulator.Options{Unlimited: true})
			d := plant(t, c)

			started := time.Now()
			check := c.begin(t, reconciler.Request{Check: true})
			c.process(t, server.URL, -1)
			took := time.Since(started)
			want := c.run(t, check).Counts.Differences

			id := c.begin(t, reconciler.Request{})
			first := id
			for kills := 0; kills < killings(platform); {
				if c.process(t, server.URL, time.Duration(rand.Int64N(int64(took)/2))) {
					id = c.begin(t, reconciler.Request{Mode: reconciler.Full}) // it was done before it could be killed as often
					continue
				}
				kills++
			}
			c.process(t, server.URL, -1)
			if r := c.run(t, first); !maps.Equal(r.Counts.Differences, want) {
				t.Errorf("the run found %v; a check that nobody disturbed found %v", r.Counts.Differences, want)
			}
			if r := c.run(t, id); r.State != domain.RunDone {
				t.Errorf("the last run ended %s: %+v", r.State, r.Counts)
			}
			d.settled(t, c)
			findings := 1
			if platform == "yotpo" {
				findings = 0
			}
			if got := len(c.open(t)); got != findings {
				t.Errorf("%d findings are open, want %d", got, findings)
			}
			again := c.begin(t, reconciler.Request{Mode: reconciler.Full})
			c.process(t, server.URL, -1)
			if r := c.run(t, again); len(r.Counts.Differences) > 0 {
				t.Errorf("another run found %v", r.Counts.Differences)
			}
		})
	}
}

// killings is how often the process is killed: ten times on two platforms, and on all where there is time.
func killings(platform string) int {
	if os.Getenv("DISPATCH_LEDGER_LONG_TESTS") != "" || platform == "klaviyo" || platform == "webhook" {
		return 10
	}
	return 3
}

// process has a process of its own work on the connection, and kills it after a while, unless that is negative. It reports
// whether it was done before.
func (c *connected) process(t *testing.T, proxy string, after time.Duration) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), envDatabase+"="+c.url, envKey+"="+c.keyFile, envPlatform+"="+c.name, envProxy+"="+proxy)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := false
	var said strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Fprintln(&said, lines.Text())
		switch {
		case strings.Contains(lines.Text(), "ready") && after >= 0:
			time.AfterFunc(after, func() { _ = cmd.Process.Signal(syscall.SIGKILL) }) // it may have ended by itself
		case strings.Contains(lines.Text(), "done"):
			done = true
		}
	}
	err = cmd.Wait()
	var killed *exec.ExitError
	if err != nil && (!errors.As(err, &killed) || killed.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL) {
		t.Fatalf("the process failed: %v\n%s", err, said.String())
	}
	return done
}
