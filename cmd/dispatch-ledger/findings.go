package main

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/reconciler"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
)

func newFindings(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "findings", Short: "Differences with a platform that a person decides on: list, resolve"}
	var platform, state string
	list := &cobra.Command{
		Use: "list", Short: "The findings, each with its explanation and the action that is proposed", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				found, err := suppressions.Findings(ctx, st.db, suppressions.FindingFilter{Platform: platform, State: state, Limit: 1000})
				if err != nil {
					return err
				}
				t := table{columns: []string{"id", "platform", "channel", "class", "action", "state", "explanation"}}
				for _, f := range found {
					t.add(f, f.ID.String(), f.Platform, string(f.Channel), f.Class, f.Action, f.State, f.Explain)
				}
				return s.print(t)
			})
		},
	}
	list.Flags().StringVar(&platform, "platform", "", "only this connection's")
	list.Flags().StringVar(&state, "state", "open", "open, resolved, or empty for both")
	var action, reason string
	var evidence map[string]string
	resolve := &cobra.Command{
		Use: "resolve ID --action A --reason R", Short: "Do what a finding proposes, or another of its actions", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := uuid.Parse(args[0])
			if err != nil {
				return usagef("%q is no finding's id", args[0])
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				svc, err := st.newReconciler(nil, st.catchUpLists, nil)
				if err != nil {
					return err
				}
				chosen := action
				if chosen == "" {
					f, err := suppressions.FindingByID(ctx, st.db, id)
					if err != nil {
						return err
					}
					chosen = f.Action
				}
				if err := svc.Resolve(ctx, id, reconciler.Resolution{Action: chosen, Reason: reason, Evidence: evidence, Actor: actor()}); err != nil {
					return err
				}
				_, err = fmt.Fprintf(s.env.stdout, "resolved: %s; what is to be written to the platform leaves with serve, or the next reconcile\n", chosen)
				return err
			})
		},
	}
	resolve.Flags().StringVar(&action, "action", "", "one of the finding's actions; the proposed one by default")
	resolve.Flags().StringVar(&reason, "reason", "", "why, in words")
	resolve.Flags().StringToStringVar(&evidence, "evidence", nil, "what proves that the person agreed, such as form=12 (repeatable); kept sealed")
	if err := resolve.MarkFlagRequired("reason"); err != nil {
		panic(err)
	}
	cmd.AddCommand(list, resolve)
	return cmd
}
