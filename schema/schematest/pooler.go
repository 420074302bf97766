package schematest

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Pooler starts a PgBouncer in transaction mode before the database that databaseURL names, with at most size connections to
// it, and gives the URL that goes through it. It ends with the test. A machine without PgBouncer skips the test.
func Pooler(t testing.TB, databaseURL string, size int) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		t.Skip("no pgbouncer on PATH; .ci/need pgbouncer installs it")
	}
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	host, user := cmp.Or(u.Query().Get("host"), u.Hostname()), cmp.Or(u.Query().Get("user"), u.User.Username())
	server := fmt.Sprintf("host=%s port=%s dbname=%s user=%s", host, cmp.Or(u.Query().Get("port"), u.Port(), "5432"), name, user)
	if password, ok := u.User.Password(); ok {
		server += " password=" + password
	}
	port := freePort(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "pgbouncer.ini")
	content := fmt.Sprintf("[databases]\n%s = %s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\nauth_type = any\n"+
		"pool_mode = transaction\ndefault_pool_size = %d\nmax_client_conn = 1000\nquery_wait_timeout = 20\n", name, server, port, size)
	if err := os.WriteFile(config, []byte(content), 0o644); err != nil { //nolint:gosec // another user reads it
		t.Fatal(err)
	}
	args := []string{config}
	if os.Geteuid() == 0 { // it does not run as root, and is let in as who the server runs as
		for at := dir; at != os.TempDir() && at != "/"; at = filepath.Dir(at) {
			if err := os.Chmod(at, 0o755); err != nil { //nolint:gosec // see above
				t.Fatal(err)
			}
		}
		args = append([]string{"-u", ownerOf(host)}, args...)
	}
	var log bytes.Buffer
	cmd := exec.Command(program, args...) //nolint:gosec,noctx // it is ended below
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("pgbouncer says: %s", tail(log.String()))
		}
	})
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for range 500 {
		if c, err := net.Dial("tcp", address); err == nil { //nolint:noctx // it answers at once or not at all
			_ = c.Close()
			return fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", url.UserPassword(user, "any"), address, name)
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Fatal("pgbouncer does not listen")
	return ""
}

// ownerOf names the user whom a directory of sockets belongs to; the server's usual one where host is no directory.
func ownerOf(host string) string {
	if info, err := os.Stat(host); err == nil {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			if known, err := osuser.LookupId(strconv.FormatUint(uint64(stat.Uid), 10)); err == nil {
				return known.Username
			}
		}
	}
	return "postgres"
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it listens at once or not at all
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func tail(text string) string {
	const most = 2000
	return text[max(0, len(text)-most):]
}
