package schema

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
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

// call brings a batch into the ledger: it calls append() with all of it and, while some of it stands in the way,
// answers that and calls again with the rest. Each round settles at least one item, so it ends.
func (l *Ledger) call(ctx context.Context, query func(string, ...any) (*sql.Rows, error), batch []*request) ([]answer, error) {
	l.calls.Add(1)
	defer l.calls.Add(-1)
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
