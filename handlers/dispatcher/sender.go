package dispatcher

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"code.dny.dev/ssrf"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

// Sender makes the requests of attempts that are claimed. HTTP makes them itself; another may carry them to whoever does.
type Sender interface {
	// Send makes one request and gives what came of it. An error is not an outcome: ErrReturned says that the request did
	// not leave, and the claim is given back; any other, that nobody knows, and the claim's lease runs out.
	Send(ctx context.Context, r Request) (Outcome, error)
}

// ErrReturned says that a request did not leave, for a reason that does not lie in it.
var ErrReturned = errors.New("the request did not leave")

// Request is all that one attempt takes: whoever holds it needs neither the ledger nor the vault. It holds secrets.
type Request struct {
	DeliveryID uuid.UUID `json:"delivery_id"`
	Attempt    int       `json:"attempt"`
	ProfileID  uuid.UUID `json:"profile_id,omitzero"`
	Target     string    `json:"target"`

	Platform    string            `json:"platform"`
	Method      string            `json:"method"`
	URL         string            `json:"url"` // like Headers and Body with the secrets' placeholders
	ContentType string            `json:"content_type"`
	Content     domain.Content    `json:"content"` // how values are escaped in the body
	Headers     map[string]string `json:"headers,omitempty"`
	Body        string            `json:"body"`
	Timeout     time.Duration     `json:"timeout"`

	Placeholder string            `json:"placeholder,omitempty"` // what the placeholders begin with; a name and __ follow
	Secrets     map[string]string `json:"secrets,omitempty"`     // values by name
	Signing     []string          `json:"signing,omitempty"`     // values that sign it, the newest first
	SignedWith  []string          `json:"signed_with,omitempty"` // their names
}

// Outcome is what came of a request.
type Outcome struct {
	Attempt domain.DeliveryAttempted `json:"attempt"` // what the sender knows of it: the request, the answer, the times
	Verdict platforms.Verdict        `json:"verdict"`
}

// fill puts what the sender knows into the attempt that is recorded.
func (o Outcome) fill(a *domain.DeliveryAttempted) {
	s := o.Attempt
	a.StartedAt, a.DurationMS, a.Status, a.Address, a.Timings = s.StartedAt, s.DurationMS, s.Status, s.Address, s.Timings
	a.BodySHA256, a.RequestHeaders = s.BodySHA256, s.RequestHeaders
	a.ResponseBytes, a.ResponseHeaders, a.ResponseBody = s.ResponseBytes, s.ResponseHeaders, s.ResponseBody
}

// HTTP is the sender that makes requests itself.
type HTTP struct {
	Client *http.Client // see NewClient
	Now    func() time.Time
}

// Bounds on what is read and kept of an answer.
const (
	readAtMost = 64 << 10
	keepAtMost = 4 << 10
)

