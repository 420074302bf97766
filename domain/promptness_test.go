package domain_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

func TestDeadlines(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		deadline      domain.Deadline
		decided, want string
	}{
		"five business days, to the end of the last": {domain.DefaultDeadline(), "2026-11-23T10:00:00+11:00", "2026-12-01T00:00:00+11:00"}, // Monday to Monday
		"over a weekend":                    {domain.DefaultDeadline(), "2026-11-27T23:59:00+11:00", "2026-12-05T00:00:00+11:00"}, // Friday to Friday
		"decided on a Sunday":               {domain.DefaultDeadline(), "2026-11-29T10:00:00+11:00", "2026-12-05T00:00:00+11:00"},
		"over Christmas":                    {domain.DefaultDeadline(), "2026-12-24T10:00:00+11:00", "2027-01-06T00:00:00+11:00"},
		"the day is the place's, not UTC's": {domain.DefaultDeadline(), "2026-11-22T20:00:00Z", "2026-12-01T00:00:00+11:00"}, // Monday there
		"out of daylight saving":            {domain.DefaultDeadline(), "2026-04-01T10:00:00+11:00", "2026-04-11T00:00:00+10:00"},
		"weekends only":                     {domain.Deadline{BusinessDays: 5, Calendar: "none", TimeZone: "Australia/Sydney"}, "2026-12-24T10:00:00+11:00", "2027-01-01T00:00:00+11:00"},
		"hours":                             {domain.Deadline{Within: domain.Duration(48 * time.Hour)}, "2026-11-23T10:00:00Z", "2026-11-25T10:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := tc.deadline.Validate(); err != nil {
				t.Fatal(err)
			}
			decided, err1 := time.Parse(time.RFC3339, tc.decided)
			want, err2 := time.Parse(time.RFC3339, tc.want)
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			if got := tc.deadline.Reckoner()(decided); !got.Equal(want) {
				t.Errorf("deadline of %s = %s, want %s", tc.decided, got.In(want.Location()), want)
			}
		})
	}
}

func TestLegacyPolicy(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	person := uuid.New()
	send := domain.PolicyInForce{Position: 9, ConsentPolicy: domain.ConsentPolicy{NeverAsked: "send", Channels: []domain.Channel{domain.Email}, Until: at.Add(time.Hour), Imported: "withhold", Promptness: domain.DefaultDeadline(), Reason: "x"}}
	if err := (domain.ConsentPolicyChanged{ConsentPolicy: send.ConsentPolicy}).Validate(); err != nil {
		t.Fatal(err)
	}
	answer := func(s domain.ConsentStatus, by string) domain.ConsentView {
		return domain.ConsentView{Purposes: map[domain.Purpose]domain.Answer{domain.Promo: {Status: s, DecidedAt: at, DecidedBy: by, Profile: person, Position: 3}}}
	}
	for name, tc := range map[string]struct {
		channel          domain.Channel
		view             domain.ConsentView
		at               time.Time
		decision, reason string
	}{
		"never asked":                       {domain.Email, domain.ConsentView{}, at, "allowed", "legacy_policy"},
		"never asked, on another channel":   {domain.SMS, domain.ConsentView{}, at, "withheld", "never_asked"},
		"never asked, and the time is over": {domain.Email, domain.ConsentView{}, at.Add(time.Hour), "withheld", "never_asked"},
		"a no":                              {domain.Email, answer(domain.OptedOut, "customer"), at, "withheld", "opted_out"},
		"an answer taken back":              {domain.Email, answer(domain.Unknown, "admin"), at, "withheld", "never_asked"},
		"a yes of the customer's":           {domain.Email, answer(domain.OptedIn, "customer"), at, "allowed", "opted_in"},
		"a yes by import":                   {domain.Email, answer(domain.OptedIn, "import"), at, "withheld", "imported_only"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rule := &domain.ConsentRule{Channel: tc.channel, Purpose: domain.Promo, Mode: domain.Enforce}
			d := rule.Decide(domain.Question{Profile: person, View: tc.view, Policy: send, At: tc.at})
			if d.Decision != tc.decision || d.Reason != tc.reason || d.Policy == nil || d.Policy.Position != 9 || d.Explain() == "" {
				t.Errorf("Decide = %+v, want %s because %s, under the policy of event 9", d, tc.decision, tc.reason)
			}
		})
	}
}
