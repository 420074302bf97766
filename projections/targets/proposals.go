package targets

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Proposal is a change of a target that needs somebody else's approval.
type Proposal struct {
	Target     domain.Target // what it becomes
	Number     int64         // counts in the target's proposals, with gaps
	State      string        // open, approved or declined
	Stale      bool          // open, and the target has changed since: it can be declined only
	Reason     string
	Restores   int64 // the version that it would roll back to; 0 when it is none
	Base       int64 // the target's revision that it was decided on
	ProposedAt time.Time
	ProposedBy string
	DecidedAt  *time.Time
	DecidedBy  string
	Decision   string // why, in words
	Position   int64
}

// Proposals gives what is proposed for a target, or with "" for any, the newest first, before a position and at most so many;
// only what is still open when asked for.
func Proposals(ctx context.Context, q schema.Querier, handle string, open bool, before int64, limit int) ([]Proposal, error) {
	rows, err := q.QueryContext(ctx, `SELECT p.number, p.state, p.state = 'open' AND p.base <> coalesce(t.revision, 0), p.config, coalesce(p.reason, ''), coalesce(p.restores, 0),
		p.base, p.proposed_at, p.proposed_by, p.decided_at, coalesce(p.decided_by, ''), coalesce(p.decision, ''), p.position
		FROM proposals p LEFT JOIN targets t USING (handle)
		WHERE ($1 = '' OR p.handle = $1) AND (NOT $2 OR p.state = 'open') AND ($3 = 0 OR p.position < $3) ORDER BY p.position DESC LIMIT $4`, handle, open, before, limit)
	if err != nil {
		return nil, fmt.Errorf("proposals: %w", err)
	}
	defer rows.Close()
	out := []Proposal{}
	for rows.Next() {
		var p Proposal
		var config []byte
		if err := rows.Scan(&p.Number, &p.State, &p.Stale, &config, &p.Reason, &p.Restores, &p.Base, &p.ProposedAt, &p.ProposedBy, &p.DecidedAt, &p.DecidedBy, &p.Decision, &p.Position); err != nil {
			return nil, fmt.Errorf("proposals: %w", err)
		}
		if err := json.Unmarshal(config, &p.Target); err != nil {
			return nil, fmt.Errorf("proposal at %d: %w", p.Position, err)
		}
		out = append(out, p)
	}
	return out, rows.Err()
}
