package consent

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Entry is one answer in a person's consent or its history.
type Entry struct {
	Channel    domain.Channel       `json:"channel"`
	Purpose    domain.Purpose       `json:"purpose"`
	Status     domain.ConsentStatus `json:"status"`
	DecidedAt  time.Time            `json:"decided_at"`
	DecidedBy  string               `json:"decided_by"`
	Method     string               `json:"method,omitempty"`
	RecordedAt time.Time            `json:"recorded_at"`
	Actor      string               `json:"actor"`
	Source     string               `json:"source"`
	Evidence   bool                 `json:"evidence" doc:"Evidence, or a note, is kept sealed beside it."`
	ProfileID  uuid.UUID            `json:"profile_id" doc:"The profile that it was recorded for: another one where the CRM merged them."`
	Position   int64                `json:"position"`
}

// Merge is two profiles that the CRM found to be one person.
type Merge struct {
	WinnerID   uuid.UUID `json:"winner_id"`
	LoserID    uuid.UUID `json:"loser_id"`
	MergedAt   time.Time `json:"merged_at"`
	RecordedAt time.Time `json:"recorded_at"`
	Position   int64     `json:"position"`
}

// AsOf says at which moment consent is asked for, on two clocks that are independent of each other. The zero value is
// now, by all that is known.
type AsOf struct {
	Decided  time.Time // decisions made up to this time: what held
	Known    time.Time // what the ledger had heard of by this time: what we knew
	Position int64     // the same by position
}

func (at AsOf) filter(profile uuid.UUID) schema.Filter {
	f := schema.Filter{Subject: profile, Types: []string{"consent.changed", "profile.merged"}, UpTo: at.Position}
	if !at.Known.IsZero() {
		f.To = at.Known.Add(time.Microsecond) // the filter's end is exclusive, ours is not
	}
	return f
}

// Dossier is what the ledger holds of a person's consent: every answer, in the order in which it heard of them, and the
// merges that made several profiles one person.
type Dossier struct {
	Answers []Entry
	Merges  []Merge
	person  domain.Person
}

// Read gathers a person's dossier at a moment. It reads events, of which a person has few, so that it can answer for any
// moment.
func Read(ctx context.Context, q schema.Querier, profile uuid.UUID, at AsOf) (Dossier, error) {
	profiles, err := group(ctx, q, profile)
	if err != nil {
		return Dossier{}, fmt.Errorf("consent: %w", err)
	}
	d := Dossier{Answers: []Entry{}, Merges: []Merge{}}
	for _, p := range profiles {
		for rec, err := range schema.Events(ctx, q, at.filter(p)) {
			if err != nil {
				return Dossier{}, err
			}
			if err := d.add(rec, at); err != nil {
				return Dossier{}, fmt.Errorf("event %d: %w", rec.Position, err)
			}
		}
	}
	for _, m := range d.Merges {
		d.person.Join(m.WinnerID, m.LoserID, m.MergedAt)
	}
	// Those that were merged only after the moment asked about were other people then.
	one := append(d.person.With(profile), profile)
	d.Answers = slices.DeleteFunc(d.Answers, func(e Entry) bool { return !slices.Contains(one, e.ProfileID) })
	slices.SortStableFunc(d.Answers, func(a, b Entry) int { return cmp.Compare(a.Position, b.Position) })
	slices.SortFunc(d.Merges, func(a, b Merge) int { return cmp.Compare(a.Position, b.Position) })
	return d, nil
}

func (d *Dossier) add(rec domain.Recorded, at AsOf) error {
	if rec.Type == "profile.merged" {
		var m domain.ProfileMerged
		if err := json.Unmarshal(rec.Data, &m); err != nil {
			return err
		}
		if at.Decided.IsZero() || !m.MergedAt.After(at.Decided) {
			d.Merges = append(d.Merges, Merge{m.WinnerID, m.LoserID, m.MergedAt, rec.RecordedAt, rec.Position})
		}
		return nil
	}
	if !at.Decided.IsZero() && rec.OccurredAt.After(at.Decided) {
		return nil
	}
	var c domain.ConsentChanged
	if err := json.Unmarshal(rec.Data, &c); err != nil {
		return err
	}
	for _, ch := range c.Changes {
		d.Answers = append(d.Answers, Entry{
			Channel: ch.Channel, Purpose: ch.Purpose, Status: ch.Status, DecidedAt: rec.OccurredAt, DecidedBy: c.DecidedBy, Method: c.Method,
			RecordedAt: rec.RecordedAt, Actor: rec.Actor, Source: rec.Source, Evidence: rec.Sealed != nil, ProfileID: rec.Subject, Position: rec.Position,
		})
	}
	return nil
}

