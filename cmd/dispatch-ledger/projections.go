package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/projections"
)

func newProjections(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use: "projections", Short: "Where every reader of the ledger stands; resume or skip where one is parked; drop a build", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				list, err := projections.Statuses(ctx, st.db)
				if err != nil {
					return err
				}
				t := table{columns: []string{"name", "kind", "version", "position", "lag", "behind", "state", "trouble"}}
				for _, p := range list {
					behind := time.Duration(p.LagSeconds * float64(time.Second)).Round(time.Millisecond)
					t.add(p, p.Name, p.Kind, strconv.Itoa(p.Version), strconv.FormatInt(p.Position, 10), strconv.FormatInt(p.Lag, 10), behind.String(), stateOf(p), troubleOf(p))
				}
				return s.print(t)
			})
		},
	}
	var reason string
	skip := &cobra.Command{
		Use: "skip NAME POSITION --reason WHY", Short: "Have a parked reader pass over the event at which it fails; an event records who decided that", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			position, err := strconv.ParseInt(args[1], 10, 64)
			if err != nil || position < 1 {
				return usagef("%q is no position", args[1])
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				appended, err := st.ledger.Skip(ctx, st.engine.ReaderName(args[0]), position, actor(), "/cli", reason)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(s.env.stdout, "%s passes over event %d; recorded as event %d\n", args[0], position, appended.Position)
				return err
			})
		},
	}
	skip.Flags().StringVar(&reason, "reason", "", "why, in words; stands in the ledger")
	if err := skip.MarkFlagRequired("reason"); err != nil {
		panic(err)
	}
	cmd.AddCommand(skip,
		&cobra.Command{
			Use: "resume NAME", Short: "Have a parked reader try again, after the cause was mended", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
					return st.ledger.Resume(ctx, st.engine.ReaderName(args[0]))
				})
			},
		},
		&cobra.Command{
			Use: "drop SCHEMA", Short: "Drop what rebuild built into a schema of its own", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error { return st.engine.Drop(ctx, args[0]) })
			},
		})
	return cmd
}

// stateOf is a reader's state with how far its rebuild has come.
func stateOf(p projections.Status) string {
	if p.Rebuild == nil {
		return p.State
	}
	left := (time.Duration(p.Rebuild.LeftSeconds) * time.Second).String()
	return fmt.Sprintf("%s; rebuild %s at %d, %.0f/s, %s left", p.State, p.Rebuild.State, p.Rebuild.Position, p.Rebuild.Rate, left)
}

func troubleOf(p projections.Status) string {
	var trouble []string
	for _, e := range []*string{p.Error, rebuildError(p)} {
		if e != nil {
			trouble = append(trouble, *e)
		}
	}
	if p.ErrorPosition != nil {
		trouble = append([]string{fmt.Sprintf("event %d", *p.ErrorPosition)}, trouble...)
	}
	return strings.Join(trouble, ": ")
}

func rebuildError(p projections.Status) *string {
	if p.Rebuild == nil {
		return nil
	}
	return p.Rebuild.Error
}
