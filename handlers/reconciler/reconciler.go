package reconciler

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/contacts"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Errors of the reconciler.
var (
	// ErrRunning says that the platform is being reconciled already.
	ErrRunning = errors.New("a reconciliation of the platform is under way")
	// ErrHeld says that the run would change more than its policy allows and waits for a person.
	ErrHeld = errors.New("the reconciliation waits for a person")
	// ErrNotConnected says that the platform has no policy, or that it is disabled.
	ErrNotConnected = errors.New("the platform is not connected")
	// ErrAction says that a finding cannot be resolved so.
	ErrAction = fmt.Errorf("%w: the action", domain.ErrInvalid)
	// ErrResolved says that a finding was decided on before.
	ErrResolved = errors.New("the finding is resolved already")
)

// Source is the reconciler's, in the events that it appends.
const Source = "/reconciler"

// Config is what a reconciler works with. All but Settle, Sleep, Log, Registry and Entered are required.
type Config struct {
	DB     *sql.DB
	Ledger *schema.Ledger
	Vault  *schema.Vault
	HTTP   *http.Client // must not follow redirects
	Now    func() time.Time

	// Settle returns when the projections of consent and suppressions have seen all that was recorded before it was called.
	// nil waits for whoever keeps them.
	Settle func(context.Context) error
	// Sleep waits. nil waits by the clock on the wall.
	Sleep    func(context.Context, time.Duration) error
	Log      *slog.Logger
	Registry prometheus.Registerer

	// Entered is told of each phase that a run enters in this process, before anything is done in it. nil: nobody asks.
	Entered func(phase string)
}

// Service is the reconciler. Its methods are safe for concurrent use.
type Service struct {
	Config

	metrics metrics
}

