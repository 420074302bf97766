package schema

import "sync"

// bell wakes whoever waits for something to have changed. A listener takes the current strike before it looks,
// and waits for a later one, so that a change between look and wait is not missed.
type bell struct {
	mu     sync.Mutex
	strike chan struct{} // closed at the next ring
}

func newBell() *bell { return &bell{strike: make(chan struct{})} }

func (b *bell) ring() {
	b.mu.Lock()
	close(b.strike)
	b.strike = make(chan struct{})
	b.mu.Unlock()
}

// next is closed at the first ring after this call.
func (b *bell) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.strike
}
