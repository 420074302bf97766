//go:build unix

package local

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// envParent makes the test binary a parent that starts a server on the directory it names, says so, and waits to be killed.
const envParent = "LOCAL_TEST_PARENT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envParent); dir != "" {
		s, err := Start(context.Background(), Config{DataDir: dir, Volatile: true, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(s.PID(), s.proc.leash.(letGo).cmd.Process.Pid)
		<-s.Done()
		os.Exit(0)
	}
	code := m.Run()
	if pristineDir != "" {
		_ = os.RemoveAll(pristineDir)
	}
	os.Exit(code)
}

// pristine is a data directory whose cluster was made once, by its first caller, and never used.
var (
	pristine = sync.OnceValues(func() (_ string, err error) {
		if pristineDir, err = os.MkdirTemp("", "local-pristine"); err != nil {
			return "", err
		}
		if err := os.Chmod(pristineDir, 0o711); err != nil {
			return "", err
		}
		s, err := Start(context.Background(), Config{DataDir: pristineDir, Volatile: true, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return "", err
		}
		return pristineDir, s.Stop(context.Background())
	})
	pristineDir string // removed by TestMain
)

// dataDir is a data directory with a cluster, for tests that are not about making one. A copy costs a tenth of initdb.
func dataDir(t *testing.T) string {
	t.Helper()
	from, err := pristine()
	if err != nil {
		t.Fatal(err)
	}
	dir := tempDir(t)
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", filepath.Join(from, "postgres"), dir).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	return dir
}

func TestStart(t *testing.T) {
	t.Parallel()
	cfg := Config{DataDir: tempDir(t)}

	s := start(t, cfg)
	exec1(t, s, `CREATE TABLE kept (n int)`)
	exec1(t, s, `INSERT INTO kept VALUES (42)`)
	for setting, want := range map[string]string{
		"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "data_checksums": "on",
		"listen_addresses": "", "TimeZone": "UTC", "server_encoding": "UTF8", "log_min_error_statement": "panic",
	} {
		if got := query[string](t, s, `SELECT current_setting($1)`, setting); got != want {
			t.Errorf("setting %s = %q, want %q", setting, got, want)
		}
	}
	if got := query[bool](t, s, `SELECT rolsuper FROM pg_roles WHERE rolname = current_user`); !got {
		t.Error("the URL's role does not own the cluster")
	}
	group, err := syscall.Getpgid(s.PID())
	if err != nil || group == syscall.Getpgrp() {
		t.Errorf("the server's process group is %d (%v), ours too: Ctrl-C would reach it", group, err)
	}
	stop(t, s)
	if _, err := os.Stat(filepath.Join(cfg.DataDir, "postgres", "data", "postmaster.pid")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("postmaster.pid after Stop: %v, want none", err)
	}

	s = start(t, cfg)
	if got := query[int](t, s, `SELECT n FROM kept`); got != 42 {
		t.Errorf("after a second start the row is %d, want 42", got)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Errorf("Stop = %v", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Errorf("second Stop = %v, want nil", err)
	}
}

func TestDataDirectoryInUse(t *testing.T) {
	t.Parallel()
	cfg := Config{DataDir: dataDir(t), Volatile: true}
	start(t, cfg)
	_, err := Start(t.Context(), cfg)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("second Start = %v, want ErrInUse and our process by its number", err)
	}
}

// Whoever dies, in whatever order, the next start finds what was committed.
func TestDeaths(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]func(t *testing.T, parent *parent){
		"the parent, so its leash stops the server": func(t *testing.T, p *parent) {
			p.kill(t)
			waitGone(t, p.server)
		},
		"the parent, and the next start comes at once": func(t *testing.T, p *parent) {
			p.kill(t)
		},
		"the leash and the parent, so the server lives on": func(t *testing.T, p *parent) {
			killPID(t, p.leash)
			p.kill(t)
			if signalPID(p.server, 0) != nil {
				t.Error("the server has ended; the case is not what it says")
			}
		},
		"the leash, the parent and the server": func(t *testing.T, p *parent) {
			killPID(t, p.leash)
			p.kill(t)
			killPID(t, p.server)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := Config{DataDir: dataDir(t), Volatile: true}
			s := start(t, cfg)
			exec1(t, s, `CREATE TABLE kept AS SELECT 1 AS n`)
			stop(t, s)

			p := startParent(t, cfg.DataDir)
			db := open(t, (&Server{address: address{socketDir: filepath.Join(cfg.DataDir, "postgres", "run")}}).URL())
			if _, err := db.ExecContext(t.Context(), `UPDATE kept SET n = n + 1`); err != nil {
				t.Fatal(err)
			}
			kill(t, p)

			s = start(t, cfg)
			if got := query[int](t, s, `SELECT n FROM kept`); got != 2 {
				t.Errorf("after the deaths n = %d, want 2", got)
			}
		})
	}
}

