package domain

import (
	"time"

	"github.com/google/uuid"
)

// Outcome is where a delivery stands.
type Outcome string

// The outcomes of a delivery. Pending, sending, retrying and held go on; the others are final.
const (
	Pending   Outcome = "pending"
	Sending   Outcome = "sending"
	Retrying  Outcome = "retrying"
	Held      Outcome = "held"
	Succeeded Outcome = "succeeded"
	Failed    Outcome = "failed"
	Withheld  Outcome = "withheld"
	Rejected  Outcome = "rejected"
	Cancelled Outcome = "cancelled"
	Expired   Outcome = "expired"
)

// Outcomes lists every outcome.
var Outcomes = []Outcome{Pending, Sending, Retrying, Held, Succeeded, Failed, Withheld, Rejected, Cancelled, Expired}

// Final reports whether nothing more happens to a delivery by itself.
func (o Outcome) Final() bool {
	switch o {
	case Succeeded, Failed, Withheld, Rejected, Cancelled, Expired:
		return true
	case Pending, Sending, Retrying, Held:
		return false
	}
	return false
}

// Verdict is what an answer to an attempt means, as the platform's dialect reads it.
type Verdict string

// The verdicts.
const (
	Accepted     Verdict = "accepted"      // the platform took it, which is not yet that the person got it
	Duplicate    Verdict = "duplicate"     // it already had it
	Partial      Verdict = "partial"       // it took part of it
	RetryLater   Verdict = "retry"         // not now
	Permanent    Verdict = "permanent"     // never, in this form
	Refused      Verdict = "refused"       // it will not send to this person
	AuthExpired  Verdict = "auth_expired"  // the credential does not hold
	NetworkError Verdict = "network_error" // no answer arrived
	Timeout      Verdict = "timeout"       // no answer in time
	Lost         Verdict = "lost"          // outcome unknown: the process died after the intent was recorded
)

// Settles reports whether the verdict ends the delivery well.
func (v Verdict) Settles() bool { return v == Accepted || v == Duplicate || v == Partial }

// Retryable reports whether another attempt may end otherwise.
func (v Verdict) Retryable() bool {
	switch v {
	case RetryLater, AuthExpired, NetworkError, Timeout, Lost:
		return true
	case Accepted, Duplicate, Partial, Permanent, Refused:
		return false
	}
	return false
}

var deliveryNamespace = uuid.MustParse("b6f0a1c2-5d1f-4d53-9f7e-3e0f6f0c6a51")

// DeliveryID derives a delivery's id from its firing and target, so that a firing repeated is a delivery once.
func DeliveryID(firing uuid.UUID, target string) uuid.UUID {
	return uuid.NewSHA1(deliveryNamespace, append(firing[:], target...))
}

// DeliveryStream names the stream of one delivery.
func DeliveryStream(id uuid.UUID) string { return "delivery-" + id.String() }

// EventID derives the id of an event that follows from another, so that recording it twice is a repeat.
func EventID(of uuid.UUID, what string) uuid.UUID {
	return uuid.NewSHA1(of, []byte(what))
}

// Firing is what a delivery event repeats of the firing that it answers, so that it can be read alone.
type Firing struct {
	FiringID       uuid.UUID `json:"firing_id"`
	FiringPosition int64     `json:"firing_position"`
	Reaction       string    `json:"reaction"`
	Trigger        string    `json:"trigger,omitempty"`
	Cause          string    `json:"cause"`
	Target         string    `json:"target"`
	TargetVersion  int64     `json:"target_version,omitempty"` // 0 when there is no such target
	Platform       string    `json:"platform,omitempty"`
	ProfileID      uuid.UUID `json:"profile_id,omitzero"`
}

func firingKeys(f Firing, delivery uuid.UUID, o Outcome) Keys {
	return Keys{Subject: f.ProfileID, Target: f.Target, DeliveryID: delivery, State: string(o)}
}

