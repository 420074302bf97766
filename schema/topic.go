package schema

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v5"
	"github.com/lib/pq"
)

// TopicName is the one Watermill topic: the ledger itself.
const TopicName = "ledger"

// Slice is a piece of the ledger: the events after From, up to and including To.
type Slice struct {
	From, To int64
	Types    []string // the types of events in it, when that was cheap to know; nil when not
}

// MayHold reports whether the slice can hold an event of one of the types.
func (s Slice) MayHold(types ...string) bool {
	if s.Types == nil {
		return true
	}
	return slices.ContainsFunc(types, func(t string) bool { return slices.Contains(s.Types, t) })
}

// Len is the number of events in it.
func (s Slice) Len() int64 { return s.To - s.From }

// longSlice is how many events are so many that a handler should sort them in memory: some hold a thousand rows each.
const longSlice = 200

// bounds are the settings that the view slice reads, and room for what a long one holds.
func (s Slice) bounds() string {
	settings := fmt.Sprintf("SET LOCAL ledger.slice_from = '%d'; SET LOCAL ledger.slice_to = '%d'", s.From, s.To)
	if s.Len() >= longSlice {
		settings += "; SET LOCAL work_mem = '64MB'"
	}
	return settings
}

func (s Slice) String() string { return fmt.Sprintf("(%d, %d]", s.From, s.To) }

// Subscription is a named, stored cursor on the ledger. Renaming one reads the ledger from the start again.
type Subscription struct {
	Name  string
	After []string // subscriptions that must have finished an event before this one sees it
	Limit int      // most events in one slice
	Start int64    // where it begins when it is new: 0 is the beginning of the ledger
	// Appends lists the types of the events that the handler appends in its transaction, so that whomever they concern is
	// woken when it commits; none says that it appends nothing.
	Appends []string
	// Types are the event types that the handler does anything about; none means any. A slice without them moves the
	// cursor and nothing else, and whoever comes after this subscription does not wait for that.
	Types []string
	// Linger lets events gather this long after a slice, unless the subscription is behind. A subscription with a longer Yield
	// is one that nobody waits for: before a slice it waits until nothing was appended for as long as Linger, so that a firing
	// has gone its way before the processor is taken from it. It waits ten times Linger at most, and both the longer the more
	// there is, up to Yield: under load a few large slices cost less than many small ones, and nobody sees the difference.
	Linger, Yield time.Duration
	// Ended is called when a transaction in which the handler ran has ended, whether it was committed or not, before the next
	// one. Nil: nobody asks.
	Ended func()
}

// create makes the subscription's cursor, if it is new.
func (s Subscription) create(ctx context.Context, q Querier) error {
	if _, err := q.ExecContext(ctx, `INSERT INTO subscriptions (name, position) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`, s.Name, s.Start); err != nil {
		return fmt.Errorf("subscribe %s: %w", s.Name, unavailable(err))
	}
	return nil
}

// Topic is the ledger as a Watermill topic, over the events table and no other: a message is a slice of the
// ledger, its effects and its acknowledgement are one transaction, and an append wakes it.
//
// watermill-sql's Subscriber does the work. This file gives it the two adapters that say what to read, and closes
// what it leaves open: a nack does not roll back, so each attempt runs under a savepoint; an attempt that outlives
// its deadline is committed without its acknowledgement, so a deferred key refuses that commit.
type Topic struct {
	db       *sql.DB
	ledger   *Ledger
	log      *slog.Logger
	listener *pq.Listener

	mu      sync.Mutex
	readers map[string]*reader
	closing chan struct{}
	closed  sync.Once
}

// Timing of the topic.
const (
	pollInterval = 500 * time.Millisecond // the safety net beneath notifications
	idleQuiet    = 25 * time.Millisecond  // without an append, after which a cursor is moved past events that do not concern it
	idleLinger   = 50 * time.Millisecond  // how far a cursor may be behind for events that do not concern it, under load
	idleLongest  = 250 * time.Millisecond // and otherwise
	ackDeadline  = 10 * time.Minute       // of one slice
)

// OpenTopic reads the ledger through db, which should be a pool of its own: each subscription keeps a connection
// while it works. databaseURL, when not empty, is listened on for the appends of other processes: the server's own, since a
// pooler keeps no session to listen with.
func OpenTopic(db *sql.DB, ledger *Ledger, databaseURL string, o Options, log *slog.Logger) (*Topic, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	t := &Topic{db: db, ledger: ledger, log: log, readers: map[string]*reader{}, closing: make(chan struct{})}
	if databaseURL != "" {
		if o.Name == "" {
			o.Name = DefaultName
		}
		o.Label = "dispatch-ledger listener"
		dsn, err := dataSource(databaseURL, o, o.settings())
		if err != nil {
			return nil, err
		}
		t.listener = pq.NewListener(dsn, 100*time.Millisecond, 5*time.Second, func(_ pq.ListenerEventType, err error) {
			if err != nil {
				log.Debug("listening for appends", slog.Any("error", err))
			}
		})
		go t.listen(o.Name + "_appended")
	}
	return t, nil
}

