package consent

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Known is what the ledger holds of some people's consent, for the gate.
type Known struct {
	Policy domain.PolicyInForce
	AsOf   int64 // the ledger's head when it was read: nothing that was recorded up to here is missing
	views  map[uuid.UUID]map[domain.Channel]domain.ConsentView
	others map[uuid.UUID][]uuid.UUID          // besides a profile, whose answers its views are made of
	at     map[uuid.UUID][]domain.ContactHash // a profile's addresses
}

// Question makes the question that a rule on a channel is asked about a person.
func (k Known) Question(profile uuid.UUID, rule *domain.ConsentRule, at time.Time) domain.Question {
	q := domain.Question{Profile: profile, Policy: k.Policy, At: at, AsOf: k.AsOf}
	if rule != nil && profile != uuid.Nil {
		q.View = k.views[profile][rule.Channel]
	}
	return q
}

// View is what is known of a person on a channel.
func (k Known) View(profile uuid.UUID, channel domain.Channel) domain.ConsentView {
	return k.views[profile][channel]
}

// DependsOn gives what else than the profile's own answers the views of it depend on: the people it was merged with and those
// who were erased and had an address of its, and its addresses, by which what is reported of them counts.
func (k Known) DependsOn(profile uuid.UUID) (people []uuid.UUID, addresses []domain.ContactHash) {
	return k.others[profile], k.at[profile]
}

// lookQuery reads in one round trip, by primary keys and the index on subjects, what the projections hold and whatever was
// recorded since they were last moved on.
const lookQuery = `
WITH stands AS MATERIALIZED (
	SELECT position FROM subscriptions WHERE name = $2
), current AS MATERIALIZED (
	SELECT profile_id, channel, hash FROM current_contacts WHERE profile_id = ANY($1::uuid[])
), gone AS MATERIALIZED (
	SELECT DISTINCT c.profile_id, c.channel, c.hash, x.profile_id AS other
	FROM (SELECT profile_id, channel, hash FROM current UNION ALL SELECT * FROM unnest($3::uuid[], $4::text[], $5::text[])) c (profile_id, channel, hash)
	JOIN erased_contacts x ON x.channel = c.channel AND x.hash = c.hash AND x.profile_id <> c.profile_id
), people AS MATERIALIZED (
	SELECT unnest($1::uuid[]) AS id UNION SELECT other FROM ties WHERE profile_id = ANY($1::uuid[])
	UNION SELECT other FROM gone UNION SELECT t.other FROM ties t JOIN gone g ON g.other = t.profile_id
)
SELECT 'answer' AS kind, s.profile_id, s.channel, s.purpose, s.status, s.decided_at, s.position, d.decided_by, d.method, e.recorded_at, e.actor, NULL::uuid AS other, NULL::text AS policy
FROM people p JOIN consent_state s ON s.profile_id = p.id JOIN events e ON e.position = s.position
CROSS JOIN LATERAL json_to_record(e.data) AS d (decided_by text, method text)
UNION ALL
SELECT 'answer', e.subject, c.channel, c.purpose, c.status, e.occurred_at, e.position, d.decided_by, d.method, e.recorded_at, e.actor, NULL, NULL
FROM people p JOIN events e ON e.subject = p.id AND e.position > (SELECT position FROM stands)
CROSS JOIN LATERAL json_to_record(e.data) AS d (decided_by text, method text, changes json)
CROSS JOIN LATERAL json_to_recordset(d.changes) AS c (channel text, purpose text, status text)
WHERE e.type = 'consent.changed'
UNION ALL
SELECT 'tie', t.profile_id, '', '', '', t.since, 0, NULL, NULL, NULL, NULL, t.other, NULL
FROM people p JOIN ties t ON t.profile_id = p.id WHERE t.other <> t.profile_id
UNION ALL
SELECT 'merge', d.winner_id, '', '', '', d.merged_at, e.position, NULL, NULL, NULL, NULL, d.loser_id, NULL
FROM events e CROSS JOIN LATERAL json_to_record(e.data) AS d (winner_id uuid, loser_id uuid, merged_at timestamptz)
WHERE e.type IN ('profile.merged', 'consent.policy_changed') AND e.type = 'profile.merged' AND e.position > (SELECT position FROM stands)
UNION ALL
SELECT 'address', c.profile_id, c.channel, '', f.status, f.reported_at, f.position, f.reported_by, NULL, NULL, NULL, NULL, NULL
FROM current c JOIN address_facts f ON f.hash = c.hash AND f.channel = c.channel AND f.hash <> ''
UNION ALL
SELECT 'address', f.profile_id, f.channel, '', f.status, f.reported_at, f.position, f.reported_by, NULL, NULL, NULL, NULL, NULL
FROM address_facts f
WHERE f.profile_id = ANY($1::uuid[]) AND f.hash = '' AND NOT EXISTS (
	SELECT FROM contacts c WHERE c.profile_id = f.profile_id AND c.channel = f.channel AND c.first_at > f.reported_at)
UNION ALL
SELECT 'at', profile_id, channel, '', hash, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL FROM current WHERE hash <> ''
UNION ALL
SELECT 'gone', g.profile_id, g.channel, '', g.hash, NULL, 0, NULL, NULL, NULL, NULL, g.other, NULL FROM gone g
UNION ALL
SELECT 'deleted', p.profile_id, '', '', '', p.observed_at, p.position, 'crm', NULL, NULL, NULL, NULL, NULL
FROM profiles p WHERE p.profile_id = ANY($1::uuid[]) AND p.state = 'deleted'
UNION ALL
(SELECT 'policy', NULL, '', '', '', NULL, x.position, NULL, NULL, NULL, NULL, NULL, x.policy FROM (
	SELECT position, policy::text FROM consent_policy
	UNION ALL
	SELECT position, data::text FROM events WHERE type IN ('profile.merged', 'consent.policy_changed') AND type = 'consent.policy_changed' AND position > (SELECT position FROM stands)
) x (position, policy) ORDER BY x.position DESC LIMIT 1)
UNION ALL
SELECT 'head', NULL, '', '', '', NULL, coalesce((SELECT position FROM events ORDER BY position DESC LIMIT 1), 0), NULL, NULL, NULL, NULL, NULL, NULL`

