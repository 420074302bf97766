package platforms

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// What a platform's list can answer with instead of a list. All come wrapped in an [*APIError], which carries the
// time to come back at.
var (
	ErrThrottled   = errors.New("platform is rate limiting us")
	ErrCredential  = errors.New("platform refused the credential")
	ErrUnavailable = errors.New("platform is unavailable")
	ErrRejected    = errors.New("platform rejected the request")
)

// ErrBatch says that a batch holds more changes than [Caps.WriteMax], or none.
var ErrBatch = errors.New("batch is empty or larger than the platform takes")

// ErrNoEvidence says that a resubscribe was asked for without saying why it may be done.
var ErrNoEvidence = errors.New("resubscribe without evidence: on most platforms it destroys the record of the opt-out")

// ErrSignature says that an inbound webhook does not verify.
var ErrSignature = errors.New("webhook signature does not verify")

// ErrInbound says that an inbound webhook is verified, and not in a shape that its platform is known to send.
var ErrInbound = errors.New("webhook is not in the platform's shape")

// Secret is a credential. It formats and logs as dots.
type Secret string

// String hides it.
func (Secret) String() string { return "••••" }

// GoString hides it from %#v too.
func (Secret) GoString() string { return "••••" }

// LogValue hides it from slog.
func (Secret) LogValue() slog.Value { return slog.StringValue("••••") }

// MarshalText hides it from encoders.
func (Secret) MarshalText() ([]byte, error) { return []byte("••••"), nil }

// API is one platform's HTTP API as its client calls it. Clients wait for nothing: a throttled call returns
// [ErrThrottled] with the time to come back, and whoever schedules the run decides.
type API struct {
	Platform  string
	Client    *http.Client
	Base      string // scheme and host, and a path without a slash at its end
	Authorize func(context.Context, *http.Request) error
	Classify  func(status int, header http.Header, body []byte, now time.Time) Verdict
	Expired   func(*http.Request) // a request was answered 401: drop its token; the call is made once more. nil: it is not
	Now       func() time.Time
}

// Call is one call of an API.
type Call struct {
	Method string
	Path   string // below the base, escaped
	Query  url.Values
	Header http.Header
	Type   string // media type of the body; application/json when empty
	Body   any    // []byte goes as it is, anything else as JSON; nil: none
}

// Answer is what came back from a call that succeeded.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// answerMax bounds an answer, in bytes: no page of any platform comes near it.
const answerMax = 32 << 20

// APIError is a call that did not succeed. It unwraps to its class: [ErrThrottled], [ErrCredential],
// [ErrUnavailable] or [ErrRejected].
type APIError struct {
	Platform, Method, Path string
	Status                 int // 0: no answer
	Verdict                Verdict
	Body                   []byte // of the answer
	Err                    error  // without an answer: why
}

// Error says what was called and how the platform put it, without the addresses in either.
func (e *APIError) Error() string {
	said := e.Verdict.Native
	if said == "" && e.Err != nil {
		said = e.Err.Error()
	}
	return fmt.Sprintf("%s: %s %s: %s (%s)", e.Platform, e.Method, Masked(e.Path), e.Verdict.Reason, Masked(said))
}

// Unwrap gives the class, and the cause where no answer arrived.
func (e *APIError) Unwrap() []error {
	class := ErrRejected
	switch e.Verdict.Kind {
	case domain.RetryLater:
		class = ErrUnavailable
		if e.Status == http.StatusTooManyRequests || !e.Verdict.RetryAt.IsZero() && e.Status < 500 {
			class = ErrThrottled
		}
	case domain.AuthExpired:
		class = ErrCredential
	case domain.NetworkError, domain.Timeout, domain.Lost:
		class = ErrUnavailable
	case domain.Accepted, domain.Duplicate, domain.Partial, domain.Permanent, domain.Refused:
	}
	if e.Err != nil {
		return []error{class, e.Err}
	}
	return []error{class}
}

// Do makes a call and decodes its answer into into, unless that is nil or the answer has no body. The error is an
// [*APIError], or the context's.
func (a API) Do(ctx context.Context, call Call, into any) (Answer, error) {
	answer, req, err := a.once(ctx, call, into)
	var failed *APIError
	if a.Expired != nil && errors.As(err, &failed) && failed.Status == http.StatusUnauthorized {
		a.Expired(req)
		answer, _, err = a.once(ctx, call, into)
	}
	return answer, err
}

func (a API) once(ctx context.Context, call Call, into any) (Answer, *http.Request, error) {
	req, err := a.request(ctx, call)
	if err != nil {
		return Answer{}, nil, fmt.Errorf("%s: %s %s: %w", a.Platform, call.Method, call.Path, err)
	}
	if a.Authorize != nil {
		if err := a.Authorize(ctx, req); err != nil {
			return Answer{}, nil, err
		}
	}
	answer, err := a.exchange(ctx, req, call, into)
	return answer, req, err
}