// listen rings the ledger's bell when another process appended, and after each lost connection, when one may have.
func (t *Topic) listen(channel string) {
	if err := t.listener.Listen(channel); err != nil && !errors.Is(err, pq.ErrChannelAlreadyOpen) {
		t.log.Warn("cannot listen for appends; polling instead", slog.Any("error", err))
	}
	for {
		select {
		case n, ok := <-t.listener.Notify:
			if !ok {
				return
			}
			if n != nil {
				if at, err := strconv.ParseInt(n.Extra, 10, 64); err == nil && t.ledger.isOwn(at, func() bool { return len(t.listener.Notify) > 0 }) {
					continue // it rang, and said of what types
				}
			}
			t.ledger.bell.ring()
		case <-t.closing:
			return
		}
	}
}

// ownPatience is how long the answer to an append may come after the news of it, in ownLooks steps.
const (
	ownPatience = 500 * time.Microsecond
	ownLooks    = 5
)

// isOwn reports whether an append of this process ended at a position, once for each. The database tells whoever listens before it
// answers, so while an append is under way it is asked again: taken for another process's, it would wake every reader for nothing. It is
// not while more news waits: of a busy process beside this one, news would come faster than it is gone through.
func (l *Ledger) isOwn(at int64, more func() bool) bool {
	for range ownLooks {
		underWay := l.calls.Load() > 0
		if l.own.Remove(at) {
			return true
		}
		if !underWay || more() {
			return false
		}
		<-time.After(ownPatience)
	}
	return l.own.Remove(at)
}

// Close stops the topic's waiting; subscribers that were opened on it end soon after.
func (t *Topic) Close() error {
	t.closed.Do(func() { close(t.closing) })
	t.ledger.bell.ring()
	if t.listener != nil {
		return t.listener.Close()
	}
	return nil
}

// Subscriber opens a subscription, creating its cursor if it is new. The messages carry a slice each, see SliceOf;
// the handler's effects belong in the transaction of wsql.TxFromContext. Wrap the handler with Handler.
func (t *Topic) Subscriber(ctx context.Context, s Subscription) (message.Subscriber, error) {
	if s.Limit <= 0 {
		s.Limit = 1000
	}
	if _, err := Patiently(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, s.create(ctx, t.db) }); err != nil {
		return nil, err
	}
	r := &reader{topic: t, subscription: s, moved: newBell(), move: true, patience: backoff.NewExponentialBackOff()}
	r.patience.InitialInterval, r.patience.MaxInterval = 50*time.Millisecond, 5*time.Second
	t.mu.Lock()
	t.readers[s.Name] = r
	t.mu.Unlock()

	deadline := ackDeadline
	sub, err := wsql.NewSubscriber(t.db, wsql.SubscriberConfig{
		ConsumerGroup: s.Name, AckDeadline: &deadline, ResendInterval: time.Millisecond,
		BackoffManager: r, SchemaAdapter: r, OffsetsAdapter: r,
	}, watermill.NewSlogLoggerWithLevelMapping(t.log.With(slog.String("subscription", s.Name)), quieter))
	if err != nil {
		return nil, fmt.Errorf("subscribe %s: %w", s.Name, err)
	}
	return &subscriber{Subscriber: sub, topic: t}, nil
}

// subscriber wakes its reader before it waits for it to end.
type subscriber struct {
	*wsql.Subscriber
	topic *Topic
}

// Close ends the subscription after the slice at hand.
func (s *subscriber) Close() error {
	s.topic.closed.Do(func() { close(s.topic.closing) })
	return s.Subscriber.Close()
}

// Moved is closed when a subscription of this process next commits a slice, or when the topic is closed. For a name
// that nothing in this process reads, it never is.
func (t *Topic) Moved(name string) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r, ok := t.readers[name]; ok {
		return r.moved.next()
	}
	return nil
}

// SliceOf gives the slice that a message of this topic stands for.
func SliceOf(msg *message.Message) (Slice, error) {
	from, err1 := strconv.ParseInt(msg.Metadata.Get("from"), 10, 64)
	to, err2 := strconv.ParseInt(msg.Metadata.Get("to"), 10, 64)
	if err1 != nil || err2 != nil {
		return Slice{}, fmt.Errorf("message %s is no slice of the ledger", msg.UUID)
	}
	slice := Slice{From: from, To: to}
	if types := msg.Metadata.Get("types"); types != "" {
		slice.Types = strings.Fields(types)
	}
	return slice, nil
}

