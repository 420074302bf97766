package projections_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/contacts"
)

// upset draws an event that may change what holds for some people who share a few addresses.
func upset(t *rapid.T, people []uuid.UUID, addresses []domain.ContactHash) domain.Payload {
	person := rapid.SampledFrom(people).Draw(t, "person")
	hashes := []domain.ContactHash{rapid.SampledFrom(addresses).Draw(t, "address")}
	at := time.Unix(int64(rapid.IntRange(1, 60).Draw(t, "at")), 0).UTC()
	status := rapid.SampledFrom([]domain.ConsentStatus{domain.OptedIn, domain.OptedOut}).Draw(t, "status")
	switch rapid.IntRange(0, 6).Draw(t, "kind") {
	case 0:
		return domain.ProfileObserved{ProfileID: person, Topic: "profile.updated", ObservedAt: at, State: domain.ProfileActive, ContactHashes: hashes, BodySHA256: "00"}
	case 1:
		return domain.ProfileObserved{ProfileID: person, Topic: "profile.updated", ObservedAt: at, State: domain.ProfileActive, Cleared: []domain.Channel{domain.Email}, BodySHA256: "00"}
	case 2:
		return domain.ProfileErased{ProfileID: person, Reason: "asked", ContactHashes: hashes}
	case 3:
		reported := domain.AddressReported{ProfileID: person, Channel: domain.Email, Status: domain.AddressBounced, ReportedAt: at, ReportedBy: "crm"}
		if rapid.Bool().Draw(t, "of an address") {
			reported.ProfileID, reported.ContactHashes = uuid.Nil, hashes
		}
		return reported
	case 4:
		p := domain.DefaultConsentPolicy()
		if rapid.Bool().Draw(t, "strict") {
			p.Imported = domain.PolicyWithhold
		}
		return domain.ConsentPolicyChanged{ConsentPolicy: p}
	case 5:
		if other := rapid.SampledFrom(people).Draw(t, "other"); other != person {
			return domain.ProfileMerged{WinnerID: person, LoserID: other, MergedAt: at}
		}
	}
	return domain.ConsentChanged{
		ProfileID: person, DecidedBy: "customer", DecidedAt: at, ContactHashes: hashes,
		Changes: []domain.ConsentChange{{Channel: domain.Email, Purpose: domain.Promo, Status: status}},
	}
}

// concerns reports whether an event overtakes a delivery to a person that was decided on by what was known before it: as a
// dispatcher without a database decides it.
func concerns(o domain.Overtaken, profile uuid.UUID, known consent.Known) bool {
	people, addresses := known.DependsOn(profile)
	return o.Everybody || slices.ContainsFunc(append(people, profile), func(p uuid.UUID) bool { return slices.Contains(o.Profiles, p) }) ||
		slices.ContainsFunc(addresses, func(a domain.ContactHash) bool { return slices.Contains(o.Addresses, a) })
}

// Whatever changes what holds for a person overtakes what was decided for them before it, although nobody who has a decision
// in hand can ask the ledger: also an answer of somebody they were merged with, and what becomes known of an address of theirs.
func TestWhatChangesAnAnswerOvertakesDecisions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, consent.Definition, contacts.Definition)
	rapid.Check(t, func(rt *rapid.T) {
		ctx := context.Background()
		people := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
		addresses := []domain.ContactHash{{Channel: domain.Email, Hash: uuid.NewString()}, {Channel: domain.Email, Hash: uuid.NewString()}}
		look := func() consent.Known {
			for _, live := range w.engine.Live(1) {
				for moved := true; moved; {
					var err error
					if moved, err = w.move(ctx, live, 1_000); err != nil {
						rt.Fatal(err)
					}
				}
			}
			known, err := consent.Look(ctx, w.ledger.DB(), people)
			if err != nil {
				rt.Fatal(err)
			}
			return known
		}
		before := look()
		for range rapid.IntRange(2, 10).Draw(rt, "events") {
			e := upset(rt, people, addresses)
			if err := w.append(ctx, e); err != nil {
				rt.Fatal(err)
			}
			after := look()
			var o domain.Overtaken
			if overtakes, ok := e.(domain.Overtaking); ok {
				o = overtakes.Overtakes()
			}
			for _, p := range people {
				was, is := fmt.Sprint(before.Policy, before.View(p, domain.Email)), fmt.Sprint(after.Policy, after.View(p, domain.Email))
				if was != is && !concerns(o, p, before) {
					rt.Fatalf("%T %+v changes what holds for %s, and does not overtake what was decided before:\n%s\n%s", e, e, p, was, is)
				}
			}
			before = after
		}
	})
}
