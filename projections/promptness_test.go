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
	for platform, want := range map[string]int{"": 1, promptness.AnyPlatform: 1, "klaviyo": 1, "braze": 0} {
		if list := w.optOuts(t, time.Now(), promptness.Filter{Open: platform}); len(list) != want {
			t.Errorf("opt-outs that %q has not confirmed = %+v, want %d", platform, list, want)
		}
	}
	confirmed := decided.Add(90 * time.Minute)
	add(domain.SuppressionConfirmed{Platform: "klaviyo", Channel: domain.Email, Intent: domain.Suppress, ConfirmedAt: confirmed, Entries: []domain.PushEntry{pushed}})
	w.settle(t)
	if list := w.optOuts(t, time.Now(), promptness.Filter{Open: promptness.AnyPlatform}); len(list) != 0 {
		t.Errorf("confirmed, and listed as not = %+v", list)
	}
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

// A platform's own list shows the person: that is its word as good as an answer, if it covers the channel, somebody is known
// to have said it, and it was seen after the decision.
func TestAPlatformsListConfirmsAnOptOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, all...)
	jane := uuid.New()
	decided := time.Now().UTC().Truncate(time.Microsecond).Add(-20 * 24 * time.Hour)
	hash := domain.ContactHash{Channel: domain.Email, Hash: "aa"}
	add := func(p domain.Payload) {
		t.Helper()
		if err := w.append(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	everywhere := domain.SuppressionScope{Kind: domain.GlobalScope}
	seen := func(after time.Duration, change func(*domain.SuppressionSeen)) {
		t.Helper()
		s := domain.SuppressionSeen{
			Platform: "klaviyo", Channel: domain.Email, Scope: everywhere, Via: domain.ViaList, SeenAt: decided.Add(after),
			Entries: []domain.SuppressionEntry{{Hash: "aa", Reason: "unsubscribed", Class: "consent", Precision: "exact", At: decided}},
		}
		change(&s)
		add(s)
	}
	plain := func(*domain.SuppressionSeen) {}
	one := func() promptness.OptOut {
		t.Helper()
		w.settle(t)
		out := w.optOuts(t, time.Now(), promptness.Filter{Profile: jane})
		if len(out) != 1 {
			t.Fatalf("%d opt-outs", len(out))
		}
		return out[0]
	}
	waiting := func() int {
		t.Helper()
		open, err := promptness.Unconfirmed(t.Context(), w.ledger.DB(), domain.DefaultDeadline(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return len(open)
	}
	seen(-time.Hour, plain) // before: of another decision
	add(domain.ConsentChanged{
		ProfileID: jane, Changes: []domain.ConsentChange{{Channel: domain.Email, Purpose: domain.Promo, Status: domain.OptedOut}}, DecidedAt: decided, DecidedBy: "customer",
		ContactHashes: []domain.ContactHash{hash},
	})
	optOut, err := w.ledger.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	add(domain.SuppressionOrdered{Platform: "klaviyo", Channel: domain.Email, Intent: domain.Suppress, Batch: uuid.New(), Entries: []domain.PushEntry{{Hash: "aa", ProfileID: jane, Decision: optOut, DecidedAt: decided}}})
	seen(time.Hour, func(s *domain.SuppressionSeen) { s.Scope = domain.SuppressionScope{Kind: "list", ID: "L1"} })
	seen(2*time.Hour, func(s *domain.SuppressionSeen) { s.Via, s.Unproven = domain.ViaWebhook, true })
	seen(3*time.Hour, func(s *domain.SuppressionSeen) { s.Channel = domain.SMS })
	seen(4*time.Hour, func(s *domain.SuppressionSeen) { s.Entries[0].Hash = "bb" })
	if o := one(); o.State != promptness.Overdue || len(o.Platforms) != 1 || o.Platforms[0].ConfirmedAt != nil || waiting() != 1 {
		t.Errorf("what confirms nothing = %+v, %d waited for", o, waiting())
	}
	seen(5*time.Hour, plain)
	seen(6*time.Hour, plain)
	shown := one()
	if p := shown.Platforms[0]; p.Status != "seen" || p.ConfirmedAt == nil || !p.ConfirmedAt.Equal(decided.Add(5*time.Hour)) || waiting() != 0 {
		t.Errorf("shown by its list = %+v, %d waited for", shown, waiting())
	}
	seen(19*24*time.Hour, func(s *domain.SuppressionSeen) { s.Platform = "braze" }) // nobody asked it; its list was read for the first time
	if o := one(); len(o.Platforms) != 2 || o.Platforms[0].Platform != "braze" || o.Platforms[0].OrderedAt != nil || !o.EffectiveAt.Equal(*shown.EffectiveAt) {
		t.Errorf("a platform that nobody asked = %+v, before %+v", o, shown)
	}
	report, err := w.engine.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range report.Problems {
		t.Error(p)
	}
}
