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
	var platform, class, state string
	list := &cobra.Command{
		Use: "list", Short: "The findings, each with its explanation and the action that is proposed", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				found, err := suppressions.Findings(ctx, st.db, suppressions.FindingFilter{Platform: platform, Class: class, State: state, Limit: 1000})
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
	list.Flags().StringVar(&class, "class", "", "only those of this class")
	list.Flags().StringVar(&state, "state", "open", "open, resolved, or empty for both")
	var action, reason string
	var evidence map[string]string
	resolve := &cobra.Command{
		Use: "resolve [ID] --action A --reason R", Short: "Do what a finding proposes, or another of its actions; without ID, alike about all of one class on one platform", Args: cobra.MaximumNArgs(1),
		Example: `  dispatch-ledger findings resolve 3c0d0a3a-5a56-5a0e-8d3e-6f1f6a1b2c3d --reason "signed form 12" --evidence form=12
  dispatch-ledger findings resolve --platform klaviyo --class lifted_there --action suppress_there --reason "a clean-up there, by mistake"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
					return st.resolveAlike(ctx, platform, class, reconciler.Resolution{Action: action, Reason: reason, Evidence: evidence, Actor: actor()})
				})
			}
			if platform != "" || class != "" {
				return usagef("give one finding's id, or --platform and --class, not both")
			}
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
	resolve.Flags().StringVar(&platform, "platform", "", "without ID: those of this connection")
	resolve.Flags().StringVar(&class, "class", "", "without ID: those of this class")
	if err := resolve.MarkFlagRequired("reason"); err != nil {
		panic(err)
	}
	cmd.AddCommand(list, resolve)
	return cmd
}

// resolveAlike does the same about all open findings of a class on a platform.
func (st *store) resolveAlike(ctx context.Context, platform, class string, res reconciler.Resolution) error {
	if platform == "" || class == "" || res.Action == "" {
		return usagef("give one finding's id, or --platform, --class and --action for all of a kind; see dispatch-ledger findings list")
	}
	if len(res.Evidence) > 0 {
		return usagef("--evidence is one person's: give their finding's id")
	}
	svc, err := st.newReconciler(nil, st.catchUpLists, nil)
	if err != nil {
		return err
	}
	if err := st.catchUpLists(ctx); err != nil {
		return err
	}
	total := 0
	for more := true; more; {
		var n int
		n, more, err = svc.ResolveAlike(ctx, platform, class, res)
		switch total += n; {
		case err != nil && total > 0:
			return fmt.Errorf("%d were resolved, then: %w", total, err)
		case err != nil:
			return err
		}
		if err := st.catchUpLists(ctx); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(st.settings.env.stdout, "resolved %d: %s; what is to be written to the platform leaves with serve, or the next reconcile\n", total, res.Action)
	return err
}