// reader tells watermill-sql what to read for one subscription, and how long to wait when there is nothing. It is
// used by one goroutine at a time; only moved is shared.
type reader struct {
	topic        *Topic
	subscription Subscription
	moved        *bell                       // rung after a slice of this subscription was committed
	appended     <-chan struct{}             // something that this subscription is about
	others       <-chan struct{}             // anything
	before       []<-chan struct{}           // the same of the subscriptions that this one comes after
	worked       bool                        // the last transaction handled a slice
	passed       bool                        // it moved the cursor past what is none of this subscription's business
	move         bool                        // the next one may
	held         int64                       // events of the last slice
	behind       bool                        // it was as long as one may be
	patience     *backoff.ExponentialBackOff // between failures of the database
}

// InsertQuery is not how the ledger is written.
func (r *reader) InsertQuery(string, message.Messages) (wsql.Query, error) {
	return wsql.Query{}, errors.New("events are appended through schema.Ledger, not by publishing slices")
}

// SelectQuery reads the next slice, at most one row, and holds the cursor's row for its transaction. Another
// process's reader of the same subscription passes over it.
func (r *reader) SelectQuery(_, group string, _ wsql.OffsetsAdapter) wsql.Query {
	r.appended, r.others = r.topic.ledger.bell.next(r.subscription.Types...), r.topic.ledger.bell.next()
	r.before = r.before[:0]
	types := make([]string, len(r.subscription.After)) // what each is about, for one that this process knows
	r.topic.mu.Lock()
	for i, name := range r.subscription.After {
		if other, ok := r.topic.readers[name]; ok {
			r.before = append(r.before, other.moved.next())
			types[i] = strings.Join(other.subscription.Types, " ")
		}
	}
	r.topic.mu.Unlock()
	return wsql.Query{Query: selectSlice, Args: []any{group, r.subscription.Limit, pq.Array(r.subscription.After), pq.Array(types), len(r.subscription.Appends) == 0, pq.Array(r.subscription.Types), r.move}}
}

// selectSlice is one call of next_slice, which says how far a reader may go.
//
// A subscription that appends nothing need not wait for the disk: its effects follow from the ledger and its cursor goes
// with them, so a crash of the database that loses the last of them loses nothing. What leaves the database because of
// them (a claim, a checkpoint) is committed in full, and they with it: commits reach the disk in order.
const selectSlice = `SELECT from_position, until_position, types, moved FROM next_slice($1, $2, $3, $4, $5, $6, $7)`

// moveCursor acknowledges a slice, unless the handler parked the subscription in the same transaction.
const moveCursor = `WITH fence AS ( -- where the handler had nothing to do, it did not move it
		UPDATE fences f SET position = $2 FROM subscriptions s WHERE f.name = $1 AND f.position <> $2 AND s.name = $1 AND s.state = 'running'
	)
	UPDATE subscriptions SET position = $2, updated_at = clock_timestamp() WHERE name = $1 AND state = 'running'`

// UnmarshalMessage makes a message of a slice.
func (r *reader) UnmarshalMessage(row wsql.Scanner) (wsql.Row, error) {
	var from, to int64
	var types pq.StringArray
	if err := row.Scan(&from, &to, &types, &r.passed); err != nil {
		return wsql.Row{}, err
	}
	r.held = to - from
	r.behind = r.held >= int64(r.subscription.Limit)
	if r.passed {
		return wsql.Row{}, sql.ErrNoRows // nothing to handle, says this to Watermill
	}
	msg := message.NewMessage(watermill.NewUUID(), nil)
	msg.Metadata.Set("from", strconv.FormatInt(from, 10))
	msg.Metadata.Set("to", strconv.FormatInt(to, 10))
	msg.Metadata.Set("types", strings.Join(types, " "))
	return wsql.Row{Offset: to, Msg: msg}, nil
}

// SchemaInitializingQueries has none: migrations do that.
func (r *reader) SchemaInitializingQueries(string) []wsql.Query { return nil }

// SubscribeIsolationLevel is that of a single statement; the ledger below the head never changes.
func (r *reader) SubscribeIsolationLevel() sql.IsolationLevel { return sql.LevelReadCommitted }

// AckMessageQuery moves the cursor, unless the handler parked the subscription in the same transaction.
func (r *reader) AckMessageQuery(_ string, row wsql.Row, group string) wsql.Query {
	r.worked = true
	return wsql.Query{
		Query: moveCursor,
		Args:  []any{group, row.Offset},
	}
}

// ConsumedMessageQuery has none.
func (r *reader) ConsumedMessageQuery(string, wsql.Row, string, []byte) wsql.Query {
	return wsql.Query{}
}

// NextOffsetQuery is part of SelectQuery.
func (r *reader) NextOffsetQuery(string, string) wsql.Query { return wsql.Query{} }

