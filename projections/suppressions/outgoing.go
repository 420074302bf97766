package suppressions

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Outgoing is one change that waits to be written to a platform.
type Outgoing struct {
	Channel   domain.Channel
	Hash      []byte
	Intent    string
	Profile   uuid.UUID
	Decision  int64
	DecidedAt time.Time
	Run       uuid.UUID
	Finding   uuid.UUID
	Address   string // where the platform gave it
	Attempt   int    // of the claim, from 1
}

// Claim takes changes of one channel and intent that are due, at most limit of them, and keeps others from them until the
// lease ends. run, when set, takes those of that run alone.
func Claim(ctx context.Context, q schema.Querier, platform string, run uuid.UUID, now time.Time, lease time.Duration, limit int) ([]Outgoing, error) {
	rows, err := q.QueryContext(ctx, `
		WITH first AS (
			SELECT channel, intent FROM outgoing WHERE platform = $1 AND due_at <= $3 AND ($2 = '00000000-0000-0000-0000-000000000000'::uuid OR run = $2)
			ORDER BY due_at LIMIT 1
		), due AS (
			SELECT o.platform, o.channel, o.hash FROM outgoing o JOIN first f ON f.channel = o.channel AND f.intent = o.intent
			WHERE o.platform = $1 AND o.due_at <= $3 AND ($2 = '00000000-0000-0000-0000-000000000000'::uuid OR o.run = $2)
			ORDER BY o.due_at, o.hash LIMIT $5 FOR UPDATE OF o SKIP LOCKED
		)
		UPDATE outgoing o SET due_at = $4, attempt = o.attempt + 1 FROM due d WHERE (o.platform, o.channel, o.hash) = (d.platform, d.channel, d.hash)
		RETURNING o.channel, o.hash, o.intent, o.profile_id, o.decision, o.decided_at, o.run, o.finding, coalesce(o.address, ''), o.attempt`,
		platform, run, now, now.Add(lease), limit)
	if err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	defer rows.Close()
	var out []Outgoing
	for rows.Next() {
		var o Outgoing
		var profile, ofRun, finding uuid.NullUUID
		if err := rows.Scan(&o.Channel, &o.Hash, &o.Intent, &profile, &o.Decision, &o.DecidedAt, &ofRun, &finding, &o.Address, &o.Attempt); err != nil {
			return nil, fmt.Errorf("claim: %w", err)
		}
		o.Profile, o.Run, o.Finding, o.DecidedAt = profile.UUID, ofRun.UUID, finding.UUID, o.DecidedAt.UTC()
		out = append(out, o)
	}
	return out, rows.Err()
}

// Settle takes changes out of the queue, unless a newer decision has taken their place.
func Settle(ctx context.Context, q schema.Querier, platform string, done []Outgoing) error {
	_, err := q.ExecContext(ctx, `DELETE FROM outgoing o USING `+changes, changesOf(platform, done)...)
	if err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	return nil
}

// Postpone leaves changes in the queue until a time.
func Postpone(ctx context.Context, q schema.Querier, platform string, left []Outgoing, until time.Time) error {
	_, err := q.ExecContext(ctx, `UPDATE outgoing o SET due_at = $6 FROM `+changes, append(changesOf(platform, left), until)...)
	if err != nil {
		return fmt.Errorf("postpone: %w", err)
	}
	return nil
}

// changes are rows of outgoing, as they were claimed.
const changes = `unnest($2::text[], $3::bytea[], $4::bigint[], $5::text[]) AS c (channel, hash, decision, intent)
	WHERE (o.platform, o.channel, o.hash, o.decision, o.intent) = ($1, c.channel, c.hash, c.decision, c.intent)`

func changesOf(platform string, of []Outgoing) []any {
	channels, hashes, decisions, intents := make([]string, len(of)), make([][]byte, len(of)), make([]int64, len(of)), make([]string, len(of))
	for i, o := range of {
		channels[i], hashes[i], decisions[i], intents[i] = string(o.Channel), o.Hash, o.Decision, o.Intent
	}
	return []any{platform, pq.Array(channels), pq.ByteaArray(hashes), pq.Array(decisions), pq.Array(intents)}
}

