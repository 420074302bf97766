package main

import (
	"context"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/importer"
)

func consentImport(s *settings) *cobra.Command {
	var format, decided, by, method, rejects string
	var dry bool
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Bring existing consent in from CSV or NDJSON",
		Long: "A record is one answer (profile_id, channel, purpose, status, decided_at) or a profile with the CRM's own field names (profile_id, email_promo, …); " +
			"`consent fields` lists those. A record that cannot be read goes to the rejects file, with its line and the reason, and keeps no other out. " +
			"Importing the same file again records nothing twice, and an import that was interrupted goes on where it stopped. Exit code 3: some records were rejected.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := parseTime("decided-at", decided)
			if err != nil {
				return err
			}
			if format == "" {
				switch strings.ToLower(filepath.Ext(args[0])) {
				case ".csv":
					format = importer.CSV
				case ".ndjson", ".jsonl":
					format = importer.NDJSON
				default:
					return usagef("the name of %s does not say whether it is csv or ndjson; give --format", args[0])
				}
			}
			file, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			sum := sha256.New()
			size, err := io.Copy(sum, file)
			if err != nil {
				return fmt.Errorf("read %s: %w", args[0], err)
			}
			if _, err := file.Seek(0, io.SeekStart); err != nil {
				return fmt.Errorf("read %s: %w", args[0], err)
			}
			if rejects == "" {
				rejects = args[0] + ".rejects.csv"
			}
			bad := &rejectsFile{path: rejects}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				im := importer.Importer{Intake: st.intake(), DB: st.db}
				read := &counted{Reader: file}
				began, told := time.Now(), time.Now()
				got, err := im.Run(ctx, importer.Job{
					Name: filepath.Base(args[0]), Format: format, SHA256: sum.Sum(nil), Actor: actor(), DryRun: dry,
					Defaults: importer.Defaults{DecidedAt: at.UTC(), DecidedBy: by, Method: method}, Reject: bad.add,
					Begin: func(p importer.Summary) {
						if bad.more = p.Resumed > 0; bad.more {
							fmt.Fprintf(s.env.stderr, "going on after line %d\n", p.Resumed)
						}
					},
					Progress: func(p importer.Summary) {
						if time.Since(told) < time.Second {
							return
						}
						told = time.Now()
						rate := float64(p.Rows) / time.Since(began).Seconds()
						fmt.Fprintf(s.env.stderr, "line %d, %d%% read, %d recorded, %d rejected, %.0f records/s\n", p.Line, 100*read.n/max(size, 1), p.Recorded, p.Rejected, rate)
					},
				}, read)
				err = errors.Join(err, bad.close())
				if printed := s.printImport(got); printed != nil {
					err = errors.Join(err, printed)
				}
				if err == nil && got.Rejected > 0 {
					fmt.Fprintf(s.env.stderr, "%d records were rejected; %s says why\n", got.Rejected, rejects)
					return errUntrue
				}
				return err
			})
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "csv or ndjson; by the file's name when empty")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would happen, and record nothing")
	cmd.Flags().StringVar(&decided, "decided-at", "", "when what has no time of its own was decided, RFC 3339")
	cmd.Flags().StringVar(&by, "by", "import", "who decided what does not say so itself: "+strings.Join(domain.DecidedBy, ", "))
	cmd.Flags().StringVar(&method, "method", "import", "how")
	cmd.Flags().StringVar(&rejects, "rejects", "", "where rejected records are listed; FILE.rejects.csv when empty")
	return cmd
}

func (s *settings) printImport(got importer.Summary) error {
	t := table{columns: []string{"rows", "recorded", "duplicates", "empty", "rejected", "resumed_after_line", "dry_run", "import"}}
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	t.add(got, n(got.Rows), n(got.Recorded), n(got.Duplicates), n(got.Empty), n(got.Rejected), n(got.Resumed), strconv.FormatBool(got.DryRun), got.ImportID.String())
	return s.print(t)
}

// counted counts what was read of a file.
type counted struct {
	io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

// rejectsFile lists what could not be read: line, field, reason. It is made when there is something to list.
type rejectsFile struct {
	path string
	more bool // an import goes on: what it rejected before stays listed
	file *os.File
	w    *csv.Writer
}

func (f *rejectsFile) add(r importer.Reject) (err error) {
	if f.file == nil {
		how := os.O_CREATE | os.O_WRONLY | os.O_TRUNC
		if f.more {
			how = os.O_CREATE | os.O_WRONLY | os.O_APPEND
		}
		if f.file, err = os.OpenFile(f.path, how, 0o600); err != nil {
			return fmt.Errorf("make the rejects file: %w; name another with --rejects", err)
		}
		f.w = csv.NewWriter(f.file)
		if !f.more {
			if err := f.w.Write([]string{"line", "field", "reason"}); err != nil {
				return err
			}
		}
	}
	return f.w.Write([]string{strconv.FormatInt(r.Line, 10), harmless(r.Field), harmless(r.Reason)})
}

func (f *rejectsFile) close() error {
	if f.file == nil {
		return nil
	}
	f.w.Flush()
	return errors.Join(f.w.Error(), f.file.Close())
}
