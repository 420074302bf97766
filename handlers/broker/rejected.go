package broker

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Rejected is a message that is no event, as it was put aside: enough to find its producer and what was wrong. What it holds
// is sealed under the vault's key for what concerns nobody, since it may be anything.
type Rejected struct {
	Sequence uint64    `json:"sequence,omitempty"` // its number, by which it is asked for
	Emitter  string    `json:"emitter"`            // who published it
	ID       string    `json:"id,omitempty"`       // of the message
	At       time.Time `json:"at"`
	Reason   string    `json:"reason"`
	SHA256   string    `json:"sha256"` // of the body
	Size     int       `json:"size"`   // of the body, in bytes
	Sealed   []byte    `json:"sealed,omitempty"`
}

// ErrNoRejected is a number that no message put aside has, or has any more.
var ErrNoRejected = fmt.Errorf("no message that was put aside has this number: %w", schema.ErrNotFound)

// content is what of a message is sealed.
type content struct {
	Headers map[string]string `json:"headers,omitempty"`
	Body    []byte            `json:"body"`
}

// aside makes what is put aside of a message.
func aside(sealer schema.Sealer, msg *message.Message, r Rejected, sum []byte) (Rejected, error) {
	headers := map[string]string(maps.Clone(msg.Metadata))
	delete(headers, sequenceHeader)
	r.ID, r.SHA256, r.Size = msg.UUID, hex.EncodeToString(sum), len(msg.Payload)
	plain, err := json.Marshal(content{headers, msg.Payload})
	if err != nil {
		return r, fmt.Errorf("put a message aside: %w", err)
	}
	r.Sealed, err = sealer.Seal(schema.Nobody, sum, plain)
	return r, err
}

// Rejected lists what was put aside, the oldest first, beginning after a number.
func (b *Broker) Rejected(ctx context.Context, after uint64, limit int) ([]Rejected, error) {
	stream, err := b.known(ctx, streamRejected)
	if err != nil {
		return nil, err
	}
	var out []Rejected
	for len(out) < limit {
		raw, err := stream.GetMsg(ctx, after+1, jetstream.WithGetMsgSubject(b.rejected()))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		after = raw.Sequence
		r, err := readRejected(raw)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// known gives a stream that a writer has made.
func (b *Broker) known(ctx context.Context, name string) (jetstream.Stream, error) {
	stream, err := b.js.Stream(ctx, b.of(name))
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, fmt.Errorf("%w: there is no stream %s: a writer of ledger %s makes it when it starts, with serve --broker", ErrConfig, b.of(name), b.Ledger)
	case err != nil:
		return nil, b.provisioning(b.of(name), err)
	}
	return stream, nil
}

func readRejected(raw *jetstream.RawStreamMsg) (r Rejected, err error) {
	if err := json.Unmarshal(raw.Data, &r); err != nil {
		return r, fmt.Errorf("message %d that was put aside cannot be read: %w", raw.Sequence, err)
	}
	r.Sequence = raw.Sequence
	return r, nil
}

// RejectedMessage gives one that was put aside, and what it holds: as it came, to be handled once more.
func (b *Broker) RejectedMessage(ctx context.Context, vault *schema.Vault, sequence uint64) (Rejected, *message.Message, error) {
	stream, err := b.known(ctx, streamRejected)
	if err != nil {
		return Rejected{}, nil, err
	}
	raw, err := stream.GetMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return Rejected{}, nil, ErrNoRejected
	}
	if err != nil {
		return Rejected{}, nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	r, err := readRejected(raw)
	if err != nil {
		return r, nil, err
	}
	opener, err := vault.Opener(ctx, []uuid.UUID{schema.Nobody})
	if err != nil {
		return r, nil, err
	}
	sum, err := hex.DecodeString(r.SHA256)
	if err != nil {
		return r, nil, fmt.Errorf("message %d that was put aside cannot be read: %w", sequence, err)
	}
	plain, err := opener.Open(schema.Nobody, sum, r.Sealed)
	if err != nil {
		return r, nil, fmt.Errorf("message %d that was put aside: %w", sequence, err)
	}
	var c content
	if err := json.Unmarshal(plain, &c); err != nil {
		return r, nil, fmt.Errorf("message %d that was put aside cannot be read: %w", sequence, err)
	}
	msg := message.NewMessage(r.ID, c.Body)
	msg.Metadata = c.Headers
	if msg.Metadata == nil {
		msg.Metadata = message.Metadata{}
	}
	msg.SetContext(ctx)
	return r, msg, nil
}

// Forget removes one that was put aside.
func (b *Broker) Forget(ctx context.Context, sequence uint64) error {
	stream, err := b.known(ctx, streamRejected)
	if err != nil {
		return err
	}
	if err := stream.SecureDeleteMsg(ctx, sequence); err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return nil
}

// StreamState is how a stream of the ledger stands.
type StreamState struct {
	Stream   string    `json:"stream"`
	Messages uint64    `json:"messages"` // that are in it: in a queue, those that wait
	Bytes    uint64    `json:"bytes"`
	Oldest   time.Time `json:"oldest,omitzero"`
	Leader   string    `json:"leader"`   // server that leads it; empty: there is none, and nothing moves
	Copies   int       `json:"copies"`   // that are up to date
	Replicas int       `json:"replicas"` // that there are meant to be
	InHand   int       `json:"in_hand"`  // given to a reader and not acknowledged
}

// State tells how each stream of the ledger stands.
func (b *Broker) State(ctx context.Context) ([]StreamState, error) {
	var out []StreamState
	for _, name := range []string{streamEvents, streamRejected, streamJobs, streamStarts, streamResults, streamFences} {
		stream, err := b.known(ctx, name)
		if err != nil {
			return nil, err
		}
		info := stream.CachedInfo()
		s := StreamState{Stream: name, Messages: info.State.Msgs, Bytes: info.State.Bytes, Replicas: info.Config.Replicas, Copies: 1}
		if s.Messages > 0 {
			s.Oldest = info.State.FirstTime
		}
		if c := info.Cluster; c != nil {
			s.Leader = c.Leader
			if c.Leader == "" {
				s.Copies = 0
			}
			for _, r := range c.Replicas {
				if r.Current && !r.Offline {
					s.Copies++
				}
			}
		}
		if info.Config.Retention == jetstream.WorkQueuePolicy {
			consumers := stream.ListConsumers(ctx)
			for c := range consumers.Info() {
				s.InHand += c.NumAckPending
			}
			if err := consumers.Err(); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
			}
		}
		out = append(out, s)
	}
	return out, nil
}
