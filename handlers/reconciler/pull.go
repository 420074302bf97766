package reconciler

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
)

// patience bounds how often a platform that fails is asked again without having answered in between.
const patience = 12

// pull reads the channels' lists page by page. A page and the cursor that follows it are committed together: whoever is
// killed goes on behind the last page that counts.
func (s *Service) pull(ctx context.Context, l *link, r *run) error {
	if err := s.restage(ctx, r); err != nil {
		return err
	}
	for r.channel <= len(r.channels) {
		channel := r.channels[r.channel-1]
		if !l.reads(channel) {
			if err := s.nextChannel(ctx, r); err != nil {
				return err
			}
			continue
		}
		if err := s.pullChannel(ctx, l, r, channel); err != nil {
			return fmt.Errorf("read the %s list: %w", channel, err)
		}
	}
	return nil
}

// restage begins again when the pages that were read are not there any more, which is what a crash of the database does.
func (s *Service) restage(ctx context.Context, r *run) error {
	n, err := suppressions.Staged(ctx, s.DB, r.id)
	if err != nil || n == r.staged {
		return err
	}
	s.Log.WarnContext(ctx, "the pages of a reconciliation were lost; reading again", slog.String("platform", r.platform), slog.Int64("had", r.staged), slog.Int64("have", n))
	return r.rewind(ctx, s.DB, r.phase)
}

func (s *Service) nextChannel(ctx context.Context, r *run) error {
	if _, err := s.DB.ExecContext(ctx, `UPDATE reconciliations SET channel = channel + 1, cursor = '' WHERE id = $1`, r.id); err != nil {
		return err
	}
	r.channel, r.cursor = r.channel+1, ""
	return nil
}

