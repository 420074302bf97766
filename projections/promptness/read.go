package promptness

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// State says whether an opt-out had its effect in time.
type State string

// The states of an opt-out.
const (
	Honoured State = "honoured" // all of its effect came in time
	Open     State = "open"     // a platform has not confirmed it, and there is time left
	Late     State = "late"     // all of its effect came, some of it too late
	Overdue  State = "overdue"  // a platform has not confirmed it, and the time is over
)

// States lists every state.
var States = []State{Honoured, Open, Late, Overdue}

// OptOut is one opt-out and how soon it had its effect.
type OptOut struct {
	ProfileID     uuid.UUID      `json:"profile_id"`
	Channel       domain.Channel `json:"channel"`
	Purpose       domain.Purpose `json:"purpose"`
	Position      int64          `json:"position" doc:"Of the consent.changed event."`
	DecidedAt     time.Time      `json:"decided_at"`
	RecordedAt    time.Time      `json:"recorded_at" doc:"When the ledger heard of it."`
	Deadline      time.Time      `json:"deadline" doc:"By the ledger's policy."`
	LastSentAt    *time.Time     `json:"last_sent_at" doc:"When the last request for the purpose left after the decision, before the person opted in again; null for none."`
	SentSince     int            `json:"sent_since_decided" doc:"Requests that left between the decision and its being recorded, or after it."`
	SentAfter     int            `json:"sent_after_recorded" doc:"Requests that left after it was recorded: those that were leaving at that moment, and those of targets that record instead of enforcing."`
	Platforms     []Confirmation `json:"platforms" nullable:"false" doc:"Every platform that was asked to suppress the address, or was seen to since; empty when there is none."`
	State         State          `json:"state" enum:"honoured,open,late,overdue"`
	EffectiveAt   *time.Time     `json:"effective_at" doc:"When all of its effect had come; null while a platform has not confirmed it."`
	RecordedAfter float64        `json:"recorded_after_seconds" doc:"From the decision to its being recorded."`
}

// Confirmation is what a platform did about an opt-out; with several addresses, about the slowest of them.
type Confirmation struct {
	Platform    string     `json:"platform"`
	OrderedAt   *time.Time `json:"ordered_at" doc:"When we asked it; null when nobody had to, because it suppresses the address by itself."`
	Status      string     `json:"status" doc:"Its last answer; seen where its list showed the suppression first; empty before either."`
	ConfirmedAt *time.Time `json:"confirmed_at" doc:"When it said that it is done, or its list first showed it; null until then."`
}

// AnyPlatform stands for all platforms in a filter.
const AnyPlatform = "any"

// Filter selects opt-outs.
type Filter struct {
	Profile  uuid.UUID
	From, To time.Time // decided_at, from inclusive, to exclusive
	Open     string    // only what this platform was asked and has not confirmed; AnyPlatform for any
	Before   int64     // positions below; for pages
	Limit    int       // 0 is no limit
}

const query = `
SELECT o.profile_id, o.channel, o.purpose, o.position, o.decided_at, o.recorded_at, s.last, coalesce(s.since, 0), coalesce(s.after, 0), c.platforms
FROM optouts o
LEFT JOIN LATERAL (
	SELECT min(e.occurred_at) AS at FROM events e
	WHERE e.subject = o.profile_id AND e.type = 'consent.changed' AND e.occurred_at > o.decided_at
	  AND CASE WHEN e.channel IS NOT NULL THEN e.channel = o.channel AND e.purpose = o.purpose AND e.state = 'opted_in'
	      ELSE EXISTS (SELECT FROM json_to_recordset(e.data->'changes') AS x (channel text, purpose text, status text)
	                   WHERE x.channel = o.channel AND x.purpose = o.purpose AND x.status = 'opted_in') END
) again ON true
LEFT JOIN LATERAL (
	SELECT max(a.started_at) AS last, count(*) AS since, count(*) FILTER (WHERE a.started_at > o.recorded_at) AS after
	FROM deliveries d JOIN attempts a ON a.delivery_id = d.delivery_id
	WHERE d.profile_id = o.profile_id AND d.consent->>'channel' = o.channel AND (o.purpose = 'all' OR d.consent->>'purpose' = o.purpose)
	  AND a.started_at > o.decided_at AND (again.at IS NULL OR a.started_at < again.at)
) s ON true
LEFT JOIN LATERAL (
	SELECT json_agg(p ORDER BY p.platform) AS platforms FROM (
		SELECT platform, min(ordered_at) AS ordered_at, coalesce((array_agg(status ORDER BY confirmed_at DESC NULLS FIRST))[1], '') AS status,
		       CASE WHEN count(confirmed_at) = count(*) THEN max(confirmed_at) END AS confirmed_at
		FROM (
			SELECT c.platform, c.ordered_at, CASE WHEN s.at < coalesce(c.confirmed_at, 'infinity') THEN 'seen' ELSE c.status END AS status, least(c.confirmed_at, s.at) AS confirmed_at
			FROM confirmations c LEFT JOIN LATERAL (
				SELECT min(s.seen_at) AS at FROM sightings s
				WHERE s.channel = c.channel AND s.hash = c.hash AND s.platform = c.platform AND s.seen_at > o.decided_at
			) s ON true
			WHERE c.decision = o.position AND c.channel = o.channel
			UNION ALL
			SELECT s.platform, NULL, 'seen', min(s.seen_at)
			FROM contacts a JOIN sightings s ON s.channel = a.channel AND s.hash = a.hash
			WHERE a.profile_id = o.profile_id AND a.channel = o.channel AND a.hash <> '' AND s.seen_at > o.decided_at AND (again.at IS NULL OR s.seen_at < again.at)
			  AND NOT EXISTS (SELECT FROM confirmations c WHERE c.decision = o.position AND c.channel = o.channel AND c.platform = s.platform)
			GROUP BY s.platform
		) shown GROUP BY platform
	) p
) c ON true`

