package dispatcher

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Bounds on what is read and kept of an answer.
const (
	readAtMost = 64 << 10
	keepAtMost = 4 << 10
)

// job is one claimed attempt.
type job struct {
	queue.Claim
	opened  schema.Opened
	views   map[domain.Channel]domain.ConsentView
	claimed time.Time // by this process's clock, before the claim was made
}

// deliver makes one attempt and records what came of it, exactly one event.
func (d *Dispatcher) deliver(ctx context.Context, j job) {
	defer d.end(j.Planned.Target)
	planned := j.opened.Payload.(domain.DeliveryPlanned)
	t, err := d.version(ctx, planned.Target, planned.TargetVersion)
	if err != nil {
		d.Log.WarnContext(ctx, "cannot read the target's version; the attempt's lease will run out", slog.String("delivery", planned.DeliveryID.String()), slog.Any("error", err))
		return
	}
	payload, disable := d.attempt(ctx, j, planned, t)
	d.record(ctx, j, payload)
	if disable != "" {
		d.disable(ctx, planned.Target, disable)
	}
}

// attempt asks consent, sends, and says what came of it. disable says why the target must not be used any more.
func (d *Dispatcher) attempt(ctx context.Context, j job, planned domain.DeliveryPlanned, t targets.Target) (payload domain.Payload, disable string) {
	var view domain.ConsentView
	if t.Consent != nil {
		view = j.views[t.Consent.Channel]
	}
	view.Erased = j.opened.Erased
	decision := t.Consent.Decide(planned.ProfileID != uuid.Nil, view, j.opened.Position)
	if decision.Decision == domain.DecisionWithheld {
		reason := "consent"
		if view.Erased {
			reason = "erased"
		}
		return domain.DeliveryWithheld{
			DeliveryID: planned.DeliveryID, Firing: planned.Firing, Reason: reason, Detail: decision.Explain(), Consent: decision, Attempt: j.Attempt,
		}, ""
	}
	a := domain.DeliveryAttempted{
		DeliveryID: planned.DeliveryID, Target: planned.Target, ProfileID: planned.ProfileID, Attempt: j.Attempt, Worker: d.Worker,
	}
	if decision.Position != planned.Consent.Position || decision.Decision != planned.Consent.Decision {
		a.Consent = &decision
	}
	v := d.send(ctx, j, planned, t, &a)
	a.Verdict, a.Reason = v.Kind, v.Reason
	switch {
	case v.Kind.Settles():
		a.Outcome = domain.Succeeded
	default:
		a.Outcome, a.NextAttemptAt = t.Retry.After(j.Attempt, v.Kind.Retryable(), d.Now(), v.RetryAt)
	}
	d.metrics.attempts.WithLabelValues(string(v.Kind)).Inc()
	if v.Disable {
		disable = v.Reason
	}
	return a, disable
}

// send makes the request and reads the answer in the platform's dialect.
func (d *Dispatcher) send(ctx context.Context, j job, planned domain.DeliveryPlanned, t targets.Target, a *domain.DeliveryAttempted) platforms.Verdict {
	a.StartedAt = d.Now().UTC().Truncate(time.Microsecond)
	notSent := func(kind domain.Verdict, reason string) platforms.Verdict {
		return platforms.Verdict{Kind: kind, Reason: reason}
	}
	p, err := platforms.Lookup(t.Platform)
	if err != nil {
		return notSent(domain.Permanent, err.Error())
	}
	req, secrets, err := d.request(ctx, planned, t)
	if err != nil {
		return notSent(domain.RetryLater, "not sent: "+err.Error())
	}
	if req, err = p.Dialect.Prepare(req); err != nil {
		return notSent(domain.Permanent, "not sent: "+secrets.Replace(err.Error()))
	}
	timeout := time.Duration(t.Retry.Timeout)
	if late := d.Now().Sub(j.claimed); late > d.Grace/2 {
		// Another worker may soon take this attempt for lost: sending now could send twice.
		return notSent(domain.RetryLater, fmt.Sprintf("not sent: the worker got to it %s after claiming it", late.Round(time.Millisecond)))
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { a.Address = c.Conn.RemoteAddr().String() }})
	hr, err := http.NewRequestWithContext(ctx, req.Method, req.URL.String(), bytes.NewReader(req.Body))
	if err != nil {
		return notSent(domain.Permanent, "not sent: the request cannot be made")
	}
	hr.Header = req.Header
	// With a body that can be read again and an Idempotency-Key, net/http repeats a request by itself when the connection
	// breaks: requests that left and that the ledger never heard of. Every repetition is an attempt of its own.
	hr.GetBody = nil
	answer, err := d.Client.Do(hr)
	if err != nil {
		a.DurationMS = milliseconds(d.Now().Sub(a.StartedAt))
		var about *url.Error
		if errors.As(err, &about) {
			err = about.Err // without the URL, which may hold what is sealed
		}
		v := platforms.ClassifyError(err)
		v.Reason = secrets.Replace(v.Reason)
		return v
	}
	defer answer.Body.Close()
	body, readErr := io.ReadAll(io.LimitReader(answer.Body, readAtMost))
	a.DurationMS = milliseconds(d.Now().Sub(a.StartedAt))
	d.metrics.seconds.Observe(a.DurationMS / 1000)
	a.Status, a.ResponseBytes = answer.StatusCode, int64(len(body))
	a.ResponseHeaders, a.ResponseBody = answer.Header, excerpt(secrets.Replace(string(body)))
	if readErr != nil && answer.StatusCode >= 300 {
		return platforms.ClassifyError(readErr)
	}
	v := p.Dialect.Classify(answer.StatusCode, answer.Header, body, d.Now())
	v.Reason = secrets.Replace(v.Reason)
	return v
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// excerpt keeps the beginning of an answer, as text.
func excerpt(s string) string {
	if len(s) > keepAtMost {
		s = s[:keepAtMost]
	}
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), string(utf8.RuneError))
}

