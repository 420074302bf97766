package dispatcher

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/outbound"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Adopt records what came of an attempt whose claimer is gone. What is recorded already is left as it is, so it may be
// called again; an attempt that was recorded as lost meanwhile gets what really came of it besides.
//
// Errors: schema.ErrNotFound, when there is no such delivery; any that is schema.Transient.
func (d *Dispatcher) Adopt(ctx context.Context, delivery uuid.UUID, attempt int, o outbound.Outcome) error {
	id := attemptID(delivery, attempt)
	for _, recorded := range []uuid.UUID{id, domain.EventID(id, "late")} {
		e, err := schema.EventByID(ctx, d.DB, recorded)
		if errors.Is(err, schema.ErrNotFound) {
			break
		}
		if err != nil {
			return err
		}
		if e.Type == domain.TypeOf(domain.DeliveryAttempted{}) {
			return nil
		}
	}
	known, err := deliveries.Get(ctx, d.DB, delivery)
	if err != nil {
		return err
	}
	event, err := schema.EventAt(ctx, d.DB, known.Position)
	if err != nil {
		return err
	}
	planned, err := domain.DecodeAs[domain.DeliveryPlanned](event.Data, nil)
	if err != nil {
		return fmt.Errorf("delivery %s: %w", delivery, err)
	}
	t, err := d.version(ctx, planned.Target, planned.TargetVersion)
	if err != nil {
		return err
	}
	base, err := queue.Base(ctx, d.DB, delivery)
	if err != nil {
		return err
	}
	a := domain.DeliveryAttempted{DeliveryID: delivery, Target: planned.Target, ProfileID: planned.ProfileID, Attempt: attempt, Worker: d.Worker}
	o.Fill(&a)
	v := o.Verdict
	a.Verdict, a.Reason, a.RateLimit = v.Kind, v.Reason, quota(v.Limit)
	if a.Outcome = domain.Succeeded; !v.Kind.Settles() {
		a.Outcome, a.NextAttemptAt = d.next(ctx, t.Target, domain.Failure{Attempt: attempt - base, Verdict: v.Kind, Status: a.Status, NotBefore: v.RetryAt})
	}
	if !d.record(ctx, queue.Claim{Attempt: attempt, Planned: event}, a) {
		return fmt.Errorf("delivery %s: attempt %d: %w", delivery, attempt, schema.ErrUnavailable)
	}
	d.metrics.attempts.WithLabelValues(string(v.Kind)).Inc()
	return nil
}
