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
	"github.com/spf13/pflag"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/dispatcher"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
)

func newDeliveries(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "deliveries", Short: "What people do to deliveries: retry, cancel, replay many"}
	cmd.AddCommand(deliveriesRetry(s), deliveriesCancel(s), deliveriesReplay(s))
	return cmd
}

func (st *store) controls() dispatcher.Controls {
	return dispatcher.Controls{DB: st.db, Ledger: st.ledger, Vault: st.vault, Now: time.Now}
}

func deliveryID(text string) (uuid.UUID, error) {
	id, err := uuid.Parse(text)
	if err != nil {
		return id, usagef("%q is no delivery id", text)
	}
	return id, nil
}

func deliveriesRetry(s *settings) *cobra.Command {
	again := dispatcher.Again{Actor: actor()}
	cmd := &cobra.Command{
		Use: "retry ID", Short: "Try a delivery again that has ended, and say what has changed since it was planned", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := deliveryID(args[0])
			if err != nil {
				return err
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				r, err := st.controls().Retry(ctx, id, again)
				if err != nil {
					return err
				}
				if s.output == "json" {
					return s.printJSON(r)
				}
				_, err = fmt.Fprint(s.env.stdout, changedSince(r, again.DryRun))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&again.Reason, "reason", "", "why, in words")
	cmd.Flags().BoolVar(&again.DryRun, "dry-run", false, "only say what has changed")
	cmd.Flags().BoolVar(&again.Sent, "even-succeeded", false, "send it again although it succeeded, which may reach the person twice")
	return cmd
}

// changedSince tells what is different from when a delivery was planned.
func changedSince(r domain.DeliveryRequeued, dry bool) string {
	var b strings.Builder
	verb := "is tried again"
	if dry {
		verb = "would be tried again"
	}
	fmt.Fprintf(&b, "delivery %s: was %s, %s as attempt %d\n", r.DeliveryID, strings.ToUpper(string(r.Was)), verb, r.Attempt)
	if r.PlannedVersion == r.CurrentVersion {
		fmt.Fprintf(&b, "  target    %s version %d, unchanged\n", r.Target, r.PlannedVersion)
	} else {
		fmt.Fprintf(&b, "  target    %s version %d then, %d now; the request is sent as it was rendered then\n", r.Target, r.PlannedVersion, r.CurrentVersion)
	}
	fmt.Fprintf(&b, "  consent   then: %s, %s\n", r.ConsentThen.Decision, r.ConsentThen.Explain())
	fmt.Fprintf(&b, "            now:  %s, %s\n", r.ConsentNow.Decision, r.ConsentNow.Explain())
	if r.ConsentNow.Decision == domain.DecisionWithheld {
		b.WriteString("            it will be withheld, unless that changes before its request leaves\n")
	}
	return b.String()
}

func deliveriesCancel(s *settings) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "cancel ID", Short: "Stop a delivery that is still to be sent", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := deliveryID(args[0])
			if err != nil {
				return err
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				return st.controls().Cancel(ctx, id, actor(), reason)
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, in words")
	return cmd
}

// replayFlags are what deliveries replay is told.
type replayFlags struct {
	id, from, to string
	outcomes     []string
	replay       dispatcher.Replay
}

func (f *replayFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.replay.Filter.Target, "target", "", "handle of the target")
	flags.StringVar(&f.replay.Filter.Reaction, "reaction", "", "handle of the reaction")
	flags.StringVar(&f.replay.Filter.Platform, "platform", "", "name of the platform")
	flags.StringSliceVar(&f.outcomes, "outcome", []string{"failed", "expired", "cancelled"}, "failed, expired, cancelled or withheld (repeatable)")
	flags.StringVar(&f.from, "from", "", "planned at or after, RFC 3339")
	flags.StringVar(&f.to, "to", "", "planned before, RFC 3339")
	flags.Float64Var(&f.replay.Rate, "rate", 0, "deliveries a second; 0 goes as fast as the targets' own limits allow")
	flags.StringVar(&f.replay.Reason, "reason", "", "why, in words")
	flags.StringVar(&f.id, "id", "", "of the replay: naming an earlier one goes on with it, and puts nothing back twice")
	flags.BoolVar(&f.replay.DryRun, "dry-run", false, "only count")
}

