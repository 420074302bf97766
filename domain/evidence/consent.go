package evidence

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// tellConsent asks the target's rule again: of the events of the person and of the profiles that were merged with theirs,
// under the policy that was in force. moments are those at one of which it was asked: a policy's exception ends at a time.
func (s *story) tellConsent(r *Report, at Event, d domain.Decision, rule *domain.ConsentRule, moments []time.Time) error {
	found := ConsentFinding{At: at.Position, Decision: d}
	defer func() { r.Consent = append(r.Consent, found) }()
	switch {
	case slices.Contains([]string{domain.ReasonErased, domain.ReasonBounced, domain.ReasonInvalidAddress, domain.ReasonProfileDeleted}, d.Reason):
		r.limit("that the decision at position %d rests on (%s): it is not a decision of the person's", at.Position, d.Reason)
		return nil
	case d.DecidedAs != uuid.Nil && s.people[d.DecidedAs] == nil:
		r.limit("the answer that the decision at position %d rests on: the person gave it as profile %s, whose events are not in this file", at.Position, d.DecidedAs)
		return nil
	case d.Policy != nil && d.Policy.Position > 0 && !slices.ContainsFunc(s.policies, func(e Event) bool { return e.Position == d.Policy.Position }):
		r.limit("the policy for legacy consent that the decision at position %d was made under (event %d), which is not in this file", at.Position, d.Policy.Position)
		return nil
	}
	// What the ledger knew then. An early version read a little further than the position that it stated.
	upTo := max(d.AsOf, d.Position)
	view, err := s.view(rule, d, upTo)
	if err != nil {
		return err
	}
	policy, err := s.policy(r, at, d, upTo)
	if err != nil {
		return err
	}
	var got domain.Decision
	for _, moment := range moments {
		got = rule.Decide(domain.Question{Profile: s.about.ProfileID, View: view.ConsentView, Policy: policy, At: moment, AsOf: d.AsOf})
		found.Recomputed = got.Decision == d.Decision && got.Reason == d.Reason && got.Position == d.Position && got.Status == d.Status
		if found.Recomputed {
			break
		}
	}
	if !found.Recomputed {
		return fmt.Errorf("%w: the ledger decided %q (%s) at position %d, and the person's decisions up to %d give %q (%s)",
			ErrStory, d.Decision, d.Reason, at.Position, upTo, got.Decision, got.Reason)
	}
	r.prove("at position %d: %s, because %s", at.Position, d.Decision, d.Explain())
	for _, profile := range view.open {
		r.limit("that nothing else was recorded of profile %s up to position %d; the events here are its first %d without a gap", profile, upTo, len(s.people[profile]))
	}
	if rule != nil && s.about.ProfileID != uuid.Nil {
		r.limit("that no other profile had been merged with the person's up to position %d: a merge stands among the events of the profile that stayed", upTo)
	}
	if d.SameAddress != "" {
		r.limit("that the address of hash %s is the one that the message was for: only the ledger's own key tells", d.SameAddress)
	}
	return nil
}

// policy is the one in force at a position. The events here are all of the policy's from the first on.
func (s *story) policy(r *Report, at Event, d domain.Decision, upTo int64) (domain.PolicyInForce, error) {
	in := domain.PolicyInForce{ConsentPolicy: domain.DefaultConsentPolicy()}
	if d.Policy == nil { // nobody was asked
		return in, nil
	}
	if len(s.policies) > 0 {
		if err := gapless(s.policies, "the policy for legacy consent"); err != nil {
			return in, err
		}
	}
	ended := false
	for _, e := range s.policies {
		if e.Position > upTo {
			ended = true
			break
		}
		p, err := decode(e)
		if err != nil {
			return in, err
		}
		changed, ok := p.(domain.ConsentPolicyChanged)
		if !ok {
			return in, fmt.Errorf("%w: event %d is no change of the policy", ErrStory, e.Position)
		}
		in = domain.PolicyInForce{ConsentPolicy: changed.ConsentPolicy, Position: e.Position}
	}
	if in.Position != d.Policy.Position {
		return in, fmt.Errorf("%w: the decision at position %d was made under the policy of event %d, and that of event %d was in force", ErrStory, at.Position, d.Policy.Position, in.Position)
	}
	switch {
	case in.Position > 0:
		r.prove("the policy for legacy consent that was in force is that of event %d: never asked %s, imported %s", in.Position, in.NeverAsked, in.Imported)
		if !ended {
			r.limit("that the policy of event %d was not changed before position %d", in.Position, upTo)
		}
	case !ended:
		r.limit("that the ledger had no policy for legacy consent of its own up to position %d", upTo)
	}
	return in, nil
}