func TestServerDiesUnderParent(t *testing.T) {
	t.Parallel()
	t.Run("supervised, it runs again under the same URL", func(t *testing.T) {
		t.Parallel()
		s := start(t, Config{DataDir: dataDir(t), Volatile: true})
		exec1(t, s, `CREATE TABLE kept AS SELECT 1 AS n`)
		for range 2 {
			before := s.PID()
			killPID(t, before)
			db := open(t, s.URL())
			eventually(t, "the server answers again", func() bool { return s.PID() != before && db.PingContext(t.Context()) == nil })
		}
		if got := query[int](t, s, `SELECT n FROM kept`); got != 1 {
			t.Errorf("after the deaths n = %d, want 1", got)
		}
	})
	t.Run("unsupervised, it is done and can be started", func(t *testing.T) {
		t.Parallel()
		cfg := Config{DataDir: dataDir(t), Volatile: true, Unsupervised: true}
		s := start(t, cfg)
		killPID(t, s.PID())
		<-s.Done()
		if again := start(t, cfg); again.URL() != s.URL() {
			t.Errorf("URL after a restart = %s, want %s", again.URL(), s.URL())
		}
	})
	t.Run("with its cluster gone, it is tried until Stop", func(t *testing.T) {
		t.Parallel()
		s := start(t, Config{DataDir: dataDir(t), Volatile: true})
		if err := os.RemoveAll(s.home.data()); err != nil {
			t.Fatal(err)
		}
		killPID(t, s.PID())
		stop(t, s)
	})
}

// A number in postmaster.pid may belong to somebody else by now.
func TestStalePIDFile(t *testing.T) {
	t.Parallel()
	cfg := Config{DataDir: dataDir(t), Volatile: true}
	s := start(t, cfg)
	stop(t, s)

	stranger := s.home.user.prepare(exec.Command("sleep", "600"), "/")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stranger.Process.Kill()
		_ = stranger.Wait()
	})
	for name, content := range map[string]string{
		"a stranger's number": fmt.Sprintf("%d\n%s\n", stranger.Process.Pid, s.home.data()),
		"a number of nobody":  "4194304\n",
		"torn":                "",
	} {
		for _, path := range []string{filepath.Join(s.home.data(), "postmaster.pid"), filepath.Join(s.home.file("run"), socketName+".lock")} {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := s.home.user.give(path, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		again, err := Start(t.Context(), cfg)
		if err != nil {
			t.Errorf("%s: Start = %v", name, err)
			continue
		}
		stop(t, again)
	}
	if err := stranger.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the stranger was harmed: %v", err)
	}
}

func TestHalfMadeCluster(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	unfinished := filepath.Join(dir, "postgres", "data.new")
	if err := makeDir(unfinished); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(unfinished, "PG_VERSION"), []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, Config{DataDir: dir, Volatile: true})
	exec1(t, s, `SELECT 1`)
}

func TestBrokenCluster(t *testing.T) {
	t.Parallel()
	cfg := Config{DataDir: dataDir(t), Volatile: true}
	s := start(t, cfg)
	stop(t, s)
	if err := os.Remove(filepath.Join(s.home.data(), "global", "pg_control")); err != nil {
		t.Fatal(err)
	}

	_, err := Start(t.Context(), cfg)
	if !errors.Is(err, ErrNotStarted) || !strings.Contains(err.Error(), "pg_control") {
		t.Errorf("Start = %v, want ErrNotStarted in the server's own words", err)
	}
	cfg.Disposable = true
	exec1(t, start(t, cfg), `SELECT 1`)
}

func TestStopOutOfTime(t *testing.T) {
	t.Parallel()
	cfg := Config{DataDir: dataDir(t), Volatile: true}
	s := start(t, cfg)
	exec1(t, s, `CREATE TABLE kept AS SELECT 1 AS n`)
	late, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Stop(late); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Stop = %v, want nil or the context's error", err)
	}
	if got := query[int](t, start(t, cfg), `SELECT n FROM kept`); got != 1 {
		t.Errorf("after an immediate stop n = %d, want 1", got)
	}
}

