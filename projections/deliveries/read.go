package deliveries

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Delivery is a row of the audit trail, with its attempts when Get read it.
type Delivery struct {
	ID            uuid.UUID
	Position      int64 // of the event that answered the firing
	Firing        domain.Firing
	Outcome       domain.Outcome
	Reason        string // a code
	Detail        string // the same in a sentence
	Consent       *domain.Decision
	Unresolved    []domain.Unresolved
	BodySHA256    string
	MaxAttempts   int
	PlannedAt     time.Time
	FinishedAt    *time.Time
	NextAttemptAt *time.Time
	Attempts      int
	Against       string    // sent against the person's answer: the reason of the decision that flagged it, such as opted_out
	Changed       int64     // position of the last event that changed it
	Trail         []Attempt // in order; only from Get
}

// Attempt is one attempt of a delivery.
type Attempt struct {
	Attempt       int
	Position      int64
	StartedAt     time.Time
	DurationMS    *float64
	Status        int // HTTP; 0 when no answer arrived
	Verdict       domain.Verdict
	Reason        string
	Outcome       domain.Outcome
	NextAttemptAt *time.Time
	Address       string
	Worker        string
	Timings       *domain.Timings   // nil when no connection was asked for
	BodySHA256    string            // hex, of the body as it was sent
	Probe         bool              // it tried whether a paused target answers again
	Consent       *domain.Decision  // where it differs from the plan's
	RateLimit     *domain.RateLimit // what the answer said of the sender's quota; nil when it said nothing
}

const columns = `d.delivery_id, d.position, d.firing_id, d.firing_position, d.reaction, coalesce(d.trigger, ''), d.cause, d.target,
	coalesce(d.target_version, 0), coalesce(d.platform, ''), d.profile_id, d.outcome, coalesce(d.reason, ''), coalesce(d.detail, ''), d.consent, d.unresolved,
	coalesce(d.body_sha256, ''), coalesce(d.max_attempts, 0), d.planned_at, d.finished_at, d.next_attempt_at, d.attempts, coalesce(d.against, ''), d.changed,
	` + claimed + `, ` + held

// claimed tells a delivery that somebody is sending at this moment, which is no event yet.
const claimed = `(d.finished_at IS NULL AND EXISTS (SELECT FROM leases l JOIN queue q ON q.delivery_id = l.delivery_id AND q.attempt = l.attempt WHERE l.delivery_id = d.delivery_id))`

// held tells a delivery that waits for its target's pause to end, or for it to be switched on again. Neither is an event of
// each of its deliveries.
const held = `(d.finished_at IS NULL AND (EXISTS (SELECT FROM pauses p WHERE p.target = d.target AND p.until > clock_timestamp())
	OR EXISTS (SELECT FROM targets t WHERE t.handle = d.target AND t.state = 'disabled')))`

func scan(row interface{ Scan(...any) error }) (d Delivery, err error) {
	var profile uuid.NullUUID
	var consent, unresolved []byte
	var sending, held bool
	f := &d.Firing
	err = row.Scan(&d.ID, &d.Position, &f.FiringID, &f.FiringPosition, &f.Reaction, &f.Trigger, &f.Cause, &f.Target, &f.TargetVersion, &f.Platform,
		&profile, &d.Outcome, &d.Reason, &d.Detail, &consent, &unresolved, &d.BodySHA256, &d.MaxAttempts, &d.PlannedAt, &d.FinishedAt, &d.NextAttemptAt, &d.Attempts, &d.Against, &d.Changed, &sending, &held)
	if err != nil {
		return d, err
	}
	f.ProfileID = profile.UUID
	switch {
	case sending:
		d.Outcome = domain.Sending
	case held:
		d.Outcome = domain.Held
	}
	if consent != nil {
		if err := json.Unmarshal(consent, &d.Consent); err != nil {
			return d, fmt.Errorf("delivery %s: %w", d.ID, err)
		}
	}
	if unresolved != nil {
		if err := json.Unmarshal(unresolved, &d.Unresolved); err != nil {
			return d, fmt.Errorf("delivery %s: %w", d.ID, err)
		}
	}
	return d, nil
}

// Get gives one delivery with its attempts, or schema.ErrNotFound.
func Get(ctx context.Context, q schema.Querier, id uuid.UUID) (Delivery, error) {
	d, err := scan(q.QueryRowContext(ctx, `SELECT `+columns+` FROM deliveries d WHERE d.delivery_id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return d, fmt.Errorf("delivery %s: %w", id, schema.ErrNotFound)
	}
	if err != nil {
		return d, fmt.Errorf("delivery %s: %w", id, err)
	}
	rows, err := q.QueryContext(ctx, `SELECT attempt, position, started_at, duration_ms, coalesce(status, 0), verdict, coalesce(reason, ''), outcome,
		next_attempt_at, coalesce(address, ''), coalesce(worker, ''), timings, coalesce(body_sha256, ''), probe, consent,
		(SELECT e.data->'rate_limit' FROM events e WHERE e.position = attempts.position) FROM attempts WHERE delivery_id = $1 ORDER BY position`, id)
	if err != nil {
		return d, fmt.Errorf("delivery %s: %w", id, err)
	}
	defer rows.Close()
	for rows.Next() {
		var a Attempt
		var timings, consent, limit []byte
		if err := rows.Scan(&a.Attempt, &a.Position, &a.StartedAt, &a.DurationMS, &a.Status, &a.Verdict, &a.Reason, &a.Outcome, &a.NextAttemptAt, &a.Address, &a.Worker, &timings, &a.BodySHA256, &a.Probe, &consent, &limit); err != nil {
			return d, fmt.Errorf("delivery %s: %w", id, err)
		}
		if timings != nil {
			if err := json.Unmarshal(timings, &a.Timings); err != nil {
				return d, fmt.Errorf("delivery %s: %w", id, err)
			}
		}
		if consent != nil {
			if err := json.Unmarshal(consent, &a.Consent); err != nil {
				return d, fmt.Errorf("delivery %s: %w", d.ID, err)
			}
		}
		if limit != nil {
			if err := json.Unmarshal(limit, &a.RateLimit); err != nil {
				return d, fmt.Errorf("delivery %s: %w", d.ID, err)
			}
		}
		d.Trail = append(d.Trail, a)
	}
	return d, rows.Err()
}

// NextAttempt is the number that a delivery's next attempt may have when it is put back into the queue: above every one
// that was made or kept from being made, because each number ends in one event.
func NextAttempt(ctx context.Context, q schema.Querier, id uuid.UUID) (next int, err error) {
	err = q.QueryRowContext(ctx, `SELECT 1 + greatest(
		coalesce((SELECT max(attempt) FROM attempts WHERE delivery_id = $1), 0), coalesce((SELECT max(attempt) FROM turns WHERE delivery_id = $1), 0))`, id).Scan(&next)
	if err != nil {
		return 0, fmt.Errorf("delivery %s: %w", id, err)
	}
	return next, nil
}
