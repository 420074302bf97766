package domain

import "github.com/google/uuid"

// SealedRevealed records that somebody was shown personal data. It is appended before they see it.
type SealedRevealed struct {
	ProfileID  uuid.UUID `json:"profile_id,omitzero" doc:"the person whose data it is, where one is concerned"`
	DeliveryID uuid.UUID `json:"delivery_id,omitzero" doc:"the delivery whose data it is, where one is concerned"`
	Position   int64     `json:"position,omitempty" doc:"the event whose data it is, where it is one"`
	What       string    `json:"what" doc:"evidence, event, delivery, access or rejected message"`
	Reason     string    `json:"reason" doc:"why, in words"`
}

// RevealedRejected is what was shown where it was a message that is no event: nobody knows whose data it holds.
const RevealedRejected = "rejected message"

var _ = declare("sealed.revealed", 1, FromLedger, "Somebody was shown sealed data; who, stands as the actor.",
	SealedRevealed{DeliveryID: exampleDelivery, What: "evidence", Reason: "regulator's request 2026-118"})

// Stream is the delivery's or the person's, or that of what is about neither.
func (s SealedRevealed) Stream() string {
	switch {
	case s.DeliveryID != uuid.Nil:
		return DeliveryStream(s.DeliveryID)
	case s.ProfileID != uuid.Nil:
		return ProfileStream(s.ProfileID)
	}
	return "revealed"
}

// Keys selects by person and delivery.
func (s SealedRevealed) Keys() Keys { return Keys{Subject: s.ProfileID, DeliveryID: s.DeliveryID} }

// Validate reports what is wrong with the payload.
func (s SealedRevealed) Validate() error {
	switch {
	case s.ProfileID == uuid.Nil && s.DeliveryID == uuid.Nil && s.Position == 0 && s.What != RevealedRejected:
		return Invalid("/delivery_id", "is missing, and so are profile_id and position: say whose data it is")
	case s.Reason == "":
		return Invalid("/reason", "is empty: say why")
	}
	return nil
}

// ProfileErased records that a person's personal data was destroyed. Nothing sealed for them can be read from here on,
// and nothing is sealed for them again; who asked for it stands as the actor.
type ProfileErased struct {
	ProfileID     uuid.UUID     `json:"profile_id"`
	Reason        string        `json:"reason" doc:"why, in words, without personal data"`
	ContactHashes []ContactHash `json:"contact_hashes,omitempty" doc:"keyed hashes of the addresses that the ledger knew of the person, so that their opt-outs are honoured wherever the addresses turn up again"`
}

// RetentionChanged records how long the sealed parts of an event type are kept from here on.
type RetentionChanged struct {
	Type   string `json:"type" doc:"the event type"`
	Days   int    `json:"days,omitempty" doc:"whole days after the day on which they were recorded; absent: for as long as the person is not erased"`
	Reason string `json:"reason" doc:"why, in words"`
}

// RetentionEnded records that the retention of an event type's sealed parts has ended for some days, and that their keys
// were destroyed.
type RetentionEnded struct {
	Type   string `json:"type" doc:"the event type"`
	Before string `json:"before" doc:"the first day, in UTC, that is still kept"`
	Days   int    `json:"days" doc:"how many days' keys were destroyed"`
	Policy int64  `json:"policy" doc:"position of the retention.changed event that asked for it"`
}

// RetentionStream is the stream of an event type's retention.
func RetentionStream(eventType string) string { return "retention-" + eventType }

// retentionMaxDays is a century: what is meant for ever has no days.
const retentionMaxDays = 36_525

var (
	_ = declare("profile.erased", 1, FromLedger, "A person was erased: their key is destroyed, and what was sealed under it cannot be read any more.",
		ProfileErased{
			ProfileID: uuid.MustParse("8fc344db-713e-4590-ab26-e82d77ba3313"), Reason: "asked for on 2026-11-20, ticket 4711",
			ContactHashes: []ContactHash{{Channel: Email, Hash: "5f1d7a84db00d2fce00b31a7fc73224f1d7a84db00d2fce00b31a7fc7322401a"}},
		})
	_ = declare("retention.changed", 1, FromLedger, "It was decided how long the sealed parts of an event type are kept.",
		RetentionChanged{Type: "delivery.planned", Days: 90, Reason: "rendered bodies are needed for complaints, which come within a quarter"})
	_ = declare("retention.ended", 1, FromLedger, "The retention of an event type's sealed parts has ended for some days: their keys are destroyed.",
		RetentionEnded{Type: "delivery.planned", Before: "2026-08-25", Days: 1, Policy: 17})
)

// Stream is the person's.
func (p ProfileErased) Stream() string { return ProfileStream(p.ProfileID) }

// Keys selects by person.
func (p ProfileErased) Keys() Keys { return Keys{Subject: p.ProfileID} }

// Validate reports what is wrong with the payload.
func (p ProfileErased) Validate() error {
	switch {
	case p.ProfileID == uuid.Nil:
		return Invalid("/profile_id", "is missing: give the CRM's id of the person, a UUID")
	case p.Reason == "":
		return Invalid("/reason", "is empty: say why")
	}
	return nil
}

// Stream is the event type's.
func (r RetentionChanged) Stream() string { return RetentionStream(r.Type) }

// Keys has none.
func (r RetentionChanged) Keys() Keys { return Keys{} }

// Validate reports what is wrong with the payload.
func (r RetentionChanged) Validate() error {
	d, err := Declared(r.Type)
	switch {
	case err != nil:
		return Invalid("/type", "is %q, which is no event type", clip(r.Type))
	case d.secret == nil:
		return Invalid("/type", "is %s, which has nothing sealed", r.Type)
	case r.Days < 0 || r.Days > retentionMaxDays:
		return Invalid("/days", "is %d; it is 1 to %d, or absent for no end", r.Days, retentionMaxDays)
	case r.Reason == "":
		return Invalid("/reason", "is empty: say why")
	}
	return nil
}

// Stream is the event type's.
func (r RetentionEnded) Stream() string { return RetentionStream(r.Type) }

// Keys has none.
func (r RetentionEnded) Keys() Keys { return Keys{} }

// Validate accepts what the service made.
func (r RetentionEnded) Validate() error { return nil }
