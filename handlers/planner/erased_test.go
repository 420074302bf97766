package planner_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/privacy"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/contacts"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// erase erases a person and brings the projections along.
func (d desk) erase(t *testing.T, person uuid.UUID) {
	t.Helper()
	desk := privacy.Service{Ledger: d.ledger, Vault: d.vault, DB: d.ledger.DB(), Clock: time.Now}
	done, err := desk.Erase(t.Context(), person, privacy.By{Actor: "privacy", Source: "/test", Reason: "ticket 1"})
	if err != nil {
		t.Fatal(err)
	}
	d.apply(t, schema.Slice{From: done.Position - 1, To: done.Position})
}

// Somebody opts out, is erased, and turns up again under another id: the opt-out is recognised by the address, which stood
// nowhere but in what was sealed, and holds until they answer anew; and it does after a rebuild.
func TestAnErasedOptOutHoldsForTheAddress(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, purpose := range []domain.Purpose{domain.Promo, domain.Benefits, domain.Service} {
		d.target(t, string(purpose), func(x *domain.Target) {
			x.Body, x.URL, x.Headers = `{}`, "https://example.com/", nil
			x.Consent = &domain.ConsentRule{Channel: domain.Email, Purpose: purpose}
		})
	}
	now := time.Now().UTC().Truncate(time.Second)
	decide := func(person uuid.UUID, at time.Time, status domain.ConsentStatus, purposes ...domain.Purpose) {
		t.Helper()
		c := domain.ConsentChanged{ProfileID: person, DecidedAt: at, DecidedBy: "customer", Method: "portal"}
		for _, p := range purposes {
			c.Changes = append(c.Changes, domain.ConsentChange{Channel: domain.Email, Purpose: p, Status: status})
		}
		d.record(t, c)
	}
	gone, anew, other := uuid.New(), uuid.New(), uuid.New()
	decide(gone, now.Add(-3*time.Hour), domain.OptedIn, domain.Benefits)
	decide(gone, now.Add(-2*time.Hour), domain.OptedOut, domain.Promo)
	d.fire(t, "promo", `{"profile": {"email": "Gone@Example.com"}}`, gone) // the only place that names the address
	d.erase(t, gone)
	decide(anew, now.Add(-4*time.Hour), domain.OptedIn, domain.Promo) // before: an import of an old list, say
	decide(other, now.Add(-4*time.Hour), domain.OptedIn, domain.Promo)

	says := func(what string, person uuid.UUID, target, context, want string) domain.Decision {
		t.Helper()
		var got domain.Decision
		switch p := d.fire(t, target, context, person).(type) {
		case domain.DeliveryPlanned:
			got = p.Consent
		case domain.DeliveryWithheld:
			got = p.Consent
		}
		if got.Decision+" "+got.Reason != want {
			t.Errorf("%s: %s %s, want %s (%+v)", what, got.Decision, got.Reason, want, got)
		}
		return got
	}
	const nested, atRoot = `{"profile": {"email": " gone@example.COM"}}`, `{"email": "gone@example.com", "id": "x"}`
	check := func(when string) {
		t.Helper()
		cited := says(when+", the same address", anew, "promo", nested, "withheld opted_out")
		if cited.DecidedAs != gone || cited.SameAddress == "" || !strings.Contains(cited.Explain(), "which was erased and had the address") {
			t.Errorf("%s: it cites %+v: %s", when, cited, cited.Explain())
		}
		says(when+", at the context's root", anew, "promo", atRoot, "withheld opted_out")
		says(when+", another address", anew, "promo", `{"profile": {"email": "anew@example.com"}}`, "allowed opted_in")
		says(when+", no address", anew, "promo", `{"profile": {"email": 7}}`, "allowed opted_in")
		says(when+", somebody else who was never asked, there", uuid.New(), "promo", nested, "withheld opted_out")
		says(when+", a yes of the erased person", anew, "benefits", nested, "withheld never_asked")
		says(when+", what was not refused", anew, "service", nested, "allowed not_refused")
		says(when+", somebody else elsewhere", other, "promo", `{"profile": {"email": "other@example.com"}}`, "allowed opted_in")
	}
	check("live")
	for _, definition := range []projections.Definition{contacts.Definition, consent.Definition} {
		if err := d.engine.Rebuild(t.Context(), definition, projections.RebuildOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	check("rebuilt")
	decide(anew, now.Add(-time.Hour), domain.OptedIn, domain.Promo)
	says("answered anew", anew, "promo", nested, "allowed opted_in")

	// By the address that the ledger knows of the person, whatever the firing says.
	known := uuid.New()
	hash, err := d.vault.AddressHash(domain.Email, "gone@example.com")
	if err != nil {
		t.Fatal(err)
	}
	d.record(t, domain.ProfileObserved{ProfileID: known, State: domain.ProfileActive, ObservedAt: now, ContactHashes: []domain.ContactHash{hash}})
	says("by the person's own address", known, "promo", `{}`, "withheld opted_out")

	// An opt-out of everything ends for what a later answer speaks of, and for nothing else.
	all := uuid.New()
	decide(all, now.Add(-2*time.Hour), domain.OptedOut, domain.PurposeAll)
	d.fire(t, "promo", `{"profile": {"email": "all@example.com"}}`, all)
	d.erase(t, all)
	const there = `{"profile": {"email": "all@example.com"}}`
	says("refused everything", anew, "service", there, "withheld opted_out")
	says("and agreed to this since", anew, "promo", there, "allowed opted_in")
	says("a stranger there", uuid.New(), "service", there, "withheld opted_out_of_all")
}
