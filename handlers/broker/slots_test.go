package broker

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/outbound"
)

// counting is a Sender that counts how many requests are in flight at once.
type counting struct {
	now, most, sent atomic.Int64
	hold            chan struct{}
}

func (c *counting) Send(context.Context, outbound.Request) (outbound.Outcome, error) {
	n := c.now.Add(1)
	defer c.now.Add(-1)
	for m := c.most.Load(); n > m && !c.most.CompareAndSwap(m, n); m = c.most.Load() {
	}
	c.sent.Add(1)
	<-c.hold
	return outbound.Outcome{}, nil
}

func TestADispatcherKeepsToTheTargetsConcurrency(t *testing.T) {
	t.Parallel()
	const width, jobs = 3, 20
	sender := &counting{hold: make(chan struct{})}
	d := &Dispatcher{DispatchConfig: DispatchConfig{Sender: sender, Now: time.Now}}
	var err error
	if d.metrics, err = newDispatchMetrics(nil); err != nil {
		t.Fatal(err)
	}
	d.gate = newGate(nil, &d.keys, "d", jobs, time.Now, func() {})
	d.gate.known = time.Now().Add(time.Hour) // open
	results := make(chan result, jobs)
	var sending sync.WaitGroup
	for range jobs {
		sending.Go(func() {
			results <- d.send(t.Context(), outbound.Request{DeliveryID: uuid.New(), Attempt: 1, Target: "narrow", Concurrency: width})
		})
	}
	other := make(chan result, 1)
	go func() {
		other <- d.send(t.Context(), outbound.Request{DeliveryID: uuid.New(), Attempt: 1, Target: "other", Concurrency: 1})
	}()
	for sender.sent.Load() < width+1 { // another target does not wait
		<-time.After(time.Millisecond)
	}
	close(sender.hold)
	sending.Wait()
	<-other
	close(results)
	for r := range results {
		if r.Outcome == nil {
			t.Errorf("a job was sent back: %s", r.Returned)
		}
	}
	if got := sender.most.Load(); got > width+1 {
		t.Errorf("%d requests at once, want at most %d to the one target and 1 to the other", got, width)
	}
	if sent := sender.sent.Load(); sent != jobs+1 {
		t.Errorf("%d requests sent, want %d", sent, jobs+1)
	}
}

// A job that waits too long goes back, so that no request begins after its lease.
func TestAJobWithoutASlotGoesBack(t *testing.T) {
	t.Parallel()
	var s slots
	leave, ok := s.enter(t.Context(), "t", 1, time.Minute)
	if !ok {
		t.Fatal("the first finds no slot")
	}
	if _, ok := s.enter(t.Context(), "t", 1, time.Millisecond); ok {
		t.Error("a second finds a slot of one")
	}
	leave()
	if _, ok := s.enter(t.Context(), "t", 1, time.Minute); !ok {
		t.Error("a slot that was left is not free")
	}
}
