package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// sweptAtOnce bounds what one sweep records; the next one goes on.
const sweptAtOnce = 1000

// sweep records the attempts whose workers died and the deliveries whose time has passed, and drops the leases that nobody
// needs any more.
func (d *Dispatcher) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := d.sweepOnce(ctx); err != nil && ctx.Err() == nil {
			d.Log.WarnContext(ctx, "sweeping failed; trying again", slog.Any("error", err))
		}
	}
}

func (d *Dispatcher) sweepOnce(ctx context.Context) error {
	return errors.Join(d.sweepLost(ctx), d.sweepOverdue(ctx), d.sweepHeld(ctx), queue.Sweep(ctx, d.DB))
}

func (d *Dispatcher) sweepLost(ctx context.Context) error {
	lost, err := queue.Expired(ctx, d.DB, sweptAtOnce)
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range lost {
		t, err := d.version(ctx, l.Target, l.TargetVersion)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		payload := domain.DeliveryAttemptLost{
			DeliveryID: l.DeliveryID, Target: l.Target, ProfileID: l.ProfileID, Attempt: l.Attempt, Worker: l.Worker, ClaimedAt: l.ClaimedAt,
		}
		payload.Outcome, payload.NextAttemptAt = d.next(ctx, t.Target, domain.Failure{Attempt: l.Attempt - l.Base, Verdict: domain.Lost})
		recorded, err := d.conclude(ctx, l.DeliveryID, l.Attempt, l.CorrelationID, l.PlannedID, payload)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if recorded {
			d.metrics.lost.Inc()
			d.Log.WarnContext(ctx, "attempt lost: its worker died, its outcome is unknown", slog.String("delivery", l.DeliveryID.String()), slog.Int("attempt", l.Attempt), slog.String("worker", l.Worker))
		}
	}
	return errors.Join(errs...)
}

func (d *Dispatcher) sweepOverdue(ctx context.Context) error {
	overdue, err := queue.Overdues(ctx, d.DB, sweptAtOnce)
	if err != nil {
		return err
	}
	var errs []error
	for _, o := range overdue {
		recorded, err := d.conclude(ctx, o.DeliveryID, o.Attempt, o.CorrelationID, o.PlannedID, domain.DeliveryExpired{
			DeliveryID: o.DeliveryID, Target: o.Target, ProfileID: o.ProfileID, Attempt: o.Attempt, ExpiresAt: o.ExpiresAt.UTC(),
		})
		if err != nil {
			errs = append(errs, err)
		} else if recorded {
			d.metrics.expired.Inc()
		}
	}
	return errors.Join(errs...)
}

// sweepHeld cancels what was held for longer than its target's policy holds it.
func (d *Dispatcher) sweepHeld(ctx context.Context) error {
	paused, err := queue.Pauses(ctx, d.DB)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range paused {
		t, err := targets.Get(ctx, d.DB, p.Target)
		if err != nil || t.Breaker.DiscardAfter == 0 {
			errs = append(errs, err)
			continue
		}
		held, err := queue.Held(ctx, d.DB, p.Target, time.Duration(t.Breaker.DiscardAfter), sweptAtOnce)
		errs = append(errs, err)
		for _, h := range held {
			_, err := d.conclude(ctx, h.DeliveryID, h.Attempt, h.CorrelationID, h.PlannedID, domain.DeliveryCancelled{
				DeliveryID: h.DeliveryID, Target: h.Target, ProfileID: h.ProfileID,
				Reason: fmt.Sprintf("held for more than %s while its target was paused: %s", t.Breaker.DiscardAfter, p.Reason),
			})
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// conclude records the event that ends an attempt on behalf of a worker that does not. It reports false when somebody else
// recorded how the attempt ended at this moment.
func (d *Dispatcher) conclude(ctx context.Context, delivery uuid.UUID, attempt int, correlation, planned uuid.UUID, payload domain.Payload) (recorded bool, err error) {
	e, _, err := domain.New(attemptID(delivery, attempt), payload)
	if err != nil {
		return false, err
	}
	e.Actor, e.Source, e.CorrelationID, e.CausationID = d.Worker, source, correlation, planned
	at, err := d.Ledger.Append(ctx, e)
	if errors.Is(err, schema.ErrIDReused) {
		return false, nil
	}
	return err == nil && !at[0].Duplicate, err
}