func (f *replayFlags) read() (r dispatcher.Replay, err error) {
	r = f.replay
	r.ID, r.Actor, r.Filter.Limit = uuid.New(), actor(), replayedAtOnce
	if f.id != "" {
		if r.ID, err = uuid.Parse(f.id); err != nil {
			return r, usagef("--id %q is no UUID", f.id)
		}
	}
	for _, name := range f.outcomes {
		o := domain.Outcome(name)
		if !slices.Contains([]domain.Outcome{domain.Failed, domain.Expired, domain.Cancelled, domain.Withheld}, o) {
			return r, usagef("--outcome %q is not failed, expired, cancelled or withheld", name)
		}
		r.Filter.Outcomes = append(r.Filter.Outcomes, o)
	}
	if r.Rate < 0 {
		return r, usagef("--rate is %g; it is 0 or more", r.Rate)
	}
	if r.Filter.From, err = parseTime("from", f.from); err != nil {
		return r, err
	}
	r.Filter.To, err = parseTime("to", f.to)
	return r, err
}

const replayedAtOnce = 500

func deliveriesReplay(s *settings) *cobra.Command {
	var f replayFlags
	cmd := &cobra.Command{
		Use: "replay", Short: "Try many deliveries again: counted first, at a rate, passing over what succeeded", Args: cobra.NoArgs,
		Long: "Puts the deliveries that the filter selects back into the queue, newest first, with the requests that were planned.\n" +
			"It says first how many there are. Interrupted, it is resumed by running it again with the --id that it printed.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := f.read()
			if err != nil {
				return err
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error { return st.replay(ctx, r) })
		},
	}
	f.addTo(cmd.Flags())
	return cmd
}

// replay counts, then puts back a page at a time. What is printed on the way goes to standard error; the outcome is a row.
func (st *store) replay(ctx context.Context, r dispatcher.Replay) error {
	progress := st.settings.env.stderr
	fmt.Fprintf(progress, "replay %s\n", r.ID)
	total, err := deliveries.Selected(ctx, st.db, r.Filter)
	if err != nil {
		return err
	}
	selected := 0
	for _, outcome := range slices.Sorted(maps.Keys(total)) {
		selected += total[outcome]
		fmt.Fprintf(progress, "  %d %s\n", total[outcome], outcome)
	}
	var sum dispatcher.Replayed
	for {
		got, err := st.controls().Replay(ctx, r)
		if err != nil {
			return fmt.Errorf("%w; %d deliveries are back in the queue, go on with: dispatch-ledger deliveries replay --id %s and the same filter", err, sum.Requeued, r.ID)
		}
		sum.Requeued, sum.Skipped, sum.Refused = sum.Requeued+got.Requeued, sum.Skipped+got.Skipped, sum.Refused+got.Refused
		if got.Next == 0 {
			break
		}
		r.Filter.Before, r.Start = got.Next, got.Until
		fmt.Fprintf(progress, "  %d of %d\n", sum.Requeued+sum.Skipped+sum.Refused, selected)
	}
	requeued := "requeued"
	if r.DryRun {
		requeued = "would be requeued"
	}
	t := table{columns: []string{"replay", "selected", requeued, "skipped", "refused"}}
	t.add(map[string]any{"id": r.ID, "dry_run": r.DryRun, "selected": selected, "requeued": sum.Requeued, "skipped": sum.Skipped, "refused": sum.Refused},
		r.ID.String(), strconv.Itoa(selected), strconv.Itoa(sum.Requeued), strconv.Itoa(sum.Skipped), strconv.Itoa(sum.Refused))
	return st.settings.print(t)
}
