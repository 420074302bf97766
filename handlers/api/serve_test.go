package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// listen opens a port of the loopback for one test.
func listen(t *testing.T) net.Listener {
	t.Helper()
	var c net.ListenConfig
	l, err := c.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func get(t *testing.T, url string) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
}

func TestServeLetsWhatHasBegunComeToItsEnd(t *testing.T) {
	t.Parallel()
	l := listen(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	began, release := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-release
		if r.Context().Err() != nil {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, l, h, ServeConfig{Drain: time.Minute}) }()
	answered := make(chan int, 1)
	go func() {
		resp, err := get(t, "http://"+l.Addr().String()+"/")
		if err != nil {
			answered <- 0
			return
		}
		answered <- resp.StatusCode
		_ = resp.Body.Close()
	}()
	<-began
	stop()
	for { // until the listener is closed, which nothing announces
		resp, err := get(t, "http://"+l.Addr().String()+"/readyz")
		if err != nil {
			break
		}
		if resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("readyz while draining = %d", resp.StatusCode)
		}
		_ = resp.Body.Close()
	}
	close(release)
	if code := <-answered; code != http.StatusOK {
		t.Errorf("the request that had begun was answered %d", code)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve = %v, want nil after a complete drain", err)
	}
}

func TestServeCutsOffWhatTakesTooLong(t *testing.T) {
	t.Parallel()
	l := listen(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	began := make(chan struct{})
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
	})
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, l, h, ServeConfig{Drain: time.Millisecond}) }()
	go func() {
		if resp, err := get(t, "http://"+l.Addr().String()+"/"); err == nil {
			_ = resp.Body.Close()
		}
	}()
	<-began
	stop()
	if err := <-served; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Serve = %v, want it to say that requests were cut off", err)
	}
}

func TestServeSaysWhyItCannot(t *testing.T) {
	t.Parallel()
	l := listen(t)
	_ = l.Close()
	if err := Serve(t.Context(), l, http.NotFoundHandler(), ServeConfig{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve on a closed listener = %v", err)
	}
}

func TestHeadersThatAreTooLongAreRefused(t *testing.T) {
	t.Parallel()
	l := listen(t)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, l, http.NotFoundHandler(), ServeConfig{}) }()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		_, _ = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 128<<10))
	}()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(line, "431") {
		t.Errorf("answered %q, %v, want 431", line, err)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// A field that we do not know is refused wherever somebody asks for something: leaving it out would do something else than was
// asked for, such as replaying everything instead of one target's.
func TestWhatWeDoNotKnowIsRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	bodies := 0
	for path, item := range h.api.huma.OpenAPI().Paths {
		for _, o := range []*huma.Operation{item.Post, item.Put, item.Patch, item.Delete} {
			if o == nil || o.RequestBody == nil || o.RequestBody.Content["application/json"] == nil {
				continue
			}
			if ref := o.RequestBody.Content["application/json"].Schema.Ref; ref != "" {
				bodies++
				if closed, ok := h.api.huma.OpenAPI().Components.Schemas.SchemaFromRef(ref).AdditionalProperties.(bool); !ok || closed {
					t.Errorf("%s %s takes what it does not know", o.Method, path)
				}
			}
		}
	}
	if bodies < 20 {
		t.Errorf("%d bodies were looked at", bodies)
	}
	for path, body := range map[string]string{
		"/v1/replays":              `{"filter":{"target":"reward"},"reason":"mended"}`,
		"/v1/tokens":               `{"name":"short","role":"analyst","expires":"2026-12-02T00:00:00Z"}`,
		"/v1/targets/reward/pause": `{"till":"2026-12-02T00:00:00Z"}`,
	} {
		problem(t, h.call("admin", "POST", path, body), http.StatusUnprocessableEntity, "invalid")
	}
}

