package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Engine keeps projections: live behind the ledger, rebuilt beside themselves, verified against themselves.
type Engine struct {
	db   *sql.DB
	name string // the ledger's schema
	log  *slog.Logger
	all  []Definition
}

// NewEngine keeps the definitions in schemas named after the ledger's.
func NewEngine(db *sql.DB, ledgerName string, log *slog.Logger, all ...Definition) *Engine {
	if ledgerName == "" {
		ledgerName = schema.DefaultName
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Engine{db: db, name: ledgerName, log: log, all: all}
}

// Definitions are the projections that the engine keeps.
func (e *Engine) Definitions() []Definition { return e.all }

// Paths are the live schemas, for the search path of whoever reads the projections.
func Paths(ledgerName string, all ...Definition) []string {
	if ledgerName == "" {
		ledgerName = schema.DefaultName
	}
	out := make([]string, len(all))
	for i, d := range all {
		out[i] = ledgerName + "_" + d.Name
	}
	return out
}

func (e *Engine) live(d Definition) string { return e.name + "_" + d.Name }

// Find gives a projection by name.
func (e *Engine) Find(name string) (Definition, error) {
	var names []string
	for _, d := range e.all {
		if d.Name == name {
			return d, nil
		}
		names = append(names, d.Name)
	}
	return Definition{}, fmt.Errorf("projection %q: %w; there are %s", name, schema.ErrNotFound, strings.Join(names, ", "))
}

// Install makes the live tables of each projection that has none yet, and reports those that stand in an older
// version than their definition: they keep serving until Rebuild swaps the new version in.
func (e *Engine) Install(ctx context.Context) (outdated []Definition, err error) {
	for _, d := range e.all {
		current, err := e.install(ctx, d)
		if err != nil {
			return nil, fmt.Errorf("install projection %s: %w", d.Name, err)
		}
		if !current {
			outdated = append(outdated, d)
		}
	}
	return outdated, nil
}

func (e *Engine) install(ctx context.Context, d Definition) (current bool, err error) {
	tx, err := e.db.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, e.live(d)+".install"); err != nil {
		return false, err
	}
	var digest []byte
	err = tx.QueryRowContext(ctx, `SELECT digest FROM projections WHERE name = $1`, d.Name).Scan(&digest)
	switch {
	case err == nil:
		return string(digest) == string(d.Digest[:]), nil
	case !errors.Is(err, sql.ErrNoRows):
		return false, err
	}
	if err := e.create(ctx, tx, e.live(d), d); err != nil {
		return false, err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO projections (name, version, digest) VALUES ($1, $2, $3)`, d.Name, d.Version, d.Digest[:]); err != nil {
		return false, err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO subscriptions (name) VALUES ($1) ON CONFLICT (name) DO NOTHING`, d.SubscriptionName()); err != nil {
		return false, err
	}
	return true, tx.Commit()
}

// create makes a schema and the projection's tables in it.
func (e *Engine) create(ctx context.Context, tx *sql.Tx, where string, d Definition) error {
	quoted := pq.QuoteIdentifier(where)
	_, err := tx.ExecContext(ctx, "CREATE SCHEMA "+quoted+"; GRANT USAGE ON SCHEMA "+quoted+" TO ledger_reader; "+
		"ALTER DEFAULT PRIVILEGES IN SCHEMA "+quoted+" GRANT SELECT ON TABLES TO ledger_reader; "+
		e.enter(where)+d.Tables+";"+e.leave())
	return err
}

// enter and leave bracket statements that work in a schema: their own first, then the ledger's.
func (e *Engine) enter(where string) string {
	return "SET LOCAL search_path = " + pq.QuoteIdentifier(where) + ", " + pq.QuoteIdentifier(e.name) + ", pg_temp;\n"
}

func (e *Engine) leave() string {
	paths := []string{pq.QuoteIdentifier(e.name)}
	for _, p := range Paths(e.name, e.all...) {
		paths = append(paths, pq.QuoteIdentifier(p))
	}
	return ";\nSET LOCAL search_path = " + strings.Join(paths, ", ")
}

// apply runs the projection's statements for a slice on the tables in a schema. The caller has set the slice.
func (e *Engine) apply(ctx context.Context, tx *sql.Tx, where string, d Definition, s schema.Slice) error {
	statements := d.For(s)
	if statements == "" {
		return nil
	}
	_, err := tx.ExecContext(ctx, e.enter(where)+statements+e.leave())
	if err != nil {
		return fmt.Errorf("projection %s, slice %s: %w", d.Name, s, err)
	}
	return nil
}

// Live is one projection's subscription and what it does with a slice.
type Live struct {
	Subscription schema.Subscription
	Handle       schema.SliceHandler
}

// Live gives the projections' subscriptions. limit is the largest slice: latency wants small, catching up wants large.
func (e *Engine) Live(limit int) []Live {
	out := make([]Live, 0, len(e.all))
	for _, d := range e.all {
		out = append(out, Live{
			Subscription: schema.Subscription{Name: d.SubscriptionName(), Limit: limit, Types: d.Types(), Linger: d.Linger},
			Handle: func(ctx context.Context, tx *sql.Tx, s schema.Slice) error {
				return e.apply(ctx, tx, e.live(d), d, s)
			},
		})
	}
	return out
}

// AddTo registers a subscription's handler with a Watermill router.
func AddTo(ctx context.Context, router *message.Router, topic *schema.Topic, s schema.Subscription, handle schema.SliceHandler) error {
	sub, err := topic.Subscriber(ctx, s)
	if err != nil {
		return err
	}
	router.AddConsumerHandler(s.Name, schema.TopicName, sub, topic.Handler(s, handle))
	return nil
}

// Status is where a subscription stands.
type Status struct {
	Name          string    `json:"name"`
	Kind          string    `json:"kind"` // projection, or the part of the service that reads
	Version       int       `json:"version,omitempty"`
	Position      int64     `json:"position"`
	Head          int64     `json:"head"`
	Lag           int64     `json:"lag"` // events behind the head
	State         string    `json:"state"`
	Error         *string   `json:"error"`
	ErrorPosition *int64    `json:"error_position"`
	UpdatedAt     time.Time `json:"updated_at"`
}

// Statuses lists every reader of the ledger.
func Statuses(ctx context.Context, q schema.Querier) ([]Status, error) {
	rows, err := q.QueryContext(ctx, `
		SELECT s.name, coalesce(p.version, 0), s.position, h.head, s.state, s.error, s.error_position, s.updated_at
		FROM subscriptions s
		LEFT JOIN projections p ON s.name = 'projection.' || p.name
		CROSS JOIN (SELECT coalesce(max(position), 0) AS head FROM events) h
		ORDER BY s.name`)
	if err != nil {
		return nil, fmt.Errorf("projections: %w", err)
	}
	defer rows.Close()
	var out []Status
	for rows.Next() {
		var s Status
		if err := rows.Scan(&s.Name, &s.Version, &s.Position, &s.Head, &s.State, &s.Error, &s.ErrorPosition, &s.UpdatedAt); err != nil {
			return nil, fmt.Errorf("projections: %w", err)
		}
		s.Lag = s.Head - s.Position
		s.Kind = "reader"
		if name, ok := strings.CutPrefix(s.Name, "projection."); ok {
			s.Name, s.Kind = name, "projection"
		}
		out = append(out, s)
	}
	return out, rows.Err()
}
