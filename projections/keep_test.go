package projections_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// What was asked for goes side by side, by a single session too: one that fails says so at once and holds none up, one that another
// process is at is left to it, and those that an interruption left go on.
func TestWhatIsAskedForGoesSideBySide(t *testing.T) {
	t.Parallel()
	fussy := define(t, "fussy", countTables, fussyApply)
	definitions := append([]projections.Definition{fussy}, all...)
	w := newWorld(t, definitions...)
	if err := w.append(t.Context(), append(stories(t), domain.TargetDisabled{Handle: "three"})...); err != nil {
		t.Fatal(err)
	}
	head, err := schema.Head(t.Context(), w.ledger.DB())
	if err != nil {
		t.Fatal(err)
	}
	unlock, locked, err := schema.TryLock(t.Context(), w.ledger.DB(), "ledger_targets__next.build") // as another process does
	if err != nil || !locked {
		t.Fatal(locked, err)
	}
	for _, d := range definitions {
		if err := w.engine.AskRebuild(t.Context(), d, "olga"); err != nil {
			t.Fatal(err)
		}
	}
	hold, err := w.ledger.DB().BeginTx(t.Context(), nil) // nothing can be swapped in
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Rollback()
	if _, err := hold.ExecContext(t.Context(), `SELECT FROM subscriptions FOR UPDATE`); err != nil {
		t.Fatal(err)
	}

	ctx, stop := context.WithCancel(t.Context())
	kept := make(chan struct{})
	go func() { w.engine.Keep(ctx, 1); close(kept) }()
	states := func() (at map[string]projections.BuildStatus) {
		at = map[string]projections.BuildStatus{}
		for _, s := range mustStatuses(t, w) {
			if s.Rebuild != nil {
				at[s.Name] = *s.Rebuild
			}
		}
		return at
	}
	await(t, func() bool {
		at := states()
		return !slices.ContainsFunc(all, func(d projections.Definition) bool { return d.Name != "targets" && at[d.Name].Position != head })
	})
	for name, s := range states() {
		want := map[string]string{"fussy": "failed", "targets": "asked"}[name]
		if want == "" {
			want = "running"
		}
		if s.State != want || s.AskedBy != "olga" || want == "failed" && (s.ErrorPosition == nil || *s.ErrorPosition != head) {
			t.Errorf("while none is swapped in %s is %s at %d (%v), asked for by %s, want it %s", name, s.State, s.Position, s.ErrorPosition, s.AskedBy, want)
		}
	}
	stop()
	<-kept
	for name, s := range states() {
		want := map[string]string{"fussy": "failed", "targets": "asked"}[name]
		if want == "" {
			want = "interrupted"
		}
		if s.State != want {
			t.Errorf("with nobody at it %s is %s, want %s", name, s.State, want)
		}
	}
	if err := hold.Rollback(); err != nil {
		t.Fatal(err)
	}
	unlock()
	ctx, stop = w.untilDone(t)
	defer stop()
	w.engine.Keep(ctx, 2)
	for _, s := range mustStatuses(t, w) {
		if behind := s.Position != head; behind != (s.Name == fussy.Name) || behind != (s.Rebuild != nil) {
			t.Errorf("in the end %s stands at %d of %d, and its rebuild at %+v", s.Name, s.Position, head, s.Rebuild)
		}
	}
	if report, err := w.engine.Verify(t.Context()); err != nil || !report.OK() {
		t.Errorf("Verify = %v, %v", report.Problems, err)
	}
}

// await returns when something holds.
func await(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); {
		if time.Now().After(deadline) {
			t.Fatal("it never came")
		}
		<-time.After(5 * time.Millisecond)
	}
}
