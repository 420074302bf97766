package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// replicaWorld is a service whose questions a standby answers.
type replicaWorld struct {
	*process
	t       *testing.T
	primary *schematest.Server
	standby *schematest.Standby
	dataDir string
}

func newReplicaWorld(t *testing.T) *replicaWorld {
	t.Helper()
	w := &replicaWorld{t: t, primary: schematest.NewPrimary(t), dataDir: t.TempDir()}
	startProgram(t, w.primary.URL, w.dataDir).kill() // so that there is something to copy
	w.standby = schematest.NewStandby(t, w.primary)
	w.process = startProgram(t, w.primary.URL, w.dataDir, "--read-database-url", w.standby.URL, "--read-lag-max", "5m")
	return w
}

// fire has a firing accepted and gives its position.
func (w *replicaWorld) fire() int64 {
	w.t.Helper()
	body := fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/engine","type":"reaction.fired","data":{"reaction":"r","target":"none","profile_id":%q,"cause":"reaction","context":{}}}`, uuid.NewString(), uuid.NewString())
	position, err := post(w.t.Context(), "http://"+w.address+"/v1/events", body)
	if err != nil {
		w.t.Fatal(err)
	}
	return position
}

// ask asks for an event that must be known, and gives the answer.
func (w *replicaWorld) ask(path string, known int64) (*http.Response, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, "http://"+w.address+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testToken)
	if known > 0 {
		req.Header.Set("Ledger-Min-Position", strconv.FormatInt(known, 10))
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer, string(body)
}

// until asks until somebody answers in the way that is wanted.
func (w *replicaWorld) until(path string, known int64, want func(*http.Response, string) bool) {
	w.t.Helper()
	for range 300 {
		answer, body := w.ask(path, known)
		if want(answer, body) {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	answer, body := w.ask(path, known)
	w.t.Fatalf("GET %s with %d known = %s %v %s", path, known, answer.Status, answer.Header, body)
}

func by(database string) func(*http.Response, string) bool {
	return func(r *http.Response, _ string) bool {
		return r.StatusCode == http.StatusOK && r.Header.Get("Ledger-Database") == database
	}
}

func TestAReplicaAnswers(t *testing.T) {
	t.Parallel()
	w := newReplicaWorld(t)

	first := w.fire()
	w.until(fmt.Sprint("/v1/events/", first), first, by("replica"))

	// What was just accepted is known to whoever asks for it, by the primary where the replica does not hold it yet.
	w.standby.Replay(false)
	second := w.fire()
	path := fmt.Sprint("/v1/events/", second)
	w.until(path, second, by("primary"))
	if answer, _ := w.ask(path, 0); answer.StatusCode != http.StatusNotFound || answer.Header.Get("Ledger-Database") != "replica" {
		t.Errorf("without asking for it, a standby that does not replay answers %s %v", answer.Status, answer.Header)
	}
	w.until("/v1/deliveries", 0, func(r *http.Response, _ string) bool {
		n, err := strconv.Atoi(r.Header.Get("Ledger-Lag-Positions"))
		return err == nil && n > 0
	})
	w.until("/readyz", 0, func(r *http.Response, body string) bool {
		var got struct {
			Replica struct {
				Asked            bool
				Positions, Bytes int64
				Seconds          float64
			}
		}
		err := json.Unmarshal([]byte(body), &got)
		return err == nil && r.StatusCode == http.StatusOK && got.Replica.Asked && got.Replica.Positions > 0 && got.Replica.Bytes > 0 && got.Replica.Seconds > 0
	})
	if answer, body := w.ask("/v1/events", second+1000); answer.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "not-projected-yet") {
		t.Errorf("asked for what nobody has: %s %s", answer.Status, body)
	}
	if answer, body := w.ask("/v1/profiles/"+uuid.NewString()+"/consent", 0); answer.StatusCode != http.StatusOK || answer.Header.Get("Ledger-Database") != "" {
		t.Errorf("a consent to decide by is asked of a replica: %s %v %s", answer.Status, answer.Header, body)
	}
	w.standby.Replay(true)
	w.until(path, second, by("replica"))

	w.export(second)

	w.standby.Kill()
	third := w.fire()
	w.until(fmt.Sprint("/v1/events/", third), third, by("primary"))
	if answer, _ := w.ask("/v1/deliveries", 0); answer.StatusCode != http.StatusOK || answer.Header.Get("Ledger-Database") != "primary" {
		t.Errorf("without the replica: %s %v", answer.Status, answer.Header)
	}
	if answer, body := w.ask("/readyz", 0); answer.StatusCode != http.StatusOK || !strings.Contains(body, `"asked":false`) {
		t.Errorf("without the replica it is %s %s", answer.Status, body)
	}
}

// export writes files from the replica.
func (w *replicaWorld) export(known int64) {
	w.t.Helper()
	dir := filepath.Join(w.t.TempDir(), "out")
	var stdout, stderr bytes.Buffer
	env := environ{lookup: os.LookupEnv, stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr}
	args := []string{"export", "--format", "ndjson", "--out", dir, "--database-url", w.primary.URL, "--read-database-url", w.standby.URL, "--data-dir", w.dataDir}
	if code := run(w.t.Context(), env, args); code != exitDone {
		w.t.Fatalf("export: exit code %d: %s", code, &stderr)
	}
	if strings.Contains(stderr.String(), "the primary is read") {
		w.t.Errorf("the export did not read from the replica: %s", &stderr)
	}
	content, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	var manifest struct{ To int64 }
	if err := errors.Join(err, json.Unmarshal(content, &manifest)); err != nil || manifest.To < known {
		w.t.Errorf("the export's manifest: %v: %s", err, content)
	}
}
