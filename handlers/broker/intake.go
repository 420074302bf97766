package broker

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// subjectHeader holds the subject that a message came on.
const subjectHeader = "nats-subject"

// intakeReaders is how many messages of the stream of events are handled at once in one writer. The ledger's group commit
// makes one transaction of those that wait together.
const intakeReaders = 64

// eventsConsumer is the one cursor of all writers on the stream of events.
func (b *Broker) eventsConsumer() subscription {
	return subscription{
		name: "events", ahead: 8, patience: 30 * time.Second, nakDelay: 200 * time.Millisecond,
		consumer: b.shared(streamEvents, jetstream.ConsumerConfig{Durable: "writers", AckWait: 30 * time.Second, MaxAckPending: 4096}),
	}
}

// taken handles messages of the stream of events: a message is what a request to POST /v1/events is. Its emitter, the last
// part of the subject, is the actor in the ledger; the broker's permissions say who may publish as whom. What can never be
// accepted is put aside with the reason, and nothing waits for it.
func (w *Writer) taken(service *intake.Service, limits intake.Limits, put message.Publisher) message.NoPublishHandlerFunc {
	return func(msg *message.Message) error {
		emitter := strings.TrimPrefix(msg.Metadata.Get(subjectHeader), w.broker.events(""))
		delete(msg.Metadata, subjectHeader)
		err := service.Handler("broker:"+emitter, limits)(msg)
		if !intake.Permanent(err) {
			return err
		}
		sealer, sealErr := w.vault.Sealer(msg.Context(), []uuid.UUID{schema.Nobody})
		if sealErr != nil {
			return sealErr
		}
		sum := sha256.Sum256(msg.Payload)
		r, sealErr := aside(sealer, msg, Rejected{Emitter: emitter, At: w.now().UTC(), Reason: err.Error()}, sum[:])
		if sealErr != nil {
			return sealErr
		}
		body, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("put a message aside: %w", err)
		}
		w.broker.Log.WarnContext(msg.Context(), "a message on the stream of events is no event; it is put aside", slog.String("emitter", emitter), slog.String("reason", r.Reason))
		w.metrics.rejected.Inc()
		return put.Publish(w.broker.rejected(), message.NewMessage(uuid.NewSHA1(uuid.NameSpaceOID, sum[:]).String(), body))
	}
}

// EventsSubject is the subject on which an emitter publishes CloudEvents, one in structured mode or a batch to a message,
// through Watermill's own NATS publisher or any other client.
func EventsSubject(ledger, emitter string) string {
	return names{prefix: "dispatch-ledger." + ledger + "."}.events(emitter)
}
