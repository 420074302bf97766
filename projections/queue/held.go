package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Waiting is a delivery in the queue that nobody is sending at the moment.
type Waiting struct {
	DeliveryID    uuid.UUID
	Target        string
	ProfileID     uuid.UUID
	Attempt       int // number of the next attempt
	Planned       int64
	CorrelationID uuid.UUID
	PlannedID     uuid.UUID // id of the delivery.planned event
}

const waitingColumns = `SELECT q.delivery_id, q.target, e.subject, q.attempt, q.planned, e.correlation_id, e.id FROM queue q JOIN events e ON e.position = q.planned`

const unclaimed = `NOT EXISTS (SELECT FROM leases l WHERE l.delivery_id = q.delivery_id AND l.attempt >= q.attempt)`

// heldQuery goes along the index, so that no more is read than is listed.
const heldQuery = `
SELECT q.delivery_id, q.target, e.subject, q.attempt, q.planned, e.correlation_id, e.id
FROM (SELECT clock_timestamp() - make_interval(secs => $2) AS latest FROM pauses p
	WHERE p.target = $1 AND (p.until > statement_timestamp() OR p.cause = 'failures') AND p.held_since <= clock_timestamp() - make_interval(secs => $2) OFFSET 0) h
CROSS JOIN LATERAL (
	SELECT r.* FROM (VALUES (0), (1)) AS x (priority) CROSS JOIN LATERAL (
		SELECT q.* FROM queue q WHERE q.target = $1 AND q.priority = x.priority AND q.due_at <= h.latest AND ` + unclaimed + ` ORDER BY q.due_at LIMIT $3
	) r LIMIT $3
) q
JOIN events e ON e.position = q.planned`

// Held lists what has been due for so long while its target was paused, so many at most, the first due of the urgent first.
func Held(ctx context.Context, q schema.Querier, target string, longerThan time.Duration, limit int) ([]Waiting, error) {
	return waiting(ctx, q, heldQuery, target, longerThan.Seconds(), limit)
}

// WaitingFor lists what is in a target's queue, after a position of its planning, in order.
func WaitingFor(ctx context.Context, q schema.Querier, target string, after int64, limit int) ([]Waiting, error) {
	return waiting(ctx, q, waitingColumns+` WHERE q.target = $1 AND q.planned > $2 AND `+unclaimed+` ORDER BY q.planned LIMIT $3`, target, after, limit)
}

func waiting(ctx context.Context, q schema.Querier, query string, args ...any) ([]Waiting, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("waiting deliveries: %w", err)
	}
	defer rows.Close()
	var out []Waiting
	for rows.Next() {
		var w Waiting
		var subject, correlation uuid.NullUUID
		if err := rows.Scan(&w.DeliveryID, &w.Target, &subject, &w.Attempt, &w.Planned, &correlation, &w.PlannedID); err != nil {
			return nil, fmt.Errorf("waiting deliveries: %w", err)
		}
		w.ProfileID, w.CorrelationID = subject.UUID, correlation.UUID
		out = append(out, w)
	}
	return out, rows.Err()
}