func TestOtherRolesGiveAPassword(t *testing.T) {
	t.Parallel()
	s := start(t, Config{DataDir: dataDir(t), Volatile: true})
	exec1(t, s, `CREATE ROLE analyst LOGIN PASSWORD 'right'`)
	for password, want := range map[string]bool{"right": true, "wrong": false} {
		u, err := url.Parse(s.URL())
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword("analyst", password)
		if err := open(t, u.String()).PingContext(t.Context()); (err == nil) != want {
			t.Errorf("with the %s password: %v", password, err)
		}
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	values := map[string]string{"dispatch.plain": "a", "dispatch.quotes": `it's "so"`, "dispatch.backslash": `a\b\n`, "fsync": "on"}
	s := start(t, Config{DataDir: dataDir(t), Volatile: true, Settings: values})
	for name, want := range values {
		if got := query[string](t, s, `SELECT current_setting($1)`, name); got != want {
			t.Errorf("setting %s = %q, want %q", name, got, want)
		}
	}
}

func TestCompression(t *testing.T) {
	t.Parallel()
	for wanted, want := range map[string]string{"": "lz4", "none that this build has": "pglz"} {
		s := start(t, Config{DataDir: dataDir(t), Volatile: true, compression: wanted})
		if got := query[string](t, s, `SELECT current_setting('wal_compression')`); got != want {
			t.Errorf("wanted %q: the server compresses by %q, want %q", wanted, got, want)
		}
	}
}

// The socket's path is bounded by the kernel; the data directory's is not.
func TestLongPaths(t *testing.T) {
	long := strings.Repeat("long/", 25)

	t.Run("the socket moves to a short directory", func(t *testing.T) {
		t.Setenv("XDG_RUNTIME_DIR", "")
		s := start(t, Config{DataDir: filepath.Join(tempDir(t), "with space", long), Volatile: true})
		exec1(t, s, `SELECT 1`)
		if s.address.socketDir == "" || strings.Contains(s.address.socketDir, "long") {
			t.Errorf("socket directory %q, want a short one", s.address.socketDir)
		}
		dir := s.address.socketDir
		stop(t, s)
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket's directory after Stop: %v, want none", err)
		}
	})
	t.Run("with no short directory, a port and a password", func(t *testing.T) {
		dir := tempDir(t)
		t.Setenv("XDG_RUNTIME_DIR", "")
		t.Setenv("TMPDIR", filepath.Join(dir, long))
		if err := makeDir(os.TempDir()); err != nil {
			t.Fatal(err)
		}
		cfg := Config{DataDir: filepath.Join(dir, long), Volatile: true}
		s := start(t, cfg)
		exec1(t, s, `CREATE TABLE kept AS SELECT 1 AS n`)
		if s.address.port == 0 {
			t.Fatalf("address %+v, want a port", s.address)
		}
		info, err := os.Stat(s.home.file("password"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("password file: %v, %v, want mode 0600", info.Mode(), err)
		}
		u, err := url.Parse(s.URL())
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(Role, "wrong")
		if err := open(t, u.String()).PingContext(t.Context()); err == nil {
			t.Error("a wrong password opens the port")
		}
		stop(t, s)
		if got := query[int](t, start(t, cfg), `SELECT n FROM kept`); got != 1 {
			t.Errorf("after a second start n = %d, want 1", got)
		}
	})
	t.Run("somebody else's directory is not used", func(t *testing.T) {
		t.Setenv("XDG_RUNTIME_DIR", "")
		t.Setenv("TMPDIR", tempDir(t))
		cfg := Config{DataDir: filepath.Join(tempDir(t), long), Volatile: true}
		squatted := home{dir: filepath.Join(cfg.DataDir, "postgres")}.runtimeDir()
		if err := os.Mkdir(squatted, 0o777); err != nil {
			t.Fatal(err)
		}
		if s := start(t, cfg); s.address.socketDir == squatted {
			t.Error("the socket is in a directory that others may enter")
		}
	})
}

func TestNoBinaries(t *testing.T) {
	t.Parallel()
	_, err := Start(t.Context(), Config{DataDir: tempDir(t), BinDir: t.TempDir()})
	if !errors.Is(err, ErrNoPostgres) {
		t.Fatalf("Start = %v, want ErrNoPostgres", err)
	}
	for _, want := range []string{"apt-get install postgresql", "dnf install", "apk add", "pacman -S", "brew install", "DATABASE_URL", EnvBinDir} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %q: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the error has more than one line: %q", err)
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	some := []install{{"a", 14}, {"b", 16}, {"c", 9}, {"d", 15}}
	for name, tc := range map[string]struct {
		found []install
		want  int
		bin   string
	}{
		"the newest for a new cluster":        {some, 0, "b"},
		"a cluster's own version":             {some, 15, "d"},
		"a cluster's version that is gone":    {some, 17, ""},
		"too old for a new cluster":           {some[:1], 0, ""},
		"none":                                {nil, 0, ""},
		"of two with one version, PATH's own": {[]install{{"path", 16}, {"package", 16}}, 0, "path"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, ok := choose(tc.found, tc.want); got.bin != tc.bin || ok != (tc.bin != "") {
				t.Errorf("choose = %+v, %v, want %q", got, ok, tc.bin)
			}
		})
	}
}

