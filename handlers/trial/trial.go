// Package trial tries a target out: in the inspector, where nothing leaves, or at its real URL.
//
//	context ─▶ render ─▶ request with dots for secrets ─▶ inspector      target.tested
//	        └─▶ reaction.fired, cause test ─▶ planner ─▶ dispatcher ─▶ URL   recorded like every delivery
package trial

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/twig"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/catalogue"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/inspector"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/outbound"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Trials tries targets out.
type Trials struct {
	DB          *sql.DB // with the projections on its search path
	Ledger      *schema.Ledger
	Vault       *schema.Vault
	Inspector   *inspector.Handler
	Variables   map[string]any // the service's constants
	Environment string
	Now         func() time.Time
}

// Request says what is tried out, and on what.
type Request struct {
	Target  domain.Target
	Version int64 // of the target; 0 for a draft

	Context  json.RawMessage // nil: that of Delivery, or else the target's own sample
	Delivery uuid.UUID       // whose context is used; it is revealed to who asks, and that is recorded
	Reason   string          // why it may be revealed
	Bin      string          // of the inspector; "" makes one
}

// Report is what a rehearsal shows.
type Report struct {
	Method     string
	URL        string
	Headers    map[string][]string // as they were sent, secrets as dots, signatures real
	Body       string              // as it arrived
	BodySHA256 string
	Unresolved []domain.Unresolved
	Condition  *bool  // what the target's condition says; nil when it has none
	Problem    string // why the platform would not take the body; "" when nothing is known against it
	NotSent    string // why no request could be made; "" when it reached the inspector
	Context    string // given, sample or past
	Bin        schema.Bin
	Key        string // opens the bin's page
	Number     int64  // of the request in the bin; 0 when none was made
}

// Errors of trials.
var (
	ErrNoContext = fmt.Errorf("%w: there is no context to test with: give one, name a past delivery, or write a sample into the target", domain.ErrInvalid)
	ErrNoReason  = fmt.Errorf("%w: a past context is somebody's data: say why you look at it", domain.ErrInvalid)
)

// Rehearse renders a target and sends the request to the inspector.
//
// Errors: *domain.TemplateError, *domain.RenderError; ErrNoContext; ErrNoReason; schema.ErrNotFound; schema.ErrErased.
func (t Trials) Rehearse(ctx context.Context, by catalogue.Author, r Request) (out Report, err error) {
	raw, subject, from, err := t.context(ctx, by, r)
	if err != nil {
		return out, err
	}
	out.Context = from
	partials, err := targets.Partials(ctx, t.DB)
	if err != nil {
		return out, err
	}
	compiled, err := domain.CompileTarget(r.Target, partials)
	if err != nil {
		return out, err
	}
	data, err := twig.DecodeContext(raw)
	if err != nil {
		return out, domain.Invalid("/context", "is not a context that a template can read")
	}
	if len(compiled.Condition) > 0 {
		holds, err := compiled.Holds(raw)
		if err != nil {
			return out, err
		}
		out.Condition = &holds
	}
	placeholder := "__secret_" + rand.Text() + "_"
	rendering, err := compiled.Render(ctx, data, domain.Environment{
		Name: t.Environment, Variables: t.Variables, Now: t.Now, Secret: func(name string) string { return placeholder + name + domain.PlaceholderEnd },
	})
	if err != nil {
		return out, err
	}
	out.Unresolved = rendering.Unresolved
	if p, err := platforms.Lookup(compiled.Platform); err != nil {
		return out, err
	} else if compiled.Content() == domain.ContentJSON {
		if err := p.Dialect.Validate([]byte(rendering.Body)); err != nil {
			out.Problem = err.Error()
		}
	}
	if out.Bin, err = t.bin(ctx, by, r.Bin); err != nil {
		return out, err
	}
	out.Key = t.Inspector.Inspector.Key(out.Bin.ID)
	planned := domain.DeliveryPlanned{
		DeliveryID: uuid.New(), Firing: domain.Firing{Target: r.Target.Handle, ProfileID: subject},
		URL: rendering.URL, Headers: rendering.Headers, Body: rendering.Body, Placeholder: placeholder,
	}
	return out, t.send(ctx, by, planned, compiled.Target, r, &out)
}

