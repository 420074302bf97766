package projections_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/projections/promptness"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// plannedDeliveries is how many a plan is judged on: enough that PostgreSQL would not go through all for want of size.
const plannedDeliveries = 20_000

// manyEvents are a trail over sixty days: forty targets of which the first have most deliveries, one that had fifty in the first
// days, a reaction that is one in a thousand through a target that others share; outcomes and reasons some of which are rare.
const manyEvents = `
INSERT INTO events (position, id, type, stream, version, subject, channel, purpose, state, target, delivery_id, occurred_at, recorded_at, actor, source, data, leaf)
SELECT row_number() OVER (ORDER BY i, k), md5(k || 'e' || i)::uuid, CASE k WHEN 0 THEN CASE WHEN o IN ('withheld', 'rejected') THEN 'delivery.' || o ELSE 'delivery.planned' END WHEN 1 THEN 'delivery.attempted' ELSE 'consent.changed' END,
       CASE WHEN k = 2 THEN 'profile-' || p || '-' || i ELSE 'delivery-' || d END, CASE WHEN k = 2 THEN 1 ELSE k + 1 END, p, CASE WHEN k = 2 THEN 'email' END, CASE WHEN k = 2 THEN 'promo' END,
       CASE WHEN k = 2 THEN 'opted_out' WHEN k = 1 OR o IN ('withheld', 'rejected') THEN o ELSE 'pending' END, CASE WHEN k < 2 THEN t END, CASE WHEN k < 2 THEN d END, CASE WHEN k = 2 THEN at END, at,
       (ARRAY['planner', 'dispatcher', 'crm'])[k + 1], '/test',
       CASE k WHEN 0 THEN json_build_object('delivery_id', d, 'firing_id', d, 'firing_position', 1, 'reaction', r, 'cause', 'reaction', 'target', t, 'target_version', version, 'platform', platform, 'profile_id', p,
                          'reason', CASE WHEN o = 'withheld' THEN CASE WHEN i < 300 THEN 'erased' ELSE 'consent' END WHEN o = 'rejected' THEN 'unresolved' END, 'body_sha256', md5(d::text), 'max_attempts', 8,
                          'consent', json_build_object('decision', CASE WHEN i % 100 = 7 THEN 'flagged' ELSE 'allowed' END, 'reason', CASE WHEN i % 100 <> 7 THEN 'opted_in' WHEN i < 1000 THEN 'opted_out' ELSE 'never_asked' END))
              WHEN 1 THEN json_build_object('delivery_id', d, 'target', t, 'attempt', 1, 'started_at', at, 'duration_ms', 5, 'status', 202, 'verdict', CASE WHEN i % 500 = 5 THEN 'timeout' ELSE 'accepted' END, 'outcome', o)
              ELSE json_build_object('profile_id', p, 'decided_at', at, 'decided_by', CASE WHEN i % 97 = 0 THEN 'import' ELSE 'customer' END, 'method', 'pos', 'changes', json_build_array(json_build_object('channel', 'email', 'purpose', 'promo', 'status', 'opted_out'))) END,
       sha256('')
FROM (SELECT i, '2026-01-01Z'::timestamptz + i * interval '4 minutes' AS at, md5('d' || i)::uuid AS d, md5('p' || i % 4000)::uuid AS p, 1 + i / 10000 AS version,
             CASE WHEN i < 500 AND i % 10 = 9 THEN 'rare' WHEN i % 5 = 0 THEN 'shared' ELSE 't' || floor(40 * power(i * 7919 % 10007 / 10007.0, 3)) END AS t,
             CASE WHEN i % 1000 = 0 THEN 'seldom' ELSE 'r' || floor(40 * power(i * 7919 % 10007 / 10007.0, 3)) END AS r, CASE WHEN i % 5 = 0 THEN 'webhook' ELSE 'klaviyo' END AS platform,
             CASE WHEN i > 19950 THEN 'pending' WHEN i % 33 = 3 THEN 'withheld' WHEN i % 100 = 4 THEN 'rejected' WHEN i % 50 = 5 THEN 'failed' ELSE 'succeeded' END AS o
      FROM generate_series(1, $1) i) x, generate_series(0, 2) k
WHERE k = 0 OR k = 1 AND o IN ('succeeded', 'failed') OR k = 2 AND i % 10 = 0
ORDER BY 1`

