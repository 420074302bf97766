package outbound

import (
	"bufio"
	"context"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// tunneller is a proxy that opens connections, and keeps what it was asked for.
type tunneller struct {
	url   *url.URL
	mu    sync.Mutex
	asked []string
}

// newTunneller answers CONNECT as answer says, which may be nothing: then it does what a proxy does, towards the address given.
func newTunneller(t *testing.T, to string, answer func(c net.Conn, r *http.Request) bool) *tunneller {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p := &tunneller{url: &url.URL{Scheme: "http", Host: l.Addr().String(), User: url.UserPassword("proxy-user", "proxy-pass")}}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c, to, answer)
		}
	}()
	return p
}

func (p *tunneller) serve(c net.Conn, to string, answer func(net.Conn, *http.Request) bool) {
	defer c.Close()
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.Host+" "+r.Header.Get("Proxy-Authorization"))
	p.mu.Unlock()
	if answer != nil && answer(c, r) {
		return
	}
	behind, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer behind.Close()
	io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	go io.Copy(behind, c)
	io.Copy(c, behind)
}

func (p *tunneller) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.asked...)
}

// resolves answers for a name what it is told to.
func resolves(addresses map[string]string) func(context.Context, string) ([]netip.Addr, error) {
	return func(_ context.Context, host string) ([]netip.Addr, error) {
		if ip, err := netip.ParseAddr(host); err == nil {
			return []netip.Addr{ip}, nil
		}
		var found []netip.Addr
		for text := range strings.FieldsSeq(addresses[host]) {
			found = append(found, netip.MustParseAddr(text))
		}
		return found, nil
	}
}

// A proxy is told the address that was checked, and never a name that it could resolve to another.
func TestAProxyIsToldTheAddress(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	r := &receiver{}
	server := httptest.NewUnstartedServer(r.handler(nil))
	server.TLS, server.Config.ErrorLog = ca.server(t), quiet
	server.StartTLS()
	t.Cleanup(server.Close)
	proxy := newTunneller(t, server.Listener.Addr().String(), nil)
	b := newBench(t, Options{
		Allowed: []netip.Prefix{netip.MustParsePrefix("10.8.0.0/16")}, // not the proxy's own, which the operator chose
		Proxy:   func(*url.URL) (*url.URL, error) { return proxy.url, nil },
		Resolve: resolves(map[string]string{
			"receiver.example.com": "203.0.113.1 198.18.0.1 8.8.4.4", "rebound.example.com": "169.254.169.254", "mapped.example.com": "::ffff:127.0.0.1", "allowed.example.com": "10.8.1.1",
		}),
	})
	b.set("ca", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.certificate.Raw})))
	target := func(host string) domain.Target {
		return domain.Target{URL: "https://" + host + ":8443/in", TLS: &domain.TLS{CA: "ca"}}
	}

	a, kind, reason := b.send(target("receiver.example.com"))
	if kind != domain.Accepted || a.Address != "8.8.4.4:8443" {
		t.Errorf("%s at %q (%s), want accepted at the address that may be reached", kind, a.Address, reason)
	}
	if got, want := proxy.requests(), "CONNECT 8.8.4.4:8443 Basic cHJveHktdXNlcjpwcm94eS1wYXNz"; len(got) != 1 || got[0] != want {
		t.Errorf("the proxy was asked for %q, want %q", got, want)
	}
	for _, host := range []string{"rebound.example.com", "mapped.example.com", "127.0.0.1", "[::1]", "[::ffff:169.254.169.254]"} {
		if _, kind, reason := b.send(target(host)); kind != domain.Permanent || !strings.Contains(reason, "not public") {
			t.Errorf("%s: %s (%s), want permanent", host, kind, reason)
		}
	}
	if _, kind, reason := b.send(target("nowhere.example.com")); kind != domain.NetworkError {
		t.Errorf("a name of nothing: %s (%s), want network_error", kind, reason)
	}
	if got := proxy.requests(); len(got) != 1 {
		t.Errorf("the proxy was asked for %q, want nothing more", got)
	}
	if a, _, reason = b.send(target("allowed.example.com")); a.Address != "10.8.1.1:8443" {
		t.Errorf("in a network that is allowed: %q (%s)", a.Address, reason)
	}
}

func TestProxiesThatDoNotOpen(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		answer func(c net.Conn, r *http.Request) bool
		kind   domain.Verdict
	}{
		"refuses":               {func(c net.Conn, _ *http.Request) bool { io.WriteString(c, "HTTP/1.1 407 No\r\n\r\n"); return true }, domain.NetworkError},
		"speaks first":          {func(c net.Conn, _ *http.Request) bool { io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhello"); return true }, domain.NetworkError},
		"sends garbage":         {func(c net.Conn, _ *http.Request) bool { io.WriteString(c, "no\x00\r\n\r\n"); return true }, domain.NetworkError},
		"hangs up":              {func(net.Conn, *http.Request) bool { return true }, domain.NetworkError},
		"says nothing for long": {func(c net.Conn, _ *http.Request) bool { io.Copy(io.Discard, c); return true }, domain.Timeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := newTunneller(t, "", tc.answer)
			s := New(NewClient(Options{Proxy: func(*url.URL) (*url.URL, error) { return proxy.url, nil }, Resolve: resolves(nil)}), time.Now)
			target := domain.Target{Handle: "h", URL: "http://8.8.4.4/", Body: "{}", Retry: domain.Retry{Timeout: domain.Duration(300 * time.Millisecond)}}
			target.Normalize()
			r, err := MakeOut(t.Context(), nil, domain.DeliveryPlanned{URL: target.URL, Body: target.Body}, target, 1)
			if err != nil {
				t.Fatal(err)
			}
			out, _ := s.Send(t.Context(), r)
			v := out.Verdict
			if v.Kind != tc.kind {
				t.Errorf("verdict = %s (%s), want %s", v.Kind, v.Reason, tc.kind)
			}
		})
	}
}
