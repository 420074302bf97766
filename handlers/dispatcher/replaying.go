package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// How replays are worked on.
const (
	replayPage   = 200              // deliveries between two notes of how far it has come
	replayAhead  = 10 * time.Second // how far what is put back may be due ahead, so that a replay can still be cancelled
	replayLook   = time.Second      // how soon a worker notices a replay, and looks at one that waits for its pace
	replayAtOnce = 32               // deliveries that are put back at the same time

	conflictsLast = 10 * time.Second // how long a delivery that changes as it is put back is asked for again
	replaysMost   = 4                // replays that a process works on at the same time
)

// WorkReplays works on the replays that are running until the context ends. Any number of processes may; each replay is one
// process's at a time, and another's when that one is gone.
func (c Controls) WorkReplays(ctx context.Context, log *slog.Logger) {
	var working sync.WaitGroup
	defer working.Wait()
	var mine sync.Map
	slots := make(chan struct{}, replaysMost)
	ticker := time.NewTicker(replayLook)
	defer ticker.Stop()
	for {
		running, err := schema.IDs(ctx, c.DB, `SELECT id FROM replays WHERE state = 'running' ORDER BY asked_at`)
		if err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "which replays are running is not known; trying again", slog.Any("error", err))
		}
		for _, id := range running {
			if _, busy := mine.LoadOrStore(id, true); busy {
				continue
			}
			select {
			case slots <- struct{}{}:
			default:
				mine.Delete(id)
				continue
			}
			working.Go(func() {
				defer func() { <-slots; mine.Delete(id) }()
				if err := c.WorkReplay(ctx, id, nil); err != nil && ctx.Err() == nil {
					log.WarnContext(ctx, "a replay was interrupted; it goes on", slog.String("replay", id.String()), slog.Any("error", err))
				}
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// WorkReplay works on one replay until it has ended, or watches while another process does. told is called with how it stands
// whenever that changes; it may be nil.
func (c Controls) WorkReplay(ctx context.Context, id uuid.UUID, told func(Replay)) error {
	unlock, locked := func() {}, false
	defer func() { unlock() }()
	var last Replay
	for {
		if !locked {
			var err error
			if unlock, locked, err = schema.TryLock(ctx, c.DB, "replay."+id.String()); err != nil {
				unlock = func() {}
				return err
			}
			if !locked {
				unlock = func() {}
			}
		}
		r, err := c.ReplayByID(ctx, id)
		if err != nil {
			return err
		}
		if told != nil && (r.Requeued != last.Requeued || r.State != last.State) {
			told(r)
		}
		last = r
		if r.State != domain.ReplayRunning {
			return nil
		}
		wait := replayLook
		if locked {
			if wait, err = c.replayOn(ctx, r); err != nil {
				return err
			}
		}
		if wait == 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// replayOn puts the next page back, or says how long to wait before it.
func (c Controls) replayOn(ctx context.Context, r Replay) (wait time.Duration, err error) {
	if r.pageFrom.Valid {
		return 0, c.takeUp(ctx, r)
	}
	due, limit := later(r.Due, c.Now()).Truncate(time.Microsecond), replayPage
	if r.Rate > 0 {
		if ahead := due.Sub(c.Now()); ahead > replayAhead/2 {
			return min(replayLook, ahead-replayAhead/2), nil
		}
		limit = max(1, min(limit, int(r.Rate*replayAhead.Seconds()/2)))
	}
	filter := selection(r.Filter)
	filter.Before, filter.Limit = r.before, limit
	found, err := deliveries.List(ctx, c.DB, filter)
	if err != nil {
		return 0, err
	}
	if _, err := c.DB.ExecContext(ctx, `UPDATE replays SET page_from = (SELECT coalesce(max(position), 0) FROM events), updated_at = clock_timestamp() WHERE id = $1 AND state = 'running'`, r.ID); err != nil {
		return 0, err
	}
	page, err := c.putBack(ctx, r, found, due)
	if err != nil {
		return 0, err
	}
	before := r.before
	if len(found) > 0 {
		before = found[len(found)-1].Position
	}
	if _, err := c.DB.ExecContext(ctx, `UPDATE replays SET page_from = NULL, before = $2, due = $3, requeued = requeued + $4, skipped = skipped + $5, refused = refused + $6, updated_at = clock_timestamp()
		WHERE id = $1`, r.ID, before, page.due, page.requeued, page.skipped, page.refused); err != nil {
		return 0, err
	}
	if len(found) == limit {
		return 0, nil
	}
	_, err = c.endReplay(ctx, r, r.By, domain.ReplayDone)
	return 0, err
}

// takeUp counts what a process put back that was gone before it could say so. The rest of its page is still to be done.
func (c Controls) takeUp(ctx context.Context, r Replay) error {
	_, err := c.DB.ExecContext(ctx, `UPDATE replays SET page_from = NULL, updated_at = clock_timestamp(), requeued = requeued + (
			SELECT count(*) FROM events e WHERE e.position > $2 AND e.type = 'delivery.requeued' AND e.data->>'replay' = $3)
		WHERE id = $1 AND state = 'running'`, r.ID, r.pageFrom.Int64, r.ID.String())
	if err != nil {
		return fmt.Errorf("replay %s: %w", r.ID, err)
	}
	return nil
}

// page is what was done with a page of a replay.
type page struct {
	requeued, skipped, refused int
	due                        time.Time // of the one after it
}

// putBack puts deliveries back into the queue, spread by the rate. What succeeded is never among them.
func (c Controls) putBack(ctx context.Context, r Replay, found []deliveries.Delivery, due time.Time) (out page, err error) {
	out.due = due
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(replayAtOnce)
	for _, d := range found {
		if d.BodySHA256 == "" || !d.Outcome.Final() || d.Outcome == domain.Succeeded {
			mu.Lock()
			out.skipped++
			mu.Unlock()
			continue
		}
		again := Again{Actor: r.By, Reason: r.Reason, Replay: r.ID, DueAt: out.due}
		if r.Rate > 0 {
			out.due = out.due.Add(time.Duration(float64(time.Second) / r.Rate))
		}
		group.Go(func() error {
			how, err := c.putBackOne(ctx, d.ID, again)
			mu.Lock()
			defer mu.Unlock()
			switch how {
			case putBackNow:
				out.requeued++
			case putBackRefused:
				out.refused++
			case putBackBefore: // and counted then
			}
			return err
		})
	}
	return out, group.Wait()
}

// How a delivery fared in a replay.
const (
	putBackNow = iota
	putBackBefore
	putBackRefused
)

// putBackOne puts a delivery back, unless this replay did so before it was interrupted: then something may have become of the
// delivery since, and that is no refusal. One to which something happened at this moment is asked for again.
func (c Controls) putBackOne(ctx context.Context, delivery uuid.UUID, again Again) (how int, err error) {
	patience := backoff.NewExponentialBackOff()
	patience.InitialInterval, patience.MaxInterval = 20*time.Millisecond, 500*time.Millisecond
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		_, err := c.Retry(ctx, delivery, again)
		if err != nil && !errors.Is(err, schema.ErrConflict) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(patience), backoff.WithMaxElapsedTime(conflictsLast))
	switch {
	case err == nil:
		return putBackNow, nil
	case schema.Transient(err) || errors.Is(err, schema.ErrBusy) || ctx.Err() != nil:
		return putBackRefused, err
	case errors.Is(err, schema.ErrIDReused):
		return putBackBefore, nil
	}
	_, err = schema.EventByID(ctx, c.DB, replayed(delivery, again.Replay))
	switch {
	case err == nil:
		return putBackBefore, nil
	case errors.Is(err, schema.ErrNotFound):
		return putBackRefused, nil
	}
	return putBackRefused, err
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
