package domain

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"
)

// ReactionFired records that the CRM decided somebody should hear something through a target.
type ReactionFired struct {
	Reaction  string          `json:"reaction" doc:"handle of the reaction, automation or incentive that fired"`
	Target    string          `json:"target" doc:"handle of the target to send through"`
	ProfileID uuid.UUID       `json:"profile_id,omitzero" doc:"the person it is about, by the CRM's id; absent when it is about nobody"`
	Trigger   string          `json:"trigger,omitempty" doc:"the CRM event behind it, such as reward.created"`
	Cause     string          `json:"cause" doc:"reaction, automation, incentive, manual or test"`
	NotBefore time.Time       `json:"not_before,omitzero" doc:"not sent before; absent is at once"`
	ExpiresAt time.Time       `json:"expires_at,omitzero" doc:"not sent at this time or later, whatever is still to be retried: a birthday message is not sent the day after"`
	Context   json.RawMessage `json:"context,omitempty" sealed:"true" doc:"the event context that the target's templates are rendered with: a JSON object"`
}

// Causes lists why a target may be fired.
var Causes = []string{"reaction", "automation", "incentive", "manual", "test"}

var _ = declare("reaction.fired", 1, FromOutside,
	"A reaction, automation or incentive of the CRM ran target.send. The planner answers it with exactly one delivery event.",
	ReactionFired{
		Reaction: "reward-earned", Target: "klaviyo-reward-earned",
		ProfileID: uuid.MustParse("8fc344db-713e-4590-ab26-e82d77ba3313"), Trigger: "reward.created", Cause: "reaction",
		Context: json.RawMessage(`{"profile":{"email":"jane@example.com"},"reward":{"amount":10}}`),
	})

// Stream is the reaction's: its firings, in order.
func (r ReactionFired) Stream() string { return "reaction-" + r.Reaction }

// Keys selects firings by person and target.
func (r ReactionFired) Keys() Keys {
	return Keys{Subject: r.ProfileID, Target: r.Target, State: r.Cause}
}

// Validate reports what is wrong with the payload.
func (r ReactionFired) Validate() error {
	switch {
	case !handlePattern.MatchString(r.Reaction):
		return Invalid("/reaction", "is no handle: 1 to 128 letters, digits, '.', '_' and '-'")
	case !handlePattern.MatchString(r.Target):
		return Invalid("/target", "is no handle: 1 to 128 letters, digits, '.', '_' and '-'")
	case len(r.Trigger) > 128:
		return Invalid("/trigger", "is longer than 128 bytes")
	case !r.ExpiresAt.IsZero() && !r.ExpiresAt.After(r.NotBefore):
		return Invalid("/expires_at", "is not after not_before, so there is no time to send it in")
	case !slices.Contains(Causes, r.Cause):
		return Invalid("/cause", "is none of %v", Causes)
	}
	if c := bytes.TrimSpace(r.Context); len(c) == 0 || c[0] != '{' {
		return Invalid("/context", "is not a JSON object")
	}
	return nil
}

// clip keeps what is quoted back from outside short.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
