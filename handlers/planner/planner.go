// Package planner answers each firing with exactly one event: it will be sent, it must not be, or it cannot be.
//
//	reaction.fired ──▶ delivery.planned | delivery.withheld | delivery.rejected
package planner

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/errgroup"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/twig"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/tracing"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/contacts"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Name of the planner's subscription. Renaming it plans every firing of the ledger again.
const Name = "planner"

// actor and source of the events that the planner appends.
const source = "/planner"

// Planner answers firings. Its fields are set once, before the first slice.
type Planner struct {
	Ledger    *schema.Ledger
	Vault     *schema.Vault
	Now       func() time.Time
	Variables map[string]any // the service's constants that templates may name
	Log       *slog.Logger
	Tracer    *tracing.Tracer  // nil: no spans
	Reads     *schema.Prepared // of the pool that its slices' transactions are of

	// Address is where a link leads: the public address and the link's token. Nil: the service has none.
	Address func(domain.Link) (string, error)

	Environment string // selects among the constants that targets have by environment

	// Express takes what may be sent as soon as it is planned. Nil: everything goes through the queue.
	Express Express

	compiled *lru.Cache[compiledKey, *domain.CompiledTarget]
	partials domain.Partials // as last read; slices come one at a time
	ahead    ahead
	reach    reach
}

// Express sends deliveries without their going through the queue first.
type Express interface {
	// Claim claims those of the deliveries that may leave as soon as the transaction that plans them is committed.
	Claim(ctx context.Context, tx schema.Querier, planned []Planned) error
	// Ended says that the transaction of the claims made last has ended, committed or not.
	Ended()
}

// Planned is a delivery as it was appended in a transaction that is still open.
type Planned struct {
	domain.Recorded
	domain.DeliveryPlanned
	Secret []byte         // what is sealed of it
	With   targets.Target // the target that it was planned for, as it is now
}

type compiledKey struct {
	handle   string
	version  int64
	partials int64 // position of the partials that it was compiled with
}

const (
	compiledTargets = 1024
	sliceLimit      = 500 // events in a slice
)

// New makes a planner.
func New(l *schema.Ledger, v *schema.Vault, now func() time.Time, variables map[string]any, log *slog.Logger) (*Planner, error) {
	cache, err := lru.New[compiledKey, *domain.CompiledTarget](compiledTargets)
	if err != nil {
		return nil, err
	}
	return &Planner{Ledger: l, Vault: v, Now: now, Variables: variables, Log: log, Reads: schema.NewPrepared(l.DB()), compiled: cache, reach: defaultReach}, nil
}

// Subscription is the planner's. It comes after targets, consent and contacts, so it
// never plans by older ones than the firing.
func (p *Planner) Subscription() schema.Subscription {
	return schema.Subscription{
		Ended: func() {
			if p.Express != nil {
				p.Express.Ended()
			}
		},
		Name: Name, Limit: sliceLimit, Appends: []string{"delivery.planned", "delivery.withheld", "delivery.rejected"}, Types: []string{"reaction.fired"},
		After: []string{targets.Definition.SubscriptionName(), consent.Definition.SubscriptionName(), contacts.Definition.SubscriptionName()},
	}
}

// Handle plans the firings of a slice and appends the answers in the slice's own transaction, so each firing is
// answered exactly once. All that takes time happens before the append, which holds the ledger's lock to the end.
func (p *Planner) Handle(ctx context.Context, tx *sql.Tx, s schema.Slice) error {
	if !s.MayHold("reaction.fired") {
		return nil
	}
	reads := p.Reads.In(tx)
	var answered map[int64]bool
	early, earlyCtx := errgroup.WithContext(ctx) // on a connection of its own; whoever answered ahead has committed it
	early.Go(func() (err error) { answered, err = answeredAhead(earlyCtx, p.Reads, s.From); return err })
	var fired []domain.Recorded
	for rec, err := range schema.Events(ctx, reads, schema.Filter{After: s.From, UpTo: s.To, Types: []string{"reaction.fired"}}) {
		if err != nil {
			return errors.Join(err, early.Wait())
		}
		fired = append(fired, rec)
	}
	err := early.Wait()
	if err == nil {
		fired, err = p.turn(ctx, reads, s, fired, answered)
	}
	if err != nil || len(fired) == 0 {
		return err
	}
	var opened []schema.Opened
	var consents consent.Known
	beside, besideCtx := errgroup.WithContext(ctx) // on connections of their own
	beside.Go(func() (err error) { opened, err = p.Vault.OpenEvents(besideCtx, fired); return err })
	beside.Go(func() (err error) { consents, err = consent.Look(besideCtx, p.Reads, people(fired)); return err })
	known, err := p.look(ctx, reads, fired)
	if err = errors.Join(beside.Wait(), err); err != nil {
		return err
	}
	erased, err := p.erased(ctx, reads, opened, known)
	if err == nil && len(erased) > 0 {
		consents, err = consent.Look(ctx, reads, people(fired), erased...)
	}
	if err != nil {
		return err
	}
	events, secrets, answers := make([]domain.Event, len(opened)), make([][]byte, len(opened)), make([]domain.Payload, len(opened))
	for i, o := range opened {
		answer := p.traced(ctx, o, func(ctx context.Context) domain.Payload { return p.answer(ctx, o, known, consents) })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		id := o.ID
		answers[i] = answer
		events[i], secrets[i], err = domain.New(domain.EventID(id, "planned"), answer)
		if err != nil {
			return fmt.Errorf("firing %s: %w", id, err)
		}
		events[i].Actor, events[i].Source, events[i].CorrelationID, events[i].CausationID = "planner", source, id, id
	}
	if err := p.Vault.SealEvents(ctx, events, secrets); err != nil {
		return err
	}
	appended, err := p.Ledger.AppendTx(ctx, tx, events...)
	if err != nil || p.Express == nil {
		return err
	}
	var planned []Planned
	for i, at := range appended {
		if plan, ok := answers[i].(domain.DeliveryPlanned); ok && !at.Duplicate && events[i].Sealed != nil {
			planned = append(planned, Planned{
				Recorded:        domain.Recorded{Event: events[i], Position: at.Position, Version: at.Version, RecordedAt: at.RecordedAt},
				DeliveryPlanned: plan, Secret: secrets[i], With: known[plan.Target],
			})
		}
	}
	return p.Express.Claim(ctx, reads, planned)
}

