package dispatcher

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Errors of the controls.
var (
	// ErrNothingToSend is a delivery that was withheld or rejected before a request was made out. Fire again instead.
	ErrNothingToSend = fmt.Errorf("%w: no request was made out for this delivery", domain.ErrInvalid)
	// ErrState is a delivery that is not in a state for what was asked.
	ErrState = errors.New("the delivery's state does not allow it")
)

// Controls are what people do to deliveries. Each act is an event that names its actor.
type Controls struct {
	DB     *sql.DB // with the projections on its search path
	Ledger *schema.Ledger
	Vault  *schema.Vault
	Now    func() time.Time
}

// Again asks for a delivery to be tried again.
type Again struct {
	Actor  string
	Reason string
	DueAt  time.Time // zero: at once
	Sent   bool      // even if it succeeded, which may reach the person a second time
	Replay uuid.UUID // of which it is part; zero: none
	DryRun bool      // only say what has changed
}

// Retry puts a delivery that has ended back into the queue, with the request that was planned, and says what has changed
// since. Retries are counted anew, and consent is asked again before the request leaves.
//
// Errors: schema.ErrNotFound; ErrState; ErrNothingToSend; schema.ErrErased; schema.ErrConflict when something happened to
// the delivery at the same moment.
func (c Controls) Retry(ctx context.Context, id uuid.UUID, a Again) (domain.DeliveryRequeued, error) {
	d, version, err := c.load(ctx, id)
	if err != nil {
		return domain.DeliveryRequeued{}, err
	}
	switch {
	case d.BodySHA256 == "":
		return domain.DeliveryRequeued{}, fmt.Errorf("%w; correct what kept it from being sent, then fire again", ErrNothingToSend)
	case !d.Outcome.Final():
		return domain.DeliveryRequeued{}, fmt.Errorf("%w: it is %s, and is tried by itself", ErrState, d.Outcome)
	case d.Outcome == domain.Succeeded && !a.Sent:
		return domain.DeliveryRequeued{}, fmt.Errorf("%w: it succeeded, and sending it again may reach the person twice", ErrState)
	}
	requeued, err := c.changes(ctx, d)
	if err != nil {
		return requeued, err
	}
	if requeued.Attempt, err = deliveries.NextAttempt(ctx, c.DB, id); err != nil {
		return requeued, err
	}
	requeued.Was, requeued.Reason, requeued.Replay = d.Outcome, a.Reason, a.Replay
	requeued.DueAt = a.DueAt.UTC().Truncate(time.Microsecond)
	if a.DueAt.IsZero() {
		requeued.DueAt = c.Now().UTC().Truncate(time.Microsecond)
	}
	if a.DryRun {
		return requeued, nil
	}
	event := domain.EventID(id, fmt.Sprintf("requeued-%d", requeued.Attempt))
	if a.Replay != uuid.Nil {
		event = replayed(id, a.Replay)
	}
	return requeued, c.append(ctx, event, a.Actor, d, version, requeued)
}

// replayed is the id of the event by which a replay puts a delivery back: it does so once.
func replayed(delivery, replay uuid.UUID) uuid.UUID {
	return domain.EventID(delivery, "replay-"+replay.String())
}

// Cancel stops a delivery that is still to be sent. A request that is in flight cannot be called back: if the platform
// takes it, the delivery has succeeded after all.
//
// Errors: schema.ErrNotFound; ErrState; schema.ErrConflict when something happened to the delivery at the same moment.
func (c Controls) Cancel(ctx context.Context, id uuid.UUID, actor, reason string) error {
	d, version, err := c.load(ctx, id)
	if err != nil {
		return err
	}
	if d.Outcome.Final() {
		return fmt.Errorf("%w: it is %s already", ErrState, d.Outcome)
	}
	return c.append(ctx, domain.EventID(id, fmt.Sprintf("cancelled-%d", version)), actor, d, version,
		domain.DeliveryCancelled{DeliveryID: id, Target: d.Firing.Target, ProfileID: d.Firing.ProfileID, Reason: reason})
}

// load reads a delivery and the version of its stream that it shows.
func (c Controls) load(ctx context.Context, id uuid.UUID) (d deliveries.Delivery, version int64, err error) {
	var position int64
	err = c.DB.QueryRowContext(ctx, `SELECT version, position FROM events WHERE stream = $1 ORDER BY version DESC LIMIT 1`, domain.DeliveryStream(id)).Scan(&version, &position)
	if errors.Is(err, sql.ErrNoRows) {
		return d, 0, fmt.Errorf("delivery %s: %w", id, schema.ErrNotFound)
	}
	if err != nil {
		return d, 0, fmt.Errorf("delivery %s: %w", id, err)
	}
	if d, err = deliveries.Get(ctx, c.DB, id); err != nil {
		return d, 0, err
	}
	if d.Changed < position { // it happened this moment; whoever asks again sees it
		return d, 0, fmt.Errorf("delivery %s: %w", id, schema.ErrConflict)
	}
	return d, version, nil
}

// changes compares what a delivery was planned by with what holds now.
func (c Controls) changes(ctx context.Context, d deliveries.Delivery) (domain.DeliveryRequeued, error) {
	r := domain.DeliveryRequeued{
		DeliveryID: d.ID, Target: d.Firing.Target, ProfileID: d.Firing.ProfileID, Planned: d.Position, PlannedVersion: d.Firing.TargetVersion,
	}
	if d.Consent != nil {
		r.ConsentThen = *d.Consent
	}
	planned, err := schema.EventAt(ctx, c.DB, d.Position)
	if err != nil {
		return r, err
	}
	payload, err := domain.DecodeAs[domain.DeliveryPlanned](planned.Data, nil)
	if err != nil {
		return r, err
	}
	r.Priority, r.Ordered = payload.Priority, payload.Ordered
	if payload.ExpiresAt.After(c.Now()) {
		r.ExpiresAt = payload.ExpiresAt
	}
	current, err := targets.Get(ctx, c.DB, d.Firing.Target)
	if err != nil {
		return r, err
	}
	r.CurrentVersion = current.Version
	if current.State == "deleted" {
		return r, fmt.Errorf("%w: its target was withdrawn", ErrState)
	}
	then, err := targets.Version(ctx, c.DB, d.Firing.Target, d.Firing.TargetVersion)
	if err != nil {
		return r, err
	}
	var profiles []uuid.UUID
	if d.Firing.ProfileID != uuid.Nil {
		if _, erased, err := c.Vault.Erasure(ctx, d.Firing.ProfileID); err != nil {
			return r, err
		} else if erased {
			return r, fmt.Errorf("delivery %s: %w", d.ID, schema.ErrErased)
		}
		profiles = append(profiles, d.Firing.ProfileID)
	}
	consents, err := consent.Look(ctx, c.DB, profiles)
	if err != nil {
		return r, err
	}
	r.ConsentNow = then.Consent.Decide(consents.Question(d.Firing.ProfileID, then.Consent, c.Now()))
	return r, nil
}

func (c Controls) append(ctx context.Context, id uuid.UUID, actor string, d deliveries.Delivery, version int64, payload domain.Payload) error {
	e, _, err := domain.New(id, payload)
	if err != nil {
		return err
	}
	e.Actor, e.Source, e.Expected, e.CorrelationID = actor, source, &version, d.Firing.FiringID
	_, err = c.Ledger.Append(ctx, e)
	return err
}
