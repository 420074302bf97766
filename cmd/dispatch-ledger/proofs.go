package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func newVerify(s *settings) *cobra.Command {
	var since, treeOnly bool
	var keys []string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Prove that the ledger is whole and that every projection follows from it; exit code 3 when not",
		Long: "Recomputes every digest and leaf from its row, the tree over them, its checkpoints and their signatures, holds them against\n" +
			"the copy outside the database, and rebuilds every projection beside the live one to compare them row by row.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error { return st.verify(ctx, since, treeOnly, keys) })
		},
	}
	cmd.Flags().BoolVar(&since, "since-checkpoint", false, "read only the events after the checkpoint that the last verify ended at")
	cmd.Flags().BoolVar(&treeOnly, "tree-only", false, "leave the projections out")
	cmd.Flags().StringSliceVar(&keys, "key", nil, "the log's public key, from wherever it is trusted (repeatable); empty takes the database's word for it")
	return cmd
}

func (st *store) verify(ctx context.Context, since, treeOnly bool, keys []string) error {
	s := st.settings
	marker := filepath.Join(s.dataDir, "verified")
	o := schema.VerifyOptions{Anchors: s.anchors(), Progress: func(p schema.VerifyProgress) {
		fmt.Fprintf(s.env.stderr, "\r%d of %d events, %.0f/s, %s left   ", p.Done, p.Total, p.Rate, p.Left.Round(time.Second))
		if p.Done == p.Total {
			fmt.Fprintln(s.env.stderr)
		}
	}}
	var err error
	if len(keys) > 0 {
		if o.Keys, err = evidence.ParseKeys(keys...); err != nil {
			return usageError{err}
		}
	}
	if since {
		if o.Since, err = os.ReadFile(marker); err != nil {
			return fmt.Errorf("there is no checkpoint that a verify ended at: %w; run verify without --since-checkpoint first", err)
		}
	}
	last, err := schema.LastCheckpoint(ctx, st.db)
	if err != nil && !errors.Is(err, schema.ErrNotFound) {
		return err
	}
	tree, err := schema.Verify(ctx, st.db, o)
	if err != nil {
		return err
	}
	out := map[string]any{"tree": tree}
	text, ok := "ledger: "+tree.String(), tree.OK()
	if !treeOnly {
		report, err := st.engine.Verify(ctx)
		if err != nil {
			return err
		}
		out["projections"] = report
		ok = ok && report.OK()
		for _, p := range report.Problems {
			text += p.String() + "\n"
		}
		for _, note := range report.Notes {
			text += note + "\n"
		}
		text += fmt.Sprintf("projections: %d rebuilt and compared in %s: %d problems\n", len(st.engine.Definitions()), report.Took.Round(time.Millisecond), len(report.Problems))
	}
	if s.output == "json" {
		if err := s.printJSON(out); err != nil {
			return err
		}
	} else {
		fmt.Fprint(s.env.stdout, text)
	}
	if !ok {
		return errUntrue
	}
	if last.Note == "" {
		return nil
	}
	if err := os.WriteFile(marker, []byte(last.Note), 0o600); err != nil {
		return fmt.Errorf("remember what was verified: %w", err)
	}
	return nil
}

func newCheckpoint(s *settings) *cobra.Command {
	var keys bool
	cmd := &cobra.Command{
		Use: "checkpoint", Short: "Sign the tree as it stands and print the checkpoint, a C2SP signed note", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				c, err := st.checkpointer(ctx)
				if err != nil {
					return err
				}
				if keys {
					for _, public := range c.Keys.Public {
						fmt.Fprintln(s.env.stdout, public)
					}
					return nil
				}
				signed, err := c.Sign(ctx)
				if err != nil {
					return err
				}
				_, err = io.WriteString(s.env.stdout, signed.Note)
				return err
			})
		},
	}
	cmd.AddCommand(newSigningKeys(s)...)
	cmd.Flags().BoolVar(&keys, "keys", false, "print the log's public keys instead, for evidence verify and verify")
	return cmd
}

func newEvidence(s *settings) *cobra.Command {
	var out, reveal string
	cmd := &cobra.Command{
		Use: "evidence DELIVERY_ID --out FILE", Short: "One file that proves a delivery's whole story, offline, with the public key alone",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := uuid.Parse(args[0])
			if err != nil {
				return usagef("%q is no delivery id", args[0])
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				c, err := st.checkpointer(ctx)
				if err != nil {
					return err
				}
				if _, err := c.Sign(ctx); err != nil {
					return err
				}
				o := schema.EvidenceOptions{}
				if reveal != "" {
					if err := st.recordRevealed(ctx, id, reveal); err != nil {
						return err
					}
					o.Opener = st.vault
				}
				bundle, err := schema.CollectEvidence(ctx, st.db, id, o)
				if err != nil {
					return err
				}
				return writeTo(s.env.stdout, out, bundle.Write)
			})
		},
	}
	cmd.Flags().StringVar(&out, "out", "-", "file to write; - is standard output")
	cmd.Flags().StringVar(&reveal, "reveal", "", "put the sealed parts in, in the clear; the reason is recorded as an event")

	var keys []string
	verify := &cobra.Command{
		Use: "verify FILE --key PUBLIC_KEY", Short: "Check an evidence file offline; exit code 3 when it proves nothing", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			known, err := readKeys(keys)
			if err != nil {
				return err
			}
			file, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			bundle, err := evidence.Read(file)
			if err != nil {
				return err
			}
			report, err := evidence.Verify(bundle, known)
			if evidence.IsUnproven(err) {
				fmt.Fprintf(s.env.stdout, "%s: %s\n", args[0], err)
				return errUntrue
			}
			if err != nil {
				return err
			}
			if s.output == "json" {
				return s.printJSON(report)
			}
			fmt.Fprint(s.env.stdout, report)
			return nil
		},
	}
	verify.Flags().StringSliceVar(&keys, "key", nil, "the log's public key, or a file that holds it (repeatable); see checkpoint --keys")
	if err := verify.MarkFlagRequired("key"); err != nil {
		panic(err)
	}
	cmd.AddCommand(verify)
	return cmd
}

// readKeys takes public keys as they are, or from files.
func readKeys(given []string) (note.Verifiers, error) {
	var keys []string
	for _, k := range given {
		if content, err := os.ReadFile(k); err == nil {
			k = string(content)
		}
		keys = append(keys, k)
	}
	known, err := evidence.ParseKeys(keys...)
	if err != nil {
		return nil, usageError{err}
	}
	return known, nil
}

// writeTo writes a file whole or not at all, or to standard output.
func writeTo(stdout io.Writer, name string, write func(io.Writer) error) error {
	if name == "-" {
		return write(stdout)
	}
	part, err := os.CreateTemp(filepath.Dir(name), ".part-*")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	if err := errors.Join(write(part), part.Sync(), part.Close()); err != nil {
		return err
	}
	return os.Rename(part.Name(), name)
}
