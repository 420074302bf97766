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

// StateOf reads the queue. planner names the subscription that answers firings.
func StateOf(ctx context.Context, q schema.Querier, planner string) (s State, err error) {
	var silent sql.NullFloat64
	err = q.QueryRowContext(ctx, `
		WITH unplanned AS (
			SELECT e.recorded_at FROM subscriptions s JOIN LATERAL (
				SELECT e.recorded_at FROM events e WHERE e.position > s.position AND e.position <= s.position + 10000 AND e.type = 'reaction.fired' ORDER BY e.position LIMIT 1
			) e ON true WHERE s.name = $1
		), waiting AS (
			SELECT min(q.due_at) AS since FROM queue q JOIN targets t ON t.handle = q.target LEFT JOIN pauses p ON p.target = q.target AND p.cause = 'operator' AND p.until > statement_timestamp()
			WHERE q.due_at <= statement_timestamp() AND t.state <> 'disabled' AND p.target IS NULL
		), last AS (
			SELECT finished_at AS at FROM deliveries WHERE outcome = 'succeeded' ORDER BY position DESC LIMIT 1
		)
		SELECT count(*), count(*) FILTER (WHERE q.due_at <= statement_timestamp()), count(*) FILTER (WHERE p.target IS NOT NULL),
		       (SELECT extract(epoch FROM clock_timestamp() - greatest(w.since, (SELECT at FROM last)))
		        FROM (SELECT least((SELECT since FROM waiting), (SELECT recorded_at FROM unplanned)) AS since) w WHERE w.since IS NOT NULL)
		FROM queue q LEFT JOIN pauses p ON p.target = q.target AND p.until > statement_timestamp()`, planner).Scan(&s.Queued, &s.Due, &s.Held, &silent)
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
