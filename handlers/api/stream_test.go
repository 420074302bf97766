package api

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// reader reads a stream.
type reader struct {
	t     *testing.T
	lines *bufio.Scanner
}

func (h *house) streamFrom(t *testing.T, ctx context.Context, server, query string, role schema.Role, with ...string) *reader {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"/v1/stream"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+h.tokens[role])
	for i := 0; i+1 < len(with); i += 2 {
		req.Header.Set(with[i], with[i+1])
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	if answer.StatusCode != http.StatusOK || !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/event-stream") {
		t.Fatalf("GET /v1/stream = %d %s", answer.StatusCode, answer.Header.Get("Content-Type"))
	}
	return &reader{t: t, lines: bufio.NewScanner(answer.Body)}
}

// next is the next event's id, type and data.
func (r *reader) next() (id, event, data string) {
	r.t.Helper()
	for r.lines.Scan() {
		name, value, _ := strings.Cut(r.lines.Text(), ": ")
		switch {
		case name == "id":
			id = value
		case name == "event":
			event = value
		case name == "data":
			data = value
		case r.lines.Text() == "" && id != "":
			return id, event, data
		}
	}
	return "", "", ""
}

func TestTheLedgerIsFollowed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serving, stop := context.WithCancel(t.Context())
	defer stop()
	served := make(chan error, 1)
	go func() { served <- Serve(serving, l, h.handler, ServeConfig{Drain: time.Minute}) }()
	server := "http://" + l.Addr().String()

	profile := uuid.MustParse(jane)
	h.deliver("before", profile, domain.Succeeded)                          // 1, 2
	live := h.streamFrom(t, t.Context(), server, "", schema.RoleCompliance) // from now on
	again := h.streamFrom(t, t.Context(), server, "?after=2", schema.RoleOperator, "Last-Event-ID", "1")
	attempts := h.streamFrom(t, t.Context(), server, "?type=delivery.attempted&profile="+jane+"&after=0", schema.RolePrivacy)
	h.deliver("after", profile, domain.Succeeded)      // 3, 4
	h.deliver("another", uuid.New(), domain.Succeeded) // 5, 6

	for _, want := range []string{"3", "4", "5", "6"} {
		id, event, data := live.next()
		if id != want || strings.Contains(data, "jane@") || !strings.Contains(data, `"sealed":{"sealed":true}`) || !strings.Contains(data, `"type":"`+event+`"`) {
			t.Errorf("live = %s %s %s, want %s with its sealed part hidden", id, event, data, want)
		}
	}
	if id, _, _ := again.next(); id != "2" {
		t.Errorf("after Last-Event-ID 1 comes %s, want 2", id)
	}
	for _, want := range []string{"2", "4"} {
		if id, event, _ := attempts.next(); id != want || event != "delivery.attempted" {
			t.Errorf("filtered = %s %s, want %s", id, event, want)
		}
	}
	for query, status := range map[string]int{"?type=nothing.happened": 422, "?tpye=reaction.fired": 422, "?after=x": 422, "?profile=x": 422} {
		if w := h.call("compliance", "GET", "/v1/stream"+query, ""); w.Code != status {
			t.Errorf("%s = %d, want %d", query, w.Code, status)
		}
	}
	stop() // a server that is asked to stop does not wait for readers
	if err := <-served; err != nil {
		t.Errorf("Serve = %v", err)
	}
	if id, _, _ := live.next(); id != "" {
		t.Errorf("after the end comes %s", id)
	}
}
