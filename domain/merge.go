package domain

import (
	"time"

	"github.com/google/uuid"
)

// ProfileMerged records that the CRM found two profiles to be one person. The loser is gone there; here both keep
// their histories, and from now on consent is asked of both: see Person.
type ProfileMerged struct {
	WinnerID uuid.UUID `json:"winner_id" doc:"the profile that stays"`
	LoserID  uuid.UUID `json:"loser_id" doc:"the profile that is gone"`
	MergedAt time.Time `json:"merged_at" doc:"when the CRM merged them"`
}

var _ = declare("profile.merged", 1, FromOutside,
	"The CRM found two profiles to be one person. The most restrictive of their answers holds until the person answers again.",
	ProfileMerged{
		WinnerID: uuid.MustParse("8fc344db-713e-4590-ab26-e82d77ba3313"), LoserID: uuid.MustParse("1b0c1f5e-6a0d-4c39-9d0b-6d1a1fb0e2a7"),
		MergedAt: exampleTime,
	})

// Stream is the winner's.
func (m ProfileMerged) Stream() string { return ProfileStream(m.WinnerID) }

// Keys selects by the winner; the loser's history names the event through the projection of consent.
func (m ProfileMerged) Keys() Keys { return Keys{Subject: m.WinnerID, State: "merged"} }

// Validate reports what is wrong with the payload.
func (m ProfileMerged) Validate() error {
	switch {
	case m.WinnerID == uuid.Nil:
		return Invalid("/winner_id", "is missing: give the CRM's id of the profile that stays, a UUID")
	case m.LoserID == uuid.Nil:
		return Invalid("/loser_id", "is missing: give the CRM's id of the profile that is gone, a UUID")
	case m.WinnerID == m.LoserID:
		return Invalid("/loser_id", "is the winner itself")
	case m.MergedAt.IsZero():
		return Invalid("/merged_at", "is missing: give the time of the merge, RFC 3339")
	}
	return nil
}

// Pair is two profiles.
type Pair struct{ A, B uuid.UUID }

// Person is the profiles that merges have found to be one person, and since when each two of them are. The zero value is
// a person of one profile.
type Person struct {
	joined map[Pair]time.Time // both ways round
}

// Join adds a merge. The order in which merges are added does not matter: two profiles are one since the first moment at
// which a chain of merges led from one to the other.
func (p *Person) Join(winner, loser uuid.UUID, at time.Time) {
	if p.joined == nil {
		p.joined = map[Pair]time.Time{}
	}
	since := func(a, b uuid.UUID) (time.Time, bool) {
		if a == b {
			return time.Time{}, true // from the beginning
		}
		t, ok := p.joined[Pair{a, b}]
		return t, ok
	}
	var members []uuid.UUID
	seen := map[uuid.UUID]bool{}
	add := func(id uuid.UUID) {
		if !seen[id] {
			seen[id] = true
			members = append(members, id)
		}
	}
	add(winner)
	add(loser)
	for pair := range p.joined {
		add(pair.A)
	}
	for _, a := range members {
		left, ok := since(a, loser)
		if !ok {
			continue
		}
		for _, b := range members {
			right, ok := since(winner, b)
			if !ok || a == b {
				continue
			}
			by := later(later(left, right), at)
			if known, ok := p.joined[Pair{a, b}]; !ok || by.Before(known) {
				p.joined[Pair{a, b}], p.joined[Pair{b, a}] = by, by
			}
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Tie adds what a projection has worked out already: that two profiles are one since a time.
func (p *Person) Tie(a, b uuid.UUID, since time.Time) {
	if a == b {
		return
	}
	if p.joined == nil {
		p.joined = map[Pair]time.Time{}
	}
	if known, ok := p.joined[Pair{a, b}]; !ok || since.Before(known) {
		p.joined[Pair{a, b}], p.joined[Pair{b, a}] = since, since
	}
}

// With lists the profiles that are one person with a profile, that one not among them.
func (p Person) With(profile uuid.UUID) []uuid.UUID {
	var out []uuid.UUID
	for pair := range p.joined {
		if pair.A == profile {
			out = append(out, pair.B)
		}
	}
	return out
}

// Holds gives the answer that holds for the person, of the latest answers of each of its profiles on one channel and
// purpose; false when there is none.
//
// An answer gives way to a later one that was made when the two profiles were one person already: then the person knew
// what they had said. Of those that remain the most restrictive holds, so a merge never loses an opt-out, whichever
// profile it stood on, until the person answers again. projections/consent says the same in SQL.
func (p Person) Holds(answers []Answer) (Answer, bool) {
	var held Answer
	found := false
	for _, x := range answers {
		if p.gaveWay(x, answers) {
			continue
		}
		if !found || x.moreRestrictive(held) {
			held, found = x, true
		}
	}
	return held, found
}

func (p Person) gaveWay(x Answer, answers []Answer) bool {
	for _, y := range answers {
		if !y.DecidedAt.After(x.DecidedAt) {
			continue
		}
		if y.Profile == x.Profile {
			return true
		}
		if since, ok := p.joined[Pair{x.Profile, y.Profile}]; ok && y.DecidedAt.After(since) {
			return true
		}
	}
	return false
}

func (a Answer) moreRestrictive(b Answer) bool {
	if a.Status.restriction() != b.Status.restriction() {
		return a.Status.restriction() > b.Status.restriction()
	}
	if !a.DecidedAt.Equal(b.DecidedAt) {
		return a.DecidedAt.After(b.DecidedAt)
	}
	return a.Position > b.Position
}
