package outbound

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// ErrReturned says that a request did not leave, for a reason that does not lie in it.
var ErrReturned = errors.New("the request did not leave")

// Request is all that one attempt takes: whoever holds it needs neither the ledger nor the vault. It holds secrets.
type Request struct {
	DeliveryID uuid.UUID `json:"delivery_id"`
	Attempt    int       `json:"attempt"`
	ProfileID  uuid.UUID `json:"profile_id,omitzero"`
	Target     string    `json:"target"`
	Known      int64     `json:"known"` // whether it may be sent was asked of the ledger up to this position

	People    []uuid.UUID          `json:"people,omitempty"`    // besides ProfileID, whose answers that depends on
	Addresses []domain.ContactHash `json:"addresses,omitempty"` // what is known of these too

	Platform    string            `json:"platform"`
	Method      string            `json:"method"`
	URL         string            `json:"url"` // like Headers and Body with the secrets' placeholders
	ContentType string            `json:"content_type"`
	Content     domain.Content    `json:"content"` // how values are escaped in the body
	Headers     map[string]string `json:"headers,omitempty"`
	Body        string            `json:"body"`
	Timeout     time.Duration     `json:"timeout"`
	Concurrency int               `json:"concurrency,omitempty"` // requests to the target that one process may have in flight; 0 leaves that to whoever hands it over
	Redirects   int               `json:"redirects,omitempty"`   // how many are followed

	Placeholder string            `json:"placeholder,omitempty"` // what the placeholders begin with; a name and domain.PlaceholderEnd follow
	Secrets     map[string]string `json:"secrets,omitempty"`     // values by name, of everything that is named here and in the placeholders
	Previous    map[string]string `json:"previous,omitempty"`    // of those that are being rotated, the values before
	Auth        *domain.Auth      `json:"auth,omitempty"`
	TLS         *domain.TLS       `json:"tls,omitempty"`
	Signing     []string          `json:"signing,omitempty"` // names of the secrets that sign it, the newest first
	HMAC        string            `json:"hmac,omitempty"`    // name of the secret that signs the body in the CRM's own way

	Written []string `json:"-"` // the target's own texts: a word of theirs names nobody
}

// Outcome is what came of a request.
type Outcome struct {
	Attempt domain.DeliveryAttempted `json:"attempt"` // what the sender knows of it: the request, the answer, the times
	Verdict platforms.Verdict        `json:"verdict"`

	// Waited is how long it waited for a slot of its target where it was sent.
	Waited time.Duration `json:"-"`
	// Recorded, unless it is nil, is called once the ledger holds the outcome.
	Recorded func() `json:"-"`
}

// Fill puts what the sender knows into the attempt that is recorded.
func (o Outcome) Fill(a *domain.DeliveryAttempted) {
	s := o.Attempt
	a.StartedAt, a.DurationMS, a.Status, a.Address, a.Timings = s.StartedAt, s.DurationMS, s.Status, s.Address, s.Timings
	a.BodySHA256, a.RequestHeaders, a.Redirects = s.BodySHA256, s.RequestHeaders, s.Redirects
	a.ResponseBytes, a.ResponseHeaders, a.ResponseBody = s.ResponseBytes, s.ResponseHeaders, s.ResponseBody
}

// Vault knows the named secrets; *schema.Vault is one.
type Vault interface {
	Secret(ctx context.Context, name string) (schema.Secret, error)
}

// MakeOut is a planned request with the secrets that it and its target name. The error says which secret is missing.
func MakeOut(ctx context.Context, v Vault, planned domain.DeliveryPlanned, t domain.Target, attempt int) (Request, error) {
	r := Request{
		DeliveryID: planned.DeliveryID, Attempt: attempt, ProfileID: planned.ProfileID, Target: planned.Target,
		Platform: t.Platform, Method: t.Method, URL: planned.URL, ContentType: t.ContentType, Content: t.Content(), Headers: planned.Headers, Body: planned.Body,
		Timeout: time.Duration(t.Retry.Timeout), Redirects: t.Redirects,
		Placeholder: planned.Placeholder, Auth: t.Auth, TLS: t.TLS, Signing: t.Signing, HMAC: t.HMAC,
		Written: t.Texts(),
	}
	for _, name := range append(placeholders(planned), t.Secrets()...) {
		if _, done := r.Secrets[name]; done {
			continue
		}
		secret, err := v.Secret(ctx, name)
		switch {
		case schema.Transient(err):
			return r, fmt.Errorf("its secret %q cannot be read now", name)
		case err != nil:
			return r, fmt.Errorf("its secret %q is not there; set it with: dispatch-ledger secret set %s", name, name)
		}
		if r.Secrets == nil {
			r.Secrets = map[string]string{}
		}
		r.Secrets[name] = secret.Reveal()
		if previous, ok := secret.RevealPrevious(); ok {
			if r.Previous == nil {
				r.Previous = map[string]string{}
			}
			r.Previous[name] = previous
		}
	}
	return r, nil
}

// placeholders are the names of the secrets that a planned request has placeholders of.
func placeholders(planned domain.DeliveryPlanned) (names []string) {
	if planned.Placeholder == "" {
		return nil
	}
	texts := []string{planned.URL, planned.Body}
	for _, value := range planned.Headers {
		texts = append(texts, value)
	}
	for _, rest := range texts {
		for {
			_, after, ok := strings.Cut(rest, planned.Placeholder)
			if !ok {
				break
			}
			name, tail, ok := strings.Cut(after, domain.PlaceholderEnd)
			if !ok {
				break
			}
			names, rest = append(names, name), tail
		}
	}
	return names
}
