package privacy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Retention is how long the sealed parts of an event type are kept, and since when that is so.
type Retention struct {
	Type      string    `json:"type"`
	Days      int       `json:"days" doc:"Whole days after the day they were recorded on; 0 is for as long as the person is not erased."`
	Reason    string    `json:"reason"`
	ChangedAt time.Time `json:"changed_at"`
	ChangedBy string    `json:"changed_by"`
	Position  int64     `json:"position" doc:"Of the retention.changed event."`
	EndedTo   string    `json:"ended_to,omitempty" doc:"The first day that is still kept, where a retention has ended before."`
}

// Retentions gives the retention of each event type for which one was ever set, by type.
func (s *Service) Retentions(ctx context.Context) ([]Retention, error) {
	by := map[string]*Retention{}
	for e, err := range schema.Events(ctx, s.DB, schema.Filter{Types: []string{"retention.changed", "retention.ended"}}) {
		if err != nil {
			return nil, err
		}
		var about struct {
			Type   string `json:"type"`
			Days   int    `json:"days"`
			Reason string `json:"reason"`
			Before string `json:"before"`
		}
		if err := json.Unmarshal(e.Data, &about); err != nil {
			return nil, fmt.Errorf("event %d: %w", e.Position, err)
		}
		r := by[about.Type]
		if r == nil {
			r = &Retention{Type: about.Type}
			by[about.Type] = r
		}
		if e.Type == "retention.ended" {
			r.EndedTo = max(r.EndedTo, about.Before)
			continue
		}
		r.Days, r.Reason, r.ChangedAt, r.ChangedBy, r.Position = about.Days, about.Reason, e.RecordedAt, e.Actor, e.Position
	}
	all := make([]Retention, 0, len(by))
	for _, r := range by {
		all = append(all, *r)
	}
	slices.SortFunc(all, func(a, b Retention) int { return cmp.Compare(a.Type, b.Type) })
	return all, nil
}

// Retain sets how long the sealed parts of an event type are kept; 0 days is for as long as the person is not erased. A
// shorter time holds for what is there already: its keys are destroyed at the keeper's next round, which comes within
// the hour, and nothing brings them back.
func (s *Service) Retain(ctx context.Context, eventType string, days int, by By) (Retention, error) {
	if err := by.check(); err != nil {
		return Retention{}, err
	}
	at, err := s.record(ctx, by, domain.RetentionChanged{Type: eventType, Days: days, Reason: by.Reason})
	if err != nil {
		return Retention{}, err
	}
	return Retention{Type: eventType, Days: days, Reason: by.Reason, ChangedAt: at.RecordedAt, ChangedBy: by.Actor, Position: at.Position}, nil
}

// Keeper ends retentions when their time has come. Any number of processes may run one: of two at the same time, one
// finds everything destroyed.
type Keeper struct {
	*Service
	Log *slog.Logger

	ended prometheus.Counter
}

// keeperInterval is how long a keeper waits between two rounds. Retention is a matter of days.
const keeperInterval = time.Hour

// keeperActor is who ends retentions, in events.
const keeperActor = "retention"

// NewKeeper makes a keeper and its metrics. registry may be nil.
func NewKeeper(s *Service, log *slog.Logger, registry prometheus.Registerer) (*Keeper, error) {
	k := &Keeper{Service: s, Log: log, ended: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ledger_retention_keys_destroyed_total", Help: "Keys of event types and days that were destroyed because their retention ended.",
	})}
	if registry == nil {
		return k, nil
	}
	return k, registry.Register(k.ended)
}

// Run makes rounds until ctx ends. A round that fails is logged and made up for by the next.
func (k *Keeper) Run(ctx context.Context) {
	ticker := time.NewTicker(keeperInterval)
	defer ticker.Stop()
	for {
		if err := k.Round(ctx); err != nil && ctx.Err() == nil {
			k.Log.WarnContext(ctx, "retention could not be ended; it is tried again in an hour", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Round destroys the keys whose retention has ended by now, for each event type in a transaction with the event that
// says so.
func (k *Keeper) Round(ctx context.Context) error {
	retentions, err := k.Retentions(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range retentions {
		if r.Days == 0 {
			continue
		}
		errs = append(errs, k.end(ctx, r))
		if r.Type == domain.TypeOf(domain.DeliveryPlanned{}) { // test requests are rendered bodies too
			errs = append(errs, schema.NewInspector(k.DB, k.Vault, k.Clock).Forget(ctx, k.before(r).Start()))
		}
	}
	return errors.Join(errs...)
}

// before is the first day that is still kept.
func (k *Keeper) before(r Retention) schema.Day {
	return schema.DayOf(k.Clock()) - schema.Day(r.Days) //nolint:gosec // bounded by its validation
}

// end destroys the keys of one type's days that are past its retention.
func (k *Keeper) end(ctx context.Context, r Retention) error {
	before := k.before(r)
	tx, err := k.DB.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	expired, err := k.Vault.Expire(ctx, tx, r.Type, before)
	if err != nil || len(expired.Days) == 0 {
		return err
	}
	by := By{Actor: keeperActor, Source: "/retention"}
	e, err := by.event(uuid.New(), domain.RetentionEnded{Type: r.Type, Before: before.String(), Days: len(expired.Days), Policy: r.Position})
	if err != nil {
		return err
	}
	if _, err := k.Ledger.AppendTx(ctx, tx, e); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	k.ended.Add(float64(len(expired.Days)))
	k.Log.InfoContext(ctx, "retention ended", slog.String("type", r.Type), slog.String("before", before.String()), slog.Int("days", len(expired.Days)))
	return nil
}
