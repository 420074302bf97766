package dispatcher

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/outbound"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// job is one claimed attempt.
type job struct {
	queue.Claim
	plan
	opened   schema.Opened
	consents consent.Known // as it was just before the request leaves
	claimed  time.Time     // by this process's clock, before the claim was made
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
	asked := d.Now()
	done, ok := d.lanes.slot(ctx, j.Planned.Target)
	if !ok {
		return // cut off while draining; the lease's end sees to it
	}
	defer done()
	waited := d.Now().Sub(asked)
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
	if t.Consent != nil && planned.ProfileID != uuid.Nil {
		if j.consents, err = d.consents.of(ctx, planned.ProfileID); err != nil {
			d.Log.WarnContext(ctx, "cannot look at the person's consent; giving the claim back", slog.String("delivery", planned.DeliveryID.String()), slog.Any("error", err))
			d.wait(ctx, giveBackAfter, nil)
			d.release(ctx, j.Claim)
			return
		}
	}
	if payload := d.gate(j, planned, t); payload != nil {
		d.record(ctx, j.Claim, payload)
		return
	}
	a := domain.DeliveryAttempted{
		DeliveryID: planned.DeliveryID, Target: planned.Target, ProfileID: planned.ProfileID, Attempt: j.Attempt, Worker: d.Worker,
		Probe: probe,
	}
	decision := d.decide(j, planned, t)
	a.ConsentAsOf = decision.AsOf
	if decision.Position != planned.Consent.Position || decision.Decision != planned.Consent.Decision {
		a.Consent = &decision
	}
	outcome, err := d.attempt(ctx, j, planned, t)
	switch {
	case errors.Is(err, outbound.ErrReturned):
		d.Log.DebugContext(ctx, "not sent; giving the claim back", slog.String("delivery", planned.DeliveryID.String()), slog.Any("error", err))
		d.release(ctx, j.Claim)
		return
	case err != nil:
		d.Log.WarnContext(ctx, "what came of an attempt is not known; its lease will run out", slog.String("delivery", planned.DeliveryID.String()), slog.Int("attempt", j.Attempt), slog.Any("error", err))
		return
	}
	outcome.Fill(&a)
	d.metrics.seconds.Observe(a.DurationMS / 1000)
	v := outcome.Verdict
	if v.Kind.Settles() && !probe {
		done() // recording a success keeps nobody else from sending; after a failure the target may have to be left alone first
	}
	a.Verdict, a.Reason, a.RateLimit = v.Kind, v.Reason, quota(v.Limit)
	if v.Kind.Settles() {
		a.Outcome = domain.Succeeded
	} else {
		a.Outcome, a.NextAttemptAt = d.next(ctx, t.Target, domain.Failure{Attempt: j.Attempt - j.Base, Verdict: v.Kind, Status: a.Status, NotBefore: v.RetryAt})
		if a.NextAttemptAt != nil {
			if ends, quiet := j.target.QuietHours.Until(*a.NextAttemptAt, planned.Zone); quiet {
				a.NextAttemptAt = &ends
			}
		}
	}
	if d.record(ctx, j.Claim, a) && outcome.Recorded != nil {
		outcome.Recorded()
	}
	handing := d.Now().Sub(j.claimed) - waited - outcome.Waited - time.Duration(a.DurationMS*float64(time.Millisecond))
	d.lanes.handed(planned.Target, handing)
	d.metrics.handing.Observe(handing.Seconds())
	d.metrics.attempts.WithLabelValues(string(v.Kind)).Inc()
	if v.Kind.Settles() {
		d.metrics.lastSent.Set(float64(d.Now().Unix()))
	}
	d.watch(ctx, j, a, v, http.Header(a.ResponseHeaders).Get("Retry-After"))
	if v.Disable {
		d.disable(ctx, planned.Target, v.Reason)
	}
}

// next says what becomes of a delivery after a failure, and when it is tried again: by the target's rules, and no sooner
// than the target's budget of retries allows.
func (d *Dispatcher) next(ctx context.Context, t domain.Target, f domain.Failure) (domain.Outcome, *time.Time) {
	outcome, at := t.Retry.After(f, d.Now())
	perSecond := t.Retry.Budget.PerSecond()
	if outcome != domain.Retrying || math.IsInf(perSecond, 1) {
		return outcome, at
	}
	turn, err := queue.RetryTurn(ctx, d.DB, t.Handle, *at, perSecond)
	if err != nil {
		d.Log.WarnContext(ctx, "a retry is not counted against its target's budget", slog.String("target", t.Handle), slog.Any("error", err))
		return outcome, at
	}
	return outcome, &turn
}

// quota is what an answer said of its sender's, as the ledger keeps it; nil when it said nothing.
func quota(l platforms.RateLimit) *domain.RateLimit {
	if !l.Known {
		return nil
	}
	return &domain.RateLimit{Limit: l.Limit, Remaining: l.Remaining, Reset: l.Reset, Scope: l.Scope}
}

// decide asks the target's consent rule of what is known now.
func (d *Dispatcher) decide(j job, planned domain.DeliveryPlanned, t targets.Target) domain.Decision {
	question := j.consents.Question(planned.ProfileID, t.Consent, d.Now())
	question.View.Erased = j.opened.Erased || planned.URL == "" && !j.opened.Expired // erased between planning and sealing: it was recorded without its request
	return t.Consent.Decide(question)
}

// gate gives the event that ends the attempt without a request; nil lets it pass.
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
	case j.opened.Expired:
		return withheld("retention_ended", "the retention of what was to be sent ended before it could be sent")
	}
	if ends, quiet := j.target.QuietHours.Until(d.Now(), planned.Zone); quiet {
		return domain.DeliveryDeferred{
			DeliveryID: planned.DeliveryID, Target: planned.Target, ProfileID: planned.ProfileID, Attempt: j.Attempt + 1, Base: j.Base + 1,
			DueAt: ends, Reason: domain.DeferredByQuietHours,
		}
	}
	return nil
}

// record appends the event that ends an attempt, and does not give up while the database is away: the request has left.
// When the attempt was recorded as lost meanwhile, what really came of it is recorded besides. It reports whether the ledger
// has it.
func (d *Dispatcher) record(ctx context.Context, j queue.Claim, payload domain.Payload) bool {
	id := attemptID(j.Planned.DeliveryID, j.Attempt)
	if ctx.Err() != nil { // cut off while draining: one more try, the outcome is known after all
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
	}
	seal, again := d.Vault.SealEvents, false
	try := func() (struct{}, error) {
		e, secret, err := domain.New(id, payload)
		if err != nil {
			return struct{}{}, backoff.Permanent(err)
		}
		e.Actor, e.Source, e.CorrelationID, e.CausationID = d.Worker, source, j.Planned.CorrelationID, j.Planned.ID
		events := []domain.Event{e}
		if err := seal(ctx, events, [][]byte{secret}); err != nil {
			return struct{}{}, err
		}
		_, err = d.Ledger.Append(ctx, events...)
		if errors.Is(err, schema.ErrIDReused) && !again {
			// Perhaps by ourselves, with an answer that got lost, before midnight or an erasure: sealed otherwise, then.
			again, seal = true, d.Vault.SealAgain
			return struct{}{}, err
		}
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
	return err == nil
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