func (a API) exchange(ctx context.Context, req *http.Request, call Call, into any) (Answer, error) {
	fail := func(status int, v Verdict, body []byte, err error) (Answer, error) {
		return Answer{}, &APIError{Platform: a.Platform, Method: call.Method, Path: call.Path, Status: status, Verdict: v, Body: body, Err: err}
	}
	resp, err := a.Client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return Answer{}, ctx.Err()
		}
		return fail(0, ClassifyError(err), nil, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, answerMax))
	if err != nil {
		return fail(0, ClassifyError(err), nil, err)
	}
	if v := a.Classify(resp.StatusCode, resp.Header, body, a.Now()); v.Kind != domain.Accepted && v.Kind != domain.Partial {
		return fail(resp.StatusCode, v, body, nil)
	}
	if into != nil && len(bytes.TrimSpace(body)) > 0 {
		if err := json.Unmarshal(body, into); err != nil {
			return fail(resp.StatusCode, Verdict{Kind: domain.Permanent, Reason: "the answer is not what the platform documents", Native: Clip(err.Error(), 200)}, body, err)
		}
	}
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: body}, nil
}

func (a API) request(ctx context.Context, call Call) (*http.Request, error) {
	var body io.Reader
	switch b := call.Body.(type) {
	case nil:
	case []byte:
		body = bytes.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(encoded)
	}
	target := strings.TrimSuffix(a.Base, "/") + call.Path
	if len(call.Query) > 0 {
		target += "?" + call.Query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, call.Method, target, body)
	if err != nil {
		return nil, err
	}
	for name, values := range call.Header {
		req.Header[name] = values
	}
	if body != nil {
		media := call.Type
		if media == "" {
			media = "application/json"
		}
		req.Header.Set("Content-Type", media)
	}
	if req.Header.Get("Accept") == "" {
		req.Header.Set("Accept", "application/json")
	}
	return req, nil
}

// CheckBatch refuses a batch that is empty or too large for one call. The error is [ErrBatch].
func CheckBatch(batch []Change, most int) error {
	if len(batch) == 0 || len(batch) > most {
		return fmt.Errorf("%w: %d changes, the most is %d", ErrBatch, len(batch), most)
	}
	return nil
}

// CheckEvidence refuses a batch of resubscribes in which one has no evidence. The error is [ErrNoEvidence].
func CheckEvidence(batch []Change) error {
	for _, c := range batch {
		if len(c.Evidence) == 0 {
			return fmt.Errorf("change %q: %w", c.Key, ErrNoEvidence)
		}
	}
	return nil
}

// Outcomes gives every change of a batch the same outcome.
func Outcomes(batch []Change, status Status, native string) []Outcome {
	outcomes := make([]Outcome, len(batch))
	for i, c := range batch {
		outcomes[i] = Outcome{Key: c.Key, Status: status, Native: native}
	}
	return outcomes
}

// timeLayouts are the ways in which platforms write a time, fullest first. Those without a zone are UTC unless the
// platform says otherwise.
var timeLayouts = []struct {
	layout    string
	precision Precision
}{
	{time.RFC3339Nano, Second}, // Exact when it carries a fraction
	{"2006-01-02T15:04:05.999999999-0700", Second},
	{"2006-01-02 15:04:05.999999999-07:00", Second},
	{"2006-01-02 15:04:05.999999999 -0700", Second},
	{"2006-01-02 15:04:05.999999999 MST", Second},
	{"2006-01-02T15:04:05.999999999", Second},
	{"2006-01-02 15:04:05.999999999", Second},
	{"2006-01-02 15:04", Second},
	{"01/02/2006 03:04:05 PM", Second},
	{"1/2/2006 3:04:05 PM", Second},
	{"1/2/2006 3:04 PM", Second},
	{"2006-01-02", Day},
	{"1/2/2006", Day},
}

// ParseTime reads a platform's time in any of the spellings in use, and says how precise it is. A time without a
// zone is read in zone. Unreadable or empty text gives the zero time and [UnknownTime].
func ParseTime(text string, zone *time.Location) (time.Time, Precision) {
	text = strings.TrimSpace(text)
	for _, l := range timeLayouts {
		at, err := time.ParseInLocation(l.layout, text, zone)
		if err != nil {
			continue
		}
		precision := l.precision
		if at.Nanosecond() != 0 {
			precision = Exact
		}
		return at.UTC(), precision
	}
	return time.Time{}, UnknownTime
}

// OneByOne makes a receipt by changing one item after another, for platforms that take no batch. When one fails for
// a reason that is not its own (throttled, down, key refused), it and those after it are Failed, and may be tried
// again; when that is the very first, the error is returned.
func OneByOne(batch []Change, do func(Change) (Status, string, error)) (Receipt, error) {
	receipt := Receipt{Outcomes: Outcomes(batch, Failed, "not reached")}
	for i, change := range batch {
		status, native, err := do(change)
		if err != nil {
			if i == 0 {
				return Receipt{}, err
			}
			for j := i; j < len(batch); j++ {
				receipt.Outcomes[j].Native = Clip(err.Error(), 300)
			}
			return receipt, nil
		}
		receipt.Outcomes[i].Status, receipt.Outcomes[i].Native = status, native
	}
	return receipt, nil
}

// Own reads an error as an answer about the one item that was sent: the platform declined it. It reports false for
// an error that would meet any item.
func Own(err error) (native string, ok bool) {
	var failed *APIError
	if !errors.As(err, &failed) || !errors.Is(err, ErrRejected) {
		return "", false
	}
	return failed.Verdict.Native, true
}
