package schema_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

var promoByEmail = &domain.ConsentRule{Channel: domain.Email, Purpose: domain.Promo}

// decided records who decided what, so many hours into the story, and gives the event.
func (s *deliveryStory) decided(t *testing.T, who uuid.UUID, hour int, status domain.ConsentStatus) (domain.Answer, schema.Appended) {
	t.Helper()
	at := s.now.Add(time.Duration(hour) * time.Hour)
	e := s.record(t, domain.ConsentChanged{
		ProfileID: who, DecidedAt: at, DecidedBy: "customer", Method: "portal",
		Changes: []domain.ConsentChange{{Channel: domain.Email, Purpose: domain.Promo, Status: status}},
	})
	return domain.Answer{Status: status, DecidedAt: at, DecidedBy: "customer", Method: "portal", Profile: who, Position: e.Position}, e
}

// withheld fires at a target and records that it is not sent, with the decision that the rule gives on what was held.
func (s *deliveryStory) answered(t *testing.T, who uuid.UUID, held domain.Answer, policy domain.PolicyInForce) domain.Decision {
	t.Helper()
	target := domain.TargetChanged{Target: domain.Target{Handle: "promo", URL: "https://hooks.example/in", Body: "{}", Consent: promoByEmail}}
	target.Normalize()
	used := s.record(t, target)
	fired := s.record(t, domain.ReactionFired{Reaction: "r", Target: "promo", ProfileID: who, Cause: "reaction", Context: []byte(`{}`)})
	question := domain.Question{Profile: who, Policy: policy, At: fired.RecordedAt, AsOf: fired.Position}
	if held.Position > 0 {
		question.View.Purposes = map[domain.Purpose]domain.Answer{domain.Promo: held}
	}
	d := target.Consent.Decide(question)
	s.delivery = domain.DeliveryID(fired.ID, "promo")
	firing := domain.Firing{FiringID: fired.ID, FiringPosition: fired.Position, Reaction: "r", Cause: "reaction", Target: "promo", TargetVersion: used.Version, Platform: "webhook", ProfileID: who}
	if d.Decision == domain.DecisionWithheld {
		s.record(t, domain.DeliveryWithheld{DeliveryID: s.delivery, Firing: firing, Reason: "consent", Detail: d.Explain(), Consent: d})
	} else {
		s.record(t, domain.DeliveryPlanned{DeliveryID: s.delivery, Firing: firing, BodySHA256: strings.Repeat("0", 64), MaxAttempts: 1, URL: "https://hooks.example/in", Consent: d})
	}
	s.append(t, 20)
	return d
}

// without takes the events of a type away from a bundle.
func without(b evidence.Bundle, which func(evidence.Event) bool) evidence.Bundle {
	b.Events = slices.DeleteFunc(slices.Clone(b.Events), which)
	return b
}

// TestEvidenceOfAMergedPerson proves a decision that rests on what the person said as another profile, which rests on a merge
// that rests on another.
func TestEvidenceOfAMergedPerson(t *testing.T) {
	t.Parallel()
	s := &deliveryStory{signedLedger: newSignedLedger(t)}
	jane, between, john, stranger := uuid.New(), uuid.New(), uuid.New(), uuid.New()
	s.append(t, 20)
	s.decided(t, jane, 1, domain.OptedIn)
	out, _ := s.decided(t, john, 2, domain.OptedOut)
	s.decided(t, stranger, 3, domain.OptedOut)
	s.record(t, domain.ProfileMerged{WinnerID: between, LoserID: john, MergedAt: s.now.Add(4 * time.Hour)})
	s.record(t, domain.ProfileMerged{WinnerID: jane, LoserID: between, MergedAt: s.now.Add(5 * time.Hour)})
	d := s.answered(t, jane, out, domain.PolicyInForce{})
	s.decided(t, john, 9, domain.OptedIn) // later, which shows that nothing of john's is missing
	s.append(t, 50)
	s.grow(t, 0)
	s.sign(t)
	if d.DecidedAs != john || d.Reason != domain.ReasonOptedOut {
		t.Fatalf("decision = %+v", d)
	}
	whole := s.collect(t, schema.EvidenceOptions{})
	r, text, err := s.throughFile(t, whole)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Consent) != 1 || !r.Consent[0].Recomputed || strings.Contains(text, stranger.String()) {
		t.Errorf("report = %+v, want the decision recomputed, and nobody else's events in the file", r)
	}
	told := r.String()
	if strings.Contains(told, "of profile "+john.String()) || !strings.Contains(told, "no other profile had been merged") || !strings.Contains(told, "as profile "+john.String()) {
		t.Errorf("report says:\n%s", told)
	}
	for name, which := range map[string]func(evidence.Event) bool{
		"a merge is left out": func(e evidence.Event) bool {
			return e.Type == "profile.merged" && e.Stream == domain.ProfileStream(between)
		},
		"the opt-out is left out":             func(e evidence.Event) bool { return e.Position == out.Position },
		"the opt-in and its merge, after all": func(e evidence.Event) bool { return e.Stream == domain.ProfileStream(jane) },
	} {
		if _, _, err := s.throughFile(t, without(whole, which)); !errors.Is(err, evidence.ErrStory) {
			t.Errorf("%s: %v, want ErrStory", name, err)
		}
	}
}

