package domain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

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

// ConsentView is what is known of one person on one channel at some position of the ledger.
type ConsentView struct {
	Purposes map[Purpose]Answer
	Erased   bool        // the person's data was erased
	Deleted  *Answer     // when, by whom and by which event the CRM deleted the profile; nil while it exists
	Address  AddressFact // of the address that the person has now; zero when nobody reported on it
}

// Question is what a consent rule is asked.
type Question struct {
	Profile uuid.UUID   // who is asked about; nil when the firing names nobody
	View    ConsentView // on the rule's channel
	Policy  PolicyInForce
	At      time.Time // by this time the policy's exceptions may have ended
	AsOf    int64     // ledger position of the view
}

// Decision is the result of asking a rule; every delivery carries one.
type Decision struct {
	Decision   string        `json:"decision"` // allowed, withheld, flagged (sent against the answer, mode record) or not_required
	Reason     string        `json:"reason"`   // one of DecisionReasons
	Channel    Channel       `json:"channel,omitempty"`
	Purpose    Purpose       `json:"purpose,omitempty"`
	Status     ConsentStatus `json:"status,omitempty"`
	DecidedAt  *time.Time    `json:"decided_at,omitempty"`
	DecidedBy  string        `json:"decided_by,omitempty"`
	Method     string        `json:"method,omitempty"`
	RecordedAt *time.Time    `json:"recorded_at,omitempty"` // when the ledger heard of it
	Actor      string        `json:"actor,omitempty"`       // who told the ledger
	DecidedAs  uuid.UUID     `json:"decided_as,omitzero"`   // the merged profile that the person decided under, where it is another
	Position   int64         `json:"position,omitempty"`    // of the decisive event; 0 when nobody was asked

	// SameAddress is set where the decision is that of somebody who was erased since: the keyed hash of the address, which the
	// person has now.
	SameAddress string `json:"same_address,omitempty"`

	AsOf   int64      `json:"as_of"`            // ledger position of the state that was asked
	Policy *PolicyRef `json:"policy,omitempty"` // what the ledger said of legacy data
}

// The values of Decision.Decision.
const (
	DecisionAllowed     = "allowed"
	DecisionWithheld    = "withheld"
	DecisionFlagged     = "flagged"
	DecisionNotRequired = "not_required"
)

// The values of Decision.Reason.
const (
	ReasonOptedIn        = "opted_in"
	ReasonOptedOut       = "opted_out"
	ReasonOptedOutOfAll  = "opted_out_of_all"
	ReasonNeverAsked     = "never_asked"
	ReasonNotRefused     = "not_refused"     // not promotional, and nobody refused it
	ReasonLegacyPolicy   = "legacy_policy"   // never asked, and the ledger's policy lets it pass for a while
	ReasonImportedOnly   = "imported_only"   // opted in by an import or an administrator, which the ledger's policy does not accept
	ReasonErased         = "erased"          // the person's data was erased
	ReasonProfileDeleted = "profile_deleted" // the CRM deleted the profile
	ReasonBounced        = "bounced"
	ReasonInvalidAddress = "invalid_address"
	ReasonNoProfile      = "no_profile"
	ReasonNoRule         = "no_rule"
)

// DecisionReasons lists every reason.
var DecisionReasons = []string{
	ReasonOptedIn, ReasonOptedOut, ReasonOptedOutOfAll, ReasonNeverAsked, ReasonNotRefused, ReasonLegacyPolicy, ReasonImportedOnly,
	ReasonErased, ReasonProfileDeleted, ReasonBounced, ReasonInvalidAddress, ReasonNoProfile, ReasonNoRule,
}

