package client_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/client"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// ledger is a real API, behind whatever between makes of its requests.
func ledger(t *testing.T, between func(http.Handler) http.Handler) (*httptest.Server, string) {
	t.Helper()
	db, err := schema.Connect(schematest.Open(t).URL, schema.Options{Role: "ledger_service"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	key := make([]byte, 32)
	rand.Read(key)
	master, err := schema.ParseMasterKey(base64.StdEncoding.EncodeToString(key))
	if err != nil {
		t.Fatal(err)
	}
	vault, err := schema.OpenVault(t.Context(), db, master, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	tokens := schema.NewTokens(db, time.Now)
	token, _, err := tokens.Create(t.Context(), schema.TokenRequest{Name: "engine", Role: schema.RoleEmitter, CreatedBy: "test"})
	if err != nil {
		t.Fatal(err)
	}
	l := schema.OpenLedger(db, nil, nil)
	t.Cleanup(l.Close)
	h, err := api.New(api.Config{Ledger: l, Vault: vault, DB: db, Auth: tokens})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(between(h))
	t.Cleanup(s.Close)
	return s, token
}

func open(t *testing.T, s *httptest.Server, token string, change ...func(*client.Config)) *client.Client {
	t.Helper()
	c := client.Config{URL: s.URL, Token: token, Source: "/test/engine", Patience: 20 * time.Second}
	for _, f := range change {
		f(&c)
	}
	out, err := client.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(out.Close)
	return out
}

func firing(target string) domain.ReactionFired {
	return domain.ReactionFired{Reaction: "reward", Target: target, Cause: "reaction", Context: json.RawMessage(`{}`)}
}

// A flaky way to the ledger, on which requests are lost before and answers after, loses no event and records none twice.
func TestEachEventIsRecordedOnceOverAFlakyWay(t *testing.T) {
	t.Parallel()
	var requests atomic.Int64
	s, token := ledger(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch requests.Add(1) % 4 {
			case 1:
				panic(http.ErrAbortHandler) // never arrived
			case 2:
				next.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler) // recorded, and the answer lost
			case 3:
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(http.StatusServiceUnavailable)
			default:
				next.ServeHTTP(w, r)
			}
		})
	})
	c := open(t, s, token, func(c *client.Config) { c.BatchEvents = 20 })
	const events = 100
	positions := make([]int64, events)
	var wg sync.WaitGroup
	for i := range events {
		wg.Go(func() {
			recorded, err := c.Send(t.Context(), client.Event{ID: fmt.Sprint("event-", i), Data: firing("t")})
			if err != nil {
				t.Error(err)
				return
			}
			positions[i] = recorded[0].Position
		})
	}
	wg.Wait()
	seen := map[int64]bool{}
	for i, p := range positions {
		if p < 1 || p > events || seen[p] {
			t.Fatalf("event %d stands at %d: want each once, at 1 to %d", i, p, events)
		}
		seen[p] = true
	}
	again, err := c.Send(t.Context(), client.Event{ID: "event-7", Data: firing("t")})
	if err != nil || !again[0].Duplicate || again[0].Position != positions[7] {
		t.Errorf("sent again: %+v, %v; want it recognised", again, err)
	}
	if n := requests.Load(); n > events {
		t.Errorf("%d requests for %d events: they are not gathered", n, events)
	}
}

func TestWhatIsRefusedFailsAlone(t *testing.T) {
	t.Parallel()
	s, token := ledger(t, func(h http.Handler) http.Handler { return h })
	c := open(t, s, token)
	bad := firing("t")
	bad.Cause = "whim"
	recorded, err := c.Send(t.Context(), client.Event{ID: "a", Data: firing("t")}, client.Event{ID: "b", Data: bad}, client.Event{ID: "c", Data: firing("t")})
	var refused *client.Refused
	if !errors.Is(err, client.ErrRefused) || !errors.As(err, &refused) || refused.Status != http.StatusUnprocessableEntity || refused.Pointer != "/data/cause" {
		t.Errorf("the error: %v (%+v)", err, refused)
	}
	if recorded[0].Position == 0 || recorded[1].Position != 0 || recorded[2].Position == 0 {
		t.Errorf("recorded %+v, want the first and the last", recorded)
	}
	// An id that stands for something else: the ledger does not say which event it means.
	recorded, err = c.Send(t.Context(), client.Event{ID: "d", Data: firing("t")}, client.Event{ID: "a", Data: firing("another")})
	if !errors.As(err, &refused) || refused.Status != http.StatusConflict || recorded[0].Position == 0 {
		t.Errorf("an id used again: %+v, %v", recorded, err)
	}
	// Whoever throws away what is refused must not lose what was sent with a token that had been revoked.
	stranger := open(t, s, "dl_wrong")
	if _, err := stranger.Send(t.Context(), client.Event{Data: firing("t")}); !errors.Is(err, client.ErrToken) || errors.Is(err, client.ErrRefused) {
		t.Errorf("with a wrong token: %v, want %v and not %v", err, client.ErrToken, client.ErrRefused)
	}
}

func TestPatienceEnds(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	t.Cleanup(s.Close)
	c := open(t, s, "dl_x", func(c *client.Config) { c.Patience = 50 * time.Millisecond })
	if _, err := c.Send(t.Context(), client.Event{Data: firing("t")}); !errors.Is(err, client.ErrUnknown) {
		t.Errorf("a ledger that is away: %v, want it said that nobody knows", err)
	}
	c.Close()
	if _, err := c.Send(t.Context(), client.Event{Data: firing("t")}); !errors.Is(err, client.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestAWatermillEnginePublishes(t *testing.T) {
	t.Parallel()
	s, token := ledger(t, func(h http.Handler) http.Handler { return h })
	c := open(t, s, token)
	var p message.Publisher = c.Publisher()
	first := message.NewMessage(uuid.NewString(), []byte(`{"reaction":"reward","target":"t","cause":"reaction","context":{}}`))
	first.Metadata.Set("time", "2026-11-30T09:00:00Z")
	if err := p.Publish("reaction.fired", first, message.NewMessage(uuid.NewString(), []byte(`{"reaction":"reward","target":"t","cause":"manual","context":{}}`))); err != nil {
		t.Fatal(err)
	}
	if err := p.Publish("reaction.fired", first); err != nil {
		t.Errorf("published again: %v", err)
	}
	if err := p.Publish("delivery.planned", message.NewMessage(uuid.NewString(), []byte(`{}`))); !errors.Is(err, client.ErrRefused) {
		t.Errorf("a type of the ledger's own: %v", err)
	}
	if err := p.Publish("reaction.fired", message.NewMessage("x", []byte(`{`))); err == nil {
		t.Error("what is no JSON was published")
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
