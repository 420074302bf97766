package broker

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// slots bound how many requests to a target this process has in flight. Jobs are handed over a little ahead of that, so that
// one is there when another ends. The zero value is ready.
type slots struct {
	mu      sync.Mutex
	targets map[string]*targetSlots
}

type targetSlots struct {
	width int
	*semaphore.Weighted
}

// enter waits for a slot. It reports false when there was none for so long. A width of 0 is no bound.
func (s *slots) enter(ctx context.Context, target string, width int, patience time.Duration) (leave func(), ok bool) {
	if width <= 0 {
		return func() {}, true
	}
	s.mu.Lock()
	if s.targets == nil {
		s.targets = map[string]*targetSlots{}
	}
	t := s.targets[target]
	if t == nil || t.width != width { // new, or its limit was changed: requests under the old one leave by the old one's door
		t = &targetSlots{width, semaphore.NewWeighted(int64(width))}
		s.targets[target] = t
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if t.Acquire(ctx, 1) != nil {
		return nil, false
	}
	return func() { t.Release(1) }, true
}
