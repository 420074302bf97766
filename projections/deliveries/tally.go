package deliveries

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Bucket is the width of a count's period.
const Bucket = 15 * time.Minute

// CountFilter selects what is counted. An empty field selects all.
type CountFilter struct {
	Target, Reaction, Platform string
	Version                    int64     // of the target
	From, To                   time.Time // of planning; widened to whole quarters of an hour
}

// Count is how many deliveries of a kind there are, by what they are now.
type Count struct {
	Bucket   time.Time `json:"bucket,omitzero"` // beginning of the period, when counted by period
	Reaction string    `json:"reaction,omitempty"`
	Target   string    `json:"target,omitempty"`
	Version  int64     `json:"version,omitempty"`
	Outcomes Outcomes  `json:"outcomes"`
}

// Outcomes counts deliveries by outcome. Sending and held ones are among the pending and retrying.
type Outcomes struct {
	Pending   int64 `json:"pending"`
	Retrying  int64 `json:"retrying"`
	Succeeded int64 `json:"succeeded"`
	Failed    int64 `json:"failed"`
	Withheld  int64 `json:"withheld"`
	Rejected  int64 `json:"rejected"`
	Cancelled int64 `json:"cancelled"`
	Expired   int64 `json:"expired"`
}

// Of gives the number for an outcome.
func (o Outcomes) Of(outcome domain.Outcome) int64 {
	switch outcome {
	case domain.Pending:
		return o.Pending
	case domain.Retrying:
		return o.Retrying
	case domain.Succeeded:
		return o.Succeeded
	case domain.Failed:
		return o.Failed
	case domain.Withheld:
		return o.Withheld
	case domain.Rejected:
		return o.Rejected
	case domain.Cancelled:
		return o.Cancelled
	case domain.Expired:
		return o.Expired
	case domain.Sending, domain.Held:
	}
	return 0
}

// Total is the number of all.
func (o Outcomes) Total() (n int64) {
	for _, outcome := range stored {
		n += o.Of(outcome)
	}
	return n
}

// By says what Counts groups by.
type By string

// What counts may be grouped by.
const (
	ByPeriod   By = "period"
	ByDay      By = "day" // in UTC
	ByReaction By = "reaction"
	ByTarget   By = "target"
	ByVersion  By = "version" // of a target
	Together   By = "none"
)

// Counts counts deliveries by what they are now, in groups: by period and day in order of time, by version in order of versions,
// else the largest first. It sums whole days and the quarters of an hour at the ends, of which each reaction and target has a row.
// By day, the ends are widened to whole days.
func Counts(ctx context.Context, q schema.Querier, f CountFilter, by By) ([]Count, error) {
	group := map[By][2]string{
		ByPeriod:   {"bucket, '', '', 0", "bucket"},
		ByDay:      {"bucket, '', '', 0", "bucket"},
		ByReaction: {"'-infinity'::timestamptz, reaction, '', 0", "n DESC, reaction"},
		ByTarget:   {"'-infinity'::timestamptz, '', target, 0", "n DESC, target"},
		ByVersion:  {"'-infinity'::timestamptz, '', target, target_version", "target, target_version"},
		Together:   {"'-infinity'::timestamptz, '', '', 0", "n"},
	}[by]
	var where []string
	var args []any
	arg := func(v any) string {
		args = append(args, v)
		return fmt.Sprintf("$%d", len(args))
	}
	for _, eq := range []struct{ column, value string }{{"target", f.Target}, {"reaction", f.Reaction}, {"platform", f.Platform}} {
		if eq.value != "" {
			where = append(where, eq.column+" = "+arg(eq.value))
		}
	}
	if f.Version > 0 {
		where = append(where, "target_version = "+arg(f.Version))
	}
	spans := f.spans(by)
	parts := make([]string, len(spans))
	for i, s := range spans {
		of := append(slices.Clone(where), fmt.Sprintf("daily = %v", s.daily))
		if !s.from.IsZero() {
			of = append(of, "bucket >= "+arg(s.from))
		}
		if !s.to.IsZero() {
			of = append(of, "bucket < "+arg(s.to))
		}
		parts[i] = "SELECT * FROM tallies WHERE " + strings.Join(of, " AND ")
	}
	query := `SELECT ` + group[0] + `, sum(pending), sum(retrying), sum(succeeded), sum(failed), sum(withheld), sum(rejected), sum(cancelled), sum(expired),
		sum(pending + retrying + succeeded + failed + withheld + rejected + cancelled + expired) AS n FROM (` + strings.Join(parts, " UNION ALL ") + `) t`
	rows, err := q.QueryContext(ctx, `SELECT CASE WHEN isfinite(b) THEN b END, r, t, v, p1, p2, p3, p4, p5, p6, p7, p8 FROM (`+query+` GROUP BY 1, 2, 3, 4 ORDER BY `+group[1]+`) AS x (b, r, t, v, p1, p2, p3, p4, p5, p6, p7, p8, n)`, args...)
	if err != nil {
		return nil, fmt.Errorf("counts: %w", err)
	}
	defer rows.Close()
	out := []Count{}
	for rows.Next() {
		var c Count
		var bucket *time.Time
		o := &c.Outcomes
		if err := rows.Scan(&bucket, &c.Reaction, &c.Target, &c.Version, &o.Pending, &o.Retrying, &o.Succeeded, &o.Failed, &o.Withheld, &o.Rejected, &o.Cancelled, &o.Expired); err != nil {
			return nil, fmt.Errorf("counts: %w", err)
		}
		if bucket != nil {
			c.Bucket = bucket.UTC()
		}
		out = append(out, c)
	}
	return out, rows.Err()
}

