package queue

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// State is what a watchman wants to know of the whole queue.
type State struct {
	Queued, Due, Held int
	Paused            map[string]int // targets, by cause
	// Silent is how long something has waited to go out without anything going out: from when the first of it was due, or
	// from the last success after that. Zero when nothing waits. What a person holds, by pausing or disabling its target,
	// does not wait; a firing that nobody has planned yet does.
	Silent time.Duration
}

// stateQuery is one pass over the queue, along an index that holds all that it needs, and little besides, however much is queued.
const stateQuery = `
WITH waits AS MATERIALIZED (
	SELECT q.target, count(*) AS queued, count(*) FILTER (WHERE q.due_at <= statement_timestamp()) AS due, min(q.due_at) AS since FROM queue q GROUP BY q.target
), unplanned AS (
	SELECT e.recorded_at FROM subscriptions s JOIN LATERAL (
		SELECT e.recorded_at FROM events e WHERE e.position > s.position AND e.position <= s.position + 10000 AND e.type = 'reaction.fired' ORDER BY e.position LIMIT 1
	) e ON true WHERE s.name = $1
), waiting AS (
	SELECT min(w.since) AS since FROM waits w JOIN targets t ON t.handle = w.target LEFT JOIN pauses p ON p.target = w.target AND p.cause = 'operator' AND p.until > statement_timestamp()
	WHERE w.due > 0 AND t.state <> 'disabled' AND p.target IS NULL
), last AS (
	-- Among the last to be planned that succeeded. Where they are is told by the tallies: before them may lie all that a dead target was sent.
	SELECT max(d.finished_at) AS at FROM (
		SELECT t.target, min(t.first) AS first, max(t.last) AS last FROM tallies t
		WHERE NOT t.daily AND t.succeeded > 0 AND t.bucket = (SELECT x.bucket FROM tallies x WHERE NOT x.daily AND x.succeeded > 0 ORDER BY x.bucket DESC LIMIT 1)
		GROUP BY t.target
	) t CROSS JOIN LATERAL (
		SELECT d.finished_at FROM deliveries d WHERE d.target = t.target AND d.position BETWEEN t.first AND t.last AND d.outcome = 'succeeded' ORDER BY d.position DESC LIMIT 1
	) d
)
SELECT coalesce(sum(w.queued), 0), coalesce(sum(w.due), 0), coalesce(sum(w.queued) FILTER (WHERE p.target IS NOT NULL), 0),
       (SELECT extract(epoch FROM clock_timestamp() - greatest(w.since, (SELECT at FROM last)))
        FROM (SELECT least((SELECT since FROM waiting), (SELECT recorded_at FROM unplanned)) AS since) w WHERE w.since IS NOT NULL)
FROM waits w LEFT JOIN pauses p ON p.target = w.target AND p.until > statement_timestamp()`

// StateOf reads the queue. planner names the subscription that answers firings.
func StateOf(ctx context.Context, q schema.Querier, planner string) (s State, err error) {
	var silent sql.NullFloat64
	err = q.QueryRowContext(ctx, stateQuery, planner).Scan(&s.Queued, &s.Due, &s.Held, &silent)
	if err != nil {
		return s, fmt.Errorf("state of the queue: %w", err)
	}
	s.Silent = max(0, time.Duration(silent.Float64*float64(time.Second)))
	s.Paused = map[string]int{}
	pauses, err := Pauses(ctx, q)
	for _, p := range pauses {
		s.Paused[p.Cause]++
	}
	return s, err
}
