package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

const testMasterKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

// archivable is a ledger of 900 events in partitions of 300, with its tree grown and signed.
func archivable(t *testing.T) *schematest.DB {
	t.Helper()
	db := schematest.Open(t)
	if _, err := db.ExecContext(t.Context(), `ALTER TABLE events DETACH PARTITION events_1; DROP TABLE events_1; DELETE FROM partitions;
		UPDATE ledger_settings SET partition_size = 300; SELECT ensure_partitions(1)`); err != nil {
		t.Fatal(err)
	}
	ledger := schema.OpenLedger(db.DB, nil, nil)
	defer ledger.Close()
	h := newBenchHistory(1, 50)
	var events []domain.Event
	for len(events) < 900 {
		events = h.next(events)
	}
	if _, err := ledger.Append(t.Context(), events[:900]...); err != nil {
		t.Fatal(err)
	}
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if failure, err := schema.Attempt(t.Context(), tx, schema.Slice{To: 900}, schema.GrowTree); err != nil || failure != nil {
		t.Fatal(failure, err)
	}
	if _, err := tx.ExecContext(t.Context(), `INSERT INTO subscriptions (name, position) VALUES ('tree', 900)`); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	master, err := schema.ParseMasterKey(testMasterKey)
	if err != nil {
		t.Fatal(err)
	}
	vault, err := schema.OpenVault(t.Context(), db.DB, master, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	origin, err := schema.Origin(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := vault.SigningKeys(t.Context(), origin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&schema.Checkpointer{DB: db.DB, Origin: origin, Keys: keys, Clock: time.Now}).Sign(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db
}

// A rebuild of a ledger whose first events were archived says what it needs before it begins, takes it, and leaves it as it was.
func TestRebuildFromArchives(t *testing.T) {
	t.Parallel()
	db := archivable(t)
	dir := t.TempDir()
	command := func(want int, args ...string) (stderr string) {
		t.Helper()
		var out, errs bytes.Buffer
		env := environ{lookup: func(name string) (string, bool) {
			return testMasterKey, name == "DISPATCH_LEDGER_MASTER_KEY"
		}, stdin: strings.NewReader(""), stdout: &out, stderr: &errs}
		if got := run(context.Background(), env, append(args, "--database-url", db.URL, "--data-dir", dir)); got != want {
			t.Fatalf("%v: exit code %d, want %d: %s", args, got, want, errs.String())
		}
		return errs.String()
	}
	state := func() (rows string, first int64) {
		t.Helper()
		err := db.QueryRowContext(t.Context(), `SELECT (SELECT md5(string_agg(c::text, ' ' ORDER BY c::text)) FROM ledger_consent.consent_state c), (SELECT min(first) FROM partitions)`).Scan(&rows, &first)
		if err != nil {
			t.Fatal(err)
		}
		return rows, first
	}
	command(exitDone, "rebuild", "consent")
	before, _ := state()
	first, second := t.TempDir(), t.TempDir()
	for _, archive := range []string{first, second} {
		command(exitDone, "archive", "write", archive)
		command(exitDone, "archive", "detach", archive)
	}
	if said := command(exitFailed, "rebuild", "consent"); !strings.Contains(said, "begins at event 601") || !strings.Contains(said, "--archive") {
		t.Errorf("without the archives: %q, want what is missing and how to give it", said)
	}
	if said := command(exitFailed, "rebuild", "consent", "--archive", first); !strings.Contains(said, "events 301 to 600") {
		t.Errorf("with one of two: %q, want the other's events", said)
	}
	if said := command(exitFailed, "rebuild", "consent", "--archive", first, "--archive", t.TempDir()); !strings.Contains(said, "--archive ") {
		t.Errorf("with a folder that is no archive: %q", said)
	}
	if _, left := state(); left != 601 {
		t.Errorf("after refusals the ledger begins at %d, want 601: nothing is attached before all is known to be there", left)
	}
	if _, err := db.ExecContext(t.Context(), `TRUNCATE ledger_consent.consent_state`); err != nil {
		t.Fatal(err)
	}
	command(exitDone, "rebuild", "consent", "--archive", first, "--archive", second)
	if rows, left := state(); rows != before || left != 601 {
		t.Errorf("rebuilt from archives: the same rows: %t; the ledger begins at %d, want 601", rows == before, left)
	}
}
