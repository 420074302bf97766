package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/broker"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/inspector"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/contacts"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/projections/promptness"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/local"
)

// builtIn are the projections that the service keeps.
var builtIn = []projections.Definition{targets.Definition, consent.Definition, contacts.Definition, promptness.Definition, deliveries.Definition, queue.Definition, audit.Definition, suppressions.Definition}

// store is an open ledger, as every command needs it.
type store struct {
	url       string // of the owner, on the server itself
	pooled    string // the same by way of a pooler; empty: there is none
	private   bool   // this process runs the database
	db        *sql.DB
	replica   *schema.Replica // answers questions in its place; nil: there is none
	ledger    *schema.Ledger
	vault     *schema.Vault
	tokens    *schema.Tokens
	engine    *projections.Engine
	outdated  []projections.Definition // whose live tables are of an older version
	registry  *prometheus.Registry
	log       *slog.Logger
	settings  *settings
	broker    *broker.Config // the one in use, once it is known
	closeDown []func() error

	now   func() time.Time                           // of the reconciler; the demonstration has a clock of its own
	sleep func(context.Context, time.Duration) error // the same; nil: by the clock on the wall

	inspecting *inspector.Handler // see store.inspector
	parts      processes          // that a benchmark started
}

// connectionsMin is what a process needs at least: two that append, one that claims, and some that hold one of the work's
// while they wait for one of the requests'.
const connectionsMin = 16

// idle is how long a connection that nobody needs is kept.
const idle = 30 * time.Second

// connect opens a pool in the service's role, with the projections on its path and half of the process's connections. A
// process has two: of the one, two connections append and the rest answer requests; of the other, each subscription has one
// while it works and the dispatcher the rest. Whoever holds one of the second may wait for one of the first, never the other
// way round.
func (st *store) connect(label string, generic bool) (*sql.DB, error) {
	o := st.options(label)
	o.Generic = generic
	url := st.url
	if st.pooled != "" {
		url, o.Direct = st.pooled, st.url
	}
	db, err := schema.Connect(url, o)
	if err != nil {
		return nil, err
	}
	st.bound(db)
	return db, nil
}

// options are those of a pool in the service's role.
func (st *store) options(label string) schema.Options {
	return schema.Options{Name: st.settings.name, Role: "ledger_service", Paths: projections.Paths(st.settings.name, builtIn...), Label: label}
}

// bound gives a pool its share of the connections.
func (st *store) bound(db *sql.DB) {
	for _, pool := range []*sql.DB{db, schema.Direct(db)} {
		pool.SetMaxOpenConns(st.settings.connections / 2)
		pool.SetMaxIdleConns(st.settings.connections / 2)
		pool.SetConnMaxIdleTime(idle)
	}
}

// open finds or starts the database, migrates it, and opens the ledger in the service's role.
func (s *settings) open(ctx context.Context) (_ *store, err error) {
	log, err := s.logger()
	if err != nil {
		return nil, err
	}
	st := &store{log: log, settings: s, registry: prometheus.NewRegistry(), now: time.Now}
	defer func() {
		if err != nil {
			err = errors.Join(err, st.Close())
		}
	}()
	if err := st.findDatabase(ctx); err != nil {
		return nil, err
	}
	if err := st.migrate(ctx); err != nil {
		return nil, err
	}
	if st.db, err = st.connect("dispatch-ledger", false); err != nil {
		return nil, err
	}
	st.closeDown = append(st.closeDown, st.db.Close)
	if err := st.openReplica(); err != nil {
		return nil, err
	}
	st.engine = projections.NewEngine(st.db, s.name, log, builtIn...)
	if st.outdated, err = st.engine.Install(ctx); err != nil {
		return nil, err
	}
	key, err := s.key()
	if err != nil {
		return nil, err
	}
	if st.vault, err = schema.OpenVault(ctx, st.db, key, time.Now); err != nil {
		return nil, err
	}
	st.tokens = schema.NewTokens(st.db, time.Now)
	st.ledger = schema.OpenLedger(st.db, log, st.registry)
	st.closeDown = append(st.closeDown, func() error { st.ledger.Close(); return nil })
	return st, nil
}

// Close undoes open, the last thing first.
func (st *store) Close() error {
	var errs []error
	for i := len(st.closeDown) - 1; i >= 0; i-- {
		errs = append(errs, st.closeDown[i]())
	}
	st.closeDown = nil
	return errors.Join(errs...)
}

// findDatabase takes the URL that was given, or the private database's: that of the process that runs it now, or of
// one started here.
func (st *store) findDatabase(ctx context.Context) error {
	s := st.settings
	st.url = s.databaseURL
	if st.url == "" {
		st.url, _ = s.env.lookup("DATABASE_URL")
	}
	if s.connections < connectionsMin {
		return usagef("--connections is %d; with less than %d the parts of a process wait for each other", s.connections, connectionsMin)
	}
	if s.directURL != "" {
		if st.url == "" {
			return usagef("--session-database-url goes with the pooler's URL as --database-url; without a pooler, give the server's as --database-url alone")
		}
		st.url, st.pooled = s.directURL, st.url
	}
	if st.url != "" {
		return nil
	}
	running := filepath.Join(s.dataDir, "database.url")
	server, err := local.Start(ctx, local.Config{DataDir: s.dataDir, Logger: st.log})
	if errors.Is(err, local.ErrInUse) {
		url, readErr := os.ReadFile(running)
		if readErr != nil {
			return err
		}
		st.url = strings.TrimSpace(string(url))
		return nil
	}
	if err != nil {
		return err
	}
	st.private, st.url = true, server.URL()
	st.closeDown = append(st.closeDown, func() error {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		return errors.Join(os.Remove(running), server.Stop(stopping))
	})
	if err := os.WriteFile(running, []byte(server.URL()+"\n"), 0o600); err != nil {
		return fmt.Errorf("say where the database is: %w", err)
	}
	return nil
}

// owner opens a pool that works as the ledger's owner, for the few things that the service may not do.
func (st *store) owner() (*sql.DB, error) {
	return schema.Connect(st.url, schema.Options{Name: st.settings.name, Label: "dispatch-ledger owner"})
}

func (st *store) migrate(ctx context.Context) error {
	owner, err := st.owner()
	if err != nil {
		return err
	}
	return errors.Join(schema.Migrate(ctx, owner), owner.Close())
}

// with opens the store for a command and closes it after. A command that runs the database itself first brings the
// projections up to date, since nobody else does.
func (s *settings) with(ctx context.Context, do func(context.Context, *store) error) error {
	return s.serving(ctx, func(ctx context.Context, st *store) error {
		if st.private {
			if err := st.catchUp(ctx); err != nil {
				return err
			}
		}
		return do(ctx, st)
	})
}

// serving is with for a command that does the work itself.
func (s *settings) serving(ctx context.Context, do func(context.Context, *store) error) error {
	st, err := s.open(ctx)
	if err != nil {
		return err
	}
	return errors.Join(do(ctx, st), st.Close())
}
