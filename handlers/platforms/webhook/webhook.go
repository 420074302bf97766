// Package webhook is the platform of one's own: any receiver of an HTTP POST, signed after Standard Webhooks 1.0.
//
// Source: https://github.com/standard-webhooks/standard-webhooks (specification, reply handling).
package webhook

import (
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

// Name is how targets name this platform.
const Name = "webhook"

//go:embed targets/*.yaml
var files embed.FS

func init() {
	targets, err := fs.Sub(files, "targets")
	if err != nil {
		panic(err) // the path is a constant
	}
	platforms.Register(platforms.Platform{Name: Name, Title: "Custom webhook", Dialect: Dialect{}, Caps: caps, Import: columns, Targets: targets, Needs: needs, Connect: connect, Receive: receive})
}

var every = []platforms.Reason{
	platforms.Unsubscribed, platforms.Complaint, platforms.Legal, platforms.HardBounce, platforms.SoftBounce, platforms.Manual, platforms.Deleted,
}

var caps = platforms.Caps{
	Channels:    []domain.Channel{domain.Email, domain.SMS, domain.Push, domain.Phone, domain.Post},
	Writes:      []domain.Channel{domain.Email, domain.SMS, domain.Push, domain.Phone, domain.Post},
	Dedupe:      platforms.DedupeReceiver,
	ReadReasons: map[domain.Channel][]platforms.Reason{domain.Email: every, domain.SMS: every},
	SinceStep:   time.Millisecond,
	SeesClears:  true,
	RepeatsShow: true,
	WriteMax:    writeMax,
	CarriesDate: true,
}

// Dialect is the plain one: answers are read by status class, the delivery id travels in headers.
type Dialect struct{}

var _ platforms.Dialect = Dialect{}

// Validate asks for well-formed JSON and nothing more.
func (Dialect) Validate(body []byte) error { return platforms.CheckJSON(Name, body) }

// Prepare adds webhook-id and Idempotency-Key, unless the target sets them itself, and the time of this attempt.
// With signing secrets it adds a signature by each, newest first, so that a receiver can rotate.
func (Dialect) Prepare(req platforms.Request) (platforms.Request, error) {
	out := req.Clone()
	id := out.Header.Get("webhook-id")
	if id == "" {
		id = req.DeliveryID
		out.Header.Set("webhook-id", id)
	}
	if out.Header.Get("Idempotency-Key") == "" {
		out.Header.Set("Idempotency-Key", id)
	}
	out.Key = platforms.Key{Dedupe: platforms.DedupeReceiver, In: "header webhook-id", Value: id}
	out.Header.Set("webhook-timestamp", strconv.FormatInt(req.At.Unix(), 10))

	var signatures []string
	for _, secret := range req.SigningSecrets {
		signature, err := sign(secret, id, req.At, req.Body)
		if err != nil {
			return platforms.Request{}, err
		}
		signatures = append(signatures, signature)
	}
	if len(signatures) > 0 {
		out.Header.Set("webhook-signature", strings.Join(signatures, " "))
	}
	return out, nil
}

// sign never quotes the secret: not in its result, not in its errors.
func sign(secret, id string, at time.Time, body []byte) (string, error) {
	hook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return "", fmt.Errorf(`webhook: signing secret is not "whsec_" and base64: %w`, err)
	}
	signature, err := hook.Sign(id, at, body)
	if err != nil {
		return "", fmt.Errorf("webhook: sign: %w", err)
	}
	return signature, nil
}

// Classify reads the status class.
func (Dialect) Classify(status int, header http.Header, _ []byte, now time.Time) platforms.Verdict {
	return platforms.ByStatus(status, header, now)
}
