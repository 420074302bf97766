package deliveries

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// query writes the statement that reads a page.
//
// A person's deliveries, and those that were withheld or sent for a reason, are few enough to be gone through. A target's, a
// reaction's and what did not succeed have an index each. Whatever else is combined is led by tallies: they say in which days, and
// in those in which quarters of an hour, there is something to find, and between which positions; so what is rare is found as
// fast as what is frequent, and what there is none of is found at once.
func (f Filter) query() (string, []any) {
	if f.Limit <= 0 {
		f.Limit = 50
	}
	s := selection{}
	if f.Version > 0 {
		s.add("d.target_version = %s", f.Version)
	}
	for _, eq := range []struct{ column, value string }{{"target", f.Target}, {"reaction", f.Reaction}, {"platform", f.Platform}, {"reason", f.Reason}} {
		if eq.value != "" {
			s.add("d."+eq.column+" = %s", eq.value)
		}
	}
	if f.Before > 0 {
		s.add("d.position < %s", f.Before)
	}
	outcomes := f.storedOutcomes()
	succeeded := slices.Contains(outcomes, domain.Succeeded)
	if !succeeded {
		s.where = append(s.where, "d.outcome <> 'succeeded'") // what the index is on
	}
	if f.overlaid() {
		// What is shown decides, not what is stored.
		s.add("CASE WHEN "+claimed+" THEN 'sending' WHEN "+held+" THEN 'held' ELSE d.outcome END = ANY(%s)", pq.Array(f.Outcomes))
	}
	few := f.Profile != uuid.Nil || f.Reason != "" || len(f.Against) > 0
	combined := f.Platform != "" || f.Version > 0 || f.Target != "" && f.Reaction != "" || f.Target+f.Reaction != "" && len(f.Outcomes) > 0
	if !few && (combined || len(f.Outcomes) > 0 && succeeded) {
		return s.led(f, outcomes)
	}
	if !f.From.IsZero() {
		s.add("d.position > position_before(%s)", f.From)
	}
	if !f.To.IsZero() {
		s.add("d.position <= position_before(%s)", f.To)
	}
	if f.Profile != uuid.Nil {
		s.add("d.profile_id = %s", f.Profile)
	}
	if f.Reason != "" {
		s.where = append(s.where, "d.outcome IN ('withheld', 'rejected')") // what the index is on
	}
	switch {
	case f.Profile == uuid.Nil && len(f.Against) > 0:
		s.where = append(s.where, "d.against IS NOT NULL", "d.against = x.value")
		if len(f.Outcomes) > 0 {
			s.add("d.outcome = ANY(%s)", pq.Array(outcomes))
		}
		return s.each(f, s.arg(pq.Array(f.Against)))
	case !few && len(f.Outcomes) > 0:
		s.where = append(s.where, "d.outcome = x.value")
		return s.each(f, s.arg(pq.Array(outcomes)))
	}
	if len(f.Against) > 0 {
		s.add("d.against = ANY(%s)", pq.Array(f.Against))
	}
	if len(f.Outcomes) > 0 {
		s.add("d.outcome = ANY(%s)", pq.Array(outcomes))
	}
	return "SELECT " + columns + " FROM deliveries d" + s.conditions() + f.page(), s.args
}

// open are the outcomes of what may still be sent. Sending and held are laid over the stored ones by a claim or a pause.
var open = []domain.Outcome{domain.Pending, domain.Sending, domain.Retrying, domain.Held}

// overlaid reports whether it matters what is laid over a stored outcome: some that are open are asked for, and others are not.
func (f Filter) overlaid() bool {
	n := 0
	for _, o := range open {
		if slices.Contains(f.Outcomes, o) {
			n++
		}
	}
	return n > 0 && n < len(open)
}

// page is a page's end of a statement.
func (f Filter) page() string { return fmt.Sprintf(" ORDER BY d.position DESC LIMIT %d", f.Limit) }

// selection is what a filter asks of a row of deliveries, called d.
type selection struct {
	where []string
	args  []any
}

func (s *selection) arg(v any) string {
	s.args = append(s.args, v)
	return fmt.Sprintf("$%d", len(s.args))
}

func (s *selection) add(condition string, v any) {
	s.where = append(s.where, fmt.Sprintf(condition, s.arg(v)))
}

func (s *selection) conditions() string {
	if len(s.where) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(s.where, " AND ")
}

// each reads a page for each value, called x, off its index, and merges them.
func (s *selection) each(f Filter, values string) (string, []any) {
	return "SELECT " + columns + " FROM unnest(" + values + "::text[]) AS x (value) CROSS JOIN LATERAL (SELECT d.* FROM deliveries d" +
		s.conditions() + f.page() + ") d" + f.page(), s.args
}