// planned reports what each query goes through.
type planned struct {
	schema.Querier
	t       *testing.T
	what    string
	visited int // rows of big tables that the question went through, those that it left out included
}

// big are the tables that grow with the ledger; one of them is never gone through.
func big(table string) bool {
	switch table {
	case "deliveries", "attempts", "turns", "consent_changes", "optouts":
		return true
	}
	return strings.HasPrefix(table, "events_")
}

type planNode struct {
	Type     string     `json:"Node Type"`
	Relation string     `json:"Relation Name"`
	Rows     float64    `json:"Actual Rows"`
	Removed  float64    `json:"Rows Removed by Filter"`
	Loops    float64    `json:"Actual Loops"`
	Plans    []planNode `json:"Plans"`
}

// QueryContext implements schema.Querier.
func (p *planned) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	var text []byte
	if err := p.Querier.QueryRowContext(ctx, "EXPLAIN (ANALYZE, FORMAT JSON) "+query, args...).Scan(&text); err != nil {
		return nil, err
	}
	var plans []struct{ Plan planNode }
	if err := json.Unmarshal(text, &plans); err != nil {
		return nil, err
	}
	var walk func(planNode)
	walk = func(n planNode) {
		if big(n.Relation) {
			p.visited += int((n.Rows + n.Removed) * n.Loops)
			if n.Type == "Seq Scan" && n.Loops > 0 {
				p.t.Errorf("%s: a sequential scan of %s\n%s\n%s", p.what, n.Relation, query, text)
			}
		}
		for _, child := range n.Plans {
			walk(child)
		}
	}
	walk(plans[0].Plan)
	return p.Querier.QueryContext(ctx, query, args...)
}