// Look gives what the ledger holds at this moment of these people: the projections' state and whatever was recorded
// since, so that a withdrawal holds from the moment it is recorded. Of addresses and deleted profiles it gives what the
// projections hold.
//
// The opt-outs of somebody who was erased hold for whoever has their address: by what the projections know to be the
// person's own now, and by the addresses that are given.
func Look(ctx context.Context, q schema.Querier, profiles []uuid.UUID, at ...Address) (Known, error) {
	for {
		r, err := read(ctx, q, profiles, at)
		if err != nil {
			return Known{}, fmt.Errorf("consent: %w", err)
		}
		more := r.missing(profiles)
		if len(more) == 0 {
			return r.known(profiles), nil
		}
		profiles = append(slices.Clone(profiles), more...) // merged just now with somebody whom the projection does not know of
	}
}

// Address is where something is about to be sent to, by its keyed hash.
type Address struct {
	Profile uuid.UUID // who is asked about
	domain.ContactHash
}

// reading is what lookQuery answered.
type reading struct {
	answers map[uuid.UUID]map[domain.Channel]map[domain.Purpose]domain.Answer // by profile, the latest of each
	person  domain.Person
	loaded  map[uuid.UUID]bool // whose answers were read
	facts   map[uuid.UUID]map[domain.Channel]domain.AddressFact
	deleted map[uuid.UUID]domain.Answer
	gone    map[uuid.UUID][]erased // by the profile that has their address now
	at      map[uuid.UUID][]domain.ContactHash
	policy  domain.PolicyInForce
	head    int64
}

// erased is somebody who was erased, and an address that they had.
type erased struct {
	profile uuid.UUID
	domain.ContactHash
}

func read(ctx context.Context, q schema.Querier, profiles []uuid.UUID, at []Address) (*reading, error) {
	reached, channels, hashes := make([]uuid.UUID, len(at)), make([]string, len(at)), make([]string, len(at))
	for i, a := range at {
		reached[i], channels[i], hashes[i] = a.Profile, string(a.Channel), a.Hash
	}
	rows, err := q.QueryContext(ctx, lookQuery, schema.UUIDs(profiles), Definition.SubscriptionName(), schema.UUIDs(reached), pq.Array(channels), pq.Array(hashes))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	r := &reading{
		answers: map[uuid.UUID]map[domain.Channel]map[domain.Purpose]domain.Answer{}, facts: map[uuid.UUID]map[domain.Channel]domain.AddressFact{},
		loaded: map[uuid.UUID]bool{}, deleted: map[uuid.UUID]domain.Answer{}, gone: map[uuid.UUID][]erased{}, at: map[uuid.UUID][]domain.ContactHash{}, policy: domain.PolicyInForce{ConsentPolicy: domain.DefaultConsentPolicy()},
	}
	for _, p := range profiles {
		r.loaded[p] = true
	}
	for rows.Next() {
		var kind string
		var profile, other uuid.NullUUID
		var channel domain.Channel
		var purpose domain.Purpose
		var a domain.Answer
		var at, recorded sql.NullTime
		var by, method, actor, policy sql.NullString
		if err := rows.Scan(&kind, &profile, &channel, &purpose, &a.Status, &at, &a.Position, &by, &method, &recorded, &actor, &other, &policy); err != nil {
			return nil, err
		}
		a.DecidedAt, a.DecidedBy, a.Method, a.RecordedAt, a.Actor, a.Profile = at.Time, by.String, method.String, recorded.Time, actor.String, profile.UUID
		switch kind {
		case "answer":
			r.answer(channel, purpose, a)
		case "tie":
			r.loaded[profile.UUID] = true
			r.person.Tie(profile.UUID, other.UUID, at.Time)
		case "at":
			r.at[profile.UUID] = append(r.at[profile.UUID], domain.ContactHash{Channel: channel, Hash: string(a.Status)})
		case "gone":
			r.loaded[other.UUID] = true
			r.gone[profile.UUID] = append(r.gone[profile.UUID], erased{other.UUID, domain.ContactHash{Channel: channel, Hash: string(a.Status)}})
		case "merge":
			r.person.Join(profile.UUID, other.UUID, at.Time)
		case "address":
			r.fact(profile.UUID, channel, domain.AddressFact{Status: domain.AddressStatus(a.Status), ReportedAt: at.Time, ReportedBy: by.String, Position: a.Position})
		case "deleted":
			r.deleted[profile.UUID] = a
		case "policy":
			r.policy = domain.PolicyInForce{Position: a.Position}
			if err := json.Unmarshal([]byte(policy.String), &r.policy.ConsentPolicy); err != nil {
				return nil, fmt.Errorf("event %d: %w", a.Position, err)
			}
		case "head":
			r.head = a.Position
		}
	}
	return r, rows.Err()
}

