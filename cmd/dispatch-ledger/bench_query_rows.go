package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
)

// trailRows are what the projection deliveries makes of a trail, in a fifth of its time because they are never read back. A test
// holds them against the projection's own rebuild.
type trailRows struct {
	deliveries []*trailDelivery // in order; the first may be settled
	open       map[uuid.UUID]*trailDelivery
	attempts   [][]any
	tallies    map[trailBucket]*trailTally
	answers    map[[3]string]int64
	latencies  map[[2]string]int64
}

type trailDelivery struct {
	id            uuid.UUID
	position      int64
	firing        domain.Firing
	outcome       domain.Outcome
	reason        string
	detail        string
	consent       *domain.Decision
	body          string
	max           int
	planned       time.Time
	finished, due time.Time
	attempts      int
	against       string
	changed       int64
}

type trailBucket struct {
	daily            bool
	at               time.Time
	reaction, target string
	version          int64
	platform         string
}

type trailTally struct {
	first, last int64
	of          map[domain.Outcome]int64
}

func newTrailRows() *trailRows {
	return &trailRows{open: map[uuid.UUID]*trailDelivery{}, tallies: map[trailBucket]*trailTally{}, answers: map[[3]string]int64{}, latencies: map[[2]string]int64{}}
}

// trailSettled is after how many deliveries one has been settled, if ever.
const trailSettled = 100

// add takes an event in.
func (r *trailRows) add(p domain.Payload, position int64, at time.Time) {
	d := &trailDelivery{position: position, planned: at, changed: position}
	switch p := p.(type) {
	case domain.DeliveryPlanned:
		d.id, d.firing, d.outcome, d.consent, d.body, d.max, d.due = p.DeliveryID, p.Firing, domain.Pending, &p.Consent, p.BodySHA256, p.MaxAttempts, at
		r.open[d.id] = d
	case domain.DeliveryWithheld:
		d.id, d.firing, d.outcome, d.reason, d.detail, d.consent, d.finished = p.DeliveryID, p.Firing, domain.Withheld, p.Reason, p.Detail, &p.Consent, at
	case domain.DeliveryRejected:
		d.id, d.firing, d.outcome, d.reason, d.detail, d.finished = p.DeliveryID, p.Firing, domain.Rejected, p.Reason, p.Detail, at
	case domain.DeliveryAttempted:
		r.attempt(p, position, at)
		return
	default:
		return
	}
	r.deliveries = append(r.deliveries, d)
}

func (r *trailRows) attempt(p domain.DeliveryAttempted, position int64, at time.Time) {
	d := r.open[p.DeliveryID]
	d.outcome, d.reason, d.attempts, d.changed, d.due = p.Outcome, string(p.Verdict), p.Attempt, position, time.Time{}
	if p.NextAttemptAt != nil {
		d.due = *p.NextAttemptAt
	}
	if d.consent.Decision == domain.DecisionFlagged {
		d.against = d.consent.Reason
	}
	if p.Outcome.Final() {
		d.finished = at
		delete(r.open, d.id)
	}
	r.attempts = append(r.attempts, []any{
		p.DeliveryID.String(), p.Attempt, position, p.StartedAt, p.DurationMS, p.Status, string(p.Verdict), string(p.Outcome), orNull(d.due), p.Address, p.Worker, false, at,
	})
	bucket := at.Truncate(deliveries.Bucket).Format(time.RFC3339)
	r.answers[[3]string{bucket, p.Target, string(p.Verdict)}]++
	r.latencies[[2]string{bucket, fmt.Sprint(math.Ceil(2 * math.Log(max(p.DurationMS, 0.01)) / math.Ln2))}]++
}

// settled takes out the rows of the deliveries that nothing will happen to any more; all of them when the trail has ended.
func (r *trailRows) settled(all bool) (rows [][]any, err error) {
	n := len(r.deliveries) - trailSettled
	if all {
		n = len(r.deliveries)
	}
	for _, d := range r.deliveries[:max(0, n)] {
		f := d.firing
		var consent any
		if d.consent != nil {
			text, err := json.Marshal(d.consent)
			if err != nil {
				return nil, err
			}
			consent = string(text)
		}
		rows = append(rows, []any{
			d.id.String(), d.position, f.FiringID.String(), f.FiringPosition, f.Reaction, f.Trigger, f.Cause, f.Target, f.TargetVersion, f.Platform, f.ProfileID.String(), string(d.outcome),
			orNull(d.reason), orNull(d.detail), consent, orNull(d.body), orNull(d.max), d.planned, orNull(d.finished), orNull(d.due), d.attempts, orNull(d.against), d.changed,
		})
		for _, width := range []time.Duration{deliveries.Bucket, 24 * time.Hour} {
			key := trailBucket{width > deliveries.Bucket, d.planned.Truncate(width), f.Reaction, f.Target, f.TargetVersion, f.Platform}
			t := r.tallies[key]
			if t == nil {
				t = &trailTally{first: d.position, of: map[domain.Outcome]int64{}}
				r.tallies[key] = t
			}
			t.last = d.position
			t.of[d.outcome]++
		}
	}
	r.deliveries = append([]*trailDelivery(nil), r.deliveries[max(0, n):]...)
	return rows, nil
}

