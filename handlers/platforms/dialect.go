package platforms

import (
	"net/http"
	"net/url"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// Dialect is how one platform takes a send and answers it. Every method is pure: no clock, no network, no state.
type Dialect interface {
	// Validate checks a rendered body before it is sent. It returns a [*BodyError] that names each offending
	// place by JSON pointer; errors.Is finds [ErrBody], and [ErrRetired] or [ErrDangerous] where they apply.
	Validate(body []byte) error

	// Prepare returns the request that goes out on the wire: the given one with the delivery's idempotency key
	// added in the platform's own place, and signed where the platform wants that. A key that the target's
	// author wrote into the body is kept. The given request is not changed. It returns [ErrBody] when the key
	// has to go into a body that is not a JSON object.
	Prepare(req Request) (Request, error)

	// Classify says what an answer means for the delivery. Now is when the answer arrived: times that the
	// platform gives as "seconds from now" are counted from it. Body may be a prefix of the answer.
	Classify(status int, header http.Header, body []byte, now time.Time) Verdict
}

// Request is one HTTP request to a platform, before and after [Dialect.Prepare].
type Request struct {
	DeliveryID string    // idempotency key: the same for every attempt of one delivery
	At         time.Time // when this attempt is made; signatures carry it

	Method string
	URL    *url.URL
	Header http.Header
	Body   []byte

	SigningSecrets []string // webhook signing secrets ("whsec_…"), newest first; empty: unsigned

	Key Key // set by Prepare: the idempotency key that is on the wire, and where
}

// Clone returns a copy whose header and URL may be changed.
func (r Request) Clone() Request {
	r.Header = r.Header.Clone()
	if r.Header == nil {
		r.Header = http.Header{}
	}
	if r.URL != nil {
		u := *r.URL
		r.URL = &u
	}
	return r
}

// Key is the idempotency key as it was put on the wire.
type Key struct {
	Dedupe Dedupe // what the platform does with a second request of the same key, on this call

	In    string // "header Idempotency-Key", "body /data/attributes/unique_id", "url messageKey"; empty: the platform has none
	Value string
}

// Dedupe is what a platform does with a second request that carries the same idempotency key. After an attempt
// whose outcome is unknown (timeout, lost connection), it decides whether trying again can reach the person twice.
type Dedupe string

// The ways in which platforms deduplicate.
const (
	DedupeNone       Dedupe = "none"       // it does not: a retry may send twice
	DedupeDrops      Dedupe = "drops"      // the second one is answered like the first and dropped
	DedupeRejects    Dedupe = "rejects"    // the second one is refused as a duplicate
	DedupeOverwrites Dedupe = "overwrites" // the second one replaces the first, and may trigger it again
	DedupeReceiver   Dedupe = "receiver"   // left to the receiver, who is told the key
)

// SafeToRepeat reports whether an attempt with an unknown outcome can be repeated without reaching the person twice.
func (d Dedupe) SafeToRepeat() bool { return d == DedupeDrops || d == DedupeRejects }

// Verdict is an answer read in the platform's dialect.
type Verdict struct {
	Kind    domain.Verdict // never network_error, timeout or lost: those are given when no answer arrived, see ClassifyError
	Reason  string         // one sentence for a person, with what to do where something can be done; our words alone, since it is kept for ever
	Said    string         // the platform's own, where they tell more: they may quote the request, see outbound
	Native  string         // the platform's own code or message, verbatim and short; empty when it gave none
	RetryAt time.Time      // not before this; zero: the caller's own back-off
	Limit   RateLimit      // what the answer said about the account's quota, also on a success

	Disable   bool        // the endpoint is gone for good (410, retired API): stop using the target and say why
	MessageID string      // the platform's id for the message, when it gives one
	Refusal   *Fact       // Refused only: why the person is suppressed there
	Items     []ItemError // Partial only: what was not taken
}

// ItemError is one item that a platform did not take inside an answer that was otherwise a success.
type ItemError struct {
	Index  int    // position in the request's array; -1 when the platform does not say
	Native string // its words
}

// RateLimit is a platform's own account of its quota. The zero value says nothing was said.
type RateLimit struct {
	Limit     int       // requests in the window; 0: not said
	Remaining int       // requests left in it; meaningful when Known
	Reset     time.Time // when the window ends; zero: not said
	Scope     string    // the platform's name for the quota, where it has one
	Known     bool      // whether the answer carried any of it
}
