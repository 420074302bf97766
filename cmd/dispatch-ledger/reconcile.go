package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/reconciler"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
)

// reconcileFlags say what of a platform is compared, and how far it goes.
type reconcileFlags struct {
	platform, file, mode, approve string
	check                         bool
	allowNetworks                 []string
}

func newReconcile(s *settings) *cobra.Command {
	var f reconcileFlags
	cmd := &cobra.Command{
		Use:   "reconcile --platform P [--check] [--import F]",
		Short: "Compare a platform's suppression list with our consent, and bring both into step",
		Long: "Reads the platform's list, or its export, compares it with our consent and resolves each difference in the safe direction;\n" +
			"what the facts do not decide becomes a finding (dispatch-ledger findings list). --check only reports, and exits with 3\n" +
			"when there are differences. A run that was interrupted is taken up where it stands.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			allowed, err := networks(f.allowNetworks)
			if err != nil {
				return err
			}
			if f.mode != "" && f.mode != reconciler.Full && f.mode != reconciler.Incremental {
				return usagef("--mode is %q; it is full or incremental", f.mode)
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				svc, err := st.newReconciler(allowed, st.catchUpLists, nil)
				if err != nil {
					return err
				}
				return st.reconcile(ctx, svc, f)
			})
		},
	}
	cmd.Flags().StringVar(&f.platform, "platform", "", "name of the connection, see dispatch-ledger platforms list")
	cmd.Flags().BoolVar(&f.check, "check", false, "report and change nothing; exit 3 when there are differences")
	cmd.Flags().StringVar(&f.file, "import", "", "CSV that the platform exported, in place of its list; - is standard input")
	cmd.Flags().StringVar(&f.mode, "mode", "", "full or incremental; by default full when the last full run is older than the policy says")
	cmd.Flags().StringVar(&f.approve, "approve", "", "let a run go on that waits because it would change too much; the value says why")
	cmd.Flags().StringSliceVar(&f.allowNetworks, "allow-network", nil, "network that platforms may be reached in besides public addresses (repeatable)")
	if err := cmd.MarkFlagRequired("platform"); err != nil {
		panic(err)
	}
	return cmd
}

// reconcile does a run to its end and prints what it found.
func (st *store) reconcile(ctx context.Context, svc *reconciler.Service, f reconcileFlags) error {
	if f.approve != "" {
		if err := st.approve(ctx, svc, f.platform, f.approve); err != nil {
			return err
		}
	}
	q := reconciler.Request{Platform: f.platform, Mode: f.mode, Check: f.check, Trigger: "cli", Actor: actor()}
	if f.file != "" {
		file, err := st.importFile(f.file)
		if err != nil {
			return err
		}
		defer file.close()
		q.Import = &file.Import
	}
	id, err := svc.Start(ctx, q)
	if errors.Is(err, reconciler.ErrRunning) {
		// Somebody is at it, or was killed at it: that one first.
		fmt.Fprintln(st.settings.env.stderr, "a reconciliation is under way; going on with it first")
		runs, err := suppressions.Runs(ctx, st.db, suppressions.RunFilter{Platform: f.platform, Limit: 1})
		if err != nil || len(runs) == 0 {
			return errors.Join(err, reconciler.ErrRunning)
		}
		if err := st.followRun(ctx, svc, f.platform, runs[0].ID, q.Import); err != nil {
			return err
		}
		if f.approve != "" || q.Import != nil && runs[0].Mode == reconciler.ImportFile {
			return st.printRun(ctx, runs[0].ID, f.check)
		}
		if id, err = svc.Start(ctx, q); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if err := st.followRun(ctx, svc, f.platform, id, q.Import); err != nil {
		return err
	}
	return st.printRun(ctx, id, f.check)
}

// followRun does a run, or waits for the process that does it.
func (st *store) followRun(ctx context.Context, svc *reconciler.Service, platform string, id uuid.UUID, file *reconciler.Import) error {
	for {
		err := svc.Work(ctx, platform, file)
		if !errors.Is(err, reconciler.ErrRunning) {
			return err
		}
		r, err := suppressions.RunByID(ctx, st.db, id)
		if err != nil || r.FinishedAt != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (st *store) approve(ctx context.Context, svc *reconciler.Service, platform, reason string) error {
	runs, err := suppressions.Runs(ctx, st.db, suppressions.RunFilter{Platform: platform, Limit: 1})
	if err != nil {
		return err
	}
	if len(runs) == 0 || runs[0].FinishedAt != nil {
		return fmt.Errorf("no reconciliation of %s waits for anybody", platform)
	}
	return svc.Approve(ctx, runs[0].ID, actor(), reason)
}

// printRun prints what a run counted, by class.
func (st *store) printRun(ctx context.Context, id uuid.UUID, check bool) error {
	if err := st.catchUp(ctx); err != nil {
		return err
	}
	r, err := suppressions.RunByID(ctx, st.db, id)
	if err != nil {
		return err
	}
	s := st.settings
	if s.output == "json" {
		if err := s.printJSON(r); err != nil {
			return err
		}
	} else {
		t := table{columns: []string{"class", "differences"}}
		if r.Counts != nil {
			for _, class := range domain.DifferenceClasses {
				if n := r.Counts.Differences[class]; n > 0 {
					t.add(nil, class, strconv.FormatInt(n, 10))
				}
			}
		}
		if err := s.print(t); err != nil {
			return err
		}
		if c := r.Counts; c != nil && s.output == "table" {
			fmt.Fprintf(s.env.stdout, "\n%s %s: read %d, suppressed there %d, opted out here %d, agreed %d; %d of %d contacts known there; %d unconfirmed, %d findings open\n",
				r.Mode, r.State, c.Read, c.Suppressed, c.OptedOut, c.Agreed, c.KnownThere, c.Contacts, c.Unconfirmed, c.Open)
		}
	}
	switch {
	case r.State == domain.RunFailed && r.Error != nil:
		return errors.New(*r.Error)
	case check && r.Counts != nil && len(r.Counts.Differences) > 0:
		return errUntrue
	}
	return nil
}

// imported is a file that is being imported.
type imported struct {
	reconciler.Import

	close func()
}

// importFile opens an export and says which file it is. What comes on standard input is kept in a file first: its sum is
// recorded before its rows are.
func (st *store) importFile(name string) (*imported, error) {
	var f *os.File
	var err error
	if name == "-" {
		if f, err = os.CreateTemp("", "dispatch-ledger-import-*.csv"); err == nil {
			_ = os.Remove(f.Name()) // it goes when it is closed
			_, err = io.Copy(f, st.settings.env.stdin)
		}
	} else {
		f, err = os.Open(name)
	}
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	size, err := f.Seek(0, io.SeekStart)
	if err == nil {
		size, err = io.Copy(sum, f)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	shown := 0
	return &imported{
		Import: reconciler.Import{
			Reader: f, File: domain.ImportFile{Name: filepath.Base(name), SHA256: hex.EncodeToString(sum.Sum(nil)), Bytes: size},
			Refused: func(err error) {
				if shown++; shown <= 20 {
					fmt.Fprintln(st.settings.env.stderr, err)
				}
			},
		},
		close: func() { _ = f.Close() },
	}, nil
}
