package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/dispatcher"
)

// replayFlags are what deliveries replay is told.
type replayFlags struct {
	id, from, to   string
	outcomes       []string
	dryRun, detach bool
	ask            dispatcher.AskReplay
}

func (f *replayFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.ask.Filter.Target, "target", "", "handle of the target")
	flags.StringVar(&f.ask.Filter.Reaction, "reaction", "", "handle of the reaction")
	flags.StringVar(&f.ask.Filter.Platform, "platform", "", "name of the platform")
	flags.StringSliceVar(&f.outcomes, "outcome", []string{"failed", "expired", "cancelled"}, "failed, expired, cancelled or withheld (repeatable)")
	flags.StringVar(&f.from, "from", "", "planned at or after, RFC 3339")
	flags.StringVar(&f.to, "to", "", "planned before, RFC 3339")
	flags.Float64Var(&f.ask.Rate, "rate", 0, "deliveries a second; 0 goes as fast as the targets' own limits allow")
	flags.StringVar(&f.ask.Reason, "reason", "", "why, in words")
	flags.StringVar(&f.id, "id", "", "of the replay: naming one that was asked for before goes on with it")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only count")
	flags.BoolVar(&f.detach, "detach", false, "leave it to the service that runs, and do not wait")
}

func (f *replayFlags) read() (a dispatcher.AskReplay, err error) {
	a = f.ask
	a.ID, a.Actor = uuid.New(), actor()
	if f.id != "" {
		if a.ID, err = uuid.Parse(f.id); err != nil {
			return a, usagef("--id %q is no UUID", f.id)
		}
	}
	for _, name := range f.outcomes {
		o := domain.Outcome(name)
		if !slices.Contains([]domain.Outcome{domain.Failed, domain.Expired, domain.Cancelled, domain.Withheld}, o) {
			return a, usagef("--outcome %q is not failed, expired, cancelled or withheld", name)
		}
		a.Filter.Outcomes = append(a.Filter.Outcomes, o)
	}
	if a.Rate < 0 {
		return a, usagef("--rate is %g; it is 0 or more", a.Rate)
	}
	if a.Filter.From, err = parseTime("from", f.from); err != nil {
		return a, err
	}
	a.Filter.To, err = parseTime("to", f.to)
	return a, err
}

func deliveriesReplay(s *settings) *cobra.Command {
	var f replayFlags
	cmd := &cobra.Command{
		Use: "replay", Short: "Try many deliveries again: counted first, at a rate, passing over what succeeded", Args: cobra.NoArgs,
		Long: "Puts the deliveries that the filter selects back into the queue, newest first, with the requests that were planned.\n" +
			"It says first how many there are. Interrupted, it is gone on with by the service that runs, or with the --id that it printed.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := f.read()
			if err != nil {
				return err
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error { return st.replay(ctx, a, f.dryRun, f.detach) })
		},
	}
	f.addTo(cmd.Flags())
	return cmd
}

// replay counts, then has it done and watches. What is printed on the way goes to standard error; the outcome is a row.
func (st *store) replay(ctx context.Context, a dispatcher.AskReplay, dryRun, detach bool) error {
	progress := st.settings.env.stderr
	counted, err := st.controls().CountReplay(ctx, a.Filter)
	if err != nil {
		return err
	}
	r := dispatcher.Replay{State: "counted", Filter: a.Filter, Rate: a.Rate, By: a.Actor}
	for _, outcome := range slices.Sorted(maps.Keys(counted)) {
		r.Selected += counted[outcome]
		fmt.Fprintf(progress, "  %d %s\n", counted[outcome], outcome)
	}
	if dryRun {
		return st.settings.print(replayTable(r))
	}
	if r, err = st.controls().Replay(ctx, a); err != nil {
		return err
	}
	fmt.Fprintf(progress, "replay %s\n", r.ID)
	if detach {
		return st.settings.print(replayTable(r))
	}
	err = st.controls().WorkReplay(ctx, r.ID, func(now dispatcher.Replay) {
		r = now
		fmt.Fprintf(progress, "  %d of %d\n", r.Selected-r.Left(), r.Selected)
	})
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%d deliveries are back in the queue; a service that runs goes on with the rest, until: dispatch-ledger deliveries replays cancel %s", r.Requeued, r.ID)
	}
	return errors.Join(err, st.settings.print(replayTable(r)))
}

func replayTable(replays ...dispatcher.Replay) table {
	t := table{columns: []string{"replay", "state", "selected", "requeued", "skipped", "refused", "rate", "asked", "by"}}
	for _, r := range replays {
		id, asked := "", ""
		if r.ID != uuid.Nil {
			id, asked = r.ID.String(), r.AskedAt.Format(time.RFC3339)
		}
		t.add(map[string]any{
			"id": id, "state": r.State, "filter": r.Filter, "rate": r.Rate, "reason": r.Reason, "by": r.By, "selected": r.Selected,
			"requeued": r.Requeued, "skipped": r.Skipped, "refused": r.Refused, "asked_at": asked,
		}, id, r.State, strconv.Itoa(r.Selected), strconv.Itoa(r.Requeued), strconv.Itoa(r.Skipped), strconv.Itoa(r.Refused),
			strconv.FormatFloat(r.Rate, 'g', -1, 64), asked, r.By)
	}
	return t
}

const replaysShown = 50

func deliveriesReplays(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use: "replays [ID]", Short: "How far replays have come, the newest first", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				if len(args) == 1 {
					id, err := uuid.Parse(args[0])
					if err != nil {
						return usagef("%q is no id of a replay", args[0])
					}
					r, err := st.controls().ReplayByID(ctx, id)
					if err != nil {
						return err
					}
					return s.print(replayTable(r))
				}
				found, err := st.controls().Replays(ctx, 0, replaysShown)
				if err != nil {
					return err
				}
				return s.print(replayTable(found...))
			})
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use: "cancel ID", Short: "Stop a replay; what it has put back stays in the queue", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := uuid.Parse(args[0])
			if err != nil {
				return usagef("%q is no id of a replay", args[0])
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				return st.controls().CancelReplay(ctx, id, actor())
			})
		},
	})
	return cmd
}