func (r *reading) answer(channel domain.Channel, purpose domain.Purpose, a domain.Answer) {
	channels := r.answers[a.Profile]
	if channels == nil {
		channels = map[domain.Channel]map[domain.Purpose]domain.Answer{}
		r.answers[a.Profile] = channels
	}
	if channels[channel] == nil {
		channels[channel] = map[domain.Purpose]domain.Answer{}
	}
	if known, ok := channels[channel][purpose]; !ok || a.Supersedes(known) {
		channels[channel][purpose] = a
	}
}

func (r *reading) fact(profile uuid.UUID, channel domain.Channel, f domain.AddressFact) {
	if r.facts[profile] == nil {
		r.facts[profile] = map[domain.Channel]domain.AddressFact{}
	}
	known, ok := r.facts[profile][channel]
	if !ok || f.ReportedAt.After(known.ReportedAt) || f.ReportedAt.Equal(known.ReportedAt) && f.Blocks() {
		r.facts[profile][channel] = f
	}
}

// missing lists the profiles that belong to those asked for and were not read.
func (r *reading) missing(profiles []uuid.UUID) []uuid.UUID {
	more := map[uuid.UUID]bool{}
	for _, p := range profiles {
		for _, other := range r.person.With(p) {
			if !r.loaded[other] {
				more[other] = true
			}
		}
	}
	return slices.Collect(maps.Keys(more))
}

// known works out what holds for each profile on each channel.
func (r *reading) known(profiles []uuid.UUID) Known {
	k := Known{Policy: r.policy, AsOf: r.head, views: make(map[uuid.UUID]map[domain.Channel]domain.ConsentView, len(profiles)), others: map[uuid.UUID][]uuid.UUID{}, at: r.at}
	for _, profile := range profiles {
		if _, done := k.views[profile]; done {
			continue
		}
		views := map[domain.Channel]domain.ConsentView{}
		k.views[profile] = views
		others := r.person.With(profile)
		depends := slices.Clone(others)
		for _, e := range r.gone[profile] {
			depends = append(append(depends, e.profile), r.person.With(e.profile)...)
		}
		if len(depends) > 0 {
			k.others[profile] = depends
		}
		for _, channel := range domain.Channels {
			v := domain.ConsentView{Purposes: r.answers[profile][channel], Address: r.facts[profile][channel]}
			if len(others) > 0 {
				v.Purposes = r.held(append(others, profile), channel)
			}
			for _, e := range r.gone[profile] {
				if e.Channel == channel {
					v.Purposes = domain.WithErased(v.Purposes, r.held(append(r.person.With(e.profile), e.profile), channel), e.Hash)
				}
			}
			if d, ok := r.deleted[profile]; ok {
				v.Deleted = &d
			}
			if len(v.Purposes) > 0 || v.Deleted != nil || v.Address.Status != "" {
				views[channel] = v
			}
		}
	}
	return k
}

// held gives the answers that hold for a person of several profiles.
func (r *reading) held(profiles []uuid.UUID, channel domain.Channel) map[domain.Purpose]domain.Answer {
	all := map[domain.Purpose][]domain.Answer{}
	for _, p := range profiles {
		for purpose, a := range r.answers[p][channel] {
			all[purpose] = append(all[purpose], a)
		}
	}
	out := map[domain.Purpose]domain.Answer{}
	for purpose, answers := range all {
		if a, ok := r.person.Holds(answers); ok {
			out[purpose] = a
		}
	}
	return out
}
