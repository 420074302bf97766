package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func newBenchQuery(s *settings) *cobra.Command {
	var b queryBench
	cmd := &cobra.Command{
		Use: "query", Short: "The audit trail's look-ups and lists on a ledger of many deliveries, which is kept under --data-dir for the next run when that is given", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if b.deliveries < 1000 || b.times < 10 {
				return usagef("--deliveries is at least 1000 and --times at least 10")
			}
			if cmd.Flags().Changed("data-dir") { // an earlier run's ledger serves again
				return s.serving(cmd.Context(), func(ctx context.Context, st *store) error { return st.benchQuery(ctx, b) })
			}
			return s.benchmark(cmd, func(ctx context.Context, st *store) error { return st.benchQuery(ctx, b) })
		},
	}
	cmd.Flags().IntVar(&b.deliveries, "deliveries", 10_000_000, "how many; each is two events, a planned one and its attempt")
	cmd.Flags().BoolVar(&b.plans, "plans", false, "print how PostgreSQL answered each question, and what it read for it")
	cmd.Flags().IntVar(&b.times, "times", 300, "how often each question is asked")
	return cmd
}

type queryBench struct {
	deliveries, times int
	plans             bool
}

// explained prints the plan of each query that it passes on, while it has somewhere to print it to.
type explained struct {
	schema.Querier
	to io.Writer
}

// QueryContext implements schema.Querier.
func (e *explained) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if e.to == nil {
		return e.Querier.QueryContext(ctx, query, args...) //nolint:sqlclosecheck // the caller's to close
	}
	rows, err := e.Querier.QueryContext(ctx, "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) "+query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return nil, err
		}
		fmt.Fprintln(e.to, "  "+line)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return e.Querier.QueryContext(ctx, query, args...) //nolint:sqlclosecheck // the caller's to close
}

