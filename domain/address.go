package domain

import (
	"slices"
	"time"

	"github.com/google/uuid"
)

// AddressStatus is what is known of an address: whether it works, which is not whether it may be used.
type AddressStatus string

// The statuses of an address.
const (
	AddressBounced  AddressStatus = "bounced"  // it did not take what was sent to it
	AddressInvalid  AddressStatus = "invalid"  // there is no such address
	AddressVerified AddressStatus = "verified" // the person proved that it is theirs
	AddressWorking  AddressStatus = "working"  // nothing is wrong with it any more
)

// AddressStatuses lists every status.
var AddressStatuses = []AddressStatus{AddressBounced, AddressInvalid, AddressVerified, AddressWorking}

// AddressFact is the last report on an address.
type AddressFact struct {
	Status     AddressStatus `json:"status"`
	ReportedAt time.Time     `json:"reported_at"`
	ReportedBy string        `json:"reported_by"`
	Position   int64         `json:"position"` // of the address.reported event
}

// Blocks reports whether nothing can be delivered there.
func (f AddressFact) Blocks() bool { return f.Status == AddressBounced || f.Status == AddressInvalid }

// answer lets a decision cite the report; the status stays that of the consent.
func (f AddressFact) answer(s ConsentStatus) Answer {
	if s == "" {
		s = Unknown
	}
	return Answer{Status: s, DecidedAt: f.ReportedAt, DecidedBy: f.ReportedBy, Position: f.Position}
}

// AddressReported records that somebody found an address to work or not. It is a fact beside consent and changes none: a
// person whose mail bounced has not opted out, and one whose address works again has not opted in.
//
// It is about the addresses given. Without one it is about the address that the person has at the time.
type AddressReported struct {
	ProfileID     uuid.UUID     `json:"profile_id,omitzero" doc:"the person, by the CRM's id; absent when only the address is known"`
	Channel       Channel       `json:"channel" doc:"email, sms, push, phone or post"`
	Status        AddressStatus `json:"status" doc:"bounced, invalid, verified or working"`
	ReportedAt    time.Time     `json:"reported_at" doc:"when it was found"`
	ReportedBy    string        `json:"reported_by" doc:"who found it: the name of a platform, crm, staff"`
	Method        string        `json:"method,omitempty" doc:"how: hard_bounce, verification_link, …"`
	ContactHashes []ContactHash `json:"contact_hashes,omitempty" doc:"keyed hashes of the addresses concerned; filled in by the ledger"`
	Contact       *Contact      `json:"contact,omitempty" sealed:"true" doc:"the addresses concerned"`
	Detail        string        `json:"detail,omitempty" sealed:"true" doc:"the reporter's own words"`
}

var _ = declare("address.reported", 1, FromOutside,
	"A platform, the CRM or somebody at work found that an address works or does not. It changes nobody's consent.",
	AddressReported{
		ProfileID: uuid.MustParse("8fc344db-713e-4590-ab26-e82d77ba3313"), Channel: Email, Status: AddressBounced,
		ReportedAt: exampleTime, ReportedBy: "klaviyo", Method: "hard_bounce", Contact: &Contact{Email: "jane@example.com"},
	})

// Stream is the person's, or that of the addresses that nobody is known for.
func (a AddressReported) Stream() string {
	if a.ProfileID == uuid.Nil {
		return "addresses"
	}
	return ProfileStream(a.ProfileID)
}

// Keys selects by person, channel and status.
func (a AddressReported) Keys() Keys {
	return Keys{Subject: a.ProfileID, Channel: string(a.Channel), State: string(a.Status)}
}

// Validate reports what is wrong with the payload.
func (a AddressReported) Validate() error {
	switch {
	case !slices.Contains(Channels, a.Channel):
		return Invalid("/channel", "is none of %v", Channels)
	case !slices.Contains(AddressStatuses, a.Status):
		return Invalid("/status", "is none of %v", AddressStatuses)
	case a.ReportedAt.IsZero():
		return Invalid("/reported_at", "is missing: give the time at which it was found, RFC 3339")
	case a.ReportedBy == "" || len(a.ReportedBy) > 64:
		return Invalid("/reported_by", "is empty or longer than 64 bytes: say who found it")
	case len(a.Method) > 64:
		return Invalid("/method", "is longer than 64 bytes")
	case a.ProfileID == uuid.Nil && a.Contact == nil && len(a.ContactHashes) == 0:
		return Invalid("/profile_id", "is missing, and so is contact: say whose address it is, or which")
	}
	return nil
}
