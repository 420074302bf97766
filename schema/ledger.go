package schema

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
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
	"github.com/lib/pq"
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
	MaxEvent   = 8 << 20 // bytes of data and sealed of one event
	maxBatch   = 512     // events that share a group commit
	maxCall    = 2000    // events in one call of append()
	queueDepth = 8192    // requests that may wait
	appenders  = 1       // connections that append; a second one only splits the batches
	flushDepth = 64      // batches that may wait for the disk
	ownKept    = 1024    // ends of appends whose notifications may still come

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
	requests chan *request
	settled  chan settled
	own      *lru.Cache[int64, struct{}] // where appends of this process ended, of which it need not be notified
	closing  chan struct{}
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
	ctx     context.Context
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
	batch   []*request
	answers []answer
	conns   *appendConns // that it was committed on
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
		requests: make(chan *request, queueDepth), settled: make(chan settled, flushDepth), closing: make(chan struct{}),
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
	for range appenders {
		l.workers.Go(l.appender)
	}
	l.flushing.Go(l.flusher)
	return l
}

// Close lets what was accepted finish and refuses what comes after with ErrClosed.
func (l *Ledger) Close() {
	l.closed.Do(func() {
		close(l.closing)
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
	r := &request{ctx: ctx, events: unique, digests: digests(unique), done: make(chan answer, 1)}
	if len(unique) > maxBatch {
		appended, err := l.appendLarge(ctx, r)
		return spread(appended, index), err
	}
	select {
	case <-l.closing:
		return nil, ErrClosed
	default:
	}
	select {
	case l.requests <- r:
	default:
		l.metrics.busy.Inc()
		return nil, fmt.Errorf("%w: %d requests are waiting; try again in a moment", ErrBusy, queueDepth)
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
	appended, err := l.appendChunks(ctx, tx, &request{ctx: ctx, events: unique, digests: digests(unique)})
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
	l.bell.ring(typesIn([]*request{r})...)
	return appended, nil
}

// typesIn lists the types of the events of a batch.
func typesIn(batch []*request) (types []string) {
	for _, r := range batch {
		for _, e := range r.events {
			if !slices.Contains(types, e.Type) {
				types = append(types, e.Type)
			}
		}
	}
	return types
}

func (l *Ledger) appendChunks(ctx context.Context, tx *sql.Tx, r *request) ([]Appended, error) {
	appended := make([]Appended, 0, len(r.events))
	for from := 0; from < len(r.events); from += maxCall {
		to := min(from+maxCall, len(r.events))
		chunk := &request{ctx: ctx, events: r.events[from:to], digests: r.digests[from:to]}
		answers, err := l.call(ctx, func(query string, args ...any) (*sql.Rows, error) {
			return tx.QueryContext(ctx, query, args...)
		}, []*request{chunk})
		if err != nil {
			return nil, err
		}
		if err := answers[0].err; err != nil {
			var item *ItemError
			if errors.As(err, &item) {
				item.Index += from
			}
			return nil, err
		}
		appended = append(appended, answers[0].appended...)
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

// appendConns are a connection that appends and one that waits for the disk, opened together. A batch is flushed by
// the connection that was there before it was committed: after a crash in between, which may have taken the batch
// along, that connection is gone too, and nobody is told that the batch is safe.
type appendConns struct {
	call, flush preparedConn
	broken      atomic.Bool
}

func (l *Ledger) connect() (*appendConns, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	c := &appendConns{
		call:  preparedConn{statement: appendCall, settings: "SET lock_timeout = '10s'; SET synchronous_commit = off"},
		flush: preparedConn{statement: flushCall, settings: "SET synchronous_commit = on"},
	}
	if err := errors.Join(c.flush.open(ctx, Direct(l.db)), c.call.open(ctx, Direct(l.db))); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *appendConns) close() {
	c.call.close()
	c.flush.close()
}

// appender commits what waits, batch after batch.
func (l *Ledger) appender() {
	var conns *appendConns
	var deferred []*request
	seen := batchSeen{ids: map[uuid.UUID]bool{}, streams: map[string]bool{}}
	for {
		batch, rest := l.gather(deferred, seen)
		deferred = rest
		if len(batch) == 0 {
			break
		}
		for {
			if conns != nil && conns.broken.Load() {
				l.settled <- settled{conns: conns} // the last that the flusher hears of them
				conns = nil
			}
			fresh := conns == nil
			if fresh {
				var err error
				if conns, err = l.connect(); err != nil {
					refuse(batch, err)
					break
				}
			}
			err := l.commit(conns, batch)
			if err == nil {
				break
			}
			conns.broken.Store(true)
			if fresh {
				refuse(batch, err)
				break
			}
			// The server may have been restarted since the last call, which a connection learns only when it is used. What
			// the call did after all, the next one finds by its ids.
		}
	}
	if conns != nil {
		conns.broken.Store(true)
		l.settled <- settled{conns: conns}
	}
}

// batchSeen is what a batch touches. The maps are used again for the next.
type batchSeen struct {
	ids     map[uuid.UUID]bool
	streams map[string]bool // somebody in the batch expects a version of it
}

// gather waits for a request and takes whatever else is waiting, up to a batch. It keeps out of a batch, for the
// next one, a request whose answer would depend on another in it: one that repeats an id, or that touches a
// stream for which the other or itself expects a version. It returns nothing when the ledger is closed and empty.
func (l *Ledger) gather(deferred []*request, seen batchSeen) (batch, rest []*request) {
	ids, streams := seen.ids, seen.streams
	clear(ids)
	clear(streams)
	size := 0
	add := func(r *request) {
		fits := size+len(r.events) <= maxBatch || size == 0
		for _, e := range r.events {
			expects, touched := streams[e.Stream]
			if ids[e.ID] || touched && (expects || e.Expected != nil) {
				fits = false
			}
		}
		if !fits {
			rest = append(rest, r)
			return
		}
		for _, e := range r.events {
			ids[e.ID] = true
			streams[e.Stream] = streams[e.Stream] || e.Expected != nil
		}
		size += len(r.events)
		batch = append(batch, r)
	}
	for _, r := range deferred {
		add(r)
	}
	if len(batch) == 0 {
		select {
		case r := <-l.requests:
			add(r)
		case <-l.closing:
			select {
			case r := <-l.requests:
				add(r)
			default:
				return nil, nil
			}
		}
	}
	for size < maxBatch && len(rest) == 0 {
		select {
		case r := <-l.requests:
			add(r)
		default:
			return batch, rest
		}
	}
	return batch, rest
}

// commit appends a batch in one call. When the call as a whole is refused for a reason that lies in one of the
// requests, each is tried alone, so that it fails none but itself.
//
// The commit does not wait for the disk, so the ledger's lock is not held while somebody else could be numbering. The
// flusher waits, and no caller is answered before. Whoever reads the events meanwhile and commits something that
// follows from them flushes them along: the write-ahead log is flushed in order.
//
// It returns an error when the database did not take the call, and nobody was answered.
func (l *Ledger) commit(conns *appendConns, batch []*request) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	start := time.Now() //nolint:forbidigo // measures how long it took; nothing is decided by it
	answers, err := l.call(ctx, func(_ string, args ...any) (*sql.Rows, error) { return conns.call.stmt.QueryContext(ctx, args...) }, batch)
	switch {
	case err == nil:
		l.metrics.seconds.Observe(time.Since(start).Seconds())
		l.bell.ring(typesIn(batch)...)
		l.settled <- settled{batch, answers, conns}
	case Transient(err):
		return err
	case len(batch) > 1:
		for i, r := range batch {
			if err := l.commit(conns, []*request{r}); err != nil {
				refuse(batch[i:], err)
				conns.broken.Store(true)
				return nil
			}
		}
	default:
		refuse(batch, err)
	}
	return nil
}

func refuse(batch []*request, err error) {
	for _, r := range batch {
		r.done <- answer{err: fmt.Errorf("append: %w", unavailable(err))}
	}
}

// flusher waits for the disk, once for all batches that were committed meanwhile, and answers their callers.
func (l *Ledger) flusher() {
	for first := range l.settled {
		waiting := []settled{first}
		for more := true; more; {
			select {
			case s, ok := <-l.settled:
				if more = ok; ok {
					waiting = append(waiting, s)
				}
			default:
				more = false
			}
		}
		var flushed *appendConns
		var err error
		for _, s := range waiting {
			if len(s.batch) == 0 {
				s.conns.close()
				continue
			}
			if s.conns != flushed {
				flushed, err = s.conns, s.conns.wait()
			}
			if err != nil {
				refuse(s.batch, err)
				continue
			}
			for i, r := range s.batch {
				r.done <- s.answers[i]
			}
		}
	}
}

// flushCall writes a record to the write-ahead log, so that its commit has something to wait for: itself, and so
// everything before it.
const flushCall = `SELECT pg_logical_emit_message(true, 'dispatch-ledger', '')`

// wait returns once everything that was committed before is on disk.
func (c *appendConns) wait() error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if _, err := c.flush.stmt.ExecContext(ctx); err != nil {
		c.broken.Store(true)
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// preparedConn is a connection with one statement prepared on it.
type preparedConn struct {
	statement string
	settings  string // of the session, before anything else
	conn      *sql.Conn
	stmt      *sql.Stmt
}

func (a *preparedConn) close() {
	if a.stmt != nil {
		a.stmt.Close() // the connection goes with it
	}
	if a.conn != nil {
		Discard(a.conn)
	}
	a.conn, a.stmt = nil, nil
}

// open takes a connection and prepares it. After the database restarted, the pool may hold many that are dead, each of
// which it only notices when it is used.
func (a *preparedConn) open(ctx context.Context, db *sql.DB) (err error) {
	const deadAtMost = 100
	for range deadAtMost {
		if err = a.try(ctx, db); !errors.Is(err, driver.ErrBadConn) {
			return err
		}
	}
	return err
}

func (a *preparedConn) try(ctx context.Context, db *sql.DB) (err error) {
	if a.conn, err = db.Conn(ctx); err != nil {
		return err
	}
	if _, err := a.conn.ExecContext(ctx, a.settings); err != nil {
		a.close()
		return err
	}
	if a.stmt, err = a.conn.PrepareContext(ctx, a.statement); err != nil {
		a.close()
		return err
	}
	return nil
}

const appendCall = `SELECT item, outcome, at_position, versions, at_time
FROM append($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19)`

// What append() says of an item.
const (
	outcomeAppended = iota
	outcomeRepeat
	outcomeIDReused
	outcomeConflict
)

// item is one event of one request on its way through append().
type item struct{ request, event int }

// call brings a batch into the ledger: it calls append() with all of it and, while some of it stands in the way,
// answers that and calls again with the rest. Each round settles at least one item, so it ends.
func (l *Ledger) call(ctx context.Context, query func(string, ...any) (*sql.Rows, error), batch []*request) ([]answer, error) {
	answers := make([]answer, len(batch))
	var todo []item
	for r, req := range batch {
		answers[r].appended = make([]Appended, len(req.events))
		for e := range req.events {
			todo = append(todo, item{r, e})
		}
	}
	for len(todo) > 0 {
		added, err := round(query, batch, todo, answers)
		if err != nil {
			return nil, err
		}
		l.metrics.batches.Observe(float64(added))
		l.metrics.events.Add(float64(added))
		if added > 0 {
			last := todo[len(todo)-1]
			l.own.Add(answers[last.request].appended[last.event].Position, struct{}{})
			break
		}
		var rest []item
		for _, it := range todo {
			if answers[it.request].err == nil && answers[it.request].appended[it.event].Position == 0 {
				rest = append(rest, it)
			}
		}
		todo = rest
	}
	for r := range answers {
		if answers[r].err != nil {
			answers[r].appended = nil
		}
	}
	return answers, ctx.Err()
}

// round calls append() once. added is the number of events appended: all of todo, or none.
func round(query func(string, ...any) (*sql.Rows, error), batch []*request, todo []item, answers []answer) (added int, err error) {
	buffers := callBuffers.Get().(*callArrays)
	rows, err := query(appendCall, buffers.fill(batch, todo)...)
	callBuffers.Put(buffers) // lib/pq has copied and sent them
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	seen := 0
	for rows.Next() {
		var ord, outcome int
		var position sql.NullInt64
		var versions pq.Int64Array
		var at time.Time
		if err := rows.Scan(&ord, &outcome, &position, &versions, &at); err != nil {
			return 0, err
		}
		if outcome == outcomeAppended {
			if len(versions) != len(todo) {
				return 0, fmt.Errorf("append() answered for %d of %d events", len(versions), len(todo))
			}
			for i, it := range todo {
				answers[it.request].appended[it.event] = Appended{
					ID: batch[it.request].events[it.event].ID, Position: position.Int64 + int64(i), Version: versions[i], RecordedAt: at,
				}
			}
			added = len(todo)
			continue
		}
		seen++
		it := todo[ord-1]
		e, a := batch[it.request].events[it.event], &answers[it.request]
		switch outcome {
		case outcomeRepeat:
			a.appended[it.event] = Appended{ID: e.ID, Position: position.Int64, Version: versions[0], RecordedAt: at, Duplicate: true}
		case outcomeIDReused:
			a.refuse(it.event, e, fmt.Errorf("%w: it stands at position %d; give the event an id of its own", ErrIDReused, position.Int64))
		case outcomeConflict:
			a.refuse(it.event, e, &ConflictError{Stream: e.Stream, Expected: *e.Expected, Actual: versions[0]})
		}
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	if (added > 0) == (seen > 0) {
		return 0, fmt.Errorf("append() appended %d of %d events and refused %d", added, len(todo), seen)
	}
	return added, nil
}

func (a *answer) refuse(index int, e *domain.Event, err error) {
	if a.err == nil {
		a.err = &ItemError{Index: index, ID: e.ID, Err: err}
	}
}

// callArrays are the arguments of append(), built in buffers that are used again.
type callArrays struct {
	arrays [len(callElements)]array
	ranks  map[string]int32 // how many events of a stream came before
}

// callElements are the types of their elements.
var callElements = [...]uint32{
	elementUUID, elementText, elementText, elementInt, elementBigint, elementUUID, elementText, elementText, elementText, elementText,
	elementUUID, elementTimestamptz, elementText, elementText, elementUUID, elementUUID, elementJSON, elementBytea, elementBytea,
}

var callBuffers = sync.Pool{New: func() any { return &callArrays{ranks: map[string]int32{}} }}

func (c *callArrays) fill(batch []*request, todo []item) []any {
	a := &c.arrays
	for i := range a {
		a[i].reset()
	}
	clear(c.ranks)
	for _, it := range todo {
		r := batch[it.request]
		e := r.events[it.event]
		a[0].uuid(e.ID)
		a[1].string(e.Type)
		a[2].string(e.Stream)
		a[3].int(c.ranks[e.Stream])
		c.ranks[e.Stream]++
		if e.Expected == nil {
			a[4].null()
		} else {
			a[4].bigint(*e.Expected)
		}
		a[5].uuid(e.Subject)
		a[6].text(e.Channel)
		a[7].text(e.Purpose)
		a[8].text(e.State)
		a[9].text(e.Target)
		a[10].uuid(e.DeliveryID)
		a[11].time(e.OccurredAt)
		a[12].string(e.Actor)
		a[13].string(e.Source)
		a[14].uuid(e.CorrelationID)
		a[15].uuid(e.CausationID)
		a[16].bytes(e.Data)
		a[17].bytes(e.Sealed)
		a[18].bytes(r.digests[it.event])
	}
	args := make([]any, len(a))
	for i := range a {
		args[i] = a[i].of(callElements[i])
	}
	return args
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
