package domain

import "github.com/google/uuid"

// TargetTested records that somebody tried a target out in the inspector, where nothing leaves. A test at the real URL is a
// firing with the cause test, and is recorded like every other.
type TargetTested struct {
	Handle     string    `json:"handle"`
	Version    int64     `json:"version,omitempty" doc:"that was tried; absent for a draft"`
	Bin        string    `json:"bin" doc:"the inspector's bin that the request went to"`
	Number     int64     `json:"number" doc:"of the request in the bin"`
	Context    string    `json:"context" doc:"given, sample (the target's own) or past (that of a delivery)"`
	DeliveryID uuid.UUID `json:"delivery_id,omitzero" doc:"whose context it was"`
	Unresolved int       `json:"unresolved,omitempty" doc:"variables that the context lacked"`
}

var _ = declare("target.tested", 1, FromLedger, "Somebody tried a target out in the inspector; nothing left.",
	TargetTested{Handle: "klaviyo-reward-earned", Version: 3, Bin: "k7q2m9x4w5", Number: 1, Context: "sample"})

// TestStream names the stream of a target's tests.
func TestStream(handle string) string { return "test-" + handle }

// Stream is that of the target's tests: they change nothing of the target.
func (t TargetTested) Stream() string { return TestStream(t.Handle) }

// Keys selects by target.
func (t TargetTested) Keys() Keys { return Keys{Target: t.Handle, State: t.Context} }

// Validate reports what is wrong with the payload.
func (t TargetTested) Validate() error { return validHandle(t.Handle) }
