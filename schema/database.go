package schema

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"regexp"
	"strings"

	"github.com/lib/pq"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// DefaultName is the SQL schema that a ledger lives in unless told otherwise.
const DefaultName = "ledger"

// ErrUnavailable is a database that could not be reached or went away. What was asked may or may not have
// happened; asking again is safe, because events are recognised by their id.
var ErrUnavailable = errors.New("the database is unavailable")

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are the numbered steps that Migrate takes, for whoever wants to know whether they changed.
func Migrations() fs.FS {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err)
	}
	return dir
}

var nameShape = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`)

// Options say as whom and where connections work.
type Options struct {
	Name  string   // SQL schema of the ledger; "" is DefaultName
	Role  string   // role to work as, such as "ledger_service"; "" keeps the login's own
	Paths []string // further schemas on the search path, after the ledger's
	Label string   // application_name, so that an operator sees who holds a connection

	// Generic has prepared statements planned once, whatever their arguments: for the program's own queries, which go by
	// an index whatever they are asked for. Planning them anew each time, which is what PostgreSQL does while it takes that
	// for cheaper, costs more than running them.
	Generic bool
}

// Connect opens a pool whose connections have the ledger's schema first on their search path. It does not wait
// for the database: the first use of the pool does.
func Connect(databaseURL string, o Options) (*sql.DB, error) {
	connector, err := newConnector(databaseURL, o)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

func newConnector(databaseURL string, o Options) (*pq.Connector, error) {
	dsn, err := dataSource(databaseURL, o)
	if err != nil {
		return nil, err
	}
	c, err := pq.NewConnector(dsn)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	return c, nil
}

// dataSource puts the options into the URL, where every connection of the pool finds them.
func dataSource(databaseURL string, o Options) (string, error) {
	if o.Name == "" {
		o.Name = DefaultName
	}
	for _, name := range append([]string{o.Name}, o.Paths...) {
		if !nameShape.MatchString(name) {
			return "", fmt.Errorf("schema name %q: use lower-case letters, digits and _, starting with a letter", name)
		}
	}
	u, err := url.Parse(databaseURL)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return "", errors.New("the database URL does not parse: it looks like postgres://user:password@host:5432/database?sslmode=require")
	}
	q := u.Query()
	settings := []string{"-c search_path=" + strings.Join(append([]string{o.Name}, o.Paths...), ",")}
	if o.Role != "" {
		settings = append(settings, "-c role="+o.Role)
	}
	if o.Generic {
		settings = append(settings, "-c plan_cache_mode=force_generic_plan")
	}
	if given := q.Get("options"); given != "" {
		settings = append([]string{given}, settings...)
	}
	q.Set("options", strings.Join(settings, " "))
	q.Set("binary_parameters", "yes") // one round trip instead of two, and bytea as it is
	if o.Label != "" {
		q.Set("application_name", o.Label)
	}
	if q.Get("connect_timeout") == "" {
		q.Set("connect_timeout", "10")
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// Migrate brings the ledger in the schema that db's search path names first up to this program's version. It
// is safe to call from several processes at once: one works, the others wait.
func Migrate(ctx context.Context, db *sql.DB) error {
	var name string
	if err := db.QueryRowContext(ctx, `SELECT trim(split_part(current_setting('search_path'), ',', 1))`).Scan(&name); err != nil {
		return fmt.Errorf("migrate: %w", unavailable(err))
	}
	if _, err := db.ExecContext(ctx, "CREATE SCHEMA IF NOT EXISTS "+pq.QuoteIdentifier(name)); err != nil {
		var pqErr *pq.Error
		if !errors.As(err, &pqErr) || pqErr.Code != "23505" { // made by somebody else at this moment
			return fmt.Errorf("migrate: %w", unavailable(err))
		}
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, Migrations(),
		goose.WithSessionLocker(locker), goose.WithSlog(slog.New(slog.DiscardHandler)))
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", unavailable(err))
	}
	return nil
}

// unavailable marks errors that mean the database is not there, as against one that answered no.
func unavailable(err error) error {
	if err == nil || !Transient(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
