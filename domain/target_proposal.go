package domain

import "time"

// TargetProposed records a change of a target that takes two people. It holds once somebody else approves it.
//
// Its stream is not the target's: what is only proposed changes nothing.
type TargetProposed struct {
	Target
	Reason   string `json:"reason,omitempty" doc:"why it is to be changed, in words"`
	Restores int64  `json:"restores,omitempty" doc:"the earlier version that it repeats, when it is to be rolled back to"`
	Base     int64  `json:"base" doc:"the target's revision that it was decided on; 0 when there was no target"`
}

// TargetApproved records that somebody approved a proposed change; the same moment's target.changed is that change.
type TargetApproved struct {
	Handle   string `json:"handle"`
	Proposal int64  `json:"proposal" doc:"version of the target.proposed event in their stream"`
	Reason   string `json:"reason,omitempty" doc:"in words"`
}

// TargetDeclined records that a proposed change will not be made. Whoever proposed it may withdraw it so.
type TargetDeclined struct {
	Handle   string `json:"handle"`
	Proposal int64  `json:"proposal" doc:"version of the target.proposed event in their stream"`
	Reason   string `json:"reason,omitempty" doc:"in words"`
}

// Approval is what a change that took two people followed from.
type Approval struct {
	Proposal   int64     `json:"proposal"`
	ProposedBy string    `json:"proposed_by"`
	ProposedAt time.Time `json:"proposed_at"`
}

var (
	_ = declare("target.proposed", 1, FromLedger, "A change of a target was proposed that needs somebody else's approval. Nothing is sent by it.",
		TargetProposed{Target: exampleTarget(), Reason: "the new account", Base: 4})
	_ = declare("target.approved", 1, FromLedger, "Somebody else approved a proposed change of a target; it holds from then on.",
		TargetApproved{Handle: "klaviyo-reward-earned", Proposal: 1})
	_ = declare("target.declined", 1, FromLedger, "A proposed change of a target will not be made.",
		TargetDeclined{Handle: "klaviyo-reward-earned", Proposal: 1, Reason: "wrong list"})
)

// NeedsApproval reports whether a change of a target takes two people: when the one that there is says so, withdrawn or not,
// or the one that it becomes.
func NeedsApproval(from, to Target) bool {
	return from.Approval == ApprovalRequired || to.Approval == ApprovalRequired
}

// ProposalStream names the stream of what is proposed for a target.
func ProposalStream(handle string) string { return "proposal-" + handle }

// Stream is that of the target's proposals.
func (t TargetProposed) Stream() string { return ProposalStream(t.Handle) }

// Keys selects by target.
func (t TargetProposed) Keys() Keys { return Keys{Target: t.Handle, State: "open"} }

// Stream is that of the target's proposals.
func (t TargetApproved) Stream() string { return ProposalStream(t.Handle) }

// Keys selects by target.
func (t TargetApproved) Keys() Keys { return Keys{Target: t.Handle, State: "approved"} }

// Validate reports what is wrong with the payload.
func (t TargetApproved) Validate() error { return validHandle(t.Handle) }

// Stream is that of the target's proposals.
func (t TargetDeclined) Stream() string { return ProposalStream(t.Handle) }

// Keys selects by target.
func (t TargetDeclined) Keys() Keys { return Keys{Target: t.Handle, State: "declined"} }

// Validate reports what is wrong with the payload.
func (t TargetDeclined) Validate() error { return validHandle(t.Handle) }
