package domain

import (
	"time"

	"github.com/google/uuid"
)

// ProfileObserved records what the CRM's webhook said of a profile: a snapshot of its communication preferences, and its
// addresses and identities. The decisions that the snapshot contains are consent.changed events of their own; this is what
// the next snapshot is compared with.
type ProfileObserved struct {
	ProfileID      uuid.UUID            `json:"profile_id"`
	Topic          string               `json:"topic" doc:"what the webhook was about: profile.created, profile.updated or profile.deleted"`
	ObservedAt     time.Time            `json:"observed_at" doc:"the snapshot's own time where it has one, else when it arrived"`
	Dated          bool                 `json:"dated" doc:"the snapshot has a time of its own"`
	State          string               `json:"state" doc:"active or deleted"`
	Comms          map[string]string    `json:"comms,omitempty" doc:"attributes.comms by the CRM's canonical field names: yes, no, null, or the text of a verification"`
	ConsentTimes   map[string]time.Time `json:"consent_times,omitempty" doc:"when the customer last decided on marketing, by channel"`
	ContactHashes  []ContactHash        `json:"contact_hashes,omitempty" doc:"keyed hashes of the addresses that the profile has"`
	Cleared        []Channel            `json:"cleared,omitempty" doc:"channels on which the profile has no address any more"`
	IdentityHashes []IdentityHash       `json:"identity_hashes,omitempty" doc:"keyed hashes of the identifiers that the profile has elsewhere"`
	BodySHA256     string               `json:"body_sha256" doc:"hex, of the webhook's raw body"`
	Contact        *Contact             `json:"contact,omitempty" sealed:"true" doc:"the addresses"`
	Identities     map[string]string    `json:"identities,omitempty" sealed:"true" doc:"identifiers by handle, such as klaviyo or loyalty-card"`
}

// IdentityHash stands for a profile's identifier in another system: the keyed hash of handle and identifier.
type IdentityHash struct {
	Handle string `json:"handle"`
	Hash   string `json:"hash"` // hex, HMAC-SHA256 under the ledger's contact key
}

// The states of a profile in the CRM.
const (
	ProfileActive  = "active"
	ProfileDeleted = "deleted"
)

var _ = declare("profile.observed", 1, FromLedger,
	"The CRM's webhook showed a profile as it is there: preferences, addresses, identities.",
	ProfileObserved{
		ProfileID: uuid.MustParse("8fc344db-713e-4590-ab26-e82d77ba3313"), Topic: "profile.updated", ObservedAt: exampleTime, Dated: true, State: ProfileActive,
		Comms:        map[string]string{"email_promo": "yes", "email_optout": "no", "sms_promo": "null"},
		ConsentTimes: map[string]time.Time{"email": exampleTime},
		BodySHA256:   "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
		Contact:      &Contact{Email: "jane@example.com"}, Identities: map[string]string{"klaviyo": "01H4Q"},
	})

// Stream is the person's.
func (p ProfileObserved) Stream() string { return ProfileStream(p.ProfileID) }

// Keys selects by person and state.
func (p ProfileObserved) Keys() Keys { return Keys{Subject: p.ProfileID, State: p.State} }

// Validate accepts what the intake made.
func (p ProfileObserved) Validate() error {
	if p.ProfileID == uuid.Nil {
		return Invalid("/profile_id", "is missing: give the CRM's id of the person, a UUID")
	}
	return nil
}
