package projections_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// stories are some deliveries' and people's events, of several kinds in any slice.
func stories(t *testing.T) []domain.Payload {
	t.Helper()
	var out []domain.Payload
	for seed := range 12 {
		out = append(out, rapid.Custom(history).Example(seed)...)
	}
	return append(out, domain.TargetChanged{Target: exampleTarget(t)}, domain.TargetDisabled{Handle: "1"}, domain.TargetDisabled{Handle: "2"})
}

// Rebuilt side by side, with the slices laid out for several at once, each projection is what it is when it is built alone from
// the ledger; one that fails keeps its old tables and holds up none of the others.
func TestRebuiltSideBySide(t *testing.T) {
	t.Parallel()
	fussy := define(t, "fussy", countTables, fussyApply)
	definitions := append([]projections.Definition{fussy}, all...)
	for _, atOnce := range []int{1, 2, 20} {
		w := newWorld(t, definitions...)
		if err := w.append(t.Context(), append(stories(t), domain.TargetDisabled{Handle: "three"})...); err != nil {
			t.Fatal(err)
		}
		head, err := schema.Head(t.Context(), w.ledger.DB())
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		slices := map[string]int{}
		err = w.engine.RebuildAll(t.Context(), definitions, atOnce, func(d projections.Definition) projections.RebuildOptions {
			return projections.RebuildOptions{Slice: 9, By: "test", Progress: func(projections.Progress) {
				mu.Lock()
				defer mu.Unlock()
				slices[d.Name]++
			}}
		})
		var at *projections.EventError
		if !errors.As(err, &at) || at.Position != head || strings.Count(err.Error(), "rebuild ") != 1 {
			t.Errorf("%d at once: RebuildAll = %v, want the one that fails at event %d and no other", atOnce, err, head)
		}
		want := int((head + 8) / 9)
		for _, d := range all {
			if slices[d.Name] != want {
				t.Errorf("%d at once: %s was told of %d slices, want %d", atOnce, d.Name, slices[d.Name], want)
			}
		}
		for _, s := range mustStatuses(t, w) {
			if behind := s.Position != head; behind != (s.Name == fussy.Name) {
				t.Errorf("%d at once: %s stands at %d of %d", atOnce, s.Name, s.Position, head)
			}
		}
		if report, err := w.engine.Verify(t.Context()); err != nil || !report.OK() {
			t.Errorf("%d at once: Verify = %v, %v", atOnce, report.Problems, err)
		}
		var rows, off int
		if err := w.ledger.DB().QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM consent_state) + (SELECT count(*) FROM deliveries),
			(SELECT count(*) FROM pg_class WHERE reloptions::text LIKE '%autovacuum_enabled%' AND relnamespace::regnamespace::text NOT LIKE '%\_\_next')`).Scan(&rows, &off); err != nil || rows == 0 || off > 0 {
			t.Errorf("%d at once: %d rows in the tables, and %d tables are left untidied; %v", atOnce, rows, off, err)
		}
	}
}

// Those that an interruption left at different positions catch up with each other and go on together.
func TestInterruptedRunsGoOnTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t, all...)
	if err := w.append(t.Context(), stories(t)...); err != nil {
		t.Fatal(err)
	}
	stopped := map[string]int64{"consent": 10, "deliveries": 25}
	for name, at := range stopped {
		d, err := w.engine.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		err = w.engine.Rebuild(ctx, d, projections.RebuildOptions{Slice: 5, Progress: func(p projections.Progress) {
			if p.Done == at {
				cancel()
			}
		}})
		if !errors.Is(err, context.Canceled) && !schema.Transient(err) {
			t.Fatalf("Rebuild = %v, want it cancelled", err)
		}
	}
	var mu sync.Mutex
	first := map[string]int64{}
	err := w.engine.RebuildAll(t.Context(), all, 2, func(d projections.Definition) projections.RebuildOptions {
		return projections.RebuildOptions{Slice: 100, Progress: func(p projections.Progress) {
			mu.Lock()
			defer mu.Unlock()
			if _, ok := first[d.Name]; !ok {
				first[d.Name] = p.Done
			}
		}}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if want := map[string]int64{"consent": 25, "deliveries": 110}[d.Name]; want != 0 && first[d.Name] <= stopped[d.Name] || want == 0 && first[d.Name] != 10 {
			t.Errorf("%s went on to %d first", d.Name, first[d.Name])
		}
	}
	if report, err := w.engine.Verify(t.Context()); err != nil || !report.OK() {
		t.Errorf("Verify = %v, %v", report.Problems, err)
	}
}

func mustStatuses(t *testing.T, w world) []projections.Status {
	t.Helper()
	all, err := projections.Statuses(t.Context(), w.ledger.DB())
	if err != nil {
		t.Fatal(err)
	}
	return all
}
