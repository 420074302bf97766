package outbound

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"code.dny.dev/ssrf"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/net/http/httpproxy"
)

// Options say what a client may reach, and how.
type Options struct {
	Allowed []netip.Prefix                                      // networks besides the public addresses
	Proxy   func(*url.URL) (*url.URL, error)                    // nil: what the environment says (HTTP_PROXY, HTTPS_PROXY, NO_PROXY)
	Resolve func(context.Context, string) ([]netip.Addr, error) // nil: the system's; used before a proxy is asked
}

// Client speaks to platforms. It reaches public addresses only, and the networks that are allowed besides; the address is
// checked after name resolution, when the connection is dialled, so no name can lead elsewhere. A proxy is given the address
// that was checked and never the name. It follows no redirect, verifies TLS and reads headers up to 64 KiB.
type Client struct {
	options   Options
	guard     *ssrf.Guardian
	guarded   *net.Dialer // refuses addresses that must not be reached
	free      *net.Dialer // for the proxy, whose address the operator chose
	shared    http.RoundTripper
	certified *lru.Cache[[sha256.Size]byte, http.RoundTripper] // by what they are made with
}

// certifiedMax bounds the sets of connections that are kept for targets with certificates of their own.
const certifiedMax = 256

// NewClient makes a client.
func NewClient(o Options) *Client {
	guard := []ssrf.Option{ssrf.WithAnyPort()}
	var v4, v6 []netip.Prefix
	for _, p := range o.Allowed {
		if p.Addr().Unmap().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	if o.Proxy == nil {
		if env := httpproxy.FromEnvironment(); env.HTTPProxy != "" || env.HTTPSProxy != "" {
			o.Proxy = env.ProxyFunc()
		}
	}
	if o.Resolve == nil {
		o.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	c := &Client{options: o, guard: ssrf.New(append(guard, ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...))...)}
	c.free = &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	c.guarded = &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second, Control: c.guard.Safe}
	c.shared = c.transport(nil)
	c.certified, _ = lru.NewWithEvict(certifiedMax, func(_ [sha256.Size]byte, t http.RoundTripper) { closeIdle(t) }) // fails on a size below 1
	return c
}

const dialTimeout = 10 * time.Second

// HTTP is the client as net/http has it, for those that speak to a platform's API. It follows no redirect.
func (c *Client) HTTP() *http.Client {
	return &http.Client{Transport: c.shared, CheckRedirect: keepRedirect}
}

func keepRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Material is what a target's connections are made with beyond the system's trust, in PEM. The zero value is nothing.
type Material struct {
	Certificate string // of the client, with its chain and its key
	CA          string // the authorities that the receiver's certificate may come from; empty: the system's
}

// For gives the connections that are made with some material. Those of targets with the same material are shared, and those
// of others are not.
func (c *Client) For(m Material) (http.RoundTripper, error) {
	if m == (Material{}) {
		return c.shared, nil
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%d %s%s", len(m.Certificate), m.Certificate, m.CA))
	if t, ok := c.certified.Get(key); ok {
		return t, nil
	}
	config, err := m.config()
	if err != nil {
		return nil, err
	}
	t := c.transport(config)
	if earlier, there, _ := c.certified.PeekOrAdd(key, t); there {
		return earlier, nil
	}
	return t, nil
}

// Errors of a target's certificates. They quote nothing of them.
var (
	errCertificate = errors.New("its client certificate is not a PEM file with the certificate, its chain and its key")
	errCA          = errors.New("its ca holds no certificate in PEM")
)

func (m Material) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if m.Certificate != "" {
		pair, err := tls.X509KeyPair([]byte(m.Certificate), []byte(m.Certificate))
		if err != nil {
			return nil, errCertificate
		}
		config.Certificates = []tls.Certificate{pair}
	}
	if m.CA != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(m.CA)) {
			return nil, errCA
		}
	}
	return config, nil
}

// transport makes a set of connections.
func (c *Client) transport(config *tls.Config) http.RoundTripper {
	t := &http.Transport{
		DialContext:            c.dial,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           1024,
		MaxIdleConnsPerHost:    256,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    10 * time.Second,
		TLSClientConfig:        config,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if c.options.Proxy == nil {
		return t
	}
	return proxied{t}
}

func closeIdle(t http.RoundTripper) {
	if t, ok := t.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// dial connects to an address that may be reached, by way of the proxy where one is to be used.
func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	proxy, err := c.proxyFor(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	var conn net.Conn
	if proxy == nil {
		conn, err = c.guarded.DialContext(ctx, network, address)
	} else {
		conn, err = c.tunnel(ctx, proxy, address)
	}
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return conn, nil
}
