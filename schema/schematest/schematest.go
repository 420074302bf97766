package schematest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/lib/pq"
)

// EnvURL names the environment variable with the URL of a server to use instead of a private one.
const EnvURL = "DISPATCH_LEDGER_TEST_DATABASE_URL"

// DB is one test's own database.
type DB struct {
	*sql.DB        // a pool, closed when the test ends
	URL     string // the database's owner's, for processes that the test starts
	Name    string // the database
}

// Template is what databases are cloned from.
type Template struct {
	// Name tells templates apart; lower-case letters, digits and _.
	Name string
	// Files are what Migrate reads. When they change, the template is made anew.
	Files fs.FS
	// Migrate fills an empty database.
	Migrate func(context.Context, *sql.DB) error
	// Connect opens a pool on a database. Nil: sql.Open.
	Connect func(databaseURL string) (*sql.DB, error)
}

// Clone gives the test a database made from a template, and drops it when the test ends.
func Clone(t testing.TB, from Template) *DB {
	t.Helper()
	s, err := shared(t.Context())
	if err != nil {
		t.Fatalf("a PostgreSQL for tests: %v", err)
	}
	db, err := s.clone(t.Context(), from)
	if err != nil {
		t.Fatalf("a database from template %s: %v", from.Name, err)
	}
	t.Cleanup(func() {
		if err := errors.Join(db.Close(), s.drop(context.Background(), db.Name)); err != nil {
			t.Errorf("drop the test's database: %v", err)
		}
	})
	return db
}

const (
	templatePrefix = "ledger_template_"
	testPrefix     = "ledger_test_"
)

// server is the PostgreSQL that this binary's tests share, and the templates that it is known to have.
type server struct {
	url     string
	admin   *sql.DB
	cloning string // options of CREATE DATABASE

	mu        sync.Mutex // guards templates; held while one is made
	templates map[string]made
}

// made is a template that is ready.
type made struct {
	database string
	grants   string // what CREATE DATABASE does not copy, with %[1]s for the clone's quoted name
}

// newServer connects to the maintenance database that url names.
func newServer(ctx context.Context, databaseURL string) (*server, error) {
	admin, err := sql.Open("postgres", databaseURL)
	if err != nil {
		return nil, err
	}
	admin.SetMaxOpenConns(4)
	if err := admin.PingContext(ctx); err != nil {
		return nil, errors.Join(err, admin.Close())
	}
	return &server{url: databaseURL, admin: admin, templates: map[string]made{}}, nil
}

func (s *server) clone(ctx context.Context, from Template) (*DB, error) {
	template, err := s.template(ctx, from)
	if err != nil {
		return nil, err
	}
	name := testPrefix + strings.ToLower(rand.Text())
	quoted := pq.QuoteIdentifier(name)
	//nolint:gosec // names are quoted
	_, err = s.admin.ExecContext(ctx, "CREATE DATABASE "+quoted+" TEMPLATE "+pq.QuoteIdentifier(template.database)+s.cloning)
	if err != nil {
		return nil, err
	}
	if template.grants != "" {
		if _, err := s.admin.ExecContext(ctx, fmt.Sprintf(template.grants, quoted)); err != nil {
			return nil, errors.Join(err, s.drop(ctx, name))
		}
	}
	db, databaseURL, err := s.connect(name, from)
	if err != nil {
		return nil, errors.Join(err, s.drop(ctx, name))
	}
	return &DB{DB: db, URL: databaseURL, Name: name}, nil
}

// drop removes a database, whoever is still connected.
func (s *server) drop(ctx context.Context, name string) error {
	_, err := s.admin.ExecContext(ctx, "DROP DATABASE IF EXISTS "+pq.QuoteIdentifier(name)+" WITH (FORCE)")
	return err
}

func (s *server) connect(database string, from Template) (*sql.DB, string, error) {
	u, err := url.Parse(s.url)
	if err != nil {
		return nil, "", err
	}
	u.Path = "/" + database
	connect := from.Connect
	if connect == nil {
		connect = func(databaseURL string) (*sql.DB, error) { return sql.Open("postgres", databaseURL) }
	}
	db, err := connect(u.String())
	return db, u.String(), err
}

// template returns the database to clone, made if it is not there. Test binaries that share a server may ask at the same
// time; an advisory lock lets one of them work, and a template counts as made once it is marked as one.
func (s *server) template(ctx context.Context, from Template) (_ made, err error) {
	hash, err := hashFiles(from.Files)
	if err != nil {
		return made{}, err
	}
	name := templatePrefix + from.Name + "_" + hash
	s.mu.Lock()
	defer s.mu.Unlock()
	if m, ok := s.templates[name]; ok {
		return m, nil
	}

	conn, err := s.admin.Conn(ctx)
	if err != nil {
		return made{}, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	// One lock for all templates: migrations make roles, and roles belong to the whole server.
	if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock(hashtext($1))`, templatePrefix); err != nil {
		return made{}, err
	}
	defer func() {
		_, unlockErr := conn.ExecContext(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock(hashtext($1))`, templatePrefix)
		err = errors.Join(err, unlockErr)
	}()

	var ready bool
	if err := conn.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1 AND datistemplate)`, name).Scan(&ready); err != nil {
		return made{}, err
	}
	if !ready {
		if err := s.makeTemplate(ctx, conn, name, from); err != nil {
			return made{}, err
		}
	}
	m := made{database: name}
	if m.grants, err = grants(ctx, conn, name); err != nil {
		return made{}, err
	}
	s.templates[name] = m
	return m, nil
}

// makeTemplate makes and migrates a database, and marks it as a template last.
func (s *server) makeTemplate(ctx context.Context, conn *sql.Conn, name string, from Template) error {
	quoted := pq.QuoteIdentifier(name)
	for _, query := range []string{
		"DROP DATABASE IF EXISTS " + quoted + " WITH (FORCE)", // half made, by a process that died
		"CREATE DATABASE " + quoted + " TEMPLATE template0",
	} {
		if _, err := conn.ExecContext(ctx, query); err != nil {
			return err
		}
	}
	db, _, err := s.connect(name, from)
	if err != nil {
		return err
	}
	if from.Migrate != nil {
		err = from.Migrate(ctx, db)
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	// Nobody may connect, because a database in use cannot be cloned.
	_, err = conn.ExecContext(ctx, "ALTER DATABASE "+quoted+" WITH IS_TEMPLATE true ALLOW_CONNECTIONS false")
	return err
}

// grants are the statements that give a clone the template's own rights, which CREATE DATABASE leaves out.
func grants(ctx context.Context, conn *sql.Conn, name string) (string, error) {
	var statements sql.NullString
	err := conn.QueryRowContext(ctx, `
		SELECT 'REVOKE ALL ON DATABASE %[1]s FROM PUBLIC; ' || string_agg(
			format('GRANT %s ON DATABASE %%[1]s TO %s%s', privilege_type,
				CASE grantee WHEN 0 THEN 'PUBLIC' ELSE replace(grantee::regrole::text, '%', '%%') END,
				CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), '; ')
		FROM pg_database, aclexplode(datacl) WHERE datname = $1`, name).Scan(&statements)
	return statements.String, err
}

// hashFiles is the first 12 hexadecimal digits of a hash over names and contents.
func hashFiles(files fs.FS) (string, error) {
	sum := sha256.New()
	if files != nil {
		err := fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			content, err := fs.ReadFile(files, path)
			if err != nil {
				return err
			}
			fmt.Fprintf(sum, "%d %s %d ", len(path), path, len(content))
			sum.Write(content) // a hash never fails
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil))[:12], nil
}