// look reads the targets that the firings are for, and the partials.
func (p *Planner) look(ctx context.Context, tx schema.Querier, fired []domain.Recorded) (map[string]targets.Target, error) {
	handles := make([]string, len(fired))
	for i, f := range fired {
		handles[i] = f.Target
	}
	slices.Sort(handles)
	if err := p.readPartials(ctx, tx); err != nil {
		return nil, err
	}
	return targets.Named(ctx, tx, slices.Compact(handles))
}

// people are those whom the firings are about.
func people(fired []domain.Recorded) (profiles []uuid.UUID) {
	for _, f := range fired {
		if f.Subject != uuid.Nil {
			profiles = append(profiles, f.Subject)
		}
	}
	return profiles
}

// erased finds which of the firings are about to be sent, by what their contexts say, to an address of somebody who was
// erased, so that their opt-out is recognised by it. While nobody was, nothing is hashed.
func (p *Planner) erased(ctx context.Context, tx schema.Querier, fired []schema.Opened, known map[string]targets.Target) ([]consent.Address, error) {
	if some, err := contacts.AnyErased(ctx, tx); err != nil || !some {
		return nil, err
	}
	var all []consent.Address
	var hashes []domain.ContactHash
	for _, o := range fired {
		rule := known[o.Target].Consent
		if rule == nil || o.Subject == uuid.Nil {
			continue
		}
		address := domain.ContactIn(o.Payload.(domain.ReactionFired).Context).On(rule.Channel)
		if hash, err := p.Vault.AddressHash(rule.Channel, address); err == nil { // else nobody is reached by it
			all, hashes = append(all, consent.Address{Profile: o.Subject, ContactHash: hash}), append(hashes, hash)
		}
	}
	gone, err := contacts.Erased(ctx, tx, hashes)
	return slices.DeleteFunc(all, func(a consent.Address) bool { return !gone[a.ContactHash] }), err
}

