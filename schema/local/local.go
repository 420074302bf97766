package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/gofrs/flock"
)

// Role is the cluster's owner and superuser, and Database the database that it owns.
const (
	Role     = "dispatch_ledger"
	Database = "dispatch_ledger"
)

var (
	// ErrNoPostgres says that no server binaries of a usable version were found.
	ErrNoPostgres = errors.New("no usable PostgreSQL found")
	// ErrInUse says that another process runs a server on this data directory.
	ErrInUse = errors.New("data directory in use")
	// ErrUnreachable says that the server's user cannot be given a directory it can reach.
	ErrUnreachable = errors.New("data directory out of reach")
	// ErrNotStarted says that the server ended before it accepted connections.
	ErrNotStarted = errors.New("PostgreSQL did not start")
)

// Config says where a private PostgreSQL lives and how it runs. Only DataDir is required.
type Config struct {
	// DataDir is the ledger's data directory; it is made if it does not exist. The cluster is its folder postgres.
	DataDir string

	// BinDir holds the binaries postgres and initdb. Empty: the environment's DISPATCH_LEDGER_POSTGRES_BIN, else the
	// newest suitable version on PATH or in the places where packages put it.
	BinDir string

	// Fallback is where root's cluster goes when the server's user cannot reach DataDir. Empty: /var/lib/dispatch-ledger.
	Fallback string

	// Settings are added to postgresql.conf, by name, and win over ours.
	Settings map[string]string

	// Volatile turns fsync off: faster, and lost or broken when the machine stops. For tests.
	Volatile bool

	// Disposable makes a cluster anew that does not start, or that was last used before the machine's last boot. For
	// tests whose cluster is a cache.
	Disposable bool

	// Unsupervised leaves a server that died of itself dead. For tests that kill it.
	Unsupervised bool

	compression string // of whole pages in the write-ahead log; a test's

	// Logger is told of starts, stops and deaths. Nil: slog.Default.
	Logger *slog.Logger
}

// Server is a running private PostgreSQL. Its methods are safe for concurrent use.
type Server struct {
	cfg     Config
	log     *slog.Logger
	install install
	home    home
	lock    *flock.Flock
	address address

	compression string // of whole pages in the write-ahead log

	stop, abort         chan struct{} // closed by Stop, and by a Stop that ran out of time
	stopOnce, abortOnce sync.Once
	done                chan struct{} // closed when the server has ended for good

	mu   sync.Mutex // guards proc
	proc *process   // the current postmaster
}

// portAttemptsMax is how many free ports are tried before a start is given up.
const portAttemptsMax = 5

// The first change to a page after a checkpoint puts the whole page into the write-ahead log. Of a ledger whose ids are random
// that is most pages of their index, and they hardly compress: the older method takes longer over it than the append takes. Not
// every build of PostgreSQL has the newer one.
const (
	compressionWanted = "lz4"
	compressionAlways = "on"
)

// stopGrace is how long an aborted server may take to end before it is killed.
const stopGrace = 5 * time.Second

// Start starts a private PostgreSQL and returns when it accepts connections, which after a crash is when it has
// recovered. The context bounds the start alone. Errors: [ErrNoPostgres], [ErrInUse], [ErrUnreachable], [ErrNotStarted],
// each with what to do.
func Start(ctx context.Context, cfg Config) (_ *Server, err error) {
	s := &Server{
		cfg:   cfg,
		log:   cfg.Logger,
		stop:  make(chan struct{}),
		abort: make(chan struct{}),
		done:  make(chan struct{}),

		compression: cmp.Or(cfg.compression, compressionWanted),
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.home, err = findHome(cfg, s.log); err != nil {
		return nil, err
	}
	if s.install, err = findInstall(ctx, cfg.BinDir, s.home); err != nil {
		return nil, err
	}
	if err := s.home.settle(ctx, cfg, s.install, s.log); err != nil {
		return nil, err
	}
	if s.lock, err = lock(s.home.file("lock")); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.lock.Unlock())
		}
	}()

	if err := s.open(ctx); err != nil {
		return nil, err
	}
	go s.supervise()
	return s, nil
}

// open brings the cluster up: made if it is not there, made anew if it is disposable and unfit.
func (s *Server) open(ctx context.Context) error {
	if s.cfg.Disposable && s.home.outlived() {
		if err := s.discard(ctx); err != nil {
			return err
		}
	}
	err := s.start(ctx)
	if err != nil && s.cfg.Disposable && ctx.Err() == nil {
		s.log.WarnContext(ctx, "making the private PostgreSQL's cluster anew", slog.String("dir", s.home.dir), slog.Any("because", err))
		if err := s.discard(ctx); err != nil {
			return err
		}
		err = s.start(ctx)
	}
	return err
}

// discard removes the cluster, once nothing runs on it.
func (s *Server) discard(ctx context.Context) error {
	if err := s.home.quiet(ctx, s.log); err != nil {
		return err
	}
	return os.RemoveAll(s.home.data())
}

