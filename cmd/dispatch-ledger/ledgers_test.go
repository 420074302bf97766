package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// brands are several ledgers in one process.
type brands struct {
	*process
	t       *testing.T
	url     string
	dataDir string
	tokens  map[string]string
}

func (b *brands) token(ledger string) {
	b.t.Helper()
	var stdout, stderr bytes.Buffer
	env := environ{lookup: os.LookupEnv, stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr}
	args := []string{
		"token", "create", "--role", "operator", "--name", "engine", "--ledger", ledger, "--database-url", b.url,
		"--data-dir", filepath.Join(b.dataDir, "ledgers", ledger), "--log-level", "error",
	}
	if code := run(b.t.Context(), env, args); code != exitDone {
		b.t.Fatalf("token create for %s: exit code %d: %s", ledger, code, &stderr)
	}
	b.tokens[ledger] = strings.TrimSpace(stdout.String())
}

// call asks with somebody's token, under a host's name where one is given.
func (b *brands) call(ctx context.Context, method, host, path, token, body string) (status int, content string) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+b.address+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Host = host
	req.Header.Set("Content-Type", "application/cloudevents+json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// until asks until it is served and says what is wanted.
func (b *brands) until(path, want string) {
	b.t.Helper()
	status, content := 0, ""
	for range 300 {
		if status, content = b.call(b.t.Context(), http.MethodGet, "", path, "", ""); status == http.StatusOK && strings.Contains(content, want) {
			return
		}
		<-time.After(100 * time.Millisecond)
	}
	b.t.Fatalf("GET %s = %d %s, want %s; the process says: %s", path, status, content, want, b.log)
}

func TestSeveralLedgersInOneProcess(t *testing.T) {
	t.Parallel()
	b := &brands{t: t, url: schematest.Open(t).URL, dataDir: t.TempDir(), tokens: map[string]string{}}
	key := filepath.Join(b.dataDir, "broken.key")
	file := filepath.Join(b.dataDir, "ledgers.yaml")
	content := fmt.Sprintf("ledgers:\n- name: acme\n- name: zeta\n  hosts: [zeta.example.com]\n- name: broken\n  master_key_file: %s\n", key)
	for name, text := range map[string]string{key: "no key\n", file: content} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.process = startServe(t, "serve", "--ledgers", file, "--database-url", b.url, "--data-dir", b.dataDir, "--listen", "127.0.0.1:0", "--log-level", "error")
	b.until("/l/acme/readyz", "ready")
	b.until("/l/zeta/readyz", "ready")
	b.until("/readyz", `"broken":"it failed`)
	b.token("acme")
	b.token("zeta")

	ids := map[string]string{"acme": uuid.NewString(), "zeta": uuid.NewString()}
	for ledger, id := range ids {
		event := fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/engine","type":"reaction.fired","data":{"reaction":"r","target":"none","profile_id":%q,"cause":"reaction","context":{}}}`, id, uuid.NewString())
		if status, answer := b.call(t.Context(), http.MethodPost, "", "/l/"+ledger+"/v1/events", b.tokens[ledger], event); status != http.StatusAccepted {
			t.Fatalf("%s takes an event with %d %s", ledger, status, answer)
		}
	}
	for name, tc := range map[string]struct {
		host, path, token string
		status            int
		holds, lacks      string
	}{
		"its own":                        {"", "/l/acme/v1/events", "acme", 200, ids["acme"], ids["zeta"]},
		"another's by path":              {"", "/l/zeta/v1/events", "acme", 401, "", ids["zeta"]},
		"another's by host":              {"zeta.example.com", "/v1/events", "acme", 401, "", ids["zeta"]},
		"its own by host":                {"ZETA.example.com:443", "/v1/events", "zeta", 200, ids["zeta"], ids["acme"]},
		"another's by path under a host": {"zeta.example.com", "/l/acme/v1/events", "acme", 200, "Sign in", ids["acme"]},
		"by no ledger":                   {"", "/v1/events", "acme", 404, "no-such-ledger", ids["acme"]},
		"one that there is not":          {"", "/l/other/v1/events", "acme", 404, "no-such-ledger", ids["acme"]},
		"with a path that goes up":       {"", "/l/zeta/../acme/v1/events", "zeta", 404, "", ids["acme"]},
		"one that does not run":          {"", "/l/broken/v1/events", "acme", 503, "ledger-unavailable", "key"},
		"what is served":                 {"", "/readyz", "", 200, `"broken":"it failed`, "key"},
		"the process's metrics":          {"", "/metrics", "", 200, "process_open_fds", "ledger_events"},
		"a ledger's metrics":             {"", "/l/acme/metrics", "", 200, "ledger_events_appended_total", "process_open_fds"},
	} {
		t.Run(name, func(t *testing.T) {
			status, content := b.call(t.Context(), http.MethodGet, tc.host, tc.path, b.tokens[tc.token], "")
			if status != tc.status || !strings.Contains(content, tc.holds) || strings.Contains(content, tc.lacks) {
				t.Errorf("GET %s = %d %s", tc.path, status, content)
			}
		})
	}

	// What was wrong with one is put right while the others run.
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(filepath.Join(b.dataDir, "ledgers", "acme", "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, other, 0o600); err != nil {
		t.Fatal(err)
	}
	b.until("/l/broken/readyz", "ready")
}

func TestLedgerFilesThatDoNotGo(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ file, want string }{
		"empty":                   {"", "names no ledger"},
		"a name that is none":     {"ledgers: [{name: Acme}]", "lower-case letters"},
		"the same twice":          {"ledgers: [{name: a}, {name: a}]", "in each other's way"},
		"in another's schemas":    {"ledgers: [{name: a_b}, {name: a}]", "in each other's way"},
		"one host for two":        {"ledgers: [{name: a, hosts: [x]}, {name: b, hosts: [X]}]", "two ledgers have the host"},
		"a field that is unknown": {"ledgers: [{name: a, host: x}]", "unknown field"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "ledgers.yaml")
			if err := os.WriteFile(path, []byte(tc.file), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := readLedgers(path); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("readLedgers = %v, want it to say %q", err, tc.want)
			}
		})
	}
}

// What the process's environment holds for one ledger is not another's, and what it holds for none is nobody's.
func TestALedgersSecretsAreItsOwn(t *testing.T) {
	t.Parallel()
	held := map[string]string{
		schema.MasterKeyVariable: "of one ledger alone", schema.MasterKeyVariable + "_ACME": "acme's",
		environmentName("bootstrap-token"): "of one ledger alone", environmentName("bootstrap-token") + "_ACME": "acme's token",
	}
	process := settings{dataDir: "/data", env: environ{lookup: func(name string) (string, bool) { v, ok := held[name]; return v, ok }}}
	for name, want := range map[string][2]string{"acme": {"acme's", "acme's token"}, "zeta": {}} {
		own, flags := process.of(ledgerEntry{Name: name}, serveFlags{bootstrapToken: "of one ledger alone"})
		key, _ := own.env.lookup(schema.MasterKeyVariable)
		if got := [2]string{key, flags.bootstrapToken}; got != want {
			t.Errorf("%s has the key and token %q, want %q", name, got, want)
		}
	}
}
