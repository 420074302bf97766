package schematest

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

var files = fstest.MapFS{"1.sql": {Data: []byte(`CREATE TABLE t (n int)`)}}

// tables is a template with one table.
func tables(name string) Template {
	return Template{Name: name, Files: files, Migrate: migrate}
}

func migrate(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, string(files["1.sql"].Data))
	return err
}

// envOther makes the test binary another process that clones from the server the variable names, and says how often it migrated.
const envOther = "SCHEMATEST_OTHER"

func TestMain(m *testing.M) {
	if databaseURL := os.Getenv(envOther); databaseURL != "" {
		fmt.Println(race(databaseURL))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// race clones one template eight times at once and returns how often it was made.
func race(databaseURL string) string {
	s, err := newServer(context.Background(), databaseURL)
	if err != nil {
		return err.Error()
	}
	var made atomic.Int32
	from := tables("race")
	from.Migrate = func(ctx context.Context, db *sql.DB) error { made.Add(1); return migrate(ctx, db) }
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			var db *DB
			if db, errs[i] = s.clone(context.Background(), from); errs[i] == nil {
				_, err := db.Exec(`INSERT INTO t VALUES (1)`)
				errs[i] = errors.Join(err, db.Close(), s.drop(context.Background(), db.Name))
			}
		})
	}
	wg.Wait()
	if err := errors.Join(append(errs, s.admin.Close())...); err != nil {
		return err.Error()
	}
	return fmt.Sprint(made.Load())
}

