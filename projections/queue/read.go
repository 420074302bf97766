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

// Wanted asks for work on one target.
type Wanted struct {
	Target string
	Free   int           // how many more requests may be in flight
	Lease  time.Duration // how long one attempt can take at most
}

// Claim is the right, and the recorded intent, to make one attempt. It is durable when Due returns it.
type Claim struct {
	Attempt   int
	ClaimedAt time.Time
	ExpiresAt time.Time       // by the database's clock; past it the attempt counts as lost
	Planned   domain.Recorded // the delivery.planned event
}

const dueQuery = `
WITH due AS MATERIALIZED (
	SELECT d.delivery_id, d.attempt, d.planned, w.lease
	FROM unnest($1::text[], $2::int[], $3::float8[]) AS w (target, free, lease), LATERAL (
		SELECT q.delivery_id, q.attempt, q.planned FROM queue q
		WHERE q.target = w.target AND q.due_at <= clock_timestamp()
		  AND NOT EXISTS (SELECT FROM leases l WHERE l.delivery_id = q.delivery_id AND l.attempt >= q.attempt)
		ORDER BY q.due_at LIMIT w.free
		FOR UPDATE OF q SKIP LOCKED
	) d
), claimed AS (
	INSERT INTO leases AS l (delivery_id, attempt, worker, claimed_at, expires_at)
	SELECT delivery_id, attempt, $4, clock_timestamp(), clock_timestamp() + make_interval(secs => lease) FROM due
	ON CONFLICT (delivery_id) DO UPDATE
		SET attempt = excluded.attempt, worker = excluded.worker, claimed_at = excluded.claimed_at, expires_at = excluded.expires_at
		WHERE l.attempt < excluded.attempt
	RETURNING l.delivery_id, l.attempt, l.claimed_at, l.expires_at
)
SELECT c.attempt, c.claimed_at, c.expires_at, e.position, e.id, e.stream, e.subject, e.target, e.delivery_id, e.recorded_at, e.correlation_id, e.data, e.sealed
FROM claimed c JOIN due d USING (delivery_id) JOIN events e ON e.position = d.planned`

// Due claims what is due for the targets asked for, oldest first. Two workers never get the same attempt.
func Due(ctx context.Context, q schema.Querier, worker string, wanted []Wanted) ([]Claim, error) {
	names, free, lease := make([]string, len(wanted)), make([]int64, len(wanted)), make([]float64, len(wanted))
	for i, w := range wanted {
		names[i], free[i], lease[i] = w.Target, int64(w.Free), w.Lease.Seconds()
	}
	rows, err := q.QueryContext(ctx, dueQuery, pq.Array(names), pq.Array(free), pq.Array(lease), worker)
	if err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	defer rows.Close()
	var out []Claim
	for rows.Next() {
		var c Claim
		var subject, correlation uuid.NullUUID
		e := &c.Planned
		if err := rows.Scan(&c.Attempt, &c.ClaimedAt, &c.ExpiresAt, &e.Position, &e.ID, &e.Stream, &subject, &e.Target, &e.DeliveryID,
			&e.RecordedAt, &correlation, &e.Data, &e.Sealed); err != nil {
			return nil, fmt.Errorf("claim: %w", err)
		}
		e.Type, e.Subject, e.CorrelationID = "delivery.planned", subject.UUID, correlation.UUID
		out = append(out, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	return out, nil
}

// Lost is a claim that outlived its worker.
type Lost struct {
	DeliveryID    uuid.UUID
	Target        string
	TargetVersion int64
	ProfileID     uuid.UUID
	Attempt       int
	Worker        string
	ClaimedAt     time.Time
	CorrelationID uuid.UUID
	PlannedID     uuid.UUID // id of the delivery.planned event
}

// Expired lists claims past their lease whose attempt has no outcome.
func Expired(ctx context.Context, q schema.Querier, limit int) ([]Lost, error) {
	rows, err := q.QueryContext(ctx, `
		SELECT l.delivery_id, e.target, (e.data->>'target_version')::bigint, e.subject, l.attempt, l.worker, l.claimed_at, e.correlation_id, e.id
		FROM leases l JOIN queue q ON q.delivery_id = l.delivery_id AND q.attempt = l.attempt JOIN events e ON e.position = q.planned
		WHERE l.expires_at < clock_timestamp() ORDER BY l.expires_at LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("expired claims: %w", err)
	}
	defer rows.Close()
	var out []Lost
	for rows.Next() {
		var l Lost
		var subject, correlation uuid.NullUUID
		if err := rows.Scan(&l.DeliveryID, &l.Target, &l.TargetVersion, &subject, &l.Attempt, &l.Worker, &l.ClaimedAt, &correlation, &l.PlannedID); err != nil {
			return nil, fmt.Errorf("expired claims: %w", err)
		}
		l.ProfileID, l.CorrelationID = subject.UUID, correlation.UUID
		out = append(out, l)
	}
	return out, rows.Err()
}

// Sweep removes the leases of deliveries that are done with. A lease is only ever taken on a row of the queue, so one
// without a row belongs to a delivery that has left it for good.
func Sweep(ctx context.Context, q schema.Querier) error {
	_, err := q.ExecContext(ctx, `DELETE FROM leases l WHERE NOT EXISTS (SELECT FROM queue q WHERE q.delivery_id = l.delivery_id)`)
	if err != nil {
		return fmt.Errorf("sweep leases: %w", err)
	}
	return nil
}

// Depth is how much work waits for a target.
type Depth struct {
	Target string
	Queued int
	Due    int
	Oldest time.Time // due time of the first
}

// Depths gives what waits, by target.
func Depths(ctx context.Context, q schema.Querier) ([]Depth, error) {
	rows, err := q.QueryContext(ctx, `SELECT target, count(*), count(*) FILTER (WHERE due_at <= clock_timestamp()), min(due_at) FROM queue GROUP BY target ORDER BY target`)
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	defer rows.Close()
	var out []Depth
	for rows.Next() {
		var d Depth
		if err := rows.Scan(&d.Target, &d.Queued, &d.Due, &d.Oldest); err != nil {
			return nil, fmt.Errorf("queue: %w", err)
		}
		out = append(out, d)
	}
	return out, rows.Err()
}
