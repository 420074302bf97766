package main

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/export"
)

func newExport(s *settings) *cobra.Command {
	var format, out string
	var from, to int64
	o := export.Options{}
	cmd := &cobra.Command{
		Use: "export --out DIR", Short: "Write a range of the ledger to Parquet, NDJSON or CSV files, with the checkpoint that they belong to", Args: cobra.NoArgs,
		Long: "Writes files of a million events each, and manifest.json with their counts and hashes, a checkpoint, and the proof that the range\n" +
			"stands under it. An export that was interrupted goes on where it stopped when it is run again.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from < 1 || to != 0 && to < from {
				return usagef("--from is %d and --to is %d; positions count from 1", from, to)
			}
			o.Format, o.From, o.To = export.Format(format), from-1, to
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error { return st.export(ctx, out, o) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&format, "format", "parquet", "parquet, ndjson or csv")
	flags.StringVar(&out, "out", "", "folder to write to; made when it is missing")
	flags.Int64Var(&from, "from", 1, "first position")
	flags.Int64Var(&to, "to", 0, "last position; 0 is where the newest checkpoint ends")
	flags.BoolVar(&o.Sealed, "sealed", false, "with the personal data as it is stored, encrypted; without it its hash stands in its place")
	flags.Int64Var(&o.Part, "part", 1_000_000, "events in one file")
	if err := cmd.MarkFlagRequired("out"); err != nil {
		panic(err)
	}

	var keys []string
	verify := &cobra.Command{
		Use: "verify DIR --key PUBLIC_KEY", Args: cobra.ExactArgs(1),
		Short: "Check an export offline: its files, each row's leaf, and the range under its checkpoint; exit code 3 when it does not hold",
		RunE: func(_ *cobra.Command, args []string) error {
			known, err := readKeys(keys)
			if err != nil {
				return err
			}
			report, err := export.Verify(args[0], known)
			if evidence.IsUnproven(err) || errors.Is(err, export.ErrDamaged) {
				fmt.Fprintf(s.env.stdout, "%s: %s\n", args[0], err)
				return errUntrue
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(s.env.stdout, "%s: positions %d to %d, checkpoint of %d events: every row hashes to its leaf, and they stand under the checkpoint\n", args[0], report.From+1, report.To, report.Checkpoint.Size)
			return err
		},
	}
	verify.Flags().StringSliceVar(&keys, "key", nil, "the log's public key, or a file that holds it (repeatable); see checkpoint --keys")
	if err := verify.MarkFlagRequired("key"); err != nil {
		panic(err)
	}
	cmd.AddCommand(verify)
	return cmd
}

func (st *store) export(ctx context.Context, out string, o export.Options) error {
	c, err := st.checkpointer(ctx)
	if err != nil {
		return err
	}
	if _, err := c.Sign(ctx); err != nil {
		return err
	}
	var told time.Time
	o.Progress = func(p export.Progress) {
		if now := time.Now(); p.Done == p.Total || now.Sub(told) >= time.Second {
			told = now
			fmt.Fprintf(st.settings.env.stderr, "%d of %d events, %.0f/s, %s left\n", p.Done, p.Total, p.Rate, p.Left.Round(time.Second))
		}
	}
	// The files' encoders allocate much: at the service's setting that would be held several times over.
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	db, err := st.exporting(ctx)
	if err != nil {
		return err
	}
	m, err := export.Run(ctx, db, out, o)
	if err != nil {
		return err
	}
	t := table{columns: []string{"file", "from", "to", "events", "bytes", "sha256"}}
	for _, p := range m.Parts {
		t.add(p, p.File, strconv.FormatInt(p.From+1, 10), strconv.FormatInt(p.To, 10), strconv.FormatInt(p.Count, 10), strconv.FormatInt(p.Bytes, 10), p.SHA256)
	}
	return st.settings.print(t)
}
