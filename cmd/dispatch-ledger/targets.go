package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/catalogue"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func newTargets(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "targets", Short: "What is sent where, and how it changes"}
	var reason string
	change := func(use, short string, payload func(handle string) domain.Payload) *cobra.Command {
		c := &cobra.Command{Use: use + " HANDLE", Short: short, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				t, err := targets.Get(ctx, st.db, args[0])
				if err != nil {
					return err
				}
				_, err = st.record(ctx, payload(args[0]), &t.Revision)
				return err
			})
		}}
		c.Flags().StringVar(&reason, "reason", "", "why, in words")
		return c
	}
	cmd.AddCommand(targetHolds(s)...)
	cmd.AddCommand(
		&cobra.Command{
			Use: "apply FILE…", Short: "Create or change targets from YAML or JSON files; what is unchanged stays as it is",
			Args: cobra.MinimumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error { return st.applyTargets(ctx, args) })
			},
		},
		&cobra.Command{
			Use: "list", Short: "The targets there are", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
					list, err := targets.List(ctx, st.db, "", 10_000)
					if err != nil {
						return err
					}
					return s.print(targetTable(list))
				})
			},
		},
		&cobra.Command{
			Use: "show HANDLE", Short: "One target as it is now", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
					t, err := targets.Get(ctx, st.db, args[0])
					if err != nil {
						return err
					}
					return s.printJSON(t)
				})
			},
		},
		&cobra.Command{
			Use: "history HANDLE", Short: "Every version of a target: who, when, why", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
					list, err := targets.Versions(ctx, st.db, args[0])
					if err != nil {
						return err
					}
					if len(list) == 0 {
						return fmt.Errorf("target %q: %w", args[0], schema.ErrNotFound)
					}
					return s.print(versionTable(list))
				})
			},
		},
		change("disable", "Switch a target off: its firings are withheld", func(h string) domain.Payload {
			return domain.TargetDisabled{Handle: h, Reason: reason}
		}),
		change("enable", "Switch a target on again", func(h string) domain.Payload { return domain.TargetEnabled{Handle: h, Reason: reason} }),
	)
	cmd.AddCommand(s.targetChanges()...)
	return cmd
}

// versionTable is who changed a target, when, and why.
func versionTable(list []targets.Target) table {
	t := table{columns: []string{"version", "url", "changed", "by", "approved from", "restores", "reason"}}
	for _, x := range list {
		from, restores := "", ""
		if x.Approved != nil {
			from = x.Approved.ProposedBy
		}
		if x.Restores > 0 {
			restores = strconv.FormatInt(x.Restores, 10)
		}
		t.add(x, strconv.FormatInt(x.Version, 10), x.URL, stamp(x.ChangedAt), x.ChangedBy, from, restores, x.Reason)
	}
	return t
}

func targetTable(list []targets.Target) table {
	t := table{columns: []string{"handle", "version", "state", "platform", "url", "consent", "changed", "by"}}
	for _, x := range list {
		rule := "none"
		if x.Consent != nil {
			rule = fmt.Sprintf("%s/%s %s", x.Consent.Channel, x.Consent.Purpose, x.Consent.Mode)
		}
		t.add(x, x.Handle, strconv.FormatInt(x.Version, 10), x.State, x.Platform, x.URL, rule, stamp(x.ChangedAt), x.ChangedBy)
	}
	return t
}

// applyTargets checks all files before it records any, so that a mistake in the last leaves the first as it was.
func (st *store) applyTargets(ctx context.Context, files []string) error {
	changes := make([]domain.TargetChanged, len(files))
	partials, err := st.partials(ctx)
	if err != nil {
		return err
	}
	for i, file := range files {
		content, err := readFile(st.settings.env.stdin, file)
		if err != nil {
			return err
		}
		if changes[i], err = domain.ParseTargetFile(content); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		compiled, err := domain.CompileTarget(changes[i].Target, partials)
		if err == nil {
			err = compiled.CheckSample(nil)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	for _, c := range changes {
		done, err := st.catalogue().Apply(ctx, author(), c, nil)
		if err := st.tell(c.Handle, done, err); err != nil {
			return err
		}
	}
	return nil
}

// applyTarget records a target unless it is so already, or proposes it where that takes two people.
func (st *store) applyTarget(ctx context.Context, c domain.TargetChanged) error {
	_, err := st.catalogue().Apply(ctx, author(), c, nil)
	return err
}

func verbOf(done catalogue.Result) string {
	switch {
	case done.Proposal > 0:
		return fmt.Sprintf("proposed as %d, still", done.Proposal)
	case done.Unchanged:
		return "unchanged"
	case done.Before.Revision == 0:
		return "created"
	}
	return "changed"
}

func (st *store) catalogue() catalogue.Catalogue {
	return catalogue.Catalogue{DB: st.db, Ledger: st.ledger, Now: time.Now}
}

// author is who works at the command line, for the catalogue.
func author() catalogue.Author { return catalogue.Author{Name: actor(), Source: "/cli"} }

// record appends one event in the name of whoever works at the command line.
func (st *store) record(ctx context.Context, p domain.Payload, expected *int64) (schema.Appended, error) {
	e, secret, err := domain.New(uuid.New(), p)
	if err != nil {
		return schema.Appended{}, err
	}
	e.Actor, e.Source, e.Expected = actor(), "/cli", expected
	events := []domain.Event{e}
	if err := st.vault.SealEvents(ctx, events, [][]byte{secret}); err != nil {
		return schema.Appended{}, err
	}
	at, err := st.ledger.Append(ctx, events...)
	if err != nil {
		return schema.Appended{}, err
	}
	return at[0], nil
}

// recordRevealed records that sealed data of a delivery is shown to somebody, before it is.
func (st *store) recordRevealed(ctx context.Context, delivery uuid.UUID, reason string) error {
	_, err := st.record(ctx, domain.SealedRevealed{DeliveryID: delivery, What: "evidence", Reason: reason}, nil)
	return err
}

// readFile reads a file, or standard input for "-".
func readFile(stdin io.Reader, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(name)
}