// benchQuery asks what people ask.
func (st *store) benchQuery(ctx context.Context, b queryBench) error {
	if err := st.fillForQueries(ctx, b.deliveries); err != nil {
		return err
	}
	db := &explained{Querier: st.db}
	questions, err := questionsOf(ctx, db, b)
	if err != nil {
		return err
	}
	if b.plans {
		db.to = st.settings.env.stdout
		for _, question := range questions {
			fmt.Fprintf(db.to, "%s\n", question.what)
			if _, err := question.answer(ctx); err != nil {
				return fmt.Errorf("%s: %w", question.what, err)
			}
		}
		db.to = nil
	}
	out := tabwriter.NewWriter(st.settings.env.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintf(out, "%d DELIVERIES\tROWS\tP50\tP99\tTIMES LOOK-UP\tMEANT\tHOLDS\n", b.deliveries)
	held, baseline := true, time.Duration(0)
	for _, question := range questions {
		meant := 100 * time.Millisecond
		if question.keyed {
			meant = 20 * time.Millisecond
		}
		all := make([]time.Duration, b.times)
		rows := 0
		for i := range all {
			start := time.Now()
			n, err := question.answer(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", question.what, err)
			}
			all[i], rows = time.Since(start), n
		}
		slices.Sort(all)
		p50, p99 := all[len(all)/2], all[len(all)*99/100]
		if baseline == 0 {
			baseline = p50
		}
		held = held && p99 < meant
		fmt.Fprintf(out, "%s\t%d\t%s\t%s\t%.1f\t%s\t%v\n", question.what, rows, p50.Round(10*time.Microsecond), p99.Round(10*time.Microsecond), float64(p50)/float64(baseline), meant, p99 < meant)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if !held {
		return errUntrue
	}
	return nil
}

// benchQuestion is something that people ask.
type benchQuestion struct {
	what   string
	keyed  bool // it is about one delivery or one person
	answer func(context.Context) (rows int, err error)
}

// questionsOf are what pages, commands and routes ask, with every combination of filters that costs something of its own. The first
// is the baseline.
func questionsOf(ctx context.Context, db schema.Querier, b queryBench) ([]benchQuestion, error) {
	ids, people := make([]uuid.UUID, b.times), make([]uuid.UUID, b.times)
	var first, last time.Time
	head, err := schema.Head(ctx, db)
	if err != nil {
		return nil, err
	}
	if err := db.QueryRowContext(ctx, `SELECT (SELECT planned_at FROM deliveries ORDER BY position LIMIT 1), (SELECT planned_at FROM deliveries ORDER BY position DESC LIMIT 1)`).Scan(&first, &last); err != nil {
		return nil, err
	}
	for i := range ids {
		if err := db.QueryRowContext(ctx, `SELECT delivery_id, profile_id FROM deliveries WHERE position >= $1 ORDER BY position LIMIT 1`, rand.Int64N(head-2000)).Scan(&ids[i], &people[i]); err != nil { //nolint:gosec // not a secret
			return nil, err
		}
	}
	middle, next := first.Add(last.Sub(first)/2), 0
	turn := func(all []uuid.UUID) uuid.UUID { next++; return all[next%len(all)] }
	keyed := func(what string, answer func(context.Context) (int, error)) benchQuestion {
		return benchQuestion{what, true, answer}
	}
	list := func(what string, f deliveries.Filter) benchQuestion {
		return benchQuestion{what, false, func(ctx context.Context) (int, error) {
			found, err := deliveries.List(ctx, db, f)
			return len(found), err
		}}
	}
	events := func(what string, f schema.Filter) benchQuestion {
		f.Descending, f.Limit = true, 50
		return benchQuestion{what, false, func(ctx context.Context) (int, error) {
			found, err := audit.Events(ctx, db, f)
			return len(found), err
		}}
	}
	counts := func(what string, f deliveries.CountFilter, by deliveries.By) benchQuestion {
		return benchQuestion{what, false, func(ctx context.Context) (int, error) {
			found, err := deliveries.Counts(ctx, db, f, by)
			return len(found), err
		}}
	}
	changes := func(what string, k audit.ConsentKind) benchQuestion {
		return benchQuestion{what, false, func(ctx context.Context) (int, error) {
			found, err := audit.ConsentChanges(ctx, db, audit.ConsentFilter{Kind: k, Limit: 50})
			return len(found), err
		}}
	}
	of := func(outcomes ...domain.Outcome) []domain.Outcome { return outcomes }
	hour := func(f deliveries.Filter) deliveries.Filter {
		f.From, f.To = middle, middle.Add(time.Hour)
		return f
	}
	return []benchQuestion{
		keyed("one row by its primary key", func(ctx context.Context) (n int, err error) {
			return 1, db.QueryRowContext(ctx, `SELECT attempts FROM deliveries WHERE delivery_id = $1`, turn(ids)).Scan(&n)
		}),
		keyed("a delivery with its attempts", func(ctx context.Context) (int, error) {
			_, err := deliveries.Get(ctx, db, turn(ids))
			return 1, err
		}),
		keyed("a delivery's events", func(ctx context.Context) (int, error) {
			found, err := audit.Events(ctx, db, schema.Filter{DeliveryID: turn(ids), Limit: 50})
			return len(found), err
		}),
		keyed("a person's deliveries", func(ctx context.Context) (int, error) {
			found, err := deliveries.List(ctx, db, deliveries.Filter{Profile: turn(people)})
			return len(found), err
		}),
		keyed("everything about a person, in order", func(ctx context.Context) (int, error) {
			found, err := audit.Events(ctx, db, schema.Filter{Subject: turn(people), Limit: 50})
			return len(found), err
		}),
		keyed("a person's consent", func(ctx context.Context) (int, error) {
			found, err := consent.Read(ctx, db, turn(people), consent.AsOf{})
			return len(found.Held()), err
		}),
		list("deliveries, the newest", deliveries.Filter{}),
		list("succeeded", deliveries.Filter{Outcomes: of(domain.Succeeded)}),
		list("failed", deliveries.Filter{Outcomes: of(domain.Failed)}),
		list("withheld or rejected: which firings became no delivery", deliveries.Filter{Outcomes: of(domain.Withheld, domain.Rejected)}),
		list("withheld for a rare reason, long ago", deliveries.Filter{Reason: "erased", Outcomes: of(domain.Withheld)}),
		list("withheld for consent, of a target", deliveries.Filter{Reason: "consent", Target: "target-30"}),
		list("sent to people who were opted out", deliveries.Filter{Against: deliveries.AgainstOptOut}),
		list("sent to people who were opted out, of a target", deliveries.Filter{Against: deliveries.AgainstOptOut, Target: "target-30"}),
		list("being sent or waiting", deliveries.Filter{Outcomes: of(domain.Pending, domain.Sending, domain.Held, domain.Retrying)}),
		list("of a target", deliveries.Filter{Target: "target-3"}),
		list("of a target that had a hundred, long ago", deliveries.Filter{Target: trailRare}),
		list("of a target, failed", deliveries.Filter{Target: "target-30", Outcomes: of(domain.Failed)}),
		list("of a target's version", deliveries.Filter{Target: "target-3", Version: 1}),
		list("of a target, in an hour of the middle", hour(deliveries.Filter{Target: "target-3"})),
		list("of a reaction", deliveries.Filter{Reaction: "reaction-7"}),
		list("of a reaction, cancelled: none", deliveries.Filter{Reaction: "reaction-7", Outcomes: of(domain.Cancelled)}),
		list("of a reaction that is one in ten thousand", deliveries.Filter{Reaction: trailSeldom}),
		list("of it, through the target that many share", deliveries.Filter{Reaction: trailSeldom, Target: trailShared}),
		list("of it, failed", deliveries.Filter{Reaction: trailSeldom, Outcomes: of(domain.Failed)}),
		list("of a reaction through a target that it never fires", deliveries.Filter{Reaction: "reaction-7", Target: "target-3"}),
		list("of a platform", deliveries.Filter{Platform: "yotpo"}),
		list("of a platform, failed, in an hour of the middle", hour(deliveries.Filter{Platform: "yotpo", Outcomes: of(domain.Failed)})),
		list("of a platform, expired: none", deliveries.Filter{Platform: "yotpo", Outcomes: of(domain.Expired)}),
		{"requests with an unknown outcome", false, func(ctx context.Context) (int, error) {
			found, err := deliveries.Unknown(ctx, db, 0, true, 50)
			return len(found), err
		}},
		events("events of a frequent type", schema.Filter{Types: []string{"delivery.planned"}}),
		events("events of a rare target", schema.Filter{Target: trailRare}),
		events("events of a type and an actor that never meet", schema.Filter{Types: []string{"delivery.planned"}, Actor: "crm"}),
		changes("opt-outs", audit.ConsentKind{Status: domain.OptedOut}),
		changes("consent changes by source and method", audit.ConsentKind{DecidedBy: "import", Method: "csv"}),
		counts("outcomes of everything in all time", deliveries.CountFilter{}, deliveries.Together),
		counts("outcomes by target in all time", deliveries.CountFilter{}, deliveries.ByTarget),
		counts("outcomes of a reaction in all time", deliveries.CountFilter{Reaction: "reaction-7"}, deliveries.Together),
		counts("outcomes of a reaction in a month, to the minute", deliveries.CountFilter{Reaction: "reaction-7", From: middle.Add(7 * time.Minute), To: middle.Add(30 * 24 * time.Hour)}, deliveries.Together),
		counts("outcomes of a target, version by version", deliveries.CountFilter{Target: "target-3"}, deliveries.ByVersion),
		counts("the last day by quarter of an hour", deliveries.CountFilter{From: last.Add(-24 * time.Hour)}, deliveries.ByPeriod),
	}, nil
}
