package outbound

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"code.dny.dev/ssrf"
	"golang.org/x/net/dns/dnsmessage"
)

// rebinding is a name server whose every name is of a public address when it is first asked, and of this machine from then on.
func rebinding(t *testing.T) *net.Resolver {
	t.Helper()
	server, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		buffer := make([]byte, 1024)
		for address := [4]byte{8, 8, 4, 4}; ; {
			n, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buffer[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			answer := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true}, Questions: m.Questions}
			if q.Type == dnsmessage.TypeA {
				answer.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class}, Body: &dnsmessage.AResource{A: address}}}
				address = [4]byte{127, 0, 0, 1}
			}
			if packed, err := answer.Pack(); err == nil {
				server.WriteTo(packed, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

// TestANameThatIsRebound has a name lead to a public address when somebody looks at it, and to this machine when the request
// is made: the request does not leave.
func TestANameThatIsRebound(t *testing.T) {
	t.Parallel()
	var received atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { received.Add(1) }))
	t.Cleanup(s.Close)
	resolver := rebinding(t)
	seen, err := resolver.LookupNetIP(t.Context(), "ip4", "rebound.example.com.")
	if err != nil || len(seen) != 1 || seen[0] != netip.MustParseAddr("8.8.4.4") {
		t.Fatalf("looked at, the name is of %v (%v)", seen, err)
	}
	c := NewClient(Options{})
	c.guarded.Resolver = resolver
	_, port, err := net.SplitHostPort(strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://rebound.example.com.:"+port, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.HTTP().Do(req)
	if err == nil {
		answer.Body.Close()
	}
	if !errors.Is(err, ssrf.ErrProhibitedIP) || received.Load() != 0 {
		t.Errorf("err = %v and %d requests arrived, want it refused and none", err, received.Load())
	}
}
