package dispatcher

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Replayable are the outcomes that a replay selects unless it names others.
var Replayable = []domain.Outcome{domain.Failed, domain.Expired, domain.Cancelled}

// Replay is many deliveries that are tried again, by whichever process works on them: a page at a time, newest first. How far
// it has come is kept, so it goes on after a restart, and what it put back it does not put back twice.
type Replay struct {
	ID        uuid.UUID
	Position  int64  // of the event that asked for it; the order of lists
	State     string // domain.ReplayRunning and its like
	Filter    domain.ReplayFilter
	Rate      float64 // deliveries a second; 0: as fast as the targets' own limits allow
	Reason    string
	By        string
	Selected  int // by the filter when it was asked for, at most deliveries.SelectedMax
	Requeued  int
	Skipped   int       // without a request
	Refused   int       // erased, withdrawn with their target, or changed at that moment
	Due       time.Time // of the next one
	AskedAt   time.Time
	UpdatedAt time.Time

	before   int64
	pageFrom sql.NullInt64
}

// Left is how many are still to be looked at, as far as is known.
func (r Replay) Left() int { return max(0, r.Selected-r.Requeued-r.Skipped-r.Refused) }

// AskReplay is what a replay is asked for with.
type AskReplay struct {
	ID     uuid.UUID // asking twice with one id asks once
	Filter domain.ReplayFilter
	Rate   float64
	Actor  string
	Reason string
}

// CountReplay says how many deliveries a filter selects, by outcome, at most deliveries.SelectedMax in all.
func (c Controls) CountReplay(ctx context.Context, f domain.ReplayFilter) (map[domain.Outcome]int, error) {
	return deliveries.Selected(ctx, c.DB, selection(f))
}

func selection(f domain.ReplayFilter) deliveries.Filter {
	return deliveries.Filter{Target: f.Target, Reaction: f.Reaction, Platform: f.Platform, Outcomes: f.Outcomes, From: f.From, To: f.To}
}

