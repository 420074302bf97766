package main

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
)

func auditOutcomes(s *settings) *cobra.Command {
	var f deliveries.CountFilter
	var by, from, to string
	cmd := &cobra.Command{
		Use: "outcomes", Short: "How many deliveries, by outcome: of a reaction, a target, a period", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if f.From, f.To, err = parsePeriod(from, to); err != nil {
				return err
			}
			switch deliveries.By(by) {
			case deliveries.Together, deliveries.ByReaction, deliveries.ByTarget, deliveries.ByVersion, deliveries.ByPeriod, deliveries.ByDay:
			default:
				return usagef("--by is %q; it is none, reaction, target, version, period or day", by)
			}
			return s.asking(cmd.Context(), func(ctx context.Context, st *store, db *sql.DB) error {
				counts, err := deliveries.Counts(ctx, db, f, deliveries.By(by))
				if err != nil {
					return err
				}
				t := table{columns: []string{"what", "total", "succeeded", "failed", "withheld", "rejected", "cancelled", "expired", "pending", "retrying"}}
				number := func(n int64) string { return strconv.FormatInt(n, 10) }
				for _, c := range counts {
					what := cmp.Or(c.Reaction+c.Target+stamp(c.Bucket), "all")
					if c.Version > 0 {
						what += " version " + number(c.Version)
					}
					o := c.Outcomes
					t.add(c, what, number(o.Total()), number(o.Succeeded), number(o.Failed), number(o.Withheld), number(o.Rejected), number(o.Cancelled), number(o.Expired), number(o.Pending), number(o.Retrying))
				}
				return s.print(t)
			})
		},
	}
	cmd.Flags().StringVar(&f.Reaction, "reaction", "", "handle of the reaction")
	cmd.Flags().StringVar(&f.Target, "target", "", "handle of the target")
	cmd.Flags().Int64Var(&f.Version, "version", 0, "version of the target")
	cmd.Flags().StringVar(&f.Platform, "platform", "", "name of the platform")
	cmd.Flags().StringVar(&by, "by", "none", "what to count apart: none, reaction, target, version, period (quarters of an hour) or day (in UTC)")
	cmd.Flags().StringVar(&from, "from", "", "planned at or after, RFC 3339; widened to a whole quarter of an hour")
	cmd.Flags().StringVar(&to, "to", "", "planned before, RFC 3339; widened to a whole quarter of an hour")
	return cmd
}

func auditUnknown(s *settings) *cobra.Command {
	var open bool
	var limit int
	var before int64
	cmd := &cobra.Command{
		Use: "unknown", Short: "Requests of which nobody knows whether the platform took them: lost with their worker, or not answered in time", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.asking(cmd.Context(), func(ctx context.Context, st *store, db *sql.DB) error {
				list, err := deliveries.Unknown(ctx, db, before, open, limit)
				if err != nil {
					return err
				}
				t := table{columns: []string{"position", "delivery", "attempt", "verdict", "at", "target", "profile", "outcome now", "worker"}}
				for _, u := range list {
					d := u.Delivery
					t.add(u, strconv.FormatInt(u.Position, 10), d.ID.String(), strconv.Itoa(u.Attempt), string(u.Verdict), stamp(u.At), d.Firing.Target, person(d.Firing.ProfileID), string(d.Outcome), u.Worker)
				}
				return s.print(t)
			})
		},
	}
	cmd.Flags().BoolVar(&open, "open", false, "leave out those whose delivery succeeded later")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many")
	cmd.Flags().Int64Var(&before, "before", 0, "positions below: the last row's, for the next page")
	return cmd
}

func auditConsent(s *settings) *cobra.Command {
	var f audit.ConsentFilter
	var channel, purpose, status, from, to string
	cmd := &cobra.Command{
		Use: "consent-changes", Short: "Consent changes of a kind: what was answered, by whom, how, from where", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if f.From, f.To, err = parsePeriod(from, to); err != nil {
				return err
			}
			if channel != "" && !slices.Contains(domain.Channels, domain.Channel(channel)) {
				return usagef("--channel %q is none of %v", channel, domain.Channels)
			}
			if purpose != "" && !slices.Contains(domain.Purposes, domain.Purpose(purpose)) {
				return usagef("--purpose %q is none of %v", purpose, domain.Purposes)
			}
			if answers := []domain.ConsentStatus{domain.OptedIn, domain.OptedOut, domain.Unknown}; status != "" && !slices.Contains(answers, domain.ConsentStatus(status)) {
				return usagef("--status %q is none of %v", status, answers)
			}
			f.Kind.Channel, f.Kind.Purpose, f.Kind.Status = domain.Channel(channel), domain.Purpose(purpose), domain.ConsentStatus(status)
			return s.asking(cmd.Context(), func(ctx context.Context, st *store, db *sql.DB) error {
				list, err := audit.ConsentChanges(ctx, db, f)
				if err != nil {
					return err
				}
				t := table{columns: []string{"position", "profile", "channel", "purpose", "status", "decided", "by", "method", "source", "recorded", "actor"}}
				for _, c := range list {
					t.add(c, strconv.FormatInt(c.Position, 10), c.ProfileID.String(), string(c.Channel), string(c.Purpose), string(c.Status), stamp(c.DecidedAt), c.DecidedBy, c.Method, c.Source, stamp(c.RecordedAt), c.Actor)
				}
				return s.print(t)
			})
		},
	}
	cmd.Flags().StringVar(&channel, "channel", "", "email, sms, push, phone or post")
	cmd.Flags().StringVar(&purpose, "purpose", "", "all, promo, discover, benefits, reminders, account, bookings, feedback, location or service")
	cmd.Flags().StringVar(&status, "status", "", "opted_in, opted_out or unknown")
	cmd.Flags().StringVar(&f.Kind.DecidedBy, "decided-by", "", "customer, staff, admin, import or platform")
	cmd.Flags().StringVar(&f.Kind.Method, "method", "", "such as preference_centre, pos or sms_keyword")
	cmd.Flags().StringVar(&f.Kind.Source, "source", "", "of the event, with {id} for each id in it")
	cmd.Flags().StringVar(&from, "from", "", "recorded at or after, RFC 3339")
	cmd.Flags().StringVar(&to, "to", "", "recorded before, RFC 3339")
	cmd.Flags().IntVar(&f.Limit, "limit", 100, "how many")
	cmd.Flags().Int64Var(&f.Before.Position, "before", 0, "positions below: the last row's, for the next page")
	return cmd
}
