package schema

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// digestVersion opens every digest, so that another layout can never be mistaken for this one.
const digestVersion = "dispatch-ledger event digest v1"

// Digest commits to everything that is known of an event before the lock: each field of the envelope with its
// length before it, then the SHA-256 of data and of sealed. Committing to the two by their hashes lets evidence
// leave either out and still be checked against the tree.
//
// Fields, in order: id, type, stream, subject, channel, purpose, state, target, delivery id, occurred_at (signed
// microseconds since 1970, big-endian), actor, source, correlation id, causation id, SHA-256(data), SHA-256(sealed).
// An absent value has the length 2³²-1 and no bytes.
func Digest(e *domain.Event) [sha256.Size]byte {
	h := make([]byte, 0, 512)
	h = append(h, digestVersion...)
	text := func(s string) {
		if s == "" {
			h = binary.BigEndian.AppendUint32(h, absent)
			return
		}
		h = binary.BigEndian.AppendUint32(h, uint32(len(s))) //nolint:gosec // bounded by MaxEvent, far below 4 GiB
		h = append(h, s...)
	}
	id := func(u uuid.UUID) {
		if u == uuid.Nil {
			h = binary.BigEndian.AppendUint32(h, absent)
			return
		}
		h = binary.BigEndian.AppendUint32(h, uint32(len(u)))
		h = append(h, u[:]...)
	}
	hash := func(b []byte) {
		if b == nil {
			h = binary.BigEndian.AppendUint32(h, absent)
			return
		}
		sum := sha256.Sum256(b)
		h = binary.BigEndian.AppendUint32(h, sha256.Size)
		h = append(h, sum[:]...)
	}
	id(e.ID)
	text(e.Type)
	text(e.Stream)
	id(e.Subject)
	text(e.Channel)
	text(e.Purpose)
	text(e.State)
	text(e.Target)
	id(e.DeliveryID)
	if e.OccurredAt.IsZero() {
		h = binary.BigEndian.AppendUint32(h, absent)
	} else {
		h = binary.BigEndian.AppendUint32(h, 8)
		h = binary.BigEndian.AppendUint64(h, uint64(e.OccurredAt.UnixMicro())) //nolint:gosec // two's complement, as int8send
	}
	text(e.Actor)
	text(e.Source)
	id(e.CorrelationID)
	id(e.CausationID)
	hash(e.Data)
	hash(e.Sealed)
	return sha256.Sum256(h)
}

const absent = 0xFFFFFFFF

// Leaf is the event's leaf in the Merkle tree: SHA-256(0x00 ‖ digest ‖ position ‖ version ‖ recorded_at), the last
// three as big-endian 64-bit integers, the time in microseconds since 1970. The database computes the same under
// the lock, where position, version and time become known.
func Leaf(digest [sha256.Size]byte, position, version int64, recordedAt time.Time) [sha256.Size]byte {
	var b [1 + sha256.Size + 24]byte
	copy(b[1:], digest[:])
	binary.BigEndian.PutUint64(b[1+sha256.Size:], uint64(position))                  //nolint:gosec // positive
	binary.BigEndian.PutUint64(b[1+sha256.Size+8:], uint64(version))                 //nolint:gosec // positive
	binary.BigEndian.PutUint64(b[1+sha256.Size+16:], uint64(recordedAt.UnixMicro())) //nolint:gosec // two's complement, as int8send
	return sha256.Sum256(b[:])
}
