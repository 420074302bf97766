package outbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"code.dny.dev/ssrf"
)

// TestTheAddressIsCheckedWhenItIsDialled: a name that resolves to a public address when it is looked at, and to a private
// one when it is dialled, leads nowhere. The check is on the address of the connection itself, so the name does not matter.
func TestTheAddressIsCheckedWhenItIsDialled(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		url     string
		allowed []netip.Prefix
		refused bool
	}{
		"a name of a private address":             {url: "http://localhost:" + port, refused: true},
		"the same, in a network that is allowed":  {url: "http://localhost:" + port, allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}},
		"an allowed network does not open others": {url: "http://169.254.169.254:" + port, allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, refused: true},
		"NAT64 of a private address":              {url: "http://[64:ff9b::7f00:1]:" + port, refused: true},
		"IPv4-mapped loopback":                    {url: "http://[::ffff:127.0.0.1]:" + port, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, tc.url, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			answer, err := NewClient(Options{Allowed: tc.allowed}).HTTP().Do(req)
			if err == nil {
				answer.Body.Close()
			}
			if errors.Is(err, ssrf.ErrProhibitedIP) != tc.refused {
				t.Error(fmt.Errorf("err = %w, refused wanted: %t", err, tc.refused))
			}
		})
	}
}
