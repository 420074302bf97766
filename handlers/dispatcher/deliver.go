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
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"code.dny.dev/ssrf"
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
	plan
	opened  schema.Opened
	views   map[domain.Channel]domain.ConsentView
	claimed time.Time // by this process's clock, before the claim was made
}

// stale says how long ago the claim was made, and whether so long that another worker may soon take it for lost.
func (d *Dispatcher) stale(j job) (time.Duration, bool) {
	late := d.Now().Sub(j.claimed)
	return late, late > d.Grace/2
}

// deliver makes one attempt and records what came of it, exactly one event. A claim that it cannot get to in time is given
// back instead.
func (d *Dispatcher) deliver(ctx context.Context, j job) {
	defer d.end(j.Planned.Target)
	done, ok := d.lanes.slot(ctx, j.Planned.Target)
	if !ok {
		return // cut off while draining; the lease's end sees to it
	}
	defer done()
	if late, stale := d.stale(j); stale {
		d.Log.DebugContext(ctx, "too late for a claim; giving it back", slog.String("delivery", j.Planned.DeliveryID.String()), slog.Duration("late", late))
		d.release(ctx, j.Claim)
		return
	}
	probe := j.work.Cause == domain.PausedByFailures
	if !probe && d.lanes.isPaused(j.Planned.Target, j.claimed) {
		d.release(ctx, j.Claim)
		return
	}
	planned := j.opened.Payload.(domain.DeliveryPlanned)
	t, err := d.version(ctx, planned.Target, planned.TargetVersion)
	if err != nil {
		d.Log.WarnContext(ctx, "cannot read the target's version; giving the claim back", slog.String("delivery", planned.DeliveryID.String()), slog.Any("error", err))
		d.release(ctx, j.Claim)
		return
	}
	if payload := d.gate(j, planned, t); payload != nil {
		d.record(ctx, j.Claim, payload)
		return
	}
	a := domain.DeliveryAttempted{
		DeliveryID: planned.DeliveryID, Target: planned.Target, ProfileID: planned.ProfileID, Attempt: j.Attempt, Worker: d.Worker,
		Probe: probe,
	}
	if decision := d.decide(j, planned, t); decision.Position != planned.Consent.Position || decision.Decision != planned.Consent.Decision {
		a.Consent = &decision
	}
	v := d.send(ctx, planned, t, &a)
	if v.Kind.Settles() && !probe {
		done() // recording a success keeps nobody else from sending; after a failure the target may have to be left alone first
	}
	a.Verdict, a.Reason = v.Kind, v.Reason
	if v.Kind.Settles() {
		a.Outcome = domain.Succeeded
	} else {
		a.Outcome, a.NextAttemptAt = t.Retry.After(j.Attempt-j.Base, v.Kind.Retryable(), d.Now(), v.RetryAt)
	}
	d.record(ctx, j.Claim, a)
	d.metrics.attempts.WithLabelValues(string(v.Kind)).Inc()
	if v.Kind.Settles() {
		d.metrics.lastSent.Set(float64(d.Now().Unix()))
	}
	d.watch(ctx, j, a, v, http.Header(a.ResponseHeaders).Get("Retry-After"))
	if v.Disable {
		d.disable(ctx, planned.Target, v.Reason)
	}
}

// decide asks the target's consent rule of what is known now.
func (d *Dispatcher) decide(j job, planned domain.DeliveryPlanned, t targets.Target) domain.Decision {
	var view domain.ConsentView
	if t.Consent != nil {
		view = j.views[t.Consent.Channel]
	}
	view.Erased = j.opened.Erased || planned.URL == "" // erased between planning and sealing: it was recorded without its request
	return t.Consent.Decide(planned.ProfileID != uuid.Nil, view, j.opened.Position)
}

// gate gives the event that ends the delivery without a request; nil lets it pass.
func (d *Dispatcher) gate(j job, planned domain.DeliveryPlanned, t targets.Target) domain.Payload {
	decision := d.decide(j, planned, t)
	withheld := func(reason, detail string) domain.Payload {
		return domain.DeliveryWithheld{
			DeliveryID: planned.DeliveryID, Firing: planned.Firing, Reason: reason, Detail: detail, Consent: decision, Attempt: j.Attempt,
		}
	}
	switch {
	case !j.Until.IsZero() && !d.Now().Before(j.Until):
		return domain.DeliveryExpired{DeliveryID: planned.DeliveryID, Target: planned.Target, ProfileID: planned.ProfileID, Attempt: j.Attempt, ExpiresAt: j.Until.UTC()}
	case j.work.State == "deleted":
		return withheld("target_deleted", "the target was withdrawn before it was sent: "+j.target.Reason)
	case decision.Decision == domain.DecisionWithheld && decision.Reason == "erased":
		return withheld("erased", decision.Explain())
	case decision.Decision == domain.DecisionWithheld:
		return withheld("consent", decision.Explain())
	}
	return nil
}

