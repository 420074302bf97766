package klaviyo_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/klaviyo"
	klaviyosim "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/klaviyo/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
)

// clock stands still until a test moves it.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func newSimulator(t *testing.T) (*klaviyosim.Simulator, *clock) {
	t.Helper()
	c := &clock{now: received}
	sim, err := klaviyosim.New(simulator.Options{Now: c.Now, Accounts: []simulator.Account{{Name: "shop", Key: "pk_shop"}}})
	if err != nil {
		t.Fatal(err)
	}
	return sim, c
}

// send posts a body as the dispatcher would, and classifies the answer.
func send(t *testing.T, via http.RoundTripper, path, body string, header map[string]string) platforms.Verdict {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://a.klaviyo.com"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Klaviyo-API-Key pk_shop")
	req.Header.Set("Revision", klaviyo.Revision)
	req.Header.Set("Content-Type", "application/vnd.api+json")
	for name, value := range header {
		req.Header.Set(name, value)
	}
	answer, err := via.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	said, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return klaviyo.Dialect{}.Classify(answer.StatusCode, answer.Header, said, received)
}

func TestSimulatorRefusesWhatKlaviyoRefuses(t *testing.T) {
	t.Parallel()
	with := func(old, replacement string) string { return strings.Replace(rewardEarned, old, replacement, 1) }
	for name, tc := range map[string]struct {
		body   string
		header map[string]string
		want   domain.Verdict
		says   string
	}{
		"a good event":         {want: domain.Accepted, says: "queued"},
		"no credential":        {header: map[string]string{"Authorization": ""}, want: domain.AuthExpired, says: "private key"},
		"someone else's key":   {header: map[string]string{"Authorization": "Klaviyo-API-Key pk_other"}, want: domain.AuthExpired, says: "private key"},
		"a bearer token":       {header: map[string]string{"Authorization": "Bearer pk_shop"}, want: domain.AuthExpired, says: "private key"},
		"no revision":          {header: map[string]string{"Revision": ""}, want: domain.Permanent, says: "revision"},
		"an invented revision": {header: map[string]string{"Revision": "2026-01-01"}, want: domain.Permanent, says: klaviyo.Revision},
		"a form":               {header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, want: domain.Permanent, says: "media type"},
		"plain JSON":           {header: map[string]string{"Content-Type": "application/json; charset=utf-8"}, want: domain.Accepted, says: "queued"},
		"half a body":          {body: `{"data":`, want: domain.Permanent, says: "(at /data)"},
		"no person":            {body: with(`"email":"ada@example.test",`, ""), want: domain.Permanent, says: "/data/attributes/profile/data/attributes"},
		"a bad email":          {body: with("ada@example.test", "ada"), want: domain.Permanent, says: "(at /data/attributes/profile/data/attributes/email)"},
		"a long metric":        {body: with("Reward Earned", strings.Repeat("x", 128)), want: domain.Permanent, says: "/metric/data/attributes/name"},
		"a number in quotes":   {body: with(`"value":12.5`, `"value":"12.5"`), want: domain.Permanent, says: "value"},
		"5 MB and a little":    {body: with("2026-12-31", strings.Repeat("x", 5<<20)), want: domain.Permanent, says: "5 MB"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim, _ := newSimulator(t)
			if tc.body == "" {
				tc.body = rewardEarned
			}
			v := send(t, newContract(t, sim, false), "/api/events", tc.body, tc.header)
			if v.Kind != tc.want || !strings.Contains(v.Reason+": "+v.Said, tc.says) {
				t.Errorf("verdict %s: %q, %q, want %s with %q", v.Kind, v.Reason, v.Said, tc.want, tc.says)
			}
			events := 0
			if tc.want == domain.Accepted {
				events = 1
			}
			if got := sim.Events("shop"); len(got) != events {
				t.Errorf("%d events were recorded, want %d", len(got), events)
			}
		})
	}
}