// request puts the secrets into the planned request. The replacer it returns takes them out of texts again.
func (d *Dispatcher) request(ctx context.Context, planned domain.DeliveryPlanned, t targets.Target) (platforms.Request, *strings.Replacer, error) {
	values, masks, err := d.secrets(ctx, planned)
	if err != nil {
		return platforms.Request{}, strings.NewReplacer(), err
	}
	json := strings.Contains(t.ContentType, "json")
	u, err := url.Parse(fill(planned.URL, values, url.QueryEscape))
	if err != nil {
		return platforms.Request{}, masks, errors.New("its URL does not parse")
	}
	header := make(http.Header, len(planned.Headers)+2)
	header.Set("Content-Type", t.ContentType)
	header.Set("User-Agent", "dispatch-ledger")
	for name, value := range planned.Headers {
		header.Set(name, fill(value, values, func(s string) string { return s }))
	}
	escape := func(s string) string { return s }
	if json {
		escape = jsonEscape
	}
	return platforms.Request{
		DeliveryID: planned.DeliveryID.String(), At: d.Now(), Method: t.Method, URL: u, Header: header,
		Body: []byte(fill(planned.Body, values, escape)),
	}, masks, nil
}

// secrets resolves the placeholders of a planned request, by placeholder.
func (d *Dispatcher) secrets(ctx context.Context, planned domain.DeliveryPlanned) (map[string]string, *strings.Replacer, error) {
	values := map[string]string{}
	if planned.Placeholder == "" {
		return values, strings.NewReplacer(), nil
	}
	texts := append([]string{planned.URL, planned.Body}, mapValues(planned.Headers)...)
	var masks []string
	for _, text := range texts {
		for rest := text; ; {
			_, after, ok := strings.Cut(rest, planned.Placeholder)
			if !ok {
				break
			}
			name, tail, ok := strings.Cut(after, "__")
			if !ok {
				break
			}
			rest = tail
			placeholder := planned.Placeholder + name + "__"
			if _, done := values[placeholder]; done {
				continue
			}
			s, err := d.Vault.Secret(ctx, name)
			if err != nil {
				return nil, nil, fmt.Errorf("its secret %q is not there; set it with: dispatch-ledger secret set %s", name, name)
			}
			value := s.Reveal()
			if strings.ContainsAny(value, "\r\n\x00") {
				return nil, nil, fmt.Errorf("its secret %q holds a line break", name)
			}
			values[placeholder] = value
			masks = append(masks, value, "••••", url.QueryEscape(value), "••••", jsonEscape(value), "••••")
		}
	}
	return values, strings.NewReplacer(masks...), nil
}

func mapValues(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for _, v := range m {
		out = append(out, v)
	}
	return out
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

// record appends the event that ends an attempt, and does not give up while the database is away: the request has left.
// When the attempt was recorded as lost meanwhile, what really came of it is recorded besides.
func (d *Dispatcher) record(ctx context.Context, j job, payload domain.Payload) {
	id := attemptID(j.Planned.DeliveryID, j.Attempt)
	try := func() (struct{}, error) {
		e, secret, err := domain.New(id, payload)
		if err != nil {
			return struct{}{}, backoff.Permanent(err)
		}
		e.Actor, e.Source, e.CorrelationID, e.CausationID = d.Worker, source, j.Planned.CorrelationID, j.Planned.ID
		events := []domain.Event{e}
		if err := d.Vault.SealEvents(ctx, events, [][]byte{secret}); err != nil {
			return struct{}{}, err
		}
		_, err = d.Ledger.Append(ctx, events...)
		if errors.Is(err, schema.ErrIDReused) && id == attemptID(j.Planned.DeliveryID, j.Attempt) {
			id = domain.EventID(id, "late")
			return struct{}{}, err
		}
		if err != nil && !schema.Transient(err) && !errors.Is(err, schema.ErrBusy) {
			return struct{}{}, backoff.Permanent(err)
		}
		return struct{}{}, err
	}
	patience := backoff.NewExponentialBackOff()
	patience.InitialInterval, patience.MaxInterval = 20*time.Millisecond, 2*time.Second
	_, err := backoff.Retry(ctx, try, backoff.WithBackOff(patience), backoff.WithMaxElapsedTime(15*time.Minute))
	if err != nil {
		d.Log.ErrorContext(ctx, "an attempt could not be recorded; its lease will run out and it will count as lost",
			slog.String("delivery", j.Planned.DeliveryID.String()), slog.Int("attempt", j.Attempt), slog.Any("error", err))
	}
}

// disable switches a target off that its platform has withdrawn.
func (d *Dispatcher) disable(ctx context.Context, handle, reason string) {
	t, err := targets.Get(ctx, d.DB, handle)
	if err != nil || !t.Enabled() {
		return
	}
	e, _, err := domain.New(uuid.New(), domain.TargetDisabled{Handle: handle, Reason: reason})
	if err == nil {
		e.Actor, e.Source, e.Expected = d.Worker, source, &t.Revision
		_, err = d.Ledger.Append(ctx, e)
	}
	if err != nil && !errors.Is(err, schema.ErrConflict) { // somebody else changed it at this moment
		d.Log.WarnContext(ctx, "cannot disable a target that its platform has withdrawn", slog.String("target", handle), slog.Any("error", err))
	}
}
