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

// said is what holds for one profile, without what depends on where in the ledger it stands.
func said(status domain.ConsentStatus, decided time.Time, as uuid.UUID) string {
	return fmt.Sprintf("%s at %d as %s", status, decided.Unix(), as)
}

// inSQL is the view that everybody but the gate asks.
func (w world) inSQL(ctx context.Context, profile uuid.UUID) (map[domain.Purpose]string, error) {
	rows, err := w.ledger.DB().QueryContext(ctx, `SELECT purpose, status, decided_at, decided_as FROM consent_held WHERE profile_id = $1 AND channel = 'email'`, profile)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[domain.Purpose]string{}
	for rows.Next() {
		var purpose domain.Purpose
		var status domain.ConsentStatus
		var decided time.Time
		var as uuid.UUID
		if err := rows.Scan(&purpose, &status, &decided, &as); err != nil {
			return nil, err
		}
		out[purpose] = said(status, decided, as)
	}
	return out, rows.Err()
}

// atTheGate is what the gate is told.
func (w world) atTheGate(ctx context.Context, profile uuid.UUID) (map[domain.Purpose]string, error) {
	known, err := consent.Look(ctx, w.ledger.DB(), []uuid.UUID{profile})
	if err != nil {
		return nil, err
	}
	out := map[domain.Purpose]string{}
	for purpose, a := range known.View(profile, domain.Email).Purposes {
		out[purpose] = said(a.Status, a.DecidedAt, a.Profile)
	}
	return out, nil
}

// inTheDossier is what people are shown.
func (w world) inTheDossier(ctx context.Context, profile uuid.UUID) (map[domain.Purpose]string, error) {
	d, err := consent.Read(ctx, w.ledger.DB(), profile, consent.AsOf{})
	if err != nil {
		return nil, err
	}
	out := map[domain.Purpose]string{}
	for _, e := range d.Held() {
		out[e.Purpose] = said(e.Status, e.DecidedAt, e.ProfileID)
	}
	return out, nil
}

// decisions draws what some profiles decided, and merges of them.
func decisions(t *rapid.T, people []uuid.UUID) []domain.Payload {
	var out []domain.Payload
	at := func() time.Time { return time.Unix(int64(rapid.IntRange(0, 5).Draw(t, "at")), 0).UTC() }
	for range rapid.IntRange(1, 8).Draw(t, "events") {
		if len(people) > 1 && rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
			two := rapid.SliceOfNDistinct(rapid.SampledFrom(people), 2, 2, rapid.ID).Draw(t, "merged")
			out = append(out, domain.ProfileMerged{WinnerID: two[0], LoserID: two[1], MergedAt: at()})
			continue
		}
		c := domain.ConsentChanged{ProfileID: rapid.SampledFrom(people).Draw(t, "person"), DecidedBy: "customer", DecidedAt: at()}
		for _, purpose := range rapid.SliceOfNDistinct(rapid.SampledFrom([]domain.Purpose{domain.PurposeAll, domain.Promo}), 1, 2, rapid.ID).Draw(t, "purposes") {
			c.Changes = append(c.Changes, domain.ConsentChange{
				Channel: domain.Email, Purpose: purpose,
				Status: rapid.SampledFrom([]domain.ConsentStatus{domain.OptedIn, domain.OptedOut, domain.Unknown}).Draw(t, "status"),
			})
		}
		out = append(out, c)
	}
	return out
}

