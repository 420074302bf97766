package suppressions

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"iter"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// News is one address of which a platform's list says something new.
type News struct {
	Channel domain.Channel
	Scope   string
	Lifted  bool
	Entry   domain.SuppressionEntry
}

// NewsOf streams what a run's pages say that the list did not say before, by hash: the same order each time.
func NewsOf(ctx context.Context, tx *sql.Tx, run uuid.UUID) iter.Seq2[News, error] {
	return func(yield func(News, error) bool) {
		if _, err := tx.ExecContext(ctx, `SET LOCAL work_mem = '96MB'`); err != nil {
			yield(News{}, fmt.Errorf("news: %w", err))
			return
		}
		rows, err := tx.QueryContext(ctx, `SELECT channel, scope, news = 'lifted', hash, coalesce(reason, 'unknown'), coalesce(class, 'deliverability'), coalesce(native, ''), at, coalesce(precision, 'unknown')
			FROM reconciled_state WHERE run = $1 ORDER BY hash, channel, scope, news`, run)
		if err != nil {
			yield(News{}, fmt.Errorf("news: %w", err))
			return
		}
		defer rows.Close()
		for rows.Next() {
			var n News
			var hash []byte
			var at sql.NullTime
			if err := rows.Scan(&n.Channel, &n.Scope, &n.Lifted, &hash, &n.Entry.Reason, &n.Entry.Class, &n.Entry.Native, &at, &n.Entry.Precision); err != nil {
				yield(News{}, fmt.Errorf("news: %w", err))
				return
			}
			n.Entry.Hash = hex.EncodeToString(hash)
			if at.Valid {
				n.Entry.At = at.Time.UTC()
			}
			if !yield(n, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(News{}, fmt.Errorf("news: %w", err))
		}
	}
}

// LiftedAndUnasked gives the differences that a run answers by writing there again, and of which nobody has been told.
func LiftedAndUnasked(ctx context.Context, q schema.Querier, run uuid.UUID) ([]Difference, error) {
	rows, err := q.QueryContext(ctx, `SELECT `+differenceColumns+` FROM reconciled_differences d WHERE run = $1 AND class = 'lifted_there' AND action = 'push' AND NOT EXISTS (
			SELECT FROM findings f WHERE f.platform = d.platform AND f.channel = d.channel AND f.class = d.class AND f.hash = d.hash AND f.state = 'open') ORDER BY n`, run)
	if err != nil {
		return nil, fmt.Errorf("differences: %w", err)
	}
	return scanDifferences(rows)
}

// Gone gives the open findings of a platform whose difference a run did not find any more. What a platform lifted stays with
// whoever is asked about it, until the person agrees again here.
func Gone(ctx context.Context, q schema.Querier, platform string, run uuid.UUID, channels []domain.Channel) ([]Finding, error) {
	return findings(ctx, q, `SELECT `+findingColumns+` FROM findings f WHERE f.platform = $1 AND f.state = 'open' AND f.channel = ANY($3::text[]) AND f.run <> $2
		AND NOT EXISTS (SELECT FROM reconciled_differences d WHERE d.run = $2 AND d.channel = f.channel AND d.class = f.class AND d.scope = f.scope AND d.hash IS NOT DISTINCT FROM f.hash)
		AND (f.class <> 'lifted_there' OR NOT EXISTS (SELECT FROM consent_held c WHERE c.profile_id = f.profile_id AND c.channel = f.channel AND c.status = 'opted_out'))
		ORDER BY position`, platform, run, pq.Array(channels))
}

// Queue puts what a run writes to its platform into the queue, with the address where the platform gave it. What was written before,
// and never showed, goes on counting from there: see [Classify] for when it is enough.
func Queue(ctx context.Context, tx *sql.Tx, run uuid.UUID, now time.Time) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO outgoing AS o (platform, channel, hash, intent, profile_id, decision, decided_at, run, address, attempt, due_at)
		SELECT DISTINCT ON (d.platform, d.channel, d.hash) d.platform, d.channel, d.hash, CASE d.action WHEN 'lift' THEN 'resubscribe' ELSE 'suppress' END, d.profile_id, d.decision, d.ours_at, $1::uuid, a.address,
		       coalesce(p.attempt, 0), $2::timestamptz
		FROM reconciled_differences d
		LEFT JOIN pushes p ON p.platform = d.platform AND p.channel = d.channel AND p.hash = d.hash AND p.decision = d.decision AND p.intent = 'suppress' AND d.class = 'missing_there'
		LEFT JOIN (SELECT DISTINCT ON (channel, hash) channel, hash, address FROM reconciled_rows WHERE run = $1 AND gone AND address IS NOT NULL) a ON a.channel = d.channel AND a.hash = d.hash
		WHERE d.run = $1 AND d.action IN ('push', 'lift') AND d.decision IS NOT NULL
		ORDER BY d.platform, d.channel, d.hash, d.decision DESC
		ON CONFLICT (platform, channel, hash) DO UPDATE
			SET intent = excluded.intent, profile_id = excluded.profile_id, decision = excluded.decision, decided_at = excluded.decided_at, run = excluded.run,
			    address = excluded.address, finding = NULL, attempt = excluded.attempt, due_at = excluded.due_at
			WHERE o.decision <= excluded.decision`, run, now)
	if err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	return nil
}

// Shown streams our changes that a run's reading shows and that were not confirmed before, by hash. complete: who was not read is not on
// the list. An opt-out that was ordered, and whose answer nobody recorded, counts too: its process died, or recorded the order
// after another had repeated it.
func Shown(ctx context.Context, q schema.Querier, run uuid.UUID, platform string, channel domain.Channel, intent string, complete bool) iter.Seq2[domain.PushEntry, error] {
	query := `SELECT p.hash, p.profile_id, p.decision, p.decided_at, coalesce(p.pushed_at, p.ordered_at) FROM pushes p
		WHERE p.platform = $3 AND p.channel = $2 AND p.intent = $4 AND p.confirmed_at IS NULL
		  AND (p.pushed_at IS NOT NULL AND p.status IN ('applied', 'unchanged', 'accepted', 'pending') OR p.status = 'ordered' AND p.intent = 'suppress') AND `
	theirs := `(EXISTS (SELECT FROM reconciled_state s WHERE s.run = $1 AND s.channel = $2 AND s.scope = '' AND s.hash = p.hash AND s.news = 'seen' AND s.class = 'consent')
		OR EXISTS (SELECT FROM listed l WHERE l.platform = $3 AND l.channel = $2 AND l.scope = '' AND l.hash = p.hash AND NOT l.lifted AND l.class = 'consent' AND $5::boolean IS NOT NULL)
		   AND NOT EXISTS (SELECT FROM reconciled_state s WHERE s.run = $1 AND s.channel = $2 AND s.scope = '' AND s.hash = p.hash AND s.news = 'lifted'))`
	if intent == domain.Suppress {
		query += theirs
	} else {
		query += `NOT EXISTS (SELECT FROM reconciled_rows r WHERE r.run = $1 AND r.channel = $2 AND r.scope = '' AND r.hash = p.hash AND NOT r.gone)
			AND ($5 OR EXISTS (SELECT FROM reconciled_rows r WHERE r.run = $1 AND r.channel = $2 AND r.scope = '' AND r.hash = p.hash AND r.gone))`
	}
	return func(yield func(domain.PushEntry, error) bool) {
		fail := func(err error) { yield(domain.PushEntry{}, fmt.Errorf("read back: %w", err)) }
		rows, err := q.QueryContext(ctx, query+` ORDER BY p.hash`, run, channel, platform, intent, complete)
		if err != nil {
			fail(err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			var e domain.PushEntry
			var hash []byte
			var profile uuid.NullUUID
			if err := rows.Scan(&hash, &profile, &e.Decision, &e.DecidedAt, &e.PushedAt); err != nil {
				fail(err)
				return
			}
			e.Hash, e.ProfileID, e.DecidedAt, e.PushedAt = hex.EncodeToString(hash), profile.UUID, e.DecidedAt.UTC(), e.PushedAt.UTC()
			if !yield(e, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			fail(err)
		}
	}
}

// Unread gives our opt-outs of a platform that were written since, or were to be, and are not confirmed: how many, and when the
// last of them was written.
func Unread(ctx context.Context, q schema.Querier, platform string, channels []domain.Channel, since time.Time) (n int64, last time.Time, err error) {
	var l sql.NullTime
	err = q.QueryRowContext(ctx, `SELECT count(*), max(at) FROM pushes, coalesce(pushed_at, ordered_at) AS at
		WHERE platform = $1 AND channel = ANY($2::text[]) AND intent = 'suppress' AND confirmed_at IS NULL
		AND status IN ('ordered', 'applied', 'unchanged', 'accepted', 'pending') AND at >= $3`, platform, pq.Array(channels), since).Scan(&n, &l)
	if err != nil {
		return 0, last, fmt.Errorf("read back: %w", err)
	}
	return n, l.Time.UTC(), nil
}

// NotTaken adds to a run's differences what its platform refused, and nobody has been asked about.
func NotTaken(ctx context.Context, tx *sql.Tx, run uuid.UUID, platform string) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO reconciled_differences (run, platform, channel, class, hash, profile_id, reason, ours_at, decision, action)
		SELECT $1, p.platform, p.channel, 'not_taken', p.hash, p.profile_id, p.status, p.decided_at, p.decision, 'ask'
		FROM pushes p WHERE p.platform = $2 AND p.intent = 'suppress' AND p.status IN ('refused', 'not_found', 'no_address', 'challenged')
		  AND NOT EXISTS (SELECT FROM reconciled_differences d WHERE d.run = $1 AND d.channel = p.channel AND d.class = 'not_taken' AND d.hash = p.hash)
		  AND NOT EXISTS (SELECT FROM findings f WHERE f.platform = p.platform AND f.channel = p.channel AND f.class = 'not_taken' AND f.hash = p.hash
		      AND (f.state = 'open' OR f.resolution <> 'gone' AND f.decision = p.decision))`, run, platform)
	if err != nil {
		return fmt.Errorf("what was not taken: %w", err)
	}
	return nil
}

