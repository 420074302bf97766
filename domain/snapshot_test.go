package domain_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// However the CRM's value goes, what follows from its snapshots ends where the CRM ended; and an opt-out that the
// customer gave elsewhere between two snapshots outlives whatever the second one permits.
func TestCompareFollowsTheCRM(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.SampledFrom([]string{domain.CommsYes, domain.CommsNo, domain.CommsNull}), 1, 8).Draw(t, "values")
		start := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
		never := func(domain.Channel, domain.Purpose) time.Time { return time.Time{} }
		elsewhere := rapid.IntRange(0, len(values)).Draw(t, "elsewhere") // before this snapshot
		optOut := domain.Answer{Status: domain.OptedOut, DecidedAt: start.Add(time.Duration(elsewhere)*time.Hour - time.Minute), Position: 99}

		var before *domain.Snapshot
		var held, withElsewhere *domain.Answer
		take := func(into **domain.Answer, a domain.Answer) {
			if *into == nil || a.Supersedes(**into) {
				*into = &a
			}
		}
		take(&withElsewhere, optOut)
		for i, v := range values {
			now := domain.Snapshot{At: start.Add(time.Duration(i) * time.Hour), Comms: map[string]string{"email_promo": v}}
			for _, f := range domain.Compare(before, now, time.Time{}, never) {
				a := domain.Answer{Status: f.Status, DecidedAt: f.DecidedAt, Position: int64(i)}
				if f.DecidedBy == "customer" {
					t.Fatalf("%+v: nothing says that the customer decided", f)
				}
				take(&held, a)
				take(&withElsewhere, a)
			}
			before = &now
		}
		field, _ := domain.LookupComms("email_promo")
		want, _ := field.Status(values[len(values)-1])
		if held == nil && want != domain.Unknown || held != nil && held.Status != want {
			t.Fatalf("%v ends in %+v, want %s", values, held, want)
		}
		// What the snapshots up to the one after the opt-out permit does not beat it.
		if elsewhere >= len(values)-1 && elsewhere > 0 && withElsewhere.Status != domain.OptedOut && want != domain.Unknown {
			t.Fatalf("%v with an opt-out before %d ends in %+v", values, elsewhere, withElsewhere)
		}
	})
}
