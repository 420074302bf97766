package reconciler

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// The modes of a run.
const (
	Full        = "full"
	Incremental = "incremental"
	ImportFile  = "import"
)

// Request asks for a run.
type Request struct {
	Platform string // the connection's name
	Mode     string // full or incremental; empty: full when the last one is older than the policy says
	Check    bool   // compare and report, no more
	Trigger  string // schedule, api or cli
	Actor    string
	Import   *Import
}

// Import is a platform's export that takes the place of its list.
type Import struct {
	Reader  io.Reader
	File    domain.ImportFile
	Refused func(error) // told of each row that cannot be read; may be nil
}

// The phases of a run, in order. Each may be repeated.
const (
	phasePull     = "pull"
	phaseCompare  = "compare"
	phaseHeld     = "held"
	phaseRecord   = "record"
	phasePush     = "push"
	phaseReadback = "readback"
	phaseConfirm  = "confirm"
	phaseFinish   = "finish"
)

// run is a run's row.
type run struct {
	id         uuid.UUID
	platform   string
	mode       string
	check      bool
	actor      string
	channels   []domain.Channel
	since      time.Time
	startedAt  time.Time
	phase      string
	channel    int // 1 is the first of channels
	cursor     string
	staged     int64
	read       int64
	unreadable int64
	partial    []string
	readUntil  time.Time
	readbacks  int
	looks      int
	approved   bool
	waitUntil  time.Time
	policy     int64
	counts     domain.ReconciliationCounts
}

// whole reports whether everything is read, whatever its date.
func (r *run) whole() bool { return r.mode == Full && r.phase == phasePull }

// Start records a run, for Work to do. Errors: ErrRunning, ErrNotConnected, platforms.ErrConnection.
func (s *Service) Start(ctx context.Context, q Request) (uuid.UUID, error) {
	l, err := s.open(ctx, q.Platform)
	if err != nil {
		return uuid.Nil, err
	}
	r := &run{id: uuid.New(), platform: l.Name, mode: q.Mode, check: q.Check, actor: q.Actor, channels: l.channels(), startedAt: s.Now().UTC(), phase: phasePull, policy: l.Version}
	if q.Import != nil {
		r.mode = ImportFile
	}
	if len(r.channels) == 0 {
		return uuid.Nil, fmt.Errorf("%w: nothing can be read from or written to %s: %v", ErrNotConnected, l.Name, l.caps.Cannot)
	}
	if err := s.plan(ctx, l, r); err != nil {
		return uuid.Nil, err
	}
	started := domain.ReconciliationStarted{ID: r.id, Platform: l.Name, Mode: r.mode, Channels: r.channels, Since: r.since, Check: r.check, Trigger: q.Trigger, Policy: l.Version}
	if q.Import != nil {
		started.File = &q.Import.File
	}
	e, _, err := domain.New(named(r.id, "started"), started)
	if err != nil {
		return uuid.Nil, err
	}
	e.Actor, e.Source, e.OccurredAt, e.CorrelationID = q.Actor, Source, r.startedAt, r.id
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `INSERT INTO reconciliations (platform, id, mode, "check", "trigger", actor, channels, since, started_at, policy)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (platform) DO NOTHING`,
			r.platform, r.id, r.mode, r.check, q.Trigger, q.Actor, pq.Array(r.channels), since(r.since), r.startedAt, r.policy)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, fmt.Errorf("%w: %s", ErrRunning, l.Name))
		}
		_, err = s.Ledger.AppendTx(ctx, tx, e)
		return err
	})
	return r.id, err
}

func since(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}

// plan chooses what is read: everything, or what changed since the last run began, with an overlap. A platform of which
// nothing can be read has nothing to be incremental about.
func (s *Service) plan(ctx context.Context, l *link, r *run) error {
	full, last, err := suppressions.Last(ctx, s.DB, l.Name)
	if err != nil || r.mode == ImportFile {
		return err
	}
	if r.mode == "" {
		r.mode = Incremental
		if r.startedAt.Sub(full) >= time.Duration(l.FullEvery) {
			r.mode = Full
		}
	}
	if full.IsZero() {
		r.mode = Full
	}
	if r.mode == Incremental {
		r.since = last.Add(-time.Duration(l.Overlap))
	}
	return nil
}

