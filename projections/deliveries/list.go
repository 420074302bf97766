package deliveries

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

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
// Each page is read off an index from its newest end, so it costs the same in a ledger of any size; see query.
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
