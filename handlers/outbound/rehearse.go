package outbound

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// Rehearse makes a request as it would leave, with dots in the place of its secrets, and hands it to a receiver in this
// process. No token is fetched and nothing leaves. The outcome is read from the receiver's answer as the platform's.
//
// The request is written to and read from a connection, so the receiver sees what a platform would.
func Rehearse(ctx context.Context, in Request, at time.Time, receiver func(u *url.URL) http.Handler) (out Outcome, err error) {
	r, err := build(ctx, in, at, nil, true)
	var not *unfit
	if errors.As(err, &not) {
		out.Verdict = notSent(not.kind, not.reason)
		return out, nil
	}
	near, far := net.Pipe()
	server := &http.Server{Handler: receiver(r.URL), ReadHeaderTimeout: in.Timeout}
	l := &single{conn: far, done: make(chan struct{})}
	go server.Serve(l) //nolint:errcheck // it ends with Close
	defer server.Close()
	plain := *r.URL
	plain.Scheme = "http" // nothing leaves, so nothing is encrypted
	ctx, cancel := context.WithTimeout(ctx, in.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.Method, plain.String(), bytes.NewReader(r.Body))
	if err != nil {
		return out, fmt.Errorf("rehearse: %w", err)
	}
	req.Header = r.Header
	via := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return near, nil }, DisableKeepAlives: true}
	answer, err := via.RoundTrip(req)
	if err != nil {
		return out, fmt.Errorf("rehearse: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, ReadAtMost))
	if err != nil {
		return out, fmt.Errorf("rehearse: %w", err)
	}
	out.Attempt.StartedAt, out.Attempt.Status, out.Attempt.BodySHA256 = at, answer.StatusCode, sumOf(r.Body)
	out.Attempt.RequestHeaders = maskedHeaders(r.Header, r.secrets)
	out.Verdict = r.dialect.Classify(answer.StatusCode, answer.Header, body, at)
	return out, nil
}

// single is a listener of one connection.
type single struct {
	conn net.Conn
	once sync.Once
	end  sync.Once
	done chan struct{}
}

// Accept gives the connection, then waits.
func (s *single) Accept() (c net.Conn, err error) {
	s.once.Do(func() { c = s.conn })
	if c == nil {
		<-s.done
		err = net.ErrClosed
	}
	return c, err
}

// Close ends the wait.
func (s *single) Close() error {
	s.end.Do(func() { close(s.done) })
	return nil
}

// Addr is nowhere.
func (s *single) Addr() net.Addr { return s.conn.LocalAddr() }