// load reads a platform's run. The error is schema.ErrNotFound when none is under way.
func (s *Service) load(ctx context.Context, platform string) (*run, error) {
	r := &run{platform: platform}
	var began, until, wait sql.NullTime
	var counts []byte
	var channels []string
	err := s.DB.QueryRowContext(ctx, `SELECT id, mode, "check", actor, channels, since, started_at, phase, channel, cursor, staged, "read", unreadable, partial, read_until, readbacks, approved, wait_until, policy, counts, looks
		FROM reconciliations WHERE platform = $1`, platform).Scan(&r.id, &r.mode, &r.check, &r.actor, pq.Array(&channels), &began, &r.startedAt, &r.phase, &r.channel, &r.cursor,
		&r.staged, &r.read, &r.unreadable, pq.Array(&r.partial), &until, &r.readbacks, &r.approved, &wait, &r.policy, &counts, &r.looks)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("no reconciliation of %s is under way: %w", platform, schema.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("reconciliation of %s: %w", platform, err)
	}
	r.since, r.readUntil, r.waitUntil, r.startedAt = began.Time.UTC(), until.Time.UTC(), wait.Time, r.startedAt.UTC()
	for _, c := range channels {
		r.channels = append(r.channels, domain.Channel(c))
	}
	if err := json.Unmarshal(counts, &r.counts); err != nil {
		return nil, fmt.Errorf("reconciliation of %s: %w", platform, err)
	}
	return r, nil
}

