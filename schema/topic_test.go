package schema_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// reading runs handlers on subscriptions of a test's ledger until the test ends.
func reading(t *testing.T, l *schema.Ledger, db *schematest.DB, handlers map[string]schema.SliceHandler, subs ...schema.Subscription) {
	t.Helper()
	topic, err := schema.OpenTopic(l.DB(), l, db.URL, schema.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range subs {
		sub, err := topic.Subscriber(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		router.AddConsumerHandler(s.Name, schema.TopicName, sub, topic.Handler(s, handlers[s.Name]))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- router.Run(ctx) }()
	<-router.Running()
	t.Cleanup(func() {
		cancel()
		if err := topic.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// until waits for a query to answer with a value, and gives up after a minute of its being another.
func until[T comparable](t *testing.T, db *schematest.DB, want T, query string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		var got T
		err := db.QueryRowContext(t.Context(), query).Scan(&got)
		if err == nil && got == want {
			return
		}
		if ctx.Err() != nil || err != nil && !errors.Is(err, sql.ErrNoRows) {
			t.Fatalf("%s = %v (%v), want %v", query, got, err, want)
		}
	}
}

func tally(t *testing.T, db *schematest.DB) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), `CREATE TABLE seen (who text, position bigint); GRANT ALL ON seen TO ledger_service`); err != nil {
		t.Fatal(err)
	}
}

func tallyAs(who string) schema.SliceHandler {
	return func(ctx context.Context, tx *sql.Tx, _ schema.Slice) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO seen SELECT $1::text, position FROM slice`, who)
		return err
	}
}

func TestEachEventHasItsEffectOnce(t *testing.T) {
	t.Parallel()
	l, db := service(t)
	tally(t, db)
	var calls atomic.Int64
	flaky := func(ctx context.Context, tx *sql.Tx, s schema.Slice) error {
		if err := tallyAs("flaky")(ctx, tx, s); err != nil {
			return err
		}
		switch calls.Add(1) % 4 { // after its effects, every other attempt comes to grief
		case 1:
			return fmt.Errorf("%w: the wire was cut", schema.ErrUnavailable)
		case 3:
			_, err := tx.ExecContext(ctx, `SELECT pg_terminate_backend(pg_backend_pid())`)
			return err
		}
		return nil
	}
	reading(t, l, db, map[string]schema.SliceHandler{"flaky": flaky}, schema.Subscription{Name: "flaky", Limit: 7})
	const events = 60
	for range events {
		if _, err := l.Append(t.Context(), event("s", `{}`)); err != nil {
			t.Fatal(err)
		}
	}
	until(t, db, int64(events), `SELECT position FROM subscriptions WHERE name = 'flaky'`)
	until(t, db, fmt.Sprint(events, " ", events), `SELECT count(*) || ' ' || count(DISTINCT position) FROM seen`)
}

func TestASubscriptionNeverOvertakesTheOnesBeforeIt(t *testing.T) {
	t.Parallel()
	l, db := service(t)
	tally(t, db)
	after := func(ctx context.Context, tx *sql.Tx, s schema.Slice) error {
		var first int64
		if err := tx.QueryRowContext(ctx, `SELECT position FROM subscriptions WHERE name = 'first'`).Scan(&first); err != nil {
			return err
		}
		if first < s.To {
			t.Errorf("saw slice %s while the one before it stood at %d", s, first)
		}
		return tallyAs("second")(ctx, tx, s)
	}
	reading(t, l, db, map[string]schema.SliceHandler{"first": tallyAs("first"), "second": after},
		schema.Subscription{Name: "first", Limit: 3}, schema.Subscription{Name: "second", After: []string{"first"}})
	for range 40 {
		if _, err := l.Append(t.Context(), event("s", `{}`)); err != nil {
			t.Fatal(err)
		}
	}
	until(t, db, int64(40), `SELECT position FROM subscriptions WHERE name = 'second'`)
	until(t, db, "first 40 second 40", `SELECT string_agg(who || ' ' || n, ' ' ORDER BY who) FROM (SELECT who, count(*) n FROM seen GROUP BY who) x`)
}

func TestASubscriptionParksAtTheEventAtFault(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(context.Context, *sql.Tx) error{
		"a statement that fails": func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `SELECT 1 / count(*) FILTER (WHERE data->>'poison' IS NULL AND position = 23) FROM slice WHERE position = 23 HAVING count(*) > 0`)
			return err
		},
		"a panic": func(ctx context.Context, tx *sql.Tx) error {
			var poisoned bool
			if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM slice WHERE position = 23)`).Scan(&poisoned); err != nil {
				return err
			}
			if poisoned {
				panic("cannot cope with 23")
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, db := service(t)
			tally(t, db)
			events := make([]string, 40)
			for i := range events {
				data := `{}`
				if i == 22 {
					data = `{"poison":1}`
				}
				if _, err := l.Append(t.Context(), event("s", data)); err != nil {
					t.Fatal(err)
				}
			}
			reading(t, l, db, map[string]schema.SliceHandler{"p": func(ctx context.Context, tx *sql.Tx, s schema.Slice) error {
				if err := tallyAs("p")(ctx, tx, s); err != nil {
					return err
				}
				return fail(ctx, tx)
			}, "healthy": tallyAs("healthy")}, schema.Subscription{Name: "p"}, schema.Subscription{Name: "healthy"})
			until(t, db, "parked 22 23", `SELECT state || ' ' || position || ' ' || coalesce(error_position, 0) FROM subscriptions WHERE name = 'p'`)
			until(t, db, int64(22), `SELECT count(*) FROM seen WHERE who = 'p'`)
			until(t, db, int64(40), `SELECT position FROM subscriptions WHERE name = 'healthy'`)
		})
	}
}

func TestTheFenceRefusesACommitWithoutItsAcknowledgement(t *testing.T) {
	t.Parallel()
	l, db := service(t)
	if _, err := db.ExecContext(t.Context(), `INSERT INTO subscriptions (name, position) VALUES ('s', 5); INSERT INTO fences VALUES ('s', 5)`); err != nil {
		t.Fatal(err)
	}
	tx, err := l.DB().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), `UPDATE fences SET position = 9 WHERE name = 's'`); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err == nil {
		t.Error("a slice was committed whose cursor had not moved")
	}
}
