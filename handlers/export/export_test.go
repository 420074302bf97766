package export_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/note"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/export"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// ledger is one of 700 events, every third with a sealed part, under a checkpoint of all of them.
type ledger struct {
	*schematest.DB
	ledger *schema.Ledger
	keys   note.Verifiers
	sign   *schema.Checkpointer
}

func newLedger(t *testing.T) *ledger { return newPartitioned(t, 0) }

// newPartitioned is newLedger with partitions of so many events.
func newPartitioned(t *testing.T, size int) *ledger {
	t.Helper()
	l := &ledger{DB: schematest.Open(t)}
	if size > 0 {
		_, err := l.ExecContext(t.Context(), fmt.Sprintf(`ALTER TABLE events DETACH PARTITION events_1; DROP TABLE events_1; DELETE FROM partitions;
			UPDATE ledger_settings SET partition_size = %d; SELECT ensure_partitions(1)`, size))
		if err != nil {
			t.Fatal(err)
		}
	}
	l.ledger = schema.OpenLedger(l.DB.DB, nil, nil)
	t.Cleanup(l.ledger.Close)
	master, err := schema.ParseMasterKey("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
	if err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC) }
	vault, err := schema.OpenVault(t.Context(), l.DB.DB, master, clock)
	if err != nil {
		t.Fatal(err)
	}
	origin, err := schema.Origin(t.Context(), l.DB)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := vault.SigningKeys(t.Context(), origin)
	if err != nil {
		t.Fatal(err)
	}
	l.keys = note.VerifierList(keys.Verifiers...)
	l.sign = &schema.Checkpointer{DB: l.DB.DB, Origin: origin, Keys: keys, Clock: clock}
	l.append(t, 700)
	return l
}

