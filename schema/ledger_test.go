package schema_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// service opens a test's ledger as the service does: in the role that can append and no more.
func service(t testing.TB) (*schema.Ledger, *schematest.DB) {
	t.Helper()
	db := schematest.Open(t)
	pool, err := schema.Connect(db.URL, schema.Options{Role: "ledger_service"})
	if err != nil {
		t.Fatal(err)
	}
	l := schema.OpenLedger(pool, nil, nil)
	t.Cleanup(func() {
		l.Close()
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, db
}

func event(stream, data string) domain.Event {
	return domain.Event{ID: uuid.New(), Type: "reaction.fired", Stream: stream, Actor: "test", Source: "/test", Data: []byte(data)}
}

func expecting(version int64, e domain.Event) domain.Event {
	e.Expected = &version
	return e
}

func TestPositionsAreContiguousInCommitOrder(t *testing.T) {
	t.Parallel()
	l, _ := service(t)
	const writers, each = 16, 50
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[int64]uuid.UUID{}
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				got, err := l.Append(t.Context(), event(fmt.Sprintf("s-%d", w%4), fmt.Sprintf(`{"w":%d,"i":%d}`, w, i)), event("batch", `{}`))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, a := range got {
					if other, taken := seen[a.Position]; taken {
						t.Errorf("position %d given to %s and %s", a.Position, other, a.ID)
					}
					seen[a.Position] = a.ID
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for p := int64(1); p <= writers*each*2; p++ {
		if _, ok := seen[p]; !ok {
			t.Fatalf("position %d was never given", p)
		}
	}
	versions := map[string]int64{}
	for rec, err := range schema.Events(t.Context(), l.DB(), schema.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if versions[rec.Stream]++; rec.Version != versions[rec.Stream] {
			t.Errorf("event %d has version %d of %s, want %d", rec.Position, rec.Version, rec.Stream, versions[rec.Stream])
		}
		if leaf := domain.Leaf(domain.Digest(&rec.Event), rec.Position, rec.Version, rec.RecordedAt); string(leaf[:]) != string(rec.Leaf) {
			t.Errorf("event %d: the leaf computed from its row is not the stored one", rec.Position)
		}
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	l, _ := service(t)
	first := event("target-a", `{"n":1}`)
	at, err := l.Append(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	otherContent := first
	otherContent.Data = []byte(`{"n":2}`)
	fresh := event("target-a", `{"n":3}`)

	for name, tc := range map[string]struct {
		events    []domain.Event
		want      error
		duplicate bool
		position  int64
	}{
		"a repeat is answered with where it stands":            {events: []domain.Event{first}, duplicate: true, position: at[0].Position},
		"the same id with other content":                       {events: []domain.Event{otherContent}, want: schema.ErrIDReused},
		"a stale version":                                      {events: []domain.Event{expecting(0, fresh)}, want: schema.ErrConflict},
		"a version from the future":                            {events: []domain.Event{expecting(7, fresh)}, want: schema.ErrConflict},
		"a repeat decided on an old version is still a repeat": {events: []domain.Event{expecting(0, first)}, duplicate: true, position: at[0].Position},
		"no id":                       {events: []domain.Event{{Type: "t", Stream: "s", Data: []byte(`{}`)}}, want: domain.ErrMalformed},
		"bytes that are not text":     {events: []domain.Event{event("s", "{\"a\":\"\xff\"}")}, want: domain.ErrMalformed},
		"data that is no JSON":        {events: []domain.Event{event("s", `{"a":`)}, want: nil},
		"an id twice in one request":  {events: []domain.Event{fresh, {ID: fresh.ID, Type: "x", Stream: "s", Data: []byte(`{}`)}}, want: schema.ErrIDReused},
		"larger than an event may be": {events: []domain.Event{event("s", `"`+string(make([]byte, schema.MaxEvent))+`"`)}, want: schema.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := l.Append(t.Context(), tc.events...)
			if name == "data that is no JSON" {
				if err == nil {
					t.Error("PostgreSQL took what is no JSON")
				}
				return
			}
			if !errors.Is(err, tc.want) {
				t.Fatalf("Append = %v, want %v", err, tc.want)
			}
			if tc.want == nil && (got[0].Duplicate != tc.duplicate || got[0].Position != tc.position) {
				t.Errorf("Append = %+v", got[0])
			}
		})
	}
	if head, err := l.Head(t.Context()); err != nil || head != 1 {
		t.Errorf("head = %d, %v; none of these should have been appended", head, err)
	}
}

func TestARequestIsAllOrNothing(t *testing.T) {
	t.Parallel()
	l, _ := service(t)
	old := event("s", `{}`)
	if _, err := l.Append(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	a, b := event("s", `{"a":1}`), event("s", `{"b":1}`)
	if _, err := l.Append(t.Context(), a, expecting(99, b)); !errors.Is(err, schema.ErrConflict) {
		t.Fatalf("Append = %v, want a conflict", err)
	}
	if head, _ := l.Head(t.Context()); head != 1 {
		t.Fatalf("head = %d: half of a refused request was appended", head)
	}
	got, err := l.Append(t.Context(), a, old, b, a)
	if err != nil {
		t.Fatal(err)
	}
	want := []schema.Appended{{Position: 2}, {Position: 1, Duplicate: true}, {Position: 3}, {Position: 2, Duplicate: true}}
	for i := range want {
		if got[i].Position != want[i].Position || got[i].Duplicate != want[i].Duplicate {
			t.Errorf("event %d: %+v, want position %d duplicate %v", i, got[i], want[i].Position, want[i].Duplicate)
		}
	}
}

func TestOneOfManyWritersOfAVersionWins(t *testing.T) {
	t.Parallel()
	l, _ := service(t)
	const rounds, writers = 20, 8
	for round := range rounds {
		var won atomic.Int64
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				_, err := l.Append(t.Context(), expecting(int64(round), event("contested", `{}`)), event("bystander", `{}`))
				switch {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, schema.ErrConflict):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("round %d: %d writers won", round, won.Load())
		}
	}
}

func TestOnePoisonousEventDoesNotFailTheStrangersItTravelsWith(t *testing.T) {
	t.Parallel()
	l, _ := service(t)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			data, poisonous := `{"ok":true}`, i%10 == 0
			if poisonous {
				data = `{"never closed":`
			}
			_, err := l.Append(t.Context(), event("s", data))
			if (err != nil) != poisonous {
				t.Errorf("event %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if head, _ := l.Head(t.Context()); head != 180 {
		t.Errorf("head = %d, want 180", head)
	}
}

func TestALargeRequestGoesInWhole(t *testing.T) {
	t.Parallel()
	l, db := service(t)
	if _, err := db.ExecContext(t.Context(), `ALTER TABLE events DETACH PARTITION events_1; DROP TABLE events_1; DELETE FROM partitions;
		UPDATE ledger_settings SET partition_size = 1500; SELECT ensure_partitions(1)`); err != nil {
		t.Fatal(err)
	}
	events := make([]domain.Event, 5000)
	for i := range events {
		events[i] = event("bulk", `{}`)
	}
	got, err := l.Append(t.Context(), events...)
	if err != nil || len(got) != len(events) || got[4999].Version != 5000 {
		t.Fatalf("Append: %v; %d answers", err, len(got))
	}
	events[4000].Data = []byte(`{"other":1}`)
	if _, err := l.Append(t.Context(), append([]domain.Event{event("bulk", `{}`)}, events...)...); !errors.Is(err, schema.ErrIDReused) {
		t.Fatalf("Append = %v, want ErrIDReused", err)
	}
	if head, _ := l.Head(t.Context()); head != 5000 {
		t.Errorf("head = %d after a refused request", head)
	}
	var partitions int
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass`).Scan(&partitions); err != nil || partitions < 3 {
		t.Errorf("%d partitions, %v", partitions, err)
	}
}

func TestTheLedgerIsAppendOnlyForEveryone(t *testing.T) {
	t.Parallel()
	l, db := service(t)
	if _, err := l.Append(t.Context(), event("s", `{}`)); err != nil {
		t.Fatal(err)
	}
	for who, pool := range map[string]*sql.DB{"the service": l.DB(), "the owner": db.DB} {
		for _, statement := range []string{
			`UPDATE events SET actor = 'x'`, `DELETE FROM events`, `TRUNCATE events`,
			`UPDATE events_1 SET actor = 'x'`, `DELETE FROM events_1`, `TRUNCATE events_1`,
		} {
			if _, err := pool.ExecContext(t.Context(), statement); err == nil {
				t.Errorf("%s may %s", who, statement)
			}
		}
	}
	if _, err := l.DB().ExecContext(t.Context(), `INSERT INTO events SELECT * FROM events`); err == nil {
		t.Error("the service may insert past append()")
	}
}

func TestAppendTxJoinsTheCallersTransaction(t *testing.T) {
	t.Parallel()
	l, _ := service(t)
	for _, commit := range []bool{false, true} {
		tx, err := l.DB().BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.AppendTx(t.Context(), tx, event("s", `{}`), event("s", `{}`)); err != nil {
			t.Fatal(err)
		}
		if commit {
			err = tx.Commit()
		} else {
			err = tx.Rollback()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if head, _ := l.Head(t.Context()); head != 2 {
		t.Errorf("head = %d, want 2: what was rolled back must leave no gap", head)
	}
}

func TestAClosedLedgerSaysSo(t *testing.T) {
	t.Parallel()
	l, _ := service(t)
	l.Close()
	if _, err := l.Append(context.Background(), event("s", `{}`)); !errors.Is(err, schema.ErrClosed) {
		t.Errorf("Append = %v, want ErrClosed", err)
	}
}

// A plan for any batch is estimated to cost more than one for the batch at hand, so left to itself PostgreSQL plans append()
// anew each time, which takes longer than running it. And with somebody else's search path it would write elsewhere. Both hang on
// the function, and whoever makes it anew has to see to them.
func TestAppendIsPlannedOnce(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t)
	var settings string
	var functions int
	err := db.QueryRowContext(t.Context(), `SELECT count(*), min(array_to_string(proconfig, ' ')) FROM pg_proc
		WHERE proname = 'append' AND pronamespace = current_schema()::regnamespace`).Scan(&functions, &settings)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"plan_cache_mode=force_generic_plan", "search_path=ledger, pg_temp"} {
		if functions != 1 || !strings.Contains(settings, want) {
			t.Errorf("%d functions append() with %q, want one with %s", functions, settings, want)
		}
	}
}
