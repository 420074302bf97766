package schema_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Three callers and a topic at one subscription, with handlers that come to grief, give each event its effect once; and each
// caller returns when everything up to its position is done, whoever did it.
func TestCatchingUpTogether(t *testing.T) {
	t.Parallel()
	l, db := service(t)
	tally(t, db)
	const events = 200
	for range events {
		if _, err := l.Append(t.Context(), event("s", `{}`)); err != nil {
			t.Fatal(err)
		}
	}
	var calls atomic.Int64
	flaky := func(ctx context.Context, tx *sql.Tx, s schema.Slice) error {
		if err := tallyAs("flaky")(ctx, tx, s); err != nil {
			return err
		}
		if calls.Add(1)%5 == 1 {
			return fmt.Errorf("%w: the wire was cut", schema.ErrUnavailable)
		}
		return nil
	}
	sub := schema.Subscription{Name: "flaky", Limit: 7}
	reading(t, l, db, map[string]schema.SliceHandler{"flaky": flaky}, sub)
	var group errgroup.Group
	for range 3 {
		group.Go(func() error {
			if err := l.CatchUp(t.Context(), l.DB(), sub, flaky, events, slog.New(slog.DiscardHandler)); err != nil {
				return err
			}
			var at int64
			if err := l.DB().QueryRowContext(t.Context(), `SELECT position FROM subscriptions WHERE name = 'flaky'`).Scan(&at); err != nil || at < events {
				return fmt.Errorf("stands at %d of %d after catching up (%w)", at, events, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	until(t, db, fmt.Sprint(events, " ", events), `SELECT count(*) || ' ' || count(DISTINCT position) FROM seen`)
}

func TestCatchingUpParksAtTheEventAtFault(t *testing.T) {
	t.Parallel()
	l, db := service(t)
	tally(t, db)
	for range 20 {
		if _, err := l.Append(t.Context(), event("s", `{}`)); err != nil {
			t.Fatal(err)
		}
	}
	handle := func(ctx context.Context, tx *sql.Tx, s schema.Slice) error {
		if s.From < 13 && s.To >= 13 {
			return errors.New("event 13 makes no sense")
		}
		return tallyAs("parked")(ctx, tx, s)
	}
	sub := schema.Subscription{Name: "parked", Limit: 8}
	for range 2 { // the second time there is nothing that it could do
		if err := l.CatchUp(t.Context(), l.DB(), sub, handle, 20, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		until(t, db, "parked 12 12", `SELECT state || ' ' || position || ' ' || (SELECT count(*) FROM seen) FROM subscriptions WHERE name = 'parked'`)
	}
}