// Explain says in one sentence why a message may or may not go out: which decision, when, by whom.
func (d Decision) Explain() string {
	who := d.DecidedBy
	if who == "" {
		who = "the person"
	}
	var when string
	if d.DecidedAt != nil {
		when = " at " + d.DecidedAt.UTC().Format(time.RFC3339)
	}
	if d.Method != "" {
		when += " by " + d.Method
	}
	switch {
	case d.SameAddress != "":
		when += " as profile " + d.DecidedAs.String() + ", which was erased and had the address that the person has now"
	case d.DecidedAs != uuid.Nil:
		when += " as profile " + d.DecidedAs.String() + ", which is merged with this one"
	}
	var source []string
	if d.Position > 0 {
		source = append(source, fmt.Sprintf("event %d", d.Position))
	}
	if d.Actor != "" {
		source = append(source, "recorded by "+d.Actor)
	}
	cited := ""
	if len(source) > 0 {
		cited = " (" + strings.Join(source, ", ") + ")"
	}
	switch d.Reason {
	case ReasonOptedIn:
		return fmt.Sprintf("%s opted in to %s/%s%s%s", who, d.Channel, d.Purpose, when, cited)
	case ReasonOptedOut:
		return fmt.Sprintf("%s opted out of %s/%s%s%s", who, d.Channel, d.Purpose, when, cited)
	case ReasonOptedOutOfAll:
		return fmt.Sprintf("%s opted out of everything on %s%s%s", who, d.Channel, when, cited)
	case ReasonNeverAsked:
		return fmt.Sprintf("nobody ever agreed to %s/%s, and not having been asked is not consent", d.Channel, d.Purpose)
	case ReasonNotRefused:
		return fmt.Sprintf("%s/%s is not promotional and was not refused", d.Channel, d.Purpose)
	case ReasonLegacyPolicy:
		return fmt.Sprintf("nobody ever answered about %s/%s; the ledger's policy for legacy data lets it pass%s", d.Channel, d.Purpose, d.Policy.cite())
	case ReasonImportedOnly:
		return fmt.Sprintf("the only yes to %s/%s is of %s%s%s, which the ledger's policy for legacy data does not accept%s", d.Channel, d.Purpose, who, when, cited, d.Policy.cite())
	case ReasonErased:
		return "the person's data was erased"
	case ReasonProfileDeleted:
		return "the CRM deleted the profile" + when + cited
	case ReasonBounced:
		return fmt.Sprintf("the %s address bounced, as %s reported%s%s", d.Channel, who, when, cited)
	case ReasonInvalidAddress:
		return fmt.Sprintf("the %s address is invalid, as %s reported%s%s", d.Channel, who, when, cited)
	case ReasonNoProfile:
		return "the firing names no person, so there is no consent to go by"
	}
	return "the target has no consent rule"
}

// Decide asks a target's rule. A nil rule asks nothing, except that nothing is sent to somebody who was erased.
func (r *ConsentRule) Decide(q Question) Decision {
	if q.View.Erased {
		return Decision{Decision: DecisionWithheld, Reason: ReasonErased, AsOf: q.AsOf}
	}
	if r == nil {
		return Decision{Decision: DecisionNotRequired, Reason: ReasonNoRule, AsOf: q.AsOf}
	}
	ref := q.Policy.ref()
	d := Decision{Channel: r.Channel, Purpose: r.Purpose, Status: Unknown, AsOf: q.AsOf, Policy: &ref}
	allowed := r.decide(q, &d)
	if d.DecidedAs == q.Profile {
		d.DecidedAs = uuid.Nil
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

// decide finds the reason and what it rests on. What the person said comes before what is known of the address: it is
// the stronger reason, and it stays when the address is mended.
func (r *ConsentRule) decide(q Question, d *Decision) (allowed bool) {
	answer, asked := q.View.Purposes[r.Purpose]
	global := q.View.Purposes[PurposeAll]
	promotional := r.Purpose.Promotional()
	switch {
	case q.Profile == uuid.Nil:
		d.Reason = ReasonNoProfile
	case global.Status == OptedOut:
		d.Reason = ReasonOptedOutOfAll
		d.cite(global)
	case asked && answer.Status == OptedOut:
		d.Reason = ReasonOptedOut
		d.cite(answer)
	case q.View.Deleted != nil:
		d.Reason = ReasonProfileDeleted
		d.cite(*q.View.Deleted)
		d.Status = Unknown
		if asked {
			d.Status = answer.Status
		}
	case q.View.Address.Blocks():
		d.Reason = ReasonBounced
		if q.View.Address.Status == AddressInvalid {
			d.Reason = ReasonInvalidAddress
		}
		d.cite(q.View.Address.answer(answer.Status))
	case asked && answer.Status == OptedIn && promotional && q.Policy.Refuses(answer):
		d.Reason = ReasonImportedOnly
		d.cite(answer)
	case asked && answer.Status == OptedIn:
		d.Reason, allowed = ReasonOptedIn, true
		d.cite(answer)
	case promotional && !asked && q.Policy.LetsPass(r.Channel, q.At):
		d.Reason, allowed = ReasonLegacyPolicy, true
	case promotional:
		d.Reason = ReasonNeverAsked
		if asked {
			d.cite(answer)
		}
	default:
		d.Reason, allowed = ReasonNotRefused, true
	}
	return allowed
}

// cite puts down which event a decision rests on.
func (d *Decision) cite(a Answer) {
	d.DecidedBy, d.Method, d.Actor, d.DecidedAs, d.Position, d.SameAddress = a.DecidedBy, a.Method, a.Actor, a.Profile, a.Position, a.SameAddress
	if a.Status != "" {
		d.Status = a.Status
	}
	at := a.DecidedAt.UTC()
	d.DecidedAt = &at
	if !a.RecordedAt.IsZero() {
		recorded := a.RecordedAt.UTC()
		d.RecordedAt = &recorded
	}
}
