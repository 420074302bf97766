package inspector_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/inspector"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

type world struct {
	*testing.T
	db    *sql.DB
	vault *schema.Vault
	keep  *schema.Inspector
	*httptest.Server

	mu  sync.Mutex
	now time.Time
}

func open(t *testing.T) *world {
	t.Helper()
	database := schematest.Open(t)
	db, err := schema.Connect(database.URL, schema.Options{Role: "ledger_service"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	key, err := schema.LoadOrCreateMasterKey(filepath.Join(t.TempDir(), "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, db: db, now: time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)}
	if w.vault, err = schema.OpenVault(t.Context(), db, key, time.Now); err != nil {
		t.Fatal(err)
	}
	w.keep = schema.NewInspector(db, w.vault, func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now })
	w.Server = httptest.NewServer(inspector.New(w.keep, slog.New(slog.DiscardHandler)))
	t.Cleanup(w.Close)
	return w
}

func (w *world) later(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) bin(status int) schema.Bin {
	w.Helper()
	b, err := w.keep.Create(w.Context(), "test", time.Hour, status)
	if err != nil {
		w.Fatal(err)
	}
	return b
}

func (w *world) call(method, path, body string, header ...string) (*http.Response, string) {
	w.Helper()
	r, err := http.NewRequestWithContext(w.Context(), method, w.URL+path, strings.NewReader(body))
	if err != nil {
		w.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		w.Fatal(err)
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err != nil {
		w.Fatal(err)
	}
	return answer, string(said)
}

func (w *world) kept(bin string) []schema.Inspected {
	w.Helper()
	found, err := w.keep.Requests(w.Context(), bin, 0, 1000)
	if err != nil {
		w.Fatal(err)
	}
	return found
}

func TestWhatArrivesIsKeptAsItArrived(t *testing.T) {
	t.Parallel()
	w := open(t)
	b := w.bin(503)
	answer, said := w.call(http.MethodPut, "/inspector/"+b.ID+"/v1/things?a=1&a=2", "h\xffi\x00", "X-Two", "1", "X-Two", "2", "Content-Type", "application/octet-stream")
	if answer.StatusCode != 503 || !strings.Contains(said, `"number":1`) {
		t.Errorf("answered %d %s, want the bin's 503", answer.StatusCode, said)
	}
	got := w.kept(b.ID)
	if len(got) != 1 || got[0].Method != "PUT" || !strings.HasSuffix(got[0].URL, "/inspector/"+b.ID+"/v1/things?a=1&a=2") || string(got[0].Body) != "h\xffi\x00" || fmt.Sprint(got[0].Headers["X-Two"]) != "[1 2]" {
		t.Errorf("kept %+v", got)
	}
	var raw string
	if err := w.db.QueryRowContext(t.Context(), `SELECT encode(sealed, 'escape') FROM inspector_requests`).Scan(&raw); err != nil || strings.Contains(raw, "things") {
		t.Errorf("the database holds it in the open (%v)", err)
	}
	for _, path := range []string{"/inspector/nowhere", "/inspector/nowhere/x", "/inspector/" + strings.Repeat("a", 100)} {
		if answer, _ := w.call(http.MethodPost, path, "x"); answer.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d, want 404", path, answer.StatusCode)
		}
	}
}

func TestBinsAreBoundedAndExpire(t *testing.T) {
	t.Parallel()
	w := open(t)
	b := w.bin(0)
	for i := range schema.BinRequestsMax + 3 {
		if _, _, err := w.keep.Capture(t.Context(), b.ID, uuid.Nil, schema.Inspected{Method: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.kept(b.ID); len(got) != schema.BinRequestsMax || got[0].Number != 4 || got[len(got)-1].Method != fmt.Sprint(schema.BinRequestsMax+2) {
		t.Errorf("kept %d from number %d, want the newest %d", len(got), got[0].Number, schema.BinRequestsMax)
	}
	w.call(http.MethodPost, "/inspector/"+b.ID, strings.Repeat("x", schema.BinBodyMax+1000))
	got := w.kept(b.ID)
	if last := got[len(got)-1]; len(last.Body) != schema.BinBodyMax || !last.Truncated || last.BodyBytes != schema.BinBodyMax+1000 {
		t.Errorf("of a long body %d of %d bytes were kept, truncated: %v", len(last.Body), last.BodyBytes, last.Truncated)
	}
	w.later(2 * time.Hour)
	if answer, _ := w.call(http.MethodPost, "/inspector/"+b.ID, "x"); answer.StatusCode != http.StatusNotFound {
		t.Errorf("an expired bin answers %d, want 404", answer.StatusCode)
	}
	if got := w.kept(b.ID); len(got) != 0 {
		t.Errorf("an expired bin shows %d requests, want none", len(got))
	}
	if err := w.keep.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := w.db.QueryRowContext(t.Context(), `SELECT count(*) FROM inspector_requests`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d requests are left (%v), want none", left, err)
	}
}

// What a test with a person's context left is unreadable once they are erased.
func TestErasureReachesTheInspector(t *testing.T) {
	t.Parallel()
	w := open(t)
	b, jane := w.bin(0), uuid.New()
	if _, _, err := w.keep.Capture(t.Context(), b.ID, jane, schema.Inspected{Method: "POST", Body: []byte("jane@example.com")}); err != nil {
		t.Fatal(err)
	}
	tx, err := w.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.vault.Erase(t.Context(), tx, jane, "test", "asked for"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := w.kept(b.ID); len(got) != 1 || !got[0].Erased || len(got[0].Body) != 0 {
		t.Errorf("kept %+v, want it erased", got)
	}
}

// The page shows nothing by itself; the key shows what arrived and what arrives.
func TestThePageIsLive(t *testing.T) {
	t.Parallel()
	w := open(t)
	b := w.bin(0)
	w.call(http.MethodPost, "/inspector/"+b.ID, `{"secret":"of the request"}`)
	answer, page := w.call(http.MethodGet, "/inspector/"+b.ID, "")
	policy := answer.Header.Get("Content-Security-Policy")
	if answer.StatusCode != http.StatusOK || strings.Contains(page, "of the request") || strings.Contains(policy, "unsafe") || !strings.HasPrefix(policy, "default-src 'none'") {
		t.Errorf("page = %d, policy %q: %s", answer.StatusCode, policy, page)
	}
	for _, outside := range []string{"http://", "https://", " style=", "onclick", "<script>"} {
		if strings.Contains(page, outside) {
			t.Errorf("the page holds %q", outside)
		}
	}
	for _, asset := range []string{"inspector.js", "inspector.css"} {
		if answer, _ := w.call(http.MethodGet, "/inspector/-/static/"+asset, ""); answer.StatusCode != http.StatusOK || !strings.Contains(page, "/inspector/-/static/"+asset) {
			t.Errorf("%s = %d", asset, answer.StatusCode)
		}
	}
	for _, key := range []string{"", "Bearer ", "Bearer " + b.ID, "Bearer " + w.keep.Key("another")} {
		if answer, _ := w.call(http.MethodGet, "/inspector/-/live/"+b.ID, "", "Authorization", key); answer.StatusCode != http.StatusUnauthorized {
			t.Errorf("key %q: %d, want 401", key, answer.StatusCode)
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.URL+"/inspector/-/live/"+b.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+w.keep.Key(b.ID))
	stream, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	lines := bufio.NewScanner(stream.Body)
	next := func() (one schema.Inspected) {
		t.Helper()
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if err := json.Unmarshal([]byte(data), &one); err != nil {
					t.Fatal(err)
				}
				return one
			}
		}
		t.Fatal(lines.Err())
		return one
	}
	if one := next(); one.Number != 1 || string(one.Body) != `{"secret":"of the request"}` {
		t.Errorf("first = %+v", one)
	}
	w.call(http.MethodPost, "/inspector/"+b.ID, "second")
	if one := next(); one.Number != 2 || string(one.Body) != "second" {
		t.Errorf("second = %+v", one)
	}
}

// A real delivery to a bin's URL brings a person's data without saying whose: the ledger knows by the ids that its requests
// carry, so that it is erased with them, and nothing more of theirs is kept after.
func TestErasureReachesWhatArrivedByHTTP(t *testing.T) {
	t.Parallel()
	w := open(t)
	ledger := schema.OpenLedger(w.db, nil, nil)
	t.Cleanup(ledger.Close)
	jane, firing := uuid.New(), uuid.New()
	delivery := domain.DeliveryID(firing, "t")
	for _, p := range []domain.Payload{
		domain.ReactionFired{Reaction: "r", Target: "t", ProfileID: jane, Cause: "reaction", Context: []byte(`{}`)},
		domain.DeliveryRejected{DeliveryID: delivery, Firing: domain.Firing{FiringID: firing, Target: "t", ProfileID: jane}, Reason: "unknown_target"},
	} {
		id := uuid.New()
		if _, ok := p.(domain.ReactionFired); ok {
			id = firing
		}
		e, _, err := domain.New(id, p)
		if err == nil {
			e.Actor, e.Source = "test", "/test"
			_, err = ledger.Append(t.Context(), e)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	trace := "00-" + strings.ReplaceAll(firing.String(), "-", "") + "-00f067aa0ba902b7-01"
	b := w.bin(0)
	carried := [][]string{{"Idempotency-Key", delivery.String()}, {"Webhook-Id", delivery.String()}, {"Traceparent", trace}}
	for _, header := range append(carried, []string{"Idempotency-Key", uuid.NewString()}, []string{"Traceparent", "00-x-y-z"}) {
		if answer, body := w.call(http.MethodPost, "/inspector/"+b.ID, "jane@example.com", header...); answer.StatusCode != http.StatusOK {
			t.Fatalf("%v: %d %s", header, answer.StatusCode, body)
		}
	}
	tx, err := w.db.BeginTx(t.Context(), nil)
	if err == nil {
		err = errors.Join(w.vault.Erase(t.Context(), tx, jane, "test", "asked for"), tx.Commit())
	}
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range w.kept(b.ID) {
		if got.Erased != (i < len(carried)) {
			t.Errorf("request %d: %+v, erased: want %v", i+1, got, i < len(carried))
		}
	}
	if answer, _ := w.call(http.MethodPost, "/inspector/"+b.ID, "jane@example.com", "Traceparent", trace); answer.StatusCode != http.StatusGone || len(w.kept(b.ID)) != 5 {
		t.Errorf("after the erasure: %d, %d kept; want 410 and nothing more", answer.StatusCode, len(w.kept(b.ID)))
	}
}
