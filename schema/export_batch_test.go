package schema

import "github.com/dispatch-ledger/dispatch-ledger/domain"

// Line is where requests wait, for tests.
type Line struct{ l *line }

// Bounds of a batch.
const (
	MaxBatch   = maxBatch
	SmallBatch = smallBatch
	BatchBytes = batchBytes
	QueueDepth = queueDepth
)

func NewLine() Line { return Line{newLine()} }

// Under says how many events' callers wait.
func (l Line) Under(events int64) { l.l.under.Store(events) }

// Put lines a request up.
func (l Line) Put(events ...domain.Event) error {
	r := &request{}
	for i := range events {
		r.events = append(r.events, &events[i])
	}
	r.digests = digests(r.events)
	return l.l.put(r)
}

func (l Line) Close() { l.l.close() }

// Take gives the requests of the next batch, and how many events append() would be given; nil from a line that is closed and empty.
func (l Line) Take() (requests [][]domain.Event, given int) {
	b := l.l.take()
	if b == nil {
		return nil, 0
	}
	defer l.l.done(b)
	for _, r := range b.requests {
		var events []domain.Event
		for _, e := range r.events {
			events = append(events, *e)
		}
		requests = append(requests, events)
	}
	for _, a := range b.args.arrays {
		if int(a.count) != len(b.items) {
			panic("an array is longer or shorter than the batch")
		}
	}
	return requests, len(b.items)
}
