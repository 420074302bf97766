package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
)

// eventJSON is an event as the command line shows it to programs.
func eventJSON(e domain.Recorded) any {
	out := map[string]any{
		"position": e.Position, "id": e.ID, "type": e.Type, "stream": e.Stream, "version": e.Version, "recorded_at": e.RecordedAt,
		"actor": e.Actor, "source": e.Source, "data": json.RawMessage(e.Data), "sealed": e.Sealed != nil,
	}
	if !e.OccurredAt.IsZero() {
		out["occurred_at"] = e.OccurredAt
	}
	return out
}

func newRebuild(s *settings) *cobra.Command {
	var slice int64
	cmd := &cobra.Command{
		Use: "rebuild NAME", Short: "Build a projection anew beside the live one and swap it in",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				d, err := st.engine.Find(args[0])
				if err != nil {
					return err
				}
				return st.engine.Rebuild(ctx, d, projections.RebuildOptions{Slice: slice, Progress: func(p projections.Progress) {
					fmt.Fprintf(s.env.stderr, "%s: %d of %d events, %.0f/s, %s left\n", d.Name, p.Done, p.Total, p.Rate, p.Left.Round(time.Second))
				}})
			})
		},
	}
	cmd.Flags().Int64Var(&slice, "slice", 0, "events in one transaction; 0 is 50,000")
	return cmd
}

func newProjections(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "projections", Short: "Where every reader of the ledger stands", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				list, err := projections.Statuses(ctx, st.db)
				if err != nil {
					return err
				}
				t := table{columns: []string{"name", "kind", "version", "position", "lag", "state", "error"}}
				for _, p := range list {
					trouble := ""
					if p.Error != nil {
						trouble = *p.Error
					}
					t.add(p, p.Name, p.Kind, strconv.Itoa(p.Version), strconv.FormatInt(p.Position, 10), strconv.FormatInt(p.Lag, 10), p.State, trouble)
				}
				return s.print(t)
			})
		},
	}
}