// rewind forgets the pages that were read, and reads again for the phase.
func (r *run) rewind(ctx context.Context, db *sql.DB, phase string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := suppressions.Unstage(ctx, tx, r.id); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE reconciliations SET phase = $2, channel = 1, cursor = '', staged = 0, partial = '{}', since = $3, readbacks = $4, looks = 1 WHERE id = $1`, r.id, phase, since(r.since), r.readbacks); err != nil {
		return err
	}
	r.phase, r.channel, r.cursor, r.staged, r.partial, r.looks = phase, 1, "", 0, []string{}, 1 // which is not NULL
	return tx.Commit()
}

// enter moves a run to its next phase.
func (s *Service) enter(ctx context.Context, q schema.Querier, r *run, phase string) error {
	counts, err := json.Marshal(r.counts)
	if err != nil {
		return err
	}
	if _, err := q.ExecContext(ctx, `UPDATE reconciliations SET phase = $2, counts = $3, read_until = coalesce($4, read_until), wait_until = $5, readbacks = $6 WHERE id = $1`,
		r.id, phase, string(counts), since(r.readUntil), since(r.waitUntil), r.readbacks); err != nil {
		return err
	}
	r.phase = phase
	return nil
}

// Work does a platform's run to its end, from wherever it stands, and gives it as it ended. file is only needed for an
// import. One process works on a platform at a time; ErrRunning says that another does. ErrHeld says that it waits for a
// person. A run that cannot go on ends as failed, with the reason, and that reason is the error.
func (s *Service) Work(ctx context.Context, platform string, file *Import) error {
	unlock, err := s.lock(ctx, platform)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := s.load(ctx, platform)
	if err != nil {
		return err
	}
	log := s.Log.With(slog.String("platform", platform), slog.String("reconciliation", r.id.String()))
	l, err := s.open(ctx, platform)
	if err == nil {
		err = s.steps(ctx, l, r, file)
	}
	if err == nil || errors.Is(err, ErrHeld) || ctx.Err() != nil || schema.Transient(err) || errors.Is(err, schema.ErrBusy) || errors.Is(err, schema.ErrClosed) {
		return err // what is only of the moment is tried again, from where the run stands
	}
	log.ErrorContext(ctx, "reconciliation failed", slog.Any("error", err))
	return errors.Join(err, s.finish(ctx, l, r, domain.RunFailed, err))
}

// steps takes one phase after the other.
func (s *Service) steps(ctx context.Context, l *link, r *run, file *Import) error {
	for {
		var err error
		phase, began := r.phase, s.Now()
		if s.Entered != nil {
			s.Entered(phase)
		}
		switch r.phase {
		case phasePull:
			if r.mode == ImportFile {
				if err = r.rewind(ctx, s.DB, phasePull); err == nil {
					err = s.importRows(ctx, l, r, file)
				}
			} else {
				err = s.pull(ctx, l, r)
			}
			if err == nil {
				r.readUntil = s.Now().UTC().Truncate(time.Microsecond)
				err = s.enter(ctx, s.DB, r, phaseCompare)
			}
		case phaseCompare:
			err = s.compare(ctx, l, r)
		case phaseHeld:
			if !r.approved {
				return s.ask(ctx, r)
			}
			err = s.enter(ctx, s.DB, r, phaseRecord)
		case phaseRecord:
			err = s.resolve(ctx, l, r)
		case phasePush:
			err = s.pushAll(ctx, l, r)
		case phaseReadback:
			err = s.readBack(ctx, l, r)
		case phaseConfirm:
			err = s.confirm(ctx, l, r)
		case phaseFinish:
			return s.finish(ctx, l, r, "", nil)
		default:
			return fmt.Errorf("reconciliation %s is in a phase %q that this version of the program does not know", r.id, r.phase)
		}
		s.metrics.phases.WithLabelValues(r.platform, phase).Add(s.Now().Sub(began).Seconds())
		if err != nil {
			return err
		}
	}
}

// lock makes this process the one that works on a platform.
func (s *Service) lock(ctx context.Context, platform string) (unlock func(), err error) {
	unlock, locked, err := schema.TryLock(ctx, s.DB, "reconcile."+platform)
	if err == nil && !locked {
		err = fmt.Errorf("%w: %s, in another process", ErrRunning, platform)
	}
	return unlock, err
}

// comparison describes what of a run is compared on a channel.
func (s *Service) comparison(l *link, r *run, channel domain.Channel) suppressions.Comparison {
	complete := r.mode == Full && r.phase == phaseCompare && l.reads(channel) && !slices.Contains(r.partial, string(channel))
	return suppressions.Comparison{
		Run: r.id, Platform: l.Name, Channel: channel, Policy: l.PlatformPolicy, Started: r.startedAt, Read: r.readUntil,
		Readable: l.lists(channel), Complete: complete, Everyone: l.caps.ShowsAll, Verify: l.verify(), Repeats: l.caps.RepeatsShow, Writable: l.writes(channel), CanLift: l.lifts(channel),
		Undeliverable: undeliverable, Shows: shows(l.caps.ReadReasons[channel]),
	}
}

func shows(reasons []platforms.Reason) []string {
	out := make([]string, len(reasons))
	for i, r := range reasons {
		out[i] = string(r)
	}
	return out
}

// verify is how long a write may take to show, with room for what a busy platform adds.
func (l *link) verify() time.Duration { return l.caps.VerifyAfter + 30*time.Second }

// compare finds the differences, and holds the run when they are too many.
func (s *Service) compare(ctx context.Context, l *link, r *run) error {
	n, err := suppressions.Staged(ctx, s.DB, r.id)
	if err != nil {
		return err
	}
	if n != r.staged {
		return r.rewind(ctx, s.DB, phasePull)
	}
	if err := s.Settle(ctx); err != nil {
		return err
	}
	return s.inTx(ctx, func(tx *sql.Tx) error {
		counts := domain.ReconciliationCounts{Read: r.read, Unreadable: r.unreadable, Differences: map[string]int64{}, Planned: map[string]int64{}}
		var absent int64
		for _, channel := range r.channels {
			n, err := suppressions.Fold(ctx, tx, s.comparison(l, r, channel))
			if err != nil {
				return err
			}
			absent += n
		}
		if absent > 0 && l.caps.Slides && r.mode == Full && r.looks < 2 {
			return s.lookAgain(ctx, tx, r)
		}
		for _, channel := range r.channels {
			t, err := suppressions.Classify(ctx, tx, s.comparison(l, r, channel))
			if err != nil {
				return err
			}
			counts.Suppressed += t.Suppressed
			counts.OptedOut += t.OptedOut
			counts.Agreed += t.Agreed
			counts.Contacts += t.Contacts
			counts.KnownThere += t.KnownThere
			for class, n := range t.Differences {
				counts.Differences[class] += n
			}
			for action, n := range t.Planned {
				counts.Planned[action] += n
			}
		}
		r.counts = counts
		next := phaseRecord
		switch {
		case r.check:
			next = phaseFinish
		case s.tooMuch(l, r) && !r.approved:
			next = phaseHeld
		}
		return s.enter(ctx, tx, r, next)
	})
}

// lookAgain has the list read once more, beside what was read. Who slid past the pages while others left the list is on one of
// them then, and only who is on none either time is taken to be lifted.
func (s *Service) lookAgain(ctx context.Context, tx *sql.Tx, r *run) error {
	if err := s.enter(ctx, tx, r, phasePull); err != nil {
		return err
	}
	r.channel, r.cursor, r.read, r.looks = 1, "", 0, 2
	_, err := tx.ExecContext(ctx, `UPDATE reconciliations SET channel = 1, cursor = '', "read" = 0, looks = 2 WHERE id = $1`, r.id)
	return err
}

// changes are what a run would change on either side, and of how many.
func (r *run) changes() (changes, of int64) {
	for _, action := range []string{"record", "push", "lift"} {
		changes += r.counts.Planned[action]
	}
	return changes, max(r.counts.Suppressed, r.counts.OptedOut, 1)
}

// tooMuch reports whether a run would change more than its policy allows without asking.
func (s *Service) tooMuch(l *link, r *run) bool {
	changes, of := r.changes()
	return changes > l.CapFrom && float64(changes)*100 > l.Cap*float64(of)
}

// ask says that the run waits for a person, once.
func (s *Service) ask(ctx context.Context, r *run) error {
	policy, err := suppressions.PolicyOf(ctx, s.DB, r.platform)
	if err != nil {
		return err
	}
	changes, of := r.changes()
	percent := float64(changes) * 100 / float64(of)
	explain := fmt.Sprintf("%d changes beside %d suppressed addresses are %.1f %%, and the policy lets a run change %g %%: %d opt-outs would be recorded here, %d written there and %d lifted there",
		changes, of, percent, policy.Cap, r.counts.Planned["record"], r.counts.Planned["push"], r.counts.Planned["lift"])
	err = s.record(ctx, r.actor, r.readUntil, []item{{named(r.id, "held"), r.id, domain.ReconciliationHeld{
		ID: r.id, Platform: r.platform, Changes: changes, Of: of, Percent: percent, Cap: policy.Cap, Explain: explain,
	}}})
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: %s; approve it, or stop it", ErrHeld, explain)
}

// Approve lets a held run go on. Errors: schema.ErrNotFound, schema.ErrConflict when it does not wait.
func (s *Service) Approve(ctx context.Context, id uuid.UUID, actor, reason string) error {
	var platform string
	return s.inTx(ctx, func(tx *sql.Tx) error {
		if err := s.held(ctx, tx, id, &platform); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE reconciliations SET approved = true WHERE id = $1`, id); err != nil {
			return err
		}
		return s.appendTx(ctx, tx, actor, named(id, "approved"), domain.ReconciliationApproved{ID: id, Platform: platform, Reason: reason})
	})
}

