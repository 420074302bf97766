package domain

import (
	"fmt"
	"slices"
	"strconv"
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

// ConsentChanged records that a person decided, or that somebody decided for them.
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
func ProfileStream(profile uuid.UUID) string { return "profile-" + profile.String() }

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
		return Invalid("/decided_by", "is %q; it is one of %v", c.DecidedBy, DecidedBy)
	}
	seen := map[[2]string]bool{}
	for i, ch := range c.Changes {
		at := "/changes/" + strconv.Itoa(i)
		switch {
		case !slices.Contains(Channels, ch.Channel):
			return Invalid(at+"/channel", "is %q; it is one of %v", ch.Channel, Channels)
		case !slices.Contains(Purposes, ch.Purpose):
			return Invalid(at+"/purpose", "is %q; it is one of %v", ch.Purpose, Purposes)
		case ch.Status != OptedIn && ch.Status != OptedOut && ch.Status != Unknown:
			return Invalid(at+"/status", "is %q; it is one of opted_in, opted_out, unknown", ch.Status)
		case seen[[2]string{string(ch.Channel), string(ch.Purpose)}]:
			return Invalid(at, "answers %s/%s a second time", ch.Channel, ch.Purpose)
		}
		seen[[2]string{string(ch.Channel), string(ch.Purpose)}] = true
	}
	return nil
}

// ConsentMode says what a target does with a no.
type ConsentMode string

// The modes of a consent rule.
const (
	// Enforce withholds what the person did not agree to. The default.
	Enforce ConsentMode = "enforce"
	// Record sends all the same and flags it on the delivery.
	Record ConsentMode = "record"
)

// ConsentRule is what a target asks of a person's consent.
type ConsentRule struct {
	Channel Channel     `json:"channel" yaml:"channel"`
	Purpose Purpose     `json:"purpose" yaml:"purpose"`
	Mode    ConsentMode `json:"mode,omitempty" yaml:"mode,omitempty"`
}

func (r ConsentRule) validate() error {
	switch {
	case !slices.Contains(Channels, r.Channel):
		return Invalid("/channel", "is %q; it is one of %v", r.Channel, Channels)
	case r.Purpose == PurposeAll || !slices.Contains(Purposes, r.Purpose):
		return Invalid("/purpose", "is %q; it is one of %v (all is asked in any case)", r.Purpose, Purposes[1:])
	case r.Mode != Enforce && r.Mode != Record:
		return Invalid("/mode", "is %q; it is enforce or record", r.Mode)
	}
	return nil
}

// Answer is the decision that holds for one channel and purpose, and the event that made it.
type Answer struct {
	Status    ConsentStatus `json:"status"`
	DecidedAt time.Time     `json:"decided_at"`
	DecidedBy string        `json:"decided_by,omitempty"`
	Position  int64         `json:"position"` // of the consent.changed event
}

// ConsentView is what is known of one person on one channel at some position of the ledger.
type ConsentView struct {
	Purposes map[Purpose]Answer
	Erased   bool // the person's data was erased
	Bounced  bool // the platform could not deliver to the address
}

// Decision is the result of asking a rule of a view; every delivery carries one.
type Decision struct {
	Decision  string        `json:"decision"` // allowed, withheld, flagged (sent against the answer, mode record) or not_required
	Reason    string        `json:"reason"`   // opted_in, opted_out, opted_out_of_all, never_asked, not_refused, erased, no_profile, bounced, no_rule
	Channel   Channel       `json:"channel,omitempty"`
	Purpose   Purpose       `json:"purpose,omitempty"`
	Status    ConsentStatus `json:"status,omitempty"`
	DecidedAt *time.Time    `json:"decided_at,omitempty"`
	DecidedBy string        `json:"decided_by,omitempty"`
	Position  int64         `json:"position,omitempty"` // of the decisive consent.changed event; 0 when nobody was asked
	AsOf      int64         `json:"as_of"`              // ledger position of the consent state that was asked
}

