package main

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func newAudit(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "The trail: deliveries, one delivery, one person, events, and the questions that compliance asks"}
	cmd.AddCommand(auditDeliveries(s), auditDelivery(s), auditProfile(s), auditEvents(s), auditOutcomes(s), auditUnknown(s), auditConsent(s))
	return cmd
}

func auditDeliveries(s *settings) *cobra.Command {
	var f deliveries.Filter
	var profile, from, to, against string
	var outcomes []string
	cmd := &cobra.Command{
		Use: "deliveries", Short: "Deliveries, newest first, filtered", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if profile != "" {
				if f.Profile, err = uuid.Parse(profile); err != nil {
					return usagef("--profile %q is no UUID", profile)
				}
			}
			if f.From, f.To, err = parsePeriod(from, to); err != nil {
				return err
			}
			switch against {
			case "":
			case "opted_out":
				f.Against = deliveries.AgainstOptOut
			case "any":
				f.Against = deliveries.AgainstAny
			default:
				return usagef("--against is %q; it is opted_out or any", against)
			}
			for _, o := range outcomes {
				if !slices.Contains(domain.Outcomes, domain.Outcome(o)) {
					return usagef("--outcome %q is none of %v", o, domain.Outcomes)
				}
				f.Outcomes = append(f.Outcomes, domain.Outcome(o))
			}
			return s.asking(cmd.Context(), func(ctx context.Context, st *store, db *sql.DB) error {
				list, err := deliveries.List(ctx, db, f)
				if err != nil {
					return err
				}
				t := table{columns: []string{"position", "delivery", "planned", "reaction", "target", "profile", "outcome", "attempts", "why"}}
				for _, d := range list {
					t.add(d, strconv.FormatInt(d.Position, 10), d.ID.String(), stamp(d.PlannedAt), d.Firing.Reaction, d.Firing.Target, person(d.Firing.ProfileID), string(d.Outcome), strconv.Itoa(d.Attempts), why(d))
				}
				return s.print(t)
			})
		},
	}
	cmd.Flags().StringVar(&f.Target, "target", "", "handle of the target")
	cmd.Flags().StringVar(&f.Reaction, "reaction", "", "handle of the reaction")
	cmd.Flags().StringVar(&f.Platform, "platform", "", "name of the platform")
	cmd.Flags().Int64Var(&f.Version, "version", 0, "version of the target")
	cmd.Flags().StringVar(&f.Reason, "reason", "", "why it was withheld or rejected, such as consent or unresolved")
	cmd.Flags().StringVar(&against, "against", "", "sent although the person's answer was against it: opted_out, or any (never asked, too)")
	cmd.Flags().Int64Var(&f.Before, "before", 0, "positions below: the last row's, for the next page")
	cmd.Flags().StringVar(&profile, "profile", "", "the person, by the CRM's id")
	cmd.Flags().StringSliceVar(&outcomes, "outcome", nil, "pending, retrying, held, succeeded, failed, withheld, rejected, cancelled or expired (repeatable)")
	cmd.Flags().StringVar(&from, "from", "", "planned at or after, RFC 3339")
	cmd.Flags().StringVar(&to, "to", "", "planned before, RFC 3339")
	cmd.Flags().IntVar(&f.Limit, "limit", 50, "how many")
	return cmd
}

func parseTime(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, usagef("--%s %q is no time such as 2026-11-23T04:05:06Z", flag, text)
	}
	return t, nil
}

// parsePeriod reads --from and --to.
func parsePeriod(from, to string) (f, t time.Time, err error) {
	if f, err = parseTime("from", from); err == nil {
		t, err = parseTime("to", to)
	}
	return f, t, err
}

func person(id uuid.UUID) string {
	if id == uuid.Nil {
		return "nobody"
	}
	return id.String()
}

// why gives the reason for a delivery's outcome in one sentence.
func why(d deliveries.Delivery) string {
	switch {
	case d.Detail != "":
		return d.Detail
	case d.Reason != "":
		return d.Reason
	case d.Consent != nil:
		return d.Consent.Explain()
	}
	return ""
}

func auditDelivery(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "delivery ID", Short: "One delivery from firing to outcome", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := uuid.Parse(args[0])
			if err != nil {
				return usagef("%q is no delivery id", args[0])
			}
			return s.asking(cmd.Context(), func(ctx context.Context, st *store, db *sql.DB) error {
				d, err := deliveries.Get(ctx, db, id)
				if err != nil {
					return err
				}
				return st.printDelivery(d)
			})
		},
	}
}

// printDelivery tells one delivery's story.
func (st *store) printDelivery(d deliveries.Delivery) error {
	if st.settings.output == "json" {
		return st.settings.printJSON(d)
	}
	_, err := fmt.Fprint(st.settings.env.stdout, story(d))
	return err
}

