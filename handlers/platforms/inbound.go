package platforms

import (
	"errors"
	"net/http"
)

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
