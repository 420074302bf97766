package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Publisher is the client for engines that speak Watermill.
//
// The topic is the event's type, such as reaction.fired; the message's UUID is the event's id, by which a repeat is
// recognised; its payload is the event's data. The metadata source and time (RFC 3339) are the event's, and may be absent.
type Publisher struct{ client *Client }

var _ message.Publisher = Publisher{}

// Publisher gives the client as a Watermill publisher. Closing it closes the client.
func (c *Client) Publisher() Publisher { return Publisher{c} }

// Publish records messages as events of a type, and returns when each has its place in the ledger or is refused.
func (p Publisher) Publish(topic string, messages ...*message.Message) error {
	items := make([]*item, len(messages))
	for i, m := range messages {
		var at time.Time
		if text := m.Metadata.Get("time"); text != "" {
			var err error
			if at, err = time.Parse(time.RFC3339Nano, text); err != nil {
				return fmt.Errorf("message %s: its metadata time is no RFC 3339 time", m.UUID)
			}
		}
		if m.UUID == "" || !json.Valid(m.Payload) {
			return fmt.Errorf("message %q: it needs a UUID, and JSON as its payload", m.UUID)
		}
		text, err := p.client.envelope(m.UUID, m.Metadata.Get("source"), topic, at, json.RawMessage(m.Payload))
		if err != nil {
			return fmt.Errorf("message %s: %w", m.UUID, err)
		}
		items[i] = &item{text: text, done: make(chan struct{})}
	}
	for i, it := range items {
		if err := p.client.put(messages[i].Context(), it); err != nil {
			return err
		}
	}
	var errs []error
	for i, it := range items {
		<-it.done
		if it.err != nil {
			errs = append(errs, fmt.Errorf("message %s: %w", messages[i].UUID, it.err))
		}
	}
	return errors.Join(errs...)
}

// Close closes the client.
func (p Publisher) Close() error {
	p.client.Close()
	return nil
}
