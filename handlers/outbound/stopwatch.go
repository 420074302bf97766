package outbound

import (
	"context"
	"crypto/tls"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// stopwatch times the parts of one request. The client calls it from several goroutines, and may do so after it is read.
type stopwatch struct {
	now   func() time.Time
	start time.Time

	mu                sync.Mutex
	dns, connect, tls time.Time // when the part began
	got               domain.Timings
	address           string
	asked             bool
}

func newStopwatch(now func() time.Time) *stopwatch { return &stopwatch{now: now, start: now()} }

// lap runs do under the lock.
func (s *stopwatch) lap(do func(now time.Time)) {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	do(now)
}

// trace makes requests under the context it returns report to the stopwatch.
func (s *stopwatch) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:      func(string) { s.lap(func(time.Time) { s.asked = true }) },
		DNSStart:     func(httptrace.DNSStartInfo) { s.lap(func(now time.Time) { s.dns = now }) },
		DNSDone:      func(httptrace.DNSDoneInfo) { s.lap(func(now time.Time) { s.got.DNS = milliseconds(now.Sub(s.dns)) }) },
		ConnectStart: func(string, string) { s.lap(func(now time.Time) { s.connect = now }) },
		ConnectDone: func(_, address string, _ error) {
			s.lap(func(now time.Time) { s.got.Connect, s.address = milliseconds(now.Sub(s.connect)), address })
		},
		TLSHandshakeStart: func() { s.lap(func(now time.Time) { s.tls = now }) },
		TLSHandshakeDone: func(tls.ConnectionState, error) {
			s.lap(func(now time.Time) { s.got.TLS = milliseconds(now.Sub(s.tls)) })
		},
		GotConn: func(c httptrace.GotConnInfo) {
			s.lap(func(time.Time) { s.got.Reused, s.address = c.Reused, c.Conn.RemoteAddr().String() })
		},
		GotFirstResponseByte: func() { s.lap(func(now time.Time) { s.got.FirstByte = milliseconds(now.Sub(s.start)) }) },
	})
}

// read gives the address that was spoken to or tried last, and where the time went; nil when no connection was asked for.
func (s *stopwatch) read() (address string, t *domain.Timings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.asked {
		return "", nil
	}
	got := s.got
	return s.address, &got
}
