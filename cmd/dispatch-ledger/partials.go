package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func newPartials(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "partials", Short: "Pieces that templates share: apply, list, show, history, delete"}
	var reason string
	apply := &cobra.Command{
		Use: "apply NAME FILE", Short: "Create or change a partial; says which targets it touches, and refuses what would break one", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			source, err := readFile(s.env.stdin, args[1])
			if err != nil {
				return err
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				return st.changePartial(ctx, args[0], domain.PartialChanged{Name: args[0], Source: string(source), Reason: reason})
			})
		},
	}
	remove := &cobra.Command{
		Use: "delete NAME", Short: "Withdraw a partial that no target names", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				return st.changePartial(ctx, args[0], domain.PartialDeleted{Name: args[0], Reason: reason})
			})
		},
	}
	for _, c := range []*cobra.Command{apply, remove} {
		c.Flags().StringVar(&reason, "reason", "", "why, in words")
	}
	cmd.AddCommand(apply, remove,
		&cobra.Command{
			Use: "list", Short: "The partials there are", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
					list, err := targets.ListPartials(ctx, st.db)
					if err != nil {
						return err
					}
					t := table{columns: []string{"name", "version", "state", "bytes", "changed", "by"}}
					for _, p := range list {
						t.add(p, p.Name, strconv.FormatInt(p.Version, 10), p.State, strconv.Itoa(len(p.Source)), stamp(p.ChangedAt), p.ChangedBy)
					}
					return s.print(t)
				})
			},
		},
		&cobra.Command{
			Use: "show NAME", Short: "A partial's source", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
					partials, err := st.partials(ctx)
					if err != nil {
						return err
					}
					source, ok := partials.Sources[args[0]]
					if !ok {
						return fmt.Errorf("partial %q: %w; see dispatch-ledger partials list", args[0], schema.ErrNotFound)
					}
					_, err = fmt.Fprint(s.env.stdout, source)
					return err
				})
			},
		},
		&cobra.Command{
			Use: "history NAME", Short: "Every version of a partial: who, when, what", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
					return st.printEvents(ctx, st.db, schema.Filter{Stream: domain.PartialStream(args[0])})
				})
			},
		})
	return cmd
}

func (st *store) partials(ctx context.Context) (domain.Partials, error) {
	return targets.PartialsNow(ctx, st.db)
}

// changePartial records a change of a partial, unless a target that compiles now would not any more.
func (st *store) changePartial(ctx context.Context, name string, change domain.Payload) error {
	partials, err := st.partials(ctx)
	if err != nil {
		return err
	}
	configs, err := targets.Configs(ctx, st.db)
	if err != nil {
		return err
	}
	touched, err := partials.Change(change, configs)
	if err != nil {
		return err
	}
	list, err := targets.ListPartials(ctx, st.db)
	if err != nil {
		return err
	}
	var version int64
	for _, p := range list {
		if p.Name == name {
			version = p.Version
		}
	}
	at, err := st.record(ctx, change, &version)
	if errors.Is(err, schema.ErrConflict) {
		return fmt.Errorf("somebody changed partial %s at this moment: look at it again with partials show %[1]s", name)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(st.settings.env.stdout, "%s version %d; targets it touches: %s\n", name, at.Version, strings.Join(append(touched, "none")[:max(1, len(touched))], ", "))
	return err
}
