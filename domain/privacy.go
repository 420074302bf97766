package domain

import "github.com/google/uuid"

// SealedRevealed records that somebody was shown personal data. It is appended before they see it.
type SealedRevealed struct {
	ProfileID  uuid.UUID `json:"profile_id,omitzero" doc:"the person whose data it is, where one is concerned"`
	DeliveryID uuid.UUID `json:"delivery_id,omitzero" doc:"the delivery whose data it is, where one is concerned"`
	What       string    `json:"what" doc:"evidence, event, delivery or access"`
	Reason     string    `json:"reason" doc:"why, in words"`
}

var _ = declare("sealed.revealed", 1, FromLedger, "Somebody was shown sealed data; who, stands as the actor.",
	SealedRevealed{DeliveryID: exampleDelivery, What: "evidence", Reason: "regulator's request 2026-118"})

// Stream is the person's or the delivery's.
func (s SealedRevealed) Stream() string {
	if s.DeliveryID != uuid.Nil {
		return DeliveryStream(s.DeliveryID)
	}
	return ProfileStream(s.ProfileID)
}

// Keys selects by person and delivery.
func (s SealedRevealed) Keys() Keys { return Keys{Subject: s.ProfileID, DeliveryID: s.DeliveryID} }

// Validate reports what is wrong with the payload.
func (s SealedRevealed) Validate() error {
	switch {
	case s.ProfileID == uuid.Nil && s.DeliveryID == uuid.Nil:
		return Invalid("/delivery_id", "is missing, and so is profile_id: say whose data it is")
	case s.Reason == "":
		return Invalid("/reason", "is empty: say why")
	}
	return nil
}
