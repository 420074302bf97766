package platforms

import (
	"context"
	"errors"
	"net/http"
)

// Confirmation is a first post by which a platform asks whether we want its webhooks. It changes nothing; Inbound hands it
// back as an error.
type Confirmation interface {
	error
	Confirm(ctx context.Context, client Describer) error
}

// AnyOf decodes with the secret of a name as it is, or as it was before it was rotated, as long as that still counts.
func AnyOf(c Connection, name string, decoder func(Secret) Inbound) Inbound {
	either := rotated{decoder(c.Secrets[name])}
	if previous := c.Previous[name]; previous != "" {
		either = append(either, decoder(previous))
	}
	return either
}

type rotated []Inbound

// Decode implements [Inbound].
func (r rotated) Decode(h http.Header, body []byte) (records []Record, err error) {
	for _, in := range r {
		if records, err = in.Decode(h, body); !errors.Is(err, ErrSignature) {
			return records, err
		}
	}
	return nil, err
}
