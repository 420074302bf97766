package schema

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// Errors of an append. An error about one event of a request is an *ItemError around one of these.
var (
	// ErrConflict is a stream that is no longer at the version that the writer decided on. Read it again and decide anew.
	ErrConflict = errors.New("the stream has changed")
	// ErrIDReused is an event id that stands in the ledger with other content.
	ErrIDReused = errors.New("the event id is taken by other content")
	// ErrTooLarge is an event that the ledger does not take.
	ErrTooLarge = fmt.Errorf("%w: too large", domain.ErrInvalid)
	// ErrBusy is a full queue: more is asked for than the database can take at the moment. Try again later.
	ErrBusy = errors.New("the ledger is busy")
	// ErrClosed is a ledger that was closed.
	ErrClosed = errors.New("the ledger is closed")
)

// ItemError says which event of a request was refused.
type ItemError struct {
	Index int       // of the event in the request, from 0
	ID    uuid.UUID // its id
	Err   error
}

func (e *ItemError) Error() string { return fmt.Sprintf("event %d (%s): %s", e.Index, e.ID, e.Err) }

// Unwrap gives the reason.
func (e *ItemError) Unwrap() error { return e.Err }

// ConflictError is an ErrConflict with the versions.
type ConflictError struct {
	Stream           string
	Expected, Actual int64
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("stream %s is at version %d, not %d: read it again and decide anew", e.Stream, e.Actual, e.Expected)
}

// Is makes it an ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// Bounds of an append.
const (
	MaxEvent   = 8 << 20  // bytes of data and sealed of one event
	maxBatch   = 512      // events that share a group commit
	smallBatch = 16       // events that a batch takes whatever else is under way
	batchBytes = 16 << 20 // of their data
	spareBytes = 1 << 20  // of a batch whose buffers are used again
	maxCall    = 2000     // events in one call of append()
	queueDepth = 8192     // requests that may wait
	flushDepth = 64       // batches that may wait for the disk
	ownKept    = 1024     // ends of appends whose notifications may still come

	callTimeout = 30 * time.Second // of one call, waiting for the lock included
)

// Appended says where an event stands.
type Appended struct {
	ID         uuid.UUID
	Position   int64
	Version    int64 // within its stream
	RecordedAt time.Time
	Duplicate  bool // it stood there before, with the same content
}

// Ledger appends to and reads from the events table.
//
// Append may be called from any number of goroutines: what waits at the same time shares one commit.
type Ledger struct {
	db       *sql.DB
	log      *slog.Logger
	bell     *bell
	line     *line
	settled  chan settled
	own      *lru.Cache[int64, struct{}] // where appends of this process ended, of which it need not be notified
	calls    atomic.Int64                // appends under way
	closed   sync.Once
	workers  sync.WaitGroup // appenders
	flushing sync.WaitGroup
	metrics  ledgerMetrics
}

type ledgerMetrics struct {
	events  prometheus.Counter
	batches prometheus.Histogram
	seconds prometheus.Histogram
	busy    prometheus.Counter
}

// request is one caller's events, appended together or not at all.
type request struct {
	events  []*domain.Event
	digests [][]byte
	done    chan answer // buffered: the appender never waits for a caller that left
}

type answer struct {
	appended []Appended
	err      error
}

// settled is a batch that is committed and may not be on disk yet.
type settled struct {
	*called
	conns *appendConns // that it was committed on
}

// OpenLedger starts appending through db. Metrics are registered with reg unless it is nil.
func OpenLedger(db *sql.DB, log *slog.Logger, reg prometheus.Registerer) *Ledger {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	own, err := lru.New[int64, struct{}](ownKept)
	if err != nil {
		panic(err) // it is no size
	}
	l := &Ledger{
		db: db, log: log, bell: newBell(), own: own,
		line: newLine(), settled: make(chan settled, flushDepth),
		metrics: ledgerMetrics{
			events:  prometheus.NewCounter(prometheus.CounterOpts{Name: "ledger_events_appended_total", Help: "Events appended by this process."}),
			batches: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ledger_append_batch_events", Help: "Events that shared a commit.", Buckets: prometheus.ExponentialBuckets(1, 2, 11)}),
			seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ledger_append_seconds", Help: "Time of one append call, commit included.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
			busy:    prometheus.NewCounter(prometheus.CounterOpts{Name: "ledger_append_refused_busy_total", Help: "Requests refused because the queue was full."}),
		},
	}
	if reg != nil {
		reg.MustRegister(l.metrics.events, l.metrics.batches, l.metrics.seconds, l.metrics.busy)
	}
	l.workers.Go(l.appender) // a second one would only split the batches
	l.flushing.Go(l.flusher)
	return l
}