// TestEvidenceOfAPolicy proves a decision under the ledger's own policy for legacy consent, and does not take another for it.
func TestEvidenceOfAPolicy(t *testing.T) {
	t.Parallel()
	s := &deliveryStory{signedLedger: newSignedLedger(t)}
	lets := domain.DefaultConsentPolicy()
	lets.NeverAsked, lets.Until, lets.Reason = domain.PolicySend, time.Now().Add(365*24*time.Hour), "legal 118"
	first := s.record(t, domain.ConsentPolicyChanged{ConsentPolicy: lets})
	jane := uuid.New()
	d := s.answered(t, jane, domain.Answer{}, domain.PolicyInForce{ConsentPolicy: lets, Position: first.Position})
	allowed := s.delivery
	s.record(t, domain.ConsentPolicyChanged{ConsentPolicy: domain.DefaultConsentPolicy()})
	// The second is decided on under a policy that was not in force any more.
	s.answered(t, jane, domain.Answer{}, domain.PolicyInForce{ConsentPolicy: lets, Position: first.Position})
	wrong := s.delivery
	s.append(t, 50)
	s.grow(t, 0)
	s.sign(t)
	if d.Decision != domain.DecisionAllowed || d.Reason != domain.ReasonLegacyPolicy {
		t.Fatalf("decision = %+v", d)
	}
	s.delivery = allowed
	whole := s.collect(t, schema.EvidenceOptions{})
	r, _, err := s.throughFile(t, whole)
	if err != nil || len(r.Consent) != 1 || !r.Consent[0].Recomputed {
		t.Fatalf("report = %+v, %v, want the decision recomputed", r, err)
	}
	if told := r.String(); !strings.Contains(told, "never asked send") || strings.Contains(told, "was not changed before") {
		t.Errorf("report says:\n%s", told)
	}
	r, _, err = s.throughFile(t, without(whole, func(e evidence.Event) bool { return e.Type == "consent.policy_changed" }))
	if err != nil || r.Consent[0].Recomputed {
		t.Errorf("without the policies = %+v, %v: it must not be proven", r.Consent, err)
	}
	s.delivery = wrong
	if _, _, err := s.throughFile(t, s.collect(t, schema.EvidenceOptions{})); !errors.Is(err, evidence.ErrStory) || !strings.Contains(err.Error(), "was in force") {
		t.Errorf("under a policy that was not in force = %v, want ErrStory", err)
	}
}

// TestEvidenceOfAnErasedOptOut proves a decision that rests on what somebody said who was erased and had the same address.
func TestEvidenceOfAnErasedOptOut(t *testing.T) {
	t.Parallel()
	s := &deliveryStory{signedLedger: newSignedLedger(t)}
	gone, anew := uuid.New(), uuid.New()
	address := domain.ContactHash{Channel: domain.Email, Hash: strings.Repeat("5f", 32)}
	out, _ := s.decided(t, gone, 2, domain.OptedOut)
	s.record(t, domain.ProfileErased{ProfileID: gone, Reason: "ticket 1", ContactHashes: []domain.ContactHash{address}})
	s.decided(t, anew, 1, domain.OptedIn)
	out.SameAddress = address.Hash
	s.answered(t, anew, out, domain.PolicyInForce{})
	s.append(t, 50)
	s.grow(t, 0)
	s.sign(t)
	whole := s.collect(t, schema.EvidenceOptions{})
	r, _, err := s.throughFile(t, whole)
	if err != nil || len(r.Consent) != 1 || !r.Consent[0].Recomputed || !strings.Contains(r.String(), "only the ledger's own key tells") {
		t.Errorf("report = %s, %v, want the decision recomputed", r, err)
	}
	erasure := func(e evidence.Event) bool { return e.Type == "profile.erased" }
	if _, _, err := s.throughFile(t, without(whole, erasure)); !errors.Is(err, evidence.ErrStory) {
		t.Errorf("without the erasure: %v, want ErrStory", err)
	}
}