func TestClone(t *testing.T) {
	t.Parallel()
	from := tables("clone")
	first, second := Clone(t, from), Clone(t, from)
	if _, err := first.ExecContext(t.Context(), `INSERT INTO t VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	if got := count(t, second.DB, `SELECT count(*) FROM t`); got != 0 {
		t.Errorf("a database of its own holds %d rows of another", got)
	}
	byURL, err := sql.Open("postgres", first.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer byURL.Close()
	if got := count(t, byURL, `SELECT count(*) FROM t`); got != 1 {
		t.Errorf("the URL leads to %d rows, want 1", got)
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	db := Open(t)
	if got := count(t, db.DB, `SELECT count(*) FROM events`); got != 0 {
		t.Errorf("a new ledger holds %d events, want 0", got)
	}
	service, err := schema.Connect(db.URL, schema.Options{Role: "ledger_service"})
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	if _, err := service.ExecContext(t.Context(), `CREATE SCHEMA shadow`); err != nil {
		t.Errorf("the service's right to make schemas is not the template's: %v", err)
	}
}

func TestCloneIsDropped(t *testing.T) {
	t.Parallel()
	var name string
	t.Run("a test", func(t *testing.T) { name = Clone(t, tables("clone")).Name }) //nolint:paralleltest // it ends before the next line
	s, err := shared(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := count(t, s.admin, `SELECT count(*) FROM pg_database WHERE datname = $1`, name); got != 0 {
		t.Errorf("database %q is still there after its test", name)
	}
}

func TestTemplates(t *testing.T) {
	t.Parallel()
	server := NewServer(t)
	s, err := newServer(t.Context(), server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer s.admin.Close()
	clone := func(t *testing.T, from Template) (*DB, error) {
		t.Helper()
		db, err := s.clone(t.Context(), from)
		if err == nil {
			t.Cleanup(func() { _ = db.Close() })
		}
		return db, err
	}

	t.Run("processes that race make a template once", func(t *testing.T) {
		var out [2]bytes.Buffer
		var procs [2]*exec.Cmd
		for i := range procs {
			procs[i] = exec.CommandContext(t.Context(), os.Args[0])
			procs[i].Env = append(os.Environ(), envOther+"="+server.URL)
			procs[i].Stdout, procs[i].Stderr = &out[i], &out[i]
			if err := procs[i].Start(); err != nil {
				t.Fatal(err)
			}
		}
		for i := range procs {
			if err := procs[i].Wait(); err != nil {
				t.Error(err)
			}
		}
		if got := strings.TrimSpace(out[0].String()) + strings.TrimSpace(out[1].String()); got != "01" && got != "10" {
			t.Errorf("the processes made the template %q times, want once", got)
		}
	})
	t.Run("changed files make another", func(t *testing.T) {
		from := tables("changed")
		if _, err := clone(t, from); err != nil {
			t.Fatal(err)
		}
		from.Files = fstest.MapFS{"1.sql": {Data: []byte(`CREATE TABLE u (n int)`)}}
		from.Migrate = func(ctx context.Context, db *sql.DB) error {
			_, err := db.ExecContext(ctx, `CREATE TABLE u (n int)`)
			return err
		}
		db, err := clone(t, from)
		if err != nil {
			t.Fatal(err)
		}
		if got := count(t, db.DB, `SELECT count(*) FROM u`); got != 0 {
			t.Errorf("u holds %d rows, want 0", got)
		}
	})
	t.Run("a migration that failed is done again from the start", func(t *testing.T) {
		from := tables("failed")
		broken := errors.New("half way")
		from.Migrate = func(ctx context.Context, db *sql.DB) error { return errors.Join(migrate(ctx, db), broken) }
		if _, err := clone(t, from); !errors.Is(err, broken) {
			t.Fatalf("clone = %v, want the migration's error", err)
		}
		from.Migrate = migrate
		if _, err := clone(t, from); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("rights on the database are the template's", func(t *testing.T) {
		from := tables("rights")
		from.Migrate = func(ctx context.Context, db *sql.DB) error {
			_, err := db.ExecContext(ctx, `
				CREATE ROLE "100% odd" NOLOGIN;
				DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO "100%% odd"', current_database()); END $$;
				DO $$ BEGIN EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()); END $$`)
			return err
		}
		db, err := clone(t, from)
		if err != nil {
			t.Fatal(err)
		}
		for right, want := range map[string]bool{"CREATE": true, "CONNECT": true, "TEMPORARY": false} {
			var got bool
			if err := db.QueryRowContext(t.Context(), `SELECT has_database_privilege('100% odd', current_database(), $1)`, right).Scan(&got); err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("the role has %s: %v, want %v", right, got, want)
			}
		}
	})
	t.Run("a sweep leaves the newest templates", func(t *testing.T) {
		for i := range templatesMax + 1 {
			if _, err := s.template(t.Context(), Template{Name: fmt.Sprintf("sweep%d", i)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := count(t, s.admin, `SELECT count(*) FROM pg_database WHERE datname LIKE 'ledger\_%'`); got != templatesMax {
			t.Errorf("%d databases are left, want %d templates", got, templatesMax)
		}
		if got := count(t, s.admin, `SELECT count(*) FROM pg_database WHERE starts_with(datname, 'ledger_template_sweep0')`); got != 0 {
			t.Error("the oldest template is still there")
		}
	})
}

// Two test binaries at once have a cluster each; one after the other they have the same.
func TestSlots(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "slots")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	dataDirectory := func(s *server) (dir string) {
		if err := s.admin.QueryRowContext(t.Context(), `SELECT current_setting('data_directory')`).Scan(&dir); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	first, err := takeSlot(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := takeSlot(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	got := dataDirectory(first) + " " + dataDirectory(second)
	want := filepath.Join(dir, "slot-0/postgres/data") + " " + filepath.Join(dir, "slot-1/postgres/data")
	if got != want {
		t.Errorf("clusters %s, want %s", got, want)
	}
}

func TestServer(t *testing.T) {
	t.Parallel()
	s := NewServer(t)
	db, err := sql.Open("postgres", s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), `CREATE TABLE kept (n int)`); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := db.ExecContext(t.Context(), `INSERT INTO kept VALUES ($1)`, i); err != nil {
			t.Fatal(err)
		}
		s.Kill()
		if err := db.PingContext(t.Context()); err == nil {
			t.Error("a killed server answers")
		} else if refusal, ok := errors.AsType[*pq.Error](err); ok {
			t.Errorf("a killed server refuses: %v", refusal)
		}
		s.Restart()
		if got := count(t, db, `SELECT count(*) FROM kept`); got != i+1 {
			t.Errorf("after kill %d: %d rows, want %d", i+1, got, i+1)
		}
	}
}

func count(t *testing.T, db *sql.DB, query string, args ...any) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// BenchmarkClone is what a test pays for its database, dropping it included.
func BenchmarkClone(b *testing.B) {
	s, err := shared(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		db, err := s.clone(b.Context(), tables("clone"))
		if err != nil {
			b.Fatal(err)
		}
		if err := errors.Join(db.Close(), s.drop(b.Context(), db.Name)); err != nil {
			b.Fatal(err)
		}
	}
}
