package domain

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Channel is a way of reaching a person.
type Channel string

// The channels that the CRM holds preferences for.
const (
	Email Channel = "email"
	SMS   Channel = "sms"
	Push  Channel = "push"
	Phone Channel = "phone"
	Post  Channel = "post"
)

// Channels lists every channel in the order that the CRM shows them.
var Channels = []Channel{Email, SMS, Push, Phone, Post}

// Purpose is what a message is for. PurposeAll is the global opt-out of a channel; Promo is marketing; the rest
// are the CRM's categories.
type Purpose string

// The purposes that a person decides on.
const (
	PurposeAll Purpose = "all"
	Promo      Purpose = "promo"
	Discover   Purpose = "discover"
	Benefits   Purpose = "benefits"
	Reminders  Purpose = "reminders"
	Account    Purpose = "account"
	Bookings   Purpose = "bookings"
	Feedback   Purpose = "feedback"
	Location   Purpose = "location"
	Service    Purpose = "service"
)

// Purposes lists every purpose, the global one first.
var Purposes = []Purpose{PurposeAll, Promo, Discover, Benefits, Reminders, Account, Bookings, Feedback, Location, Service}

// Promotional reports whether sending for the purpose needs a yes: never having been asked is not consent to
// marketing. The other purposes serve something that the customer has or booked; they go out unless refused.
func (p Purpose) Promotional() bool {
	switch p {
	case Promo, Discover, Benefits, Feedback, Location:
		return true
	case PurposeAll, Reminders, Account, Bookings, Service:
		return false
	}
	return true
}

// ConsentStatus is a person's answer. The zero value is Unknown: never asked.
type ConsentStatus string

// The three answers. Unknown is neither of the others.
const (
	OptedIn  ConsentStatus = "opted_in"
	OptedOut ConsentStatus = "opted_out"
	Unknown  ConsentStatus = "unknown"
)

// ConsentChange is one answer inside a consent.changed event.
type ConsentChange struct {
	Channel Channel       `json:"channel"`
	Purpose Purpose       `json:"purpose"`
	Status  ConsentStatus `json:"status"`
}

// ContactHash stands for a contact address in what is kept for ever: the keyed hash of the normalised address.
type ContactHash struct {
	Channel Channel `json:"channel"`
	Hash    string  `json:"hash"` // hex, HMAC-SHA256 under the ledger's contact key
}

// Contact is a person's addresses as a producer gives them.
type Contact struct {
	Email  string `json:"email,omitempty"`
	Mobile string `json:"mobile,omitempty"` // E.164, or a national number that the producer already prefixed
}

// ConsentChanged records that a person decided, or that somebody decided for them. Its event's OccurredAt is DecidedAt,
// which is what decisions are ordered by.
type ConsentChanged struct {
	ProfileID     uuid.UUID         `json:"profile_id" doc:"the person, by the CRM's id"`
	Changes       []ConsentChange   `json:"changes" doc:"one to 60 answers, each for a channel and purpose"`
	DecidedAt     time.Time         `json:"decided_at" doc:"when the person decided, which is not when we heard of it"`
	DecidedBy     string            `json:"decided_by" doc:"customer, staff, admin, import or platform"`
	Method        string            `json:"method,omitempty" doc:"how: preference_centre, pos, sms_keyword, …"`
	Note          string            `json:"note,omitempty" sealed:"true" doc:"why, in words"`
	ContactHashes []ContactHash     `json:"contact_hashes,omitempty" doc:"keyed hashes of the addresses concerned; filled in by the ledger"`
	Contact       *Contact          `json:"contact,omitempty" sealed:"true" doc:"the addresses concerned"`
	Evidence      map[string]string `json:"evidence,omitempty" sealed:"true" doc:"what proves it: ip, user_agent, form_version, wording, …"`
}

// DecidedBy lists who may have decided.
var DecidedBy = []string{"customer", "staff", "admin", "import", "platform"}

var _ = declare("consent.changed", 1, FromOutside,
	"A person answered, for one or more channels and purposes; or staff, an import or a platform reported their answer.",
	ConsentChanged{
		ProfileID: uuid.MustParse("8fc344db-713e-4590-ab26-e82d77ba3313"),
		Changes:   []ConsentChange{{Email, Promo, OptedOut}},
		DecidedAt: time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC), DecidedBy: "customer", Method: "preference_centre",
		Contact:  &Contact{Email: "jane@example.com"},
		Evidence: map[string]string{"ip": "203.0.113.9", "form_version": "7"},
	})

