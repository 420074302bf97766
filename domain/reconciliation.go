package domain

import (
	"slices"
	"time"

	"github.com/google/uuid"
)

// The classes of difference between our consent and a platform's list.
const (
	MissingThere     = "missing_there"     // the platform does not have our opt-out: it is written there
	MissingHere      = "missing_here"      // we do not have the platform's opt-out: it is recorded here
	OtherReasons     = "other_reasons"     // both suppress, for different reasons: ours is written there too
	ResubscribedHere = "resubscribed_here" // the person agreed again here, later: lifted there with evidence and an explicit switch, else asked
	LiftedThere      = "lifted_there"      // the platform no longer suppresses whom we do: written again, and asked
	UnknownContact   = "unknown_contact"   // the address belongs to nobody of ours: kept by its hash, until somebody has it
	ExcludedProfile  = "excluded_profile"  // an address that the policy leaves out
	EchoOfOurs       = "echo"              // our own push, come back with the platform's time
	ScopeDiffers     = "scope_differs"     // an opt-out of one list or group: what it means here is for a person to say
	DeliveryProblem  = "deliverability"    // the address does not work there: no consent is withdrawn
	NotTaken         = "not_taken"         // the platform refused our opt-out, or took it and does not show it
	NotLifted        = "not_lifted"        // the platform did not lift on our word: it asked the person first, or it will not
)

// DifferenceClasses lists them in the order of reports.
var DifferenceClasses = []string{
	MissingThere, MissingHere, OtherReasons, ResubscribedHere, LiftedThere, ScopeDiffers, NotTaken, NotLifted, DeliveryProblem, UnknownContact, ExcludedProfile, EchoOfOurs,
}

// ReconciliationStarted records that a platform's list is being compared with our consent.
type ReconciliationStarted struct {
	ID       uuid.UUID   `json:"id"`
	Platform string      `json:"platform" doc:"the connection's name, by default the platform's"`
	Mode     string      `json:"mode" doc:"full, incremental or import"`
	Channels []Channel   `json:"channels"`
	Since    time.Time   `json:"since,omitzero" doc:"incremental: changes from here on are read, overlap included"`
	Check    bool        `json:"check,omitempty" doc:"only reports: nothing is recorded about anybody and nothing is written there"`
	Trigger  string      `json:"trigger" doc:"schedule, api or cli"`
	Policy   int64       `json:"policy" doc:"version of the platform's policy"`
	File     *ImportFile `json:"file,omitempty" doc:"import: what was read"`
}

// ImportFile names an export that was imported.
type ImportFile struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
}

// ReconciliationCounts are what a run counted.
type ReconciliationCounts struct {
	Read        int64            `json:"read"`                 // entries of the platform's list
	Unreadable  int64            `json:"unreadable,omitempty"` // rows of an import that could not be read
	Suppressed  int64            `json:"suppressed"`           // addresses that its list suppresses, as far as we have seen it
	OptedOut    int64            `json:"opted_out"`            // addresses that opted out here
	Contacts    int64            `json:"contacts"`             // addresses that we know
	KnownThere  int64            `json:"known_there"`          // of those, how many a full read showed to be known there
	Agreed      int64            `json:"agreed"`               // addresses on which both sides agree
	Differences map[string]int64 `json:"differences"`          // new ones, by class
	Planned     map[string]int64 `json:"planned,omitempty"`    // what is done about them: record, push, lift, ask
	Open        int64            `json:"open"`                 // findings that wait for a person
	Unconfirmed int64            `json:"unconfirmed"`          // opt-outs written there and not read back yet
	Oldest      time.Time        `json:"oldest_unconfirmed,omitzero"`
}

// ReconciliationHeld records that a run would change more than its policy allows, and asks.
type ReconciliationHeld struct {
	ID       uuid.UUID `json:"id"`
	Platform string    `json:"platform"`
	Changes  int64     `json:"changes" doc:"that the run would make, on both sides"`
	Of       int64     `json:"of" doc:"addresses that either side suppresses"`
	Percent  float64   `json:"percent"`
	Cap      float64   `json:"cap" doc:"percent that the policy allows"`
	Explain  string    `json:"explain" doc:"one sentence for people"`
}

// ReconciliationApproved records that somebody let a held run go on.
type ReconciliationApproved struct {
	ID       uuid.UUID `json:"id"`
	Platform string    `json:"platform"`
	Reason   string    `json:"reason" doc:"why, in words"`
}

