package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// askedEvery is how soon a worker notices that a rebuild was asked for.
const askedEvery = time.Second

// AskRebuild has a worker rebuild a projection in the background; see Keep. Asking again for one that is being rebuilt
// changes nothing, for one that failed it tries again.
func (e *Engine) AskRebuild(ctx context.Context, d Definition, by string) error {
	_, err := e.db.ExecContext(ctx, `INSERT INTO builds (place, projection, purpose, state, asked_by) VALUES ($1, $2, 'rebuild', 'asked', $3)
		ON CONFLICT (place) DO UPDATE SET state = 'asked', error = NULL, error_position = NULL, asked_by = excluded.asked_by, asked_at = clock_timestamp(), updated_at = clock_timestamp()
		WHERE builds.state <> 'running'`, e.next(d).schema, d.Name, by)
	if err != nil {
		return fmt.Errorf("ask for a rebuild of %s: %w", d.Name, err)
	}
	return nil
}

// Keep rebuilds in the background what was asked for, and goes on with what a process that died was at, until the context
// ends. Several processes may each run it: a projection is rebuilt by one of them. What was asked for by the time that it looks goes
// side by side, by atOnce sessions in all.
func (e *Engine) Keep(ctx context.Context, atOnce int) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := semaphore.NewWeighted(int64(max(1, atOnce)))
	var mu sync.Mutex
	mine := map[string]bool{}
	ticker := time.NewTicker(askedEvery)
	defer ticker.Stop()
	for {
		asked, err := e.asked(ctx)
		if err != nil && ctx.Err() == nil {
			e.log.WarnContext(ctx, "which rebuilds were asked for is not known; trying again", logError(err))
		}
		mu.Lock()
		asked = slices.DeleteFunc(asked, func(d Definition) bool { return mine[d.Name] })
		hands := 0
		for hands < len(asked) && slots.TryAcquire(1) {
			hands++
		}
		if hands > 0 {
			for _, d := range asked {
				mine[d.Name] = true
			}
			wg.Go(func() {
				defer slots.Release(int64(hands))
				e.keep(ctx, asked, hands, func(d Definition) {
					mu.Lock()
					defer mu.Unlock()
					delete(mine, d.Name)
				})
			})
		}
		mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// keep rebuilds some side by side, and says of each when it has ended.
func (e *Engine) keep(ctx context.Context, asked []Definition, atOnce int, ended func(Definition)) {
	// What became of each is told one by one.
	_ = e.RebuildAll(ctx, asked, atOnce, func(d Definition) RebuildOptions {
		return RebuildOptions{Ended: func(err error) {
			switch {
			case err == nil || ctx.Err() != nil || errors.Is(err, ErrBusy):
			case schema.Transient(err):
				e.log.WarnContext(ctx, "the rebuild of a projection was interrupted; it goes on", logProjection(d), logError(err))
			default:
				e.log.ErrorContext(ctx, "a projection could not be rebuilt; the old one keeps serving", logProjection(d), logError(err))
			}
			ended(d)
		}}
	})
}

// asked are the projections whose rebuild was asked for, or was begun by whoever is gone.
func (e *Engine) asked(ctx context.Context) ([]Definition, error) {
	rows, err := e.db.QueryContext(ctx, `SELECT projection FROM builds WHERE purpose = 'rebuild' AND state IN ('asked', 'running') ORDER BY asked_at`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Definition
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		if d, err := e.Find(name); err == nil { // another version of the program may have more
			out = append(out, d)
		}
	}
	return out, rows.Err()
}