// Unresolved is a variable that a template names and the context lacks.
type Unresolved struct {
	Name    string `json:"name"`
	Part    string `json:"part,omitempty"` // body, url, or header and its name
	Partial string `json:"partial,omitempty" doc:"the partial that line and column are in; absent: the part itself"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
}

// DeliveryPlanned records that a firing will be sent, with everything that the request consists of.
type DeliveryPlanned struct {
	DeliveryID uuid.UUID `json:"delivery_id" doc:"derived from the firing and the target"`
	Firing
	Consent     Decision          `json:"consent" doc:"what the consent rule answered, and by which event"`
	Unresolved  []Unresolved      `json:"unresolved,omitempty" doc:"variables that the context lacked"`
	BodySHA256  string            `json:"body_sha256" doc:"hex, of the rendered body with its secrets masked"`
	BodyBytes   int               `json:"body_bytes" doc:"length of the rendered body"`
	Constants   *ConstantsUsed    `json:"constants,omitempty" doc:"the constants that it was rendered with; absent without any"`
	Partials    int64             `json:"partials,omitempty" doc:"position of the last change of a partial that the templates could name"`
	MaxAttempts int               `json:"max_attempts" doc:"how many attempts the target's version allows"`
	DueAt       time.Time         `json:"due_at,omitzero" doc:"not sent before; absent is at once"`
	ExpiresAt   time.Time         `json:"expires_at,omitzero" doc:"not sent at this time or later"`
	Priority    string            `json:"priority,omitempty" doc:"transactional goes before promotional"`
	Ordered     bool              `json:"ordered,omitempty" doc:"sent after what was planned before it for the same person and target"`
	URL         string            `json:"url,omitempty" sealed:"true" doc:"the rendered URL, secrets as placeholders"`
	Headers     map[string]string `json:"headers,omitempty" sealed:"true" doc:"the rendered headers, secrets as placeholders"`
	Body        string            `json:"body,omitempty" sealed:"true" doc:"the rendered body, secrets as placeholders"`
	Zone        string            `json:"zone,omitempty" sealed:"true" doc:"the person's time zone, where the target's quiet hours ask for it"`
	Placeholder string            `json:"placeholder,omitempty" sealed:"true" doc:"what this delivery's placeholders begin with; random, so that no context can name a secret"`
}

// PlaceholderEnd ends a secret's placeholder: what the delivery's placeholders begin with, the secret's name, and this, which
// no name holds and no encoding changes.
const PlaceholderEnd = "~"

// DeliveryWithheld records that a firing is not sent, or not sent again, because it must not be.
type DeliveryWithheld struct {
	DeliveryID uuid.UUID `json:"delivery_id"`
	Firing
	Reason  string   `json:"reason" doc:"consent, condition, target_disabled, target_deleted, erased or retention_ended"`
	Detail  string   `json:"detail" doc:"one sentence for people"`
	Consent Decision `json:"consent" doc:"what the consent rule answered, and by which event"`
	Attempt int      `json:"attempt,omitempty" doc:"the attempt that it kept from being made; absent when none was planned"`
}

// DeliveryRejected records that a firing cannot be sent as it is.
type DeliveryRejected struct {
	DeliveryID uuid.UUID `json:"delivery_id"`
	Firing
	Reason     string       `json:"reason" doc:"unknown_target, template_error, invalid_body, unresolved, invalid_url or condition_error"`
	Detail     string       `json:"detail" doc:"one sentence for people: what, where, and what to do"`
	Part       string       `json:"part,omitempty" doc:"body, url, or header and its name"`
	Line       int          `json:"line,omitempty"`
	Column     int          `json:"column,omitempty"`
	Unresolved []Unresolved `json:"unresolved,omitempty"`
	Message    string       `json:"message,omitempty" sealed:"true" doc:"the template engine's own words, which may quote the context"`
}

// DeliveryAttempted records one finished request to a platform and what became of the delivery by it.
//
// Appended once per attempt, after the answer is read or the timeout passes. Where no answer arrived, status is 0.
type DeliveryAttempted struct {
	DeliveryID      uuid.UUID           `json:"delivery_id"`
	Target          string              `json:"target"`
	ProfileID       uuid.UUID           `json:"profile_id,omitzero"`
	Attempt         int                 `json:"attempt" doc:"1-based"`
	StartedAt       time.Time           `json:"started_at" doc:"when the request left"`
	DurationMS      float64             `json:"duration_ms" doc:"milliseconds from dialling to the last byte read"`
	Status          int                 `json:"status" doc:"HTTP status; 0 when no answer arrived"`
	Verdict         Verdict             `json:"verdict" doc:"what the answer means"`
	Reason          string              `json:"reason,omitempty" doc:"why, in words, without personal data"`
	Outcome         Outcome             `json:"outcome" doc:"what the delivery is now: succeeded, retrying or failed"`
	NextAttemptAt   *time.Time          `json:"next_attempt_at,omitempty" doc:"when retrying"`
	Consent         *Decision           `json:"consent,omitempty" doc:"what the consent rule answered for this attempt, where it differs from the plan's"`
	ConsentAsOf     int64               `json:"consent_as_of,omitempty" doc:"ledger position of the consent state that was asked before it left; nothing recorded up to here was overlooked"`
	Address         string              `json:"address,omitempty" doc:"the IP address and port that it went to"`
	Timings         *Timings            `json:"timings,omitempty" doc:"where the time went; absent when no connection was asked for"`
	BodySHA256      string              `json:"body_sha256,omitempty" doc:"hex, of the body as it was sent, secrets and idempotency key included"`
	RateLimit       *RateLimit          `json:"rate_limit,omitempty" doc:"what the answer said about the account's quota"`
	Probe           bool                `json:"probe,omitempty" doc:"it tried whether a paused target answers again"`
	Worker          string              `json:"worker,omitempty" doc:"the process that made it"`
	Redirects       []Redirect          `json:"redirects,omitempty" sealed:"true" doc:"that were followed, in order; address and timings are the last request's"`
	RequestHeaders  map[string][]string `json:"request_headers,omitempty" sealed:"true" doc:"as they were sent, secrets masked"`
	ResponseBytes   int64               `json:"response_bytes,omitempty" doc:"bytes of the response body that were read"`
	ResponseHeaders map[string][]string `json:"response_headers,omitempty" sealed:"true"`
	ResponseBody    string              `json:"response_body,omitempty" sealed:"true" doc:"its first 4 KiB"`
}

// RateLimit is a platform's own account of its quota, as its answer told it.
type RateLimit struct {
	Limit     int       `json:"limit,omitempty"` // requests in the window
	Remaining int       `json:"remaining"`       // requests left in it
	Reset     time.Time `json:"reset,omitzero"`  // when the window ends
	Scope     string    `json:"scope,omitempty"` // the platform's name for the quota
}

// Timings are the parts of one request, in milliseconds. A part that did not take place is absent: a connection that was
// open already needs no DNS.
type Timings struct {
	DNS       float64 `json:"dns_ms,omitempty"`
	Connect   float64 `json:"connect_ms,omitempty"`
	TLS       float64 `json:"tls_ms,omitempty"`
	FirstByte float64 `json:"first_byte_ms,omitempty"` // from asking for a connection to the first byte of the answer
	Reused    bool    `json:"reused,omitempty"`        // the connection was open already
}

// Redirect is an answer that led an attempt on to another URL.
type Redirect struct {
	Status int    `json:"status"` // 307 or 308
	To     string `json:"to"`     // where it led, secrets masked
}

// DeliveryAttemptLost records an attempt whose outcome nobody knows: its intent was recorded, then its process died.
type DeliveryAttemptLost struct {
	DeliveryID    uuid.UUID  `json:"delivery_id"`
	Target        string     `json:"target"`
	ProfileID     uuid.UUID  `json:"profile_id,omitzero"`
	Attempt       int        `json:"attempt"`
	Worker        string     `json:"worker" doc:"the process that had claimed it"`
	ClaimedAt     time.Time  `json:"claimed_at"`
	Outcome       Outcome    `json:"outcome" doc:"retrying or failed"`
	NextAttemptAt *time.Time `json:"next_attempt_at,omitempty"`
}

var (
	exampleFiring = Firing{
		FiringID: uuid.MustParse("018f6b7e-8c5a-7d43-9b62-4f5f3a9d1c11"), FiringPosition: 41,
		Reaction: "reward-earned", Trigger: "reward.created", Cause: "reaction",
		Target: "klaviyo-reward-earned", TargetVersion: 3, Platform: "klaviyo",
		ProfileID: uuid.MustParse("8fc344db-713e-4590-ab26-e82d77ba3313"),
	}
	exampleDelivery = DeliveryID(exampleFiring.FiringID, exampleFiring.Target)
	exampleTime     = time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)

	_ = declare("delivery.planned", 1, FromLedger, "The planner answers a firing: it will be sent.",
		DeliveryPlanned{
			DeliveryID: exampleDelivery, Firing: exampleFiring,
			Consent:    Decision{Decision: DecisionAllowed, Reason: "opted_in", Channel: Email, Purpose: Promo, Status: OptedIn, Position: 17, AsOf: 41},
			BodySHA256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", BodyBytes: 512, MaxAttempts: 8,
			URL: "https://a.klaviyo.com/api/events", Body: `{"data":{}}`,
		})
	_ = declare("delivery.withheld", 1, FromLedger, "A firing is not sent, or not sent again, because consent, a condition or the target's state forbids it.",
		DeliveryWithheld{
			DeliveryID: exampleDelivery, Firing: exampleFiring, Reason: "consent", Detail: "customer opted out of email/promo at 2026-11-23T04:05:06Z (event 17)",
			Consent: Decision{Decision: DecisionWithheld, Reason: "opted_out", Channel: Email, Purpose: Promo, Status: OptedOut, Position: 17, AsOf: 41},
		})
	_ = declare("delivery.rejected", 1, FromLedger, "A firing cannot be sent as it is: no such target, or its template fails on this context.",
		DeliveryRejected{DeliveryID: exampleDelivery, Firing: exampleFiring, Reason: "template_error", Detail: "the body's template fails at line 3, column 18", Part: "body", Line: 3, Column: 18})
	_ = declare("delivery.attempted", 1, FromLedger, "The dispatcher finished one request; its outcome is what the delivery is from then on.",
		DeliveryAttempted{
			DeliveryID: exampleDelivery, Target: exampleFiring.Target, ProfileID: exampleFiring.ProfileID, Attempt: 1, StartedAt: exampleTime,
			DurationMS: 12.4, Status: 202, Verdict: Accepted, Outcome: Succeeded, Address: "198.51.100.7:443", Worker: "host-1/4711",
		})
	_ = declare("delivery.attempt_lost", 1, FromLedger, "A claim outlived its worker: whether its request left is unknown, and said so.",
		DeliveryAttemptLost{DeliveryID: exampleDelivery, Target: exampleFiring.Target, ProfileID: exampleFiring.ProfileID, Attempt: 1, Worker: "host-1/4711", ClaimedAt: exampleTime, Outcome: Retrying})
)

// Stream is the delivery's.
func (d DeliveryPlanned) Stream() string { return DeliveryStream(d.DeliveryID) }

// Keys selects by person, target and delivery.
func (d DeliveryPlanned) Keys() Keys { return firingKeys(d.Firing, d.DeliveryID, Pending) }

// Validate accepts what the planner made.
func (d DeliveryPlanned) Validate() error { return requireDelivery(d.DeliveryID) }

// Stream is the delivery's.
func (d DeliveryWithheld) Stream() string { return DeliveryStream(d.DeliveryID) }

// Keys selects by person, target and delivery.
func (d DeliveryWithheld) Keys() Keys { return firingKeys(d.Firing, d.DeliveryID, Withheld) }

// Validate accepts what the planner or the dispatcher made.
func (d DeliveryWithheld) Validate() error { return requireDelivery(d.DeliveryID) }

// Stream is the delivery's.
func (d DeliveryRejected) Stream() string { return DeliveryStream(d.DeliveryID) }

// Keys selects by person, target and delivery.
func (d DeliveryRejected) Keys() Keys { return firingKeys(d.Firing, d.DeliveryID, Rejected) }

// Validate accepts what the planner made.
func (d DeliveryRejected) Validate() error { return requireDelivery(d.DeliveryID) }

// Stream is the delivery's.
func (d DeliveryAttempted) Stream() string { return DeliveryStream(d.DeliveryID) }

// Keys selects by person, target and delivery.
func (d DeliveryAttempted) Keys() Keys {
	return Keys{Subject: d.ProfileID, Target: d.Target, DeliveryID: d.DeliveryID, State: string(d.Outcome)}
}

// Validate accepts what the dispatcher made.
func (d DeliveryAttempted) Validate() error { return requireDelivery(d.DeliveryID) }

// Stream is the delivery's.
func (d DeliveryAttemptLost) Stream() string { return DeliveryStream(d.DeliveryID) }

// Keys selects by person, target and delivery.
func (d DeliveryAttemptLost) Keys() Keys {
	return Keys{Subject: d.ProfileID, Target: d.Target, DeliveryID: d.DeliveryID, State: string(d.Outcome)}
}

// Validate accepts what the dispatcher made.
func (d DeliveryAttemptLost) Validate() error { return requireDelivery(d.DeliveryID) }

func requireDelivery(id uuid.UUID) error {
	if id == uuid.Nil {
		return Invalid("/delivery_id", "is missing")
	}
	return nil
}