// led reads a page off the days and quarters of an hour that hold something, newest first, and no more of them than the page
// needs.
//
// A bucket holds at least one row that is selected, and as many as its tallies say, but for the newest: of that one, which the
// cursor or the end of the period may lie in, nobody knows. So one bucket more than the page has rows suffices, and those below
// as many rows as the page has are not looked into. Where it matters what is laid over the open ones, nobody knows of those
// either: then every bucket with some of them is looked into.
func (s *selection) led(f Filter, outcomes []domain.Outcome) (string, []any) {
	var of []string
	for _, eq := range []struct{ column, value string }{{"target", f.Target}, {"reaction", f.Reaction}, {"platform", f.Platform}} {
		if eq.value != "" {
			of = append(of, "t."+eq.column+" = "+s.arg(eq.value))
		}
	}
	if f.Version > 0 {
		of = append(of, "t.target_version = "+s.arg(f.Version))
	}
	newest := "SELECT 'infinity'::timestamptz AS at"
	if f.Before > 0 {
		newest = "SELECT max(d.planned_at) AS at FROM (SELECT planned_at FROM deliveries WHERE position < " + s.arg(f.Before) + " ORDER BY position DESC LIMIT 1) d"
	}
	if !f.To.IsZero() {
		to := s.arg(f.To)
		s.where = append(s.where, "d.planned_at < "+to)
		newest = "SELECT least(n.at, " + to + "::timestamptz) AS at FROM (" + newest + ") n"
	}
	from := "'-infinity'::timestamptz"
	if !f.From.IsZero() {
		from = s.arg(f.From) + "::timestamptz"
		s.where = append(s.where, "d.planned_at >= "+from)
	}
	if len(f.Outcomes) > 0 {
		s.add("d.outcome = ANY(%s)", pq.Array(outcomes))
	}
	n, listed := tallied(outcomes), fmt.Sprintf(" HAVING %s > 0 ORDER BY t.bucket DESC LIMIT %d", tallied(outcomes), f.Limit+1)
	if f.overlaid() {
		n = tallied(slices.DeleteFunc(slices.Clone(outcomes), func(o domain.Outcome) bool { return !o.Final() }))
		listed = fmt.Sprintf(" HAVING %s > 0", tallied(outcomes))
	}
	// enough keeps the buckets that a page needs of those that are listed.
	enough := func(buckets string) string {
		return `SELECT c.* FROM (SELECT b.*, coalesce(sum(b.n) FILTER (WHERE b.bucket + b.width <= (SELECT at FROM newest)) OVER (ORDER BY b.bucket DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS newer
			FROM (` + buckets + " GROUP BY t.bucket" + listed + fmt.Sprintf(`) b) c WHERE c.newer < %d`, f.Limit)
	}
	where := strings.Join(append(of, "t.bucket <= (SELECT at FROM newest)"), " AND ")
	days := enough("SELECT t.bucket, interval '1 day' AS width, " + n + " AS n FROM tallies t WHERE t.daily AND t.bucket >= date_bin('1 day', " + from + ", '2000-01-01Z') AND " + where)
	quarters := enough("SELECT t.bucket, interval '15 minutes' AS width, " + n + ` AS n, min(t.first) AS first, max(t.last) AS last, array_agg(DISTINCT t.target) AS targets
		FROM days y JOIN tallies t ON NOT t.daily AND t.bucket >= y.bucket AND t.bucket < y.bucket + y.width
		WHERE t.bucket >= date_bin('15 minutes', ` + from + ", '2000-01-01Z') AND " + where)
	s.where = append(s.where, "d.position >= p.first", "d.position <= p.last")
	places := "quarters p"
	if f.Target == "" && f.Reaction == "" && (f.Platform != "" || f.Version > 0) {
		places = "(SELECT q.first, q.last, unnest(q.targets) AS target FROM quarters q) p"
		s.where = append(s.where, "d.target = p.target")
	}
	return "WITH newest AS (" + newest + "), days AS (" + days + "), quarters AS (" + quarters + ") SELECT " + columns + " FROM " + places +
		" CROSS JOIN LATERAL (SELECT d.* FROM deliveries d" + s.conditions() + f.page() + ") d" + f.page(), s.args
}

// tallied sums the tallies' columns of some outcomes.
func tallied(outcomes []domain.Outcome) string {
	names := []string{"0"}
	for _, o := range outcomes {
		names = append(names, "t."+string(o))
	}
	return "sum(" + strings.Join(names, " + ") + ")"
}
