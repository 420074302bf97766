package schematest

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// NewPrimary is NewServer of a server that standbys may follow.
func NewPrimary(t testing.TB) *Server {
	t.Helper()
	return newServerWith(t, map[string]string{"wal_level": "replica", "max_wal_senders": "4"})
}

// Standby is a server that follows another one, and answers questions meanwhile.
type Standby struct {
	URL string // the owner's, of the same database

	t   testing.TB
	cmd *exec.Cmd
	log bytes.Buffer
}

// NewStandby copies a server that NewPrimary made, and follows it until the test ends.
func NewStandby(t testing.TB, primary *Server) *Standby {
	t.Helper()
	u, err := url.Parse(primary.URL)
	if err != nil {
		t.Fatal(err)
	}
	sockets := u.Query().Get("host")
	if sockets == "" {
		t.Fatal("the primary listens on no socket")
	}
	dir, err := os.MkdirTemp("", "standby")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &Standby{t: t}
	data, hba := filepath.Join(dir, "data"), filepath.Join(dir, "hba")
	if err := os.WriteFile(hba, []byte("local all all trust\n"), 0o644); err != nil { //nolint:gosec // the server's user reads it
		t.Fatal(err)
	}
	var as *syscall.Credential
	if os.Geteuid() == 0 {
		as = credential(t, ownerOf(sockets))
		if err := os.Chown(dir, int(as.Uid), int(as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // we pass through to the socket
		t.Fatal(err)
	}
	bin := primary.current.BinDir()
	run := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...) //nolint:gosec,noctx // it is ended below
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &s.log, &s.log
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: as}
		return cmd
	}
	if err := run("pg_basebackup", "-h", sockets, "-p", u.Query().Get("port"), "-U", u.User.Username(), "-D", data, "-R", "-X", "stream", "--checkpoint=fast", "--no-sync").Run(); err != nil {
		t.Fatalf("pg_basebackup: %v: %s", err, &s.log)
	}
	s.cmd = run("postgres", "-D", data, "-c", "hba_file="+hba, "-c", "listen_addresses=", "-c", "port=5432", "-c", "unix_socket_directories="+dir,
		"-c", "max_connections=300", "-c", "max_wal_senders=4", "-c", "fsync=off", "-c", "shared_buffers=32MB", "-c", "timezone=UTC", "-c", "logging_collector=off")
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	q := url.Values{"sslmode": {"disable"}, "host": {dir}, "port": {"5432"}}
	s.URL = (&url.URL{Scheme: "postgres", User: u.User, Path: u.Path, RawQuery: q.Encode()}).String()
	s.await()
	return s
}

// await returns once the standby answers.
func (s *Standby) await() {
	s.t.Helper()
	db, err := sql.Open("postgres", s.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	for range 1000 {
		if err = db.PingContext(context.Background()); err == nil {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	s.t.Fatalf("the standby does not answer: %v: %s", err, tail(s.log.String()))
}

// Replay has the standby apply what it receives, or not.
func (s *Standby) Replay(on bool) {
	s.t.Helper()
	db, err := sql.Open("postgres", s.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	query := "SELECT pg_wal_replay_pause()"
	if on {
		query = "SELECT pg_wal_replay_resume()"
	}
	if _, err := db.ExecContext(context.Background(), query); err != nil {
		s.t.Fatal(err)
	}
	for paused := on; paused == on; { // it is only asked for
		var state string
		if err := db.QueryRowContext(context.Background(), `SELECT pg_get_wal_replay_pause_state()`).Scan(&state); err != nil {
			s.t.Fatal(err)
		}
		paused = state == "paused"
	}
}

// Kill ends the standby and its sessions.
func (s *Standby) Kill() {
	if s.cmd.ProcessState != nil {
		return
	}
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	_ = s.cmd.Wait()
}

func credential(t testing.TB, name string) *syscall.Credential {
	t.Helper()
	known, err := osuser.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, err1 := strconv.ParseUint(known.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(known.Gid, 10, 32)
	if err1 != nil || err2 != nil {
		t.Fatal(fmt.Errorf("user %s: %w, %w", name, err1, err2))
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}
