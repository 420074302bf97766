package reconciler

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Resolution is what a person decided on a finding.
type Resolution struct {
	Action   string            // one of the finding's
	Reason   string            // why, in words; required
	Evidence map[string]string // what proves that the person agreed; required to resubscribe and to record an opt-in
	Actor    string
}

// Resolve does what a person decided on a finding, and records who, what and why. What is to be written to the platform is
// queued, and leaves within seconds. Errors: schema.ErrNotFound, ErrResolved, ErrAction, and *domain.InvalidError.
func (s *Service) Resolve(ctx context.Context, id uuid.UUID, res Resolution) error {
	f, err := suppressions.FindingByID(ctx, s.DB, id)
	if err != nil {
		return err
	}
	if f.State != "open" {
		return fmt.Errorf("finding %s: %w", id, ErrResolved)
	}
	switch {
	case !slices.Contains(f.Actions, res.Action):
		return domain.Invalid("/action", "is %q; this finding has %s", res.Action, strings.Join(f.Actions, ", "))
	case strings.TrimSpace(res.Reason) == "":
		return domain.Invalid("/reason", "is empty: say why, in words")
	case (res.Action == domain.ActResubscribe || res.Action == domain.ActRecordOptIn) && len(res.Evidence) == 0:
		return domain.Invalid("/evidence", "is empty: say what proves that the person agreed, such as {\"form\": \"12\"}")
	}
	payloads, err := s.consequences(ctx, f, res)
	if err != nil {
		return err
	}
	resolved := domain.FindingResolved{ID: id, Platform: f.Platform, Action: res.Action, Reason: res.Reason, Evidence: res.Evidence}
	if f.ProfileID != nil {
		resolved.Profile = *f.ProfileID
	}
	event, err := s.event(ctx, res.Actor, named(id, "resolved"), resolved)
	if err != nil {
		return err
	}
	once := int64(1) // the finding was raised, and nothing has happened to it since
	event.Expected = &once
	events := []domain.Event{event}
	for i, p := range payloads {
		e, err := s.event(ctx, res.Actor, named(id, "consequence", i), p)
		if err != nil {
			return err
		}
		events = append(events, e)
	}
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		if intent := intents[res.Action]; intent != "" && f.Hash != "" && f.Decision != nil {
			decided, err := schema.EventAt(ctx, tx, *f.Decision)
			if err != nil {
				return err
			}
			o := suppressions.Outgoing{Channel: f.Channel, Hash: hashBytes(f.Hash), Intent: intent, Decision: *f.Decision, DecidedAt: decided.OccurredAt, Finding: id}
			if f.ProfileID != nil {
				o.Profile = *f.ProfileID
			}
			if err := suppressions.Order(ctx, tx, f.Platform, o, s.Now().UTC()); err != nil {
				return err
			}
		}
		_, err := s.Ledger.AppendTx(ctx, tx, events...)
		return err
	})
	if errors.Is(err, schema.ErrConflict) || errors.Is(err, schema.ErrIDReused) {
		return fmt.Errorf("finding %s: %w", id, ErrResolved)
	}
	return err
}

// Alike are the actions that may be taken on many findings at once: none of them lets anybody be written to.
var Alike = []string{domain.ActSuppressThere, domain.ActKeepSuppressed, domain.ActRecordOptOut, domain.ActTryAgain}

// mostAlike bounds how many findings are decided on at once.
const mostAlike = 1000

// ResolveAlike does the same about every open finding of one class on one platform, up to a thousand of them. It gives how many it
// decided on, and whether there are more. Those that somebody else decides on meanwhile are left to them. Errors: *domain.InvalidError
// for an action that is not one of Alike, or not one of such findings; what was decided before an error stays.
func (s *Service) ResolveAlike(ctx context.Context, platform, class string, res Resolution) (resolved int, more bool, err error) {
	if !slices.Contains(Alike, res.Action) {
		return 0, false, domain.Invalid("/action", "is %q; of many at once only these can be decided: %s. Decide on the others one by one", res.Action, strings.Join(Alike, ", "))
	}
	found, err := suppressions.Findings(ctx, s.DB, suppressions.FindingFilter{Platform: platform, Class: class, State: "open", Limit: mostAlike + 1})
	if err != nil {
		return 0, false, err
	}
	for i, f := range found {
		if i == mostAlike {
			return resolved, true, nil
		}
		switch err := s.Resolve(ctx, f.ID, res); {
		case errors.Is(err, ErrResolved):
		case err != nil:
			return resolved, true, err
		default:
			resolved++
		}
	}
	return resolved, false, nil
}

// intents are the actions that write to the platform.
var intents = map[string]string{domain.ActResubscribe: domain.Resubscribe, domain.ActSuppressThere: domain.Suppress, domain.ActTryAgain: domain.Suppress}

