package dispatcher

import (
	"context"
	"sync"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
)

// lanes keep the targets out of each other's way: each target has a lane of its own, as wide as its limits allow, and no
// lane may fill the road.
type lanes struct {
	mu    sync.Mutex
	road  int // requests at once, over all targets
	total int // claims in hand, over all targets
	lanes map[string]*lane
}

// lane is what is in hand for one target.
type lane struct {
	slots    chan struct{} // one for each request in flight; claims beyond wait for one
	claims   int           // in hand: in flight, or claimed ahead and waiting for a slot
	mean     time.Duration // of a request, the latest weighing most
	failures int           // in a row
	paused   time.Time     // what this process last asked for, so that it asks once
}

func newLanes(road int) *lanes { return &lanes{road: road, lanes: map[string]*lane{}} }

// Claiming ahead keeps a fast target's slots busy while the next claim is made; a slow one's claims would only grow old.
const (
	aheadFor = 20 * time.Millisecond
	aheadMax = 192
)

// room says how many more claims a target may have in hand.
//
// Besides its own limit, a lane may hold as much as is still free on the road (the dynamic threshold of Choudhury and
// Hahne): one slow target takes half of the road at most, two a third each, and whoever comes next always finds room.
func (l *lanes) room(target string, concurrency int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	limit, claims := min(concurrency, l.road), 0
	if lane := l.lanes[target]; lane != nil {
		claims = lane.claims
		if lane.mean > 0 && lane.mean < aheadFor {
			limit += min(aheadMax, 2*limit)
		}
	}
	return min(limit-claims, l.road+aheadMax-l.total-claims)
}

// enter takes claims in hand.
func (l *lanes) enter(claims []queue.Claim, concurrency func(target string) int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range claims {
		name := c.Planned.Target
		width := max(1, concurrency(name))
		at := l.lanes[name]
		if at == nil {
			at = &lane{}
			l.lanes[name] = at
		}
		if cap(at.slots) != width { // new, or its limit was changed: requests under the old one leave by the old one's door
			at.slots = make(chan struct{}, width)
		}
		at.claims++
		l.total++
	}
}

// slot waits for the right to make a request. The function it returns gives it back.
func (l *lanes) slot(ctx context.Context, target string) (done func(), ok bool) {
	l.mu.Lock()
	slots := l.lanes[target].slots
	l.mu.Unlock()
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, true
	case <-ctx.Done():
		return nil, false
	}
}

// leave is the end of a claim.
func (l *lanes) leave(target string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	l.lanes[target].claims--
}

// took tells how long a request took, and whether the target itself failed at it. It gives the failures in a row.
func (l *lanes) took(target string, d time.Duration, failed bool) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.lanes[target]
	if at.mean += (d - at.mean) / 8; at.mean <= 0 {
		at.mean = d
	}
	if at.failures++; !failed {
		at.failures = 0
	}
	return at.failures
}

// pause reports whether this process is the first of its own requests to ask that the target be left alone until then.
func (l *lanes) pause(target string, until, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.lanes[target]
	if at.paused.After(now) && !until.After(at.paused.Add(time.Second)) {
		return false
	}
	at.paused, at.failures = until, 0
	return true
}

// inHand is the number of claims in hand.
func (l *lanes) inHand() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}
