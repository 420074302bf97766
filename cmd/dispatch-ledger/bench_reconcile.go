package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lib/pq"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/reconciler"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/contacts"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func newBenchReconcile(s *settings) *cobra.Command {
	var b benchReconcile
	cmd := &cobra.Command{
		Use: "reconcile", Short: "A platform's list compared with consent and brought into step, beside a bare COPY of the same list", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("data-dir") { // what was prepared there serves
				return s.serving(cmd.Context(), func(ctx context.Context, st *store) error { return st.benchReconcile(ctx, &b) })
			}
			if b.prepare {
				return usagef("--prepare keeps what it makes under --data-dir: name one")
			}
			return s.benchmark(cmd, func(ctx context.Context, st *store) error { return st.benchReconcile(ctx, &b) })
		},
	}
	cmd.Flags().IntVar(&b.entries, "entries", 1_000_000, "addresses on the platform's list")
	cmd.Flags().IntVar(&b.consents, "consents", 5_000_000, "consent rows, two for each person")
	cmd.Flags().BoolVar(&b.prepare, "prepare", false, "make the consent rows under --data-dir and stop: each copy of that directory serves one measurement")
	return cmd
}

// benchReconcile is a platform of --entries addresses beside --consents consent rows: the first people opted out and are on
// the list, but for one in two hundred whom the list lacks and as many whom consent lacks.
type benchReconcile struct {
	entries, consents int
	prepare           bool
	serving           atomic.Int64 // nanoseconds that went into being the platform
}

const driftOf = 200

func (b *benchReconcile) address(i int) string { return "person" + strconv.Itoa(i) + "@people.example" }

// missingThere says whom the platform's list lacks.
func (b *benchReconcile) missingThere(i int) bool { return i < b.entries && i%driftOf == 11 }

// RoundTrip implements http.RoundTripper: the platform, in the shape of an in-house system.
func (b *benchReconcile) RoundTrip(r *http.Request) (*http.Response, error) {
	started := time.Now()
	defer func() { b.serving.Add(int64(time.Since(started))) }()
	var body bytes.Buffer
	if r.Method == http.MethodPost {
		sent, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		body.WriteString(`{"results":[`)
		for i := range bytes.Count(sent, []byte(`"address"`)) {
			if i > 0 {
				body.WriteByte(',')
			}
			fmt.Fprintf(&body, `{"index":%d,"status":"applied"}`, i)
		}
		body.WriteString(`]}`)
	} else {
		query := r.URL.Query()
		from, _ := strconv.Atoi(query.Get("cursor"))
		to := min(from+500, b.entries)
		if query.Get("since") != "" { // nothing has changed there since; what was written is read back by its absence from this list
			from, to = b.entries, b.entries
		}
		body.WriteString(`{"items":[`)
		for i := from; i < to; i++ {
			if i > from {
				body.WriteByte(',')
			}
			state, reason := "suppressed", "unsubscribed"
			if b.missingThere(i) {
				state, reason = "cleared", "resubscribed"
			}
			fmt.Fprintf(&body, `{"channel":"email","address":%q,"state":%q,"reason":%q,"scope":"global","occurred_at":"2026-08-20T01:02:03.5Z"}`, b.address(i), state, reason)
		}
		body.WriteString(`],"complete":true`)
		if to < b.entries {
			fmt.Fprintf(&body, `,"next_cursor":"%d"`, to)
		}
		body.WriteString(`}`)
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(&body), Request: r}, nil
}

