package dispatcher

import (
	"context"
	"math"
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
	taken int // of the road: claims in hand that have a slot, or will at once
	lanes map[string]*lane
}

// lane is what is in hand for one target.
type lane struct {
	slots    chan struct{} // one for each request in flight; claims beyond wait for one
	claims   int           // in hand: in flight, or claimed ahead and waiting for a slot
	mean     time.Duration // of a request, the latest weighing most
	handing  time.Duration // the same of a claim, besides its request and its waiting for a slot: the way there and back, and the record
	failures int           // in a row
	pausedAt time.Time     // when this process last asked for it to be left alone
	resumed  time.Time     // when it last said that it need not be any more
}

func newLanes(road int) *lanes { return &lanes{road: road, lanes: map[string]*lane{}} }

// widen sets how many requests may be in flight, over all targets.
func (l *lanes) widen(road int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.road = road
}

// Claiming ahead keeps a target's slots busy while the next claim is made. A fast one is ahead by far; a slow one, whose claims
// would only grow old, by as many as are on their way while its slots work.
const (
	aheadFor  = 20 * time.Millisecond
	aheadMax  = 512
	aheadMost = 4 // times its width
)

// room says how many more claims a target may have in hand.
//
// Besides its own limit, a lane may hold as much as is still free on the road (the dynamic threshold of Choudhury and
// Hahne): one slow target takes half of the road at most, two a third each. A lane that holds nothing may take one,
// however full the road is, up to twice its width.
func (l *lanes) room(target string, concurrency int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	claims, fast := 0, false
	if lane := l.lanes[target]; lane != nil {
		claims, fast = lane.claims, lane.fast()
	}
	// What is claimed must not exceed what stays free: claims + n <= road - (taken + n). Claims that wait for a slot are not on the road.
	if fair := (l.road - l.taken - claims + 1) / 2; !fast && claims+fair < concurrency {
		if claims == 0 && fair < 1 && l.taken < 2*l.road {
			return 1
		}
		return fair
	}
	return concurrency + l.lanes[target].ahead(concurrency) - claims
}

// ahead says how many claims a target that works on so many has besides.
func (l *lanes) ahead(target string, width int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lanes[target].ahead(width)
}

// fast reports whether a target is known to answer in no time.
func (at *lane) fast() bool { return at.mean > 0 && at.mean < aheadFor }

func (at *lane) ahead(width int) int {
	if at == nil {
		return 0
	}
	return Ahead(width, at.mean, at.handing)
}

// Ahead is how many claims a target has in hand besides the requests that it works on at once, so many, when a request takes so
// long, and a claim so long besides. It is none before it is known how long the target takes.
func Ahead(width int, request, handing time.Duration) int {
	switch {
	case request <= 0 || width <= 0:
		return 0
	case request < aheadFor:
		return min(aheadMax, aheadMost*width)
	}
	return min(aheadMax, int(math.Ceil(float64(width)*min(aheadMost, float64(handing)/float64(request)))))
}

// handed tells how long a claim was in hand besides its request and its waiting for a slot.
func (l *lanes) handed(target string, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.lanes[target]
	if at.handing == 0 {
		at.handing = max(d, 1)
	}
	at.handing = max(1, at.handing+(d-at.handing)/32)
}

// enter takes claims in hand.
func (l *lanes) enter(claims []queue.Claim, concurrency func(target string) int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range claims {
		name := c.Planned.Target
		width := max(1, min(concurrency(name), l.road))
		at := l.lanes[name]
		if at == nil {
			at = &lane{}
			l.lanes[name] = at
		}
		if cap(at.slots) != width { // new, or its limit was changed: requests under the old one leave by the old one's door
			l.taken += min(at.claims, width) - min(at.claims, cap(at.slots))
			at.slots = make(chan struct{}, width)
		}
		if at.claims++; at.claims <= width {
			l.taken++
		}
		l.total++
	}
}

// slot waits for the right to make a request. The function it returns gives it back, once however often it is called.
func (l *lanes) slot(ctx context.Context, target string) (done func(), ok bool) {
	l.mu.Lock()
	slots := l.lanes[target].slots
	l.mu.Unlock()
	select {
	case slots <- struct{}{}:
		return sync.OnceFunc(func() { <-slots }), true
	case <-ctx.Done():
		return nil, false
	}
}

// leave is the end of a claim.
func (l *lanes) leave(target string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	at := l.lanes[target]
	if at.claims--; at.claims < cap(at.slots) {
		l.taken--
	}
}

// pauseKnown is how long after a pause was recorded the queue may not show it yet.
const pauseKnown = time.Second

// isPaused reports whether a claim made at that time may come from before the queue knew of a pause that this process asked
// for. Whoever claims later goes by the queue, where a person may have ended the pause.
func (l *lanes) isPaused(target string, claimed time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.lanes[target].pausedAt
	return !at.IsZero() && claimed.Before(at.Add(pauseKnown))
}

// took tells how long a request took, and whether the target itself failed at it. It gives the failures in a row that this
// process knows of, and whether they ended with this one.
func (l *lanes) took(target string, d time.Duration, failed bool) (failures int, ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.lanes[target]
	if at.mean += (d - at.mean) / 8; at.mean <= 0 {
		at.mean = d
	}
	if failed {
		at.failures++
		return at.failures, false
	}
	ended = at.failures > 0
	at.failures = 0
	return 0, ended
}

// pause reports whether a request that was claimed at that time is the first of this process's to ask that the target be left
// alone: those that were in flight with it say the same.
func (l *lanes) pause(target string, claimed, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.lanes[target]
	if !at.pausedAt.IsZero() && claimed.Before(at.pausedAt) {
		return false
	}
	at.pausedAt, at.failures = now, 0
	return true
}

// resume reports whether a probe that was claimed at that time is the first of this process's to say that the target answers
// again. One that was claimed before the projection knew may have gone out besides.
func (l *lanes) resume(target string, claimed, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.lanes[target]
	if at.resumed.After(at.pausedAt) && claimed.Before(at.resumed.Add(pauseKnown)) {
		return false
	}
	at.resumed = now
	return true
}

// inHand is the number of claims in hand.
func (l *lanes) inHand() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}