// Close lets what was accepted finish and refuses what comes after with ErrClosed.
func (l *Ledger) Close() {
	l.closed.Do(func() {
		l.line.close()
		l.workers.Wait()
		close(l.settled)
	})
	l.flushing.Wait()
}

// DB is the pool that the ledger works on.
func (l *Ledger) DB() *sql.DB { return l.db }

// Append adds the events in order, all or none, and returns once they are durable.
//
// A repeat of an event that the ledger holds is answered with where it stands. Errors: an *ItemError around
// ErrConflict, ErrIDReused or ErrTooLarge; ErrBusy; ErrUnavailable, after which the same call may be made again;
// the context's, after which the events may or may not have been appended.
func (l *Ledger) Append(ctx context.Context, events ...domain.Event) ([]Appended, error) {
	if len(events) == 0 {
		return nil, nil
	}
	unique, index, err := distinct(events)
	if err != nil {
		return nil, err
	}
	r := &request{events: unique, digests: digests(unique), done: make(chan answer, 1)}
	if len(unique) > maxBatch {
		appended, err := l.appendLarge(ctx, r)
		return spread(appended, index), err
	}
	l.line.under.Add(int64(len(unique)))
	defer l.line.under.Add(-int64(len(unique)))
	switch err := l.line.put(r); {
	case errors.Is(err, ErrBusy):
		l.metrics.busy.Inc()
		return nil, fmt.Errorf("%w: %d requests are waiting; try again in a moment", err, queueDepth)
	case err != nil:
		return nil, err
	}
	select {
	case a := <-r.done:
		return spread(a.appended, index), a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// AppendTx adds the events inside a transaction that the caller already has. It takes the ledger's lock, which is
// held until that transaction ends: do everything slow before. After an error the transaction must be rolled back.
// The transaction must be READ COMMITTED.
func (l *Ledger) AppendTx(ctx context.Context, tx *sql.Tx, events ...domain.Event) ([]Appended, error) {
	if len(events) == 0 {
		return nil, nil
	}
	unique, index, err := distinct(events)
	if err != nil {
		return nil, err
	}
	appended, err := l.appendChunks(ctx, tx, &request{events: unique, digests: digests(unique)})
	return spread(appended, index), err
}

func (l *Ledger) appendLarge(ctx context.Context, r *request) (appended []Appended, err error) {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("append: %w", unavailable(err))
	}
	defer tx.Rollback()
	appended, err = l.appendChunks(ctx, tx, r)
	if err != nil {
		return nil, err
	}
	if err := tx.Commit(); err != nil {
		return nil, fmt.Errorf("append: %w", unavailable(err))
	}
	l.bell.ring(typesIn(nil, r.events)...)
	return appended, nil
}

// typesIn adds the types of events to those listed.
func typesIn(types []string, events []*domain.Event) []string {
	for _, e := range events {
		if !slices.Contains(types, e.Type) {
			types = append(types, e.Type)
		}
	}
	return types
}

func (l *Ledger) appendChunks(ctx context.Context, tx *sql.Tx, r *request) ([]Appended, error) {
	appended := make([]Appended, 0, len(r.events))
	for from := 0; from < len(r.events); from += maxCall {
		to := min(from+maxCall, len(r.events))
		chunk := newBatch()
		chunk.add(&request{events: r.events[from:to], digests: r.digests[from:to]})
		c, err := l.call(ctx, func(query string, args ...any) (*sql.Rows, error) {
			return tx.QueryContext(ctx, query, args...)
		}, chunk)
		if err != nil {
			return nil, err
		}
		answer := c.answered()[0]
		if err := answer.err; err != nil {
			var item *ItemError
			if errors.As(err, &item) {
				item.Index += from
			}
			return nil, err
		}
		appended = append(appended, answer.appended...)
	}
	return appended, nil
}

// distinct drops repeats of an event inside one request and says for each event given which of the rest it is.
func distinct(events []domain.Event) (unique []*domain.Event, index []int, err error) {
	if len(events) == 1 {
		if err := checkEvent(&events[0]); err != nil {
			return nil, nil, &ItemError{ID: events[0].ID, Err: err}
		}
		return []*domain.Event{&events[0]}, []int{0}, nil
	}
	seen := make(map[uuid.UUID]int, len(events))
	for i := range events {
		e := &events[i]
		if err := checkEvent(e); err != nil {
			return nil, nil, &ItemError{Index: i, ID: e.ID, Err: err}
		}
		if at, ok := seen[e.ID]; ok {
			if !sameContent(unique[at], e) {
				return nil, nil, &ItemError{Index: i, ID: e.ID, Err: fmt.Errorf("%w, in the same request", ErrIDReused)}
			}
			index = append(index, at)
			continue
		}
		seen[e.ID] = len(unique)
		index = append(index, len(unique))
		unique = append(unique, e)
	}
	return unique, index, nil
}

// spread gives each event of the request its answer; the later ones of a repeat are duplicates of the first.
func spread(appended []Appended, index []int) []Appended {
	if appended == nil || len(appended) == len(index) {
		return appended
	}
	out := make([]Appended, len(index))
	given := make([]bool, len(appended))
	for i, at := range index {
		out[i] = appended[at]
		if given[at] {
			out[i].Duplicate = true
		}
		given[at] = true
	}
	return out
}

func sameContent(a, b *domain.Event) bool {
	return a.Type == b.Type && a.Stream == b.Stream && string(a.Data) == string(b.Data) && string(a.Sealed) == string(b.Sealed)
}

func checkEvent(e *domain.Event) error {
	switch {
	case e.ID == uuid.Nil:
		return domain.Invalid("/id", "is missing")
	case e.Type == "" || e.Stream == "" || len(e.Data) == 0:
		return domain.Invalid("", "has no type, stream or data")
	case len(e.Data)+len(e.Sealed) > MaxEvent:
		return fmt.Errorf("%w: %d bytes; an event is at most %d", ErrTooLarge, len(e.Data)+len(e.Sealed), MaxEvent)
	}
	for _, s := range [...]string{e.Type, e.Stream, e.Channel, e.Purpose, e.State, e.Target, e.Actor, e.Source} {
		if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
			return domain.Invalid("", "holds bytes that are not UTF-8 text")
		}
	}
	if !utf8.Valid(e.Data) || bytes.IndexByte(e.Data, 0) >= 0 {
		return domain.Invalid("", "holds bytes that are not UTF-8 text")
	}
	return nil
}

func digests(events []*domain.Event) [][]byte {
	out := make([][]byte, len(events))
	for i, e := range events {
		if !e.OccurredAt.IsZero() {
			e.OccurredAt = e.OccurredAt.Truncate(time.Microsecond)
		}
		d := domain.Digest(e)
		out[i] = d[:]
	}
	return out
}

// Head is the position of the last event; 0 in an empty ledger.
func (l *Ledger) Head(ctx context.Context) (int64, error) { return Head(ctx, l.db) }

// Querier is a *sql.DB, *sql.Tx or *sql.Conn.
type Querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Head is the position of the last event; 0 in an empty ledger.
func Head(ctx context.Context, q Querier) (head int64, err error) {
	err = q.QueryRowContext(ctx, `SELECT coalesce(max(position), 0) FROM events`).Scan(&head)
	if err != nil {
		return 0, fmt.Errorf("head of the ledger: %w", unavailable(err))
	}
	return head, nil
}