// Send makes the request and reads the answer in the platform's dialect.
func (h HTTP) Send(ctx context.Context, r Request) (out Outcome, _ error) {
	started := h.Now()
	a := &out.Attempt
	a.StartedAt = started.UTC().Truncate(time.Microsecond)
	notSent := func(kind domain.Verdict, reason string) (Outcome, error) {
		out.Verdict = platforms.Verdict{Kind: kind, Reason: "not sent: " + reason}
		return out, nil
	}
	p, err := platforms.Lookup(r.Platform)
	if err != nil {
		return notSent(domain.Permanent, err.Error())
	}
	req, secrets, err := r.resolve(started)
	if err != nil {
		return notSent(domain.RetryLater, err.Error())
	}
	if req, err = p.Dialect.Prepare(req); err != nil {
		return notSent(domain.Permanent, secrets.Replace(err.Error()))
	}
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	clock := newStopwatch(h.Now)
	hr, err := http.NewRequestWithContext(clock.trace(ctx), req.Method, req.URL.String(), bytes.NewReader(req.Body))
	if err != nil {
		return notSent(domain.Permanent, "the request cannot be made")
	}
	hr.Header = req.Header
	// With a body that can be read again and an Idempotency-Key, net/http repeats a request by itself when the connection
	// breaks: requests that left and that the ledger never heard of. Every repetition is an attempt of its own.
	hr.GetBody = nil
	a.BodySHA256, a.RequestHeaders = sumOf(req.Body), masked(req.Header, secrets)
	answer, err := h.Client.Do(hr)
	var body []byte
	var readErr error
	if err == nil {
		body, readErr = io.ReadAll(io.LimitReader(answer.Body, readAtMost))
		answer.Body.Close()
	}
	a.DurationMS = milliseconds(h.Now().Sub(started))
	a.Address, a.Timings = clock.read()
	switch {
	case errors.Is(err, ssrf.ErrProhibitedIP):
		return notSent(domain.Permanent, "the URL leads to an address that is not public; if it is one of your own networks, allow it with --allow-network")
	case err != nil:
		var about *url.Error
		if errors.As(err, &about) {
			err = about.Err // without the URL, which may hold what is sealed
		}
		out.Verdict = platforms.ClassifyError(err)
	default:
		a.Status, a.ResponseBytes = answer.StatusCode, int64(len(body))
		a.ResponseHeaders, a.ResponseBody = masked(answer.Header, secrets), excerpt(secrets.Replace(string(body)))
		if readErr != nil && answer.StatusCode >= 300 {
			out.Verdict = platforms.ClassifyError(readErr)
			return out, nil
		}
		out.Verdict = p.Dialect.Classify(answer.StatusCode, answer.Header, body, h.Now())
	}
	out.Verdict.Reason = secrets.Replace(out.Verdict.Reason)
	return out, nil
}

// resolve puts the secrets in. The replacer takes them out of texts again.
func (r Request) resolve(now time.Time) (platforms.Request, *strings.Replacer, error) {
	values, masks := map[string]string{}, []string{}
	for name, value := range r.Secrets {
		if strings.ContainsAny(value, "\r\n\x00") {
			return platforms.Request{}, strings.NewReplacer(), fmt.Errorf("its secret %q holds a line break", name)
		}
		values[r.Placeholder+name+"__"] = value
		masks = append(masks, value, "••••", url.QueryEscape(value), "••••", jsonEscape(value), "••••")
	}
	masking := strings.NewReplacer(masks...)
	u, err := url.Parse(fill(r.URL, values, url.QueryEscape))
	if err != nil {
		return platforms.Request{}, masking, errors.New("its URL does not parse")
	}
	header := make(http.Header, len(r.Headers)+2)
	header.Set("Content-Type", r.ContentType)
	header.Set("User-Agent", "dispatch-ledger")
	for name, value := range r.Headers {
		header.Set(name, fill(value, values, func(s string) string { return s }))
	}
	escape := func(s string) string { return s }
	switch r.Content {
	case domain.ContentJSON:
		escape = jsonEscape
	case domain.ContentForm:
		escape = url.QueryEscape
	case domain.ContentText:
	}
	return platforms.Request{
		SigningSecrets: r.Signing,
		DeliveryID:     r.DeliveryID.String(), At: now, Method: r.Method, URL: u, Header: header,
		Body: []byte(fill(r.Body, values, escape)),
	}, masking, nil
}

func sumOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// masked copies headers without secrets in them.
func masked(header http.Header, secrets *strings.Replacer) map[string][]string {
	out := make(map[string][]string, len(header))
	for name, values := range header {
		for _, v := range values {
			out[name] = append(out[name], excerpt(secrets.Replace(v)))
		}
	}
	return out
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// excerpt keeps the beginning of an answer, as text.
func excerpt(s string) string {
	if len(s) > keepAtMost {
		s = s[:keepAtMost]
	}
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), string(utf8.RuneError))
}

func fill(text string, values map[string]string, escape func(string) string) string {
	for placeholder, value := range values {
		text = strings.ReplaceAll(text, placeholder, escape(value))
	}
	return text
}

func jsonEscape(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return ""
	}
	return string(b[1 : len(b)-1])
}
