package export

import (
	"crypto/sha256"
	"encoding/json"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
)

// Row is an event as it stands in a file. What is empty is null.
type Row struct {
	Position      int64    `parquet:"position,delta,zstd"`
	ID            [16]byte `parquet:"id,uuid,zstd"`
	Type          string   `parquet:"type,dict,zstd"`
	Stream        string   `parquet:"stream,zstd"`
	Version       int64    `parquet:"version,zstd"`
	Subject       [16]byte `parquet:"subject,optional,uuid,zstd"`
	Channel       string   `parquet:"channel,optional,dict,zstd"`
	Purpose       string   `parquet:"purpose,optional,dict,zstd"`
	State         string   `parquet:"state,optional,dict,zstd"`
	Target        string   `parquet:"target,optional,dict,zstd"`
	DeliveryID    [16]byte `parquet:"delivery_id,optional,uuid,zstd"`
	OccurredAt    *int64   `parquet:"occurred_at,optional,timestamp(microsecond),zstd"`
	RecordedAt    int64    `parquet:"recorded_at,timestamp(microsecond),delta,zstd"`
	Actor         string   `parquet:"actor,dict,zstd"`
	Source        string   `parquet:"source,dict,zstd"`
	CorrelationID [16]byte `parquet:"correlation_id,optional,uuid,zstd"`
	CausationID   [16]byte `parquet:"causation_id,optional,uuid,zstd"`
	Data          string   `parquet:"data,json,zstd"` // exactly as it was recorded
	Sealed        []byte   `parquet:"sealed,optional,zstd"`
	SealedSHA256  []byte   `parquet:"sealed_sha256,optional,zstd"` // where sealed is left out, so that the leaf can be checked all the same
	Leaf          []byte   `parquet:"leaf,zstd"`
}

// rowOf makes a row of an event, good as long as that is.
func rowOf(e *domain.Recorded, sealed bool) Row {
	r := Row{
		Position: e.Position, ID: e.ID, Type: e.Type, Stream: e.Stream, Version: e.Version, Subject: e.Subject,
		Channel: e.Channel, Purpose: e.Purpose, State: e.State, Target: e.Target, DeliveryID: e.DeliveryID, RecordedAt: e.RecordedAt.UnixMicro(),
		Actor: e.Actor, Source: e.Source, CorrelationID: e.CorrelationID, CausationID: e.CausationID, Data: string(e.Data), Leaf: e.Leaf,
	}
	if !e.OccurredAt.IsZero() {
		at := e.OccurredAt.UnixMicro()
		r.OccurredAt = &at
	}
	switch {
	case e.Sealed == nil:
	case sealed:
		r.Sealed = e.Sealed
	default:
		sum := sha256.Sum256(e.Sealed)
		r.SealedSHA256 = sum[:]
	}
	return r
}

// event is the row as the ledger recorded it.
func (r *Row) event() domain.Recorded {
	e := r.envelope().Recorded()
	e.Data, e.Sealed, e.Leaf = []byte(r.Data), r.Sealed, r.Leaf
	return e
}

func (r *Row) envelope() *evidence.Envelope {
	e := evidence.Envelope{
		Position: r.Position, ID: r.ID, Type: r.Type, Stream: r.Stream, Version: r.Version, Subject: r.Subject, Channel: r.Channel, Purpose: r.Purpose, State: r.State, Target: r.Target,
		DeliveryID: r.DeliveryID, RecordedAt: time.UnixMicro(r.RecordedAt).UTC(), Actor: r.Actor, Source: r.Source, CorrelationID: r.CorrelationID, CausationID: r.CausationID,
	}
	if r.OccurredAt != nil {
		e.OccurredAt = time.UnixMicro(*r.OccurredAt).UTC()
	}
	return &e
}

// leaf is the row's leaf, from what stands in it.
func (r *Row) leaf() domain.Hash {
	e := r.event()
	digest := domain.Digest(&e.Event)
	if len(r.SealedSHA256) == sha256.Size {
		sealed := domain.Hash(r.SealedSHA256)
		digest = domain.DigestRedacted(&e.Event, sha256.Sum256(e.Data), &sealed)
	}
	return domain.Leaf(digest, e.Position, e.Version, e.RecordedAt)
}

// line is the row in NDJSON. Its data comes last, byte for byte as it was recorded: see ndjsonEncoder.
type line struct {
	evidence.Envelope
	Sealed       []byte          `json:"sealed,omitempty"`        // base64
	SealedSHA256 []byte          `json:"sealed_sha256,omitempty"` // base64
	Leaf         []byte          `json:"leaf"`                    // base64
	Data         json.RawMessage `json:"data,omitempty"`
}

// row is the line as a row.
func (l *line) row() Row {
	e := l.Recorded()
	e.Data, e.Sealed, e.Leaf = l.Data, l.Sealed, l.Leaf
	r := rowOf(&e, true)
	r.SealedSHA256 = l.SealedSHA256
	return r
}
