package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/dispatcher"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
)

func newQueue(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "queue", Short: "What waits, target by target, and what holds it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				list, err := queue.Overview(ctx, st.db)
				if err != nil {
					return err
				}
				t := table{columns: []string{"target", "queued", "due", "oldest", "held", "until", "why"}}
				for _, q := range list {
					until := ""
					if q.Pause.Cause != "" && q.Pause.Until.IsZero() {
						until = "it is resumed"
					} else {
						until = stamp(q.Pause.Until)
					}
					t.add(q, q.Target, strconv.Itoa(q.Queued), strconv.Itoa(q.Due), stamp(q.Oldest), q.Pause.Cause, until, q.Pause.Reason)
				}
				return s.print(t)
			})
		},
	}
}

// targetHolds are the commands that hold, release and discard what is queued for a target.
func targetHolds(s *settings) []*cobra.Command {
	var reason, until string
	pause := &cobra.Command{
		Use: "pause HANDLE", Short: "Hold everything that is queued for a target; nothing is dropped", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := parseTime("until", until)
			if err != nil {
				return err
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				return st.controls().Pause(ctx, args[0], actor(), reason, at)
			})
		},
	}
	pause.Flags().StringVar(&until, "until", "", "when it is released by itself, RFC 3339; empty: when somebody resumes it")
	resume := &cobra.Command{
		Use: "resume HANDLE", Short: "Release what is held for a target, whoever paused it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				return st.controls().Resume(ctx, args[0], actor(), reason)
			})
		},
	}
	d := dispatcher.Discard{Actor: actor()}
	discard := &cobra.Command{
		Use: "discard HANDLE", Short: "Cancel everything that waits for a target", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" && !d.DryRun {
				return usagef("--reason is missing: say why these deliveries are not sent, or count them first with --dry-run")
			}
			d.Target, d.Reason = args[0], reason
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				got, err := st.controls().Discard(ctx, d)
				if err != nil {
					return err
				}
				t := table{columns: []string{"target", "waiting", "cancelled"}}
				t.add(map[string]any{"target": d.Target, "dry_run": d.DryRun, "waiting": got.Waiting, "cancelled": got.Cancelled}, d.Target, strconv.Itoa(got.Waiting), strconv.Itoa(got.Cancelled))
				return s.print(t)
			})
		},
	}
	discard.Flags().BoolVar(&d.DryRun, "dry-run", false, "only count")
	for _, c := range []*cobra.Command{pause, resume, discard} {
		c.Flags().StringVar(&reason, "reason", "", "why, in words")
	}
	return []*cobra.Command{pause, resume, discard, targetSchedule(s)}
}

// targetSchedule needs no ledger: it tells what a file would do before it is applied.
func targetSchedule(s *settings) *cobra.Command {
	var due, zone string
	cmd := &cobra.Command{
		Use: "schedule FILE", Short: "When a failing delivery of a target would be tried again, and when it would be given up", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			at, err := parseTime("due", due)
			if err != nil {
				return err
			}
			if at.IsZero() {
				at = time.Now()
			}
			where, err := time.LoadLocation(zone)
			if err != nil {
				return usagef("--zone %q is no zone such as Australia/Sydney", zone)
			}
			content, err := readFile(s.env.stdin, args[0])
			if err != nil {
				return err
			}
			change, err := domain.ParseTargetFile(content)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			schedules := change.Schedules(at.In(where))
			if s.output == "json" {
				return s.printJSON(schedules)
			}
			for _, schedule := range schedules {
				fmt.Fprintln(s.env.stdout, schedule.Words)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&due, "due", "", "when the delivery is due, RFC 3339; empty: now")
	cmd.Flags().StringVar(&zone, "zone", "", "time zone of the words, such as Australia/Sydney; empty: UTC")
	return cmd
}
