package intake_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func TestEventsComeInByATopic(t *testing.T) {
	t.Parallel()
	s := service(t)
	pubsub := gochannel.NewGoChannel(gochannel.Config{BlockPublishUntilSubscriberAck: true}, watermill.NopLogger{})
	poisoned := gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: 1}, watermill.NopLogger{})
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 10 * time.Second}, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	poison, err := middleware.PoisonQueueWithFilter(poisoned, "refused", intake.Permanent)
	if err != nil {
		t.Fatal(err)
	}
	router.AddMiddleware(poison)
	router.AddConsumerHandler("intake", "events", pubsub, s.Handler("engine", intake.Limits{}))
	refused, err := poisoned.Subscribe(t.Context(), "refused")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- router.Run(ctx) }()
	<-router.Running()

	binary := message.NewMessage("2", []byte(firedData))
	for name, value := range map[string]string{"content-type": "application/json", "ce-specversion": "1.0", "ce-id": "2", "ce-source": "/crm", "ce-type": "reaction.fired"} {
		binary.Metadata.Set(name, value)
	}
	batch := message.NewMessage("3", []byte(`[`+structured(`,"data":`+firedData)+`]`))
	batch.Metadata.Set("content-type", intake.MediaTypeBatch)
	for _, msg := range []*message.Message{
		message.NewMessage("1", []byte(structured(`,"data":`+firedData))), binary, batch,
		message.NewMessage("4", []byte(structured(`,"data":{}`))),
	} {
		if err := pubsub.Publish("events", msg); err != nil {
			t.Fatal(err)
		}
	}
	bad := <-refused
	bad.Ack()
	if bad.UUID != "4" {
		t.Errorf("message %s was refused: %s", bad.UUID, bad.Metadata.Get(middleware.ReasonForPoisonedKey))
	}
	stop()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if head, err := s.Ledger.Head(t.Context()); err != nil || head != 2 {
		t.Errorf("head = %d, %v, want 2: the batch repeats the first event", head, err)
	}
	if r := at(t, s, 1); r.Actor != "engine" || r.Source != "/crm" {
		t.Errorf("recorded by %q from %q", r.Actor, r.Source)
	}
}

func TestPermanent(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{
		nil: false, schema.ErrBusy: false, schema.ErrUnavailable: false, schema.ErrClosed: false, context.Canceled: false,
		intake.ErrNotJSON: true, schema.ErrIDReused: true, intake.ErrUnknownType: true, errors.New("other"): true,
	} {
		if got := intake.Permanent(err); got != want {
			t.Errorf("Permanent(%v) = %v, want %v", err, got, want)
		}
	}
}