func TestTheDescriptionIsOpenAPI(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	w := h.call("", "GET", "/openapi.json", "")
	var spec struct {
		OpenAPI string `json:"openapi"`
		Info    struct{ Version string }
		Paths   map[string]map[string]struct {
			OperationID string                     `json:"operationId"`
			Security    []map[string][]string      `json:"security"`
			Responses   map[string]json.RawMessage `json:"responses"`
			RequestBody struct {
				Content map[string]json.RawMessage `json:"content"`
			} `json:"requestBody"`
		} `json:"paths"`
		Components struct {
			Schemas         map[string]json.RawMessage `json:"schemas"`
			SecuritySchemes map[string]json.RawMessage `json:"securitySchemes"`
		} `json:"components"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &spec); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(spec.OpenAPI, "3.1") || spec.Info.Version != "1.2.3" || spec.Components.SecuritySchemes["bearer"] == nil {
		t.Errorf("openapi %s, version %s", spec.OpenAPI, spec.Info.Version)
	}
	described := map[string]bool{}
	for path, item := range spec.Paths {
		for method, op := range item {
			described[op.OperationID] = true
			if want := strings.ToUpper(method) + " " + path; h.api.served[op.OperationID] != want {
				t.Errorf("%s is described as %s and served as %s", op.OperationID, want, h.api.served[op.OperationID])
			}
			if secured := len(op.Security) > 0; secured == access[op.OperationID].public {
				t.Errorf("%s: security %v, public %v", op.OperationID, op.Security, access[op.OperationID].public)
			}
			if !access[op.OperationID].public && (op.Responses["401"] == nil || op.Responses["403"] == nil || op.Responses["503"] == nil) {
				t.Errorf("%s does not say how it refuses: %v", op.OperationID, op.Responses)
			}
		}
	}
	for operation := range h.api.served {
		if !described[operation] && !slices.Contains([]string{"metrics", "openapi", "docs", "docs-style", "get-tile"}, operation) {
			t.Errorf("%s is served and not described", operation)
		}
	}
	post := spec.Paths["/v1/events"]["post"].RequestBody.Content
	if len(post) != 3 || post["application/cloudevents+json"] == nil || post["application/cloudevents-batch+json"] == nil {
		t.Errorf("POST /v1/events takes %v", post)
	}
	put := string(spec.Paths["/v1/targets/{handle}"]["put"].RequestBody.Content["application/json"])
	if !strings.Contains(put, "#/components/schemas/TargetDraft") || !strings.Contains(string(spec.Components.Schemas["Retry"]), "max_attempts") {
		t.Errorf("PUT of a target takes %s", put)
	}
	// Every reference leads somewhere.
	for ref := range strings.SplitSeq(w.Body.String(), `"$ref": "#/components/schemas/`) {
		name, _, ok := strings.Cut(ref, `"`)
		if ok && name != "" && name != "{" && !strings.HasPrefix(ref, "{") && spec.Components.Schemas[name] == nil {
			t.Errorf("a reference to %q leads nowhere", name)
		}
	}
}

func TestTheDocsNameEverything(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	w := h.call("", "GET", "/docs", "")
	page := w.Body.String()
	for operation, pattern := range h.api.served {
		if operation == "metrics" || operation == "get-tile" || operation == "openapi" || strings.HasPrefix(operation, "docs") {
			continue
		}
		_, path, _ := strings.Cut(pattern, " ")
		if !strings.Contains(page, `id="`+operation+`"`) || !strings.Contains(page, "<code>"+path+"</code>") {
			t.Errorf("the page says nothing of %s", pattern)
		}
	}
	for _, k := range problems {
		if !strings.Contains(page, urn+k.name) {
			t.Errorf("the page says nothing of %s", k.name)
		}
	}
	for _, d := range domain.Declarations() {
		if (d.Origin == domain.FromOutside) != strings.Contains(page, `id="event-`+d.Type+`"`) {
			t.Errorf("event type %s, from %s, on the page or not", d.Type, d.Origin)
		}
	}
	for _, foreign := range []string{"<script", "http://", "https://", "style=\""} {
		if strings.Contains(page, foreign) {
			t.Errorf("the page holds %q", foreign)
		}
	}
	style := h.call("", "GET", "/docs/style.css", "")
	if got, err := io.ReadAll(style.Result().Body); err != nil || len(got) == 0 || style.Header().Get("Content-Type") != "text/css; charset=utf-8" {
		t.Errorf("style = %d bytes, %v, %s", len(got), err, style.Header())
	}
}

// A misspelt field is named; what is no field's name is the sender's own words, and may be anybody's.
func TestFieldsAreNamed(t *testing.T) {
	t.Parallel()
	for location, want := range map[string]string{
		"body.expires":             "/expires",
		"body.items[3].dueAt":      "/items/3/dueAt",
		"body.jane@example.com":    "",
		"body.filter.Jane Roe":     "/filter",
		"body.items[3].+614915700": "/items/3",
	} {
		if got := fieldAt(&huma.ErrorDetail{Message: "unexpected property", Location: location}).Pointer; got != want {
			t.Errorf("%s is pointed at by %q, want %q", location, got, want)
		}
	}
}
