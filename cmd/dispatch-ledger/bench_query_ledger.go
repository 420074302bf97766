package main

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/projections/promptness"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// trail makes the events of a year's quarter of a retailer's deliveries, evenly over its days and with a curve over each of
// them, as the planner and the dispatcher record them, but for sealed parts and the firings.
//
// Forty targets and sixty reactions of Zipf's distribution, most reactions with a target of their own and every seventh through
// one that they share; a target that had a hundred deliveries, long ago, and a reaction that has one in ten thousand through the
// shared target. Three in a hundred are withheld, two fail, a half is rejected, one is retried, one in ten thousand is never
// answered; one in five thousand goes to somebody who had opted out. One person in ten changes an answer. The last thousand are
// still to be sent.
//
// The same seed gives the same trail.
type trail struct {
	deliveries int
	random     *rand.Rand
	reactions  *rand.Zipf
	from       time.Time
	at         time.Time
	position   int64
	made       int // deliveries
	people     []uuid.UUID
	versions   map[string]int64
	due        []attempt         // attempts that follow, in order
	known      bool              // the ledger holds the events already
	rows       []domain.Recorded // events that are to be copied
	projected  *trailRows        // and what the projection deliveries makes of them
	err        error
}

// attempt is one that is to be made once so many deliveries were planned.
type attempt struct {
	after   int
	id      uuid.UUID
	firing  domain.Firing
	number  int
	outcome domain.Outcome
	verdict domain.Verdict
}

const (
	trailDays      = 90
	trailReactions = 60
	trailTargets   = 40
	trailOpen      = 1000 // the last deliveries are still to be sent
	trailShared    = "middleware"
	trailRare      = "target-retired" // had a hundred deliveries, long ago
	trailSeldom    = "reaction-seldom"
)

func newTrail(n int) *trail {
	random := rand.New(rand.NewPCG(7, uint64(n))) //nolint:gosec // not a secret
	t := &trail{
		deliveries: n, random: random, reactions: rand.NewZipf(random, 1.2, 4, trailReactions-1),
		from: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), versions: map[string]int64{}, projected: newTrailRows(),
	}
	t.at = t.from
	for range max(100, n/5) {
		t.people = append(t.people, t.id())
	}
	return t
}

