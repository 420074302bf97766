package domain_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	person := uuid.New()
	at := time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)
	answer := func(s domain.ConsentStatus, position int64) domain.Answer {
		return domain.Answer{Status: s, DecidedAt: at, DecidedBy: "customer", Profile: person, Position: position}
	}
	promo := &domain.ConsentRule{Channel: domain.Email, Purpose: domain.Promo, Mode: domain.Enforce}
	service := &domain.ConsentRule{Channel: domain.Email, Purpose: domain.Service, Mode: domain.Enforce}
	flagged := &domain.ConsentRule{Channel: domain.Email, Purpose: domain.Promo, Mode: domain.Record}
	bounce := domain.AddressFact{Status: domain.AddressBounced, ReportedAt: at, ReportedBy: "klaviyo", Position: 5}
	type answers = map[domain.Purpose]domain.Answer

	for name, tc := range map[string]struct {
		rule             *domain.ConsentRule
		nobody           bool
		view             domain.ConsentView
		decision, reason string
		position         int64
	}{
		"opted in":  {rule: promo, view: domain.ConsentView{Purposes: answers{domain.Promo: answer(domain.OptedIn, 7)}}, decision: "allowed", reason: "opted_in", position: 7},
		"opted out": {rule: promo, view: domain.ConsentView{Purposes: answers{domain.Promo: answer(domain.OptedOut, 7)}}, decision: "withheld", reason: "opted_out", position: 7},
		"never asked is not consent to marketing":        {rule: promo, decision: "withheld", reason: "never_asked"},
		"unknown again is not consent to marketing":      {rule: promo, view: domain.ConsentView{Purposes: answers{domain.Promo: answer(domain.Unknown, 7)}}, decision: "withheld", reason: "never_asked", position: 7},
		"never asked about a service message":            {rule: service, decision: "allowed", reason: "not_refused"},
		"a service message refused":                      {rule: service, view: domain.ConsentView{Purposes: answers{domain.Service: answer(domain.OptedOut, 3)}}, decision: "withheld", reason: "opted_out", position: 3},
		"the global opt-out beats an opt-in":             {rule: promo, view: domain.ConsentView{Purposes: answers{domain.Promo: answer(domain.OptedIn, 9), domain.PurposeAll: answer(domain.OptedOut, 4)}}, decision: "withheld", reason: "opted_out_of_all", position: 4},
		"the global opt-out beats a service message":     {rule: service, view: domain.ConsentView{Purposes: answers{domain.PurposeAll: answer(domain.OptedOut, 4)}}, decision: "withheld", reason: "opted_out_of_all", position: 4},
		"a global opt-in is no consent to anything":      {rule: promo, view: domain.ConsentView{Purposes: answers{domain.PurposeAll: answer(domain.OptedIn, 4)}}, decision: "withheld", reason: "never_asked"},
		"a bounced address":                              {rule: promo, view: domain.ConsentView{Address: bounce, Purposes: answers{domain.Promo: answer(domain.OptedIn, 7)}}, decision: "withheld", reason: "bounced", position: 5},
		"an opt-out says more than a bounce":             {rule: promo, view: domain.ConsentView{Address: bounce, Purposes: answers{domain.Promo: answer(domain.OptedOut, 7)}}, decision: "withheld", reason: "opted_out", position: 7},
		"mode record sends against the answer and flags": {rule: flagged, view: domain.ConsentView{Purposes: answers{domain.Promo: answer(domain.OptedOut, 7)}}, decision: "flagged", reason: "opted_out", position: 7},
		"nobody was named":                               {rule: promo, nobody: true, decision: "withheld", reason: "no_profile"},
		"no rule":                                        {decision: "not_required", reason: "no_rule"},
		"an erased person, whatever the rule":            {view: domain.ConsentView{Erased: true}, decision: "withheld", reason: "erased"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := domain.Question{Profile: person, View: tc.view, Policy: domain.PolicyInForce{ConsentPolicy: domain.DefaultConsentPolicy()}, At: at, AsOf: 99}
			if tc.nobody {
				asked.Profile = uuid.Nil
			}
			got := tc.rule.Decide(asked)
			if got.Decision != tc.decision || got.Reason != tc.reason || got.Position != tc.position || got.AsOf != 99 {
				t.Errorf("Decide = %+v, want %s because %s by event %d", got, tc.decision, tc.reason, tc.position)
			}
			if got.Explain() == "" {
				t.Error("nothing explains it")
			}
		})
	}
}

func answers() *rapid.Generator[domain.Answer] {
	return rapid.Custom(func(t *rapid.T) domain.Answer {
		return domain.Answer{
			Status:    rapid.SampledFrom([]domain.ConsentStatus{domain.OptedIn, domain.OptedOut, domain.Unknown}).Draw(t, "status"),
			DecidedAt: time.Unix(int64(rapid.IntRange(0, 3).Draw(t, "decided")), 0),
			Position:  int64(rapid.IntRange(1, 5).Draw(t, "position")),
		}
	})
}

// Of any two different decisions one supersedes the other, so decisions converge in whatever order they are heard of.
func TestDecisionsConverge(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfNDistinct(answers(), 1, 8, func(a domain.Answer) int64 { return a.Position }).Draw(t, "answers")
		last := func(list []domain.Answer) domain.Answer {
			best := list[0]
			for _, a := range list[1:] {
				if a.Supersedes(best) {
					best = a
				}
			}
			return best
		}
		want := last(list)
		for range 5 {
			shuffled := rapid.Permutation(list).Draw(t, "order")
			if got := last(shuffled); got != want {
				t.Fatalf("%v gives %+v, %v gives %+v", list, want, shuffled, got)
			}
		}
		if slices.ContainsFunc(list, func(a domain.Answer) bool { return a.DecidedAt.Equal(want.DecidedAt) && a.Status == domain.OptedOut }) && want.Status != domain.OptedOut {
			t.Fatalf("an opt-out of the same moment lost: %v gives %+v", list, want)
		}
	})
}