func (t Trials) bin(ctx context.Context, by catalogue.Author, id string) (schema.Bin, error) {
	if id != "" {
		return t.Inspector.Inspector.Bin(ctx, id)
	}
	return t.Inspector.Inspector.Create(ctx, by.Name, 0, 0)
}

// send makes the request in this process and records the test.
func (t Trials) send(ctx context.Context, by catalogue.Author, planned domain.DeliveryPlanned, target domain.Target, r Request, out *Report) error {
	request, err := outbound.MakeOut(ctx, t.Vault, planned, target, 1)
	if err != nil {
		out.NotSent = err.Error()
		out.show(planned, target)
		return nil //nolint:nilerr // it is said in the outcome
	}
	outcome, err := outbound.Rehearse(ctx, request, t.Now(), func(u *url.URL) http.Handler {
		out.URL = u.String()
		return t.Inspector.Rehearsal(out.Bin.ID, planned.ProfileID, out.URL, "a test by "+by.Name, func(number int64) { out.Number = number })
	})
	if err != nil {
		return err
	}
	out.Method, out.Headers, out.BodySHA256 = target.Method, outcome.Attempt.RequestHeaders, outcome.Attempt.BodySHA256
	if out.Number == 0 {
		out.NotSent = outcome.Verdict.Reason
		out.show(planned, target)
		return nil
	}
	arrived, err := t.Inspector.Inspector.Requests(ctx, out.Bin.ID, out.Number-1, 1)
	if err != nil {
		return err
	}
	if len(arrived) == 1 {
		out.Body = string(arrived[0].Body)
	}
	return t.record(ctx, by, domain.TargetTested{
		Handle: r.Target.Handle, Version: r.Version, Bin: out.Bin.ID, Number: out.Number, Context: out.Context, DeliveryID: r.Delivery, Unresolved: len(out.Unresolved),
	})
}

// show is what a request that could not be made would have been, as far as it is known.
func (out *Report) show(planned domain.DeliveryPlanned, target domain.Target) {
	placeholder := regexp.MustCompile(regexp.QuoteMeta(planned.Placeholder) + `[^` + domain.PlaceholderEnd + `]*` + domain.PlaceholderEnd)
	masked := func(text string) string { return placeholder.ReplaceAllString(text, outbound.Mask) }
	out.Method, out.URL, out.Body, out.Headers = target.Method, masked(planned.URL), masked(planned.Body), map[string][]string{}
	for name, value := range planned.Headers {
		out.Headers[name] = []string{masked(value)}
	}
}

// context finds the context to test with, and whom it is about.
func (t Trials) context(ctx context.Context, by catalogue.Author, r Request) (raw json.RawMessage, subject uuid.UUID, from string, err error) {
	given := bytes.TrimSpace(r.Context)
	switch {
	case len(given) > 0 && r.Delivery != uuid.Nil:
		return nil, subject, "", domain.Invalid("/delivery", "is not given beside a context")
	case len(given) > 0:
		if given[0] != '{' {
			return nil, subject, "", domain.Invalid("/context", "is not a JSON object")
		}
		return r.Context, subject, "given", nil
	case r.Delivery != uuid.Nil:
		past, err := t.Past(ctx, by, r.Delivery, r.Reason)
		return past.Context, past.ProfileID, "past", err
	case len(r.Target.Sample) > 0:
		return r.Target.Sample, subject, "sample", nil
	}
	return nil, subject, "", ErrNoContext
}