func (t *trail) id() (id uuid.UUID) {
	for i := 0; i < len(id); i += 8 {
		v := t.random.Uint64()
		for k := range 8 {
			id[i+k] = byte(v >> (8 * k)) //nolint:gosec // the low byte is meant
		}
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
}

// add records a payload. version is its place in a delivery's stream; 0 is the next one of any other stream.
func (t *trail) add(actor string, correlation uuid.UUID, version int64, p domain.Payload) {
	id := t.id()
	t.position++
	t.projected.add(p, t.position, t.at)
	defer func() { t.at = t.at.Add(50 * time.Microsecond) }()
	if t.known {
		return
	}
	e, _, err := domain.New(id, p)
	if err != nil {
		t.err = err
		return
	}
	e.Actor, e.Source, e.CorrelationID = actor, "/"+actor, correlation
	if c, ok := p.(domain.ConsentChanged); ok {
		e.OccurredAt = c.DecidedAt
	}
	if version == 0 {
		t.versions[e.Stream]++
		version = t.versions[e.Stream]
	}
	leaf := domain.Leaf(domain.Digest(&e), t.position, version, t.at)
	t.rows = append(t.rows, domain.Recorded{Event: e, Position: t.position, Version: version, RecordedAt: t.at, Leaf: leaf[:]})
}

// next makes one delivery, and what became of earlier ones meanwhile.
func (t *trail) next() {
	n := t.made
	t.made++
	days := trailDays * float64(n) / float64(t.deliveries)
	days += math.Sin(2*math.Pi*days) / (4 * math.Pi) // a third as many by night as by day
	if at := t.from.Add(time.Duration(days * float64(24*time.Hour))).Truncate(time.Microsecond); at.After(t.at) {
		t.at = at
	}
	for len(t.due) > 0 && t.due[0].after <= n {
		a := t.due[0]
		t.due = t.due[1:]
		t.attempt(a)
	}
	person := t.people[t.random.IntN(len(t.people))]
	if t.random.IntN(100) < 2 {
		t.consent(person)
	}
	f := t.firing(n, person)
	id := domain.DeliveryID(f.FiringID, f.Target)
	decision := domain.Decision{Decision: domain.DecisionAllowed, Reason: "opted_in", Channel: domain.Email, Purpose: domain.Promo, Status: domain.OptedIn, AsOf: t.position}
	luck := t.random.IntN(10_000)
	switch {
	case luck < 300:
		w := domain.DeliveryWithheld{DeliveryID: id, Firing: f, Reason: "consent", Detail: "customer opted out of email/promo", Consent: decision}
		w.Consent.Decision, w.Consent.Reason, w.Consent.Status = domain.DecisionWithheld, "opted_out", domain.OptedOut
		if luck < 20 {
			w.Reason, w.Detail, w.Consent = "condition", "the target's condition does not hold", domain.Decision{}
		}
		if n < t.deliveries/1000 && luck < 30 {
			w.Reason, w.Detail = "erased", "the person was erased"
		}
		t.add("planner", f.FiringID, 1, w)
		return
	case luck < 350:
		t.add("planner", f.FiringID, 1, domain.DeliveryRejected{DeliveryID: id, Firing: f, Reason: "unresolved", Detail: "the body needs profile.first_name, which the context lacks", Part: "body"})
		return
	case luck < 352:
		decision.Decision, decision.Reason, decision.Status = domain.DecisionFlagged, "opted_out", domain.OptedOut
	}
	t.add("planner", f.FiringID, 1, domain.DeliveryPlanned{DeliveryID: id, Firing: f, Consent: decision, BodySHA256: hex.EncodeToString(append(id[:], f.FiringID[:]...)), BodyBytes: 512, MaxAttempts: 8})
	if n >= t.deliveries-min(trailOpen, t.deliveries/10) {
		return
	}
	a := attempt{after: n + 10, id: id, firing: f, number: 1, outcome: domain.Succeeded, verdict: domain.Accepted}
	switch {
	case luck >= 400 && luck < 401:
		a.outcome, a.verdict = domain.Failed, domain.Timeout
	case luck >= 400 && luck < 600:
		a.outcome, a.verdict = domain.Failed, domain.Permanent
	case luck >= 600 && luck < 700:
		a.outcome, a.verdict = domain.Retrying, domain.RetryLater
	}
	t.due = append(t.due, a)
}

// firing is what a delivery answers.
func (t *trail) firing(n int, person uuid.UUID) domain.Firing {
	reaction := int(t.reactions.Uint64()) //nolint:gosec // below sixty
	f := domain.Firing{
		FiringID: t.id(), FiringPosition: max(1, t.position), Reaction: fmt.Sprintf("reaction-%d", reaction), Trigger: "reward.created", Cause: "reaction",
		Target: fmt.Sprintf("target-%d", reaction%trailTargets), TargetVersion: int64(1 + (n*3+reaction)/t.deliveries), Platform: domain.Platforms[reaction%len(domain.Platforms)], ProfileID: person,
	}
	if reaction%7 == 6 {
		f.Target, f.Platform = trailShared, "webhook"
	}
	if t.random.IntN(10_000) == 0 {
		f.Reaction, f.Target, f.Platform = trailSeldom, trailShared, "webhook"
	}
	if n < t.deliveries/100 && n%max(1, t.deliveries/10_000) == 0 {
		f.Reaction, f.Target, f.Platform, f.TargetVersion = "reaction-retired", trailRare, "yotpo", 1
	}
	return f
}

func (t *trail) attempt(a attempt) {
	p := domain.DeliveryAttempted{
		DeliveryID: a.id, Target: a.firing.Target, ProfileID: a.firing.ProfileID, Attempt: a.number, StartedAt: t.at.Add(-time.Millisecond), DurationMS: 20 + 80*t.random.ExpFloat64(),
		Status: 202, Verdict: a.verdict, Outcome: a.outcome, Address: "198.51.100.7:443", Worker: "bench/1",
	}
	switch a.verdict {
	case domain.Accepted:
	case domain.Timeout:
		p.Status = 0
	default:
		p.Status = 503
	}
	if a.outcome == domain.Retrying {
		next := t.at.Add(time.Minute)
		p.NextAttemptAt = &next
		t.due = append(t.due, attempt{after: t.made + 10, id: a.id, firing: a.firing, number: a.number + 1, outcome: domain.Succeeded, verdict: domain.Accepted})
	}
	t.add("dispatcher", a.firing.FiringID, int64(1+a.number), p)
}

// consent is a person's change of mind.
func (t *trail) consent(person uuid.UUID) {
	how := []struct{ by, method string }{{"customer", "preference_centre"}, {"customer", "sms_keyword"}, {"staff", "pos"}, {"import", "csv"}}[min(t.random.IntN(40)/10+t.random.IntN(2), 3)]
	c := domain.ConsentChanged{ProfileID: person, DecidedAt: t.at.Add(-time.Second), DecidedBy: how.by, Method: how.method, Changes: []domain.ConsentChange{{
		Channel: domain.Channels[t.random.IntN(2)], Purpose: domain.Purposes[t.random.IntN(len(domain.Purposes))], Status: []domain.ConsentStatus{domain.OptedIn, domain.OptedOut}[t.random.IntN(2)],
	}}}
	t.add("crm", uuid.Nil, 0, c)
}

// eventsTo is a copy of events into the ledger, past append(): what is made up for a benchmark is no fact.
var eventsTo = []string{
	"position", "id", "type", "stream", "version", "subject", "channel", "purpose", "state", "target", "delivery_id", "occurred_at", "recorded_at", "actor", "source", "correlation_id", "data", "leaf",
}

func copyEvents(ctx context.Context, db *sql.DB, name string, events []domain.Recorded) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, `SET LOCAL synchronous_commit = off`); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `SELECT ensure_partitions($1)`, events[len(events)-1].Position); err != nil {
		return err
	}
	rows := make([][]any, len(events))
	for i, e := range events {
		rows[i] = []any{
			e.Position, e.ID.String(), e.Type, e.Stream, e.Version, orNull(e.Subject), orNull(e.Channel), orNull(e.Purpose), orNull(e.State), orNull(e.Target), orNull(e.DeliveryID),
			orNull(e.OccurredAt), e.RecordedAt, e.Actor, e.Source, orNull(e.CorrelationID), string(e.Data), e.Leaf,
		}
	}
	if err := copyRows(ctx, tx, name, "events", eventsTo, rows); err != nil {
		return err
	}
	return tx.Commit()
}

