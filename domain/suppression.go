package domain

import (
	"time"

	"github.com/google/uuid"
)

// SuppressionScope is what a suppression covers on its platform.
type SuppressionScope struct {
	Kind string `json:"kind"`         // global, list, group or business_unit
	ID   string `json:"id,omitempty"` // the list's, group's or business unit's own id; empty for global
}

// GlobalScope is a suppression of an address on the whole account.
const GlobalScope = "global"

// SuppressionEntry is one address of a platform's list, by its hash.
//
// Entries travel many to an event: a list has millions, and what is said of each is a hundred bytes.
type SuppressionEntry struct {
	Hash      string    `json:"hash"`                // hex, as in ConsentChanged.ContactHashes
	Reason    string    `json:"reason"`              // neutral: unsubscribed, complaint, hard_bounce, …
	Class     string    `json:"class"`               // consent, deliverability or operator: what the reason is evidence of
	Native    string    `json:"native,omitempty"`    // the platform's own word; addresses in it are masked
	At        time.Time `json:"at,omitzero"`         // when, by the platform's clock
	Precision string    `json:"precision"`           // how much of At can be believed: exact, second, day, upper_bound or unknown
	ProfileID uuid.UUID `json:"profile_id,omitzero"` // whose address it is, where one person of ours has it
	Echo      bool      `json:"echo,omitempty"`      // it is what we wrote there ourselves, come back
}

// Where a platform's word came from.
const (
	ViaList    = "list"    // its list was read
	ViaWebhook = "webhook" // it told us
	ViaImport  = "import"  // somebody gave us its export
)

// SuppressionSeen records that addresses are on a platform's list that were not there, or stood there otherwise, when we
// last looked. What was there before and is there still gives no event.
type SuppressionSeen struct {
	Platform string             `json:"platform" doc:"the connection's name, by default the platform's"`
	Channel  Channel            `json:"channel"`
	Scope    SuppressionScope   `json:"scope" doc:"kind (global, list, group, business_unit) and the platform's id of it"`
	Run      uuid.UUID          `json:"run,omitzero" doc:"the reconciliation that read it"`
	Via      string             `json:"via" doc:"list, webhook or import"`
	Unproven bool               `json:"unproven,omitempty" doc:"nothing proves who sent it: it may suppress and may not lift"`
	SeenAt   time.Time          `json:"seen_at" doc:"when we looked, by our clock"`
	Entries  []SuppressionEntry `json:"entries" doc:"1 to 1000: hash, reason, class, native, at, precision, profile_id, echo"`
	EventKey string             `json:"event_key,omitempty" doc:"the platform's own key of the notification"`
}

// SuppressionLifted records that addresses are no longer on a platform's list.
type SuppressionLifted struct {
	Platform string             `json:"platform" doc:"the connection's name, by default the platform's"`
	Channel  Channel            `json:"channel"`
	Scope    SuppressionScope   `json:"scope" doc:"kind (global, list, group, business_unit) and the platform's id of it"`
	Run      uuid.UUID          `json:"run,omitzero" doc:"the reconciliation that noticed"`
	Via      string             `json:"via" doc:"list, webhook or import"`
	SeenAt   time.Time          `json:"seen_at" doc:"when we looked, by our clock"`
	Entries  []SuppressionEntry `json:"entries" doc:"1 to 1000: hash, the reason and time that the list held before, native of the lifting, profile_id; echo: we lifted it"`
}

// What we ask of a platform.
const (
	Suppress    = "suppress"    // never to send to the address
	Resubscribe = "resubscribe" // to send to it again: on most platforms it destroys the record of the opt-out
)

// PushEntry is one change that a platform is asked for.
type PushEntry struct {
	Hash      string    `json:"hash"`                // hex, as in ConsentChanged.ContactHashes
	ProfileID uuid.UUID `json:"profile_id,omitzero"` // whose decision it follows
	Decision  int64     `json:"decision"`            // position of the consent.changed event that it follows
	DecidedAt time.Time `json:"decided_at"`          // when the person decided
	Status    string    `json:"status,omitempty"`    // pushed: applied, unchanged, accepted, challenged, not_found, refused, failed, excluded, no_address
	Native    string    `json:"native,omitempty"`    // pushed: the platform's own words; addresses in them are masked
	Attempt   int       `json:"attempt,omitempty"`   // how often it was written there for this decision
	OrderedAt time.Time `json:"ordered_at,omitzero"` // pushed: when it was ordered
	PushedAt  time.Time `json:"pushed_at,omitzero"`  // confirmed: when the platform took it
	Finding   uuid.UUID `json:"finding_id,omitzero"` // the finding whose resolution ordered it
}

