package domain

import (
	"strconv"
	"time"

	"github.com/google/uuid"
)

// ReplayFilter says which deliveries a replay puts back. An empty field selects all; what succeeded never is among them.
type ReplayFilter struct {
	Target   string    `json:"target,omitempty"`
	Reaction string    `json:"reaction,omitempty"`
	Platform string    `json:"platform,omitempty"`
	Outcomes []Outcome `json:"outcomes"`
	From     time.Time `json:"from,omitzero" doc:"planned at this time or later"`
	To       time.Time `json:"to,omitzero" doc:"planned before this time"`
}

// ReplayAsked records that somebody had many deliveries tried again.
type ReplayAsked struct {
	ID       uuid.UUID    `json:"id"`
	Filter   ReplayFilter `json:"filter"`
	Rate     float64      `json:"rate,omitempty" doc:"deliveries a second; absent: as fast as the targets' own limits allow"`
	Selected int          `json:"selected" doc:"deliveries that the filter selected at that moment; counting ends at a million"`
	Reason   string       `json:"reason,omitempty" doc:"why, in words"`
}

// ReplayEnded records how a replay ended. Each delivery that it put back has an event of its own.
type ReplayEnded struct {
	ID       uuid.UUID `json:"id"`
	Outcome  string    `json:"outcome" doc:"done, or cancelled"`
	Requeued int       `json:"requeued" doc:"deliveries that were put back"`
	Skipped  int       `json:"skipped" doc:"without a request"`
	Refused  int       `json:"refused" doc:"erased, withdrawn with their target, or changed at that moment"`
}

// How a replay stands. The last two are how it ends.
const (
	ReplayRunning   = "running"
	ReplayDone      = "done"
	ReplayCancelled = "cancelled"
)

var (
	_ = declare("replay.asked", 1, FromLedger, "Many deliveries are tried again: those that a filter selects, at a rate.", ReplayAsked{
		ID: uuid.MustParse("018f5a1e-7c2b-7d4e-9a3f-5b6c7d8e9f01"), Filter: ReplayFilter{Target: "welcome-email", Outcomes: []Outcome{Failed, Expired}}, Rate: 20, Selected: 1842, Reason: "the platform was down",
	})
	_ = declare("replay.ended", 1, FromLedger, "A replay has put back all that its filter selected, or was cancelled.", ReplayEnded{ID: uuid.MustParse("018f5a1e-7c2b-7d4e-9a3f-5b6c7d8e9f01"), Outcome: ReplayDone, Requeued: 1840, Refused: 2})
)

// ReplayStream is the stream of a replay.
func ReplayStream(id uuid.UUID) string { return "replay-" + id.String() }

// Stream is the replay's.
func (r ReplayAsked) Stream() string { return ReplayStream(r.ID) }

// Keys has the target, where there is one.
func (r ReplayAsked) Keys() Keys { return Keys{Target: r.Filter.Target, State: ReplayRunning} }

// Validate refuses what no worker could do.
func (r ReplayAsked) Validate() error {
	for i, o := range r.Filter.Outcomes {
		switch o {
		case Failed, Expired, Cancelled, Withheld:
		default:
			return Invalid("/outcomes/"+strconv.Itoa(i), "is not failed, expired, cancelled or withheld")
		}
	}
	switch {
	case len(r.Filter.Outcomes) == 0:
		return Invalid("/outcomes", "is empty")
	case r.Rate < 0:
		return Invalid("/rate", "is below 0")
	}
	return nil
}

// Stream is the replay's.
func (r ReplayEnded) Stream() string { return ReplayStream(r.ID) }

// Keys has how it ended.
func (r ReplayEnded) Keys() Keys { return Keys{State: r.Outcome} }

// Validate accepts what the service made.
func (r ReplayEnded) Validate() error { return nil }
