package domain

import "time"

// Why a target is paused.
const (
	PausedByLimit    = "rate_limited" // its platform asked for it
	PausedByFailures = "failures"     // it kept failing; one probe at a time tries whether it answers again
	PausedByOperator = "operator"     // a person did, until a person resumes it
)

// TargetPaused records that nothing is sent through a target for a while. What is queued for it is held, not dropped.
//
// Its stream is not the target's: a pause changes nothing that somebody who edits the target decided on.
type TargetPaused struct {
	Handle     string    `json:"handle"`
	Cause      string    `json:"cause" doc:"rate_limited, failures or operator"`
	Until      time.Time `json:"until,omitzero" doc:"when it is tried again; absent is until somebody resumes it"`
	Reason     string    `json:"reason" doc:"one sentence for people"`
	Status     int       `json:"status,omitempty" doc:"the HTTP status of the answer that led to it"`
	RetryAfter string    `json:"retry_after,omitempty" doc:"that answer's Retry-After, verbatim"`
	Failures   int       `json:"failures,omitempty" doc:"in a row, before it"`
	HeldSince  time.Time `json:"held_since,omitzero" doc:"when the first of these pauses in a row began; absent in that one"`
	Pauses     int       `json:"pauses,omitempty" doc:"in a row, this one included: each probe that fails adds one"`
}

// TargetResumed records that a paused target sends again.
type TargetResumed struct {
	Handle string `json:"handle"`
	Reason string `json:"reason,omitempty" doc:"one sentence for people"`
}

var (
	_ = declare("target.paused", 1, FromLedger, "Nothing is sent through a target for a while; its deliveries are held.",
		TargetPaused{Handle: "klaviyo-reward-earned", Cause: PausedByLimit, Until: exampleTime, Reason: "the platform answered 429 and asked for 30 seconds", Status: 429, RetryAfter: "30"})
	_ = declare("target.resumed", 1, FromLedger, "A paused target sends again.",
		TargetResumed{Handle: "klaviyo-reward-earned", Reason: "a probe was answered with 202"})
)

// PauseStream names the stream of a target's pauses.
func PauseStream(handle string) string { return "pause-" + handle }

// Stream is that of the target's pauses.
func (t TargetPaused) Stream() string { return PauseStream(t.Handle) }

// Keys selects by target.
func (t TargetPaused) Keys() Keys { return Keys{Target: t.Handle, State: t.Cause} }

// Validate reports what is wrong with the payload.
func (t TargetPaused) Validate() error { return validHandle(t.Handle) }

// Stream is that of the target's pauses.
func (t TargetResumed) Stream() string { return PauseStream(t.Handle) }

// Keys selects by target.
func (t TargetResumed) Keys() Keys { return Keys{Target: t.Handle, State: "resumed"} }

// Validate reports what is wrong with the payload.
func (t TargetResumed) Validate() error { return validHandle(t.Handle) }

// PauseFor is how long a target is left alone after so many pauses in a row, the coming one included: the first time as
// long as configured, then twice as long each time, up to MaxPause.
func (b Breaker) PauseFor(pauses int) time.Duration {
	pause := time.Duration(b.Pause)
	for range pauses - 1 {
		if pause *= 2; pause >= MaxPause {
			return MaxPause
		}
	}
	return pause
}