// span is a range of tallies' buckets, from inclusive, to exclusive; zero is no bound.
type span struct {
	daily    bool
	from, to time.Time
}

const day = 24 * time.Hour

// spans covers a filter's period with whole days where it can, and with quarters of an hour at its ends.
func (f CountFilter) spans(by By) []span {
	from, to := f.From.Truncate(Bucket), f.To // what begins before the end counts
	if by == ByPeriod {
		return []span{{false, from, to}}
	}
	first, last := up(from), to.Truncate(day) // of whole days
	if by == ByDay {
		return []span{{true, from.Truncate(day), to}}
	}
	if !first.IsZero() && !last.IsZero() && !first.Before(last) {
		return []span{{false, from, to}}
	}
	whole := []span{{true, first, last}}
	if first.After(from) {
		whole = append(whole, span{false, from, first})
	}
	if last.Before(to) {
		whole = append(whole, span{false, last, to})
	}
	return whole
}

// up is the beginning of the first day that begins no earlier.
func up(t time.Time) time.Time {
	if d := t.Truncate(day); d.Before(t) {
		return d.Add(day)
	}
	return t
}

// Latency is how long the attempts of a period took.
type Latency struct {
	Bucket   time.Time     `json:"bucket"`
	Attempts int64         `json:"attempts"`
	P50      time.Duration `json:"p50"` // at most; within a factor of √2
	P99      time.Duration `json:"p99"`
}

// Latencies gives how long attempts took, period by period.
func Latencies(ctx context.Context, q schema.Querier, from, to time.Time) ([]Latency, error) {
	rows, err := q.QueryContext(ctx, `SELECT bucket, class, n FROM latencies WHERE bucket >= $1 AND bucket < $2 ORDER BY bucket, class`, from, to)
	if err != nil {
		return nil, fmt.Errorf("latencies: %w", err)
	}
	defer rows.Close()
	type class struct {
		top time.Duration
		n   int64
	}
	var order []time.Time
	classes := map[time.Time][]class{}
	for rows.Next() {
		var bucket time.Time
		var c int
		var n int64
		if err := rows.Scan(&bucket, &c, &n); err != nil {
			return nil, fmt.Errorf("latencies: %w", err)
		}
		bucket = bucket.UTC()
		if !slices.Contains(order, bucket) {
			order = append(order, bucket)
		}
		classes[bucket] = append(classes[bucket], class{time.Duration(math.Exp2(float64(c)/2) * float64(time.Millisecond)), n})
	}
	out := make([]Latency, 0, len(order))
	for _, bucket := range order {
		l := Latency{Bucket: bucket}
		for _, c := range classes[bucket] {
			l.Attempts += c.n
		}
		seen := int64(0)
		for _, c := range classes[bucket] {
			seen += c.n
			if l.P50 == 0 && 2*seen >= l.Attempts {
				l.P50 = c.top
			}
			if l.P99 == 0 && 100*seen >= 99*l.Attempts {
				l.P99 = c.top
			}
		}
		out = append(out, l)
	}
	return out, rows.Err()
}

// Answered is how often a target's attempts were answered in one way.
type Answered struct {
	Target  string         `json:"target"`
	Verdict domain.Verdict `json:"verdict"`
	N       int64          `json:"n"`
}

// Answers counts attempts by target and verdict.
func Answers(ctx context.Context, q schema.Querier, from, to time.Time) ([]Answered, error) {
	rows, err := q.QueryContext(ctx, `SELECT target, verdict, sum(n) FROM answers WHERE bucket >= $1 AND bucket < $2 GROUP BY 1, 2 ORDER BY 1, 3 DESC`, from, to)
	if err != nil {
		return nil, fmt.Errorf("answers: %w", err)
	}
	defer rows.Close()
	out := []Answered{}
	for rows.Next() {
		var a Answered
		if err := rows.Scan(&a.Target, &a.Verdict, &a.N); err != nil {
			return nil, fmt.Errorf("answers: %w", err)
		}
		out = append(out, a)
	}
	return out, rows.Err()
}
