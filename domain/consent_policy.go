package domain

import (
	"fmt"
	"slices"
	"time"
)

// ConsentPolicy is what a ledger makes of consent that it did not witness, and how promptly an opt-out must be honoured.
// There is one per ledger. Changing it is an event, and every decision says which policy it was made under.
type ConsentPolicy struct {
	NeverAsked string    `json:"never_asked" doc:"what a promotional message does without any answer: withhold, or send as the CRM's own rule would"`
	Channels   []Channel `json:"channels,omitempty" doc:"channels that send applies to; absent: all"`
	Until      time.Time `json:"until,omitzero" doc:"when send ends; required with it, so that an exception does not become the rule"`
	Imported   string    `json:"imported" doc:"whether an opt-in that came by import or from an administrator, without the customer's own time, is enough: accept or withhold"`
	Promptness Deadline  `json:"promptness" doc:"by when an opt-out must have had its effect"`
	Reason     string    `json:"reason,omitempty" doc:"why, in words: the legal ground, who approved it"`
}

// The values of ConsentPolicy.NeverAsked and ConsentPolicy.Imported.
const (
	PolicyWithhold = "withhold"
	PolicySend     = "send"
	PolicyAccept   = "accept"
)

// DefaultConsentPolicy holds until a ledger has one of its own: never asked is not consent, imported answers count, and
// an opt-out must have had its effect within the five business days of Australia's Spam Act.
func DefaultConsentPolicy() ConsentPolicy {
	return ConsentPolicy{NeverAsked: PolicyWithhold, Imported: PolicyAccept, Promptness: DefaultDeadline()}
}

// ConsentPolicyChanged records that the ledger's policy is another from here on.
type ConsentPolicyChanged struct{ ConsentPolicy }

var _ = declare("consent.policy_changed", 1, FromLedger,
	"What the ledger makes of legacy consent, and how promptly opt-outs must be honoured, was changed.",
	ConsentPolicyChanged{ConsentPolicy{
		NeverAsked: PolicySend, Channels: []Channel{Email}, Until: time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC), Imported: PolicyAccept,
		Promptness: DefaultDeadline(), Reason: "members from before the ledger are asked again until the end of January (legal, 2026-118)",
	}})

// ConsentPolicyStream is the stream of the policy's versions.
const ConsentPolicyStream = "consent-policy"

// Stream is the policy's.
func (ConsentPolicyChanged) Stream() string { return ConsentPolicyStream }

// Keys selects by what becomes of those who were never asked.
func (p ConsentPolicyChanged) Keys() Keys { return Keys{State: p.NeverAsked} }

// Validate reports what is wrong with the policy.
func (p ConsentPolicyChanged) Validate() error {
	switch {
	case p.NeverAsked != PolicyWithhold && p.NeverAsked != PolicySend:
		return Invalid("/never_asked", "is %q; it is withhold or send", clip(p.NeverAsked))
	case p.Imported != PolicyAccept && p.Imported != PolicyWithhold:
		return Invalid("/imported", "is %q; it is accept or withhold", clip(p.Imported))
	case p.NeverAsked == PolicySend && p.Until.IsZero():
		return Invalid("/until", "is missing: say when sending to people who were never asked ends")
	case p.NeverAsked == PolicySend && p.Reason == "":
		return Invalid("/reason", "is missing: say on what ground people who were never asked are sent to")
	case p.NeverAsked != PolicySend && (len(p.Channels) > 0 || !p.Until.IsZero()):
		return Invalid("/never_asked", "is withhold, so channels and until have nothing to say; leave them out")
	case len(p.Reason) > 2000:
		return Invalid("/reason", "is longer than 2000 bytes")
	}
	for i, c := range p.Channels {
		if !slices.Contains(Channels, c) {
			return Invalid(fmt.Sprintf("/channels/%d", i), "is %q; it is one of %v", clip(string(c)), Channels)
		}
	}
	return within("/promptness", p.Promptness.Validate())
}

// PolicyInForce is a policy and the event that made it.
type PolicyInForce struct {
	ConsentPolicy
	Position int64 // of consent.policy_changed; 0 is the default policy
}

// PolicyRef is what a decision says of the policy that it was made under.
type PolicyRef struct {
	Position   int64  `json:"position"` // of consent.policy_changed; 0 is the default policy
	NeverAsked string `json:"never_asked"`
	Imported   string `json:"imported"`
}

func (p PolicyInForce) ref() PolicyRef {
	ref := PolicyRef{Position: p.Position, NeverAsked: p.NeverAsked, Imported: p.Imported}
	if p.Position == 0 && p.NeverAsked == "" {
		ref.NeverAsked, ref.Imported = PolicyWithhold, PolicyAccept // the zero value is the default
	}
	return ref
}

func (r *PolicyRef) cite() string {
	if r == nil || r.Position == 0 {
		return ""
	}
	return fmt.Sprintf(" (event %d)", r.Position)
}

// LetsPass reports whether a promotional message may go to somebody who never answered.
func (p ConsentPolicy) LetsPass(c Channel, at time.Time) bool {
	return p.NeverAsked == PolicySend && at.Before(p.Until) && (len(p.Channels) == 0 || slices.Contains(p.Channels, c))
}

// Refuses reports whether an opt-in is not enough for a promotional message.
func (p ConsentPolicy) Refuses(a Answer) bool {
	return p.Imported == PolicyWithhold && (a.DecidedBy == "import" || a.DecidedBy == "admin")
}
