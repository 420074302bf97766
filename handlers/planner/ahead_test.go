package planner_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/planner"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Behind a burst of one target's firings, and in between them, those of others are answered with the first slices. Two processes take
// turns, and now and then a slice comes to nothing: each firing is answered once, and those of one target in their order.
func TestABurstDoesNotHaveOthersWait(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, handle := range []string{"burst", "many", "some", "single"} {
		d.target(t, handle, func(*domain.Target) {})
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var of []string // the firings' targets, in order
	for i := range 3000 {
		switch n := random.IntN(100); {
		case i == 560 || i == 620 || i == 2900:
			of = append(of, "single")
		case i > 640 && i < 1100 && n < 40: // crowds what is looked ahead at
			of = append(of, "many")
		case n < 3:
			of = append(of, "some")
		default:
			of = append(of, "burst")
		}
	}
	start, err := d.ledger.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	events, secrets := make([]domain.Event, len(of)), make([][]byte, len(of))
	for i, target := range of {
		fired := domain.ReactionFired{Reaction: "r", Target: target, Cause: "reaction", Context: json.RawMessage(`{"n":1,"profile":{"first_name":"Ada"}}`)}
		if events[i], secrets[i], err = domain.New(uuid.New(), fired); err != nil {
			t.Fatal(err)
		}
		events[i].Actor, events[i].Source = "test", "/test"
	}
	if err := d.vault.SealEvents(t.Context(), events, secrets); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ledger.Append(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
	end := start + int64(len(of))
	// None of them is about targets or people, so those who read these have nothing to do before the end.
	if _, err := d.ledger.DB().ExecContext(t.Context(), `UPDATE subscriptions SET position = $1`, end); err != nil {
		t.Fatal(err)
	}

	other, err := planner.New(d.ledger, d.vault, time.Now, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	processes := []*planner.Planner{d.planner, other}
	for _, p := range processes {
		p.LookAheadBy(40, 30, 8) // so that every slice looks, and each look leaves something
	}
	for from := start; from < end; {
		to := min(from+500, end)
		process := processes[random.IntN(2)]
		if from == start {
			process = d.planner
		}
		tx, err := d.ledger.DB().BeginTx(context.WithoutCancel(t.Context()), nil)
		if err != nil {
			t.Fatal(err)
		}
		failure, err := schema.Attempt(t.Context(), tx, schema.Slice{From: from, To: to}, process.Handle)
		if failure != nil || err != nil {
			t.Fatalf("slice (%d, %d]: %+v, %v", from, to, failure, err)
		}
		if from > start && random.IntN(3) == 0 {
			if err := tx.Rollback(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if from == start {
			if got := d.answersOf(t, "single"); len(got) != 2 { // four looks
				t.Errorf("with the first slice, %d of the two that stand alone behind it were answered", len(got))
			}
		}
		from = to
	}

	want := map[string][]uuid.UUID{}
	for i, target := range of {
		want[target] = append(want[target], events[i].ID)
	}
	for target, fired := range want {
		if got := d.answersOf(t, target); fmt.Sprint(got) != fmt.Sprint(fired) {
			t.Errorf("of %s, %d firings were answered, want %d, each once and in their order", target, len(got), len(fired))
		}
	}
	var left int
	if err := d.ledger.DB().QueryRowContext(t.Context(), `SELECT count(*) FROM planned_ahead`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d are noted as answered ahead in the end (%v)", left, err)
	}
}

// answersOf gives the firings of a target that were answered, in the order of the answers.
func (d desk) answersOf(t *testing.T, target string) (fired []uuid.UUID) {
	t.Helper()
	for e, err := range schema.Events(t.Context(), d.ledger.DB(), schema.Filter{Types: []string{"delivery.planned"}, Target: target}) {
		if err != nil {
			t.Fatal(err)
		}
		fired = append(fired, e.CausationID)
	}
	return fired
}