// ReconciliationFinished records how a run ended.
type ReconciliationFinished struct {
	ID       uuid.UUID            `json:"id"`
	Platform string               `json:"platform"`
	Outcome  string               `json:"outcome" doc:"done, partial (something waits to be written or read back), stopped (by a person) or failed"`
	Error    string               `json:"error,omitempty" doc:"why it failed, and what to do"`
	Counts   ReconciliationCounts `json:"counts" doc:"read, suppressed, opted_out, contacts, known_there, agreed, differences by class, open, unconfirmed, oldest_unconfirmed"`
	Seconds  float64              `json:"seconds" doc:"from start to end, waiting for the platform included"`
}

// The outcomes of a run.
const (
	RunDone    = "done"
	RunPartial = "partial"
	RunStopped = "stopped"
	RunFailed  = "failed"
)

// FindingRaised records a difference that a person has to decide on.
type FindingRaised struct {
	ID        uuid.UUID `json:"id" doc:"of platform, channel, address and class, and of what the difference rests on: the same difference is one finding however often it is found"`
	Platform  string    `json:"platform"`
	Run       uuid.UUID `json:"run,omitzero"`
	Channel   Channel   `json:"channel"`
	Class     string    `json:"class"`
	Hash      string    `json:"hash,omitempty" doc:"of the address"`
	ProfileID uuid.UUID `json:"profile_id,omitzero"`
	Scope     string    `json:"scope,omitempty" doc:"scope_differs: the list, group or business unit, kind:id"`
	Count     int64     `json:"count" doc:"addresses concerned"`
	Theirs    string    `json:"theirs,omitempty" doc:"what the platform says, and since when"`
	Ours      string    `json:"ours,omitempty" doc:"what we hold, and since when"`
	Explain   string    `json:"explain" doc:"what differs and why it was not resolved, for people"`
	Action    string    `json:"action" doc:"the one that is proposed"`
	Actions   []string  `json:"actions" doc:"those that there are"`
	Decision  int64     `json:"decision,omitempty" doc:"position of the consent.changed event that it rests on"`
}

// FindingResolved records what was decided on a finding, by whom stands as the actor.
type FindingResolved struct {
	ID       uuid.UUID `json:"id"`
	Platform string    `json:"platform"`
	Action   string    `json:"action" doc:"one of the finding's, or gone: the difference is no more"`
	Reason   string    `json:"reason,omitempty" doc:"why, in words"`

	Evidence map[string]string `json:"evidence,omitempty" sealed:"true" doc:"what proves that the person agreed"`
	Profile  uuid.UUID         `json:"profile_id,omitzero"`
}

// What can be done about a finding.
const (
	ActSuppressThere   = "suppress_there"  // write our opt-out there again
	ActResubscribe     = "resubscribe"     // lift it there, with the evidence given
	ActKeepSuppressed  = "keep_suppressed" // leave it suppressed there
	ActRecordOptIn     = "record_opt_in"   // the person agreed there: record it here, with the evidence given
	ActRecordOptOut    = "record_opt_out"  // record their opt-out here
	ActTakeAsGlobal    = "take_as_global"  // opt-outs of that list are opt-outs here
	ActIgnoreScope     = "ignore_scope"    // opt-outs of that list mean nothing here
	ActTryAgain        = "try_again"       // write it there once more
	ActAcceptDivergent = "accept"          // it stays as it is
	ActGone            = "gone"            // nobody's: the difference is no more
)

