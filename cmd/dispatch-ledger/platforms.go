package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
)

func newPlatforms(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "platforms", Short: "The platforms whose suppression lists are kept in step: apply, list, show, needs, templates"}
	var reason string
	apply := &cobra.Command{
		Use: "apply F…", Short: "Connect a platform, or change its policy, from a YAML or JSON file", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				svc, err := st.newReconciler(nil, st.catchUpLists, nil)
				if err != nil {
					return err
				}
				for _, name := range args {
					content, err := readFile(s.env.stdin, name)
					if err != nil {
						return err
					}
					p, err := domain.ParsePlatformPolicyFile(content)
					if err != nil {
						return fmt.Errorf("%s: %w", name, err)
					}
					version, err := svc.SetPolicy(ctx, p, -1, actor(), reason)
					if err != nil {
						return fmt.Errorf("%s: %w", name, err)
					}
					p.Normalize()
					fmt.Fprintf(s.env.stdout, "%s version %d\n", p.Name, version)
				}
				return nil
			})
		},
	}
	apply.Flags().StringVar(&reason, "reason", "", "why, in words")
	show := &cobra.Command{
		Use: "show NAME", Short: "A platform's policy, as JSON", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				p, err := suppressions.PolicyOf(ctx, st.db, args[0])
				if err != nil {
					return err
				}
				return s.printJSON(p)
			})
		},
	}
	list := &cobra.Command{
		Use: "list", Short: "The connected platforms and where they stand", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error { return st.listPlatforms(ctx) })
		},
	}
	needs := &cobra.Command{
		Use: "needs PLATFORM", Short: "What a connection is made with, and what the platform cannot do", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := platforms.Lookup(args[0])
			if err != nil {
				return usageError{err}
			}
			t := table{columns: []string{"in", "name", "needed", "what"}}
			for _, n := range p.Needs {
				where, needed := "settings", "yes"
				if n.Secret {
					where = "credentials"
				}
				if n.Optional {
					needed = "no"
				}
				t.add(map[string]any{"in": where, "name": n.Name, "needed": !n.Optional, "doc": n.Doc}, where, n.Name, needed, n.Doc)
			}
			for _, sentence := range p.Caps.Cannot {
				t.add(map[string]any{"cannot": sentence}, "cannot", "", "", sentence)
			}
			return s.print(t)
		},
	}
	templates := &cobra.Command{
		Use: "templates [HANDLE]", Short: "The ready-made target files, or one of them", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := platforms.Templates()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				i := slices.IndexFunc(all, func(t platforms.Template) bool { return t.Name == args[0] })
				if i < 0 {
					return usagef("there is no ready-made target %q; see dispatch-ledger platforms templates", args[0])
				}
				_, err := s.env.stdout.Write(all[i].YAML)
				return err
			}
			t := table{columns: []string{"handle", "platform"}}
			for _, one := range all {
				t.add(map[string]string{"handle": one.Name, "platform": one.Platform}, one.Name, one.Platform)
			}
			return s.print(t)
		},
	}
	cmd.AddCommand(apply, list, show, needs, templates)
	return cmd
}

func (st *store) listPlatforms(ctx context.Context) error {
	svc, err := st.newReconciler(nil, nil, nil)
	if err != nil {
		return err
	}
	policies, err := suppressions.Policies(ctx, st.db)
	if err != nil {
		return err
	}
	t := table{columns: []string{"name", "platform", "version", "compared", "known there", "unconfirmed", "oldest", "waiting", "open findings", "last run", "ended"}}
	for _, policy := range policies {
		p, err := svc.Describe(ctx, policy)
		if err != nil {
			return err
		}
		last, ended := "never", ""
		if p.Last != nil {
			last, ended = stamp(p.Last.StartedAt), p.Last.State
		}
		compared := make([]string, len(p.Reads))
		for i, c := range p.Reads {
			compared[i] = string(c)
		}
		if len(compared) == 0 {
			compared = []string{"nothing: it has no list"}
		}
		known := ""
		if p.Coverage != nil {
			known = fmt.Sprintf("%.1f %%", 100*p.Coverage.Ratio())
		}
		t.add(p, p.Name, p.Platform, strconv.FormatInt(p.Version, 10), strings.Join(compared, " "), known, strconv.FormatInt(p.Standing.Unconfirmed, 10), stampOf(p.Standing.Oldest),
			strconv.FormatInt(p.Standing.Waiting, 10), strconv.FormatInt(p.Standing.Open, 10), last, ended)
	}
	return st.settings.print(t)
}

// networks reads --allow-network.
func networks(given []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, n := range given {
		p, err := netip.ParsePrefix(n)
		if err != nil {
			return nil, usagef("--allow-network %q is no network such as 10.1.0.0/16", n)
		}
		out = append(out, p)
	}
	return out, nil
}