func (st *store) benchReconcile(ctx context.Context, b *benchReconcile) error {
	out := st.settings.env.stdout
	people := b.consents / 2
	fmt.Fprintf(out, "%d people with %d consent rows, a list of %d addresses\n", people, b.consents, b.entries)
	head, err := st.ledger.Head(ctx)
	if err != nil {
		return err
	}
	switch head {
	case 0:
		if err := st.benchConsents(ctx, b, people); err != nil {
			return err
		}
	case int64(people):
	default:
		return fmt.Errorf("the ledger holds %d events; measure on a copy of one that --prepare made for as many consent rows, or on an empty one", head)
	}
	if b.prepare {
		return nil
	}
	baseline, err := st.benchCopy(ctx, b)
	if err != nil {
		return err
	}
	phases := &benchPhases{st: st, platform: &b.serving, took: map[string]*benchTaken{}}
	svc, err := reconciler.New(reconciler.Config{
		DB: st.db, Ledger: st.ledger, Vault: st.vault, HTTP: &http.Client{Transport: b}, Now: time.Now, Log: st.log, Entered: phases.enter,
		Settle: func(ctx context.Context) error {
			defer phases.settling()()
			return st.catchUpLists(ctx)
		},
		Sleep: func(context.Context, time.Duration) error { return nil },
	})
	if err != nil {
		return err
	}
	policy := domain.PlatformPolicy{Platform: "webhook", URL: "https://platform.example", Channels: []domain.Channel{domain.Email}, Cap: 100}
	if _, err := svc.SetPolicy(ctx, policy, 0, "bench", ""); err != nil {
		return err
	}
	// The processor's time is of this process and of the database together, and does not depend on who else uses the machine.
	fmt.Fprintf(out, "\n%-40s %10s %11s %8s %10s %9s %9s %8s\n", "", "own time", "entries/s", "ratio", "processor", "service", "database", "ratio")
	line := func(what string, m benchTaken) {
		fmt.Fprintf(out, "%-40s %9.1fs %11.0f %8.1f %9.1fs %8.1fs %8.1fs %8.1f\n", what, m.took.Seconds(), float64(b.entries)/m.took.Seconds(), m.took.Seconds()/baseline.took.Seconds(),
			(m.service + m.database).Seconds(), m.service.Seconds(), m.database.Seconds(), (m.service+m.database).Seconds()/(baseline.service+baseline.database).Seconds())
	}
	line("COPY of the list, nothing else", baseline)
	for _, what := range []string{"the first run: every entry is new", "a full run again: nothing has changed"} {
		if err := st.catchUpLists(ctx); err != nil {
			return err
		}
		b.serving.Store(0)
		phases.begin()
		id, err := svc.Start(ctx, reconciler.Request{Platform: "webhook", Mode: reconciler.Full, Trigger: "bench", Actor: "bench"})
		if err != nil {
			return err
		}
		if err := svc.Work(ctx, "webhook", nil); err != nil {
			return err
		}
		phases.enter("")
		line(what, phases.all())
		for _, phase := range phases.order {
			line("    "+phase, *phases.took[phase])
		}
		if err := st.catchUpLists(ctx); err != nil {
			return err
		}
		r, err := suppressions.RunByID(ctx, st.db, id)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "    found %v; ended %s; being the platform took %.1fs, which is not counted\n", r.Counts.Differences, r.State, time.Duration(b.serving.Load()).Seconds())
	}
	fmt.Fprintln(out)
	return printMemory(out)
}

// benchPhases takes the time of a run's phases: of each what passed, less what the platform took to answer, and the processor
// time of this process and of the database.
type benchPhases struct {
	st       *store
	platform *atomic.Int64 // nanoseconds that went into being the platform
	mu       sync.Mutex
	at       string // the phase that is under way; empty: none; guarded by mu, as all below it
	since    time.Time
	spent    cpu
	served   time.Duration
	took     map[string]*benchTaken
	order    []string // of took
}

func (p *benchPhases) begin() {
	p.mu.Lock()
	clear(p.took)
	p.order, p.at = nil, ""
	p.mu.Unlock()
	p.enter("start")
}

// settling makes of the projections' catching up a phase of its own, until what it gives is called; but for what they do while a run
// records, which goes on meanwhile.
func (p *benchPhases) settling() (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at == "record" {
		return func() {}
	}
	phase := p.at
	p.move("settle")
	return func() { p.enter(phase) }
}

// enter ends the phase that is under way and begins another.
func (p *benchPhases) enter(phase string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.move(phase)
}

// move is enter, with mu held.
func (p *benchPhases) move(phase string) {
	spent, err := p.st.spent(context.Background())
	if err != nil {
		p.st.log.Warn("the processor's time is not known", slog.Any("error", err))
	}
	now, served := time.Now(), time.Duration(p.platform.Load())
	if p.at != "" {
		m := p.took[p.at]
		if m == nil {
			m = &benchTaken{}
			p.took[p.at] = m
			p.order = append(p.order, p.at)
		}
		m.took += now.Sub(p.since) - (served - p.served)
		m.service += spent.service - p.spent.service - (served - p.served)
		m.database += spent.database - p.spent.database
	}
	p.at, p.since, p.spent, p.served = phase, now, spent, served
}

// all is the run.
func (p *benchPhases) all() (sum benchTaken) {
	for _, m := range p.took {
		sum.took += m.took
		sum.service += m.service
		sum.database += m.database
	}
	return sum
}

// benchEvents is what people $1 to $2 of the table people decided: an answer for each of two purposes, in one event. The data
// are what the ledger records of an import, without sealed parts.
const benchEvents = `INSERT INTO events (position, id, type, stream, version, subject, state, occurred_at, recorded_at, actor, source, data, leaf)
SELECT $3::bigint + i, md5('e' || i)::uuid, 'consent.changed', 'profile-' || p, 1, p, s, timestamptz '2026-08-01', clock_timestamp(), 'bench', '/bench',
       ('{"profile_id":"' || p || '","changes":[{"channel":"email","purpose":"all","status":"' || s || '"},{"channel":"email","purpose":"promo","status":"' || s
        || '"}],"decided_at":"2026-08-01T00:00:00Z","decided_by":"import","method":"import","contact_hashes":[{"channel":"email","hash":"' || encode(hash, 'hex') || '"}]}')::json, sha256(hash)
FROM (SELECT i, hash, md5('p' || i)::uuid AS p, CASE WHEN i <= $4 AND (i - 1) % $5 <> 7 THEN 'opted_out' ELSE 'opted_in' END AS s FROM people WHERE i BETWEEN $1 AND $2) x`

