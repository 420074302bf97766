package simulator

import (
	"sync"
	"time"
)

// Window is one limit: so many requests in each fixed window of time.
type Window struct {
	Limit int
	Per   time.Duration
}

// Limiter counts requests in fixed windows, as the platforms do, for any number of keys.
type Limiter struct {
	now     func() time.Time
	windows []Window

	mu     sync.Mutex
	counts map[string][]count // guarded by mu; one count per window
}

type count struct {
	start time.Time
	n     int
}

// NewLimiter makes a limiter. The last window is the one that answers report on.
func NewLimiter(now func() time.Time, windows ...Window) *Limiter {
	return &Limiter{now: now, windows: windows, counts: map[string][]count{}}
}

// Usage is where a key stands after a request.
type Usage struct {
	OK        bool
	Limit     int           // of the last window
	Remaining int           // in the last window
	Reset     time.Duration // until the last window ends
	Wait      time.Duration // when not OK: until the window that is full ends
}

// Take counts one request for a key, unless one of its windows is full.
func (l *Limiter) Take(key string) Usage {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	counts := l.counts[key]
	if counts == nil {
		counts = make([]count, len(l.windows))
		l.counts[key] = counts
	}
	usage := Usage{OK: true}
	for i, w := range l.windows {
		if now.Sub(counts[i].start) >= w.Per {
			counts[i] = count{start: now.Truncate(w.Per)}
		}
		left := counts[i].start.Add(w.Per).Sub(now)
		if counts[i].n >= w.Limit {
			usage.OK, usage.Wait = false, max(usage.Wait, left)
		}
		usage.Limit, usage.Remaining, usage.Reset = w.Limit, w.Limit-counts[i].n, left
	}
	if usage.OK {
		for i := range counts {
			counts[i].n++
		}
		usage.Remaining--
	}
	return usage
}
