package schema

import (
	"slices"
	"strings"
	"sync"
)

// bell wakes whoever waits for something to have happened. A listener takes its strike before it looks, and waits for
// it after, so that what happens between look and wait is not missed.
//
// Whoever waits may say what for, and whoever rings what it was: of six readers of the ledger, an attempt concerns two.
type bell struct {
	mu      sync.Mutex
	strikes map[string]strike // by what is waited for
}

// strike is closed at the next ring for one of the names.
type strike struct {
	names []string // none: any
	rung  chan struct{}
}

func newBell() *bell { return &bell{strikes: map[string]strike{}} }

// ring wakes those who wait for one of the names, and those who wait for anything. Without names it wakes everybody.
func (b *bell) ring(names ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, s := range b.strikes {
		if len(names) == 0 || len(s.names) == 0 || slices.ContainsFunc(s.names, func(n string) bool { return slices.Contains(names, n) }) {
			close(s.rung)
			delete(b.strikes, key)
		}
	}
}

// next is closed at the first ring after this call that is for one of the names; without names, at the first.
func (b *bell) next(names ...string) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := strings.Join(names, " ")
	s, ok := b.strikes[key]
	if !ok {
		s = strike{names: names, rung: make(chan struct{})}
		b.strikes[key] = s
	}
	return s.rung
}