// start makes the cluster if there is none, starts a postmaster on it and waits until it answers.
func (s *Server) start(ctx context.Context) error {
	if err := s.home.quiet(ctx, s.log); err != nil {
		return err
	}
	if err := s.initialise(ctx); err != nil {
		return err
	}
	if err := s.configure(); err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		var err error
		if s.address, err = s.home.newAddress(); err != nil {
			return err
		}
		if s.proc, err = s.launch(ctx); err == nil {
			break
		}
		if s.compression != compressionAlways && strings.Contains(err.Error(), "wal_compression") {
			s.compression = compressionAlways
			if err := s.configure(); err != nil {
				return err
			}
			continue
		}
		// Between our finding a free port and the server's taking it, somebody else may have.
		if attempt == portAttemptsMax || !strings.Contains(err.Error(), "could not bind") {
			return err
		}
	}
	if err := s.ensureDatabase(ctx); err != nil {
		s.proc.kill()
		return err
	}
	return nil
}

// URL is the database's connection URL for the owner role, in the form that lib/pq and psql read. It stays the same
// for as long as the server lives. Over TCP it holds the password.
func (s *Server) URL() string { return s.address.url(Database) }

// BinDir is where the server's programs are.
func (s *Server) BinDir() string { return s.install.bin }

// PID is the postmaster's process id. It changes when a server that died is started again.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc.pid()
}

// Done is closed when the server has ended for good: stopped, or dead and not to be started again.
func (s *Server) Done() <-chan struct{} { return s.done }

// Stop shuts the server down: connections are ended, their transactions rolled back, everything committed is on disk.
// When ctx ends first the server is made to stop at once, which costs the next start a recovery and no data, and the
// context's error is returned. Stop may be called again.
func (s *Server) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() { close(s.stop) })
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
	}
	s.abortOnce.Do(func() { close(s.abort) })
	<-s.done
	return fmt.Errorf("stop the private PostgreSQL: %w", context.Cause(ctx))
}

// supervise waits for the server's end, wanted or not. It alone ends or replaces the process.
func (s *Server) supervise() {
	defer close(s.done)
	defer func() {
		s.home.tidy()
		if err := s.lock.Unlock(); err != nil {
			s.log.Warn("unlock the data directory", slog.Any("error", err))
		}
	}()
	for {
		select {
		case <-s.stop:
			s.shutDown()
			return
		case <-s.proc.exited:
		}
		select {
		case <-s.stop: // the end was somebody else's doing, but it was wanted
			return
		default:
		}
		s.log.Error("the private PostgreSQL died", slog.String("state", s.proc.state()), slog.String("log", s.home.file(logName)))
		if s.cfg.Unsupervised || !s.revive() {
			return
		}
	}
}

// shutDown ends the current process: fast, or at once when Stop's context ends first.
func (s *Server) shutDown() {
	s.proc.signal(syscall.SIGINT)
	select {
	case <-s.proc.exited:
		return
	case <-s.abort:
	}
	s.proc.signal(syscall.SIGQUIT)
	select {
	case <-s.proc.exited:
	case <-time.After(stopGrace):
		s.proc.kill()
	}
}

// revive starts a dead server again until it runs or is to stop, and says whether it runs.
func (s *Server) revive() bool {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-s.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	proc, err := backoff.Retry(ctx, func() (*process, error) {
		if err := s.home.quiet(ctx, s.log); err != nil {
			return nil, err
		}
		return s.launch(ctx)
	}, backoff.WithBackOff(&backoff.ExponentialBackOff{
		InitialInterval: 100 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: 5 * time.Second,
	}), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, wait time.Duration) {
		s.log.Error("the private PostgreSQL does not start again", slog.Any("error", err), slog.Duration("next_try_in", wait))
	}))
	if err != nil {
		return false
	}
	s.mu.Lock()
	s.proc = proc
	s.mu.Unlock()
	s.log.Info("the private PostgreSQL runs again", slog.Int("pid", proc.pid()))
	return true
}

// lock takes the file's lock or says who holds it.
func lock(path string) (*flock.Flock, error) {
	l := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
	locked, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w; the data directory must belong to the user who runs the ledger", path, err)
	}
	if !locked {
		holder, _ := os.ReadFile(path) // without it the message only names no process
		return nil, fmt.Errorf("%w: process %s runs a ledger on %s; stop it, choose another data directory, or give both a DATABASE_URL",
			ErrInUse, orUnknown(string(holder)), filepath.Dir(filepath.Dir(path)))
	}
	if err := os.WriteFile(path, fmt.Append(nil, os.Getpid()), 0o600); err != nil {
		return nil, errors.Join(err, l.Unlock())
	}
	return l, nil
}

func orUnknown(s string) string {
	if s == "" {
		return "(unknown)"
	}
	return s
}
