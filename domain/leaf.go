package domain

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/google/uuid"
)

// digestVersion opens every digest, so that another layout can never be mistaken for this one.
const digestVersion = "dispatch-ledger event digest v1"

// Hash is a SHA-256.
type Hash = [sha256.Size]byte

// Digest commits to everything that is known of an event before the lock: each field of the envelope with its
// length before it, then the SHA-256 of data and of sealed. Committing to the two by their hashes lets evidence
// leave either out and still be checked against the tree.
//
// Fields, in order: id, type, stream, subject, channel, purpose, state, target, delivery id, occurred_at (signed
// microseconds since 1970, big-endian), actor, source, correlation id, causation id, SHA-256(data), SHA-256(sealed).
// An absent value has the length 2³²-1 and no bytes.
func Digest(e *Event) Hash {
	var data, sealed Hash
	var sealedSum *Hash
	data = sha256.Sum256(e.Data)
	if e.Sealed != nil {
		sealed = sha256.Sum256(e.Sealed)
		sealedSum = &sealed
	}
	return DigestRedacted(e, data, sealedSum)
}

// DigestRedacted is Digest for who has the SHA-256 of data and of sealed, and perhaps neither of them. sealed is
// nil for an event without a sealed part.
func DigestRedacted(e *Event, data Hash, sealed *Hash) Hash {
	var room [512]byte
	h := append(room[:0], digestVersion...)
	h = appendID(h, e.ID)
	h = appendText(h, e.Type)
	h = appendText(h, e.Stream)
	h = appendID(h, e.Subject)
	h = appendText(h, e.Channel)
	h = appendText(h, e.Purpose)
	h = appendText(h, e.State)
	h = appendText(h, e.Target)
	h = appendID(h, e.DeliveryID)
	if e.OccurredAt.IsZero() {
		h = binary.BigEndian.AppendUint32(h, absent)
	} else {
		h = binary.BigEndian.AppendUint32(h, 8)
		h = binary.BigEndian.AppendUint64(h, uint64(e.OccurredAt.UnixMicro()))
	}
	h = appendText(h, e.Actor)
	h = appendText(h, e.Source)
	h = appendID(h, e.CorrelationID)
	h = appendID(h, e.CausationID)
	h = appendHash(h, &data)
	h = appendHash(h, sealed)
	return sha256.Sum256(h)
}

const absent = 0xFFFFFFFF

func appendText(h []byte, s string) []byte {
	if s == "" {
		return binary.BigEndian.AppendUint32(h, absent)
	}
	h = binary.BigEndian.AppendUint32(h, uint32(len(s))) //nolint:gosec // an event is far below 4 GiB
	return append(h, s...)
}

func appendID(h []byte, u uuid.UUID) []byte {
	if u == uuid.Nil {
		return binary.BigEndian.AppendUint32(h, absent)
	}
	h = binary.BigEndian.AppendUint32(h, uint32(len(u)))
	return append(h, u[:]...)
}

func appendHash(h []byte, sum *Hash) []byte {
	if sum == nil {
		return binary.BigEndian.AppendUint32(h, absent)
	}
	h = binary.BigEndian.AppendUint32(h, sha256.Size)
	return append(h, sum[:]...)
}

// Leaf is the event's leaf in the Merkle tree: SHA-256(0x00 ‖ digest ‖ position ‖ version ‖ recorded_at), the last
// three as big-endian 64-bit integers, the time in microseconds since 1970. The database computes the same under
// the lock, where position, version and time become known.
//
// In the terms of RFC 6962 it is the leaf hash of an entry of 56 bytes, the digest and the three integers.
func Leaf(digest Hash, position, version int64, recordedAt time.Time) Hash {
	var b [1 + sha256.Size + 24]byte
	copy(b[1:], digest[:])
	binary.BigEndian.PutUint64(b[1+sha256.Size:], uint64(position))  //nolint:gosec // positive
	binary.BigEndian.PutUint64(b[1+sha256.Size+8:], uint64(version)) //nolint:gosec // positive
	binary.BigEndian.PutUint64(b[1+sha256.Size+16:], uint64(recordedAt.UnixMicro()))
	return sha256.Sum256(b[:])
}
