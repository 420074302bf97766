package schema

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// ErrNotFound is something that the ledger does not hold.
var ErrNotFound = errors.New("not found")

const eventColumns = `position, id, type, stream, version, subject, channel, purpose, state, target, delivery_id,
	occurred_at, recorded_at, actor, source, correlation_id, causation_id, data, sealed, leaf`

// Filter selects events. An empty field selects all.
type Filter struct {
	After  int64 // positions above
	UpTo   int64 // positions up to; 0 is the head
	Types  []string
	Stream string
	// Subject, Target and DeliveryID select by what the event is about.
	Subject    uuid.UUID
	Target     string
	DeliveryID uuid.UUID
	Actor      string
	TargetsNot []string  // events of these targets are left out, and those of none
	From, To   time.Time // recorded_at, from inclusive, to exclusive
	Descending bool      // newest first
	Limit      int       // 0 is no limit

	within    []int64 // see Within
	blockSize int64
}

// Within gives the filter for some blocks of so many positions only; block b begins above position b * size.
func (f Filter) Within(blocks []int64, size int64) Filter {
	f.within, f.blockSize = blocks, size
	return f
}

// Events reads the events that a filter selects, in order of position, in one pass over the primary key or the
// index that fits. It holds one connection and no snapshot longer than one query.
func Events(ctx context.Context, q Querier, f Filter) iter.Seq2[domain.Recorded, error] {
	return func(yield func(domain.Recorded, error) bool) {
		query, args := f.query()
		rows, err := q.QueryContext(ctx, query, args...)
		if err != nil {
			yield(domain.Recorded{}, fmt.Errorf("read events: %w", unavailable(err)))
			return
		}
		defer rows.Close()
		for rows.Next() {
			e, err := scanEvent(rows)
			if !yield(e, err) || err != nil {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(domain.Recorded{}, fmt.Errorf("read events: %w", unavailable(err)))
		}
	}
}

func (f Filter) query() (string, []any) {
	var where []string
	var args []any
	add := func(condition string, v any) {
		args = append(args, v)
		where = append(where, fmt.Sprintf(condition, len(args)))
	}
	if f.After > 0 {
		add("position > $%d", f.After)
	}
	if f.UpTo > 0 {
		add("position <= $%d", f.UpTo)
	}
	if len(f.Types) > 0 {
		var a array
		for _, t := range f.Types {
			a.string(t)
		}
		add("type = ANY($%d)", a.of(elementText))
	}
	if f.Stream != "" {
		add("stream = $%d", f.Stream)
	}
	if f.Subject != uuid.Nil {
		add("subject = $%d", f.Subject)
	}
	if f.Target != "" {
		add("target = $%d", f.Target)
	}
	if len(f.TargetsNot) > 0 {
		add("target <> ALL($%d)", pq.Array(f.TargetsNot))
	}
	if f.DeliveryID != uuid.Nil {
		add("stream = $%d", domain.DeliveryStream(f.DeliveryID))
	}
	if f.Actor != "" {
		add("actor = $%d", f.Actor)
	}
	// Time and position grow together, so a period is a range of positions.
	if !f.From.IsZero() {
		add("position > position_before($%d)", f.From)
	}
	if !f.To.IsZero() {
		add("position <= position_before($%d)", f.To)
	}
	query := "SELECT " + eventColumns + " FROM events"
	if f.blockSize > 0 {
		args = append(args, pq.Array(f.within), f.blockSize)
		query = fmt.Sprintf("SELECT e.* FROM unnest($%d::bigint[]) AS b (block) CROSS JOIN LATERAL (SELECT %s FROM events WHERE position > b.block * $%d AND position <= (b.block + 1) * $%[3]d",
			len(args)-1, eventColumns, len(args))
		for _, w := range where {
			query += " AND " + w
		}
		query, where = query+" OFFSET 0) e", nil // OFFSET 0 keeps the planner from walking all of the ledger backwards beside the blocks
	}
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	query += " ORDER BY position"
	if f.Descending {
		query += " DESC"
	}
	if f.Limit > 0 {
		query += fmt.Sprintf(" LIMIT %d", f.Limit)
	}
	return query, args
}

// EventAt reads the event at a position, or ErrNotFound.
func EventAt(ctx context.Context, q Querier, position int64) (domain.Recorded, error) {
	for e, err := range Events(ctx, q, Filter{After: position - 1, UpTo: position, Limit: 1}) {
		return e, err
	}
	return domain.Recorded{}, fmt.Errorf("event at position %d: %w", position, ErrNotFound)
}

type scanner interface{ Scan(...any) error }

func scanEvent(row scanner) (e domain.Recorded, err error) {
	var subject, delivery, correlation, causation uuid.NullUUID
	var channel, purpose, state, target sql.NullString
	var occurred sql.NullTime
	err = row.Scan(&e.Position, &e.ID, &e.Type, &e.Stream, &e.Version, &subject, &channel, &purpose, &state, &target, &delivery,
		&occurred, &e.RecordedAt, &e.Actor, &e.Source, &correlation, &causation, &e.Data, &e.Sealed, &e.Leaf)
	if err != nil {
		return e, fmt.Errorf("read events: %w", unavailable(err))
	}
	e.Subject, e.DeliveryID, e.CorrelationID, e.CausationID = subject.UUID, delivery.UUID, correlation.UUID, causation.UUID
	e.Channel, e.Purpose, e.State, e.Target = channel.String, purpose.String, state.String, target.String
	if occurred.Valid {
		e.OccurredAt = occurred.Time.UTC()
	}
	e.RecordedAt = e.RecordedAt.UTC()
	return e, nil
}

// PositionAt is the position of the last event that was recorded at or before a time, 0 before the first: what the ledger
// knew then. Time never runs backwards in it, so this is a search and needs no index.
func PositionAt(ctx context.Context, q Querier, at time.Time) (int64, error) {
	head, err := Head(ctx, q)
	if err != nil {
		return 0, err
	}
	first, err := FirstKept(ctx, q)
	if err != nil {
		return 0, err
	}
	low, high := first-1, head // what is at low was recorded in time, what is above high was not
	for low < high {
		middle := low + (high-low+1)/2
		var recorded time.Time
		if err := q.QueryRowContext(ctx, `SELECT recorded_at FROM events WHERE position = $1`, middle).Scan(&recorded); err != nil {
			return 0, fmt.Errorf("when event %d was recorded: %w", middle, unavailable(err))
		}
		if recorded.After(at) {
			high = middle - 1
		} else {
			low = middle
		}
	}
	if low == first-1 && first > 1 {
		return 0, fmt.Errorf("position at %s: %w: the ledger begins at event %d, the ones before it were archived", at.UTC().Format(time.RFC3339), ErrNotFound, first)
	}
	return low, nil
}

// FirstKept is the position of the first event that has not been archived; 1 in a ledger that is whole.
func FirstKept(ctx context.Context, q Querier) (first int64, err error) {
	err = q.QueryRowContext(ctx, `SELECT coalesce(min(first), 1) FROM partitions`).Scan(&first)
	if err != nil {
		return 0, fmt.Errorf("where the ledger begins: %w", unavailable(err))
	}
	return first, nil
}