// fillForQueries makes the ledger that is asked, unless an earlier run has made it: the events are copied into it with their true
// leaves, and what the projection deliveries makes of them beside them; the other projections are built from them as a rebuild does.
func (st *store) fillForQueries(ctx context.Context, n int) error {
	head, err := st.ledger.Head(ctx)
	if err != nil {
		return err
	}
	owner, err := schema.Connect(st.url, schema.Options{Name: st.settings.name, Paths: projections.Paths(st.settings.name, builtIn...)})
	if err != nil {
		return err
	}
	defer owner.Close()
	begin := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(st.settings.env.stderr, "%s after %s\n", fmt.Sprintf(format, args...), time.Since(begin).Round(time.Second))
	}
	if st.private { // what is made up may be lost
		for _, s := range []string{`ALTER SYSTEM SET fsync = off`, `ALTER SYSTEM SET full_page_writes = off`, `ALTER SYSTEM SET maintenance_work_mem = '1GB'`, `SELECT pg_reload_conf()`} {
			if _, err := owner.ExecContext(ctx, s); err != nil {
				return err
			}
		}
	}
	rows, err := st.behind(ctx, deliveries.Definition)
	if err != nil {
		return err
	}
	if head == 0 || len(rows) > 0 {
		t := newTrail(n)
		t.known = head > 0
		if err := st.copyTrail(ctx, owner, t, say); err != nil {
			return err
		}
	}
	asked, err := st.behind(ctx, audit.Definition, consent.Definition, promptness.Definition)
	if err != nil || len(rows)+len(asked) == 0 {
		return err
	}
	if err := st.engine.RebuildAll(ctx, asked, 2, func(d projections.Definition) projections.RebuildOptions {
		last := time.Now()
		return projections.RebuildOptions{Progress: func(p projections.Progress) {
			if time.Since(last) > 10*time.Second {
				last = time.Now()
				say("projection %s: %d of %d events, %.0f a second, %s left,", d.Name, p.Done, p.Total, p.Rate, p.Left.Round(time.Second))
			}
		}}
	}); err != nil {
		return err
	}
	for _, table := range []string{"events", "deliveries", "attempts", "tallies", "blocks", "consent_changes", "optouts"} {
		if _, err := owner.ExecContext(ctx, `VACUUM ANALYZE `+table); err != nil {
			return err
		}
	}
	say("made")
	return nil
}

