package intake

import (
	"errors"
	"net/http"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Handler takes events in from a Watermill topic, on which actor publishes. A message is what a request to
// POST /v1/events is: its payload is the body, its metadata are the headers (content-type, ce-id, …). A message
// without either is taken to be one event in structured mode.
//
// A message is acknowledged once its events are durable, and one that comes again is recognised. An error that is not
// schema.Transient will be the same the next time: let the router's middleware.PoisonQueueWithFilter have it, with
// Permanent as the filter.
func (s *Service) Handler(actor string, l Limits) message.NoPublishHandlerFunc {
	return func(msg *message.Message) error {
		events, err := Parse(headerOf(msg.Metadata), msg.Payload, l)
		if err != nil {
			return err
		}
		_, err = s.Accept(msg.Context(), actor, events)
		return err
	}
}

// Permanent reports whether a message that failed so will fail again, however often it comes.
func Permanent(err error) bool {
	return err != nil && !schema.Transient(err) && !errors.Is(err, schema.ErrBusy) && !errors.Is(err, schema.ErrClosed)
}

func headerOf(metadata message.Metadata) http.Header {
	header := http.Header{}
	described := false
	for name, value := range metadata {
		header.Set(name, value)
		described = described || strings.EqualFold(name, "content-type") || strings.HasPrefix(strings.ToLower(name), "ce-")
	}
	if !described {
		header.Set("Content-Type", MediaTypeEvent)
	}
	return header
}