// Stop ends a run that has not ended: what it recorded stays, what it would still have done is left. Errors:
// schema.ErrNotFound; ErrRunning when a process is at it.
func (s *Service) Stop(ctx context.Context, id uuid.UUID, actor, reason string) error {
	var platform string
	err := s.DB.QueryRowContext(ctx, `SELECT platform FROM reconciliations WHERE id = $1`, id).Scan(&platform)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("reconciliation %s is not under way: %w", id, schema.ErrNotFound)
	}
	if err != nil {
		return err
	}
	unlock, err := s.lock(ctx, platform)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := s.load(ctx, platform)
	if err != nil {
		return err
	}
	r.actor = actor
	return s.finish(ctx, nil, r, domain.RunStopped, errors.New(reason))
}

func (s *Service) held(ctx context.Context, tx *sql.Tx, id uuid.UUID, platform *string) error {
	var phase string
	err := tx.QueryRowContext(ctx, `SELECT platform, phase FROM reconciliations WHERE id = $1 FOR UPDATE`, id).Scan(platform, &phase)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("reconciliation %s is not under way: %w", id, schema.ErrNotFound)
	case err != nil:
		return err
	case phase != phaseHeld:
		return fmt.Errorf("reconciliation %s does not wait for anybody: %w", id, schema.ErrConflict)
	}
	return nil
}

