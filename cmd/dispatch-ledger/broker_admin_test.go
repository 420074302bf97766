package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/broker"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// brokerOfOne starts a server of NATS for the test.
func brokerOfOne(t *testing.T) string {
	t.Helper()
	server, err := broker.StartEmbedded(broker.EmbeddedConfig{Dir: t.TempDir(), Name: "one"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return server.URL()
}

func TestAMessageThatIsNoEventIsTakenAfterAll(t *testing.T) {
	t.Parallel()
	url, databaseURL, dir := brokerOfOne(t), schematest.Open(t).URL, t.TempDir()
	startProgram(t, databaseURL, dir, "--broker", url, "--broker-replicas", "1")
	id, profile := uuid.NewString(), uuid.NewString()
	body := fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/engine","type":"reaction.fired","data":{"reaction":"r","target":"t","profile_id":%q,"cause":"whim","context":{}}}`, id, profile)
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for { // until there is a stream that it is acknowledged by
		if _, err := conn.Request(broker.EventsSubject("ledger", "shop"), []byte(body), 10*time.Second); err == nil {
			break
		} else if !errors.Is(err, nats.ErrNoResponders) {
			t.Fatal(err)
		}
		<-time.After(20 * time.Millisecond)
	}
	command := func(args ...string) (code int, stdout, stderr string) {
		t.Helper()
		var out, errs bytes.Buffer
		env := environ{lookup: os.LookupEnv, stdin: strings.NewReader(""), stdout: &out, stderr: &errs}
		args = append(args, "--broker", url, "--database-url", databaseURL, "--data-dir", dir, "--output", "json", "--log-level", "error")
		code = run(t.Context(), env, args)
		return code, out.String(), errs.String()
	}
	var list []broker.Rejected
	for range 200 {
		code, stdout, stderr := command("broker", "rejected", "list")
		if code != exitDone && strings.Contains(stderr, "a writer of ledger ledger makes it") { // about to
			<-time.After(50 * time.Millisecond)
			continue
		}
		if code != exitDone {
			t.Fatalf("list: %d: %s", code, stderr)
		}
		if err := json.Unmarshal([]byte(stdout), &list); err != nil {
			t.Fatal(err)
		}
		if len(list) > 0 {
			break
		}
		<-time.After(50 * time.Millisecond)
	}
	if len(list) != 1 || list[0].Emitter != "shop" || !strings.Contains(list[0].Reason, "cause") || list[0].Size != len(body) || len(list[0].Sealed) > 0 {
		t.Fatalf("what was put aside = %+v", list)
	}
	number := fmt.Sprint(list[0].Sequence)
	if code, stdout, stderr := command("broker", "rejected", "show", number, "--reason", "to see what the shop sends"); code != exitDone || strings.TrimSpace(stdout) != body {
		t.Errorf("show: %d: %s %s", code, stdout, stderr)
	}
	if code, _, stderr := command("broker", "rejected", "show", number); code != exitUsage {
		t.Errorf("show without a reason: %d: %s", code, stderr)
	}
	if code, _, stderr := command("broker", "rejected", "admit", number); code != exitFailed || !strings.Contains(stderr, "--from FILE") {
		t.Errorf("admitting what is no event: %d: %s", code, stderr)
	}
	corrected := filepath.Join(dir, "corrected.json")
	if err := os.WriteFile(corrected, []byte(strings.Replace(body, "whim", "reaction", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command("broker", "rejected", "admit", number, "--from", corrected); code != exitDone {
		t.Errorf("admitting it corrected: %d: %s", code, stderr)
	}
	if code, stdout, stderr := command("broker", "rejected", "list"); code != exitDone || strings.Contains(stdout, "shop") {
		t.Errorf("what is left: %d: %s %s", code, stdout, stderr)
	}
	if code, _, stderr := command("broker", "rejected", "admit", number); code != exitFailed || !strings.Contains(stderr, "has this number") {
		t.Errorf("admitting it again: %d: %s", code, stderr)
	}
	if code, stdout, stderr := command("broker", "status"); code != exitDone || !strings.Contains(stdout, `"rejected"`) {
		t.Errorf("status: %d: %s %s", code, stdout, stderr)
	}

	db, err := schema.Connect(databaseURL, schema.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	e, err := schema.EventByID(t.Context(), db, uuid.MustParse(id))
	if err != nil || e.Actor != "broker:shop" {
		t.Errorf("the event = %v by %s, want it to be there, by its emitter", err, e.Actor)
	}
	var looked int
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM events WHERE type = 'sealed.revealed'`).Scan(&looked); err != nil || looked != 1 {
		t.Errorf("%d looks recorded, %v; want 1", looked, err)
	}
}

// TestWorkersWithAndWithoutABroker has a process that dispatches itself and one that has dispatchers behind a broker share one
// ledger's work, and kills what sends on either side: what is sent, is sent once.
func TestWorkersWithAndWithoutABroker(t *testing.T) {
	t.Parallel()
	url := brokerOfOne(t)
	w, alone := newFaultWorld(t, schematest.Open(t).URL)
	carrying := startProgram(t, w.url, w.dataDir, "--broker", url, "--broker-replicas", "1")
	var stdout, stderr bytes.Buffer
	env := environ{lookup: os.LookupEnv, stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr}
	if code := run(t.Context(), env, []string{"token", "create", "--role", "dispatcher", "--name", "fleet", "--database-url", w.url, "--data-dir", w.dataDir, "--log-level", "error"}); code != exitDone {
		t.Fatalf("token create: %d: %s", code, &stderr)
	}
	join := func() *process {
		return startServe(t, "serve", "--roles", "dispatch", "--broker", url, "--join", strings.TrimSpace(stdout.String()), "--listen", "127.0.0.1:0",
			"--allow-network", "127.0.0.0/8", "--log-level", "warn", "--data-dir", t.TempDir())
	}
	fleet := join()
	w.pause()
	w.pause()
	alone.kill()
	w.engine.at(carrying.address)
	w.pause()
	alone = startProgram(t, w.url, w.dataDir)
	fleet.kill()
	join()
	w.pause()
	w.engine.at(alone.address)
	w.pause()
	w.judge(t)

	db, err := schema.Connect(w.url, schema.Options{Paths: projections.Paths("", builtIn...)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var workers int
	if err := db.QueryRowContext(t.Context(), `SELECT count(DISTINCT data->>'worker') FROM events WHERE type = 'delivery.attempted'`).Scan(&workers); err != nil || workers < 2 {
		t.Errorf("%d workers made attempts, %v; want both kinds to", workers, err)
	}
}
