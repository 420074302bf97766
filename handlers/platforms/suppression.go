package platforms

import (
	"context"
	"iter"
	"net/http"
	"slices"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// Address is a normalised contact address: an email trimmed and lower-cased, a phone number in E.164 with its plus.
type Address struct {
	Channel domain.Channel
	Value   string
}

// Scope is what a suppression covers on its platform.
type Scope struct {
	Kind ScopeKind
	ID   string // the list's, group's or business unit's own id; empty for Global
}

// ScopeKind is the kind of thing that a suppression covers.
type ScopeKind string

// The scopes.
const (
	Global       ScopeKind = "global"
	List         ScopeKind = "list"
	Group        ScopeKind = "group"         // a subscription group
	BusinessUnit ScopeKind = "business_unit" // one of an enterprise's accounts
)

// State is what a platform says about sending to an address.
type State string

// The states.
const (
	Suppressed State = "suppressed" // it will not send
	Cleared    State = "cleared"    // it will, and says so: a suppression was lifted, or consent is on record
	Pending    State = "pending"    // the person was asked to confirm and has not
	NoConsent  State = "no_consent" // never asked, or never answered
)

// Reason is why an address is suppressed, in the words common to all platforms. Its [Reason.Class] decides the effect.
type Reason string

// The reasons. Text that a platform invents later maps to [Unknown]; it still suppresses, and is kept verbatim.
const (
	Unsubscribed   Reason = "unsubscribed"
	Complaint      Reason = "complaint"
	Legal          Reason = "legal"
	HardBounce     Reason = "hard_bounce"
	SoftBounce     Reason = "soft_bounce"
	Held           Reason = "held"
	InvalidAddress Reason = "invalid_address"
	Blocked        Reason = "blocked"
	Manual         Reason = "manual"
	Deleted        Reason = "deleted"
	PendingOptIn   Reason = "pending_opt_in"
	NeverAsked     Reason = "no_consent"
	Resubscribed   Reason = "resubscribed"
	Unknown        Reason = "unknown"
)

// Class is what a reason is evidence of.
type Class string

// The classes of reason.
const (
	ConsentClass        Class = "consent"        // the person said no: consent is withdrawn
	DeliverabilityClass Class = "deliverability" // the address does not work: sends stop, consent stands
	OperatorClass       Class = "operator"       // we, or the merchant, did it
	StateClass          Class = "state"          // a state and no suppression
)

// Class says what the reason is evidence of.
func (r Reason) Class() Class {
	switch r {
	case Unsubscribed, Complaint, Legal:
		return ConsentClass
	case Manual, Deleted:
		return OperatorClass
	case PendingOptIn, NeverAsked, Resubscribed:
		return StateClass
	case HardBounce, SoftBounce, Held, InvalidAddress, Blocked, Unknown:
		return DeliverabilityClass
	default:
		return DeliverabilityClass
	}
}

// Precision says how much of a platform's time can be believed.
type Precision string

// The precisions.
const (
	Exact       Precision = "exact"       // with fractions of a second
	Second      Precision = "second"      // whole seconds
	Day         Precision = "day"         // a date
	UnknownTime Precision = "unknown"     // no time given: At is zero
	UpperBound  Precision = "upper_bound" // at the latest: the row's own update time
)

// Fact is one reason for a state, as the platform gave it.
type Fact struct {
	Reason    Reason
	Native    string // the platform's own text, verbatim
	At        time.Time
	Precision Precision
}

// Record is what a platform says about one address in one scope.
type Record struct {
	Addr            Address
	NativeKey       string // profile, subscriber or contact id there
	State           State
	Facts           []Fact // several can hold at once
	Scope           Scope
	ObservedAt      time.Time // our clock, when it was read
	DeliveryID      string    // the delivery that it answers, where the platform says
	EventKey        string    // Inbound only: the platform's own key for the notification, to recognise a repeat
	Unauthenticated bool      // Inbound only: nothing proves the sender; it may suppress and may not clear
}

// Cursor is a place in a platform's list, opaque to everybody but the client that made it.
type Cursor string

// Query asks for part of a platform's list.
type Query struct {
	Channel domain.Channel
	Since   time.Time // changes from here on; the client widens it to what the platform can express
	Cursor  Cursor    // continue here; empty: from the start
	Full    bool      // everything, whatever its date; Since is ignored
}

// Page is a part of a list. A page and its Next are meant to be committed together: a reader that dies after it
// continues at Next and neither skips nor repeats.
type Page struct {
	Records  []Record
	Next     Cursor
	Done     bool // nothing follows
	Complete bool // an address that is on none of the pages is not suppressed; false: absence proves nothing
}

// Source reads a platform's suppression list, page by page. Iteration stops after the first error, which wraps
// [ErrThrottled], [ErrCredential] or [ErrUnavailable] where one of them applies.
type Source interface {
	Suppressions(ctx context.Context, q Query) iter.Seq2[Page, error]
}

// Change is one suppression, or its lifting, that we want a platform to have.
type Change struct {
	Key       string // ours, to find the outcome again
	Addr      Address
	NativeKey string // the platform's id for the person, when known
	Reason    Reason
	Scope     Scope
	At        time.Time         // when the person decided
	Evidence  map[string]string // Resubscribe only: why we may; never empty there
}

// JobID names a piece of work that a platform does later.
type JobID string

// Receipt is what a platform answered to a batch of changes.
type Receipt struct {
	Outcomes []Outcome // one per change, in the order given
	Job      JobID     // set: Pending outcomes are settled by this job
}

// Outcome is what became of one change.
type Outcome struct {
	Key    string
	Status Status
	Native string // the platform's own words
}

// Status is what became of one change.
type Status string

// The statuses.
const (
	Applied      Status = "applied"    // done, and the platform said so
	Unchanged    Status = "unchanged"  // it was so already
	Acknowledged Status = "accepted"   // taken, without a way to learn more than by reading back
	InProgress   Status = "pending"    // the receipt's job will tell
	Challenged   Status = "challenged" // the platform asked the person to confirm first
	NotFound     Status = "not_found"  // it does not know the person, and did not suppress
	Declined     Status = "refused"    // it will not do it
	Failed       Status = "failed"     // it could not; trying again may help
)

// Sink adds to a platform's suppression list. It returns an error only when nothing is known of the whole batch;
// otherwise every change has its outcome. Suppressing twice is the same as once.
type Sink interface {
	Suppress(ctx context.Context, batch []Change) (Receipt, error)
}

// Resubscriber lifts suppressions. It refuses a change without evidence with [ErrNoEvidence]: on most platforms a
// resubscribe destroys the record of the opt-out.
type Resubscriber interface {
	Resubscribe(ctx context.Context, batch []Change) (Receipt, error)
}

// JobPoller asks after work that a [Receipt] left in progress.
type JobPoller interface {
	Job(ctx context.Context, id JobID) (JobReport, error)
}

// JobReport is how far a job has come. Most platforms count and do not name: what became of one change is then
// learnt by reading back.
type JobReport struct {
	Done      bool
	Failed    bool // Done, and nothing of it was applied
	Native    string
	Total     int
	Completed int
	Skipped   int
	Rejected  map[string]string // address to the platform's words, where it names what it did not take
}

// Inbound decodes a webhook that a platform sent. It verifies the raw bytes before it reads them and returns
// [ErrSignature] when they do not verify. Records from a sender that cannot sign are marked Unauthenticated.
type Inbound interface {
	Decode(h http.Header, body []byte) ([]Record, error)
}

// Describer says what a platform can do.
type Describer interface{ Caps() Caps }

// Caps is what a platform can and cannot do.
type Caps struct {
	Channels     []domain.Channel            // that it sends on
	Writes       []domain.Channel            // whose suppressions can be written
	Dedupe       Dedupe                      // what it does with a repeated key
	ReadReasons  map[domain.Channel][]Reason // reasons its list can show, per channel; an absent channel cannot be read
	SinceStep    time.Duration               // coarseness of "since": a day for some
	SeesClears   bool                        // an incremental read shows lifted suppressions too
	ShowsAll     bool                        // a full read shows those who are not suppressed too
	RepeatsShow  bool                        // an opt-out of somebody who is opted out already shows with its own time
	WriteMax     int                         // changes in one call
	CarriesDate  bool                        // a write can state our opt-out date
	NeedsScopeID map[domain.Channel]bool     // writing needs a list or group id
	VerifyAfter  time.Duration               // reading back sooner than this proves nothing
	Challenges   map[domain.Channel]bool     // lifting asks the person to confirm first, and may never happen
	Slides       bool                        // its list moves while it is read: who is on no page may have slid past them
	Closed       string                      // the day on which its vendor closed it, as 2025-12-31; empty: it is there
	Cannot       []string                    // what is missing, each a sentence for the operator
}

// Lists reports whether the platform's list of a channel shows opt-outs.
func (c Caps) Lists(channel domain.Channel) bool {
	return slices.Contains(c.ReadReasons[channel], Unsubscribed)
}