// consequences are the events, beside the resolution itself, that an action is.
func (s *Service) consequences(ctx context.Context, f suppressions.Finding, res Resolution) ([]domain.Payload, error) {
	decide := func(status domain.ConsentStatus, purposes []domain.Purpose) ([]domain.Payload, error) {
		if f.ProfileID == nil {
			return nil, fmt.Errorf("%w %s needs a person, and nobody of ours has the address", ErrAction, res.Action)
		}
		c := domain.ConsentChanged{ProfileID: *f.ProfileID, DecidedAt: s.Now().UTC(), DecidedBy: "staff", Method: "finding", Note: res.Reason, Evidence: maps.Clone(res.Evidence)}
		if c.Evidence == nil {
			c.Evidence = map[string]string{}
		}
		c.Evidence["finding"] = f.ID.String()
		for _, p := range purposes {
			c.Changes = append(c.Changes, domain.ConsentChange{Channel: f.Channel, Purpose: p, Status: status})
		}
		return []domain.Payload{c}, nil
	}
	switch res.Action {
	case domain.ActRecordOptIn, domain.ActRecordOptOut, domain.ActTakeAsGlobal, domain.ActIgnoreScope:
	default:
		return nil, nil
	}
	policy, err := suppressions.PolicyOf(ctx, s.DB, f.Platform)
	if err != nil {
		return nil, err
	}
	switch res.Action {
	case domain.ActRecordOptIn:
		return decide(domain.OptedIn, policy.PushedFor)
	case domain.ActRecordOptOut:
		return decide(domain.OptedOut, policy.OptOutMeans)
	}
	p := policy.PlatformPolicy
	p.Scopes = maps.Clone(p.Scopes)
	if p.Scopes == nil {
		p.Scopes = map[string]string{}
	}
	p.Scopes[f.Scope] = domain.ScopeIgnore
	if res.Action == domain.ActTakeAsGlobal {
		p.Scopes[f.Scope] = string(domain.PurposeAll)
	}
	return []domain.Payload{domain.PlatformPolicyChanged{Policy: p, Reason: res.Reason}}, nil
}

func (s *Service) event(ctx context.Context, actor string, id uuid.UUID, p domain.Payload) (domain.Event, error) {
	e, secret, err := domain.New(id, p)
	if err != nil {
		return e, err
	}
	e.Actor, e.Source, e.OccurredAt = actor, Source, s.Now().UTC()
	if c, ok := p.(domain.ConsentChanged); ok {
		e.OccurredAt = c.DecidedAt
	}
	events := []domain.Event{e}
	if err := s.Vault.SealEvents(ctx, events, [][]byte{secret}); err != nil {
		return e, err
	}
	return events[0], nil
}

// evidence says why a suppression may be lifted: what a person vouched for on the finding, or what stands beside the decision.
// Only what names it leaves the ledger, not what it says. nil: there is none.
func (s *Service) evidence(ctx context.Context, o suppressions.Outgoing) (map[string]string, error) {
	if o.Finding != uuid.Nil {
		return map[string]string{"finding": o.Finding.String()}, nil // Resolve asked for it
	}
	rec, err := schema.EventAt(ctx, s.DB, o.Decision)
	if err != nil {
		return nil, err
	}
	opened, err := s.Vault.OpenEvents(ctx, []domain.Recorded{rec})
	if err != nil {
		return nil, err
	}
	c, ok := opened[0].Payload.(domain.ConsentChanged)
	if !ok || len(c.Evidence) == 0 || c.DecidedBy == "platform" {
		return nil, nil
	}
	return map[string]string{"event": rec.ID.String(), "decided_by": c.DecidedBy, "method": c.Method}, nil
}

// SetPolicy records a new version of a platform's policy. version is the one that it was decided on, 0 for a new connection;
// negative: whatever it is. Errors: *domain.InvalidError, platforms.ErrConnection, schema.ErrConflict.
func (s *Service) SetPolicy(ctx context.Context, p domain.PlatformPolicy, version int64, actor, reason string) (int64, error) {
	p.Normalize()
	if err := p.Validate(); err != nil {
		return 0, err
	}
	if !p.Disabled {
		if _, err := s.connect(ctx, suppressions.Policy{PlatformPolicy: p}); err != nil {
			return 0, err
		}
	}
	e, err := s.event(ctx, actor, uuid.New(), domain.PlatformPolicyChanged{Policy: p, Reason: reason})
	if err != nil {
		return 0, err
	}
	if version >= 0 {
		e.Expected = &version
	}
	appended, err := s.Ledger.Append(ctx, e)
	if err != nil {
		return 0, err
	}
	return appended[0].Version, nil
}
