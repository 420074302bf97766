package dispatcher

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
)

// The breaker of a target is a state that follows from events, so that every process and everybody who reads the ledger
// sees the same one: closed; open from target.paused until its time; then half-open, where one request at a time is a
// probe; closed again with target.resumed. What has not led to an event yet, the failures in a row, is counted in one place
// for all processes.

// watch draws the conclusions from an attempt that concern its target as a whole.
func (d *Dispatcher) watch(ctx context.Context, j job, a domain.DeliveryAttempted, v platforms.Verdict, retryAfter string) {
	target, took := a.Target, time.Duration(a.DurationMS*float64(time.Millisecond))
	if a.Timings == nil || a.Status == 0 && v.Kind == domain.Permanent {
		return // nothing left this process: it says nothing about the target
	}
	limited := v.Kind == domain.RetryLater && (a.Status == http.StatusTooManyRequests || a.Status == http.StatusServiceUnavailable) && v.RetryAt.After(d.Now())
	failed := !limited && (v.Kind == domain.NetworkError || v.Kind == domain.Timeout || v.Kind == domain.RetryLater && a.Status >= 500)
	failures := d.failures(ctx, j, took, failed)
	breaker, pauses := j.target.Breaker, j.work.Pauses
	switch {
	case limited:
		d.pause(ctx, j, domain.TargetPaused{
			Handle: target, Cause: domain.PausedByLimit, Until: v.RetryAt.UTC(), Status: a.Status, RetryAfter: retryAfter,
			Reason: fmt.Sprintf("the platform answered %d and asked to wait until %s", a.Status, v.RetryAt.UTC().Format(time.RFC3339)),
		})
	case !failed && v.Limit.Known && v.Limit.Remaining == 0 && v.Limit.Reset.Sub(d.Now()) >= shortestQuota:
		d.pause(ctx, j, domain.TargetPaused{
			Handle: target, Cause: domain.PausedByLimit, Until: v.Limit.Reset.UTC(), Status: a.Status,
			Reason: fmt.Sprintf("the platform's answer said that its quota is used up until %s", v.Limit.Reset.UTC().Format(time.RFC3339)),
		})
	case failed && (a.Probe || failures >= breaker.Failures):
		var heldSince time.Time
		if a.Probe {
			heldSince = j.work.HeldSince
		} else {
			pauses = 0
		}
		pause := breaker.PauseFor(pauses + 1)
		reason := fmt.Sprintf("%d attempts in a row failed, the last with: %s", failures, v.Reason)
		if a.Probe {
			reason = "the probe failed: " + v.Reason
		}
		d.pause(ctx, j, domain.TargetPaused{
			Handle: target, Cause: domain.PausedByFailures, Until: d.Now().Add(pause).UTC().Truncate(time.Microsecond), Status: a.Status, Failures: failures, Pauses: pauses + 1, HeldSince: heldSince.UTC(), Reason: reason,
		})
	case !failed && (a.Probe || j.work.Cause == domain.PausedByLimit) && d.lanes.resume(target, j.claimed, d.Now()):
		reason := fmt.Sprintf("the time that the platform asked for is over; it answered %d", a.Status)
		if a.Probe {
			reason = fmt.Sprintf("a probe was answered with %d", a.Status)
		}
		d.tell(ctx, j, domain.TargetResumed{Handle: target, Reason: reason})
		d.Log.InfoContext(ctx, "target resumed", slog.String("target", target))
	}
}

// shortestQuota is the shortest wait for a quota that pauses a target. What is shorter is over by the time that it is
// recorded; the target's rate sees to it.
const shortestQuota = time.Second

// failures counts an attempt for its target's breaker, and gives the failures in a row. Successes write nothing, unless
// there were failures before.
func (d *Dispatcher) failures(ctx context.Context, j job, took time.Duration, failed bool) int {
	target := j.Planned.Target
	failures, ended := d.lanes.took(target, took, failed)
	var err error
	switch {
	case failed:
		var counted int
		if counted, err = queue.Failed(ctx, d.DB, target); err == nil {
			failures = counted
		}
	case ended, j.work.Failures > 0:
		err = queue.Recovered(ctx, d.DB, target)
	}
	if err != nil {
		d.Log.WarnContext(ctx, "an attempt is counted by this process alone", slog.String("target", target), slog.Any("error", err))
	}
	return failures
}

func (d *Dispatcher) pause(ctx context.Context, j job, p domain.TargetPaused) {
	if !d.lanes.pause(p.Handle, j.claimed, d.Now()) {
		return
	}
	d.metrics.pauses.WithLabelValues(p.Cause).Inc()
	d.Log.WarnContext(ctx, "target paused; its deliveries are held", slog.String("target", p.Handle), slog.String("cause", p.Cause), slog.Time("until", p.Until), slog.String("reason", p.Reason))
	d.tell(ctx, j, p)
	if err := queue.Recovered(ctx, d.DB, p.Handle); err != nil { // counted anew, once it is tried again
		d.Log.WarnContext(ctx, "the failures that led to a pause still count", slog.String("target", p.Handle), slog.Any("error", err))
	}
}

// tell records something about the target that an attempt led to.
func (d *Dispatcher) tell(ctx context.Context, j job, payload domain.Payload) {
	e, _, err := domain.New(uuid.New(), payload)
	if err == nil {
		e.Actor, e.Source, e.CausationID = d.Worker, source, j.Planned.ID
		_, err = d.Ledger.Append(ctx, e)
	}
	if err != nil {
		d.Log.WarnContext(ctx, "cannot record a pause or its end; the next attempt tries again", slog.String("target", e.Target), slog.Any("error", err))
	}
}