// Bounced gives the persons with an address of which a platform was the last to say that it does not work.
func Bounced(ctx context.Context, q schema.Querier, platform string, channel domain.Channel, hash []byte) (map[uuid.UUID]bool, error) {
	rows, err := q.QueryContext(ctx, `SELECT profile_id FROM address_facts WHERE channel = $1 AND hash = $2 AND status IN ('bounced', 'invalid') AND reported_by = $3`, channel, HashOf(hash), platform)
	if err != nil {
		return nil, fmt.Errorf("addresses: %w", err)
	}
	return profiles(rows)
}

// Undecided gives the persons with an address whose consent an opt-out there, made at a time, changes: who has not opted out
// themselves, did not agree later, and of whom the platform does not speak because we told it to.
func Undecided(ctx context.Context, q schema.Querier, platform string, channel domain.Channel, hash []byte, pushedFor, means []domain.Purpose, at time.Time, verify time.Duration) (map[uuid.UUID]bool, error) {
	rows, err := q.QueryContext(ctx, `
		SELECT r.profile_id
		FROM reach r
		LEFT JOIN LATERAL (SELECT max(c.decided_at) FILTER (WHERE c.status = 'opted_out') AS out_at, max(c.decided_at) FILTER (WHERE c.status = 'opted_in') AS in_at
			FROM consent_held c WHERE c.profile_id = r.profile_id AND c.channel = r.channel AND (c.purpose = ANY($4::text[]) OR c.purpose = ANY($5::text[]))) c ON true
		LEFT JOIN pushes p ON p.platform = $1 AND p.channel = r.channel AND p.hash = r.hash AND p.intent = 'suppress' AND p.status IN ('ordered', 'applied', 'unchanged', 'accepted', 'pending')
			AND $6::timestamptz BETWEEN p.ordered_at - interval '1 minute' AND coalesce(p.pushed_at, p.ordered_at) + $7::interval + interval '1 minute'
		WHERE r.channel = $2 AND r.hash = $3 AND c.out_at IS NULL AND (c.in_at IS NULL OR $6::timestamptz >= c.in_at AND p.hash IS NULL)`,
		platform, channel, hash, pq.Array(pushedFor), pq.Array(means), at, interval(verify))
	if err != nil {
		return nil, fmt.Errorf("addresses: %w", err)
	}
	return profiles(rows)
}

func profiles(rows *sql.Rows) (map[uuid.UUID]bool, error) {
	defer rows.Close()
	out := map[uuid.UUID]bool{}
	for rows.Next() {
		var id uuid.UUID
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("addresses: %w", err)
		}
		out[id] = true
	}
	return out, rows.Err()
}
