package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/promptness"
)

// consentPromptness proves how soon opt-outs are honoured.
func consentPromptness(s *settings) *cobra.Command {
	var profile, from, to string
	var f promptness.Filter
	var each, check bool
	cmd := &cobra.Command{
		Use: "promptness", Short: "How soon opt-outs are honoured: recorded, nothing sent any more, confirmed by each platform",
		Long: "Against the ledger's policy (`consent policy`), which is the five business days of Australia's Spam Act until it is changed. Without --each it sums them up.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if profile != "" {
				if f.Profile, err = uuid.Parse(profile); err != nil {
					return usagef("--profile %q is no UUID", profile)
				}
			}
			if f.From, f.To, err = parsePeriod(from, to); err != nil {
				return err
			}
			if f.Open != "" && f.Open != promptness.AnyPlatform && !slices.Contains(domain.Platforms, f.Open) {
				return usagef("--unconfirmed %q is none of %s, %s", f.Open, promptness.AnyPlatform, strings.Join(domain.Platforms, ", "))
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				policy, err := consent.Policy(ctx, st.db)
				if err != nil {
					return err
				}
				now := time.Now()
				if each || f.Open != "" {
					t := table{columns: []string{"profile", "channel", "purpose", "decided", "recorded", "last_sent", "sent_after", "platforms", "deadline", "effective", "state", "position"}}
					for o, err := range promptness.OptOuts(ctx, st.db, policy.Promptness, now, f) {
						if err != nil {
							return err
						}
						t.add(o, o.ProfileID.String(), string(o.Channel), string(o.Purpose), stamp(o.DecidedAt), stamp(o.RecordedAt), stampOf(o.LastSentAt),
							strconv.Itoa(o.SentAfter), confirmations(o), stamp(o.Deadline), stampOf(o.EffectiveAt), string(o.State), strconv.FormatInt(o.Position, 10))
					}
					return s.print(t)
				}
				r, err := promptness.Sum(ctx, st.db, policy.Promptness, now, promptness.Filter{Profile: f.Profile, From: f.From, To: f.To})
				if err != nil {
					return err
				}
				if err := s.printPromptness(r); err != nil {
					return err
				}
				if check && r.States[promptness.Late]+r.States[promptness.Overdue] > 0 {
					return errUntrue
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&each, "each", false, "one row for each opt-out, newest first")
	cmd.Flags().BoolVar(&check, "check", false, "exit code 3 when any was late or is overdue")
	cmd.Flags().StringVar(&profile, "profile", "", "of one person")
	cmd.Flags().StringVar(&from, "from", "", "decided at or after, RFC 3339")
	cmd.Flags().StringVar(&to, "to", "", "decided before, RFC 3339")
	cmd.Flags().StringVar(&f.Open, "unconfirmed", "", "one row for each opt-out that this platform, or any, was asked to honour and has not confirmed")
	cmd.Flags().Int64Var(&f.Before, "before", 0, "positions below: the last row's, for the next page")
	cmd.Flags().IntVar(&f.Limit, "limit", 100, "how many with --each; 0 is all")
	return cmd
}

func confirmations(o promptness.OptOut) string {
	text := ""
	for _, p := range o.Platforms {
		if text != "" {
			text += "; "
		}
		if p.ConfirmedAt != nil {
			text += p.Platform + " " + stampOf(p.ConfirmedAt)
		} else {
			text += p.Platform + " not yet"
		}
	}
	return text
}

func (s *settings) printPromptness(r promptness.Report) error {
	if s.output == "json" {
		return s.printJSON(r)
	}
	t := table{columns: []string{"step", "opt_outs", "median", "p95", "longest"}}
	add := func(step string, m promptness.Measure) {
		d := func(seconds float64) string {
			return time.Duration(seconds * float64(time.Second)).Round(time.Millisecond).String()
		}
		t.add(nil, step, strconv.Itoa(m.Count), d(m.Median), d(m.P95), d(m.Max))
	}
	add("decided to recorded", r.Recorded)
	add("decided to last sent", r.LastSent)
	for _, platform := range slices.Sorted(maps.Keys(r.Platforms)) {
		add("decided to confirmed by "+platform, r.Platforms[platform])
	}
	if err := s.print(t); err != nil || s.output != "table" {
		return err
	}
	fmt.Fprintf(s.env.stdout, "%d opt-outs: %d honoured in time, %d open, %d late, %d overdue. %d requests left after their opt-out was recorded.\n",
		r.OptOuts, r.States[promptness.Honoured], r.States[promptness.Open], r.States[promptness.Late], r.States[promptness.Overdue], r.SentAfter)
	for _, platform := range slices.Sorted(maps.Keys(r.Waiting)) {
		fmt.Fprintf(s.env.stdout, "%s has not confirmed %d.\n", platform, r.Waiting[platform])
	}
	return nil
}