// BeforeSubscribingQueries has none.
func (r *reader) BeforeSubscribingQueries(string, string) []wsql.Query { return nil }

// HandleError is told of the end of each transaction, and waits: after an error with growing patience, at the end of the
// ledger until something is appended or a subscription before this one has moved. It returns how long to wait besides,
// which is not at all.
func (r *reader) HandleError(_ watermill.LoggerAdapter, noMsg bool, err error) time.Duration {
	passed := r.told()
	if err == nil {
		r.patience.Reset()
		r.move = false
		if noMsg && !(passed && r.behind) {
			r.await()
		}
		switch s := r.subscription; {
		case r.behind:
		case s.Yield > s.Linger:
			longest := min(s.Yield, max(gatherings*s.Linger, time.Duration(int64(s.Linger)*r.held/fewEvents)))
			r.quiet(longest/gatherings, longest, nil, nil) // under load batches come apart: between two of them it is not quiet yet
		case s.Linger > 0:
			r.wait(s.Linger, nil, nil, nil)
		}
		return 0
	}
	// A slice that the handler gave up ends in ErrTxDone, and it has said why; a topic that closes cancels what it was at.
	if !errors.Is(err, sql.ErrTxDone) && !errors.Is(err, context.Canceled) {
		r.topic.log.Warn("reading the ledger failed; trying again", slog.String("subscription", r.subscription.Name), slog.Any("error", err))
	}
	r.wait(r.patience.NextBackOff(), nil, nil, nil)
	return 0
}

// told tells whoever waits for this subscription that its transaction has ended, and reports whether all that it did was to
// pass over what is none of its business.
func (r *reader) told() (passed bool) {
	if r.subscription.Ended != nil {
		r.subscription.Ended()
	}
	passed, worked := r.passed, r.worked
	r.passed, r.worked = false, false
	if worked || passed {
		r.moved.ring()
	}
	if !worked {
		return passed
	}
	if appends := r.subscription.Appends; len(appends) > 0 {
		r.topic.ledger.bell.ring(appends...)
	}
	return false
}

const (
	fewEvents  = 16  // so few that gathering more of them saves nothing
	gatherings = 10  // how many times Linger a subscription that yields waits for a quiet moment when there are few
	idleMany   = 100 // events in a slice of others' that mean that there is load
)

// await returns when there may be something to do. For events that are none of its business, a reader moves its cursor
// before long and not each time: it would only take the processor from those whose business they are.
func (r *reader) await() {
	before := r.anyBefore()
	var others bool
	if others, r.move = r.wait(pollInterval, r.appended, before, r.others); others {
		longest := idleLongest
		if r.held > idleMany {
			longest = idleLinger
		}
		r.quiet(idleQuiet, longest, r.appended, before)
	}
}

// quiet returns when nothing was appended for a while, or after the longest time, or when a channel says that there is
// something to do.
func (r *reader) quiet(while, longest time.Duration, appended, before <-chan struct{}) {
	patience := time.NewTimer(longest)
	defer patience.Stop()
	lull := time.NewTimer(while)
	defer lull.Stop()
	for {
		rung := r.topic.ledger.bell.next()
		select {
		case <-rung:
			select {
			case <-appended: // a ring for both wakes both
				return
			default:
				lull.Reset(while)
			}
		case <-lull.C:
			return
		case <-patience.C:
			return
		case <-appended:
			return
		case <-before:
			return
		case <-r.topic.closing:
			return
		}
	}
}

// wait returns after the longest time, or when a channel says that there is something to do. It reports whether that is the
// affair of others, and whether nothing said that it is this reader's.
func (r *reader) wait(longest time.Duration, appended, before, others <-chan struct{}) (theirs, notOurs bool) {
	timer := time.NewTimer(longest)
	defer timer.Stop()
	select {
	case <-appended:
	case <-before:
	case <-r.topic.closing:
	case <-timer.C:
		return false, true
	case <-others:
		select {
		case <-appended: // a ring for both wakes both
		case <-before:
		default:
			return true, true
		}
	}
	return false, false
}

// anyBefore merges the wake-ups of the subscriptions before this one; there are at most a few.
func (r *reader) anyBefore() <-chan struct{} {
	switch len(r.before) {
	case 0:
		return nil
	case 1:
		return r.before[0]
	}
	merged := make(chan struct{})
	var once sync.Once
	for _, b := range r.before {
		go func() {
			select {
			case <-b:
			case <-r.topic.closing:
			case <-time.After(pollInterval):
			}
			once.Do(func() { close(merged) })
		}()
	}
	return merged
}

// quieter puts Watermill's levels where they belong here: what it calls an error it tries again, and what it calls
// information is detail.
var quieter = map[slog.Level]slog.Level{slog.LevelError: slog.LevelWarn, slog.LevelInfo: slog.LevelDebug}
