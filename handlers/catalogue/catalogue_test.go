package catalogue_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/catalogue"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

var (
	ada   = catalogue.Author{Name: "ada", Source: "/test"}
	grace = catalogue.Author{Name: "grace", Source: "/test"}
)

func open(t *testing.T) (catalogue.Catalogue, *projections.Engine, *sql.DB) {
	t.Helper()
	database := schematest.Open(t)
	db, err := schema.Connect(database.URL, schema.Options{Role: "ledger_service", Paths: projections.Paths("", targets.Definition)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	engine := projections.NewEngine(db, "", nil, targets.Definition)
	if _, err := engine.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	ledger := schema.OpenLedger(db, nil, nil)
	t.Cleanup(ledger.Close)
	return catalogue.Catalogue{DB: db, Ledger: ledger, Now: time.Now}, engine, db
}

func target(body string, change ...func(*domain.Target)) domain.TargetChanged {
	t := domain.TargetChanged{Target: domain.Target{Handle: "welcome", URL: "https://example.com/", Body: body}}
	for _, f := range change {
		f(&t.Target)
	}
	t.Normalize()
	return t
}

func guarded(t *domain.Target) { t.Approval = domain.ApprovalRequired }

func must(t *testing.T) func(catalogue.Result, error) catalogue.Result {
	return func(r catalogue.Result, err error) catalogue.Result {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

func TestRollingBackIsAVersion(t *testing.T) {
	t.Parallel()
	c, _, _ := open(t)
	ok := must(t)
	ok(c.Apply(t.Context(), ada, target(`{"v": 1}`), nil))
	ok(c.Apply(t.Context(), grace, target(`{"v": 2}`), nil))
	if r := ok(c.Apply(t.Context(), grace, target(`{"v": 2}`), nil)); !r.Unchanged {
		t.Errorf("the same again = %+v, want nothing recorded", r)
	}
	r := ok(c.RollBack(t.Context(), ada, "welcome", 1, ""))
	if r.After.Version != 3 || r.After.Body != `{"v": 1}` || r.After.Restores != 1 || r.After.ChangedBy != "ada" || r.After.Reason != "rolled back to version 1" {
		t.Errorf("rolled back to %+v, want version 3 by ada that restores 1", r.After)
	}
	from, to, changes, err := c.Diff(t.Context(), "welcome", 1, 3)
	if err != nil || from != 1 || to != 3 || len(changes) != 0 {
		t.Errorf("difference of %d to %d = %v, %v; want none", from, to, changes, err)
	}
	from, to, changes, err = c.Diff(t.Context(), "welcome", 0, 2)
	if err != nil || from != 1 || to != 2 || len(changes) != 1 || changes[0].Pointer != "/body" {
		t.Errorf("difference of %d to %d = %v, %v; want the body's of 1 to 2", from, to, changes, err)
	}
	for _, version := range []int64{4, 99} {
		if _, err := c.RollBack(t.Context(), ada, "welcome", version, ""); !errors.Is(err, schema.ErrNotFound) {
			t.Errorf("version %d: %v, want not found", version, err)
		}
	}
	if _, err := c.RollBack(t.Context(), ada, "nobody", 1, ""); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("no target: %v, want not found", err)
	}
}

func TestMovingLeavesTheRest(t *testing.T) {
	t.Parallel()
	c, _, _ := open(t)
	ok := must(t)
	ok(c.Apply(t.Context(), ada, target(`{}`), nil))
	r := ok(c.Move(t.Context(), ada, "welcome", "https://production.example.com/in", ""))
	_, _, changes, err := c.Diff(t.Context(), "welcome", 0, 0)
	if err != nil || len(changes) != 1 || changes[0].Pointer != "/url" || r.After.Reason != "moved from https://example.com/ to https://production.example.com/in" {
		t.Errorf("changes = %v (%v), because %q; want the URL's alone", changes, err, r.After.Reason)
	}
	for _, url := range []string{"ftp://example.com/", "https://example.com{{ x }}", "https://example.com/{{ x"} {
		if _, err := c.Move(t.Context(), ada, "welcome", url, ""); !errors.Is(err, domain.ErrInvalid) {
			t.Errorf("%s: %v, want invalid", url, err)
		}
	}
}

// A change that takes two people holds when the second one says so, and no other way leads around it.
func TestFourEyes(t *testing.T) {
	t.Parallel()
	c, engine, db := open(t)
	ok := must(t)

	r := ok(c.Apply(t.Context(), ada, target(`{"v": 1}`, guarded), nil))
	if r.Proposal != 1 || catalogue.Exists(r.After) {
		t.Fatalf("a new target that asks for approval = %+v, want proposal 1 and no target", r)
	}
	if again := ok(c.Apply(t.Context(), ada, target(`{"v": 1}`, guarded), nil)); again.Proposal != 1 {
		t.Errorf("proposed again = %d, want the same proposal", again.Proposal)
	}
	if _, err := c.Approve(t.Context(), ada, "welcome", 1, ""); !errors.Is(err, catalogue.ErrSamePerson) {
		t.Errorf("approved by who proposed it: %v, want %v", err, catalogue.ErrSamePerson)
	}
	r = ok(c.Approve(t.Context(), grace, "welcome", 0, "looks right"))
	if r.After.Version != 1 || r.After.ChangedBy != "grace" || r.After.Approved == nil || r.After.Approved.ProposedBy != "ada" {
		t.Errorf("approved = %+v, want version 1 by grace, proposed by ada", r.After)
	}
	if _, err := c.Approve(t.Context(), grace, "welcome", 1, ""); !errors.Is(err, catalogue.ErrStale) {
		t.Errorf("approved twice: %v, want %v", err, catalogue.ErrStale)
	}

	// Not by leaving the approval out, by moving, by rolling back, nor by withdrawing the target first.
	for name, change := range map[string]func() (catalogue.Result, error){
		"without the approval": func() (catalogue.Result, error) { return c.Apply(t.Context(), ada, target(`{"v": 2}`), nil) },
		"by moving": func() (catalogue.Result, error) {
			return c.Move(t.Context(), ada, "welcome", "https://elsewhere.example.com/", "")
		},
	} {
		if r := ok(change()); r.Proposal == 0 || r.After.Version != 1 {
			t.Errorf("%s: %+v, want a proposal", name, r)
		}
	}
	ok(c.Change(t.Context(), ada, "welcome", false, func(targets.Target) (domain.Payload, error) { return domain.TargetDeleted{Handle: "welcome"}, nil }))
	r = ok(c.Apply(t.Context(), ada, target(`{"v": 3}`), nil))
	if r.Proposal == 0 || catalogue.Exists(r.After) {
		t.Errorf("after withdrawing: %+v, want a proposal", r)
	}

	// What was proposed before it was withdrawn is for a target that is no longer so.
	list, err := c.Proposals(t.Context(), "welcome")
	if err != nil || len(list) != 4 || list[0].Stale || !list[1].Stale || !list[2].Stale || list[3].State != "approved" {
		t.Fatalf("proposals = %+v, %v", list, err)
	}
	if _, err := c.Approve(t.Context(), grace, "welcome", list[1].Number, ""); !errors.Is(err, catalogue.ErrStale) {
		t.Errorf("a stale one approved: %v, want %v", err, catalogue.ErrStale)
	}
	if p, err := c.Decline(t.Context(), ada, "welcome", list[1].Number, "out of date"); err != nil || p.State != "declined" || p.Decision != "out of date" {
		t.Errorf("withdrawn = %+v, %v", p, err)
	}

	// The projection says the same.
	if err := engine.Rebuild(t.Context(), targets.Definition, projections.RebuildOptions{}); err != nil {
		t.Fatal(err)
	}
	list, err = c.Proposals(t.Context(), "welcome")
	if err != nil {
		t.Fatal(err)
	}
	projected, err := targets.Proposals(t.Context(), db, "welcome", false, 0, 100)
	if err != nil || len(projected) != len(list) {
		t.Fatalf("projected = %+v, %v", projected, err)
	}
	for i := range list {
		if projected[i].Number != list[i].Number || projected[i].State != list[i].State || projected[i].Stale != list[i].Stale || projected[i].DecidedBy != list[i].DecidedBy {
			t.Errorf("projected %+v, want %+v", projected[i], list[i])
		}
	}
	if open, err := targets.Proposals(t.Context(), db, "", true, 0, 100); err != nil || len(open) != 2 {
		t.Errorf("open = %+v, %v; want two", open, err)
	}
}

// Of eight who approve and decline at the same moment, one does.
func TestOneDecides(t *testing.T) {
	t.Parallel()
	c, _, _ := open(t)
	must(t)(c.Apply(t.Context(), ada, target(`{}`, guarded), nil))
	var wg sync.WaitGroup
	var mu sync.Mutex
	decided := 0
	for i := range 8 {
		wg.Go(func() {
			var err error
			if i%2 == 0 {
				_, err = c.Approve(context.Background(), grace, "welcome", 1, "")
			} else {
				_, err = c.Decline(context.Background(), grace, "welcome", 1, "")
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				decided++
			case !errors.Is(err, schema.ErrConflict) && !errors.Is(err, catalogue.ErrStale):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	list, err := c.Proposals(context.Background(), "welcome")
	if err != nil || decided != 1 {
		t.Fatalf("%d decided (%v), want one", decided, err)
	}
	if now, _, err := c.History(t.Context(), "welcome"); err != nil || (list[0].State == "approved") != catalogue.Exists(now) {
		t.Errorf("the proposal is %s and the target %+v, %v", list[0].State, now, err)
	}
}
