package local

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lib/pq"
)

// initialise makes the cluster if there is none. It appears under its name only when it is complete, so a crash on the
// way leaves nothing that a later start would take for a cluster.
func (s *Server) initialise(ctx context.Context) error {
	h := s.home
	if _, err := os.Stat(h.data()); err == nil {
		return nil
	}
	s.log.InfoContext(ctx, "making a cluster for the private PostgreSQL", slog.String("dir", h.data()), slog.Int("version", s.install.major))

	unfinished := h.file("data.new")
	if err := os.RemoveAll(unfinished); err != nil {
		return err
	}
	if err := os.Mkdir(unfinished, 0o700); err != nil {
		return err
	}
	if err := h.user.give(unfinished, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(h.file("password"), []byte(rand.Text()+"\n"), 0o600); err != nil {
		return err
	}
	if err := h.user.give(h.file("password"), 0o600); err != nil { // initdb reads it
		return err
	}
	args := []string{
		"--pgdata=" + unfinished, "--username=" + Role, "--pwfile=" + h.file("password"),
		"--auth-local=peer", "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C",
	}
	if s.cfg.Volatile {
		args = append(args, "--no-sync")
	} else {
		args = append(args, "--data-checksums")
	}
	if out, err := h.user.prepare(s.install.command(ctx, "initdb", args...), h.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: initdb: %w: %s", ErrNotStarted, err, lastLines(out))
	}
	if err := os.Rename(unfinished, h.data()); err != nil {
		return err
	}
	if s.cfg.Volatile {
		return nil
	}
	return syncDir(h.dir)
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// settings suit a small instance that shares a machine. Statements and values stay out of the server's log, because they
// may hold personal data.
var settings = map[string]string{
	"max_connections":             "100",
	"shared_buffers":              "512MB",
	"max_wal_size":                "2GB",
	"checkpoint_timeout":          "15min",
	"wal_level":                   "replica",
	"random_page_cost":            "1.1",
	"jit":                         "off",
	"timezone":                    "UTC",
	"log_timezone":                "UTC",
	"lc_messages":                 "C",
	"log_min_messages":            "warning",
	"log_min_error_statement":     "panic",
	"log_error_verbosity":         "terse",
	"log_checkpoints":             "off",
	"log_autovacuum_min_duration": "-1",
	"log_line_prefix":             "%m [%p] ",
	"cluster_name":                "dispatch-ledger",
}

// volatileSettings are for tests: a crash of the server loses nothing, a crash of the machine may lose everything.
var volatileSettings = map[string]string{
	"fsync":            "off",
	"full_page_writes": "off",
	"wal_level":        "minimal",
	"shared_buffers":   "128MB",
	"max_wal_senders":  "0",
	"max_connections":  "300",
}

// configure writes the server's configuration anew.
func (s *Server) configure() error {
	all := maps.Clone(settings)
	all["wal_compression"] = s.compression
	if s.cfg.Volatile {
		maps.Copy(all, volatileSettings)
	}
	maps.Copy(all, s.cfg.Settings)
	var conf strings.Builder
	conf.WriteString("# Written at each start. To change a setting for good, use ALTER SYSTEM.\n")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&conf, "%s = %s\n", name, quote(all[name]))
	}

	// The first line that matches decides: the owner by the operating system's word, everybody else by password.
	hba := fmt.Sprintf("# Written at each start.\n"+
		"local all,replication %[1]s peer map=owner\n"+
		"local all all scram-sha-256\n"+
		"host all all 127.0.0.1/32 scram-sha-256\n", Role)
	var ident strings.Builder
	ident.WriteString("# Written at each start.\n")
	for _, name := range s.home.user.names() {
		fmt.Fprintf(&ident, "owner \"%s\" %s\n", strings.ReplaceAll(name, `"`, `""`), Role)
	}
	for name, text := range map[string]string{"postgresql.conf": conf.String(), "pg_hba.conf": hba, "pg_ident.conf": ident.String()} {
		path := filepath.Join(s.home.file("conf"), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
		if err := s.home.user.give(path, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// quote writes a value as postgresql.conf reads it.
func quote(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`, "\n", `\n`).Replace(value) + "'"
}

// address is where the server listens: in a socket directory, or on a loopback port with a password.
type address struct {
	socketDir string
	port      int
	password  string
}

// newAddress prefers a socket, which needs no secret, and falls back to a free loopback port.
func (h home) newAddress() (address, error) {
	if dir := h.socketDir(); dir != "" {
		return address{socketDir: dir}, nil
	}
	password, err := os.ReadFile(h.file("password"))
	if errors.Is(err, fs.ErrNotExist) {
		return address{}, fmt.Errorf("%w: no socket path is short enough, and %s is gone; choose a data directory with a shorter path", ErrUnreachable, h.file("password"))
	} else if err != nil {
		return address{}, err
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0") //nolint:noctx // it listens at once or not at all
	if err != nil {
		return address{}, err
	}
	port := l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // a TCP listener's address
	return address{port: port, password: strings.TrimSpace(string(password))}, l.Close()
}

// args make the server listen there and nowhere else. On the command line they win over any configuration.
func (a address) args() []string {
	if a.socketDir != "" {
		return []string{"-c", "listen_addresses=", "-c", "port=5432", "-c", "unix_socket_directories=" + a.socketDir}
	}
	return []string{"-c", "listen_addresses=127.0.0.1", "-c", fmt.Sprintf("port=%d", a.port), "-c", "unix_socket_directories="}
}

// url is the owner's URL of one database. It names everything for which a client would otherwise ask its environment.
func (a address) url(database string) string {
	u := url.URL{Scheme: "postgres", Path: "/" + database}
	q := url.Values{"sslmode": {"disable"}}
	if a.socketDir != "" {
		u.User = url.User(Role)
		q.Set("host", a.socketDir)
		q.Set("port", "5432")
	} else {
		u.User = url.UserPassword(Role, a.password)
		u.Host = fmt.Sprintf("127.0.0.1:%d", a.port)
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// ensureDatabase makes the ledger's database on the first start.
func (s *Server) ensureDatabase(ctx context.Context) (err error) {
	db, err := sql.Open("postgres", s.address.url("postgres"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var exists bool
	if err := db.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, Database).Scan(&exists); err != nil || exists {
		return err
	}
	_, err = db.ExecContext(ctx, `CREATE DATABASE `+pq.QuoteIdentifier(Database))
	return err
}