// Replay records that many deliveries are to be tried again, and leaves it to a worker; see WorkReplays. What is planned from
// here on is none of it.
//
// Errors: *domain.InvalidError.
func (c Controls) Replay(ctx context.Context, a AskReplay) (Replay, error) {
	if a.ID == uuid.Nil {
		a.ID = uuid.New()
	}
	if len(a.Filter.Outcomes) == 0 {
		a.Filter.Outcomes = Replayable
	}
	if known, err := c.ReplayByID(ctx, a.ID); !errors.Is(err, schema.ErrNotFound) {
		return known, err
	}
	asked := domain.ReplayAsked{ID: a.ID, Filter: a.Filter, Rate: a.Rate, Reason: a.Reason}
	if err := asked.Validate(); err != nil {
		return Replay{}, err
	}
	selected, err := c.CountReplay(ctx, a.Filter)
	if err != nil {
		return Replay{}, err
	}
	for _, n := range selected {
		asked.Selected += n
	}
	filter, err := json.Marshal(a.Filter)
	if err != nil {
		return Replay{}, err
	}
	err = c.together(ctx, a.Actor, domain.EventID(a.ID, "asked"), asked, func(tx *sql.Tx, position int64) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO replays (id, position, state, filter, rate, reason, asked_by, selected, before, due) VALUES ($1, $2, 'running', $3, $4, $5, $6, $7, $2, $8)
			ON CONFLICT (id) DO NOTHING`, a.ID, position, filter, a.Rate, a.Reason, a.Actor, asked.Selected, c.Now())
		return err
	})
	if err != nil {
		return Replay{}, fmt.Errorf("replay: %w", err)
	}
	return c.ReplayByID(ctx, a.ID)
}

// CancelReplay stops a replay. What it has put back stays in the queue.
//
// Errors: schema.ErrNotFound; ErrState when it has ended.
func (c Controls) CancelReplay(ctx context.Context, id uuid.UUID, actor string) error {
	r, err := c.ReplayByID(ctx, id)
	if err != nil {
		return err
	}
	ended, err := c.endReplay(ctx, r, actor, domain.ReplayCancelled)
	if err == nil && !ended {
		return fmt.Errorf("%w: the replay has ended", ErrState)
	}
	return err
}

// endReplay reports false when it has ended already.
func (c Controls) endReplay(ctx context.Context, r Replay, actor, how string) (ended bool, err error) {
	tx, err := c.DB.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer tx.Rollback()
	end := domain.ReplayEnded{ID: r.ID, Outcome: how}
	err = tx.QueryRowContext(ctx, `UPDATE replays SET state = $2, page_from = NULL, updated_at = clock_timestamp() WHERE id = $1 AND state = 'running'
		RETURNING requeued, skipped, refused`, r.ID, how).Scan(&end.Requeued, &end.Skipped, &end.Refused)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("replay %s: %w", r.ID, err)
	}
	if _, err := c.appendTx(ctx, tx, actor, domain.EventID(r.ID, "ended"), end); err != nil {
		return false, err
	}
	return true, tx.Commit()
}

// together appends an event and does something else, or neither.
func (c Controls) together(ctx context.Context, actor string, id uuid.UUID, payload domain.Payload, besides func(tx *sql.Tx, position int64) error) error {
	tx, err := c.DB.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	position, err := c.appendTx(ctx, tx, actor, id, payload)
	if err != nil {
		return err
	}
	if err := besides(tx, position); err != nil {
		return err
	}
	return tx.Commit()
}

func (c Controls) appendTx(ctx context.Context, tx *sql.Tx, actor string, id uuid.UUID, payload domain.Payload) (position int64, err error) {
	e, _, err := domain.New(id, payload)
	if err != nil {
		return 0, err
	}
	e.Actor, e.Source = actor, source
	at, err := c.Ledger.AppendTx(ctx, tx, e)
	if err != nil {
		return 0, err
	}
	return at[0].Position, nil
}

const replayColumns = `id, position, state, filter, rate, reason, asked_by, selected, requeued, skipped, refused, due, asked_at, updated_at, before, page_from`

func scanReplay(row interface{ Scan(...any) error }) (r Replay, err error) {
	var filter []byte
	err = row.Scan(&r.ID, &r.Position, &r.State, &filter, &r.Rate, &r.Reason, &r.By, &r.Selected, &r.Requeued, &r.Skipped, &r.Refused, &r.Due, &r.AskedAt, &r.UpdatedAt, &r.before, &r.pageFrom)
	if err != nil {
		return r, err
	}
	r.Due, r.AskedAt, r.UpdatedAt = r.Due.UTC(), r.AskedAt.UTC(), r.UpdatedAt.UTC()
	return r, json.Unmarshal(filter, &r.Filter)
}

// ReplayByID gives a replay, or schema.ErrNotFound.
func (c Controls) ReplayByID(ctx context.Context, id uuid.UUID) (Replay, error) {
	r, err := scanReplay(c.DB.QueryRowContext(ctx, `SELECT `+replayColumns+` FROM replays WHERE id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		err = schema.ErrNotFound
	}
	if err != nil {
		return r, fmt.Errorf("replay %s: %w", id, err)
	}
	return r, nil
}

// Replays lists replays, the newest first, from below a position; 0 begins at the newest.
func (c Controls) Replays(ctx context.Context, before int64, limit int) ([]Replay, error) {
	rows, err := c.DB.QueryContext(ctx, `SELECT `+replayColumns+` FROM replays WHERE $1 = 0 OR position < $1 ORDER BY position DESC LIMIT $2`, before, limit)
	if err != nil {
		return nil, fmt.Errorf("replays: %w", err)
	}
	defer rows.Close()
	var out []Replay
	for rows.Next() {
		r, err := scanReplay(rows)
		if err != nil {
			return nil, fmt.Errorf("replays: %w", err)
		}
		out = append(out, r)
	}
	return out, rows.Err()
}