var (
	exampleFinding = uuid.MustParse("3c0d0a3a-5a56-5a0e-8d3e-6f1f6a1b2c3d")

	_ = declare("reconciliation.started", 1, FromLedger, "A platform's suppression list is being compared with our consent.",
		ReconciliationStarted{ID: exampleRun, Platform: "klaviyo", Mode: "incremental", Channels: []Channel{Email, SMS}, Since: exampleTime, Trigger: "schedule", Policy: 3})
	_ = declare("reconciliation.held", 1, FromLedger, "A reconciliation would change more than its policy allows, and waits for a person.",
		ReconciliationHeld{ID: exampleRun, Platform: "klaviyo", Changes: 4100, Of: 20000, Percent: 20.5, Cap: 5, Explain: "4,100 of 20,000 suppressed addresses would change, more than 5 %"})
	_ = declare("reconciliation.approved", 1, FromLedger, "Somebody let a held reconciliation go on.",
		ReconciliationApproved{ID: exampleRun, Platform: "klaviyo", Reason: "first run after the migration"})
	_ = declare("reconciliation.finished", 1, FromLedger, "A reconciliation ended.",
		ReconciliationFinished{
			ID: exampleRun, Platform: "klaviyo", Outcome: RunDone, Seconds: 41.5,
			Counts: ReconciliationCounts{Read: 20000, Suppressed: 20000, OptedOut: 19000, Contacts: 120000, KnownThere: 90000, Agreed: 19950, Differences: map[string]int64{MissingThere: 12, MissingHere: 38}},
		})
	_ = declare("finding.raised", 1, FromLedger, "A difference between our consent and a platform's list needs a person.",
		FindingRaised{
			ID: exampleFinding, Platform: "klaviyo", Run: exampleRun, Channel: Email, Class: ResubscribedHere, Hash: exampleHash, ProfileID: exampleProfile, Count: 1,
			Explain: "the person agreed again here, after the opt-out there", Action: ActResubscribe, Actions: []string{ActResubscribe, ActKeepSuppressed}, Decision: 17,
		})
	_ = declare("finding.resolved", 1, FromLedger, "A finding was decided on, or its difference is gone.",
		FindingResolved{ID: exampleFinding, Platform: "klaviyo", Action: ActResubscribe, Reason: "signed form 12", Evidence: map[string]string{"form": "12"}, Profile: exampleProfile})
)

// ReconciliationStream names the stream of a run.
func ReconciliationStream(id uuid.UUID) string { return "reconciliation-" + id.String() }

// FindingStream names the stream of a finding.
func FindingStream(id uuid.UUID) string { return "finding-" + id.String() }

func requireRun(id uuid.UUID, platform string) error {
	switch {
	case id == uuid.Nil:
		return Invalid("/id", "is missing")
	case platform == "":
		return Invalid("/platform", "is missing")
	}
	return nil
}

// Stream is the run's.
func (r ReconciliationStarted) Stream() string { return ReconciliationStream(r.ID) }

// Keys has the state that the event sets.
func (r ReconciliationStarted) Keys() Keys { return Keys{State: "running"} }

// Validate accepts what the reconciler made.
func (r ReconciliationStarted) Validate() error { return requireRun(r.ID, r.Platform) }

// Stream is the run's.
func (r ReconciliationHeld) Stream() string { return ReconciliationStream(r.ID) }

// Keys has the state that the event sets.
func (r ReconciliationHeld) Keys() Keys { return Keys{State: "held"} }

// Validate accepts what the reconciler made.
func (r ReconciliationHeld) Validate() error { return requireRun(r.ID, r.Platform) }

// Stream is the run's.
func (r ReconciliationApproved) Stream() string { return ReconciliationStream(r.ID) }

// Keys has the state that the event sets.
func (r ReconciliationApproved) Keys() Keys { return Keys{State: "running"} }

// Validate reports what is wrong with the payload.
func (r ReconciliationApproved) Validate() error {
	if r.Reason == "" {
		return Invalid("/reason", "is empty: say why")
	}
	return requireRun(r.ID, r.Platform)
}

// Stream is the run's.
func (r ReconciliationFinished) Stream() string { return ReconciliationStream(r.ID) }

// Keys has the state that the event sets.
func (r ReconciliationFinished) Keys() Keys { return Keys{State: r.Outcome} }

// Validate accepts what the reconciler made.
func (r ReconciliationFinished) Validate() error { return requireRun(r.ID, r.Platform) }

// Stream is the finding's.
func (f FindingRaised) Stream() string { return FindingStream(f.ID) }

// Keys selects by person and channel.
func (f FindingRaised) Keys() Keys {
	return Keys{Subject: f.ProfileID, Channel: string(f.Channel), State: "open"}
}

// Validate reports what is wrong with the payload.
func (f FindingRaised) Validate() error {
	if !slices.Contains(f.Actions, f.Action) {
		return Invalid("/action", "is %q, which is none of its actions", f.Action)
	}
	return requireRun(f.ID, f.Platform)
}

// Stream is the finding's.
func (f FindingResolved) Stream() string { return FindingStream(f.ID) }

// Keys selects by person.
func (f FindingResolved) Keys() Keys { return Keys{Subject: f.Profile, State: "resolved"} }

// Validate reports what is wrong with the payload.
func (f FindingResolved) Validate() error {
	if f.Action == "" {
		return Invalid("/action", "is missing")
	}
	return requireRun(f.ID, f.Platform)
}
