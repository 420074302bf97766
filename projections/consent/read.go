package consent

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Views gives what the ledger holds now of these people, for the gate: the state, and whatever was recorded since it
// was last moved on, so that a withdrawal holds from the moment it is recorded. One query, by primary key and by
// the index on subjects. Pairs of person and channel that nobody ever decided on are absent.
func Views(ctx context.Context, q schema.Querier, profiles []uuid.UUID) (map[uuid.UUID]map[domain.Channel]domain.ConsentView, error) {
	rows, err := q.QueryContext(ctx, `
		SELECT s.profile_id, s.channel, s.purpose, s.status, s.decided_at, s.position, coalesce(e.data->>'decided_by', '')
		FROM consent_state s JOIN events e ON e.position = s.position
		WHERE s.profile_id = ANY($1::uuid[])
		UNION ALL
		SELECT e.subject, c.channel, c.purpose, c.status, e.occurred_at, e.position, coalesce(e.data->>'decided_by', '')
		FROM events e, json_to_recordset(e.data->'changes') AS c (channel text, purpose text, status text)
		WHERE e.subject = ANY($1::uuid[]) AND e.type = 'consent.changed'
		  AND e.position > (SELECT position FROM subscriptions WHERE name = $2)`, schema.UUIDs(profiles), Definition.SubscriptionName())
	if err != nil {
		return nil, fmt.Errorf("consent: %w", err)
	}
	defer rows.Close()
	out := make(map[uuid.UUID]map[domain.Channel]domain.ConsentView, len(profiles))
	for rows.Next() {
		var profile uuid.UUID
		var channel domain.Channel
		var purpose domain.Purpose
		var a domain.Answer
		if err := rows.Scan(&profile, &channel, &purpose, &a.Status, &a.DecidedAt, &a.Position, &a.DecidedBy); err != nil {
			return nil, fmt.Errorf("consent: %w", err)
		}
		if out[profile] == nil {
			out[profile] = map[domain.Channel]domain.ConsentView{}
		}
		view, ok := out[profile][channel]
		if !ok {
			view.Purposes = map[domain.Purpose]domain.Answer{}
			out[profile][channel] = view
		}
		if known, ok := view.Purposes[purpose]; !ok || a.Supersedes(known) {
			view.Purposes[purpose] = a
		}
	}
	return out, rows.Err()
}

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
	Position   int64                `json:"position"`
}

// AsOf says at which moment consent is asked for. The zero value is now.
type AsOf struct {
	Position int64     // what the ledger held up to here: what we knew
	Decided  time.Time // decisions made up to this time, by what is known now: what held
}

// State gives the answers that hold for a person, at a moment, by channel and purpose. It reads the person's events,
// of which there are few, so that it can answer for any moment.
func State(ctx context.Context, q schema.Querier, profile uuid.UUID, at AsOf) ([]Entry, error) {
	history, err := History(ctx, q, profile, at)
	if err != nil {
		return nil, err
	}
	type key struct {
		domain.Channel
		domain.Purpose
	}
	latest := map[key]int{}
	for i, e := range history {
		k := key{e.Channel, e.Purpose}
		best, ok := latest[k]
		if !ok || e.answer().Supersedes(history[best].answer()) {
			latest[k] = i
		}
	}
	var out []Entry
	for _, c := range domain.Channels {
		for _, p := range domain.Purposes {
			if i, ok := latest[key{c, p}]; ok {
				out = append(out, history[i])
			}
		}
	}
	return out, nil
}

func (e Entry) answer() domain.Answer {
	return domain.Answer{Status: e.Status, DecidedAt: e.DecidedAt, DecidedBy: e.DecidedBy, Position: e.Position}
}

// History gives every answer about a person up to a moment, in the order in which the ledger heard of them.
func History(ctx context.Context, q schema.Querier, profile uuid.UUID, at AsOf) ([]Entry, error) {
	out := []Entry{}
	for rec, err := range schema.Events(ctx, q, schema.Filter{Subject: profile, Types: []string{"consent.changed"}, UpTo: at.Position}) {
		if err != nil {
			return nil, err
		}
		var c domain.ConsentChanged
		if err := json.Unmarshal(rec.Data, &c); err != nil {
			return nil, fmt.Errorf("event %d: %w", rec.Position, err)
		}
		if !at.Decided.IsZero() && c.DecidedAt.After(at.Decided) {
			continue
		}
		for _, ch := range c.Changes {
			out = append(out, Entry{
				Channel: ch.Channel, Purpose: ch.Purpose, Status: ch.Status, DecidedAt: c.DecidedAt, DecidedBy: c.DecidedBy, Method: c.Method,
				RecordedAt: rec.RecordedAt, Actor: rec.Actor, Position: rec.Position,
			})
		}
	}
	return out, nil
}
