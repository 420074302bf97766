package schema

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

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

// called is a batch that is in the ledger, but for what stood in the way.
type called struct {
	*batch
	answers []answer // nil while nothing stood in the way
	added   []item   // that were appended
	place   Appended // of the first of them
	numbers []int64  // their versions
}

// call brings a batch into the ledger: it calls append() with all of it and, while some of it stands in the way,
// answers that and calls again with the rest. Each round settles at least one item, so it ends.
func (l *Ledger) call(ctx context.Context, query func(string, ...any) (*sql.Rows, error), b *batch) (*called, error) {
	l.calls.Add(1)
	defer l.calls.Add(-1)
	c := &called{batch: b, added: b.items}
	args := &b.args
	for len(c.added) > 0 {
		refused, err := c.round(query, args)
		if err != nil {
			return nil, err
		}
		if refused == 0 {
			l.metrics.batches.Observe(float64(len(c.added)))
			l.metrics.events.Add(float64(len(c.added)))
			l.own.Add(c.place.Position+int64(len(c.added))-1, struct{}{})
			break
		}
		again := newCallArrays() // what is left
		var rest []item
		for _, it := range c.added {
			if a := c.answers[it.request]; a.err == nil && a.appended[it.event].Position == 0 {
				rest = append(rest, it)
				again.add(b.event(it), b.requests[it.request].digests[it.event])
			}
		}
		c.added, args = rest, &again
	}
	return c, ctx.Err()
}

// room makes answers for all requests.
func (c *called) room() {
	if c.answers != nil {
		return
	}
	c.answers = make([]answer, len(c.requests))
	for i, r := range c.requests {
		c.answers[i].appended = make([]Appended, len(r.events))
	}
}

// answered gives each request its answer.
func (c *called) answered() []answer {
	c.room()
	for i, it := range c.added {
		c.answers[it.request].appended[it.event] = Appended{
			ID: c.event(it).ID, Position: c.place.Position + int64(i), Version: c.numbers[i], RecordedAt: c.place.RecordedAt,
		}
	}
	for i := range c.answers {
		if c.answers[i].err != nil {
			c.answers[i].appended = nil
		}
	}
	return c.answers
}

// round calls append() once. refused is how many items stood in the way, in which case nothing was appended.
func (c *called) round(query func(string, ...any) (*sql.Rows, error), args *callArrays) (refused int, err error) {
	rows, err := query(appendCall, args.all()...)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	added := false
	for rows.Next() {
		var ord, outcome int
		var position sql.NullInt64
		var versions pq.Int64Array
		var at time.Time
		if err := rows.Scan(&ord, &outcome, &position, &versions, &at); err != nil {
			return 0, err
		}
		if outcome == outcomeAppended {
			if len(versions) != len(c.added) {
				return 0, fmt.Errorf("append() answered for %d of %d events", len(versions), len(c.added))
			}
			added, c.place, c.numbers = true, Appended{Position: position.Int64, RecordedAt: at}, versions
			continue
		}
		refused++
		c.room()
		it := c.added[ord-1]
		e, a := c.event(it), &c.answers[it.request]
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
	if added == (refused > 0) {
		return 0, fmt.Errorf("append() was given %d events, refused %d and appended the rest: %t", len(c.added), refused, added)
	}
	return refused, nil
}

func (a *answer) refuse(index int, e *domain.Event, err error) {
	if a.err == nil {
		a.err = &ItemError{Index: index, ID: e.ID, Err: err}
	}
}

// callArrays are the arguments of append().
type callArrays struct {
	arrays [19]array
	ranks  map[string]int32 // how many events of a stream came before
}

// callElements are the types of their elements.
var callElements = [len(callArrays{}.arrays)]uint32{
	elementUUID, elementText, elementText, elementInt, elementBigint, elementUUID, elementText, elementText, elementText, elementText,
	elementUUID, elementTimestamptz, elementText, elementText, elementUUID, elementUUID, elementJSON, elementBytea, elementBytea,
}

func newCallArrays() callArrays { return callArrays{ranks: map[string]int32{}} }

// reset empties them and keeps their buffers.
func (c *callArrays) reset() {
	for i := range c.arrays {
		c.arrays[i].reset()
	}
	clear(c.ranks)
}

func (c *callArrays) add(e *domain.Event, digest []byte) {
	a := &c.arrays
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
	a[18].bytes(digest)
}

// all are the arguments, good until more is added.
func (c *callArrays) all() []any {
	args := make([]any, len(c.arrays))
	for i := range c.arrays {
		args[i] = c.arrays[i].of(callElements[i])
	}
	return args
}
