package export_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/export"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// archive writes the oldest partition to files and proves it.
func (l *ledger) archive(t *testing.T) (dir string, a domain.LedgerArchived) {
	t.Helper()
	all, err := schema.Partitions(t.Context(), l.DB)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	l.export(t, dir, export.Options{Format: export.Parquet, From: all[0].From, To: all[0].To, Sealed: true})
	if _, err := export.Verify(dir, l.keys); err != nil {
		t.Fatal(err)
	}
	sum, err := export.Digest(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir, domain.LedgerArchived{From: all[0].From, To: all[0].To, ManifestSHA256: sum}
}

func (l *ledger) verify(t *testing.T) schema.VerifyReport {
	t.Helper()
	r, err := schema.Verify(t.Context(), l.DB.DB, schema.VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What is archived and detached is proven as before, a repeat of it is recognised, and it can be put back as it was.
func TestArchive(t *testing.T) {
	t.Parallel()
	l := newPartitioned(t, 300) // 1 to 300, 301 to 600, 601 to 900; a tile ends at 512
	var before []domain.Recorded
	for e, err := range schema.Events(t.Context(), l.DB, schema.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		before = append(before, e)
	}
	dir, a := l.archive(t)
	for name, wrong := range map[string]domain.LedgerArchived{
		"the middle": {From: 300, To: 600}, "one that is in use": {From: 600, To: 900}, "a part": {From: 0, To: 200}, "none": {From: 7, To: 20},
	} {
		if err := l.ledger.Detach(t.Context(), l.DB.DB, wrong, "test"); !errors.Is(err, schema.ErrArchive) {
			t.Errorf("detaching %s: %v", name, err)
		}
	}
	if err := l.ledger.Detach(t.Context(), l.DB.DB, a, "olga"); err != nil {
		t.Fatal(err)
	}
	if all, err := schema.Archived(t.Context(), l.DB); err != nil || len(all) != 1 || all[0] != a {
		t.Errorf("Archived = %+v, %v, want %+v", all, err, a)
	}
	if _, err := schema.EventAt(t.Context(), l.DB, 100); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("an archived event is read as %v", err)
	}
	if r := l.verify(t); !r.OK() || r.Archived != 300 || r.Events != r.To-300 {
		t.Errorf("Verify = %+v", r)
	}
	for _, p := range []int64{1, 100, 256, 257, 300, 301, 700} {
		proof, err := schema.InclusionProof(t.Context(), l.DB, p, 0)
		if err != nil {
			t.Errorf("proof of position %d: %v", p, err)
		} else if _, _, err := proof.Verify(domain.Hash(before[p-1].Leaf), l.keys); err != nil {
			t.Errorf("proof of position %d: %v", p, err)
		}
	}

	engine := projections.NewEngine(l.DB.DB, "", nil, targets.Definition)
	if _, err := engine.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := engine.Rebuild(t.Context(), targets.Definition, projections.RebuildOptions{}); !errors.Is(err, projections.ErrArchived) {
		t.Errorf("a rebuild without the archived events: %v", err)
	}
	if r, err := engine.Verify(t.Context()); err != nil || !r.OK() || len(r.Notes) != 1 {
		t.Errorf("verifying what follows from archived events: %+v, %v", r, err)
	}

	again := before[99].Event
	appended, err := l.ledger.Append(t.Context(), again)
	if err != nil || !appended[0].Duplicate || appended[0].Position != 100 || appended[0].Version != before[99].Version || !appended[0].RecordedAt.Equal(before[99].RecordedAt) {
		t.Errorf("a repeat of an archived event: %+v, %v", appended, err)
	}
	again.Data = []byte(`{"forged":true}`)
	if _, err := l.ledger.Append(t.Context(), again); !errors.Is(err, schema.ErrIDReused) {
		t.Errorf("its id with other content: %v", err)
	}

	// A stream whose events are all archived goes on counting.
	l2 := newPartitioned(t, 300)
	lone := domain.Event{ID: uuid.New(), Type: "x.y", Stream: before[0].Stream, Actor: "a", Source: "/s", Data: []byte(`{}`)}
	_, a2 := l2.archive(t)
	if err := l2.ledger.Detach(t.Context(), l2.DB.DB, a2, "olga"); err != nil {
		t.Fatal(err)
	}
	if appended, err := l2.ledger.Append(t.Context(), lone); err != nil || appended[0].Version != 6 {
		t.Errorf("the stream goes on as %+v, %v", appended, err)
	}

	if _, err := l.ExecContext(t.Context(), `ALTER TABLE tiles DISABLE TRIGGER ALL; UPDATE tiles SET hashes = set_byte(hashes, 99, 255 - get_byte(hashes, 99)) WHERE n = 0; ALTER TABLE tiles ENABLE TRIGGER ALL`); err != nil {
		t.Fatal(err)
	}
	if r := l.verify(t); r.OK() || r.Problems[0].Kind != schema.ProblemTree || r.Problems[0].Position != 1 {
		t.Errorf("a tile over archived events was changed: %s", r)
	}
	if _, err := l.ExecContext(t.Context(), `ALTER TABLE tiles DISABLE TRIGGER ALL; UPDATE tiles SET hashes = set_byte(hashes, 99, 255 - get_byte(hashes, 99)) WHERE n = 0; ALTER TABLE tiles ENABLE TRIGGER ALL`); err != nil {
		t.Fatal(err)
	}

	m, err := export.ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	back := domain.LedgerRestored{From: a.From, To: a.To}
	if err := l.ledger.Attach(t.Context(), l.DB.DB, back, export.Events(dir, m), "olga"); err != nil {
		t.Fatal(err)
	}
	if r := l.verify(t); !r.OK() || r.Archived != 0 || r.Events != r.To {
		t.Errorf("after it was put back: %s", r)
	}
	for i, want := range before {
		got, err := schema.EventAt(t.Context(), l.DB, int64(i+1))
		if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Fatalf("event %d came back as %+v, %v\nand was %+v", i+1, got, err, want)
		}
	}
	if err := l.ledger.Attach(t.Context(), l.DB.DB, back, export.Events(dir, m), "olga"); err == nil {
		t.Error("it was put back twice")
	}
	_, a = l.archive(t)
	if err := l.ledger.Detach(t.Context(), l.DB.DB, a, "olga"); err != nil {
		t.Errorf("detached once more: %v", err)
	}
}

// Events that are gone without the ledger's word that they were archived are missing.
func TestADeletedPartitionIsNoArchive(t *testing.T) {
	t.Parallel()
	l := newPartitioned(t, 300)
	if _, err := l.ExecContext(t.Context(), `ALTER TABLE events DETACH PARTITION events_1; DROP TABLE events_1; DELETE FROM partitions WHERE first = 1`); err != nil {
		t.Fatal(err)
	}
	if r := l.verify(t); r.OK() || r.Problems[0].Kind != schema.ProblemLeaf || r.Problems[0].Position != 1 || r.Problems[0].To != 300 {
		t.Errorf("Verify = %s", r)
	}
	if _, err := export.Run(t.Context(), l.DB.DB, t.TempDir(), export.Options{Format: export.Parquet, To: 400}); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("exporting them: %v", err)
	}
}
