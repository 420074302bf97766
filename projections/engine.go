package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Engine keeps projections: live behind the ledger, rebuilt beside themselves, verified against themselves.
type Engine struct {
	db   *sql.DB
	name string // the ledger's schema
	log  *slog.Logger
	all  []Definition
	held *lru.Cache[bounds, []string] // types of events; see slice

	foldAt int64 // bytes; see foldOnTheWay
}

// NewEngine keeps the definitions in schemas named after the ledger's.
func NewEngine(db *sql.DB, ledgerName string, log *slog.Logger, all ...Definition) *Engine {
	if ledgerName == "" {
		ledgerName = schema.DefaultName
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	held, err := lru.New[bounds, []string](slicesRemembered)
	if err != nil {
		panic(err) // it is no size
	}
	return &Engine{db: db, name: ledgerName, log: log, all: all, held: held, foldAt: foldAt}
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

// ReaderName is the subscription that people mean by a name: a projection's, or a reader's own.
func (e *Engine) ReaderName(name string) string {
	if d, err := e.Find(name); err == nil {
		return d.SubscriptionName()
	}
	return name
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
	live := place{schema: e.live(d)}
	if err := e.create(ctx, tx, live, d); err != nil {
		return false, err
	}
	if err := e.index(ctx, tx, live, d); err != nil {
		return false, err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO projections (name, version, digest, apply) VALUES ($1, $2, $3, $4)`, d.Name, d.Version, d.Digest[:], d.Source); err != nil {
		return false, err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO subscriptions (name) VALUES ($1) ON CONFLICT (name) DO NOTHING`, d.SubscriptionName()); err != nil {
		return false, err
	}
	return true, tx.Commit()
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
		most := limit
		if d.Most > 0 {
			most = min(most, d.Most)
		}
		out = append(out, Live{
			Subscription: schema.Subscription{Name: d.SubscriptionName(), Limit: most, Types: d.Types(), Linger: d.Linger, Yield: d.Yield},
			Handle:       e.keeper(d),
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
