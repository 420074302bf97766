package dispatcher_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// raw answers each connection's first request with bytes of its own, and closes it unless told otherwise.
func raw(t *testing.T, answer func(c net.Conn)) (url string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				io.Copy(io.Discard, r.Body)
				answer(c)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// TestHostileReceivers has receivers do what receivers do: each ends as one recorded attempt with a verdict, in time.
func TestHostileReceivers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dispatch()
	forever := func(c net.Conn, chunk string) {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for range ticker.C {
			if _, err := io.WriteString(c, chunk); err != nil {
				return
			}
		}
	}
	metadata := newSink(t, func(http.ResponseWriter, *http.Request, int) {})
	for name, tc := range map[string]struct {
		url     string
		verdict domain.Verdict
		status  int
		reason  string
	}{
		"hangs":          {url: raw(t, func(c net.Conn) { io.Copy(io.Discard, c) }), verdict: domain.Timeout},
		"drips-headers":  {url: raw(t, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\n"); forever(c, "X: y\r\n") }), verdict: domain.Timeout},
		"drips-its-body": {url: raw(t, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 202 Accepted\r\n\r\n"); forever(c, "x") }), verdict: domain.Accepted, status: 202},
		"resets":         {url: raw(t, func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }), verdict: domain.NetworkError},
		"sends-garbage":  {url: raw(t, func(c net.Conn) { io.WriteString(c, "\x00\xff\x13 this is no HTTP\r\n\r\n") }), verdict: domain.NetworkError},
		"endless-headers": {url: raw(t, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := io.WriteString(c, strings.Repeat("X: y\r\n", 1000)); err != nil {
					return
				}
			}
		}), verdict: domain.NetworkError},
		"lies-about-length": {url: raw(t, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 202 Accepted\r\nContent-Length: 1000000\r\n\r\nshort") }), verdict: domain.Accepted, status: 202},
		"failing-and-lying": {url: raw(t, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 500 No\r\nContent-Length: 1000000\r\n\r\nshort") }), verdict: domain.NetworkError, status: 500},
		"redirects": {url: raw(t, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 307 Go\r\nLocation: http://169.254.169.254/latest/meta-data\r\nContent-Length: 0\r\n\r\n")
		}), verdict: domain.Permanent, status: 307, reason: "redirects are not followed"},
		"link-local":   {url: "http://169.254.169.254/latest/meta-data", verdict: domain.Permanent, reason: "not public"},
		"mapped":       {url: "http://[::ffff:169.254.169.254]/", verdict: domain.Permanent, reason: "not public"},
		"private":      {url: "http://10.0.0.1/", verdict: domain.Permanent, reason: "not public"},
		"unspecified":  {url: strings.Replace(metadata.URL, "127.0.0.1", "0.0.0.0", 1), verdict: domain.Permanent, reason: "not public"},
		"ipv6-unique":  {url: "http://[fd00:ec2::254]/", verdict: domain.Permanent, reason: "not public"},
		"6to4-private": {url: "http://[2002:0a00:0001::1]/", verdict: domain.Permanent, reason: "not public"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &world{T: t, db: w.db, ledger: w.ledger, vault: w.vault, topic: w.topic, engine: w.engine}
			w.target(name, tc.url, func(t *domain.Target) {
				t.Retry = domain.Retry{MaxAttempts: 1, Timeout: domain.Duration(time.Second)}
			})
			d := w.outcome(w.fire(name), map[bool]domain.Outcome{true: domain.Succeeded, false: domain.Failed}[tc.verdict.Settles()])
			a := d.Trail[0]
			if a.Verdict != tc.verdict || a.Status != tc.status || !strings.Contains(a.Reason, tc.reason) {
				t.Errorf("attempt = %s, HTTP %d (%s); want %s, HTTP %d, with %q", a.Verdict, a.Status, a.Reason, tc.verdict, tc.status, tc.reason)
			}
		})
	}
}

// TestAnEndlessAnswerIsReadInPart bounds what an answer can cost in memory and time.
func TestAnEndlessAnswerIsReadInPart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dispatch()
	w.target("endless", raw(t, func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		for {
			if _, err := io.WriteString(c, strings.Repeat("x", 1<<16)); err != nil {
				return
			}
		}
	}))
	w.outcome(w.fire("endless"), domain.Succeeded)
	got := events[domain.DeliveryAttempted](w, "delivery.attempted")
	if len(got) != 1 || got[0].ResponseBytes != 64<<10 {
		t.Errorf("attempts = %+v, want one that read 64 KiB", got)
	}
}