func (s *Service) appendTx(ctx context.Context, tx *sql.Tx, actor string, id uuid.UUID, p domain.Payload) error {
	e, secret, err := domain.New(id, p)
	if err != nil {
		return err
	}
	e.Actor, e.Source, e.OccurredAt = actor, Source, s.Now().UTC()
	events := []domain.Event{e}
	if secret != nil {
		if err := s.Vault.SealEvents(ctx, events, [][]byte{secret}); err != nil {
			return err
		}
	}
	_, err = s.Ledger.AppendTx(ctx, tx, events...)
	return err
}

// keepRuns is how many ended runs of a platform keep the list of what they found.
const keepRuns = 20

// errEnded is a run that somebody else has ended: a process that was killed as it did so, whose last transaction outlived it.
var errEnded = errors.New("the reconciliation has ended")

// finish ends a run. l may be nil when its connection could not be opened.
func (s *Service) finish(ctx context.Context, l *link, r *run, outcome string, cause error) error {
	readable := []domain.Channel{}
	if l != nil {
		readable = l.readable()
	}
	if err := s.Settle(ctx); err != nil {
		return err
	}
	standing, err := suppressions.StandingOf(ctx, s.DB, r.platform, readable)
	if err != nil {
		return err
	}
	counts := r.counts
	counts.Read, counts.Unreadable = r.read, r.unreadable
	counts.Open, counts.Unconfirmed = standing.Open, standing.Unconfirmed
	if standing.Oldest != nil {
		counts.Oldest = standing.Oldest.UTC()
	}
	if counts.Differences == nil {
		counts.Differences = map[string]int64{}
	}
	finished := domain.ReconciliationFinished{ID: r.id, Platform: r.platform, Outcome: outcome, Counts: counts, Seconds: s.Now().Sub(r.startedAt).Seconds()}
	if outcome == "" {
		finished.Outcome = domain.RunDone
		if !r.check && (standing.Unconfirmed > 0 || standing.Waiting > 0) {
			finished.Outcome = domain.RunPartial
		}
	}
	if cause != nil {
		finished.Error = masked(cause.Error())
	}
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		ended, err := tx.ExecContext(ctx, `DELETE FROM reconciliations WHERE id = $1`, r.id)
		if err != nil {
			return err
		}
		if n, err := ended.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, errEnded)
		}
		if err := suppressions.Unstage(ctx, tx, r.id); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM reconciled_differences WHERE platform = $1 AND run NOT IN (
			SELECT id FROM reconciliation_runs WHERE platform = $1 ORDER BY position DESC LIMIT $2)`, r.platform, keepRuns); err != nil {
			return err
		}
		return s.appendTx(ctx, tx, r.actor, named(r.id, "finished"), finished)
	})
	if errors.Is(err, errEnded) {
		return nil
	}
	if err != nil {
		return err
	}
	s.observe(finished)
	s.Log.InfoContext(ctx, "reconciliation ended", slog.String("platform", r.platform), slog.String("outcome", finished.Outcome), slog.Int64("read", counts.Read),
		slog.Any("differences", counts.Differences), slog.Float64("seconds", finished.Seconds))
	return nil
}

// observe puts a run's end into the metrics.
func (s *Service) observe(f domain.ReconciliationFinished) {
	m := s.metrics
	m.runs.WithLabelValues(f.Platform, f.Outcome).Inc()
	for class, n := range f.Counts.Differences {
		m.differences.WithLabelValues(f.Platform, class).Add(float64(n))
	}
	m.last.WithLabelValues(f.Platform).Set(float64(s.Now().Unix()))
}
