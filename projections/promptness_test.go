package projections_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/promptness"
)

// settle applies everything that was recorded.
func (w world) settle(t *testing.T) {
	t.Helper()
	for _, live := range w.engine.Live(1) {
		for moved := true; moved; {
			var err error
			if moved, err = w.move(t.Context(), live, 3); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (w world) optOuts(t *testing.T, now time.Time, f promptness.Filter) (out []promptness.OptOut) {
	t.Helper()
	for o, err := range promptness.OptOuts(t.Context(), w.ledger.DB(), domain.DefaultDeadline(), now, f) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, o)
	}
	return out
}

func TestHowSoonAnOptOutIsHonoured(t *testing.T) {
	t.Parallel()
	w := newWorld(t, all...)
	head := func() int64 {
		t.Helper()
		n, err := w.ledger.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	add := func(payloads ...domain.Payload) {
		t.Helper()
		if err := w.append(t.Context(), payloads...); err != nil {
			t.Fatal(err)
		}
	}
	jane, john := uuid.New(), uuid.New()
	decided := time.Now().UTC().Truncate(time.Microsecond).Add(-time.Hour)
	promo := func(s domain.ConsentStatus) []domain.ConsentChange {
		return []domain.ConsentChange{{Channel: domain.Email, Purpose: domain.Promo, Status: s}}
	}
	send := func(person uuid.UUID, purpose domain.Purpose, at time.Time) {
		firing := domain.Firing{FiringID: uuid.New(), Reaction: "r", Cause: "reaction", Target: "t", TargetVersion: 1, Platform: "webhook", ProfileID: person}
		id := domain.DeliveryID(firing.FiringID, "t")
		add(domain.DeliveryPlanned{DeliveryID: id, Firing: firing, BodySHA256: "00", MaxAttempts: 1, Consent: domain.Decision{Decision: "allowed", Channel: domain.Email, Purpose: purpose}},
			domain.DeliveryAttempted{DeliveryID: id, Target: "t", ProfileID: person, Attempt: 1, StartedAt: at, Verdict: domain.Accepted, Outcome: domain.Succeeded})
	}
	send(jane, domain.Promo, decided.Add(-time.Minute))  // before she decided
	send(jane, domain.Promo, decided.Add(5*time.Minute)) // before we heard
	send(jane, domain.Service, decided.Add(6*time.Minute))
	send(john, domain.Promo, decided.Add(7*time.Minute)) // somebody else
	add(domain.ConsentChanged{ProfileID: jane, Changes: promo(domain.OptedOut), DecidedAt: decided, DecidedBy: "customer"})
	optOut := head()
	entry := domain.PushEntry{Hash: "aa", ProfileID: jane, Decision: optOut, DecidedAt: decided}
	add(domain.SuppressionOrdered{Platform: "klaviyo", Channel: domain.Email, Intent: domain.Suppress, Batch: uuid.New(), Entries: []domain.PushEntry{entry}})
	w.settle(t)

	one := func(now time.Time) promptness.OptOut {
		t.Helper()
		list := w.optOuts(t, now, promptness.Filter{Profile: jane})
		if len(list) != 1 {
			t.Fatalf("opt-outs = %+v, want one", list)
		}
		return list[0]
	}
	o := one(time.Now())
	if o.State != promptness.Open || o.SentSince != 1 || o.SentAfter != 0 || o.LastSentAt == nil || !o.LastSentAt.Equal(decided.Add(5*time.Minute)) || o.EffectiveAt != nil {
		t.Errorf("before the platform answered = %+v", o)
	}
	if late := one(time.Now().AddDate(0, 0, 15)); late.State != promptness.Overdue {
		t.Errorf("a fortnight later = %+v, want it overdue", late)
	}
	pushed := entry
	pushed.Status = "accepted"
	add(domain.SuppressionPushed{Platform: "klaviyo", Channel: domain.Email, Intent: domain.Suppress, Batch: uuid.New(), PushedAt: decided.Add(62 * time.Minute), Entries: []domain.PushEntry{pushed}})
	w.settle(t)
	if o := one(time.Now()); o.State != promptness.Open || o.Platforms[0].Status != "accepted" {
		t.Errorf("taken, and not yet done = %+v", o)
	}
	confirmed := decided.Add(90 * time.Minute)
	add(domain.SuppressionConfirmed{Platform: "klaviyo", Channel: domain.Email, Intent: domain.Suppress, ConfirmedAt: confirmed, Entries: []domain.PushEntry{pushed}})
	w.settle(t)
	if o := one(time.Now()); o.State != promptness.Honoured || o.EffectiveAt == nil || !o.EffectiveAt.Equal(confirmed) {
		t.Errorf("read back = %+v, want it honoured", o)
	}
	add(domain.ConsentChanged{ProfileID: jane, Changes: promo(domain.OptedIn), DecidedAt: decided.Add(2 * time.Hour), DecidedBy: "customer"})
	send(jane, domain.Promo, decided.Add(3*time.Hour)) // she asked for it again
	w.settle(t)
	if o := one(time.Now()); o.SentSince != 1 || o.State != promptness.Honoured {
		t.Errorf("after she opted in again = %+v, want what is sent then not counted", o)
	}
	// A late one: it was heard of a month after.
	add(domain.ConsentChanged{ProfileID: john, Changes: append(promo(domain.OptedOut), domain.ConsentChange{Channel: domain.SMS, Purpose: domain.PurposeAll, Status: domain.OptedOut}), DecidedAt: decided.AddDate(0, -1, 0), DecidedBy: "customer"})
	w.settle(t)
	r, err := promptness.Sum(t.Context(), w.ledger.DB(), domain.DefaultDeadline(), time.Now(), promptness.Filter{})
	if err != nil || r.OptOuts != 3 || r.States[promptness.Honoured] != 1 || r.States[promptness.Late] != 2 || r.Platforms["klaviyo"].Max != 5400 {
		t.Errorf("report = %+v, %v", r, err)
	}
	report, err := w.engine.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range report.Problems {
		t.Error(p)
	}
}
