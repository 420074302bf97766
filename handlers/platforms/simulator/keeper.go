package simulator

import (
	"errors"
	"slices"
	"time"
)

// The things that can happen at a platform by itself, without a call of ours.
const (
	Known        = "known"        // a person is there and may be sent to
	NeverAsked   = "never_asked"  // a person is there and never subscribed
	Unsubscribed = "unsubscribed" // the person opted out there
	Complained   = "complaint"    // the person marked a message as spam
	HardBounced  = "hard_bounce"
	SoftBounced  = "soft_bounce"
	Blocked      = "manual"       // the merchant suppressed the person by hand
	Resubscribed = "resubscribed" // the person opted in again: whatever suppressed before is lifted
)

// Fact is something that happens at a platform by itself.
type Fact struct {
	Account string    `json:"account"`
	Channel string    `json:"channel"`        // email or sms
	Address string    `json:"address"`        // normalised: lower-case email, or E.164
	What    string    `json:"what"`           // one of the constants above
	List    string    `json:"list,omitempty"` // on this list or group alone, where the platform has them
	At      time.Time `json:"at,omitzero"`    // zero: now
}

// ErrFact says that a fact cannot happen at this platform.
var ErrFact = errors.New("simulator: this cannot happen here")

// Keeper is what a simulator knows, beside what it answers.
type Keeper interface {
	// Happen makes a fact true at once. The error is [ErrFact].
	Happen(f Fact) error
	// Suppressed lists the addresses of a channel that the platform will not send to, with its own word for why.
	// It sees what the platform has taken in, lag or not.
	Suppressed(account, channel string) map[string]string
	// State is everything, to look at.
	State() any
}

// Later holds work that takes effect after a while: asynchronous jobs, eventual consistency. It is not safe for
// concurrent use; its simulator's mutex guards it.
type Later struct {
	work []deferred
	at   time.Time // when the work that is being done was due
}

type deferred struct {
	due time.Time
	do  func()
}

// Do puts work off until due.
func (l *Later) Do(due time.Time, do func()) { l.work = append(l.work, deferred{due, do}) }

// Now is the time at which something takes effect: for work that was put off, when it was due, however late somebody looks.
func (l *Later) Now(clock func() time.Time) time.Time {
	if l.at.IsZero() {
		return clock()
	}
	return l.at
}

// Run does what is due, earliest first.
func (l *Later) Run(now time.Time) {
	if len(l.work) == 0 {
		return
	}
	slices.SortStableFunc(l.work, func(a, b deferred) int { return a.due.Compare(b.due) })
	n := 0
	for n < len(l.work) && !l.work[n].due.After(now) {
		l.at = l.work[n].due
		l.work[n].do()
		n++
	}
	l.at = time.Time{}
	l.work = append(l.work[:0], l.work[n:]...)
}

// Flush does everything, due or not.
func (l *Later) Flush() { l.Run(time.Unix(1<<40, 0)) }
