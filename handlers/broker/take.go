package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// errTaken says that somebody else has taken the batch.
var errTaken = errors.New("taken by another")

// take makes a batch this process's, if it is nobody's yet: a compare-and-set on a subject of its own, which a majority of
// the cluster agrees on. Nil: it is ours. errTaken: it is another's, for good. Any other error: it is not known whose it is,
// and asking again tells.
func (b *Broker) take(ctx context.Context, batch, who string) error {
	body, err := json.Marshal(start{By: who})
	if err != nil {
		return fmt.Errorf("take: %w", err)
	}
	msg := nats.NewMsg(b.start(batch))
	msg.Data = body
	_, err = b.js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequencePerSubject(0), jetstream.WithRetryAttempts(0))
	if err == nil {
		return nil
	}
	// The answer may have been lost, or the first try of ours have been taken in: what stands there decides.
	stream, lookErr := b.js.Stream(ctx, b.of(streamStarts))
	if lookErr != nil {
		return fmt.Errorf("%w: take: %w", ErrUnreachable, errors.Join(err, lookErr))
	}
	stood, lookErr := stream.GetLastMsgForSubject(ctx, b.start(batch))
	if lookErr != nil {
		return fmt.Errorf("%w: take: %w", ErrUnreachable, errors.Join(err, lookErr))
	}
	var first start
	if json.Unmarshal(stood.Data, &first) == nil && first.By == who {
		return nil
	}
	return errTaken
}