// seen is what a bundle shows of a person.
type seen struct {
	domain.ConsentView
	open []uuid.UUID // profiles of which nothing later shows that no event is missing at the end
}

// view is what the person had decided on the rule's channel, up to a position, and what was decided by whoever was one with
// them: profiles that were merged, or somebody who was erased and had the same address.
func (s *story) view(rule *domain.ConsentRule, d domain.Decision, upTo int64) (seen, error) {
	v := seen{ConsentView: domain.ConsentView{Purposes: map[domain.Purpose]domain.Answer{}}}
	if rule == nil || s.about.ProfileID == uuid.Nil {
		return v, nil
	}
	person, err := s.merges(upTo)
	if err != nil {
		return v, err
	}
	if v.Purposes, err = s.held(person, s.about.ProfileID, rule.Channel, upTo, &v); err != nil || d.SameAddress == "" {
		return v, err
	}
	if err := s.erasedWith(d.DecidedAs, domain.ContactHash{Channel: rule.Channel, Hash: d.SameAddress}, upTo); err != nil {
		return v, err
	}
	theirs, err := s.held(person, d.DecidedAs, rule.Channel, upTo, &v)
	if err != nil {
		return v, err
	}
	v.Purposes = domain.WithErased(v.Purposes, theirs, d.SameAddress)
	return v, nil
}

// merges reads which profiles were one person.
func (s *story) merges(upTo int64) (person domain.Person, err error) {
	for _, events := range s.people {
		for _, e := range events {
			if e.Type != "profile.merged" || e.Position > upTo {
				continue
			}
			p, err := decode(e)
			if err != nil {
				return person, err
			}
			if m, ok := p.(domain.ProfileMerged); ok {
				person.Join(m.WinnerID, m.LoserID, m.MergedAt)
			}
		}
	}
	return person, nil
}

// held gives the answers that held for a person of one profile or several.
func (s *story) held(person domain.Person, profile uuid.UUID, channel domain.Channel, upTo int64, v *seen) (map[domain.Purpose]domain.Answer, error) {
	all := map[domain.Purpose][]domain.Answer{}
	for _, one := range append(person.With(profile), profile) {
		answers, ended, err := s.answers(one, channel, upTo)
		if err != nil {
			return nil, err
		}
		if !ended && !slices.Contains(v.open, one) {
			v.open = append(v.open, one)
		}
		for purpose, a := range answers {
			all[purpose] = append(all[purpose], a)
		}
	}
	held := map[domain.Purpose]domain.Answer{}
	for purpose, answers := range all {
		if a, ok := person.Holds(answers); ok {
			held[purpose] = a
		}
	}
	return held, nil
}

// answers are the latest of one profile on a channel. ended says that a later event of the profile's shows that none is missing.
func (s *story) answers(profile uuid.UUID, channel domain.Channel, upTo int64) (latest map[domain.Purpose]domain.Answer, ended bool, err error) {
	latest = map[domain.Purpose]domain.Answer{}
	events := s.people[profile]
	if len(events) > 0 {
		if err := gapless(events, "profile "+profile.String()); err != nil {
			return nil, false, err
		}
	}
	for _, e := range events {
		if e.Position > upTo {
			return latest, true, nil
		}
		if e.Type != "consent.changed" {
			continue
		}
		p, err := decode(e)
		if err != nil {
			return nil, false, err
		}
		changed, ok := p.(domain.ConsentChanged)
		if !ok || changed.ProfileID != profile {
			return nil, false, fmt.Errorf("%w: event %d is about another person", ErrStory, e.Position)
		}
		decidedAt := e.OccurredAt // which the ledger fills with the time of the decision
		if decidedAt.IsZero() {
			decidedAt = changed.DecidedAt
		}
		for _, c := range changed.Changes {
			if c.Channel != channel {
				continue
			}
			a := domain.Answer{Status: c.Status, DecidedAt: decidedAt, DecidedBy: changed.DecidedBy, Method: changed.Method, Profile: profile, Position: e.Position}
			if before, ok := latest[c.Purpose]; !ok || a.Supersedes(before) {
				latest[c.Purpose] = a
			}
		}
	}
	return latest, false, nil
}

// erasedWith checks that somebody was erased and had an address.
func (s *story) erasedWith(profile uuid.UUID, address domain.ContactHash, upTo int64) error {
	for _, e := range s.people[profile] {
		if e.Type != "profile.erased" || e.Position > upTo {
			continue
		}
		p, err := decode(e)
		if err != nil {
			return err
		}
		if gone, ok := p.(domain.ProfileErased); ok && slices.Contains(gone.ContactHashes, address) {
			return nil
		}
	}
	return fmt.Errorf("%w: the decision rests on profile %s having been erased with an address of the person's, and no event says so", ErrStory, profile)
}