// A directory closed to the server's user concerns root alone: everybody else is that user.
func TestClosedDataDirectory(t *testing.T) {
	t.Parallel()
	closed := filepath.Join(tempDir(t), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	cfg := Config{DataDir: filepath.Join(closed, "ledger"), Fallback: filepath.Join(tempDir(t), "fallback"), Volatile: true}
	pointer := filepath.Join(cfg.DataDir, locationName)
	s := start(t, cfg)
	exec1(t, s, `CREATE TABLE kept AS SELECT 1 AS n`)
	stop(t, s)
	text, err := os.ReadFile(pointer)
	if os.Geteuid() != 0 {
		if err == nil {
			t.Errorf("%s = %q, want none for an ordinary user", pointer, text)
		}
		return
	}
	if err != nil || !strings.Contains(string(text), cfg.Fallback) {
		t.Fatalf("%s = %q, %v, want the path below %s", pointer, text, err, cfg.Fallback)
	}
	if info, err := os.Stat(closed); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the closed directory's mode is now %v", info.Mode())
	}

	// The note decides, even if the directory is open now.
	if err := os.Chmod(closed, 0o711); err != nil {
		t.Fatal(err)
	}
	s = start(t, cfg)
	if got := query[int](t, s, `SELECT n FROM kept`); got != 1 {
		t.Errorf("after a second start n = %d, want 1", got)
	}
	stop(t, s)

	if err := os.Rename(cfg.Fallback, cfg.Fallback+".gone"); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), cfg); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), pointer) {
		t.Errorf("with the database gone, Start = %v, want ErrUnreachable and the file that misses it", err)
	}
}

// parent is another process with a server.
type parent struct {
	cmd    *exec.Cmd
	server int // process id of the postmaster
	leash  int // process id of what holds it
}

func startParent(t *testing.T, dir string) *parent {
	t.Helper()
	p := &parent{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), envParent+"="+dir)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(line, &p.server, &p.leash); err != nil {
		t.Fatalf("the parent says %q", line)
	}
	return p
}

func (p *parent) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait() // killed, as it should be
}

func killPID(t *testing.T, pid int) {
	t.Helper()
	if err := signalPID(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func waitGone(t *testing.T, pid int) {
	t.Helper()
	eventually(t, "process "+strconv.Itoa(pid)+" ends", func() bool { return signalPID(pid, 0) != nil || zombie(pid) })
}

// zombie says whether a process has ended and waits for a parent that never asks, as orphans do in some containers.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(state, "Z")
}

// eventually asks until the answer is yes or the test runs out of time.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for !ok() {
		if err := sleep(t.Context(), pollInterval); err != nil {
			t.Fatalf("waiting until %s: %v", what, err)
		}
	}
}

// tempDir is like t.TempDir, and root's server can enter it.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "local")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func start(t *testing.T, cfg Config) *Server {
	t.Helper()
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, databaseURL string) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func exec1(t *testing.T, s *Server, query string) {
	t.Helper()
	if _, err := open(t, s.URL()).ExecContext(t.Context(), query); err != nil {
		t.Fatal(err)
	}
}

func query[T any](t *testing.T, s *Server, q string, args ...any) (v T) {
	t.Helper()
	if err := open(t, s.URL()).QueryRowContext(t.Context(), q, args...).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}
