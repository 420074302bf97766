package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/catalogue"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
)

// targetChanges are the commands about versions of targets, and about changes that take two people.
func (s *settings) targetChanges() []*cobra.Command {
	var reason string
	var proposal int64
	diff := &cobra.Command{
		Use: "diff HANDLE [FROM [TO]]", Short: "What differs between two versions; by default what the last change did", Args: cobra.RangeArgs(1, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			var versions [2]int64
			for i, text := range args[1:] {
				var err error
				if versions[i], err = number("version", text); err != nil {
					return err
				}
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				return st.diffTarget(ctx, args[0], versions[0], versions[1], proposal)
			})
		},
	}
	diff.Flags().Int64Var(&proposal, "proposal", 0, "number of a proposal, to see what it would change")
	rollback := &cobra.Command{
		Use: "rollback HANDLE VERSION", Short: "Make an earlier version the current one, as a new version", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			version, err := number("version", args[1])
			if err != nil {
				return err
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				done, err := st.catalogue().RollBack(ctx, author(), args[0], version, reason)
				return st.tell(args[0], done, err)
			})
		},
	}
	move := &cobra.Command{
		Use: "url HANDLE URL", Short: "Give a target another URL and leave the rest: from the inspector to production, in one recorded step", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				done, err := st.catalogue().Move(ctx, author(), args[0], args[1], reason)
				return st.tell(args[0], done, err)
			})
		},
	}
	approve := &cobra.Command{
		Use: "approve HANDLE [NUMBER]", Short: "Approve a proposed change, the newest by default; not one's own", Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.decide(cmd.Context(), args, func(ctx context.Context, st *store, n int64) error {
				done, err := st.catalogue().Approve(ctx, author(), args[0], n, reason)
				return st.tell(args[0], done, err)
			})
		},
	}
	decline := &cobra.Command{
		Use: "decline HANDLE [NUMBER]", Short: "Decline a proposed change, the newest by default, or withdraw one's own", Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.decide(cmd.Context(), args, func(ctx context.Context, st *store, n int64) error {
				p, err := st.catalogue().Decline(ctx, author(), args[0], n, reason)
				if err == nil {
					fmt.Fprintf(s.env.stdout, "%s: proposal %d declined\n", args[0], p.Number)
				}
				return err
			})
		},
	}
	for _, c := range []*cobra.Command{rollback, move, approve, decline} {
		c.Flags().StringVar(&reason, "reason", "", "why, in words")
	}
	return []*cobra.Command{s.testTarget(), diff, rollback, move, s.proposals(), approve, decline}
}

func (s *settings) proposals() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "proposals [HANDLE]", Short: "Changes that wait for somebody else's approval", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				list, err := targets.Proposals(ctx, st.db, strings.Join(args, ""), !all, 0, 10_000)
				if err != nil {
					return err
				}
				t := table{columns: []string{"handle", "number", "state", "proposed", "by", "reason", "decided", "by"}}
				for _, p := range list {
					state := p.State
					if p.Stale {
						state = "stale"
					}
					t.add(p, p.Target.Handle, strconv.FormatInt(p.Number, 10), state, stamp(p.ProposedAt), p.ProposedBy, p.Reason, stampOf(p.DecidedAt), p.DecidedBy)
				}
				return s.print(t)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "those that were decided on, too")
	return cmd
}

func (s *settings) decide(ctx context.Context, args []string, do func(context.Context, *store, int64) error) error {
	var n int64
	if len(args) > 1 {
		var err error
		if n, err = number("proposal", args[1]); err != nil {
			return err
		}
	}
	return s.with(ctx, func(ctx context.Context, st *store) error { return do(ctx, st, n) })
}

func number(what, text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, usagef("%q is no %s; it is a number from 1", text, what)
	}
	return n, nil
}

// tell says what came of a change.
func (st *store) tell(handle string, done catalogue.Result, err error) error {
	if err != nil {
		return err
	}
	if done.Proposal > 0 {
		fmt.Fprintf(st.settings.env.stdout, "%s: proposed as %d; somebody else approves it with: dispatch-ledger targets approve %[1]s %[2]d\n", handle, done.Proposal)
		return nil
	}
	fmt.Fprintf(st.settings.env.stdout, "%s %s, version %d\n", handle, verbOf(done), done.After.Version)
	return nil
}

func (st *store) diffTarget(ctx context.Context, handle string, from, to, proposal int64) error {
	var changes []domain.Change
	var err error
	if proposal > 0 {
		from, changes, err = st.catalogue().DiffProposal(ctx, handle, proposal)
	} else {
		from, to, changes, err = st.catalogue().Diff(ctx, handle, from, to)
	}
	if err != nil {
		return err
	}
	s := st.settings
	if s.output != "table" {
		t := table{columns: []string{"pointer", "before", "after"}}
		for _, c := range changes {
			t.add(c, c.Pointer, string(c.Before), string(c.After))
		}
		return s.print(t)
	}
	what := fmt.Sprintf("version %d", to)
	if proposal > 0 {
		what = fmt.Sprintf("proposal %d", proposal)
	}
	fmt.Fprintf(s.env.stdout, "%s: version %d to %s\n", handle, from, what)
	for _, c := range changes {
		if c.Diff != "" {
			fmt.Fprintf(s.env.stdout, "%s\n%s", c.Pointer, c.Diff)
			continue
		}
		fmt.Fprintf(s.env.stdout, "%s\n-%s\n+%s\n", c.Pointer, c.Before, c.After)
	}
	return nil
}