// Stream is the person's.
func (c ConsentChanged) Stream() string { return ProfileStream(c.ProfileID) }

// ProfileStream names the stream of everything decided about a person.
func ProfileStream(profile uuid.UUID) string { return profileStreams + profile.String() }

const profileStreams = "profile-"

// ProfileOfStream reads whose stream one is; false when it is no person's.
func ProfileOfStream(stream string) (uuid.UUID, bool) {
	id, ok := strings.CutPrefix(stream, profileStreams)
	profile, err := uuid.Parse(id)
	return profile, ok && err == nil
}

// Keys are set to the one answer; an event with several leaves them to its JSON.
func (c ConsentChanged) Keys() Keys {
	k := Keys{Subject: c.ProfileID}
	if len(c.Changes) == 1 {
		ch := c.Changes[0]
		k.Channel, k.Purpose, k.State = string(ch.Channel), string(ch.Purpose), string(ch.Status)
	}
	return k
}

// maxChanges bounds one event: every channel and purpose, with room.
const maxChanges = 60

// Validate reports what is wrong with the payload.
func (c ConsentChanged) Validate() error {
	switch {
	case c.ProfileID == uuid.Nil:
		return Invalid("/profile_id", "is missing: give the CRM's id of the person, a UUID")
	case len(c.Changes) == 0:
		return Invalid("/changes", "is empty: give at least one channel, purpose and status")
	case len(c.Changes) > maxChanges:
		return Invalid("/changes", "holds %d answers, more than %d", len(c.Changes), maxChanges)
	case c.DecidedAt.IsZero():
		return Invalid("/decided_at", "is missing: give the time of the decision, RFC 3339")
	case !slices.Contains(DecidedBy, c.DecidedBy):
		return Invalid("/decided_by", "is none of %v", DecidedBy)
	}
	seen := map[[2]string]bool{}
	for i, ch := range c.Changes {
		at := "/changes/" + strconv.Itoa(i)
		switch {
		case !slices.Contains(Channels, ch.Channel):
			return Invalid(at+"/channel", "is none of %v", Channels)
		case !slices.Contains(Purposes, ch.Purpose):
			return Invalid(at+"/purpose", "is none of %v", Purposes)
		case ch.Status != OptedIn && ch.Status != OptedOut && ch.Status != Unknown:
			return Invalid(at+"/status", "is none of opted_in, opted_out and unknown")
		case seen[[2]string{string(ch.Channel), string(ch.Purpose)}]:
			return Invalid(at, "answers %s/%s a second time", ch.Channel, ch.Purpose)
		}
		seen[[2]string{string(ch.Channel), string(ch.Purpose)}] = true
	}
	return nil
}

// Answer is a decision on one channel and purpose, and the event that recorded it.
type Answer struct {
	Status     ConsentStatus
	DecidedAt  time.Time
	DecidedBy  string
	Method     string
	RecordedAt time.Time
	Actor      string    // who recorded it
	Profile    uuid.UUID // the profile that it was recorded for, which another may have been merged with

	SameAddress string // set where Profile was erased and nothing but this address, by its keyed hash, links it to the person
	Position    int64  // of the consent.changed event
}

// Supersedes reports whether decision a replaces decision b of the same profile: the later one by the time it was
// decided; at equal times the more restrictive. Between two that say the same at the same time, the one recorded later is
// cited. So the answer that holds depends on what was decided and not on the order in which it was heard of.
// projections/consent says the same in SQL.
func (a Answer) Supersedes(b Answer) bool {
	if !a.DecidedAt.Equal(b.DecidedAt) {
		return a.DecidedAt.After(b.DecidedAt)
	}
	if a.Status.restriction() != b.Status.restriction() {
		return a.Status.restriction() > b.Status.restriction()
	}
	return a.Position > b.Position
}

// restriction orders the answers from permission to prohibition.
func (s ConsentStatus) restriction() int {
	switch s {
	case OptedOut:
		return 2
	case Unknown:
		return 1
	case OptedIn:
		return 0
	}
	return 1
}
