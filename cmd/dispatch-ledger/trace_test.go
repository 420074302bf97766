package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/uuid"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// TestOneTraceFromFiringToAttempt runs the program with a collector: a firing is one trace, under its own id, and the
// receiver is told of the attempt's span in it.
func TestOneTraceFromFiringToAttempt(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	spans := map[string]string{} // id by name, of the firing's trace
	firing := uuid.New()
	otlp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &request); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, resource := range request.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				for _, s := range scope.GetSpans() {
					if uuid.UUID(s.GetTraceId()) == firing {
						spans[s.GetName()] = fmt.Sprintf("%x", s.GetSpanId())
					}
				}
			}
		}
	}))
	defer otlp.Close()
	told := make(chan string, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told <- r.Header.Get("Traceparent")
		w.WriteHeader(http.StatusAccepted)
	}))
	defer receiver.Close()

	url, dir := schematest.Open(t).URL, t.TempDir()
	p := startProgram(t, url, dir, "--otlp-endpoint", otlp.URL)
	file := fmt.Sprintf("handle: traced\nurl: %s\nbody: '{}'\n", receiver.URL)
	var stderr bytes.Buffer
	env := environ{lookup: os.LookupEnv, stdin: strings.NewReader(file), stdout: io.Discard, stderr: &stderr}
	if code := run(t.Context(), env, []string{"targets", "apply", "-", "--database-url", url, "--data-dir", dir, "--log-level", "error"}); code != exitDone {
		t.Fatalf("targets apply: exit code %d: %s", code, &stderr)
	}
	if _, err := post(t.Context(), "http://"+p.address+"/v1/events", fmt.Sprintf(
		`{"specversion":"1.0","id":%q,"source":"/engine","type":"reaction.fired","data":{"reaction":"r","target":"traced","profile_id":%q,"cause":"reaction","context":{}}}`, firing, uuid.New())); err != nil {
		t.Fatal(err)
	}
	traceparent := <-told
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil { // the last spans are sent when it ends
		t.Fatal(err)
	}
	<-p.done
	mu.Lock()
	defer mu.Unlock()
	for _, name := range []string{"reaction.fired", "plan", "attempt"} {
		if spans[name] == "" {
			t.Errorf("the trace holds %v, and no %s", spans, name)
		}
	}
	if want := "00-" + strings.ReplaceAll(firing.String(), "-", "") + "-" + spans["attempt"] + "-01"; traceparent != want {
		t.Errorf("the receiver was told %s, want %s", traceparent, want)
	}
}
