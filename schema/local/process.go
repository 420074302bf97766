package local

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// pollInterval is the wait between two looks at a server that starts or ends.
const pollInterval = 20 * time.Millisecond

// logBytesMax is the size at which the server's log is put aside, one generation deep, by the next start.
const logBytesMax = 8 << 20

// process is one postmaster that we started, and its leash.
type process struct {
	cmd    *exec.Cmd
	leash  io.Closer
	exited chan struct{} // closed when the process has ended and cmd.ProcessState is set
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// signal sends a signal; a process that has ended already needs none.
func (p *process) signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

// kill ends the process without grace and waits until it is gone.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.exited
}

// state says how a process ended that has.
func (p *process) state() string { return p.cmd.ProcessState.String() }

// launch starts a postmaster on the address and waits until it answers.
func (s *Server) launch(ctx context.Context) (*process, error) {
	for {
		p, err := s.launchOnce(ctx)
		// Sessions outlive a killed postmaster by moments, and while one of them holds the shared memory no other
		// postmaster may start.
		if err != nil && strings.Contains(err.Error(), "pre-existing shared memory block") && sleep(ctx, 5*pollInterval) == nil {
			continue
		}
		return p, err
	}
}

func (s *Server) launchOnce(ctx context.Context) (*process, error) {
	log, offset, err := s.home.openLog()
	if err != nil {
		return nil, err
	}
	conf := s.home.file("conf")
	args := append([]string{
		"-D", s.home.data(),
		"-c", "config_file=" + filepath.Join(conf, "postgresql.conf"),
		"-c", "hba_file=" + filepath.Join(conf, "pg_hba.conf"),
		"-c", "ident_file=" + filepath.Join(conf, "pg_ident.conf"),
	}, s.address.args()...)
	p := &process{exited: make(chan struct{})}
	// It outlives the context that bounds the start, so it gets none.
	p.cmd = s.home.user.prepare(s.install.command(context.WithoutCancel(ctx), "postgres", args...), s.home.dir)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	err = p.cmd.Start()
	if err := errors.Join(err, log.Close()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotStarted, err)
	}
	if p.leash, err = s.home.user.leash(p.pid()); err != nil {
		s.log.WarnContext(ctx, "the private PostgreSQL will outlive a killed parent until the next start", slog.Any("error", err))
	}
	go func() {
		_ = p.cmd.Wait() // ProcessState says it
		if p.leash != nil {
			_ = p.leash.Close() // nothing is left to hold
		}
		close(p.exited)
	}()
	if err := s.ready(ctx, p); err != nil {
		p.signal(syscall.SIGQUIT)
		<-p.exited
		return nil, fmt.Errorf("%w: %w: %s (log: %s)", ErrNotStarted, err, s.home.logSince(offset), s.home.file(logName))
	}
	return p, nil
}