// benchConsents gives the ledger people who decided, in bulk, and has the projections that a run reads built from that.
func (st *store) benchConsents(ctx context.Context, b *benchReconcile, people int) (err error) {
	owner, err := schema.Connect(st.url, schema.Options{Name: st.settings.name})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, owner.Close()) }()
	say := func(format string, args ...any) { fmt.Fprintf(st.settings.env.stderr, format+"\n", args...) }
	began := time.Now()
	if st.private { // what is made up may be lost
		for _, s := range []string{`ALTER SYSTEM SET fsync = off`, `ALTER SYSTEM SET full_page_writes = off`, `ALTER SYSTEM SET maintenance_work_mem = '512MB'`, `SELECT pg_reload_conf()`} {
			if _, err := owner.ExecContext(ctx, s); err != nil {
				return err
			}
		}
		defer func() {
			for _, s := range []string{`ALTER SYSTEM RESET ALL`, `SELECT pg_reload_conf()`, `CHECKPOINT`} {
				if _, left := owner.ExecContext(context.WithoutCancel(ctx), s); left != nil {
					err = errors.Join(err, left)
				}
			}
		}()
	}
	head, err := st.ledger.Head(ctx)
	if err != nil {
		return err
	}
	if _, err := owner.ExecContext(ctx, `SELECT ensure_partitions($1)`, head+int64(people)+1); err != nil {
		return err
	}
	indexes, err := withoutIndexes(ctx, owner, st.settings.name, "events%")
	if err != nil {
		return err
	}
	tx, err := owner.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, `SET LOCAL synchronous_commit = off; CREATE TEMP TABLE people (i bigint PRIMARY KEY, hash bytea) ON COMMIT DROP`); err != nil {
		return err
	}
	stmt, err := tx.PrepareContext(ctx, pq.CopyIn("people", "i", "hash")) //nolint:sqlclosecheck,staticcheck // it ends with its transaction; it quotes the names
	if err != nil {
		return err
	}
	for i := range people {
		if _, err := stmt.ExecContext(ctx, i+1, st.vault.ContactHash("email", b.address(i))); err != nil {
			return err
		}
	}
	if _, err := stmt.ExecContext(ctx); err != nil {
		return err
	}
	const batch = 250_000
	for from := 1; from <= people; from += batch {
		if _, err := tx.ExecContext(ctx, benchEvents, from, min(from+batch-1, people), head, b.entries, driftOf); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	for _, index := range indexes {
		if _, err := owner.ExecContext(ctx, index); err != nil {
			return err
		}
	}
	if _, err := owner.ExecContext(ctx, `ANALYZE events`); err != nil {
		return err
	}
	say("%d events after %s", people, time.Since(began).Round(time.Second))
	lists := []projections.Definition{consent.Definition, suppressions.Definition, contacts.Definition}
	if err := st.engine.RebuildAll(ctx, lists, 2, func(projections.Definition) projections.RebuildOptions { return projections.RebuildOptions{} }); err != nil {
		return err
	}
	say("the projections after %s", time.Since(began).Round(time.Second))
	return nil
}

// benchTaken is what something took.
type benchTaken struct {
	cpu

	took time.Duration
}

// benchCopy loads the list by COPY into a table without an index: what no reconciliation can be faster than.
func (st *store) benchCopy(ctx context.Context, b *benchReconcile) (m benchTaken, err error) {
	var hashes []byte // one behind the other
	for i := range b.entries {
		hashes = append(hashes, st.vault.ContactHash("email", b.address(i))...)
	}
	at := time.Date(2026, 8, 20, 1, 2, 3, 0, time.UTC)
	tx, err := st.db.BeginTx(ctx, nil)
	if err != nil {
		return m, err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, `CREATE TEMP TABLE bare (channel text, hash bytea, reason text, at timestamptz) ON COMMIT DROP`); err != nil {
		return m, err
	}
	before, err := st.spent(ctx)
	if err != nil {
		return m, err
	}
	started := time.Now()
	if err := copyBare(ctx, tx, hashes, at); err != nil {
		return m, err
	}
	m.took = time.Since(started)
	after, err := st.spent(ctx)
	m.cpu = cpu{service: after.service - before.service, database: after.database - before.database}
	return m, errors.Join(err, tx.Commit())
}

func copyBare(ctx context.Context, tx *sql.Tx, hashes []byte, at time.Time) error {
	stmt, err := tx.PrepareContext(ctx, pq.CopyIn("bare", "channel", "hash", "reason", "at")) //nolint:sqlclosecheck,staticcheck // it ends with its transaction; it quotes the names
	if err != nil {
		return err
	}
	for h := range slices.Chunk(hashes, sha256.Size) {
		if _, err := stmt.ExecContext(ctx, "email", h, "unsubscribed", at); err != nil {
			return err
		}
	}
	_, err = stmt.ExecContext(ctx)
	return err
}
