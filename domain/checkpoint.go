package domain

import "time"

// CheckpointTimestamped records that a time stamping authority saw a checkpoint of this ledger: what it covers was
// there at that time, by somebody else's clock.
type CheckpointTimestamped struct {
	Origin     string    `json:"origin" doc:"the log's name"`
	Size       int64     `json:"size" doc:"events that the checkpoint covers"`
	Checkpoint string    `json:"checkpoint" doc:"the signed note whose SHA-256 was time-stamped, without cosignatures"`
	Authority  string    `json:"authority" doc:"URL of the time stamping authority"`
	StampedAt  time.Time `json:"stamped_at" doc:"by the authority's clock; version 1 called it time"`
	Token      []byte    `json:"token" doc:"RFC 3161 TimeStampToken, DER in base64"`
}

var _ = declare("checkpoint.timestamped", 2, FromLedger, "A time stamping authority confirmed when the ledger's checkpoint existed.",
	CheckpointTimestamped{
		Origin: "dispatch-ledger/0b6e2e0c-8f8b-4a44-9a3d-0f6f0c2a7e51", Size: 41,
		Checkpoint: "dispatch-ledger/0b6e2e0c-8f8b-4a44-9a3d-0f6f0c2a7e51\n41\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
		Authority:  "https://tsa.example.org/", StampedAt: exampleTime, Token: []byte{0x30, 0x00},
	})

// CheckpointStream is the one stream of what was said of the ledger's own checkpoints.
const CheckpointStream = "checkpoint"

// Stream is that of all checkpoints.
func (c CheckpointTimestamped) Stream() string { return CheckpointStream }

// Keys has none.
func (c CheckpointTimestamped) Keys() Keys { return Keys{} }

// Validate accepts what the service made.
func (c CheckpointTimestamped) Validate() error { return nil }