func TestRepeatedEventIsDroppedInSilence(t *testing.T) {
	t.Parallel()
	sim, _ := newSimulator(t)
	via := newContract(t, sim, true)
	prepared, err := klaviyo.Dialect{}.Prepare(request(rewardEarned))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if v := send(t, via, "/api/events", string(prepared.Body), nil); v.Kind != domain.Accepted {
			t.Fatalf("verdict = %+v, want accepted", v)
		}
	}
	if events, dropped := len(sim.Events("shop")), sim.Dropped("shop"); events != 1 || dropped != 2 {
		t.Errorf("%d events recorded and %d dropped, want 1 and 2", events, dropped)
	}
}

func TestBulkJobFailsWholeOnOneRepeat(t *testing.T) {
	t.Parallel()
	sim, _ := newSimulator(t)
	event := func(id string) string {
		return `{"type":"event","attributes":{"unique_id":"` + id + `","properties":{},"metric":{"data":{"type":"metric","attributes":{"name":"M"}}}}}`
	}
	job := func(events ...string) string {
		return `{"data":{"type":"event-bulk-create-job","attributes":{"events-bulk-create":{"data":[{"type":"event-bulk-create","attributes":{
		  "profile":{"data":{"type":"profile","attributes":{"email":"ada@example.test"}}},"events":{"data":[` + strings.Join(events, ",") + `]}}}]}}}}`
	}
	via := newContract(t, sim, true)
	if v := send(t, via, "/api/event-bulk-create-jobs", job(event("a"), event("b")), nil); v.Kind != domain.Accepted {
		t.Fatalf("verdict = %+v, want accepted", v)
	}
	if v := send(t, via, "/api/event-bulk-create-jobs", job(event("c"), event("b")), nil); v.Kind != domain.Permanent || !strings.Contains(v.Said, "/data/1/attributes/unique_id") {
		t.Errorf("verdict = %+v, want permanent, naming the second event", v)
	}
	if got := len(sim.Events("shop")); got != 2 {
		t.Errorf("%d events recorded, want 2", got)
	}
}

func TestQuota(t *testing.T) {
	t.Parallel()
	sim, c := newSimulator(t)
	post := func() platforms.Verdict { return send(t, roundTripper{sim}, "/api/events", rewardEarned, nil) }
	for i := range 350 {
		if v := post(); v.Kind != domain.Accepted || v.Limit.Remaining != 3500-i-1 {
			t.Fatalf("request %d: %+v, want accepted with %d left", i, v, 3500-i-1)
		}
	}
	if v := post(); v.Kind != domain.RetryLater || !v.RetryAt.Equal(received.Add(time.Second)) {
		t.Errorf("the 351st in one second: %+v, want retry in a second", v)
	}
	c.now = c.now.Add(time.Second)
	if v := post(); v.Kind != domain.Accepted {
		t.Errorf("a second later: %+v, want accepted", v)
	}
}

func TestRetiredCalls(t *testing.T) {
	t.Parallel()
	sim, _ := newSimulator(t)
	for _, path := range []string{"/api/track", "/api/identify/"} {
		if v := send(t, roundTripper{sim}, path, seedBody, nil); v.Kind != domain.Permanent || !v.Disable {
			t.Errorf("%s: %+v, want permanent and the target disabled", path, v)
		}
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	sim, _ := newSimulator(t)
	sim.Break(simulator.Fault{Path: "/api/events", Account: "shop", Skip: 1, Times: 2, Status: http.StatusServiceUnavailable, Header: map[string]string{"Retry-After": "3"}})
	var got []domain.Verdict
	for range 4 {
		got = append(got, send(t, roundTripper{sim}, "/api/events", rewardEarned, nil).Kind)
	}
	want := []domain.Verdict{domain.Accepted, domain.RetryLater, domain.RetryLater, domain.Accepted}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("verdicts %v, want %v", got, want)
			break
		}
	}
	if requests := sim.Requests(); len(requests) != 4 || requests[1].Status != 503 || requests[0].Header.Get("Authorization") != "" {
		t.Errorf("requests = %+v, want four, the second answered 503, none with its key", requests)
	}
}

// roundTripper serves without a network.
type roundTripper struct{ http.Handler }

func (rt roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	rt.ServeHTTP(rec, req)
	return rec.Result(), nil
}
