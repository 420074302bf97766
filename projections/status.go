package projections

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Status is where a reader of the ledger, or a build, stands.
type Status struct {
	Name          string       `json:"name"`
	Kind          string       `json:"kind" doc:"projection; reader, a part of the service; build, a projection in a schema of its own"`
	Version       int          `json:"version,omitempty" doc:"of the definition that the live tables were built by"`
	Position      int64        `json:"position" doc:"every event up to here has had its effect"`
	Head          int64        `json:"head"`
	Lag           int64        `json:"lag" doc:"events behind the head"`
	LagSeconds    float64      `json:"lag_seconds" doc:"since the first event was recorded that has not had its effect; 0 at the head"`
	State         string       `json:"state" doc:"running, parked or paused; of a build asked, running, interrupted, stopped, failed or built"`
	Error         *string      `json:"error" doc:"why it is parked, or has failed"`
	ErrorPosition *int64       `json:"error_position" doc:"the event at fault"`
	UpdatedAt     time.Time    `json:"updated_at"`
	Rebuild       *BuildStatus `json:"rebuild,omitempty" doc:"of a projection that is being rebuilt beside its live tables"`
}

// BuildStatus is how far a rebuild has come.
type BuildStatus struct {
	State         string    `json:"state" doc:"asked, running, interrupted, stopped or failed; a worker goes on with one that was interrupted, and so does whoever asks again"`
	Position      int64     `json:"position"`
	Rate          float64   `json:"events_per_second"`
	LeftSeconds   float64   `json:"left_seconds" doc:"at that rate; 0 when it is not known"`
	Error         *string   `json:"error"`
	ErrorPosition *int64    `json:"error_position"`
	AskedBy       string    `json:"asked_by"`
	UpdatedAt     time.Time `json:"updated_at"`
}

// buildState is what the table says of a build, unless it says that it runs and nobody is at it.
var buildState = `CASE WHEN b.state = 'running' AND NOT ` + schema.Held("b.place || '"+buildLock+"'") + ` THEN 'interrupted' ELSE b.state END`

// Statuses lists every reader of the ledger and every build, by name.
func Statuses(ctx context.Context, q schema.Querier) ([]Status, error) {
	rows, err := q.QueryContext(ctx, `
		SELECT s.name, coalesce(p.version, 0), s.position, h.head, s.state, s.error, s.error_position, s.updated_at,
			coalesce((SELECT greatest(0, extract(epoch FROM clock_timestamp() - e.recorded_at)) FROM events e WHERE e.position = s.position + 1), 0),
			`+buildState+`, b.position, b.rate, b.error, b.error_position, b.asked_by, b.updated_at
		FROM subscriptions s
		LEFT JOIN projections p ON s.name = 'projection.' || p.name
		LEFT JOIN builds b ON b.projection = p.name AND b.purpose = 'rebuild'
		CROSS JOIN (SELECT coalesce(max(position), 0) AS head FROM events) h
		UNION ALL
		SELECT 'build.' || b.place, 0, b.position, b.goal, `+buildState+`, b.error, b.error_position, b.updated_at, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL
		FROM builds b WHERE b.purpose = 'build'
		ORDER BY 1`)
	if err != nil {
		return nil, fmt.Errorf("projections: %w", err)
	}
	defer rows.Close()
	var out []Status
	for rows.Next() {
		var s Status
		var state, by *string
		var position *int64
		var rate *float64
		var updated *time.Time
		var b BuildStatus
		if err := rows.Scan(&s.Name, &s.Version, &s.Position, &s.Head, &s.State, &s.Error, &s.ErrorPosition, &s.UpdatedAt, &s.LagSeconds,
			&state, &position, &rate, &b.Error, &b.ErrorPosition, &by, &updated); err != nil {
			return nil, fmt.Errorf("projections: %w", err)
		}
		s.Lag = s.Head - s.Position
		s.UpdatedAt = s.UpdatedAt.UTC()
		s.Kind = "reader"
		for _, kind := range []string{"projection", "build"} {
			if name, ok := strings.CutPrefix(s.Name, kind+"."); ok {
				s.Name, s.Kind = name, kind
			}
		}
		if state != nil {
			b.State, b.Position, b.Rate, b.AskedBy, b.UpdatedAt = *state, *position, *rate, *by, updated.UTC()
			if b.Rate > 0 {
				b.LeftSeconds = float64(s.Head-b.Position) / b.Rate
			}
			s.Rebuild = &b
		}
		out = append(out, s)
	}
	return out, rows.Err()
}