// The values of Decision.Decision.
const (
	DecisionAllowed     = "allowed"
	DecisionWithheld    = "withheld"
	DecisionFlagged     = "flagged"
	DecisionNotRequired = "not_required"
)

// Explain says in one sentence why a message may or may not go out.
func (d Decision) Explain() string {
	who, when := d.DecidedBy, ""
	if who == "" {
		who = "the person"
	}
	if d.DecidedAt != nil {
		when = " at " + d.DecidedAt.UTC().Format(time.RFC3339)
	}
	event := ""
	if d.Position > 0 {
		event = fmt.Sprintf(" (event %d)", d.Position)
	}
	switch d.Reason {
	case "opted_in":
		return fmt.Sprintf("%s opted in to %s/%s%s%s", who, d.Channel, d.Purpose, when, event)
	case "opted_out":
		return fmt.Sprintf("%s opted out of %s/%s%s%s", who, d.Channel, d.Purpose, when, event)
	case "opted_out_of_all":
		return fmt.Sprintf("%s opted out of everything on %s%s%s", who, d.Channel, when, event)
	case "never_asked":
		return fmt.Sprintf("nobody ever agreed to %s/%s, and not having been asked is not consent", d.Channel, d.Purpose)
	case "not_refused":
		return fmt.Sprintf("%s/%s is not promotional and was not refused", d.Channel, d.Purpose)
	case "erased":
		return "the person's data was erased"
	case "bounced":
		return fmt.Sprintf("the %s address bounced", d.Channel)
	case "no_profile":
		return "the firing names no person, so there is no consent to go by"
	}
	return "the target has no consent rule"
}

// Decide asks a target's rule of what is known about a person. profile is false when the firing names nobody.
func (r *ConsentRule) Decide(profile bool, view ConsentView, asOf int64) Decision {
	if view.Erased {
		return Decision{Decision: DecisionWithheld, Reason: "erased", AsOf: asOf}
	}
	if r == nil {
		return Decision{Decision: DecisionNotRequired, Reason: "no_rule", AsOf: asOf}
	}
	d := Decision{Channel: r.Channel, Purpose: r.Purpose, Status: Unknown, AsOf: asOf}
	cite := func(a Answer) {
		d.Status, d.DecidedBy, d.Position = a.Status, a.DecidedBy, a.Position
		at := a.DecidedAt.UTC()
		d.DecidedAt = &at
	}
	answer, asked := view.Purposes[r.Purpose]
	global := view.Purposes[PurposeAll]
	allowed := false
	switch {
	case !profile:
		d.Reason = "no_profile"
	case global.Status == OptedOut:
		d.Reason = "opted_out_of_all"
		cite(global)
	case asked && answer.Status == OptedOut:
		d.Reason = "opted_out"
		cite(answer)
	case view.Bounced:
		d.Reason = "bounced"
	case asked && answer.Status == OptedIn:
		d.Reason, allowed = "opted_in", true
		cite(answer)
	case r.Purpose.Promotional():
		d.Reason = "never_asked"
		if asked {
			cite(answer)
		}
	default:
		d.Reason, allowed = "not_refused", true
	}
	switch {
	case allowed:
		d.Decision = DecisionAllowed
	case r.Mode == Record:
		d.Decision = DecisionFlagged
	default:
		d.Decision = DecisionWithheld
	}
	return d
}

// Supersedes reports whether decision a replaces decision b: the later one by the time it was decided; at equal
// times the opt-out; then the one recorded later. projections/consent says the same in SQL.
func (a Answer) Supersedes(b Answer) bool {
	if !a.DecidedAt.Equal(b.DecidedAt) {
		return a.DecidedAt.After(b.DecidedAt)
	}
	if (a.Status == OptedOut) != (b.Status == OptedOut) {
		return a.Status == OptedOut
	}
	return a.Position > b.Position
}
