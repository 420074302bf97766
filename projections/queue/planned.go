package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Fresh is a delivery that is being planned in an open transaction and is due at once.
type Fresh struct {
	Planned domain.Recorded
	Until   time.Time     // not sent at this time or later; zero: no limit
	Lease   time.Duration // how long one attempt can take at most
}

// freshFar is how far the queue may be behind for anything to be claimed before it is in it.
const freshFar = 500

// ClaimFresh claims deliveries in the transaction that plans them, which spares them the way through the queue. It claims none
// of a target that is or may be paused, or that fails at the moment, and none at all while the queue is far behind: the queue
// is where that is found out in order. What the queue holds for a target besides is the caller's affair.
//
// The claims hold once the transaction is committed; see Standing.
func ClaimFresh(ctx context.Context, q schema.Querier, worker string, fresh []Fresh) ([]Claim, error) {
	ids, names, positions, leases := make([]uuid.UUID, len(fresh)), make([]string, len(fresh)), make([]int64, len(fresh)), make([]float64, len(fresh))
	at := make(map[uuid.UUID]int, len(fresh))
	for i, f := range fresh {
		ids[i], names[i], positions[i], leases[i] = f.Planned.DeliveryID, f.Planned.Target, f.Planned.Position, f.Lease.Seconds()
		at[f.Planned.DeliveryID] = i
	}
	rows, err := q.QueryContext(ctx, `
		WITH stands AS MATERIALIZED (SELECT position FROM subscriptions WHERE name = $1)
		INSERT INTO leases (delivery_id, attempt, worker, target, claimed_at, expires_at, planned)
		SELECT f.id, 1, $2, f.target, c.now, c.now + make_interval(secs => f.lease), f.position
		FROM unnest($3::uuid[], $4::text[], $5::bigint[], $6::float8[]) AS f (id, target, position, lease), clock_timestamp() AS c (now), stands s
		WHERE $7 - s.position <= $8
		  AND NOT EXISTS (SELECT FROM events e WHERE e.position > s.position AND e.position <= $7 AND e.type = 'target.paused')
		  AND NOT EXISTS (SELECT FROM pauses p WHERE p.target = f.target AND p.cause IS NOT NULL)
		  AND NOT EXISTS (SELECT FROM breakers b WHERE b.target = f.target AND b.failures > 0)
		ON CONFLICT (delivery_id) DO NOTHING
		RETURNING delivery_id, claimed_at, expires_at`,
		Definition.SubscriptionName(), worker, schema.UUIDs(ids), pq.Array(names), pq.Array(positions), pq.Array(leases), positions[len(positions)-1], freshFar)
	if err != nil {
		return nil, fmt.Errorf("claim as planned: %w", err)
	}
	defer rows.Close()
	var out []Claim
	for rows.Next() {
		c := Claim{Attempt: 1}
		var id uuid.UUID
		if err := rows.Scan(&id, &c.ClaimedAt, &c.ExpiresAt); err != nil {
			return nil, fmt.Errorf("claim as planned: %w", err)
		}
		f := fresh[at[id]]
		c.Planned, c.Until = f.Planned, f.Until
		out = append(out, c)
	}
	return out, rows.Err()
}

// Standing gives those of a worker's claims that hold. A claim whose transaction was not committed does not; the same
// delivery claimed once more in another is another claim.
func Standing(ctx context.Context, q schema.Querier, worker string, claims []Claim) ([]Claim, error) {
	ids := make([]uuid.UUID, len(claims))
	for i, c := range claims {
		ids[i] = c.Planned.DeliveryID
	}
	rows, err := q.QueryContext(ctx, `SELECT delivery_id, attempt, claimed_at FROM leases WHERE delivery_id = ANY($1::uuid[]) AND worker = $2`, schema.UUIDs(ids), worker)
	if err != nil {
		return nil, fmt.Errorf("claims that hold: %w", err)
	}
	defer rows.Close()
	type lease struct {
		attempt int
		at      time.Time
	}
	held := make(map[uuid.UUID]lease, len(claims))
	for rows.Next() {
		var id uuid.UUID
		var l lease
		if err := rows.Scan(&id, &l.attempt, &l.at); err != nil {
			return nil, fmt.Errorf("claims that hold: %w", err)
		}
		held[id] = l
	}
	var out []Claim
	for _, c := range claims {
		if l, ok := held[c.Planned.DeliveryID]; ok && l.attempt == c.Attempt && l.at.Equal(c.ClaimedAt) {
			out = append(out, c)
		}
	}
	return out, rows.Err()
}