// SuppressionOrdered records that we are about to write changes to a platform: before the request leaves, so that none
// leaves without a trace.
type SuppressionOrdered struct {
	Platform string      `json:"platform" doc:"the connection's name, by default the platform's"`
	Channel  Channel     `json:"channel"`
	Intent   string      `json:"intent" doc:"suppress or resubscribe"`
	Run      uuid.UUID   `json:"run,omitzero" doc:"the reconciliation that found it; absent: pushed as it was decided"`
	Batch    uuid.UUID   `json:"batch" doc:"links the order with what came of it"`
	Entries  []PushEntry `json:"entries" doc:"1 to 1000: hash, profile_id, decision (its position), decided_at"`
}

// SuppressionPushed records what a platform answered to changes.
type SuppressionPushed struct {
	Platform string      `json:"platform" doc:"the connection's name, by default the platform's"`
	Channel  Channel     `json:"channel"`
	Intent   string      `json:"intent" doc:"suppress or resubscribe"`
	Run      uuid.UUID   `json:"run,omitzero" doc:"the reconciliation that found it; absent: pushed as it was decided"`
	Batch    uuid.UUID   `json:"batch" doc:"links the order with what came of it"`
	Job      string      `json:"job,omitempty" doc:"the platform's own job, where it works later"`
	PushedAt time.Time   `json:"pushed_at" doc:"when it answered, by our clock"`
	Entries  []PushEntry `json:"entries" doc:"as ordered, with status and native"`
}

// SuppressionConfirmed records that changes of ours were read back on the platform's list.
type SuppressionConfirmed struct {
	Platform    string      `json:"platform" doc:"the connection's name, by default the platform's"`
	Channel     Channel     `json:"channel"`
	Intent      string      `json:"intent" doc:"suppress or resubscribe"`
	Run         uuid.UUID   `json:"run,omitzero" doc:"the reconciliation that read it back"`
	ConfirmedAt time.Time   `json:"confirmed_at" doc:"when it was read back, by our clock"`
	Entries     []PushEntry `json:"entries" doc:"as pushed, with pushed_at"`
}

var (
	exampleProfile = uuid.MustParse("8fc344db-713e-4590-ab26-e82d77ba3313")
	exampleRun     = uuid.MustParse("1b5f0d9e-0f5c-4a0e-9a55-7c1f3f0a2f11")
	exampleBatch   = uuid.MustParse("0f2f3a52-6b1c-4c38-9c63-5b4e2b7a9d10")
	exampleHash    = "5f0c5b0d1f0b7d0c7c8f3c5e0a9b1d2e3f405162738495a6b7c8d9eafb0c1d2e"

	_ = declare("suppression.seen", 1, FromLedger, "Addresses are on a platform's suppression list that were not, or stood there otherwise, when we last looked.",
		SuppressionSeen{
			Platform: "klaviyo", Channel: Email, Scope: SuppressionScope{Kind: GlobalScope}, Run: exampleRun, Via: ViaList, SeenAt: exampleTime,
			Entries: []SuppressionEntry{{Hash: exampleHash, Reason: "unsubscribed", Class: "consent", Native: "UNSUBSCRIBE", At: exampleTime, Precision: "second", ProfileID: exampleProfile}},
		})
	_ = declare("suppression.lifted", 1, FromLedger, "Addresses are no longer on a platform's suppression list.",
		SuppressionLifted{
			Platform: "klaviyo", Channel: Email, Scope: SuppressionScope{Kind: GlobalScope}, Run: exampleRun, Via: ViaList, SeenAt: exampleTime,
			Entries: []SuppressionEntry{{Hash: exampleHash, Reason: "hard_bounce", Class: "deliverability", At: exampleTime, Precision: "second"}},
		})
	_ = declare("suppression.ordered", 1, FromLedger, "Changes are about to be written to a platform's suppression list; appended before the request leaves.",
		SuppressionOrdered{
			Platform: "klaviyo", Channel: Email, Intent: Suppress, Run: exampleRun, Batch: exampleBatch,
			Entries: []PushEntry{{Hash: exampleHash, ProfileID: exampleProfile, Decision: 17, DecidedAt: exampleTime}},
		})
	_ = declare("suppression.pushed", 1, FromLedger, "A platform answered to changes that we wrote to its suppression list.",
		SuppressionPushed{
			Platform: "klaviyo", Channel: Email, Intent: Suppress, Run: exampleRun, Batch: exampleBatch, PushedAt: exampleTime,
			Entries: []PushEntry{{Hash: exampleHash, ProfileID: exampleProfile, Decision: 17, DecidedAt: exampleTime, Status: "accepted"}},
		})
	_ = declare("suppression.confirmed", 1, FromLedger, "Changes of ours were read back on a platform's suppression list.",
		SuppressionConfirmed{
			Platform: "klaviyo", Channel: Email, Intent: Suppress, Run: exampleRun, ConfirmedAt: exampleTime.Add(time.Minute),
			Entries: []PushEntry{{Hash: exampleHash, ProfileID: exampleProfile, Decision: 17, DecidedAt: exampleTime, PushedAt: exampleTime}},
		})
)

