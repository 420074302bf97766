package dispatcher

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
)

// attempt makes out the request of a planned delivery and has it sent.
func (d *Dispatcher) attempt(ctx context.Context, planned domain.DeliveryPlanned, t targets.Target, attempt int) (Outcome, error) {
	r, err := d.request(ctx, planned, t, attempt)
	if err != nil {
		return Outcome{
			Attempt: domain.DeliveryAttempted{StartedAt: d.Now().UTC().Truncate(time.Microsecond)},
			Verdict: platforms.Verdict{Kind: domain.RetryLater, Reason: "not sent: " + err.Error()},
		}, nil
	}
	return d.Sender.Send(ctx, r)
}

// request is the planned request with the secrets that it names.
func (d *Dispatcher) request(ctx context.Context, planned domain.DeliveryPlanned, t targets.Target, attempt int) (r Request, err error) {
	r = Request{
		DeliveryID: planned.DeliveryID, Attempt: attempt, ProfileID: planned.ProfileID, Target: planned.Target,
		Platform: t.Platform, Method: t.Method, URL: planned.URL, ContentType: t.ContentType, Content: t.Content(), Headers: planned.Headers, Body: planned.Body,
		Timeout: time.Duration(t.Retry.Timeout), Placeholder: planned.Placeholder, SignedWith: t.Signing,
	}
	if r.Secrets, err = d.secrets(ctx, planned); err != nil {
		return r, err
	}
	r.Signing, err = d.signing(ctx, t.Signing)
	return r, err
}

// signing gives the values that sign a request, the newest first: of each secret the current one, and while it is being
// rotated the one before it.
func (d *Dispatcher) signing(ctx context.Context, names []string) (values []string, err error) {
	for _, name := range names {
		s, err := d.Vault.Secret(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("its signing secret %q is not there; set it with: dispatch-ledger secret set %s", name, name)
		}
		values = append(values, s.Reveal())
		if previous, ok := s.RevealPrevious(); ok {
			values = append(values, previous)
		}
	}
	return values, nil
}

// secrets gives the values of the secrets that a planned request has placeholders of, by name.
func (d *Dispatcher) secrets(ctx context.Context, planned domain.DeliveryPlanned) (map[string]string, error) {
	if planned.Placeholder == "" {
		return nil, nil
	}
	values := map[string]string{}
	for _, text := range append([]string{planned.URL, planned.Body}, mapValues(planned.Headers)...) {
		for rest := text; ; {
			_, after, ok := strings.Cut(rest, planned.Placeholder)
			if !ok {
				break
			}
			name, tail, ok := strings.Cut(after, "__")
			if !ok {
				break
			}
			rest = tail
			if _, done := values[name]; done {
				continue
			}
			s, err := d.Vault.Secret(ctx, name)
			if err != nil {
				return nil, fmt.Errorf("its secret %q is not there; set it with: dispatch-ledger secret set %s", name, name)
			}
			values[name] = s.Reveal()
		}
	}
	return values, nil
}

func mapValues(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for _, v := range m {
		out = append(out, v)
	}
	return out
}
