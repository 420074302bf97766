package domain

import "github.com/google/uuid"

// ReaderSkipped records that an operator let a reader of the ledger pass over an event at which it fails. The event stays
// where it is; a rebuild passes over it too, unless what reads it can by then.
type ReaderSkipped struct {
	Reader   string    `json:"reader" doc:"the subscription, such as projection.consent"`
	Position int64     `json:"position" doc:"of the event that it passes over"`
	EventID  uuid.UUID `json:"event_id" doc:"of that event"`
	Reason   string    `json:"reason" doc:"why, in words"`
}

var _ = declare("reader.skipped", 1, FromLedger, "An operator let a reader of the ledger pass over an event at which it fails.",
	ReaderSkipped{Reader: "projection.consent", Position: 41, EventID: exampleDelivery, Reason: "a test event of the wrong shape, see ticket 77"})

// ReaderStream names the stream of what operators did about a reader.
func ReaderStream(reader string) string { return "reader-" + reader }

// Stream is the reader's.
func (r ReaderSkipped) Stream() string { return ReaderStream(r.Reader) }

// Keys has none.
func (r ReaderSkipped) Keys() Keys { return Keys{} }

// Validate reports what is wrong with the payload.
func (r ReaderSkipped) Validate() error {
	switch {
	case r.Reader == "":
		return Invalid("/reader", "is missing: say which reader passes over the event")
	case r.Position < 1:
		return Invalid("/position", "is %d; positions count from 1", r.Position)
	case r.Reason == "":
		return Invalid("/reason", "is empty: say why")
	}
	return nil
}
