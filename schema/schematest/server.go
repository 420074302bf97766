package schematest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/dispatch-ledger/dispatch-ledger/schema/local"
)

const (
	slotsMax     = 64 // more test binaries than that do not run at once
	templatesMax = 6  // kept in a slot, the newest: some branches' worth
)

// shared is the server of this test binary, started by the first test that asks. Nobody stops a private one: it ends with the
// binary.
var shared = func() func(context.Context) (*server, error) {
	var (
		mu sync.Mutex
		s  *server
	)
	return func(ctx context.Context) (*server, error) {
		mu.Lock()
		defer mu.Unlock()
		if s != nil {
			return s, nil
		}
		var err error
		if databaseURL := os.Getenv(EnvURL); databaseURL != "" {
			s, err = newServer(ctx, databaseURL)
		} else {
			s, err = takeSlot(ctx, slotsDir())
		}
		return s, err
	}
}()

// slotsDir is where the private servers' clusters are kept: in the user's cache, or root's, which other users can enter.
func slotsDir() string {
	const name = "dispatch-ledger-tests"
	if os.Geteuid() == 0 {
		return filepath.Join("/var/cache", name)
	}
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, name)
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("%s-%d", name, os.Geteuid()))
}

// takeSlot starts a server on the first cluster below dir that no other process uses, and sweeps it.
func takeSlot(ctx context.Context, dir string) (*server, error) {
	for slot := range slotsMax {
		private, err := local.Start(ctx, local.Config{
			DataDir:    filepath.Join(dir, fmt.Sprintf("slot-%d", slot)),
			Volatile:   true,
			Disposable: true,
			Logger:     slog.New(slog.DiscardHandler),
		})
		if errors.Is(err, local.ErrInUse) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s, err := newServer(ctx, private.URL())
		if err == nil {
			s.cloning = " STRATEGY FILE_COPY" // without fsync, five times as fast as through the log
			err = s.sweep(ctx)
		}
		if err != nil {
			return nil, errors.Join(err, private.Stop(ctx))
		}
		return s, nil
	}
	return nil, fmt.Errorf("all %d slots below %s are in use", slotsMax, dir)
}

// sweep drops the databases of tests that did not end well, and templates that have gone out of use.
func (s *server) sweep(ctx context.Context) error {
	rows, err := s.admin.QueryContext(ctx, `
		SELECT datname, datistemplate FROM (
			SELECT datname, datistemplate, row_number() OVER (PARTITION BY datistemplate ORDER BY oid DESC) AS age
			FROM pg_database WHERE starts_with(datname, $1) OR starts_with(datname, $2)) AS ours
		WHERE NOT datistemplate OR age > $3`, testPrefix, templatePrefix, templatesMax)
	if err != nil {
		return err
	}
	defer rows.Close()
	old := map[string]bool{}
	for rows.Next() {
		var name string
		var template bool
		if err := rows.Scan(&name, &template); err != nil {
			return err
		}
		old[name] = template
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for name, template := range old {
		if template {
			if _, err := s.admin.ExecContext(ctx, "ALTER DATABASE "+name+" IS_TEMPLATE false"); err != nil {
				return err
			}
		}
		if err := s.drop(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// Server is a whole PostgreSQL of one test's own, to be killed and started again. It holds the empty database
// dispatch_ledger.
type Server struct {
	URL string // the owner's URL; it outlasts restarts

	t       testing.TB
	cfg     local.Config
	current *local.Server
}

// NewServer starts a server for the test, and removes it when the test ends. What it has acknowledged survives its being
// killed, though not the machine's.
func NewServer(t testing.TB) *Server {
	t.Helper()
	return newServerWith(t, nil)
}

func newServerWith(t testing.TB, settings map[string]string) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "schematest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the test's server: %v", err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // root's server runs as another user, who passes through
		t.Fatal(err)
	}
	s := &Server{t: t, cfg: local.Config{DataDir: dir, Volatile: true, Unsupervised: true, Settings: settings, Logger: slog.New(slog.DiscardHandler)}}
	s.Restart()
	s.URL = s.current.URL()
	t.Cleanup(func() {
		if err := s.current.Stop(context.Background()); err != nil {
			t.Errorf("stop the test's server: %v", err)
		}
	})
	return s
}

// Kill ends the server and all its sessions with SIGKILL, as a crash would, and returns when it is gone. Like Restart it may
// fail the test, so it is called from the test's own goroutine.
func (s *Server) Kill() {
	s.t.Helper()
	if err := kill(s.t.Context(), s.current.PID()); err != nil {
		s.t.Fatalf("kill the test's server: %v", err)
	}
	<-s.current.Done()
}

// Log is what the server has said.
func (s *Server) Log() string {
	s.t.Helper()
	said, err := os.ReadFile(filepath.Join(s.cfg.DataDir, "postgres", "postgres.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(said)
}

// kill kills a postmaster and its children. It is halted first, so that it makes no new ones meanwhile.
func kill(ctx context.Context, postmaster int) error {
	if err := signal(postmaster, syscall.SIGSTOP); err != nil {
		return err
	}
	sessions, err := children(ctx, postmaster)
	err = errors.Join(err, signal(postmaster, syscall.SIGKILL))
	for _, pid := range sessions {
		if killErr := signal(pid, syscall.SIGKILL); !errors.Is(killErr, os.ErrProcessDone) {
			err = errors.Join(err, killErr)
		}
	}
	return err
}

// children lists a process's children, from /proc where there is one, because ps is not on every Linux.
func children(ctx context.Context, parent int) (pids []int, err error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	if len(stats) == 0 {
		out, err := exec.CommandContext(ctx, "ps", "-A", "-o", "ppid=,pid=").Output()
		for line := range strings.Lines(string(out)) {
			var ppid, pid int
			if _, scanErr := fmt.Sscan(line, &ppid, &pid); scanErr == nil && ppid == parent {
				pids = append(pids, pid)
			}
		}
		return pids, err
	}
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended since
		}
		// 4711 (its name) S 4700 …: number, name, state, parent; the name may hold anything.
		var pid, ppid int
		var state string
		text := string(stat)
		_, pidErr := fmt.Sscan(text, &pid)
		_, restErr := fmt.Sscan(text[strings.LastIndexByte(text, ')')+1:], &state, &ppid)
		if pidErr == nil && restErr == nil && ppid == parent {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func signal(pid int, sig syscall.Signal) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Signal(sig)
}

// Restart starts the server again after Kill, under the same URL, and returns when it has recovered.
func (s *Server) Restart() {
	s.t.Helper()
	var err error
	if s.current, err = local.Start(s.t.Context(), s.cfg); err != nil {
		s.t.Fatalf("start the test's server: %v", err)
	}
	if s.URL != "" && s.URL != s.current.URL() {
		s.t.Fatalf("the test's server was at %s and is at %s now", s.URL, s.current.URL())
	}
}