// answer decides on one firing. A defect that panics is this firing's misfortune and no other's.
func (p *Planner) answer(ctx context.Context, o schema.Opened, known map[string]targets.Target, consents consent.Known) (answer domain.Payload) {
	fired := o.Payload.(domain.ReactionFired)
	id := domain.DeliveryID(o.ID, fired.Target)
	firing := domain.Firing{
		FiringID: o.ID, FiringPosition: o.Position, Reaction: fired.Reaction, Trigger: fired.Trigger, Cause: fired.Cause,
		Target: fired.Target, ProfileID: fired.ProfileID,
	}
	rejected := func(r domain.DeliveryRejected) domain.Payload {
		r.DeliveryID, r.Firing = id, firing
		return r
	}
	defer func() {
		if r := recover(); r != nil {
			p.Log.ErrorContext(ctx, "planning panicked", slog.String("firing", o.ID.String()), slog.String("stack", string(debug.Stack())))
			answer = rejected(domain.DeliveryRejected{Reason: "internal_error", Detail: "planning failed on a defect of the program; its log says where"})
		}
	}()

	t, ok := known[fired.Target]
	if !ok || t.State == "deleted" {
		return rejected(domain.DeliveryRejected{Reason: "unknown_target", Detail: fmt.Sprintf("there is no target %q; create it with PUT /v1/targets/%s, then fire again", fired.Target, fired.Target)})
	}
	firing.TargetVersion, firing.Platform = t.Version, t.Platform

	question := consents.Question(fired.ProfileID, t.Consent, o.RecordedAt)
	question.View.Erased = o.Erased || o.Sealed == nil && !o.Expired // an erased person's firing is recorded without its context
	decision := t.Consent.Decide(question)
	withheld := func(reason, detail string) domain.Payload {
		return domain.DeliveryWithheld{DeliveryID: id, Firing: firing, Reason: reason, Detail: detail, Consent: decision}
	}
	switch {
	case !t.Enabled():
		return withheld("target_disabled", "the target is disabled: "+t.Reason)
	case question.View.Erased:
		return withheld("erased", decision.Explain())
	case decision.Decision == domain.DecisionWithheld:
		return withheld("consent", decision.Explain())
	case o.Expired:
		return withheld("retention_ended", "the retention of the firing's context ended before it was planned")
	}

	compiled, err := p.compile(t)
	if err != nil {
		return rejected(rejection(err))
	}
	holds, err := compiled.Holds(fired.Context)
	if err != nil {
		return rejected(rejection(err))
	}
	if !holds {
		return withheld("condition", "the target's condition is not met by this context")
	}
	data, err := twig.DecodeContext(fired.Context)
	if err != nil {
		return rejected(rejection(err))
	}
	placeholder := "__secret_" + rand.Text() + "_"
	environment := domain.Environment{
		Name: p.Environment, Variables: p.Variables, Now: func() time.Time { return o.RecordedAt },
		Secret: func(name string) string { return placeholder + name + domain.PlaceholderEnd },
		Link: func(kind domain.LinkKind) (string, error) {
			link, err := domain.LinkOf(kind, fired.ProfileID, id, t.Consent, o.RecordedAt)
			if err != nil || p.Address == nil {
				return "", cmp.Or(err, domain.ErrNoLinks)
			}
			return p.Address(link)
		},
	}
	rendering, err := compiled.Render(ctx, data, environment)
	if err != nil {
		return rejected(rejection(err))
	}
	constants, err := compiled.ConstantsUsed(data, environment)
	if err != nil {
		return rejected(rejection(err))
	}
	if err := validate(t.Target, rendering.Body); err != nil {
		return rejected(domain.DeliveryRejected{Reason: "invalid_body", Part: "body", Detail: err.Error(), Unresolved: rendering.Unresolved})
	}
	sum := sha256.Sum256([]byte(rendering.Body))
	expires := fired.ExpiresAt
	if t.ExpireAfter > 0 {
		if at := o.RecordedAt.Add(time.Duration(t.ExpireAfter)); expires.IsZero() || at.Before(expires) {
			expires = at
		}
	}
	due, zone := fired.NotBefore, t.QuietHours.ZoneOf(fired.Context)
	if ends, quiet := t.QuietHours.Until(later(due, o.RecordedAt), zone); quiet {
		due = ends
	}
	return domain.DeliveryPlanned{
		Zone: zone, DueAt: due, ExpiresAt: expires, Priority: t.Priority, Ordered: t.Order == domain.OrderByProfile && fired.ProfileID != uuid.Nil,
		DeliveryID: id, Firing: firing, Consent: decision, Unresolved: rendering.Unresolved, Constants: constants,
		BodySHA256: hex.EncodeToString(sum[:]), BodyBytes: len(rendering.Body), MaxAttempts: t.Retry.MaxAttempts, Partials: p.partials.Position,
		URL: rendering.URL, Headers: rendering.Headers, Body: rendering.Body, Placeholder: placeholder,
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// readPartials reads the partials anew when one has changed.
func (p *Planner) readPartials(ctx context.Context, tx schema.Querier) error {
	position, err := targets.PartialsPosition(ctx, tx)
	if err != nil || position == p.partials.Position {
		return err
	}
	p.partials, err = targets.Partials(ctx, tx)
	return err
}

// compile gives the target's version compiled, from the cache where it is.
func (p *Planner) compile(t targets.Target) (*domain.CompiledTarget, error) {
	key := compiledKey{t.Handle, t.Version, p.partials.Position}
	if c, ok := p.compiled.Get(key); ok {
		return c, nil
	}
	c, err := domain.CompileTarget(t.Target, p.partials)
	if err != nil {
		return nil, err
	}
	p.compiled.Add(key, c)
	return c, nil
}

// validate asks the platform's dialect about a body. A form or a text, which only a webhook takes, is its author's affair.
func validate(t domain.Target, body string) error {
	known, err := platforms.Lookup(t.Platform)
	if err != nil || t.Content() != domain.ContentJSON {
		return err
	}
	return known.Dialect.Validate([]byte(body))
}

// rejection says in the ledger why a firing cannot be rendered.
func rejection(err error) domain.DeliveryRejected {
	var re *domain.RenderError
	var te *domain.TemplateError
	var ie *domain.InvalidError
	switch {
	case errors.As(err, &re):
		return domain.DeliveryRejected{Reason: re.Reason, Detail: re.Error(), Part: re.Part, Line: re.Line, Column: re.Column, Message: re.Detail}
	case errors.As(err, &te):
		return domain.DeliveryRejected{Reason: "template_error", Detail: te.Error(), Part: te.Pointer, Line: te.Line, Column: te.Column}
	case errors.As(err, &ie):
		return domain.DeliveryRejected{Reason: "template_error", Detail: ie.Error(), Part: ie.Pointer}
	}
	return domain.DeliveryRejected{Reason: "template_error", Detail: "the target cannot be rendered on this context"}
}