// story is one delivery for people, a line for each thing that happened.
func story(d deliveries.Delivery) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("delivery %s: %s", d.ID, strings.ToUpper(string(d.Outcome)))
	line("  fired     event %d: %s (%s) for %s, through %s version %d", d.Firing.FiringPosition, d.Firing.Reaction, d.Firing.Cause, person(d.Firing.ProfileID), d.Firing.Target, d.Firing.TargetVersion)
	if d.Consent != nil {
		line("  consent   %s: %s", d.Consent.Decision, d.Consent.Explain())
	}
	for _, u := range d.Unresolved {
		line("  missing   %s in the %s, line %d, column %d", u.Name, u.Part, u.Line, u.Column)
	}
	for _, a := range d.Trail {
		took, status := "", ""
		if a.DurationMS != nil {
			took = fmt.Sprintf(" after %.1f ms", *a.DurationMS)
		}
		if a.Status > 0 {
			status = fmt.Sprintf(" (HTTP %d from %s)", a.Status, a.Address)
		}
		line("  attempt %d event %d at %s: %s%s%s", a.Attempt, a.Position, stamp(a.StartedAt), a.Verdict, status, took)
		if a.Reason != "" {
			line("            %s", a.Reason)
		}
		if a.NextAttemptAt != nil {
			line("            next attempt not before %s", stampOf(a.NextAttemptAt))
		}
	}
	if len(d.Trail) == 0 || d.Outcome == domain.Withheld || d.Outcome == domain.Rejected {
		if reason := why(d); d.Outcome.Final() && reason != "" {
			line("  because   %s", reason)
		}
	}
	return b.String()
}

func auditProfile(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "profile ID", Short: "Everything the ledger holds about a person, in order", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := uuid.Parse(args[0])
			if err != nil {
				return usagef("%q is no profile id", args[0])
			}
			return s.asking(cmd.Context(), func(ctx context.Context, st *store, db *sql.DB) error {
				return st.printEvents(ctx, db, schema.Filter{Subject: id})
			})
		},
	}
}

func auditEvents(s *settings) *cobra.Command {
	var f schema.Filter
	var from, to, profile string
	cmd := &cobra.Command{
		Use: "events", Short: "Events of the ledger, filtered", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if f.From, f.To, err = parsePeriod(from, to); err != nil {
				return err
			}
			if profile != "" {
				if f.Subject, err = uuid.Parse(profile); err != nil {
					return usagef("--profile %q is no UUID", profile)
				}
			}
			if f.Limit < 1 {
				return usagef("--limit is %d; it is 1 or more", f.Limit)
			}
			return s.asking(cmd.Context(), func(ctx context.Context, st *store, db *sql.DB) error { return st.printEvents(ctx, db, f) })
		},
	}
	cmd.Flags().StringSliceVar(&f.Types, "type", nil, "event type (repeatable)")
	cmd.Flags().StringVar(&f.Stream, "stream", "", "stream, such as target-welcome")
	cmd.Flags().StringVar(&profile, "profile", "", "the person concerned, by the CRM's id: with --type sealed.revealed, who looked at their data")
	cmd.Flags().StringVar(&f.Target, "target", "", "handle of a target")
	cmd.Flags().StringVar(&f.Actor, "actor", "", "who recorded it: a token's name, or a part of the service")
	cmd.Flags().StringVar(&from, "from", "", "recorded at or after, RFC 3339")
	cmd.Flags().StringVar(&to, "to", "", "recorded before, RFC 3339")
	cmd.Flags().BoolVar(&f.Descending, "newest-first", false, "the newest first")
	cmd.Flags().Int64Var(&f.After, "after", 0, "positions above")
	cmd.Flags().Int64Var(&f.UpTo, "up-to", 0, "positions up to")
	cmd.Flags().IntVar(&f.Limit, "limit", 100, "how many")
	return cmd
}

func (st *store) printEvents(ctx context.Context, db *sql.DB, f schema.Filter) error {
	t := table{columns: []string{"position", "recorded", "type", "stream", "version", "state", "actor", "data"}}
	add := func(e domain.Recorded) {
		data := string(e.Data)
		if st.settings.output == "table" && len(data) > 100 {
			data = data[:100] + "…"
		}
		t.add(eventJSON(e), strconv.FormatInt(e.Position, 10), stamp(e.RecordedAt), e.Type, e.Stream, strconv.FormatInt(e.Version, 10), e.State, e.Actor, data)
	}
	if f.Limit > 0 {
		found, err := audit.Events(ctx, db, f)
		if err != nil {
			return err
		}
		for _, e := range found {
			add(e)
		}
		return st.settings.print(t)
	}
	for e, err := range schema.Events(ctx, db, f) {
		if err != nil {
			return err
		}
		add(e)
	}
	return st.settings.print(t)
}