// Waiting says how many changes of a run wait to be written, and when the next of them is due.
func Waiting(ctx context.Context, q schema.Querier, platform string, run uuid.UUID) (n int64, next time.Time, err error) {
	var due sql.NullTime
	err = q.QueryRowContext(ctx, `SELECT count(*), min(due_at) FROM outgoing WHERE platform = $1 AND run = $2`, platform, run).Scan(&n, &due)
	if err != nil {
		return 0, next, fmt.Errorf("queue: %w", err)
	}
	return n, due.Time, nil
}

// Order puts one change into the queue, in place of whatever waits there for the address.
func Order(ctx context.Context, q schema.Querier, platform string, o Outgoing, due time.Time) error {
	_, err := q.ExecContext(ctx, `
		INSERT INTO outgoing (platform, channel, hash, intent, profile_id, decision, decided_at, run, finding, due_at) VALUES ($1, $2, $3, $4, $5, $6, $7, NULL, $8, $9)
		ON CONFLICT (platform, channel, hash) DO UPDATE SET intent = excluded.intent, profile_id = excluded.profile_id, decision = excluded.decision, decided_at = excluded.decided_at,
			run = NULL, finding = excluded.finding, attempt = 0, due_at = excluded.due_at`,
		platform, o.Channel, o.Hash, o.Intent, uuid.NullUUID{UUID: o.Profile, Valid: o.Profile != uuid.Nil}, o.Decision, o.DecidedAt,
		uuid.NullUUID{UUID: o.Finding, Valid: o.Finding != uuid.Nil}, due)
	if err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	return nil
}

// Wish is what one platform wants to be told of as it is decided.
type Wish struct {
	Platform   string           `json:"platform"`
	Channel    domain.Channel   `json:"channel"`
	Purposes   []domain.Purpose `json:"purposes"`
	Lift       bool             `json:"lift"`
	LiftSince  time.Time        `json:"lift_since"` // older decisions lift nothing by themselves
	SkipListed bool             `json:"skip_listed"`
}

