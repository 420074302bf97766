package broker

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wjs "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/jetstream"
	wnats "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v5"
	"github.com/lib/pq"
	"github.com/nats-io/nats.go/jetstream"
)

func pqArray(s []string) any { return pq.Array(s) }

// sequenceHeader holds where in its stream a message stands.
const sequenceHeader = "stream-sequence"

// sequenceOf is the message's place in its stream; 0 when it is not known.
func sequenceOf(msg *message.Message) uint64 {
	n, err := strconv.ParseUint(msg.Metadata.Get(sequenceHeader), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// placed makes Watermill messages that know where in their stream they stand. Unlike Watermill's own unmarshaller it takes
// whatever comes: that one answers a header given twice with an error, over which its subscriber panics.
type placed struct{}

// Unmarshal makes a message. Of a header given twice the first value counts.
func (placed) Unmarshal(m jetstream.Msg) (*message.Message, error) {
	header := m.Headers()
	msg := message.NewMessage(header.Get(wnats.WatermillUUIDHdr), m.Data())
	for name, values := range header {
		if len(values) > 0 && name != wnats.WatermillUUIDHdr && name != jetstream.MsgIDHeader {
			msg.Metadata.Set(name, values[0])
		}
	}
	msg.Metadata.Set(subjectHeader, m.Subject())
	if at, err := m.Metadata(); err == nil {
		msg.Metadata.Set(sequenceHeader, strconv.FormatUint(at.Sequence.Stream, 10))
	}
	return msg, nil
}

// subscription says how a stream is read.
type subscription struct {
	name     string // for the log
	consumer func(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error)
	ahead    int           // messages asked for before they are needed
	patience time.Duration // how long one may be handled before it is given to another
	nakDelay time.Duration // how long one that failed waits until it comes again
}

// subscriber is Watermill's pull subscriber over a consumer that this package makes.
func (b *Broker) subscriber(s subscription) (message.Subscriber, error) {
	if s.patience == 0 {
		s.patience = 30 * time.Second
	}
	sub, err := wjs.NewSubscriber(wjs.SubscriberConfig{
		Conn: b.nc, Logger: b.logger(s.name), AckWaitTimeout: s.patience, AckAsync: true, Unmarshaler: placed{}, NakDelay: wjs.NewStaticDelay(s.nakDelay),
		ConsumeOptions: []jetstream.PullConsumeOpt{jetstream.PullMaxMessages(max(s.ahead, 1)), jetstream.PullExpiry(5 * time.Second), jetstream.PullHeartbeat(time.Second)},
		ResourceInitializer: func(ctx context.Context, js jetstream.JetStream, _ string) (jetstream.Consumer, func(context.Context, watermill.LoggerAdapter), error) {
			// Without a majority of the cluster there is no consumer to be had. That is of the moment.
			c, err := patiently(ctx, b, "consumer "+s.name, func(ctx context.Context) (jetstream.Consumer, error) { return s.consumer(ctx, js) })
			if err != nil {
				return nil, nil, fmt.Errorf("consumer %s: %w", s.name, err)
			}
			return c, nil, nil
		},
	})
	if err != nil {
		return nil, fmt.Errorf("%w: subscriber %s: %w", ErrConfig, s.name, err)
	}
	return unclosing{sub}, nil
}

// unclosing leaves the connection to the broker, which several subscribers share: Watermill's drains it with the first that
// is closed. See Broker.Close.
type unclosing struct{ message.Subscriber }

// Close does nothing; the subscription ends with the connection.
func (unclosing) Close() error { return nil }

// inOrder reads subjects of the stream of fences in its order, from the beginning or from now on, without a mark of progress that
// outlives this process.
func (b *Broker) inOrder(policy jetstream.DeliverPolicy, subjects ...string) func(context.Context, jetstream.JetStream) (jetstream.Consumer, error) {
	return func(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error) {
		return js.OrderedConsumer(ctx, b.of(streamFences), jetstream.OrderedConsumerConfig{FilterSubjects: subjects, DeliverPolicy: policy})
	}
}

// shared reads a work queue together with all who name the same consumer.
func (b *Broker) shared(stream string, c jetstream.ConsumerConfig) func(context.Context, jetstream.JetStream) (jetstream.Consumer, error) {
	c.Name, c.AckPolicy = c.Durable, jetstream.AckExplicitPolicy
	return func(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error) {
		return js.CreateOrUpdateConsumer(ctx, b.of(stream), c)
	}
}

// startPatience is how long a process waits at its start for a cluster that has no majority, or lacks streams.
const startPatience = 2 * time.Minute

// quietTries is how often in a row something may fail before somebody should hear of it: a second and what the tries took.
const quietTries = 5

// patiently tries until it succeeds, ctx ends or startPatience is over.
func patiently[T any](ctx context.Context, b *Broker, what string, try func(context.Context) (T, error)) (T, error) {
	patience := backoff.NewExponentialBackOff()
	patience.InitialInterval, patience.MaxInterval = 100*time.Millisecond, 2*time.Second
	tries := 0
	return backoff.Retry(ctx, func() (T, error) {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		v, err := try(attempt)
		if err != nil && ctx.Err() == nil {
			level := slog.LevelDebug
			if tries++; tries > quietTries {
				level = slog.LevelWarn
			}
			b.Log.Log(ctx, level, "the broker is not ready; trying again", slog.String("what", what), slog.Any("error", err))
		}
		return v, err
	}, backoff.WithBackOff(patience), backoff.WithMaxElapsedTime(startPatience))
}
