package domain

import (
	"time"

	"github.com/google/uuid"
)

// DeliveryRequeued records that a delivery which had ended is tried again, with the request that was planned, and what has
// changed since it was.
type DeliveryRequeued struct {
	DeliveryID     uuid.UUID `json:"delivery_id"`
	Target         string    `json:"target"`
	ProfileID      uuid.UUID `json:"profile_id,omitzero"`
	Planned        int64     `json:"planned" doc:"position of the delivery.planned event, which holds the request"`
	Attempt        int       `json:"attempt" doc:"number of the next attempt; the target's retries are counted from it"`
	DueAt          time.Time `json:"due_at" doc:"not sent before"`
	Was            Outcome   `json:"was" doc:"what the delivery was before"`
	PlannedVersion int64     `json:"planned_version" doc:"the target's version that the request was rendered with"`
	CurrentVersion int64     `json:"current_version" doc:"the target's version now; the request is not rendered again"`
	ConsentThen    Decision  `json:"consent_then" doc:"what the consent rule answered when it was planned"`
	ConsentNow     Decision  `json:"consent_now" doc:"what it answers now; it is asked again before the request leaves"`
	Priority       string    `json:"priority,omitempty"`
	Ordered        bool      `json:"ordered,omitempty"`
	ExpiresAt      time.Time `json:"expires_at,omitzero" doc:"the firing's own, where it still lies ahead"`
	Reason         string    `json:"reason,omitempty" doc:"why, in words"`
	Replay         uuid.UUID `json:"replay,omitzero" doc:"the replay that it is part of"`
}

// DeliveryCancelled records that somebody stopped a delivery that was still to be sent.
type DeliveryCancelled struct {
	DeliveryID uuid.UUID `json:"delivery_id"`
	Target     string    `json:"target"`
	ProfileID  uuid.UUID `json:"profile_id,omitzero"`
	Reason     string    `json:"reason,omitempty" doc:"why, in words"`
}

// DeliveryExpired records that a delivery was not sent, or not again, because its time had passed.
type DeliveryExpired struct {
	DeliveryID uuid.UUID `json:"delivery_id"`
	Target     string    `json:"target"`
	ProfileID  uuid.UUID `json:"profile_id,omitzero"`
	Attempt    int       `json:"attempt" doc:"the attempt that it kept from being made"`
	ExpiresAt  time.Time `json:"expires_at"`
}

// DeliveryDeferred records that an attempt was put off, without being made.
type DeliveryDeferred struct {
	DeliveryID uuid.UUID `json:"delivery_id"`
	Target     string    `json:"target"`
	ProfileID  uuid.UUID `json:"profile_id,omitzero"`
	Attempt    int       `json:"attempt" doc:"number of the next attempt; the one before it was not made"`
	Base       int       `json:"base" doc:"what the target's retries are counted from: the numbers up to it do not count"`
	DueAt      time.Time `json:"due_at" doc:"not sent before"`
	Reason     string    `json:"reason" doc:"quiet_hours"`
}

// DeferredByQuietHours is a delivery that was due in the quiet hours of the person's own zone.
const DeferredByQuietHours = "quiet_hours"

var (
	_ = declare("delivery.requeued", 1, FromLedger, "Somebody had a delivery tried again that had ended.",
		DeliveryRequeued{
			DeliveryID: exampleDelivery, Target: exampleFiring.Target, ProfileID: exampleFiring.ProfileID, Planned: 42, Attempt: 9, DueAt: exampleTime, Was: Failed,
			PlannedVersion: 3, CurrentVersion: 4, ConsentThen: Decision{Decision: DecisionAllowed, Reason: "opted_in", AsOf: 41}, ConsentNow: Decision{Decision: DecisionAllowed, Reason: "opted_in", AsOf: 97},
		})
	_ = declare("delivery.cancelled", 1, FromLedger, "Somebody stopped a delivery that was still to be sent.",
		DeliveryCancelled{DeliveryID: exampleDelivery, Target: exampleFiring.Target, ProfileID: exampleFiring.ProfileID, Reason: "the offer was withdrawn"})
	_ = declare("delivery.expired", 1, FromLedger, "A delivery's time passed before it could be sent.",
		DeliveryExpired{DeliveryID: exampleDelivery, Target: exampleFiring.Target, ProfileID: exampleFiring.ProfileID, Attempt: 2, ExpiresAt: exampleTime})
)

var _ = declare("delivery.deferred", 1, FromLedger, "An attempt was due in quiet hours, and waits for their end.",
	DeliveryDeferred{DeliveryID: exampleDelivery, Target: exampleFiring.Target, ProfileID: exampleFiring.ProfileID, Attempt: 2, Base: 1, DueAt: exampleTime, Reason: DeferredByQuietHours})

// Stream is the delivery's.
func (d DeliveryDeferred) Stream() string { return DeliveryStream(d.DeliveryID) }

// Keys selects by person, target and delivery.
func (d DeliveryDeferred) Keys() Keys {
	return Keys{Subject: d.ProfileID, Target: d.Target, DeliveryID: d.DeliveryID, State: string(Retrying)}
}

// Validate accepts what the dispatcher made.
func (d DeliveryDeferred) Validate() error { return requireDelivery(d.DeliveryID) }

// Stream is the delivery's.
func (d DeliveryRequeued) Stream() string { return DeliveryStream(d.DeliveryID) }

// Keys selects by person, target and delivery.
func (d DeliveryRequeued) Keys() Keys {
	return Keys{Subject: d.ProfileID, Target: d.Target, DeliveryID: d.DeliveryID, State: string(Pending)}
}

// Validate accepts what the dispatcher made.
func (d DeliveryRequeued) Validate() error { return requireDelivery(d.DeliveryID) }

// Stream is the delivery's.
func (d DeliveryCancelled) Stream() string { return DeliveryStream(d.DeliveryID) }

// Keys selects by person, target and delivery.
func (d DeliveryCancelled) Keys() Keys {
	return Keys{Subject: d.ProfileID, Target: d.Target, DeliveryID: d.DeliveryID, State: string(Cancelled)}
}

// Validate accepts what the dispatcher made.
func (d DeliveryCancelled) Validate() error { return requireDelivery(d.DeliveryID) }

// Stream is the delivery's.
func (d DeliveryExpired) Stream() string { return DeliveryStream(d.DeliveryID) }

// Keys selects by person, target and delivery.
func (d DeliveryExpired) Keys() Keys {
	return Keys{Subject: d.ProfileID, Target: d.Target, DeliveryID: d.DeliveryID, State: string(Expired)}
}

// Validate accepts what the dispatcher made.
func (d DeliveryExpired) Validate() error { return requireDelivery(d.DeliveryID) }