func (s *Service) pullChannel(ctx context.Context, l *link, r *run, channel domain.Channel) error {
	source := l.client.(platforms.Source)
	query := platforms.Query{Channel: channel, Since: r.since, Full: r.whole()}
	if !query.Full {
		query.Since = query.Since.Add(-l.caps.SinceStep)
	}
	failures, restarted := 0, false
	for {
		query.Cursor = platforms.Cursor(r.cursor)
		err := s.pages(ctx, l, r, source, query, func() { failures = 0 })
		if err == nil {
			return s.nextChannel(ctx, r)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wait, again := s.retry(err, failures)
		switch {
		case again && failures < patience:
			failures++
			if err := s.Sleep(ctx, wait); err != nil {
				return err
			}
		case errors.Is(err, platforms.ErrRejected) && r.cursor != "" && !restarted:
			// The platform has forgotten the place: its list is read from the start, and what was read before is read twice.
			restarted = true
			if _, err := s.DB.ExecContext(ctx, `UPDATE reconciliations SET cursor = '' WHERE id = $1`, r.id); err != nil {
				return err
			}
			r.cursor = ""
		default:
			return err
		}
	}
}

// retry says how long to wait before a platform is asked again, and whether that can help.
func (s *Service) retry(err error, failures int) (time.Duration, bool) {
	var failed *platforms.APIError
	if errors.As(err, &failed) && !failed.Verdict.RetryAt.IsZero() {
		if wait := failed.Verdict.RetryAt.Sub(s.Now()); wait > 0 {
			return min(wait, time.Hour), true
		}
	}
	if errors.Is(err, platforms.ErrThrottled) || errors.Is(err, platforms.ErrUnavailable) {
		return min(time.Second<<min(failures, 6), time.Minute), true
	}
	return 0, false
}

// stageRows is how many rows of pages that have come already are committed together.
const stageRows = 5000

// pages reads on from the run's cursor to the end of the channel's list. Pages are read while those before them are hashed and
// committed, two of them ahead; where they come faster than that, several are committed together, with the cursor that follows
// the last.
func (s *Service) pages(ctx context.Context, l *link, r *run, source platforms.Source, query platforms.Query, came func()) error {
	reading, stop := context.WithCancel(ctx)
	read := make(chan platforms.Page, 2)
	var failed error // the platform's; set before read is closed
	go func() {
		defer close(read)
		for page, err := range source.Suppressions(reading, query) {
			if err != nil {
				failed = err
				return
			}
			select {
			case read <- page:
			case <-reading.Done():
				return
			}
			if page.Done {
				return
			}
		}
	}()
	defer func() {
		stop()
		for range read { // whoever reads has ended when this does
		}
	}()
	var come gathered
	commit := func() error {
		if come.pages == 0 {
			return nil
		}
		if err := s.commitPages(ctx, r, query.Channel, &come); err != nil {
			return err
		}
		come = gathered{rows: come.rows[:0]}
		came()
		return nil
	}
	for page := range read {
		come.add(&page, s.rows(l, query.Channel, page.Records))
		if len(come.rows) < stageRows && len(read) > 0 {
			continue
		}
		if err := commit(); err != nil {
			return err
		}
	}
	if err := commit(); err != nil {
		return err
	}
	return errors.Join(failed, ctx.Err())
}

// gathered is what several pages say.
type gathered struct {
	pages   int
	records int
	rows    []suppressions.Row
	partial bool   // one of them comes from a list that is not complete
	next    string // the cursor that follows the last
}

func (g *gathered) add(page *platforms.Page, rows []suppressions.Row) {
	g.pages++
	g.records += len(page.Records)
	g.rows = append(g.rows, rows...)
	g.partial = g.partial || !page.Complete
	g.next = string(page.Next)
}

func (s *Service) commitPages(ctx context.Context, r *run, channel domain.Channel, come *gathered) error {
	tx, err := s.DB.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if come.partial && !slices.Contains(r.partial, string(channel)) {
		r.partial = append(r.partial, string(channel))
	}
	if err := suppressions.Stage(ctx, tx, r.id, channel, r.staged, come.rows); err != nil {
		return err
	}
	err = tx.QueryRowContext(ctx, `UPDATE reconciliations SET staged = staged + $2, "read" = "read" + $3, cursor = $4, partial = $5 WHERE id = $1 RETURNING staged, "read"`,
		r.id, len(come.rows), come.records, come.next, pq.Array(r.partial)).Scan(&r.staged, &r.read)
	if err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	r.cursor = come.next
	return nil
}

// rows are what a page says, by hash.
func (s *Service) rows(l *link, channel domain.Channel, records []platforms.Record) []suppressions.Row {
	rows := make([]suppressions.Row, 0, len(records))
	for i := range records {
		if row, ok := s.row(l, channel, &records[i]); ok {
			rows = append(rows, row)
		}
	}
	return rows
}

// row is one record by its hash. A record without an address speaks of nobody that we could know.
func (s *Service) row(l *link, channel domain.Channel, rec *platforms.Record) (suppressions.Row, bool) {
	if rec.Addr.Value == "" || rec.Addr.Channel != channel {
		return suppressions.Row{}, false
	}
	row := suppressions.Row{Hash: s.Vault.ContactHash(string(channel), rec.Addr.Value), Scope: l.scopeName(channel, rec.Scope)}
	if rec.State != platforms.Suppressed {
		row.Gone = true
		if row.Scope == "" {
			row.Address = rec.Addr.Value
		}
		if rec.State == platforms.Cleared && len(rec.Facts) > 0 {
			row.Reason = string(rec.Facts[0].Reason)
			if rec.Facts[0].Precision != platforms.UpperBound {
				row.At = rec.Facts[0].At
			}
		}
		return row, true
	}
	fact := decisive(rec.Facts)
	row.Reason, row.Class, row.Native = string(fact.Reason), string(fact.Reason.Class()), masked(fact.Native)
	row.At, row.Precision = fact.At, string(fact.Precision)
	if row.Class == string(platforms.StateClass) {
		row.Class = string(platforms.DeliverabilityClass)
	}
	if row.Precision == "" || row.At.IsZero() {
		row.At, row.Precision = time.Time{}, string(platforms.UnknownTime)
	}
	if now := s.Now(); row.At.After(now) {
		row.At = now // a clock that is ahead must not outlast what the person says next
	}
	return row, true
}

// scopeName writes a scope as kind:id. What is written for the one group that the policy names is as good as global.
func (l *link) scopeName(channel domain.Channel, scope platforms.Scope) string {
	if scope.Kind == "" || scope.Kind == platforms.Global || scope == l.scope(channel) {
		return ""
	}
	return string(scope.Kind) + ":" + scope.ID
}

// decisive is the reason among several that decides: what the person said before what the address does, and the latest of
// those.
func decisive(facts []platforms.Fact) platforms.Fact {
	var best platforms.Fact
	for i, f := range facts {
		switch {
		case i == 0:
			best = f
		case (f.Reason.Class() == platforms.ConsentClass) != (best.Reason.Class() == platforms.ConsentClass):
			if f.Reason.Class() == platforms.ConsentClass {
				best = f
			}
		case f.At.After(best.At):
			best = f
		}
	}
	if best.Reason == "" {
		best.Reason = platforms.Unknown
	}
	return best
}

// importRows stages a platform's export. Only what suppresses is taken: that somebody was fine when an export was made is no
// reason to lift anything.
func (s *Service) importRows(ctx context.Context, l *link, r *run, file *Import) error {
	if file == nil {
		return errors.New("the import was interrupted; give the file again")
	}
	byChannel := map[domain.Channel][]suppressions.Row{}
	var read, unreadable int64
	var last error
	flush := func(channel domain.Channel) error {
		rows := byChannel[channel]
		byChannel[channel] = nil
		return s.inTx(ctx, func(tx *sql.Tx) error {
			if err := suppressions.Stage(ctx, tx, r.id, channel, r.staged, rows); err != nil {
				return err
			}
			return tx.QueryRowContext(ctx, `UPDATE reconciliations SET staged = staged + $2 WHERE id = $1 RETURNING staged`, r.id, len(rows)).Scan(&r.staged)
		})
	}
	for rec, err := range l.platform.Import.Import(file.Reader, s.Now) {
		if err != nil {
			unreadable++
			if file.Refused != nil {
				file.Refused(err)
			}
			last = err
			continue
		}
		read++
		row, ok := s.row(l, rec.Addr.Channel, &rec)
		if !ok || row.Gone || !slices.Contains(r.channels, rec.Addr.Channel) {
			continue
		}
		if byChannel[rec.Addr.Channel] = append(byChannel[rec.Addr.Channel], row); len(byChannel[rec.Addr.Channel]) >= 5000 {
			if err := flush(rec.Addr.Channel); err != nil {
				return err
			}
		}
	}
	if read == 0 && last != nil {
		return last // no heading that is known, or not one row that can be read
	}
	for _, channel := range r.channels {
		if err := flush(channel); err != nil {
			return err
		}
	}
	r.read, r.unreadable = read, unreadable
	r.partial = r.partial[:0]
	for _, c := range r.channels {
		r.partial = append(r.partial, string(c))
	}
	_, err := s.DB.ExecContext(ctx, `UPDATE reconciliations SET "read" = $2, unreadable = $3, partial = $4 WHERE id = $1`, r.id, read, unreadable, pq.Array(r.partial))
	return err
}

func (s *Service) inTx(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := s.DB.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit()
}