// ready waits until the server says that it is, in its postmaster.pid, and then asks it. It does not knock before: a
// connection to a free loopback port may connect to itself and so keep the server from the port. It has no deadline of
// its own: recovery takes as long as it takes, and a server that cannot start ends.
func (s *Server) ready(ctx context.Context, p *process) (err error) {
	pidFile := filepath.Join(s.home.data(), "postmaster.pid")
	for !saysReady(pidFile, p.pid()) {
		select {
		case <-p.exited:
			return errors.New("it ended with " + p.state())
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pollInterval):
		}
	}
	db, err := sql.Open("postgres", s.address.url("postgres"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.PingContext(ctx)
}

// saysReady reads postmaster.pid as pg_ctl does: the first line is the process, the eighth its state.
func saysReady(pidFile string, pid int) bool {
	text, err := os.ReadFile(pidFile)
	lines := strings.Split(string(text), "\n")
	return err == nil && len(lines) >= 8 && lines[0] == strconv.Itoa(pid) && strings.TrimSpace(lines[7]) == "ready"
}

// leash starts a small process that interrupts the server when we die, however we die: then the pipe that we hold
// closes. Closing the leash lets go of the server.
func (u user) leash(pid int) (io.Closer, error) {
	// A line means "let go", the end of the pipe without one means that we are gone. No terminal's signal reaches it.
	const script = `trap '' INT TERM HUP; read -r line || kill -INT "$1"`
	cmd := u.prepare(exec.Command("/bin/sh", "-c", script, "dispatch-ledger-leash", strconv.Itoa(pid)), "/") //nolint:noctx,gosec // it ends with the server, and is given a number
	held, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return letGo{cmd, held}, nil
}

type letGo struct {
	cmd  *exec.Cmd
	held io.WriteCloser
}

// Close lets go of the server and waits until the leash has ended.
func (l letGo) Close() error {
	_, err := io.WriteString(l.held, "let go\n")
	return errors.Join(err, l.held.Close(), l.cmd.Wait())
}

// quiet ends what an earlier parent left: a live server is stopped, the files of a dead one are removed. To be called
// under the lock, which proves that no living parent wants them.
func (h home) quiet(ctx context.Context, log *slog.Logger) error {
	pidFile := filepath.Join(h.data(), "postmaster.pid")
	pid, err := readPID(pidFile)
	if err != nil {
		return err
	}
	for signalled := false; pid != 0 && h.runs(ctx, pid); {
		if !signalled {
			log.WarnContext(ctx, "stopping the private PostgreSQL that an earlier process left behind", slog.Int("pid", pid))
			if err := signalPID(pid, syscall.SIGINT); err != nil {
				return fmt.Errorf("%w: process %d serves %s and cannot be stopped: %w", ErrInUse, pid, h.data(), err)
			}
			signalled = true
		}
		if err := sleep(ctx, pollInterval); err != nil {
			return fmt.Errorf("%w: process %d still serves %s: %w", ErrInUse, pid, h.data(), err)
		}
	}
	// The server believes a stale file whose number has gone to another process of the same user; in a container that
	// is likely. We know better.
	files := []string{pidFile}
	for _, dir := range []string{h.file("run"), h.runtimeDir()} {
		if h.user.owns(dir) {
			files = append(files, filepath.Join(dir, socketName), filepath.Join(dir, socketName+".lock"))
		}
	}
	for _, path := range files {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// readPID reads the first line of postmaster.pid, 0 if there is none.
func readPID(path string) (int, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	pid, err := strconv.Atoi(strings.TrimSpace(string(line)))
	if err != nil || pid <= 1 { // torn, or of a server in single-user mode
		return 0, nil //nolint:nilerr // a file that names no process is stale
	}
	return pid, nil
}

// runs says whether the process is a postmaster of this cluster, and not a stranger with a number used again.
func (h home) runs(ctx context.Context, pid int) bool {
	if signalPID(pid, 0) != nil {
		return false
	}
	// A postmaster's working directory is its cluster.
	if cwd, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil {
		data, err := os.Stat(h.data())
		return err == nil && os.SameFile(cwd, data)
	}
	// Where there is no /proc, its command line names the cluster.
	out, err := exec.CommandContext(ctx, "ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output() //nolint:gosec // a number
	return err == nil && strings.Contains(string(out), "-D "+h.data())
}

func signalPID(pid int, sig syscall.Signal) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Signal(sig)
}

// openLog opens the server's log for appending and returns its present size.
func (h home) openLog() (*os.File, int64, error) {
	path := h.file(logName)
	if info, err := os.Stat(path); err == nil && info.Size() > logBytesMax {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, 0, err
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// logSince returns the last words of what the server logged after offset.
func (h home) logSince(offset int64) string {
	text, err := os.ReadFile(h.file(logName))
	if err != nil || int64(len(text)) < offset {
		return "its log cannot be read"
	}
	return lastLines(text[offset:])
}

// lastLines puts the last few lines of an output into one.
func lastLines(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-4):], "; ")
}

// sleep waits, or returns the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
