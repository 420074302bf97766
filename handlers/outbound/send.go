package outbound

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"code.dny.dev/ssrf"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

// Bounds on what is read and kept of an answer, in bytes.
const (
	ReadAtMost = 64 << 10
	KeepAtMost = 4 << 10
)

// Sender makes requests. It may be used by any number of goroutines.
type Sender struct {
	client *Client
	now    func() time.Time
	tokens *tokens
}

// New makes a sender.
func New(c *Client, now func() time.Time) *Sender {
	return &Sender{client: c, now: now, tokens: newTokens(c.HTTP(), now)}
}

// Send makes a request and reads the answer in its platform's dialect. What is known of both has its secrets masked. There is
// always an outcome: the error is nil.
func (s *Sender) Send(ctx context.Context, in Request) (out Outcome, _ error) {
	started := s.now()
	out.Attempt.StartedAt = started.UTC().Truncate(time.Microsecond)
	ctx, cancel := context.WithTimeout(ctx, in.Timeout)
	defer cancel()
	r, err := build(ctx, in, started, s.tokens.token, false)
	var not *unfit
	if errors.As(err, &not) {
		out.Verdict = notSent(not.kind, not.reason)
		return out, nil
	}
	via, err := s.client.For(in.material())
	if err != nil {
		out.Verdict = notSent(domain.RetryLater, err.Error())
		return out, nil
	}
	out.Verdict = s.send(ctx, r, via, in.Redirects, started, &out.Attempt)
	v := &out.Verdict
	v.Reason, v.Native, v.Said = r.secrets.Replace(v.Reason), r.secrets.Replace(v.Native), r.secrets.Replace(v.Said)
	if v.Said != "" {
		v.Reason += ": " + in.withoutPerson(v.Said)
	}
	return out, nil
}

func (s *Sender) send(ctx context.Context, r *ready, via http.RoundTripper, redirects int, started time.Time, a *domain.DeliveryAttempted) platforms.Verdict {
	a.BodySHA256 = sumOf(r.Body)
	clock := newStopwatch(s.now)
	answer, body, err := s.exchange(clock.trace(ctx), r, via, redirects, a) //nolint:bodyclose // exchange has read and closed it
	a.DurationMS = milliseconds(s.now().Sub(started))
	a.Address, a.Timings = clock.read()
	if answer == nil {
		return unanswered(err)
	}
	a.Status, a.ResponseBytes = answer.StatusCode, int64(len(body))
	a.ResponseHeaders, a.ResponseBody = maskedHeaders(answer.Header, r.secrets), excerpt(r.secrets.Replace(string(body)))
	var hop *hopError
	switch {
	case errors.As(err, &hop):
		return platforms.Verdict{Kind: domain.Permanent, Reason: hop.reason}
	case err != nil && answer.StatusCode >= 300:
		return platforms.ClassifyError(err)
	}
	v := r.dialect.Classify(answer.StatusCode, answer.Header, body, s.now())
	if v.Kind == domain.AuthExpired && r.token != "" {
		s.tokens.drop(r.tokenKey, r.token)
	}
	return v
}

func notSent(kind domain.Verdict, reason string) platforms.Verdict {
	return platforms.Verdict{Kind: kind, Reason: "not sent: " + reason}
}

// unanswered reads a request that got no answer.
func unanswered(err error) platforms.Verdict {
	if errors.Is(err, ssrf.ErrProhibitedIP) {
		return notSent(domain.Permanent, "the URL leads to an address that is not public; if it is one of your own networks, allow it with --allow-network")
	}
	var about *url.Error
	if errors.As(err, &about) {
		err = about.Err // without the URL, which may hold what is sealed
	}
	return platforms.ClassifyError(err)
}

// exchange makes the request and follows as many redirects. The answer is nil when none arrived; with one, the error is that of
// reading its body, or a *hopError.
func (s *Sender) exchange(ctx context.Context, r *ready, via http.RoundTripper, redirects int, a *domain.DeliveryAttempted) (*http.Response, []byte, error) {
	to, header := r.URL, r.Header
	for {
		req, err := http.NewRequestWithContext(ctx, r.Method, to.String(), bytes.NewReader(r.Body))
		if err != nil {
			return nil, nil, errors.New("the request cannot be made")
		}
		req.Header = header
		// With a body that can be read again and an Idempotency-Key, net/http repeats a request by itself when the connection
		// breaks: requests that left and that the ledger never heard of. Every repetition is an attempt of its own.
		req.GetBody = nil
		a.RequestHeaders = maskedHeaders(header, r.secrets)
		answer, err := (&http.Client{Transport: via, CheckRedirect: keepRedirect}).Do(req)
		if err != nil {
			return nil, nil, err
		}
		body, err := io.ReadAll(io.LimitReader(answer.Body, ReadAtMost))
		answer.Body.Close()
		if redirects == 0 || !redirecting(answer.StatusCode) {
			return answer, body, err
		}
		next, err := r.follow(to, answer, redirects-len(a.Redirects))
		if err != nil {
			return answer, body, err
		}
		a.Redirects = append(a.Redirects, domain.Redirect{Status: answer.StatusCode, To: excerpt(r.secrets.Replace(next.String()))})
		if next.Host != to.Host {
			header, via = r.withoutCredentials(header), s.client.shared
		}
		to = next
	}
}

func sumOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// maskedHeaders copies headers without secrets in them.
func maskedHeaders(header http.Header, s *secrets) map[string][]string {
	out := make(map[string][]string, len(header))
	for name, values := range header {
		for _, v := range values {
			out[name] = append(out[name], excerpt(s.Replace(v)))
		}
	}
	return out
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// excerpt keeps the beginning of an answer, as text.
func excerpt(s string) string {
	if len(s) > KeepAtMost {
		s = s[:KeepAtMost]
	}
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), string(utf8.RuneError))
}