// send makes the request and reads the answer in the platform's dialect.
func (d *Dispatcher) send(ctx context.Context, planned domain.DeliveryPlanned, t targets.Target, a *domain.DeliveryAttempted) platforms.Verdict {
	started := d.Now()
	a.StartedAt = started.UTC().Truncate(time.Microsecond)
	notSent := func(kind domain.Verdict, reason string) platforms.Verdict {
		return platforms.Verdict{Kind: kind, Reason: "not sent: " + reason}
	}
	p, err := platforms.Lookup(t.Platform)
	if err != nil {
		return notSent(domain.Permanent, err.Error())
	}
	req, secrets, err := d.request(ctx, planned, t)
	if err != nil {
		return notSent(domain.RetryLater, err.Error())
	}
	if req, err = p.Dialect.Prepare(req); err != nil {
		return notSent(domain.Permanent, secrets.Replace(err.Error()))
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(t.Retry.Timeout))
	defer cancel()
	clock := newStopwatch(d.Now)
	hr, err := http.NewRequestWithContext(clock.trace(ctx), req.Method, req.URL.String(), bytes.NewReader(req.Body))
	if err != nil {
		return notSent(domain.Permanent, "the request cannot be made")
	}
	hr.Header = req.Header
	// With a body that can be read again and an Idempotency-Key, net/http repeats a request by itself when the connection
	// breaks: requests that left and that the ledger never heard of. Every repetition is an attempt of its own.
	hr.GetBody = nil
	a.BodySHA256, a.RequestHeaders = sumOf(req.Body), masked(req.Header, secrets)
	answer, err := d.Client.Do(hr)
	var body []byte
	var readErr error
	if err == nil {
		body, readErr = io.ReadAll(io.LimitReader(answer.Body, readAtMost))
		answer.Body.Close()
	}
	took := d.Now().Sub(started)
	a.DurationMS = milliseconds(took)
	a.Address, a.Timings = clock.read()
	d.metrics.seconds.Observe(took.Seconds())
	switch {
	case errors.Is(err, ssrf.ErrProhibitedIP):
		return notSent(domain.Permanent, "the URL leads to an address that is not public; if it is one of your own networks, allow it with --allow-network")
	case err != nil:
		var about *url.Error
		if errors.As(err, &about) {
			err = about.Err // without the URL, which may hold what is sealed
		}
		v := platforms.ClassifyError(err)
		v.Reason = secrets.Replace(v.Reason)
		return v
	}
	a.Status, a.ResponseBytes = answer.StatusCode, int64(len(body))
	a.ResponseHeaders, a.ResponseBody = masked(answer.Header, secrets), excerpt(secrets.Replace(string(body)))
	if readErr != nil && answer.StatusCode >= 300 {
		return platforms.ClassifyError(readErr)
	}
	v := p.Dialect.Classify(answer.StatusCode, answer.Header, body, d.Now())
	v.Reason = secrets.Replace(v.Reason)
	return v
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

// request puts the secrets into the planned request. The replacer it returns takes them out of texts again.
func (d *Dispatcher) request(ctx context.Context, planned domain.DeliveryPlanned, t targets.Target) (platforms.Request, *strings.Replacer, error) {
	values, masks, err := d.secrets(ctx, planned)
	if err != nil {
		return platforms.Request{}, strings.NewReplacer(), err
	}
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
	switch t.Content() {
	case domain.ContentJSON:
		escape = jsonEscape
	case domain.ContentForm:
		escape = url.QueryEscape
	case domain.ContentText:
	}
	signing, err := d.signing(ctx, t.Signing)
	if err != nil {
		return platforms.Request{}, masks, err
	}
	return platforms.Request{
		SigningSecrets: signing,
		DeliveryID:     planned.DeliveryID.String(), At: d.Now(), Method: t.Method, URL: u, Header: header,
		Body: []byte(fill(planned.Body, values, escape)),
	}, masks, nil
}

// signing gives the values that sign a request, the newest first: of each secret the current one, and while it is being
// rotated the one before it.
func (d *Dispatcher) signing(ctx context.Context, names []string) (values []string, err error) {
	for _, name := range names {
		s, err := d.Vault.Secret(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("its signing secret %q is not there; set it with: dispatch-ledger secret set %s", name, name)
		}
		values = append(values, s.Reveal())
		if previous, ok := s.RevealPrevious(); ok {
			values = append(values, previous)
		}
	}
	return values, nil
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
func (d *Dispatcher) record(ctx context.Context, j queue.Claim, payload domain.Payload) {
	id := attemptID(j.Planned.DeliveryID, j.Attempt)
	if ctx.Err() != nil { // cut off while draining: one more try, the outcome is known after all
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
	}
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