// Past opens the context of a past delivery, with the firing that it belongs to. That it is shown is recorded before.
//
// Errors: ErrNoReason; schema.ErrNotFound; schema.ErrErased.
func (t Trials) Past(ctx context.Context, by catalogue.Author, delivery uuid.UUID, reason string) (past domain.ReactionFired, err error) {
	if reason == "" {
		return past, ErrNoReason
	}
	d, err := deliveries.Get(ctx, t.DB, delivery)
	if err != nil {
		return past, err
	}
	recorded, err := schema.EventAt(ctx, t.DB, d.Firing.FiringPosition)
	if err != nil {
		return past, err
	}
	if err := t.record(ctx, by, domain.SealedRevealed{ProfileID: d.Firing.ProfileID, DeliveryID: delivery, What: "event", Reason: reason}); err != nil {
		return past, err
	}
	opened, err := t.Vault.OpenEvents(ctx, []domain.Recorded{recorded})
	if err != nil {
		return past, err
	}
	past, ok := opened[0].Payload.(domain.ReactionFired)
	if !ok || opened[0].Erased || len(past.Context) == 0 {
		return past, fmt.Errorf("the context of delivery %s: %w", delivery, schema.ErrErased)
	}
	return past, nil
}

func (t Trials) record(ctx context.Context, by catalogue.Author, p domain.Payload) error {
	e, _, err := domain.New(uuid.New(), p)
	if err != nil {
		return err
	}
	e.Actor, e.Source, e.OccurredAt = by.Name, by.Source, t.Now()
	_, err = t.Ledger.Append(ctx, e)
	return err
}

// Fire tests a target at its real URL: a firing with the cause test, which asks consent, is retried and is recorded like every
// other. It gives the delivery's id.
func (t Trials) Fire(ctx context.Context, by catalogue.Author, r Request, profile uuid.UUID) (uuid.UUID, error) {
	raw, subject, _, err := t.context(ctx, by, r)
	if err != nil {
		return uuid.Nil, err
	}
	if profile == uuid.Nil {
		profile = subject
	}
	data, err := json.Marshal(domain.ReactionFired{Reaction: "test", Target: r.Target.Handle, ProfileID: profile, Cause: "test", Context: raw})
	if err != nil {
		return uuid.Nil, domain.Invalid("/context", "is not JSON")
	}
	in := intake.Service{Ledger: t.Ledger, Vault: t.Vault, Clock: t.Now}
	accepted, err := in.Accept(ctx, by.Name, []intake.Event{{ID: domain.NewID().String(), Source: by.Source, Type: "reaction.fired", Time: t.Now(), Data: data}})
	if err != nil {
		return uuid.Nil, err
	}
	return domain.DeliveryID(accepted[0].EventID, r.Target.Handle), nil
}

// Await gives a delivery once nothing more happens to it, or as it is when the time is over. It may not be planned by then: that
// is schema.ErrNotFound.
func (t Trials) Await(ctx context.Context, id uuid.UUID, patience time.Duration) (d deliveries.Delivery, err error) {
	end := time.NewTimer(patience)
	defer end.Stop()
	look := time.NewTicker(25 * time.Millisecond)
	defer look.Stop()
	for {
		d, err = deliveries.Get(ctx, t.DB, id)
		if err != nil && !errors.Is(err, schema.ErrNotFound) || err == nil && d.Outcome.Final() {
			return d, err
		}
		select {
		case <-look.C:
		case <-end.C:
			return d, err
		case <-ctx.Done():
			return d, ctx.Err()
		}
	}
}

// Answer is what a receiver said to the last attempt of a delivery. It is sealed, so that it is shown is recorded before; nil
// when no answer arrived.
func (t Trials) Answer(ctx context.Context, by catalogue.Author, d deliveries.Delivery) (*domain.DeliveryAttempted, error) {
	if len(d.Trail) == 0 {
		return nil, nil //nolint:nilnil // no answer is an answer
	}
	recorded, err := schema.EventAt(ctx, t.DB, d.Trail[len(d.Trail)-1].Position)
	if err != nil {
		return nil, err
	}
	if err := t.record(ctx, by, domain.SealedRevealed{ProfileID: d.Firing.ProfileID, DeliveryID: d.ID, What: "delivery", Reason: "test of the target " + d.Firing.Target}); err != nil {
		return nil, err
	}
	opened, err := t.Vault.OpenEvents(ctx, []domain.Recorded{recorded})
	if err != nil {
		return nil, err
	}
	if a, ok := opened[0].Payload.(domain.DeliveryAttempted); ok {
		return &a, nil
	}
	return nil, nil //nolint:nilnil // the attempt was lost
}