// New makes a reconciler.
func New(c Config) (*Service, error) {
	if c.DB == nil || c.Ledger == nil || c.Vault == nil || c.HTTP == nil || c.Now == nil {
		return nil, errors.New("reconciler: DB, Ledger, Vault, HTTP and Now are required")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{Config: c, metrics: newMetrics()}
	if s.Settle == nil {
		s.Settle = s.waitForProjections
	}
	if s.Sleep == nil {
		s.Sleep = sleep
	}
	if c.Registry != nil {
		if err := errors.Join(s.metrics.register(c.Registry), c.Registry.Register(&standings{service: s})); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Reads are the subscriptions of the projections that a run reads, and brings to the ledger's end before it compares.
var Reads = []string{consent.Definition.SubscriptionName(), suppressions.Definition.SubscriptionName(), contacts.Definition.SubscriptionName()}

// waitForProjections waits for those who keep the projections to come to the ledger's present end.
func (s *Service) waitForProjections(ctx context.Context) error {
	head, err := s.Ledger.Head(ctx)
	if err != nil {
		return err
	}
	for {
		behind, err := suppressions.Behind(ctx, s.DB, head, Reads...)
		if err != nil || !behind {
			return err
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// link is a platform's connection, open.
type link struct {
	suppressions.Policy

	platform platforms.Platform
	client   platforms.Describer
	caps     platforms.Caps
}

// Connect opens the connection that a policy describes. Errors: platforms.ErrConnection, schema.ErrNotFound for a secret that
// the policy names and nobody set.
func (s *Service) connect(ctx context.Context, policy suppressions.Policy) (*link, error) {
	l := &link{Policy: policy}
	c, err := s.connection(ctx, policy.PlatformPolicy)
	if err != nil {
		return nil, err
	}
	if l.platform, err = platforms.Lookup(policy.Platform); err != nil {
		return nil, err
	}
	if err := l.platform.Check(c); err != nil {
		return nil, err
	}
	if l.client, err = l.platform.Connect(c); err != nil {
		return nil, err
	}
	l.caps = l.client.Caps()
	return l, nil
}

// connection resolves the secrets that a policy names.
func (s *Service) connection(ctx context.Context, policy domain.PlatformPolicy) (platforms.Connection, error) {
	c := platforms.Connection{HTTP: s.HTTP, URL: policy.URL, Settings: policy.Settings, Now: s.Now, Secrets: map[string]platforms.Secret{}, Previous: map[string]platforms.Secret{}}
	for role, name := range policy.Credentials {
		secret, err := s.Vault.Secret(ctx, name)
		if err != nil {
			return c, fmt.Errorf("platform %s: secret %s: %w; set it with: dispatch-ledger secret set %s", policy.Name, name, err, name)
		}
		c.Secrets[role] = platforms.Secret(secret.Reveal())
		if previous, ok := secret.RevealPrevious(); ok {
			c.Previous[role] = platforms.Secret(previous)
		}
	}
	return c, nil
}

// open finds a platform's policy and opens its connection.
func (s *Service) open(ctx context.Context, name string) (*link, error) {
	policy, err := suppressions.PolicyOf(ctx, s.DB, name)
	if errors.Is(err, schema.ErrNotFound) {
		return nil, fmt.Errorf("%w: %q has no policy; give it one with: dispatch-ledger platforms apply FILE", ErrNotConnected, name)
	}
	if err != nil {
		return nil, err
	}
	if policy.Disabled {
		return nil, fmt.Errorf("%w: %q is disabled by its policy", ErrNotConnected, name)
	}
	return s.connect(ctx, policy)
}

// reads reports whether a channel's list can be read at all.
func (l *link) reads(c domain.Channel) bool {
	_, ok := l.client.(platforms.Source)
	return ok && len(l.caps.ReadReasons[c]) > 0
}

// lists reports whether a channel's list shows opt-outs.
func (l *link) lists(c domain.Channel) bool { return l.reads(c) && l.caps.Lists(c) }

// writes reports whether opt-outs can be written on a channel.
func (l *link) writes(c domain.Channel) bool {
	_, ok := l.client.(platforms.Sink)
	return ok && slices.Contains(l.caps.Writes, c) && (!l.caps.NeedsScopeID[c] || l.Settings[string(c)+"_group"] != "")
}

// lifts reports whether the platform lifts a suppression on request, and the policy lets it.
func (l *link) lifts(c domain.Channel) bool {
	_, ok := l.client.(platforms.Resubscriber)
	return ok && l.Resubscribe && l.writes(c)
}

// channels are those that are reconciled.
func (l *link) channels() []domain.Channel {
	var out []domain.Channel
	for _, c := range domain.Channels {
		if len(l.Channels) > 0 && !slices.Contains(l.Channels, c) {
			continue
		}
		if (c == domain.Email || c == domain.SMS) && (l.reads(c) || l.writes(c)) {
			out = append(out, c)
		}
	}
	return out
}

// readable are the reconciled channels whose list shows opt-outs.
func (l *link) readable() []domain.Channel {
	return slices.DeleteFunc(l.channels(), func(c domain.Channel) bool { return !l.lists(c) })
}

// scope is what an opt-out of a channel is written for.
func (l *link) scope(c domain.Channel) platforms.Scope {
	if l.caps.NeedsScopeID[c] {
		return platforms.Scope{Kind: platforms.Group, ID: l.Settings[string(c)+"_group"]}
	}
	return platforms.Scope{Kind: platforms.Global}
}

// named derives the id of an event from what it is about, so that whoever repeats a step repeats its event.
func named(space uuid.UUID, parts ...any) uuid.UUID {
	return uuid.NewSHA1(space, fmt.Append(nil, parts...))
}

// space is that of ids that belong to no run.
var space = uuid.MustParse("3f0f9cf0-59d8-4f0a-8bc6-4c9a6f3e1d52")

// record appends events whose ids follow from what they are about. One that stands in the ledger already, with the words
// that its first writer chose, is left as it is.
func (s *Service) record(ctx context.Context, actor string, at time.Time, items []item) error {
	for chunk := range slices.Chunk(items, 256) {
		events := make([]domain.Event, len(chunk))
		secrets := make([][]byte, len(chunk))
		for i, it := range chunk {
			e, secret, err := domain.New(it.id, it.payload)
			if err != nil {
				return err
			}
			e.Actor, e.Source, e.OccurredAt, e.CorrelationID = actor, Source, at, it.run
			switch p := it.payload.(type) {
			case domain.ConsentChanged:
				e.OccurredAt = p.DecidedAt
			case domain.AddressReported:
				e.OccurredAt = p.ReportedAt
			}
			events[i], secrets[i] = e, secret
		}
		if err := s.Vault.SealEvents(ctx, events, secrets); err != nil {
			return err
		}
		_, err := s.Ledger.Append(ctx, events...)
		if errors.Is(err, schema.ErrIDReused) {
			for _, e := range events {
				if _, err = s.Ledger.Append(ctx, e); err != nil && !errors.Is(err, schema.ErrIDReused) {
					return err
				}
			}
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

type item struct {
	id      uuid.UUID
	run     uuid.UUID
	payload domain.Payload
}

// masked keeps a platform's words without the addresses in them.
func masked(native string) string {
	return platforms.Clip(platforms.Masked(native), 200)
}
