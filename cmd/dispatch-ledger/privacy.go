package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/privacy"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func (st *store) privacy() *privacy.Service {
	return &privacy.Service{Ledger: st.ledger, Vault: st.vault, DB: st.db, Clock: time.Now}
}

// keeper ends retentions when their time has come.
func (st *store) keeper() (*privacy.Keeper, error) {
	return privacy.NewKeeper(st.privacy(), st.log, st.registry)
}

func because(reason string) privacy.By {
	return privacy.By{Actor: actor(), Source: "/cli", Reason: reason}
}

// addReason gives a command the flag without which nothing personal is shown or destroyed.
func addReason(cmd *cobra.Command, reason *string) {
	cmd.Flags().StringVar(reason, "reason", "", "why, in words, such as the number of the request; kept for ever, so without personal data")
	if err := cmd.MarkFlagRequired("reason"); err != nil {
		panic(err)
	}
}

func newErase(s *settings) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "erase PROFILE_ID --reason WHY", Short: "Destroy a person's key: what identifies or describes them cannot be read any more",
		Long: "Destroys the key that everything personal about them is sealed under, here and in every copy. What is queued for them is\n" +
			"withheld, their answers are kept so that an opt-out is still honoured, and the ledger verifies as before. It cannot be undone.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			profile, err := uuid.Parse(args[0])
			if err != nil {
				return usagef("%q is no profile id", args[0])
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				done, err := st.privacy().Erase(ctx, profile, because(reason))
				if err != nil {
					return err
				}
				if s.output == "json" {
					return s.printJSON(done)
				}
				if done.Already {
					_, err = fmt.Fprintf(s.env.stdout, "%s was erased already, on %s by %s\n", profile, stamp(done.ErasedAt), done.By)
					return err
				}
				_, err = fmt.Fprintf(s.env.stdout, "erased %s at position %d; %d deliveries that were still to be sent are withheld\n", profile, done.Position, done.Queued)
				return err
			})
		},
	}
	addReason(cmd, &reason)
	return cmd
}

func newAccess(s *settings) *cobra.Command {
	var reason, format, out string
	cmd := &cobra.Command{
		Use: "access PROFILE_ID --reason WHY", Short: "Everything that is held on a person, for people or for programs",
		Long: "Opens all that is sealed about the person, which is recorded as an event before it is shown.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			profile, err := uuid.Parse(args[0])
			if err != nil {
				return usagef("%q is no profile id", args[0])
			}
			if format != "json" && format != "html" {
				return usagef("--format is %q; it is json or html", format)
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				held, err := st.privacy().Access(ctx, profile, because(reason))
				if err != nil {
					return err
				}
				write := held.WriteJSON
				if format == "html" {
					write = held.WriteHTML
				}
				return writeTo(s.env.stdout, out, func(w io.Writer) error { return write(w) })
			})
		},
	}
	addReason(cmd, &reason)
	cmd.Flags().StringVar(&format, "format", "json", "json for programs, html for people")
	cmd.Flags().StringVar(&out, "out", "-", "file to write; - is standard output")
	return cmd
}

func newRetention(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "retention", Short: "How long what is sealed is kept, by event type: set, list, run"}
	var reason string
	var days int
	set := &cobra.Command{
		Use: "set TYPE --days N --reason WHY", Short: "Keep the sealed parts of an event type for N whole days; 0 is until the person is erased",
		Long: "A shorter time holds for what is there already: serve destroys the keys of the days that are past it within the hour, and nothing\n" +
			"brings them back. The events stay, and verify as before.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				done, err := st.privacy().Retain(ctx, args[0], days, because(reason))
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(s.env.stdout, "recorded at position %d\n", done.Position)
				return err
			})
		},
	}
	set.Flags().IntVar(&days, "days", 0, "whole days after the day on which they were recorded; 0 is until the person is erased")
	if err := set.MarkFlagRequired("days"); err != nil {
		panic(err)
	}
	addReason(set, &reason)
	cmd.AddCommand(set,
		&cobra.Command{
			Use: "list", Short: "The retentions there are", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
					list, err := st.privacy().Retentions(ctx)
					if err != nil {
						return err
					}
					t := table{columns: []string{"type", "days", "since", "by", "reason", "ended to"}}
					for _, r := range list {
						kept := strconv.Itoa(r.Days)
						if r.Days == 0 {
							kept = "until erased"
						}
						t.add(r, r.Type, kept, stamp(r.ChangedAt), r.ChangedBy, r.Reason, r.EndedTo)
					}
					return s.print(t)
				})
			},
		},
		&cobra.Command{
			Use: "run", Short: "End now what has been kept for long enough; serve does it every hour", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
					keeper, err := privacy.NewKeeper(st.privacy(), st.log, nil)
					if err != nil {
						return err
					}
					return keeper.Round(ctx)
				})
			},
		})
	return cmd
}

func newKeys(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "keys", Short: "The keys that personal data and secrets are sealed under: show, rotate"}
	cmd.AddCommand(
		&cobra.Command{
			Use: "show", Short: "Which master key wraps, and how many keys there are of each kind", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
					count, err := st.vault.Count(ctx)
					if err != nil {
						return err
					}
					key, err := s.key()
					if err != nil {
						return err
					}
					if s.output == "json" {
						return s.printJSON(map[string]any{"master": key.String(), "keys": count})
					}
					_, err = fmt.Fprintf(s.env.stdout, "master key %s\n%d people, %d erased · %d types and days, %d ended · %d secrets · newest wrapping key %d\n",
						key, count.Subjects, count.Erased, count.Periods, count.Ended, count.Secrets, count.WrappingKey)
					return err
				})
			},
		},
		&cobra.Command{
			Use: "rotate", Short: "Wrap every key anew; what they seal stays as it is, and the service goes on",
			Long: "To replace the master key, give every process the new key first and the old one after it (both in one file, or in\n" +
				schema.MasterKeyVariable + " separated by a comma), rotate, then take the old one away. A rotation that was stopped is finished by the next.",
			Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
					var last schema.Rotation
					start := time.Now()
					err := st.vault.Rotate(ctx, func(r schema.Rotation) {
						last = r
						left := time.Duration(float64(time.Since(start)) / float64(r.Done) * float64(r.Total-r.Done))
						fmt.Fprintf(s.env.stderr, "\r%d of %d keys, %s left   ", r.Done, r.Total, left.Round(time.Second))
					})
					if last.Done > 0 {
						fmt.Fprintln(s.env.stderr)
					}
					if err != nil {
						return err
					}
					_, err = fmt.Fprintf(s.env.stdout, "rotated: %d keys wrapped anew\n", last.Done)
					return err
				})
			},
		})
	return cmd
}
