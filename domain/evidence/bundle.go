package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// Format opens every bundle, so that another layout can never be mistaken for this one.
const Format = "dispatch-ledger/evidence/v1"

// maxBundle bounds what Read takes, in bytes: a delivery with hundreds of attempts and a person with thousands of decisions.
const maxBundle = 64 << 20

// Bundle is the whole story of one delivery, with its proof, in one file: the delivery's events, the firing that caused
// it, the version of the target that was used, the person's decisions up to then, and a checkpoint that covers them all.
//
// The file is JSON because whoever receives it can read it with what they have, and look at it before they believe it. What
// was hashed byte for byte stands in it as a string, which JSON keeps exactly.
type Bundle struct {
	Format     string    `json:"format"`
	DeliveryID uuid.UUID `json:"delivery_id"`
	Checkpoint string    `json:"checkpoint"` // a signed note, C2SP tlog-checkpoint
	Events     []Event   `json:"events"`     // by position
}

// Envelope is what is known of an event besides its data, as it stands in files: bundles and exports.
type Envelope struct {
	Position      int64     `json:"position"`
	ID            uuid.UUID `json:"id"`
	Type          string    `json:"type"`
	Stream        string    `json:"stream"`
	Version       int64     `json:"version"`
	Subject       uuid.UUID `json:"subject,omitzero"`
	Channel       string    `json:"channel,omitempty"`
	Purpose       string    `json:"purpose,omitempty"`
	State         string    `json:"state,omitempty"`
	Target        string    `json:"target,omitempty"`
	DeliveryID    uuid.UUID `json:"delivery_id,omitzero"`
	OccurredAt    time.Time `json:"occurred_at,omitzero"`
	RecordedAt    time.Time `json:"recorded_at"`
	Actor         string    `json:"actor,omitempty"`
	Source        string    `json:"source,omitempty"`
	CorrelationID uuid.UUID `json:"correlation_id,omitzero"`
	CausationID   uuid.UUID `json:"causation_id,omitzero"`
}

// EnvelopeOf is a recorded event's.
func EnvelopeOf(e *domain.Recorded) Envelope {
	return Envelope{
		Position: e.Position, ID: e.ID, Type: e.Type, Stream: e.Stream, Version: e.Version,
		Subject: e.Subject, Channel: e.Channel, Purpose: e.Purpose, State: e.State, Target: e.Target, DeliveryID: e.DeliveryID,
		OccurredAt: e.OccurredAt, RecordedAt: e.RecordedAt, Actor: e.Actor, Source: e.Source, CorrelationID: e.CorrelationID, CausationID: e.CausationID,
	}
}

// Recorded is the event, without its data and its leaf.
func (e *Envelope) Recorded() domain.Recorded {
	return domain.Recorded{
		Event: domain.Event{
			ID: e.ID, Type: e.Type, Stream: e.Stream,
			Keys:       domain.Keys{Subject: e.Subject, Channel: e.Channel, Purpose: e.Purpose, State: e.State, Target: e.Target, DeliveryID: e.DeliveryID},
			OccurredAt: e.OccurredAt, Actor: e.Actor, Source: e.Source, CorrelationID: e.CorrelationID, CausationID: e.CausationID,
		},
		Position: e.Position, Version: e.Version, RecordedAt: e.RecordedAt,
	}
}

// Event is a recorded event with the proof that it stands in the ledger. Everything that its leaf commits to is here, in the
// clear or as a hash.
type Event struct {
	Envelope
	Data         string      `json:"data,omitempty"`          // JSON, the exact bytes that were recorded; absent when it was left out
	DataSHA256   string      `json:"data_sha256,omitempty"`   // hex, in its place
	SealedSHA256 string      `json:"sealed_sha256,omitempty"` // hex, of the personal data as it is stored, encrypted; absent when the event has none
	Opened       string      `json:"opened,omitempty"`        // that data in the clear, JSON; only when it was asked for, and not under the proof
	Path         []tlog.Hash `json:"path"`                    // base64, the inclusion proof from the leaf up
}

// NewEvent makes a bundle's event of a recorded one and its proof. opened is the sealed part in the clear, or nil to leave it out.
func NewEvent(e domain.Recorded, path tlog.RecordProof, opened []byte) Event {
	out := Event{Envelope: EnvelopeOf(&e), Data: string(e.Data), Opened: string(opened), Path: path}
	if e.Sealed != nil {
		out.SealedSHA256 = hexSHA256(e.Sealed)
	}
	return out
}

// Redact leaves data out, and whatever was opened; the event can still be proven.
func (e *Event) Redact() {
	if e.Data != "" {
		e.DataSHA256 = hexSHA256([]byte(e.Data))
	}
	e.Data, e.Opened = "", ""
}

// Leaf is the event's leaf, from what is here of it. Errors: ErrFormat.
func (e *Event) Leaf() (tlog.Hash, error) {
	event := e.Recorded()
	data := sha256.Sum256([]byte(e.Data))
	if e.DataSHA256 != "" {
		if e.Data != "" {
			return tlog.Hash{}, fmt.Errorf("%w: event %d has both data and its hash", ErrFormat, e.Position)
		}
		if err := parseSHA256(&data, e.DataSHA256); err != nil {
			return tlog.Hash{}, fmt.Errorf("%w: event %d: data_sha256: %w", ErrFormat, e.Position, err)
		}
	}
	var sealed *domain.Hash
	if e.SealedSHA256 != "" {
		sealed = new(domain.Hash)
		if err := parseSHA256(sealed, e.SealedSHA256); err != nil {
			return tlog.Hash{}, fmt.Errorf("%w: event %d: sealed_sha256: %w", ErrFormat, e.Position, err)
		}
	}
	return domain.Leaf(domain.DigestRedacted(&event.Event, data, sealed), e.Position, e.Version, e.RecordedAt), nil
}

// Proof is the event's proof alone, to be written as a .tlog-proof beside the event.
func (b Bundle) Proof(e Event) Proof {
	return Proof{Position: e.Position, Path: e.Path, Checkpoint: []byte(b.Checkpoint)}
}

// Write writes the bundle's file.
func (b Bundle) Write(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(b)
}

// Read reads a bundle's file, strictly: a field that it does not know is an error, because nothing would vouch for it.
// Errors: ErrFormat; the reader's.
func Read(r io.Reader) (Bundle, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxBundle+1))
	switch {
	case err != nil:
		return Bundle{}, fmt.Errorf("read evidence: %w", err)
	case len(text) > maxBundle:
		return Bundle{}, fmt.Errorf("%w: the file is larger than %d bytes", ErrFormat, maxBundle)
	}
	var b Bundle
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		return Bundle{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	switch {
	case dec.More():
		return Bundle{}, fmt.Errorf("%w: something follows the bundle", ErrFormat)
	case b.Format != Format:
		return Bundle{}, fmt.Errorf("%w: the file's format is %.64q, and this program reads %q", ErrFormat, b.Format, Format)
	}
	return b, nil
}

func hexSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func parseSHA256(into *domain.Hash, text string) error {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(into) {
		return fmt.Errorf("%.80q is not a SHA-256 in hex", text)
	}
	copy(into[:], raw)
	return nil
}