// orNull is nil for a zero value.
func orNull[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

// counted are the rows of the counts.
func (r *trailRows) counted() (tallies, answers, latencies [][]any) {
	// In order of time, as a ledger makes them: it is what a reader finds next to each other on disk.
	for _, k := range slices.SortedFunc(maps.Keys(r.tallies), func(a, b trailBucket) int { return a.at.Compare(b.at) }) {
		t := r.tallies[k]
		row := []any{k.daily, k.at, k.reaction, k.target, k.version, k.platform, t.first, t.last}
		for _, o := range tallyOutcomes {
			row = append(row, t.of[o])
		}
		tallies = append(tallies, row)
	}
	for k, n := range r.answers {
		answers = append(answers, []any{k[0], k[1], k[2], n})
	}
	for k, n := range r.latencies {
		latencies = append(latencies, []any{k[0], k[1], n})
	}
	return tallies, answers, latencies
}

var tallyOutcomes = []domain.Outcome{domain.Pending, domain.Retrying, domain.Succeeded, domain.Failed, domain.Withheld, domain.Rejected, domain.Cancelled, domain.Expired}

var trailColumns = map[string][]string{
	"deliveries": {
		"delivery_id", "position", "firing_id", "firing_position", "reaction", "trigger", "cause", "target", "target_version", "platform", "profile_id", "outcome",
		"reason", "detail", "consent", "body_sha256", "max_attempts", "planned_at", "finished_at", "next_attempt_at", "attempts", "against", "changed",
	},
	"attempts":  {"delivery_id", "attempt", "position", "started_at", "duration_ms", "status", "verdict", "outcome", "next_attempt_at", "address", "worker", "probe", "recorded_at"},
	"tallies":   {"daily", "bucket", "reaction", "target", "target_version", "platform", "first", "last", "pending", "retrying", "succeeded", "failed", "withheld", "rejected", "cancelled", "expired"},
	"answers":   {"bucket", "target", "verdict", "n"},
	"latencies": {"bucket", "class", "n"},
}

// copyRows copies rows into a table.
func copyRows(ctx context.Context, tx *sql.Tx, place, table string, columns []string, rows [][]any) error {
	if len(rows) == 0 {
		return nil
	}
	into, err := tx.PrepareContext(ctx, pq.CopyInSchema(place, table, columns...)) //nolint:staticcheck // it quotes the names
	if err != nil {
		return err
	}
	defer into.Close()
	for _, row := range rows {
		if _, err := into.ExecContext(ctx, row...); err != nil {
			return err
		}
	}
	_, err = into.ExecContext(ctx)
	return err
}

// copyTables copies rows, by table, in one transaction.
func copyTables(ctx context.Context, db *sql.DB, place string, tables map[string][][]any) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, `SET LOCAL synchronous_commit = off`); err != nil {
		return err
	}
	for table, rows := range tables {
		if err := copyRows(ctx, tx, place, table, trailColumns[table], rows); err != nil {
			return fmt.Errorf("copy %s: %w", table, err)
		}
	}
	return tx.Commit()
}

// emptied makes a projection's tables anew, empty and at the beginning of the ledger.
func (st *store) emptied(ctx context.Context, owner *sql.DB, d projections.Definition) error {
	place := pq.QuoteIdentifier(st.settings.name + "_" + d.Name)
	if _, err := owner.ExecContext(ctx, "DROP SCHEMA IF EXISTS "+place+" CASCADE; DROP SCHEMA IF EXISTS "+pq.QuoteIdentifier(st.settings.name+"_"+d.Name+"__next")+" CASCADE"); err != nil {
		return err
	}
	for _, s := range []string{`DELETE FROM projections WHERE name = $1`, `DELETE FROM builds WHERE projection = $1`} {
		if _, err := owner.ExecContext(ctx, s, d.Name); err != nil {
			return err
		}
	}
	if _, err := owner.ExecContext(ctx, `SELECT move_cursor($1, 0)`, d.SubscriptionName()); err != nil {
		return err
	}
	_, err := st.engine.Install(ctx)
	return err
}
