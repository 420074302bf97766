package reconciler

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Name is the reconciler's subscription. Renaming it would push every opt-out of the ledger again, which changes nothing.
const Name = "reconciler"

// Subscription reads what is decided, behind the projections that say what it amounts to.
func (s *Service) Subscription() schema.Subscription {
	return schema.Subscription{
		Name: Name, Limit: 5000, Types: []string{"consent.changed"},
		After: []string{consent.Definition.SubscriptionName(), suppressions.Definition.SubscriptionName()},
	}
}

// Watch queues what a slice of the ledger decided, for the platforms that want to be told at once.
func (s *Service) Watch(ctx context.Context, tx *sql.Tx, _ schema.Slice) error {
	policies, err := suppressions.Policies(ctx, tx)
	if err != nil {
		return err
	}
	var wishes []suppressions.Wish
	for _, p := range policies {
		if p.Disabled || p.Realtime != domain.On {
			continue
		}
		l, err := s.connect(ctx, p)
		if err != nil {
			continue // the scheduler says so; its runs catch up once it is mended
		}
		for _, channel := range l.channels() {
			if l.writes(channel) {
				wishes = append(wishes, suppressions.Wish{
					Platform: l.Name, Channel: channel, Purposes: l.PushedFor, Lift: l.lifts(channel), LiftSince: s.Now().UTC().Add(-time.Duration(l.LiftWithin)),
				})
			}
		}
	}
	if len(wishes) == 0 {
		return nil
	}
	raw, err := json.Marshal(wishes)
	if err != nil {
		return fmt.Errorf("reconciler: %w", err)
	}
	_, err = suppressions.QueueDecided(ctx, tx, string(raw), s.Now().UTC())
	return err
}

// Tick is how often the scheduler looks whether something is due.
const Tick = time.Second

// Run schedules the platforms' runs and writes what waits for them, until ctx ends. moved says when the subscription has
// queued something; it may be nil. Any number of processes may run it: one of them works on a platform at a time.
func (s *Service) Run(ctx context.Context, moved func() <-chan struct{}) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	busy := map[string]bool{} // platforms that this process is at; guarded by mu
	var mu sync.Mutex
	begin := func(key string, do func()) {
		mu.Lock()
		defer mu.Unlock()
		if busy[key] {
			return
		}
		busy[key] = true
		wg.Go(func() {
			defer func() {
				mu.Lock()
				delete(busy, key)
				mu.Unlock()
			}()
			do()
		})
	}
	ticker := time.NewTicker(Tick)
	defer ticker.Stop()
	for {
		var wake <-chan struct{}
		if moved != nil {
			wake = moved()
		}
		policies, err := suppressions.Policies(ctx, s.DB)
		if err != nil && ctx.Err() == nil {
			s.Log.WarnContext(ctx, "the platforms' policies cannot be read; trying again", slog.Any("error", err))
		}
		for _, p := range policies {
			if p.Disabled {
				continue
			}
			begin("push "+p.Name, func() { s.tell(ctx, p.Name, s.pushDue(ctx, p.Name)) })
			begin("run "+p.Name, func() { s.tell(ctx, p.Name, s.runDue(ctx, p)) })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-ticker.C:
		}
	}
}

func (s *Service) tell(ctx context.Context, platform string, err error) {
	if err == nil || ctx.Err() != nil || errors.Is(err, ErrRunning) || errors.Is(err, ErrHeld) {
		return
	}
	s.Log.WarnContext(ctx, "a platform is not kept in step", slog.String("platform", platform), slog.Any("error", err))
	_ = s.Sleep(ctx, time.Minute) // its turn again then, or when ctx ends
}

// pushDue writes what is due on a platform, if anything is.
func (s *Service) pushDue(ctx context.Context, platform string) error {
	var due bool
	if err := s.DB.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM outgoing WHERE platform = $1 AND due_at <= $2)`, platform, s.Now().UTC()).Scan(&due); err != nil || !due {
		return err
	}
	return s.Push(ctx, platform)
}

// runDue goes on with a platform's run, or begins one when it is time.
func (s *Service) runDue(ctx context.Context, p suppressions.Policy) error {
	r, err := s.load(ctx, p.Name)
	switch {
	case errors.Is(err, schema.ErrNotFound):
		due, err := s.due(ctx, p)
		if err != nil || !due {
			return err
		}
		if _, err := s.Start(ctx, Request{Platform: p.Name, Trigger: "schedule", Actor: Source}); err != nil {
			return err
		}
	case err != nil:
		return err
	case r.phase == phaseHeld && !r.approved:
		if err := s.Work(ctx, p.Name, nil); !errors.Is(err, ErrHeld) {
			return err // which says that it waits, in case its process died before it could
		}
		return s.Sleep(ctx, 2*time.Second)
	case r.mode == ImportFile && r.phase == phasePull:
		return nil // whoever has the file is at it, or gives it again
	}
	return s.Work(ctx, p.Name, nil)
}

// due reports whether a platform's next run is to begin: every so often after the last one began, however it ended.
func (s *Service) due(ctx context.Context, p suppressions.Policy) (bool, error) {
	var last sql.NullTime
	err := s.DB.QueryRowContext(ctx, `SELECT max(started_at) FROM reconciliation_runs WHERE platform = $1 AND mode <> 'import' AND NOT "check"`, p.Name).Scan(&last)
	if err != nil {
		return false, err
	}
	return !last.Valid || s.Now().Sub(last.Time) >= time.Duration(p.Every), nil
}
