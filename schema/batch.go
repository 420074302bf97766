package schema

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// batch is what goes into the ledger with one call of append(). Callers write themselves in, while the call before it is under way,
// so that it can be sent the moment that the database is ready for it.
type batch struct {
	requests []*request
	items    []item
	args     callArrays
	types    []string // that its events are of
	bytes    int
	ids      map[uuid.UUID]struct{}
	streams  map[string]bool // whether somebody in it expects a version of the stream
}

func newBatch() *batch {
	return &batch{args: newCallArrays(), ids: map[uuid.UUID]struct{}{}, streams: map[string]bool{}}
}

// reset empties it and keeps its buffers.
func (b *batch) reset() {
	clear(b.requests)
	b.requests, b.items, b.types, b.bytes = b.requests[:0], b.items[:0], b.types[:0], 0
	b.args.reset()
	clear(b.ids)
	clear(b.streams)
}

// takes reports whether a request may join: not one for which there is no room, and not one whose answer would depend on another's in
// the batch, because it repeats an id, or touches a stream for which the other or itself expects a version.
func (b *batch) takes(r *request) bool {
	if len(b.requests) == 0 {
		return true
	}
	if len(b.items)+len(r.events) > maxBatch || b.bytes+r.bytes() > batchBytes {
		return false
	}
	for _, e := range r.events {
		if _, taken := b.ids[e.ID]; taken {
			return false
		}
		if expects, touched := b.streams[e.Stream]; touched && (expects || e.Expected != nil) {
			return false
		}
	}
	return true
}

// add takes a request in.
func (b *batch) add(r *request) {
	for i, e := range r.events {
		b.ids[e.ID] = struct{}{}
		b.streams[e.Stream] = b.streams[e.Stream] || e.Expected != nil
		b.items = append(b.items, item{len(b.requests), i})
		b.args.add(e, r.digests[i])
	}
	b.types = typesIn(b.types, r.events)
	b.bytes += r.bytes()
	b.requests = append(b.requests, r)
}

func (r *request) bytes() (n int) {
	for _, e := range r.events {
		n += len(e.Data) + len(e.Sealed)
	}
	return n
}

// event is the one of an item.
func (b *batch) event(it item) *domain.Event { return b.requests[it.request].events[it.event] }

// line is where requests wait for their turn, gathered into batches. The last batch takes more.
type line struct {
	mu      sync.Mutex
	batches []*batch
	waiting int // requests in them
	closed  bool
	ready   chan struct{} // holds a token when there may be a batch for somebody who found none
	under   atomic.Int64  // events whose callers wait: for their turn, for the database or for the disk
	spare   sync.Pool
}

func newLine() *line {
	return &line{ready: make(chan struct{}, 1), spare: sync.Pool{New: func() any { return newBatch() }}}
}

// put lines a request up. Errors: ErrBusy, ErrClosed.
func (l *line) put(r *request) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return ErrClosed
	case l.waiting >= queueDepth:
		return ErrBusy
	}
	if n := len(l.batches); n == 0 || l.full(l.batches[n-1]) || !l.batches[n-1].takes(r) {
		l.batches = append(l.batches, l.spare.Get().(*batch))
	}
	l.batches[len(l.batches)-1].add(r)
	l.waiting++
	l.wake()
	return nil
}

// full reports whether a batch holds its share of all that is under way. If it held everything, the database would have nothing to
// do while it waits for the disk and its callers make up their minds; where callers come back as soon as they are answered, they would
// go on to arrive all at once, behind the first of them.
func (l *line) full(b *batch) bool {
	return len(b.items) >= smallBatch && int64(len(b.items)) >= l.under.Load()*5/8
}

// few reports whether a batch is a small part of what is under way, the rest of which may be about to join.
func (l *line) few(b *batch) bool { return int64(len(b.items)) < l.under.Load()/4 }

// take waits for a batch, and returns nil once the line is closed and empty.
func (l *line) take() *batch {
	for waited := false; ; {
		l.mu.Lock()
		switch {
		case len(l.batches) == 0 && l.closed:
			l.mu.Unlock()
			return nil
		case len(l.batches) == 0:
			l.mu.Unlock()
			<-l.ready
		case !waited && l.few(l.batches[0]):
			l.mu.Unlock()
			runtime.Gosched() // to callers who have just been answered
			waited = true
		default:
			b := l.batches[0]
			l.batches = slices.Delete(l.batches, 0, 1)
			l.waiting -= len(b.requests)
			l.mu.Unlock()
			return b
		}
	}
}

// done gives a batch back that nobody uses any more.
func (l *line) done(b *batch) {
	if b.bytes > spareBytes {
		return // such buffers are not worth keeping
	}
	b.reset()
	l.spare.Put(b)
}

// close lets nobody in any more.
func (l *line) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.wake()
}

func (l *line) wake() {
	select {
	case l.ready <- struct{}{}:
	default:
	}
}