func (l *ledger) append(t *testing.T, n int) {
	t.Helper()
	events := make([]domain.Event, n)
	for i := range events {
		events[i] = domain.Event{
			ID: uuid.New(), Type: "consent.changed", Stream: fmt.Sprintf("profile-%d", i%5), Keys: domain.Keys{Subject: uuid.New(), Channel: "email"},
			Actor: "=cmd()", Source: "/test", Data: fmt.Appendf(nil, `{"n": %d, "name": "Zoë <&>"}`, i),
		}
		if i < 5 {
			events[i].Stream = "early"
		}
		if i%3 == 0 {
			events[i].Sealed = fmt.Append(nil, "sealed", i)
		} else {
			events[i].OccurredAt = time.Unix(int64(i), 1000).UTC()
		}
	}
	if _, err := l.ledger.Append(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
	head, err := l.ledger.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tx, err := l.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	from, err := schema.TreeSize(t.Context(), tx)
	if err != nil {
		t.Fatal(err)
	}
	if failure, err := schema.Attempt(t.Context(), tx, schema.Slice{From: from, To: head}, schema.GrowTree); err != nil || failure != nil {
		t.Fatal(failure, err)
	}
	if _, err := tx.ExecContext(t.Context(), `INSERT INTO subscriptions (name, position) VALUES ('tree', $1) ON CONFLICT (name) DO UPDATE SET position = $1`, head); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.sign.Sign(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (l *ledger) export(t *testing.T, dir string, o export.Options) export.Manifest {
	t.Helper()
	m, err := export.Run(t.Context(), l.DB.DB, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAnExportIsProvenFromItsFiles(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	for name, o := range map[string]export.Options{
		"all":                  {},
		"all, with the sealed": {Sealed: true},
		"a piece of it":        {From: 123, To: 321},
		"one event":            {From: 511, To: 512},
		"the end":              {From: 600},
		"in small parts":       {Part: 97, Sealed: true},
	} {
		for _, o.Format = range []export.Format{export.NDJSON, export.CSV} {
			dir := t.TempDir()
			m := l.export(t, dir, o)
			if r, err := export.Verify(dir, l.keys); err != nil || r.Count != m.To-m.From {
				t.Errorf("%s, %s: Verify = %+v, %v", name, o.Format, r, err)
			}
		}
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o.Format = export.Parquet
			m := l.export(t, dir, o)
			r, err := export.Verify(dir, l.keys)
			if err != nil || r.Count != m.To-m.From || r.Count != m.Count || m.Types["consent.changed"] != m.Count {
				t.Errorf("Verify = %+v, %v; the manifest counts %d", r, err, m.Count)
			}
			if !o.Sealed {
				return
			}
			next := m.From
			for e, err := range export.Events(dir, m) {
				if err != nil {
					t.Fatal(err)
				}
				next++
				want, err := schema.EventAt(t.Context(), l.DB, next)
				if err != nil {
					t.Fatal(err)
				}
				if got, want := fmt.Sprintf("%+v", *e), fmt.Sprintf("%+v", want); got != want {
					t.Fatalf("event %d came back as\n%s\nand was\n%s", next, got, want)
				}
			}
			if next != m.To {
				t.Errorf("the events end at %d, want %d", next, m.To)
			}
		})
	}
}

func TestWhatWasChangedInAnExportIsFound(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	other := newLedger(t)
	edit := func(change func(*export.Manifest)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			m, err := export.ReadManifest(dir)
			if err != nil {
				t.Fatal(err)
			}
			change(&m)
			text, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, export.ManifestName), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	part := func(dir string) string { return filepath.Join(dir, "events-000000000001-000000000300.parquet") }
	for name, tc := range map[string]struct {
		do   func(*testing.T, string)
		want error
	}{
		"a byte of a file": {func(t *testing.T, dir string) {
			content, err := os.ReadFile(part(dir))
			if err != nil {
				t.Fatal(err)
			}
			content[len(content)/2] ^= 1
			if err := os.WriteFile(part(dir), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}, export.ErrDamaged},
		"a file is cut":      {func(t *testing.T, dir string) { os.Truncate(part(dir), 1000) }, export.ErrDamaged},
		"a file is missing":  {func(t *testing.T, dir string) { os.Remove(part(dir)) }, export.ErrDamaged},
		"a part is left out": {edit(func(m *export.Manifest) { m.Parts = m.Parts[1:] }), export.ErrDamaged},
		"the end is left out": {edit(func(m *export.Manifest) {
			m.Parts, m.To, m.Count = m.Parts[:1], m.Parts[0].To, m.Parts[0].Count
			m.Proof.To = m.To
		}), evidence.ErrUnproven},
		"a hash of the proof":      {edit(func(m *export.Manifest) { m.Proof.Right[0][3] ^= 1 }), evidence.ErrTree},
		"no proof":                 {edit(func(m *export.Manifest) { m.Proof = nil }), export.ErrDamaged},
		"another checkpoint":       {edit(func(m *export.Manifest) { m.Checkpoint = "x\n" + m.Checkpoint }), evidence.ErrUnproven},
		"a path out of the folder": {edit(func(m *export.Manifest) { m.Parts[0].File = "../" + m.Parts[0].File }), export.ErrDamaged},
		"another ledger's files": {func(t *testing.T, dir string) {
			foreign := t.TempDir()
			theirs := other.export(t, foreign, export.Options{Format: export.Parquet, Part: 300, To: 600})
			content, err := os.ReadFile(part(foreign))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(part(dir), content, 0o600); err != nil {
				t.Fatal(err)
			}
			edit(func(m *export.Manifest) { m.Parts[0] = theirs.Parts[0] })(t, dir)
		}, evidence.ErrTree},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l.export(t, dir, export.Options{Format: export.Parquet, Part: 300, To: 600})
			tc.do(t, dir)
			if r, err := export.Verify(dir, l.keys); !errors.Is(err, tc.want) {
				t.Errorf("Verify = %+v, %v, want %v", r, err, tc.want)
			}
		})
	}
	dir := t.TempDir()
	l.export(t, dir, export.Options{Format: export.Parquet})
	if _, err := export.Verify(dir, other.keys); !errors.Is(err, evidence.ErrSignature) {
		t.Errorf("under another ledger's key: %v", err)
	}
}

// Whoever changes a row and the manifest's hash of its file is found by the row's leaf, or by the tree when they changed that too.
func TestAForgedRowIsFoundInEveryFormat(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	for _, format := range []export.Format{export.NDJSON, export.CSV} {
		for from, to := range map[string]string{"\"n\": 42": "\"n\":42", "profile-2": "profile-3", "=cmd()": "=cmd(1)", "Zoë": "Zoe"} {
			dir := t.TempDir()
			m := l.export(t, dir, export.Options{Format: format, To: 300})
			name := filepath.Join(dir, m.Parts[0].File)
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if format == export.CSV {
				from, to = strings.ReplaceAll(from, `"`, `""`), strings.ReplaceAll(to, `"`, `""`)
			}
			forged := bytes.Replace(text, []byte(from), []byte(to), 1)
			if bytes.Equal(forged, text) {
				t.Fatalf("%s does not hold %s", format, from)
			}
			m.Parts[0].Bytes, m.Parts[0].SHA256 = int64(len(forged)), fmt.Sprintf("%x", sha256.Sum256(forged))
			manifest, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.WriteFile(name, forged, 0o600), os.WriteFile(filepath.Join(dir, export.ManifestName), manifest, 0o600)); err != nil {
				t.Fatal(err)
			}
			if _, err := export.Verify(dir, l.keys); !errors.Is(err, evidence.ErrLeaf) {
				t.Errorf("%s with %s for %s: %v, want %v", format, to, from, err, evidence.ErrLeaf)
			}
		}
	}
}

func TestAnInterruptedExportGoesOn(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	o := export.Options{Format: export.NDJSON, Part: 200, To: 700, Progress: func(p export.Progress) {
		if p.Done == 600 {
			cancel()
		}
	}}
	if m, err := export.Run(ctx, l.DB.DB, dir, o); err == nil {
		t.Fatalf("it was not interrupted: %+v", m)
	}
	before, err := export.ReadManifest(dir)
	if err != nil || before.Complete || len(before.Parts) == 0 || len(before.Parts) == 4 {
		t.Fatalf("the manifest of the interrupted export: %+v, %v", before, err)
	}
	l.append(t, 50) // what comes later does not concern it
	first := int64(-1)
	o.Progress = func(p export.Progress) {
		if first < 0 {
			first = p.Done
		}
	}
	m := l.export(t, dir, o)
	if !m.Complete || m.Count != 700 || first <= before.Parts[len(before.Parts)-1].To {
		t.Errorf("it went on to %d first and ended as %+v", first, m)
	}
	if _, err := export.Verify(dir, l.keys); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".part-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for name, other := range map[string]export.Options{
		"another range": {Format: export.NDJSON, From: 5, To: 700}, "another format": {Format: export.CSV, To: 700}, "no format": {Format: "xml", To: 700},
	} {
		if _, err := export.Run(t.Context(), l.DB.DB, dir, other); err == nil {
			t.Errorf("%s was put into the same folder", name)
		}
	}
	if _, err := export.Run(t.Context(), l.DB.DB, t.TempDir(), export.Options{Format: export.CSV, To: 10_000}); !errors.Is(err, schema.ErrTreeBehind) {
		t.Errorf("beyond the checkpoint: %v", err)
	}
}

func TestTheOtherFormatsHoldTheSameRows(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	lines, table := t.TempDir(), t.TempDir()
	m := l.export(t, lines, export.Options{Format: export.NDJSON, To: 100})
	l.export(t, table, export.Options{Format: export.CSV, To: 100})

	f, err := os.Open(filepath.Join(lines, m.Parts[0].File))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var positions int64
	for s := bufio.NewScanner(f); s.Scan(); positions++ {
		var row struct {
			Position int64
			Data     struct {
				N    int64
				Name string
			}
		}
		if err := json.Unmarshal(s.Bytes(), &row); err != nil || row.Position != positions+1 || row.Data.N != positions || row.Data.Name != "Zoë <&>" {
			t.Fatalf("line %d reads %+v, %v", positions+1, row, err)
		}
	}
	g, err := os.Open(filepath.Join(table, "events-000000000001-000000000100.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	records, err := csv.NewReader(g).ReadAll()
	if err != nil || positions != 100 || len(records) != 101 || records[1][17] != `{"n": 0, "name": "Zoë <&>"}` || records[1][13] != "'=cmd()" {
		t.Errorf("%d lines; %d records, %v, the first %q", positions, len(records), err, records[1])
	}
}
