package deliveries

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Filter selects deliveries. An empty field selects all; filters combine.
type Filter struct {
	Target, Reaction, Platform string
	Version                    int64 // of the target; 0 is any
	Profile                    uuid.UUID
	Outcomes                   []domain.Outcome
	Reason                     string    // why it was withheld or rejected
	Against                    []string  // sent although the person's answer was against it: reasons such as opted_out; see AgainstOptOut
	From, To                   time.Time // of planning; from inclusive, to exclusive
	Before                     int64     // positions below: the cursor of a list, newest first; 0 begins at the newest
	Limit                      int       // 50 by default
}

// AgainstOptOut are the reasons of a decision that a delivery to somebody who had opted out was flagged with.
var AgainstOptOut = []string{"opted_out", "opted_out_of_all"}

// AgainstAny are all reasons of a decision that a delivery is flagged with.
var AgainstAny = []string{"opted_out", "opted_out_of_all", "never_asked", "bounced", "no_profile"}

// stored are the outcomes that a row may have; sending and held are laid over them.
var stored = []domain.Outcome{
	domain.Pending, domain.Retrying, domain.Succeeded, domain.Failed, domain.Withheld, domain.Rejected, domain.Cancelled, domain.Expired,
}

// List gives deliveries newest first. The last one's Position is the cursor of the next page.
//
// Each page is read off one index from its newest end, so it costs the same in a ledger of any size: the person's, or that of
// a target, reaction or platform, one outcome at a time and merged.
func List(ctx context.Context, q schema.Querier, f Filter) ([]Delivery, error) {
	query, args := f.query()
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("deliveries: %w", err)
	}
	defer rows.Close()
	out := []Delivery{}
	for rows.Next() {
		d, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("deliveries: %w", err)
		}
		out = append(out, d)
	}
	return out, rows.Err()
}

func (f Filter) query() (string, []any) {
	var where []string
	var args []any
	add := func(condition string, v any) {
		args = append(args, v)
		where = append(where, fmt.Sprintf(condition, len(args)))
	}
	for _, eq := range []struct{ column, value string }{{"target", f.Target}, {"reaction", f.Reaction}, {"platform", f.Platform}, {"reason", f.Reason}} {
		if eq.value != "" {
			add("d."+eq.column+" = $%d", eq.value)
		}
	}
	if f.Reason != "" {
		where = append(where, "d.outcome IN ('withheld', 'rejected')") // what the index is on
	}
	if f.Version > 0 {
		add("d.target_version = $%d", f.Version)
	}
	if f.Profile != uuid.Nil {
		add("d.profile_id = $%d", f.Profile)
	}
	if len(f.Against) > 0 {
		where = append(where, "d.against IS NOT NULL")
		add("d.against = ANY($%d)", pq.Array(f.Against))
	}
	if !f.From.IsZero() {
		add("d.position > position_before($%d)", f.From)
	}
	if !f.To.IsZero() {
		add("d.position <= position_before($%d)", f.To)
	}
	if f.Before > 0 {
		add("d.position < $%d", f.Before)
	}
	outcomes := f.storedOutcomes()
	if len(f.Outcomes) > 0 && slices.ContainsFunc(f.Outcomes, func(o domain.Outcome) bool { return !o.Final() }) {
		// Where the stored outcome may be overlaid by a claim or a pause, what is shown decides.
		add("CASE WHEN "+claimed+" THEN 'sending' WHEN "+held+" THEN 'held' ELSE d.outcome END = ANY($%d)", pq.Array(f.Outcomes))
	}
	if f.Limit <= 0 {
		f.Limit = 50
	}
	byOutcome := len(f.Outcomes) > 0 || f.Target+f.Reaction+f.Platform != ""
	from := `deliveries d`
	page := fmt.Sprintf(` ORDER BY d.position DESC LIMIT %d`, f.Limit)
	if byOutcome && f.Profile == uuid.Nil && f.Reason == "" && len(f.Against) == 0 {
		args = append(args, pq.Array(outcomes))
		where = append(where, "d.outcome = o.outcome")
		from = fmt.Sprintf(`unnest($%d::text[]) AS o (outcome) CROSS JOIN LATERAL (SELECT d.* FROM deliveries d WHERE %s%s) d`, len(args), strings.Join(where, ` AND `), page)
		where = nil
	} else if len(f.Outcomes) > 0 {
		add("d.outcome = ANY($%d)", pq.Array(outcomes))
	}
	query := `SELECT ` + columns + ` FROM ` + from
	if len(where) > 0 {
		query += ` WHERE ` + strings.Join(where, ` AND `)
	}
	return query + page, args
}

// storedOutcomes are the outcomes of the rows that may be shown with one of those that are asked for.
func (f Filter) storedOutcomes() []domain.Outcome {
	if len(f.Outcomes) == 0 {
		return stored
	}
	var out []domain.Outcome
	for _, o := range f.Outcomes {
		if o == domain.Sending || o == domain.Held {
			out = append(out, domain.Pending, domain.Retrying)
			continue
		}
		out = append(out, o)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// UnknownOutcome is a request of which nobody knows whether the platform took it.
type UnknownOutcome struct {
	Delivery Delivery
	Attempt  int
	Position int64 // of the event that says so
	Verdict  domain.Verdict
	At       time.Time // when the request left, or was claimed
	Worker   string
}

// Unknown lists the requests whose outcome nobody knows, newest first: those that were lost with their worker, and those
// that were not answered in time. open leaves out the deliveries that succeeded later.
func Unknown(ctx context.Context, q schema.Querier, before int64, open bool, limit int) ([]UnknownOutcome, error) {
	rows, err := q.QueryContext(ctx, `
		SELECT a.attempt, a.position, a.verdict, a.started_at, coalesce(a.worker, ''), `+columns+`
		FROM attempts a JOIN deliveries d ON d.delivery_id = a.delivery_id
		WHERE a.verdict IN ('lost', 'timeout') AND ($1 = 0 OR a.position < $1) AND (NOT $2 OR d.outcome <> 'succeeded')
		ORDER BY a.position DESC LIMIT $3`, before, open, limit)
	if err != nil {
		return nil, fmt.Errorf("unknown outcomes: %w", err)
	}
	defer rows.Close()
	out := []UnknownOutcome{}
	for rows.Next() {
		var u UnknownOutcome
		u.Delivery, err = scan(prefixed{rows, []any{&u.Attempt, &u.Position, &u.Verdict, &u.At, &u.Worker}})
		if err != nil {
			return nil, fmt.Errorf("unknown outcomes: %w", err)
		}
		out = append(out, u)
	}
	return out, rows.Err()
}

// prefixed is a row with columns before those of a delivery.
type prefixed struct {
	row    interface{ Scan(...any) error }
	before []any
}

// Scan reads both.
func (p prefixed) Scan(dest ...any) error { return p.row.Scan(append(p.before, dest...)...) }