// SuppressionStream names the stream of everything seen on and written to one platform's list.
func SuppressionStream(platform string) string { return "suppressions-" + platform }

// MaxSuppressionEntries bounds one event.
const MaxSuppressionEntries = 1000

func validEntries(platform string, channel Channel, n int) error {
	switch {
	case platform == "":
		return Invalid("/platform", "is missing")
	case channel == "":
		return Invalid("/channel", "is missing")
	case n == 0 || n > MaxSuppressionEntries:
		return Invalid("/entries", "holds %d entries, not 1 to %d", n, MaxSuppressionEntries)
	}
	return nil
}

// concerned is the one person that entries are about; an event about several leaves them to its JSON.
func concerned[T any](entries []T, profile func(T) uuid.UUID) uuid.UUID {
	if len(entries) != 1 {
		return uuid.Nil
	}
	return profile(entries[0])
}

func entryProfile(e SuppressionEntry) uuid.UUID { return e.ProfileID }
func pushProfile(e PushEntry) uuid.UUID         { return e.ProfileID }

// Stream is the platform's.
func (s SuppressionSeen) Stream() string { return SuppressionStream(s.Platform) }

// Keys selects by channel, and by person where it is about one.
func (s SuppressionSeen) Keys() Keys {
	return Keys{Subject: concerned(s.Entries, entryProfile), Channel: string(s.Channel), State: "suppressed"}
}

// Validate accepts what the reconciler made.
func (s SuppressionSeen) Validate() error { return validEntries(s.Platform, s.Channel, len(s.Entries)) }

// Stream is the platform's.
func (s SuppressionLifted) Stream() string { return SuppressionStream(s.Platform) }

// Keys selects by channel, and by person where it is about one.
func (s SuppressionLifted) Keys() Keys {
	return Keys{Subject: concerned(s.Entries, entryProfile), Channel: string(s.Channel), State: "lifted"}
}

// Validate accepts what the reconciler made.
func (s SuppressionLifted) Validate() error {
	return validEntries(s.Platform, s.Channel, len(s.Entries))
}

// Stream is the platform's.
func (s SuppressionOrdered) Stream() string { return SuppressionStream(s.Platform) }

// Keys selects by channel, and by person where it is about one.
func (s SuppressionOrdered) Keys() Keys {
	return Keys{Subject: concerned(s.Entries, pushProfile), Channel: string(s.Channel), State: s.Intent}
}

// Validate accepts what the reconciler made.
func (s SuppressionOrdered) Validate() error {
	return validEntries(s.Platform, s.Channel, len(s.Entries))
}

// Stream is the platform's.
func (s SuppressionPushed) Stream() string { return SuppressionStream(s.Platform) }

// Keys selects by channel, and by person where it is about one.
func (s SuppressionPushed) Keys() Keys {
	return Keys{Subject: concerned(s.Entries, pushProfile), Channel: string(s.Channel), State: s.Intent}
}

// Validate accepts what the reconciler made.
func (s SuppressionPushed) Validate() error {
	return validEntries(s.Platform, s.Channel, len(s.Entries))
}

// Stream is the platform's.
func (s SuppressionConfirmed) Stream() string { return SuppressionStream(s.Platform) }

// Keys selects by channel, and by person where it is about one.
func (s SuppressionConfirmed) Keys() Keys {
	return Keys{Subject: concerned(s.Entries, pushProfile), Channel: string(s.Channel), State: s.Intent}
}

// Validate accepts what the reconciler made.
func (s SuppressionConfirmed) Validate() error {
	return validEntries(s.Platform, s.Channel, len(s.Entries))
}