// OptOuts reads the opt-outs that a filter selects, newest first, and judges each by the policy at a time.
func OptOuts(ctx context.Context, q schema.Querier, policy domain.Deadline, now time.Time, f Filter) iter.Seq2[OptOut, error] {
	deadline := policy.Reckoner()
	return func(yield func(OptOut, error) bool) {
		var where []string
		var args []any
		add := func(condition string, v any) {
			args = append(args, v)
			where = append(where, fmt.Sprintf(condition, len(args)))
		}
		if f.Profile != uuid.Nil {
			add("o.profile_id = $%d", f.Profile)
		}
		if !f.From.IsZero() {
			add("o.decided_at >= $%d", f.From)
		}
		if !f.To.IsZero() {
			add("o.decided_at < $%d", f.To)
		}
		if f.Open != "" {
			add("(o.position, o.channel) IN (SELECT c.decision, c.channel FROM confirmations c WHERE c.confirmed_at IS NULL AND $%d IN (c.platform, '"+AnyPlatform+"'))", f.Open)
		}
		if f.Before > 0 {
			add("o.position < $%d", f.Before)
		}
		text := query
		if len(where) > 0 {
			text += "\nWHERE " + strings.Join(where, " AND ")
		}
		text += "\nORDER BY o.position DESC, o.channel, o.purpose"
		if f.Limit > 0 {
			text += fmt.Sprintf(" LIMIT %d", f.Limit)
		}
		rows, err := q.QueryContext(ctx, text, args...)
		if err != nil {
			yield(OptOut{}, fmt.Errorf("promptness: %w", err))
			return
		}
		defer rows.Close()
		for rows.Next() {
			o := OptOut{Platforms: []Confirmation{}}
			var platforms []byte
			err := rows.Scan(&o.ProfileID, &o.Channel, &o.Purpose, &o.Position, &o.DecidedAt, &o.RecordedAt, &o.LastSentAt, &o.SentSince, &o.SentAfter, &platforms)
			if err == nil && platforms != nil {
				err = json.Unmarshal(platforms, &o.Platforms)
			}
			if err != nil {
				yield(OptOut{}, fmt.Errorf("promptness: %w", err))
				return
			}
			o.judge(deadline(o.DecidedAt), now)
			if !yield(o, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(OptOut{}, fmt.Errorf("promptness: %w", err))
		}
	}
}

// judge works out when all of the effect had come, and whether in time.
func (o *OptOut) judge(deadline, now time.Time) {
	o.DecidedAt, o.RecordedAt, o.Deadline = o.DecidedAt.UTC(), o.RecordedAt.UTC(), deadline.UTC()
	o.RecordedAfter = max(0, o.RecordedAt.Sub(o.DecidedAt).Seconds())
	effect, open := o.RecordedAt, false
	if o.LastSentAt != nil && o.LastSentAt.After(effect) {
		effect = *o.LastSentAt
	}
	for _, p := range o.Platforms {
		switch {
		case p.ConfirmedAt == nil:
			open = true
		case p.OrderedAt == nil: // nobody waited for it: that its list was first read today makes nothing late
		case p.ConfirmedAt.After(effect):
			effect = *p.ConfirmedAt
		}
	}
	effect = effect.UTC()
	switch {
	case open && now.Before(deadline) && effect.Before(deadline):
		o.State = Open
	case open:
		o.State = Overdue
	case effect.After(deadline):
		o.State, o.EffectiveAt = Late, &effect
	default:
		o.State, o.EffectiveAt = Honoured, &effect
	}
}

// Measure is how long something took, over many opt-outs, in seconds.
type Measure struct {
	Count  int     `json:"count"`
	Median float64 `json:"median_seconds"`
	P95    float64 `json:"p95_seconds"`
	Max    float64 `json:"max_seconds"`
}

// Report sums opt-outs up.
type Report struct {
	OptOuts   int                `json:"opt_outs"`
	States    map[State]int      `json:"states"`
	Recorded  Measure            `json:"decided_to_recorded"`
	LastSent  Measure            `json:"decided_to_last_sent" doc:"Of those that something was sent after."`
	SentAfter int                `json:"sent_after_recorded" doc:"Requests that left after their opt-out was recorded."`
	Platforms map[string]Measure `json:"decided_to_confirmed" doc:"By platform, of those that it has confirmed."`
	Waiting   map[string]int     `json:"unconfirmed" doc:"By platform: asked and not confirmed."`
	Policy    domain.Deadline    `json:"policy"`
}
