package outbound

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/net/proxy"
)

// proxied tells the dialler which scheme a connection is for, because the proxy may depend on it. Connections of different
// schemes are never shared, so the first request's scheme is every one's.
type proxied struct{ *http.Transport }

type schemeKey struct{}

// RoundTrip is that of http.RoundTripper.
func (p proxied) RoundTrip(r *http.Request) (*http.Response, error) {
	return p.Transport.RoundTrip(r.WithContext(context.WithValue(r.Context(), schemeKey{}, r.URL.Scheme)))
}

// proxyFor gives the proxy for a connection; nil is none.
func (c *Client) proxyFor(ctx context.Context, address string) (*url.URL, error) {
	if c.options.Proxy == nil {
		return nil, nil //nolint:nilnil // no proxy is an answer
	}
	scheme, _ := ctx.Value(schemeKey{}).(string)
	return c.options.Proxy(&url.URL{Scheme: scheme, Host: address})
}

// errProxy is a proxy that does not do what is asked of it.
var errProxy = errors.New("the proxy does not open a connection")

// tunnel has the proxy open a connection to an address that was resolved and checked here: what the proxy is told is the
// address, so it cannot be led elsewhere by a name.
func (c *Client) tunnel(ctx context.Context, via *url.URL, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout) // net/http dials on when the request has given up
	defer cancel()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port %q: %w", port, err)
	}
	ips, err := c.options.Resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	var refused, failed []error
	for _, ip := range ips {
		to := netip.AddrPortFrom(ip.Unmap(), uint16(number))
		network := "tcp6"
		if to.Addr().Is4() {
			network = "tcp4"
		}
		if err := c.guard.Safe(network, to.String(), nil); err != nil {
			refused = append(refused, err)
			continue
		}
		conn, err := c.through(ctx, via, to.String())
		if err == nil {
			if trace := httptrace.ContextClientTrace(ctx); trace != nil && trace.ConnectDone != nil {
				trace.ConnectDone("tcp", to.String(), nil) // what was connected to is the platform, not the proxy
			}
			return tunnelled{conn, net.TCPAddrFromAddrPort(to)}, nil
		}
		failed = append(failed, err)
	}
	switch {
	case len(failed) > 0:
		return nil, errors.Join(failed...)
	case len(refused) > 0:
		return nil, errors.Join(refused...)
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// tunnelled is a connection through a proxy. Its other end is the platform's.
type tunnelled struct {
	net.Conn
	remote net.Addr
}

// RemoteAddr is the platform's address.
func (t tunnelled) RemoteAddr() net.Addr { return t.remote }

func (c *Client) through(ctx context.Context, via *url.URL, to string) (net.Conn, error) {
	if via.Scheme == "socks5" || via.Scheme == "socks5h" {
		var auth *proxy.Auth
		if via.User != nil {
			password, _ := via.User.Password()
			auth = &proxy.Auth{User: via.User.Username(), Password: password}
		}
		d, err := proxy.SOCKS5("tcp", hostPort(via, "1080"), auth, c.free)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errProxy, err)
		}
		return d.(proxy.ContextDialer).DialContext(ctx, "tcp", to)
	}
	port := "80"
	if via.Scheme == "https" {
		port = "443"
	}
	conn, err := c.free.DialContext(ctx, "tcp", hostPort(via, port))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errProxy, err)
	}
	if via.Scheme == "https" {
		conn = tls.Client(conn, &tls.Config{ServerName: via.Hostname(), MinVersion: tls.VersionTLS12})
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) }) //nolint:errcheck // wakes whatever waits on it, or there is nothing to wake
	err = connect(conn, via, to)
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// connect asks an HTTP proxy to open a connection (RFC 9110, section 9.3.6).
func connect(conn net.Conn, via *url.URL, to string) error {
	ask := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: to}, Host: to, Header: http.Header{}}
	if via.User != nil {
		password, _ := via.User.Password()
		ask.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(via.User.Username()+":"+password)))
	}
	if err := ask.Write(conn); err != nil {
		return fmt.Errorf("%w: %w", errProxy, err)
	}
	r := bufio.NewReaderSize(conn, 4<<10)
	answer, err := http.ReadResponse(r, ask)
	if err != nil {
		return fmt.Errorf("%w: %w", errProxy, err)
	}
	answer.Body.Close()
	switch {
	case answer.StatusCode != http.StatusOK:
		return fmt.Errorf("%w: it answers %d to CONNECT", errProxy, answer.StatusCode)
	case r.Buffered() > 0:
		return fmt.Errorf("%w: it speaks before it is asked", errProxy)
	}
	return nil
}

func hostPort(u *url.URL, port string) string {
	if u.Port() != "" {
		port = u.Port()
	}
	return net.JoinHostPort(u.Hostname(), port)
}