// The same decisions and merges give the same state in whatever order they are heard of, however often, and however the
// ledger is sliced; in SQL and in Go, before they are projected and after. An opt-out is never lost: it holds until the
// same person, as far as anybody can know, decides again later.
func TestConsentConverges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, consent.Definition, contacts.Definition)
	rapid.Check(t, func(rt *rapid.T) {
		ctx := t.Context()
		people := make([]uuid.UUID, rapid.IntRange(1, 4).Draw(rt, "people"))
		for i := range people {
			people[i] = uuid.New()
		}
		events := decisions(rt, people)
		var first map[uuid.UUID]map[domain.Purpose]string
		for round := range 2 {
			renamed := map[uuid.UUID]uuid.UUID{} // each round is about people of its own
			told := slices.Clone(events)
			if round > 0 {
				told = append(told, rapid.SliceOfN(rapid.SampledFrom(events), 0, 3).Draw(rt, "again")...)
				told = rapid.Permutation(told).Draw(rt, "order")
			}
			for _, p := range people {
				renamed[p] = uuid.New()
				if round == 0 {
					renamed[p] = p
				}
			}
			for _, e := range told {
				if err := w.append(ctx, rename(e, renamed)); err != nil {
					rt.Fatal(err)
				}
				if rapid.IntRange(0, 2).Draw(rt, "project") == 0 {
					for _, live := range w.engine.Live(1) {
						if _, err := w.move(ctx, live, int64(rapid.IntRange(1, 9).Draw(rt, "slice"))); err != nil {
							rt.Fatal(err)
						}
					}
				}
			}
			state := map[uuid.UUID]map[domain.Purpose]string{}
			for _, p := range people {
				gate, err := w.atTheGate(ctx, renamed[p])
				if err != nil {
					rt.Fatal(err)
				}
				state[p] = gate
			}
			for _, live := range w.engine.Live(1) {
				for {
					moved, err := w.move(ctx, live, 1_000)
					if err != nil {
						rt.Fatal(err)
					}
					if !moved {
						break
					}
				}
			}
			for _, p := range people {
				for name, ask := range map[string]func(context.Context, uuid.UUID) (map[domain.Purpose]string, error){
					"the gate, projected": w.atTheGate, "SQL": w.inSQL, "the dossier": w.inTheDossier,
				} {
					got, err := ask(ctx, renamed[p])
					if err != nil {
						rt.Fatal(err)
					}
					if fmt.Sprint(got) != fmt.Sprint(state[p]) {
						rt.Fatalf("round %d, profile %s: %s says %v, the gate before projecting %v", round, p, name, got, state[p])
					}
				}
			}
			back := map[uuid.UUID]uuid.UUID{}
			for from, to := range renamed {
				back[to] = from
			}
			canonical := map[uuid.UUID]map[domain.Purpose]string{}
			for _, p := range people {
				canonical[p] = map[domain.Purpose]string{}
				for purpose := range state[p] {
					known, err := consent.Look(ctx, w.ledger.DB(), []uuid.UUID{renamed[p]})
					if err != nil {
						rt.Fatal(err)
					}
					a := known.View(renamed[p], domain.Email).Purposes[purpose]
					canonical[p][purpose] = said(a.Status, a.DecidedAt, uuid.Nil)
				}
			}
			if first == nil {
				first = canonical
			} else if fmt.Sprint(first) != fmt.Sprint(canonical) {
				rt.Fatalf("in this order %v, in another %v", first, canonical)
			}
		}
		neverLost(rt, events, first)
	})
}

// neverLost says what it means that an opt-out holds, without saying how it is worked out: unless a later decision was made
// on a profile that was, by then, the same person through some chain of merges, the opt-out is what holds.
func neverLost(t *rapid.T, events []domain.Payload, state map[uuid.UUID]map[domain.Purpose]string) {
	// one reports whether a chain of merges made up to a time leads from a to b.
	one := func(a, b uuid.UUID, before time.Time) bool {
		reached := map[uuid.UUID]bool{a: true}
		for grown := true; grown; {
			grown = false
			for _, e := range events {
				if m, ok := e.(domain.ProfileMerged); ok && m.MergedAt.Before(before) && reached[m.WinnerID] != reached[m.LoserID] {
					reached[m.WinnerID], reached[m.LoserID], grown = true, true, true
				}
			}
		}
		return reached[b]
	}
	forever := time.Unix(1<<40, 0)
	for _, e := range events {
		out, ok := e.(domain.ConsentChanged)
		if !ok {
			continue
		}
		for _, c := range out.Changes {
			if c.Status != domain.OptedOut {
				continue
			}
			answeredAgain := slices.ContainsFunc(events, func(e domain.Payload) bool {
				later, ok := e.(domain.ConsentChanged)
				return ok && later.DecidedAt.After(out.DecidedAt) && (later.ProfileID == out.ProfileID || one(out.ProfileID, later.ProfileID, later.DecidedAt)) &&
					slices.ContainsFunc(later.Changes, func(d domain.ConsentChange) bool { return d.Purpose == c.Purpose })
			})
			if answeredAgain {
				continue
			}
			for profile, held := range state {
				if one(out.ProfileID, profile, forever) && !slices.Contains([]string{"opted_out"}, held[c.Purpose][:min(9, len(held[c.Purpose]))]) {
					t.Fatalf("the opt-out of %s by %s at %s is lost for %s: %s holds", c.Purpose, out.ProfileID, out.DecidedAt, profile, held[c.Purpose])
				}
			}
		}
	}
}

func rename(p domain.Payload, to map[uuid.UUID]uuid.UUID) domain.Payload {
	switch p := p.(type) {
	case domain.ConsentChanged:
		p.ProfileID = to[p.ProfileID]
		return p
	case domain.ProfileMerged:
		p.WinnerID, p.LoserID = to[p.WinnerID], to[p.LoserID]
		return p
	}
	return p
}
