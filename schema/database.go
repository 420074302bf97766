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

	// Direct is the server's own URL where the other leads through a pooler such as PgBouncer in transaction mode: for what
	// needs a session, see the function Direct.
	Direct string
}

// Connect opens a pool whose connections have the ledger's schema first on their search path. It does not wait
// for the database: the first use of the pool does.
//
// With o.Direct, the pool uses databaseURL for one transaction at a time and keeps nothing on a connection between two.
func Connect(databaseURL string, o Options) (*sql.DB, error) {
	if o.Name == "" {
		o.Name = DefaultName
	}
	for _, name := range append([]string{o.Name}, o.Paths...) {
		if !nameShape.MatchString(name) {
			return nil, fmt.Errorf("schema name %q: use lower-case letters, digits and _, starting with a letter", name)
		}
	}
	if o.Direct == "" {
		c, err := connector(databaseURL, o, o.settings())
		if err != nil {
			return nil, err
		}
		return sql.OpenDB(sessionConnector{c, o.path()}), nil
	}
	pooled, err := connector(databaseURL, o, nil)
	if err != nil {
		return nil, err
	}
	past := o
	past.Direct = ""
	direct, err := Connect(o.Direct, past)
	if err != nil {
		return nil, err
	}
	var begin strings.Builder
	for _, s := range o.settings() {
		begin.WriteString("; SET LOCAL " + s[0] + " = " + s[1])
	}
	return sql.OpenDB(&transactions{pooled, begin.String(), direct}), nil
}

// path is the search path.
func (o Options) path() string { return strings.Join(append([]string{o.Name}, o.Paths...), ",") }

// settings are what every connection, or else every transaction, works under.
func (o Options) settings() [][2]string {
	settings := [][2]string{{"search_path", o.path()}}
	if o.Role != "" {
		settings = append(settings, [2]string{"role", o.Role})
	}
	if o.Generic {
		settings = append(settings, [2]string{"plan_cache_mode", "force_generic_plan"})
	}
	return settings
}

// connector puts the options into the URL, and the settings with them, so that every connection begins with them.
func connector(databaseURL string, o Options, settings [][2]string) (*pq.Connector, error) {
	dsn, err := dataSource(databaseURL, o, settings)
	if err != nil {
		return nil, err
	}
	c, err := pq.NewConnector(dsn)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	return c, nil
}

func dataSource(databaseURL string, o Options, settings [][2]string) (string, error) {
	u, err := url.Parse(databaseURL)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return "", errors.New("the database URL does not parse: it looks like postgres://user:password@host:5432/database?sslmode=require")
	}
	q := u.Query()
	options := q.Get("options")
	for _, s := range settings {
		options += " -c " + s[0] + "=" + s[1]
	}
	if options = strings.TrimSpace(options); options != "" {
		q.Set("options", options)
	}
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
	if _, err := db.ExecContext(ctx, regrant); err != nil {
		return fmt.Errorf("migrate: %w", unavailable(err))
	}
	return nil
}

// regrant gives back what the migrations granted on the database itself, which a dump of it does not hold.
const regrant = `DO $$ DECLARE privilege text; BEGIN
	FOREACH privilege IN ARRAY ARRAY['CREATE', 'TEMPORARY'] LOOP
		IF NOT has_database_privilege('ledger_service', current_database(), privilege) THEN
			EXECUTE format('GRANT %s ON DATABASE %I TO ledger_service', privilege, current_database());
		END IF;
	END LOOP;
END $$`

// unavailable marks errors that mean the database is not there, as against one that answered no.
func unavailable(err error) error {
	if err == nil || !Transient(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