// The first page of every question, with every combination of filters that a page offers, is read off indexes, and little more is
// read than is shown.
func TestNoQuestionGoesThroughALargeTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, all...)
	db := w.ledger.DB()
	fillPlans(t, w)
	var ids, people []uuid.UUID
	var first, last time.Time
	if err := db.QueryRowContext(t.Context(), `SELECT min(planned_at), max(planned_at) FROM deliveries`).Scan(&first, &last); err != nil {
		t.Fatal(err)
	}
	newest, err := deliveries.List(t.Context(), db, deliveries.Filter{Limit: 3})
	if err != nil || len(newest) != 3 {
		t.Fatalf("%d deliveries, %v", len(newest), err)
	}
	for _, d := range newest {
		ids, people = append(ids, d.ID), append(people, d.Firing.ProfileID)
	}
	middle := first.Add(last.Sub(first) / 2)
	ask := func(most int, what string, question func(q schema.Querier) error) {
		t.Helper()
		p := &planned{Querier: db, t: t, what: what}
		if err := question(p); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if p.visited > most {
			t.Errorf("%s: went through %d rows; %d should do", what, p.visited, most)
		}
	}
	list := func(most int, f deliveries.Filter) {
		t.Helper()
		ask(most, fmt.Sprintf("deliveries %+v", f), func(q schema.Querier) error {
			_, err := deliveries.List(t.Context(), q, f)
			return err
		})
	}

	for _, id := range ids {
		ask(100, "a delivery", func(q schema.Querier) error {
			_, err := deliveries.Get(t.Context(), q, id)
			return err
		})
	}
	for _, person := range people {
		list(100, deliveries.Filter{Profile: person})
		list(100, deliveries.Filter{Profile: person, Target: "t0", Outcomes: []domain.Outcome{domain.Failed}})
		ask(200, "everything about a person", func(q schema.Querier) error {
			_, err := audit.Events(t.Context(), q, schema.Filter{Subject: person, Limit: 50})
			return err
		})
	}
	for _, target := range []string{"", "t0", "rare"} {
		for _, reaction := range []string{"", "r0", "seldom"} {
			for _, platform := range []string{"", "webhook"} {
				for _, outcomes := range [][]domain.Outcome{nil, {domain.Succeeded}, {domain.Failed}, {domain.Withheld, domain.Rejected}, {domain.Cancelled}, {domain.Pending}} {
					f := deliveries.Filter{Target: target, Reaction: reaction, Platform: platform, Outcomes: outcomes}
					list(2000, f)
					f.Version = 1
					list(2000, f)
					f.From, f.To, f.Version = middle, middle.Add(24*time.Hour), 0
					list(2000, f)
				}
			}
		}
		for _, reason := range []string{"consent", "erased", "unresolved"} {
			list(1000, deliveries.Filter{Target: target, Reason: reason, Outcomes: []domain.Outcome{domain.Withheld}})
		}
		for _, against := range [][]string{deliveries.AgainstOptOut, deliveries.AgainstAny} {
			list(1000, deliveries.Filter{Target: target, Against: against})
		}
	}
	ask(200, "unknown outcomes", func(q schema.Querier) error {
		_, err := deliveries.Unknown(t.Context(), q, 0, true, 50)
		return err
	})
	for _, f := range []schema.Filter{
		{Types: []string{"delivery.planned"}},
		{Types: []string{"consent.changed"}},
		{Target: "rare"},
		{Actor: "crm"},
		{Target: "t0", Types: []string{"delivery.attempted"}},
		{Types: []string{"delivery.planned"}, Actor: "crm"},
		{Types: []string{"consent.changed"}, Target: "t0"},
		{Actor: "nobody"},
	} {
		f.Limit, f.Descending = 50, true
		ask(5000, fmt.Sprintf("events %+v", f), func(q schema.Querier) error {
			_, err := audit.Events(t.Context(), q, f)
			return err
		})
	}
	for _, k := range []audit.ConsentKind{{}, {Status: domain.OptedOut}, {DecidedBy: "import", Method: "pos"}, {DecidedBy: "staff"}} {
		ask(300, fmt.Sprintf("consent changes %+v", k), func(q schema.Querier) error {
			_, err := audit.ConsentChanges(t.Context(), q, audit.ConsentFilter{Kind: k, Limit: 50})
			return err
		})
	}
	for _, f := range []promptness.Filter{{Limit: 50}, {Limit: 50, Profile: people[0]}, {Limit: 50, From: middle, To: middle.Add(24 * time.Hour)}, {Limit: 50, Open: promptness.AnyPlatform}} {
		ask(1500, fmt.Sprintf("opt-outs %+v", f), func(q schema.Querier) error {
			for _, err := range promptness.OptOuts(t.Context(), q, domain.DefaultDeadline(), last, f) {
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	for _, f := range []deliveries.CountFilter{{}, {Reaction: "r0"}, {Target: "t0", From: middle}, {From: middle.Add(time.Minute), To: last.Add(-time.Hour)}} {
		for _, by := range []deliveries.By{deliveries.Together, deliveries.ByTarget, deliveries.ByVersion, deliveries.ByDay} {
			ask(0, fmt.Sprintf("counts %+v by %s", f, by), func(q schema.Querier) error {
				_, err := deliveries.Counts(t.Context(), q, f, by)
				return err
			})
		}
	}
}

// fillPlans copies events into a ledger past append(), and builds the projections from them.
func fillPlans(t *testing.T, w world) {
	t.Helper()
	tx, err := w.ledger.DB().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	for _, s := range []string{`SET LOCAL ROLE NONE`, strings.Replace(manyEvents, "$1", strconv.Itoa(plannedDeliveries), 1), `ANALYZE events`} {
		if _, err := tx.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	for _, d := range []projections.Definition{deliveries.Definition, audit.Definition, promptness.Definition} {
		if err := w.engine.Rebuild(t.Context(), d, projections.RebuildOptions{Slice: 20_000}); err != nil {
			t.Fatal(err)
		}
	}
}