// behind are those of some projections that have not been built from all of the ledger by their present definition.
func (st *store) behind(ctx context.Context, of ...projections.Definition) (out []projections.Definition, err error) {
	outdated, err := st.engine.Install(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range of {
		var behind bool
		if err := st.db.QueryRowContext(ctx, `SELECT s.position < (SELECT coalesce(max(position), 1) FROM events) FROM subscriptions s WHERE s.name = $1`, d.SubscriptionName()).Scan(&behind); err != nil {
			return nil, err
		}
		if behind || slices.ContainsFunc(outdated, func(o projections.Definition) bool { return o.Name == d.Name }) {
			out = append(out, d)
		}
	}
	return out, nil
}

// copyTrail copies a trail's events into the ledger, whose indexes are made afterwards.
func (st *store) copyTrail(ctx context.Context, owner *sql.DB, t *trail, say func(string, ...any)) error {
	if err := st.emptied(ctx, owner, deliveries.Definition); err != nil {
		return err
	}
	place := st.settings.name + "_" + deliveries.Definition.Name
	again, err := withoutIndexes(ctx, owner, place, "%")
	if err != nil {
		return err
	}
	if !t.known {
		if _, err := owner.ExecContext(ctx, `SELECT ensure_partitions($1)`, 2*t.deliveries); err != nil {
			return err
		}
		ofEvents, err := withoutIndexes(ctx, owner, st.settings.name, "events%")
		if err != nil {
			return err
		}
		again = append(again, ofEvents...)
	}
	type batch struct {
		events []domain.Recorded
		tables map[string][][]any
		made   int
	}
	group, copying := errgroup.WithContext(ctx)
	events, tables := make(chan batch, 2), make(chan batch, 2)
	group.Go(func() error {
		defer close(events)
		defer close(tables)
		for t.made < t.deliveries {
			for until := min(t.made+10_000, t.deliveries); t.made < until; {
				t.next()
			}
			settled, err := t.projected.settled(t.made == t.deliveries)
			if err := errors.Join(t.err, err); err != nil {
				return err
			}
			b := batch{events: t.rows, tables: map[string][][]any{"deliveries": settled, "attempts": t.projected.attempts}, made: t.made}
			t.rows, t.projected.attempts = nil, nil
			if t.made == t.deliveries {
				b.tables["tallies"], b.tables["answers"], b.tables["latencies"] = t.projected.counted()
			}
			for _, to := range []chan batch{events, tables} {
				select {
				case to <- b:
				case <-copying.Done():
					return copying.Err()
				}
			}
		}
		return nil
	})
	group.Go(func() error {
		for b := range events {
			if len(b.events) == 0 {
				continue
			}
			if err := copyEvents(copying, owner, st.settings.name, b.events); err != nil {
				return err
			}
		}
		return nil
	})
	group.Go(func() error {
		last := time.Now()
		for b := range tables {
			if err := copyTables(copying, owner, place, b.tables); err != nil {
				return err
			}
			if time.Since(last) > 10*time.Second {
				last = time.Now()
				say("%d of %d deliveries", b.made, t.deliveries)
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return err
	}
	say("%d deliveries, %d events", t.deliveries, t.position)
	making, _ := errgroup.WithContext(ctx)
	making.SetLimit(2)
	for _, index := range again {
		making.Go(func() error {
			_, err := owner.ExecContext(ctx, index)
			return err
		})
	}
	if err := making.Wait(); err != nil {
		return err
	}
	say("indexed")
	_, err = owner.ExecContext(ctx, `SELECT move_cursor($1, $2)`, deliveries.Definition.SubscriptionName(), t.position)
	return err
}

// withoutIndexes drops the indexes of a schema's tables, other than those that lead the ledger, and gives the statements that make
// them again.
func withoutIndexes(ctx context.Context, db *sql.DB, name, tables string) (again []string, err error) {
	rows, err := db.QueryContext(ctx, `SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', c.conrelid::regclass, c.conname), format('ALTER TABLE %s ADD CONSTRAINT %I %s', c.conrelid::regclass, c.conname, pg_get_constraintdef(c.oid))
		FROM pg_constraint c WHERE c.connamespace = $1::text::regnamespace AND c.contype = 'p' AND c.conrelid::regclass::text !~ 'events' AND c.conrelid IN (SELECT oid FROM pg_class WHERE relname LIKE $2)
		UNION ALL
		SELECT format('DROP INDEX %I.%I', i.schemaname, i.indexname), replace(i.indexdef, ' ON ONLY ', ' ON ') FROM pg_indexes i WHERE i.schemaname = $1::text AND i.tablename LIKE $2
		AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conname = i.indexname AND c.connamespace = $1::text::regnamespace)
		AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = format('%I.%I', i.schemaname, i.indexname)::regclass)`, name, tables)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var drop []string
	for rows.Next() {
		var without, with string
		if err := rows.Scan(&without, &with); err != nil {
			return nil, err
		}
		drop, again = append(drop, without), append(again, with)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for _, statement := range drop {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return nil, err
		}
	}
	return again, nil
}
