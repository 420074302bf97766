package promptness

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Sum makes the report of the opt-outs that a filter selects.
func Sum(ctx context.Context, q schema.Querier, policy domain.Deadline, now time.Time, f Filter) (Report, error) {
	r := Report{States: map[State]int{}, Platforms: map[string]Measure{}, Waiting: map[string]int{}, Policy: policy}
	for _, s := range States {
		r.States[s] = 0
	}
	var recorded, sent []float64
	confirmed := map[string][]float64{}
	for o, err := range OptOuts(ctx, q, policy, now, f) {
		if err != nil {
			return r, err
		}
		r.OptOuts++
		r.States[o.State]++
		r.SentAfter += o.SentAfter
		recorded = append(recorded, o.RecordedAfter)
		if o.LastSentAt != nil {
			sent = append(sent, o.LastSentAt.Sub(o.DecidedAt).Seconds())
		}
		for _, p := range o.Platforms {
			if p.ConfirmedAt == nil {
				r.Waiting[p.Platform]++
				continue
			}
			if p.OrderedAt == nil {
				continue
			}
			confirmed[p.Platform] = append(confirmed[p.Platform], max(0, p.ConfirmedAt.Sub(o.DecidedAt).Seconds()))
		}
	}
	r.Recorded, r.LastSent = measure(recorded), measure(sent)
	for platform, took := range confirmed {
		r.Platforms[platform] = measure(took)
	}
	return r, nil
}

func measure(seconds []float64) Measure {
	if len(seconds) == 0 {
		return Measure{}
	}
	slices.Sort(seconds)
	at := func(share float64) float64 { return seconds[min(int(share*float64(len(seconds))), len(seconds)-1)] }
	return Measure{Count: len(seconds), Median: at(0.5), P95: at(0.95), Max: seconds[len(seconds)-1]}
}

// Waiting is how many opt-outs a platform has not confirmed, and how many of them are overdue.
type Waiting struct {
	Platform string
	Open     int
	Overdue  int
	Oldest   time.Time // decided_at
}

// Unconfirmed counts what platforms have been asked and not confirmed, for the metrics: read by an index that holds
// nothing else.
func Unconfirmed(ctx context.Context, q schema.Querier, policy domain.Deadline, now time.Time) ([]Waiting, error) {
	// The latest decision whose deadline has passed: deadlines grow with decisions, so one day's precision is found by
	// going back a day at a time.
	reckon := policy.Reckoner()
	passed := now
	for i := 0; i < 120 && !reckon(passed).Before(now); i++ {
		passed = passed.Add(-12 * time.Hour)
	}
	rows, err := q.QueryContext(ctx, `SELECT platform, count(*), count(*) FILTER (WHERE decided_at <= $1), min(decided_at)
		FROM confirmations c WHERE confirmed_at IS NULL
		  AND NOT EXISTS (SELECT FROM sightings s WHERE s.channel = c.channel AND s.hash = c.hash AND s.platform = c.platform AND s.seen_at > c.decided_at)
		GROUP BY platform ORDER BY platform`, passed)
	if err != nil {
		return nil, fmt.Errorf("promptness: %w", err)
	}
	defer rows.Close()
	var out []Waiting
	for rows.Next() {
		var w Waiting
		if err := rows.Scan(&w.Platform, &w.Open, &w.Overdue, &w.Oldest); err != nil {
			return nil, fmt.Errorf("promptness: %w", err)
		}
		out = append(out, w)
	}
	return out, rows.Err()
}

// Lag is how long the opt-outs recorded since a time took to reach the ledger, the longest of them, in seconds.
func Lag(ctx context.Context, q schema.Querier, since time.Time) (seconds float64, count int, err error) {
	err = q.QueryRowContext(ctx, `SELECT coalesce(max(extract(epoch FROM recorded_at - decided_at)), 0), count(*) FROM optouts WHERE recorded_at >= $1`, since).Scan(&seconds, &count)
	if err != nil {
		return 0, 0, fmt.Errorf("promptness: %w", err)
	}
	return max(0, seconds), count, nil
}
