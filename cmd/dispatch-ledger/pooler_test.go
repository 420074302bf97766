package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// TestThroughAPooler has two processes do everything through a PgBouncer in transaction mode that has fewer connections than
// either has goroutines, kills one of them on the way, and asks what every fault test asks at the end.
func TestThroughAPooler(t *testing.T) {
	t.Parallel()
	const connections = 4
	direct := schematest.Open(t).URL
	w, first := newFaultWorld(t, schematest.Pooler(t, direct, connections), "--session-database-url", direct)
	second := startProgram(t, w.url, w.dataDir, w.args...)
	w.pause()
	w.engine.at(second.address)
	first.kill()
	first = startProgram(t, w.url, w.dataDir, w.args...)
	w.pause()
	w.engine.at(first.address)
	w.pause()
	w.url = direct
	w.judge(t)
}

// What goes wrong with a pooler is said when the program starts, with what to do about it.
func TestAPoolerAlone(t *testing.T) {
	t.Parallel()
	direct := schematest.Open(t).URL
	pooled := schematest.Pooler(t, direct, 2)
	for name, tc := range map[string]struct {
		args []string
		want string
		code int
	}{
		"instead of the server":    {[]string{"--database-url", pooled}, "give the pooler's as --database-url and the server's own as --session-database-url", exitFailed},
		"in the server's place":    {[]string{"--database-url", pooled, "--session-database-url", pooled}, "leads to a connection pooler", exitFailed},
		"missing":                  {[]string{"--session-database-url", direct}, "goes with the pooler's URL", exitUsage},
		"with too few connections": {[]string{"--database-url", direct, "--connections", "15"}, "wait for each other", exitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stderr bytes.Buffer
			env := environ{lookup: func(name string) (string, bool) {
				if strings.HasPrefix(name, "PG") {
					return os.LookupEnv(name)
				}
				return "", false
			}, stdin: strings.NewReader(""), stdout: &bytes.Buffer{}, stderr: &stderr}
			start := time.Now()
			if code := run(t.Context(), env, append([]string{"targets", "list", "--data-dir", t.TempDir()}, tc.args...)); code != tc.code || !strings.Contains(stderr.String(), tc.want) {
				t.Errorf("exit code %d after %s: %s", code, time.Since(start), &stderr)
			}
		})
	}
}