// group lists the profiles that are, as far as is known now, one person with this one, itself included.
func group(ctx context.Context, q schema.Querier, profile uuid.UUID) ([]uuid.UUID, error) {
	found := []uuid.UUID{profile}
	for {
		more, err := tied(ctx, q, found)
		if err != nil {
			return nil, err
		}
		before := len(found)
		for _, id := range more {
			if !slices.Contains(found, id) {
				found = append(found, id)
			}
		}
		if len(found) == before {
			return found, nil
		}
	}
}

// tied lists the profiles that are one person with any of these, by the projection and by the merges recorded since.
func tied(ctx context.Context, q schema.Querier, profiles []uuid.UUID) ([]uuid.UUID, error) {
	return schema.IDs(ctx, q, `
		SELECT other FROM ties WHERE profile_id = ANY($1::uuid[])
		UNION
		SELECT unnest(ARRAY[d.winner_id, d.loser_id]) FROM events e, json_to_record(e.data) AS d (winner_id uuid, loser_id uuid)
		WHERE e.type IN ('profile.merged', 'consent.policy_changed') AND e.type = 'profile.merged'
		  AND e.position > (SELECT position FROM subscriptions WHERE name = $2)
		  AND (d.winner_id = ANY($1::uuid[]) OR d.loser_id = ANY($1::uuid[]))`, schema.UUIDs(profiles), Definition.SubscriptionName())
}

// Held gives the answers that hold, by channel and purpose.
func (d Dossier) Held() []Entry {
	type key struct {
		domain.Channel
		domain.Purpose
	}
	byKey := map[key][]Entry{}
	for _, e := range d.Answers {
		k := key{e.Channel, e.Purpose}
		byKey[k] = append(byKey[k], e)
	}
	out := []Entry{}
	for _, c := range domain.Channels {
		for _, p := range domain.Purposes {
			entries := byKey[key{c, p}]
			latest := map[uuid.UUID]domain.Answer{}
			for _, e := range entries {
				if known, ok := latest[e.ProfileID]; !ok || e.answer().Supersedes(known) {
					latest[e.ProfileID] = e.answer()
				}
			}
			answers := make([]domain.Answer, 0, len(latest))
			for _, a := range latest {
				answers = append(answers, a)
			}
			if held, ok := d.person.Holds(answers); ok {
				i := slices.IndexFunc(entries, func(e Entry) bool { return e.Position == held.Position })
				out = append(out, entries[i])
			}
		}
	}
	return out
}

func (e Entry) answer() domain.Answer {
	return domain.Answer{Status: e.Status, DecidedAt: e.DecidedAt, DecidedBy: e.DecidedBy, Method: e.Method, Profile: e.ProfileID, Position: e.Position}
}

// Policy gives the ledger's consent policy as its projection holds it.
func Policy(ctx context.Context, q schema.Querier) (domain.PolicyInForce, error) {
	known, err := Look(ctx, q, nil)
	return known.Policy, err
}

// DecidedOn gives the ledger position of the consent state that a delivery was last decided on: what was known when it was
// sent, or withheld. ErrNotFound when there is no such delivery, or its target asks nobody.
func DecidedOn(ctx context.Context, q schema.Querier, delivery uuid.UUID) (position int64, err error) {
	for rec, err := range schema.Events(ctx, q, schema.Filter{DeliveryID: delivery}) {
		if err != nil {
			return 0, err
		}
		var d struct {
			Consent     *domain.Decision `json:"consent"`
			ConsentAsOf int64            `json:"consent_as_of"`
		}
		if err := json.Unmarshal(rec.Data, &d); err != nil {
			return 0, fmt.Errorf("event %d: %w", rec.Position, err)
		}
		switch {
		case d.ConsentAsOf > 0:
			position = d.ConsentAsOf
		case d.Consent != nil && d.Consent.AsOf > 0:
			position = d.Consent.AsOf
		}
	}
	if position == 0 {
		return 0, fmt.Errorf("a decision on consent for delivery %s: %w", delivery, schema.ErrNotFound)
	}
	return position, nil
}

// PolicyVersion is the version, in the stream of the policy, of the one recorded at a position: what a change that was
// decided on it expects. 0 for the default policy.
func PolicyVersion(ctx context.Context, q schema.Querier, position int64) (int64, error) {
	if position == 0 {
		return 0, nil
	}
	e, err := schema.EventAt(ctx, q, position)
	return e.Version, err
}