// QueueDecided puts into the queue what a slice of the ledger changed of people's consent, for the platforms that want it as
// it is decided: an opt-out that the platform does not have, and, where it may, what was agreed again. json is a list of Wish.
//
// Who agreed again while an opt-out still waits to be written is taken out of the queue: nothing is to be lifted then.
func QueueDecided(ctx context.Context, tx *sql.Tx, wishes string, now time.Time) (queued int64, err error) {
	res, err := tx.ExecContext(ctx, `
		WITH wishes AS MATERIALIZED (
			SELECT w.platform, w.channel, w.lift, w.lift_since, ARRAY(SELECT json_array_elements_text(w.purposes)) AS purposes
			FROM json_to_recordset($1::json) AS w (platform text, channel text, purposes json, lift boolean, lift_since timestamptz)
		), changed AS MATERIALIZED (
			SELECT DISTINCT s.subject AS profile_id, c.channel FROM slice s, json_to_recordset(s.data->'changes') AS c (channel text) WHERE s.type = 'consent.changed'
		), reached AS MATERIALIZED ( -- an address may be several people's: one opt-out is enough
			SELECT DISTINCT r.channel, r.hash FROM changed k JOIN reach r ON r.profile_id = k.profile_id AND r.channel = k.channel
		), state AS MATERIALIZED (
			SELECT w.platform, w.lift, w.lift_since, r.channel, r.hash, o.*
			FROM reached r JOIN wishes w ON w.channel = r.channel CROSS JOIN LATERAL (
				SELECT max(c.position) FILTER (WHERE c.status = 'opted_out') AS out_position, max(c.decided_at) FILTER (WHERE c.status = 'opted_out') AS out_at,
				       (array_agg(x.profile_id ORDER BY c.position DESC) FILTER (WHERE c.status = 'opted_out'))[1] AS out_profile,
				       max(c.position) FILTER (WHERE c.status = 'opted_in') AS in_position, max(c.decided_at) FILTER (WHERE c.status = 'opted_in') AS in_at,
				       (array_agg(x.profile_id ORDER BY c.position DESC) FILTER (WHERE c.status = 'opted_in'))[1] AS in_profile
				FROM reach x JOIN consent_held c ON c.profile_id = x.profile_id AND c.channel = x.channel AND c.purpose = ANY(w.purposes)
				WHERE x.channel = r.channel AND x.hash = r.hash) o
		), stale AS (
			DELETE FROM outgoing o USING state s WHERE (o.platform, o.channel, o.hash) = (s.platform, s.channel, s.hash) AND o.finding IS NULL
			  AND o.intent = CASE WHEN s.out_position IS NULL THEN 'suppress' ELSE 'resubscribe' END
		), wanted AS (
			SELECT s.platform, s.channel, s.hash, 'suppress' AS intent, s.out_profile AS profile_id, s.out_position AS decision, s.out_at AS decided_at
			FROM state s
			LEFT JOIN pushes p ON (p.platform, p.channel, p.hash) = (s.platform, s.channel, s.hash)
			LEFT JOIN listed l ON (l.platform, l.channel, l.scope, l.hash) = (s.platform, s.channel, '', s.hash) AND NOT l.lifted AND l.class = 'consent'
			WHERE s.out_position IS NOT NULL AND l.hash IS NULL
			  AND NOT coalesce(p.intent = 'suppress' AND p.decision >= s.out_position AND p.status NOT IN ('ordered', 'failed'), false)
			UNION ALL
			SELECT s.platform, s.channel, s.hash, 'resubscribe', s.in_profile, s.in_position, s.in_at
			FROM state s
			LEFT JOIN pushes p ON (p.platform, p.channel, p.hash) = (s.platform, s.channel, s.hash)
			LEFT JOIN listed l ON (l.platform, l.channel, l.scope, l.hash) = (s.platform, s.channel, '', s.hash) AND NOT l.lifted
			WHERE s.out_position IS NULL AND s.lift AND s.in_at >= s.lift_since
			  AND (l.class = 'consent' AND l.at < s.in_at OR p.intent = 'suppress' AND p.status IN ('ordered', 'applied', 'unchanged', 'accepted', 'pending', 'failed'))
			  AND NOT coalesce(p.intent = 'resubscribe' AND p.decision >= s.in_position, false)
		)
		INSERT INTO outgoing AS o (platform, channel, hash, intent, profile_id, decision, decided_at, due_at)
		SELECT platform, channel, hash, intent, profile_id, decision, decided_at, $2 FROM wanted
		ON CONFLICT (platform, channel, hash) DO UPDATE SET intent = excluded.intent, profile_id = excluded.profile_id, decision = excluded.decision, decided_at = excluded.decided_at,
			run = NULL, finding = NULL, attempt = 0, due_at = excluded.due_at
			WHERE o.decision < excluded.decision`, wishes, now)
	if err != nil {
		return 0, fmt.Errorf("queue what was decided: %w", err)
	}
	return res.RowsAffected()
}

// Sealed gives the events that hold addresses, sealed, by hash: those of whoever's address it is, the newest first.
func Sealed(ctx context.Context, q schema.Querier, channel domain.Channel, hashes [][]byte) (map[string][]domain.Recorded, error) {
	holders, err := Holders(ctx, q, channel, hashes)
	if err != nil {
		return nil, err
	}
	positions := make([]int64, len(holders))
	for i, h := range holders {
		positions[i] = h.Position
	}
	byPosition := map[int64]domain.Recorded{}
	rows, err := q.QueryContext(ctx, `SELECT position, id, subject, type, data, sealed FROM events WHERE position = ANY($1)`, pq.Array(positions))
	if err != nil {
		return nil, fmt.Errorf("addresses: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var e domain.Recorded
		if err := rows.Scan(&e.Position, &e.ID, &e.Subject, &e.Type, &e.Data, &e.Sealed); err != nil {
			return nil, fmt.Errorf("addresses: %w", err)
		}
		byPosition[e.Position] = e
	}
	out := map[string][]domain.Recorded{}
	for _, h := range holders {
		if e, ok := byPosition[h.Position]; ok && e.Sealed != nil {
			out[h.Hash] = append(out[h.Hash], e)
		}
	}
	return out, rows.Err()
}

// HashOf writes a hash as events do.
func HashOf(hash []byte) string { return hex.EncodeToString(hash) }
