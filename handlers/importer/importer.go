package importer

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Source of the events that records become.
const Source = "/import"

// batchRows is how many records are recorded in one append, and after how many an interrupted import goes on.
const batchRows = 500

// importNamespace is where the ids of imports are derived in; it never changes, or an interrupted one would begin anew.
var importNamespace = uuid.MustParse("e3b2a1f4-0f27-4c1b-8a57-6b1c5d9e7f20")

// Importer brings files in. All fields are required.
type Importer struct {
	Intake *intake.Service
	DB     *sql.DB
}

// Job is one file and how to read it.
type Job struct {
	Name     string // of the file, for people
	Format   string // csv or ndjson
	SHA256   []byte // of the file; nil: what was done of it before is not looked up, and records are recognised one by one
	Actor    string // who imports it
	Defaults Defaults
	DryRun   bool // say what would happen, and record nothing

	Begin    func(Summary)      // called once it is known where the import goes on; may be nil
	Progress func(Summary)      // called after each batch; may be nil
	Reject   func(Reject) error // called for each record that cannot be read; may be nil
}

// Reject is a record that could not be read.
type Reject struct {
	Line   int64  `json:"line"`
	Field  string `json:"field,omitempty"`
	Reason string `json:"reason"`
}

// Summary is what became of a file's records.
type Summary struct {
	ImportID   uuid.UUID `json:"import_id"`
	DryRun     bool      `json:"dry_run"`
	Line       int64     `json:"line" doc:"The last line that was read."`
	Resumed    int64     `json:"resumed_after_line" doc:"Where an interrupted import went on; 0 from the start."`
	Rows       int64     `json:"rows"`
	Recorded   int64     `json:"recorded"`
	Duplicates int64     `json:"duplicates" doc:"Records that stood in the ledger before."`
	Empty      int64     `json:"empty" doc:"Records that answer nothing: never asked, or not opted out of everything."`
	Rejected   int64     `json:"rejected"`
	Position   int64     `json:"position,omitempty" doc:"Of consent.imported, once the file has come to its end."`
}

// pending is one record on its way into the ledger, with the events it became.
type pending struct {
	line   int64
	events []intake.Event
}

// run is one import under way.
type run struct {
	*Importer
	Job
	Summary
	batch []pending
}

// Run imports a file. Safe to repeat and to interrupt: what is recorded is recognised, and with Job.SHA256 the file goes
// on where it stopped. Errors: ErrFile; those of intake.Service.Accept; the reader's. The summary holds in any case.
func (im *Importer) Run(ctx context.Context, job Job, file io.Reader) (Summary, error) {
	if job.Defaults.DecidedBy == "" {
		job.Defaults.DecidedBy = "import"
	}
	if job.Defaults.Method == "" {
		job.Defaults.Method = "import"
	}
	how := fmt.Sprintf("%x\x00%s\x00%s\x00%s\x00%s", job.SHA256, job.Format, job.Defaults.DecidedAt.UTC(), job.Defaults.DecidedBy, job.Defaults.Method)
	if job.SHA256 == nil {
		how = uuid.NewString()
	}
	r := &run{Importer: im, Job: job, Summary: Summary{ImportID: uuid.NewSHA1(importNamespace, []byte(how)), DryRun: job.DryRun}}
	if err := r.resume(ctx); err != nil {
		return r.Summary, fmt.Errorf("import: %w", err)
	}
	if job.Begin != nil {
		job.Begin(r.Summary)
	}
	for row, err := range rows(file, job.Format) {
		if ctx.Err() != nil {
			return r.Summary, ctx.Err()
		}
		var bad *RejectedError
		if err != nil && !errors.As(err, &bad) {
			return r.Summary, errors.Join(err, r.flush(ctx))
		}
		if row.Line <= r.Resumed {
			continue
		}
		if err := r.row(row, err); err != nil {
			return r.Summary, err
		}
		if len(r.batch) >= batchRows {
			if err := r.flush(ctx); err != nil {
				return r.Summary, err
			}
		}
	}
	if err := r.flush(ctx); err != nil {
		return r.Summary, err
	}
	return r.Summary, r.finish(ctx)
}

// row takes one record up, or rejects it.
func (r *run) row(row Row, err error) error {
	r.Rows++
	r.Line = row.Line
	var decisions []domain.ConsentChanged
	if err == nil {
		decisions, err = row.decisions(r.Defaults)
	}
	if err != nil {
		return r.reject(row.Line, err)
	}
	if len(decisions) == 0 {
		r.Empty++
		return nil
	}
	p := pending{line: row.Line}
	for _, d := range decisions {
		e, err := event(d, r.ImportID)
		if err != nil {
			return err
		}
		p.events = append(p.events, e)
	}
	r.batch = append(r.batch, p)
	return nil
}

