package projections_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/contacts"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/projections/promptness"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

var all = []projections.Definition{targets.Definition, consent.Definition, contacts.Definition, promptness.Definition, deliveries.Definition, queue.Definition, audit.Definition}

// world is a ledger with its projections installed, which a test moves on by hand.
type world struct {
	ledger *schema.Ledger
	engine *projections.Engine
}

func newWorld(t testing.TB, definitions ...projections.Definition) world {
	t.Helper()
	db, err := schema.Connect(schematest.Open(t).URL, schema.Options{Role: "ledger_service", Paths: projections.Paths("", definitions...)})
	if err != nil {
		t.Fatal(err)
	}
	w := world{ledger: schema.OpenLedger(db, nil, nil), engine: projections.NewEngine(db, "", nil, definitions...)}
	t.Cleanup(func() {
		w.ledger.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := w.engine.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

// move applies one slice of at most n events to a live projection, as its subscription does.
func (w world) move(ctx context.Context, live projections.Live, n int64) (moved bool, err error) {
	tx, err := w.ledger.DB().BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer tx.Rollback()
	var from, to int64
	err = tx.QueryRowContext(ctx, `SELECT position, least(position + $2, (SELECT coalesce(max(position), 0) FROM events)) FROM subscriptions WHERE name = $1 FOR UPDATE`,
		live.Subscription.Name, n).Scan(&from, &to)
	if err != nil || to <= from {
		return false, err
	}
	failure, err := schema.Attempt(ctx, tx, schema.Slice{From: from, To: to}, live.Handle)
	if err != nil {
		return false, err
	}
	if failure != nil {
		return false, fmt.Errorf("event %d: %w", failure.Position, failure.Err)
	}
	if _, err := tx.ExecContext(ctx, `SELECT move_cursor($1, $2)`, live.Subscription.Name, to); err != nil {
		return false, err
	}
	return true, tx.Commit()
}

// ctx outlives the test's own, for what is done at its end.
func (w world) ctx() context.Context { return context.Background() }

// park applies all that is left to a live projection, as its subscription does: up to an event at which it fails, which
// parks it and is returned.
func (w world) park(t testing.TB, live projections.Live) error {
	t.Helper()
	topic, err := schema.OpenTopic(w.ledger.DB(), w.ledger, "", schema.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer topic.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	sub, err := topic.Subscriber(ctx, live.Subscription)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := sub.Subscribe(ctx, schema.TopicName)
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	handle := topic.Handler(live.Subscription, func(ctx context.Context, tx *sql.Tx, s schema.Slice) error {
		err := live.Handle(ctx, tx, s)
		if err != nil && s.Len() == 1 {
			failed = fmt.Errorf("event %d: %w", s.To, err)
		}
		return err
	})
	for {
		var position, head int64
		var state string
		err := w.ledger.DB().QueryRowContext(ctx, `SELECT position, state, (SELECT coalesce(max(position), 0) FROM events) FROM subscriptions WHERE name = $1`,
			live.Subscription.Name).Scan(&position, &state, &head)
		switch {
		case err != nil:
			t.Fatal(err)
		case state == "parked":
			return failed
		case position == head:
			return nil
		}
		select {
		case msg := <-messages:
			if err := handle(msg); err != nil {
				t.Fatal(err)
			}
			msg.Ack()
		case <-time.After(20 * time.Millisecond): // to look again
		}
	}
}

// untilDone gives a context that ends when no rebuild is asked for or under way.
func (w world) untilDone(t testing.TB) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		defer stop()
		for ctx.Err() == nil {
			var busy bool
			err := w.ledger.DB().QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM builds WHERE state IN ('asked', 'running'))`).Scan(&busy)
			if err != nil || !busy {
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return ctx, stop
}

func (w world) append(ctx context.Context, payloads ...domain.Payload) error {
	events := make([]domain.Event, len(payloads))
	for i, p := range payloads {
		e, _, err := domain.New(uuid.New(), p)
		if err != nil {
			return err
		}
		e.Actor, e.Source = "test", "/test"
		switch p := p.(type) {
		case domain.ConsentChanged:
			e.OccurredAt = p.DecidedAt
		case domain.AddressReported:
			e.OccurredAt = p.ReportedAt
		case domain.ProfileObserved:
			e.OccurredAt = p.ObservedAt
		}
		events[i] = e
	}
	_, err := w.ledger.Append(ctx, events...)
	return err
}

// history draws the events of some deliveries, each in an order that can happen, and of some people's consent.
func history(t *rapid.T) []domain.Payload {
	var out []domain.Payload
	people := []uuid.UUID{uuid.MustParse("00000000-0000-4000-8000-000000000001"), uuid.MustParse("00000000-0000-4000-8000-000000000002")}
	for range rapid.IntRange(0, 12).Draw(t, "decisions") {
		c := domain.ConsentChanged{
			ProfileID: rapid.SampledFrom(people).Draw(t, "person"), DecidedBy: "customer",
			DecidedAt: time.Unix(int64(rapid.IntRange(0, 3).Draw(t, "decided")), 0).UTC(),
		}
		for _, purpose := range rapid.SliceOfNDistinct(rapid.SampledFrom(domain.Purposes), 1, 3, rapid.ID).Draw(t, "purposes") {
			c.Changes = append(c.Changes, domain.ConsentChange{
				Channel: domain.Email, Purpose: purpose,
				Status: rapid.SampledFrom([]domain.ConsentStatus{domain.OptedIn, domain.OptedOut, domain.Unknown}).Draw(t, "status"),
			})
		}
		out = append(out, c)
	}
	for range rapid.IntRange(0, 6).Draw(t, "deliveries") {
		firing := domain.Firing{FiringID: uuid.New(), Reaction: "r", Cause: "reaction", Target: "t", TargetVersion: 1, Platform: "webhook", ProfileID: rapid.SampledFrom(people).Draw(t, "person")}
		id := domain.DeliveryID(firing.FiringID, "t")
		out = append(out, domain.DeliveryPlanned{DeliveryID: id, Firing: firing, BodySHA256: "00", MaxAttempts: 9})
		attempts := rapid.IntRange(0, 4).Draw(t, "attempts")
		for n := 1; n <= attempts; n++ {
			at := time.Unix(int64(n), 0).UTC()
			outcome := rapid.SampledFrom([]domain.Outcome{domain.Retrying, domain.Retrying, domain.Succeeded, domain.Failed}).Draw(t, "outcome")
			a := domain.DeliveryAttempted{DeliveryID: id, Target: "t", ProfileID: firing.ProfileID, Attempt: n, StartedAt: at, Verdict: domain.Accepted, Outcome: outcome, DurationMS: float64(n * n)}
			if rapid.Bool().Draw(t, "against the answer") {
				a.Consent = &domain.Decision{Decision: domain.DecisionFlagged, Reason: rapid.SampledFrom([]string{"opted_out", "never_asked"}).Draw(t, "why")}
			}
			if outcome == domain.Retrying {
				a.Verdict, a.NextAttemptAt = domain.RetryLater, &at
			}
			out = append(out, a)
			if outcome != domain.Retrying {
				if rapid.Bool().Draw(t, "a late report") {
					a.Outcome, a.NextAttemptAt = domain.Succeeded, nil
					out = append(out, a)
				}
				break
			}
		}
	}
	return out
}

// However appends and slices interleave, the live tables are those of a rebuild.
func TestSlicingDoesNotMatter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, all...)
	rapid.Check(t, func(rt *rapid.T) {
		pending := history(rt)
		live := w.engine.Live(1)
		for len(pending) > 0 || rapid.Bool().Draw(rt, "go on") {
			if len(pending) > 0 && rapid.Bool().Draw(rt, "append") {
				n := rapid.IntRange(1, min(4, len(pending))).Draw(rt, "events")
				if err := w.append(t.Context(), pending[:n]...); err != nil {
					rt.Fatal(err)
				}
				pending = pending[n:]
				continue
			}
			which := rapid.SampledFrom(live).Draw(rt, "projection")
			if _, err := w.move(t.Context(), which, int64(rapid.IntRange(1, 7).Draw(rt, "slice"))); err != nil {
				rt.Fatal(err)
			}
		}
		report, err := w.engine.Verify(t.Context())
		if err != nil {
			rt.Fatal(err)
		}
		for _, p := range report.Problems {
			rt.Error(p)
		}
	})
}

func TestRebuildWhileOthersAppend(t *testing.T) {
	t.Parallel()
	w := newWorld(t, all...)
	decision := func() domain.Payload {
		return domain.ConsentChanged{ProfileID: uuid.New(), DecidedBy: "customer", DecidedAt: time.Unix(1, 0).UTC(), Changes: []domain.ConsentChange{{Channel: domain.SMS, Purpose: domain.Promo, Status: domain.OptedIn}}}
	}
	for range 30 {
		if err := w.append(t.Context(), decision(), decision()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := w.append(t.Context(), decision()); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			for _, live := range w.engine.Live(1) {
				if _, err := w.move(t.Context(), live, 50); err != nil {
					t.Error(err)
				}
			}
		}
	})
	d, err := w.engine.Find("consent")
	if err != nil {
		t.Fatal(err)
	}
	var progress int
	for range 3 {
		err := w.engine.Rebuild(t.Context(), d, projections.RebuildOptions{Slice: 20, Progress: func(projections.Progress) { progress++ }})
		if err != nil {
			t.Error(err)
		}
	}
	stop()
	wg.Wait()
	if progress == 0 {
		t.Error("a rebuild told nothing of its progress")
	}
	report, err := w.engine.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range report.Problems {
		t.Error(p)
	}
}

func TestAnInterruptedRebuildGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, all...)
	for range 10 {
		if err := w.append(t.Context(), domain.TargetDisabled{Handle: "a"}, domain.TargetDisabled{Handle: "b"}); err != nil {
			t.Fatal(err)
		}
	}
	d, err := w.engine.Find("targets")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = w.engine.Rebuild(ctx, d, projections.RebuildOptions{Slice: 5, Progress: func(p projections.Progress) {
		if p.Done == 10 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) && !schema.Transient(err) {
		t.Fatalf("Rebuild = %v, want it cancelled", err)
	}
	first := int64(-1)
	err = w.engine.Rebuild(t.Context(), d, projections.RebuildOptions{Slice: 5, Progress: func(p projections.Progress) {
		if first < 0 {
			first = p.Done
		}
	}})
	if err != nil || first != 15 {
		t.Errorf("Rebuild = %v, and it went on to %d first, want 15", err, first)
	}
}

func TestVerifyFindsWhatDoesNotFollow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, all...)
	if err := w.append(t.Context(), domain.TargetChanged{Target: exampleTarget(t)}); err != nil {
		t.Fatal(err)
	}
	for _, live := range w.engine.Live(1) {
		if _, err := w.move(t.Context(), live, 10); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.ledger.DB().ExecContext(t.Context(), `UPDATE targets SET changed_by = 'somebody else'`); err != nil {
		t.Fatal(err)
	}
	report, err := w.engine.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Problems) != 2 || !strings.Contains(report.Problems[0].String(), "projection targets, table targets") {
		t.Errorf("problems = %v, want the row that stands and the one that should", report.Problems)
	}
}

func exampleTarget(t *testing.T) domain.Target {
	t.Helper()
	d, err := domain.Declared("target.changed")
	if err != nil {
		t.Fatal(err)
	}
	return d.Example.(domain.TargetChanged).Target
}

func TestLoad(t *testing.T) {
	t.Parallel()
	files := func(apply string) fstest.MapFS {
		return fstest.MapFS{"tables.sql": {Data: []byte("CREATE TABLE x (n int)")}, "apply.sql": {Data: []byte(apply)}}
	}
	d, err := projections.Load("mine", 1, files("-- a word first\n-- name: one\n-- on: a.b, c.d\nSELECT 1;\n-- name: two\nSELECT 2;\n"))
	if err != nil || len(d.Apply) != 2 || d.Apply[0].Name != "one" || len(d.Apply[0].On) != 2 || d.Apply[1].On != nil {
		t.Errorf("Load = %+v, %v", d.Apply, err)
	}
	if got := d.For(schema.Slice{From: 1, To: 2, Types: []string{"e.f"}}); strings.Contains(got, "SELECT 1") || !strings.Contains(got, "SELECT 2") {
		t.Errorf("For = %q, want the statement that reads any type and not the other", got)
	}
	if d, err := projections.Load("mine", 1, files("SELECT 1")); err != nil || len(d.Apply) != 1 {
		t.Errorf("a file without headings: %+v, %v", d.Apply, err)
	}
	for name, tc := range map[string]fstest.MapFS{"Bad Name": files("SELECT 1"), "nothing": {}} {
		if _, err := projections.Load(name, 1, tc); err == nil {
			t.Errorf("Load took %q", name)
		}
	}
}