func (r *run) reject(line int64, err error) error {
	r.Rejected++
	out := Reject{Line: line, Reason: err.Error()}
	var bad *RejectedError
	var invalid *domain.InvalidError
	switch {
	case errors.As(err, &bad):
		out.Field, out.Reason = bad.Field, bad.Reason
	case errors.As(err, &invalid):
		out.Field, out.Reason = strings.TrimPrefix(invalid.Pointer, "/"), invalid.Message
	}
	if r.Reject == nil {
		return nil
	}
	return r.Reject(out)
}

// flush records the batch: what the intake refuses is rejected, and the others go on without it.
func (r *run) flush(ctx context.Context) error {
	for len(r.batch) > 0 {
		var events []intake.Event
		var owner []int
		for i, p := range r.batch {
			for _, e := range p.events {
				events, owner = append(events, e), append(owner, i)
			}
		}
		accepted, err := r.accept(ctx, events)
		var refused *intake.RefusedError
		if errors.As(err, &refused) {
			bad := map[int]bool{}
			for _, refusal := range refused.Refusals {
				i := owner[refusal.Index]
				if bad[i] {
					continue
				}
				bad[i] = true
				if err := r.reject(r.batch[i].line, reject(strings.TrimPrefix(refusal.Pointer, "/data/"), "%s", refusal.Detail)); err != nil {
					return err
				}
			}
			kept := r.batch[:0]
			for i, p := range r.batch {
				if !bad[i] {
					kept = append(kept, p)
				}
			}
			r.batch = kept
			continue
		}
		if err != nil {
			return fmt.Errorf("import, up to line %d: %w", r.Line, err)
		}
		fresh := make([]bool, len(r.batch))
		for i, a := range accepted {
			fresh[owner[i]] = fresh[owner[i]] || !a.Duplicate
		}
		for _, f := range fresh {
			if f {
				r.Recorded++
			} else {
				r.Duplicates++
			}
		}
		r.batch = r.batch[:0]
	}
	if err := r.remember(ctx, false); err != nil {
		return fmt.Errorf("import, up to line %d: %w", r.Line, err)
	}
	if r.Progress != nil {
		r.Progress(r.Summary)
	}
	return nil
}

// accept records events, or in a dry run says whether they would be.
func (r *run) accept(ctx context.Context, events []intake.Event) ([]intake.Accepted, error) {
	if !r.Job.DryRun {
		return r.Intake.Accept(ctx, r.Actor, events)
	}
	if err := r.Intake.Check(events); err != nil {
		return nil, err
	}
	out := make([]intake.Accepted, len(events))
	for i, e := range events {
		_, err := schema.EventByID(ctx, r.DB, intake.EventID(e.Source, e.ID))
		if err != nil && !errors.Is(err, schema.ErrNotFound) {
			return nil, err
		}
		out[i].Duplicate = err == nil
	}
	return out, nil
}

// resume finds how far the same file came before.
func (r *run) resume(ctx context.Context) error {
	if r.SHA256 == nil || r.Job.DryRun {
		return nil
	}
	var done bool
	err := r.DB.QueryRowContext(ctx, `SELECT line, recorded, duplicates, rejected, done FROM imports WHERE id = $1`, r.ImportID).
		Scan(&r.Resumed, &r.Recorded, &r.Duplicates, &r.Rejected, &done)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if done { // once more from the start: every record is recognised
		r.Resumed, r.Recorded, r.Duplicates, r.Rejected = 0, 0, 0, 0
	}
	return err
}

func (r *run) remember(ctx context.Context, done bool) error {
	if r.SHA256 == nil || r.Job.DryRun {
		return nil
	}
	_, err := r.DB.ExecContext(ctx, `
		INSERT INTO imports AS i (id, name, line, recorded, duplicates, rejected, done) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (id) DO UPDATE SET name = excluded.name, line = excluded.line, recorded = excluded.recorded, duplicates = excluded.duplicates,
			rejected = excluded.rejected, done = excluded.done, updated_at = clock_timestamp()`,
		r.ImportID, r.Name, max(r.Line, r.Resumed), r.Recorded, r.Duplicates, r.Rejected, done)
	return err
}

// finish records that the file was imported, unless nothing of it was new.
func (r *run) finish(ctx context.Context) error {
	if r.Job.DryRun || r.Recorded == 0 {
		return r.remember(ctx, true)
	}
	e, _, err := domain.New(domain.EventID(r.ImportID, fmt.Sprint("imported-", r.Recorded, "-", r.Rejected)), domain.ConsentImported{
		ImportID: r.ImportID, Name: r.Name, SHA256: hex.EncodeToString(r.SHA256), Format: r.Format,
		Rows: r.Recorded + r.Duplicates + r.Rejected + r.Empty, Recorded: r.Recorded, Duplicates: r.Duplicates, Empty: r.Empty, Rejected: r.Rejected,
	})
	if err != nil {
		return err
	}
	e.Actor, e.Source, e.CorrelationID, e.OccurredAt = r.Actor, Source, r.ImportID, r.Intake.Clock().UTC().Truncate(time.Microsecond)
	appended, err := r.Intake.Ledger.Append(ctx, e)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	r.Position = appended[0].Position
	return r.remember(ctx, true)
}
