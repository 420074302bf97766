// Package platformtest is the one suite that every platform's client passes against its simulator: what is planted
// there is read here, what is written here is suppressed there, a read resumes at any page, and failures come back
// as the errors that the reconciler acts on.
package platformtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
)

// Account is the name of the account that harnesses are made with.
const Account = "shop"

// Clock stands still until it is moved.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock starts at a fixed time in 2026.
func NewClock() *Clock { return &Clock{now: time.Date(2026, 8, 20, 10, 0, 0, 0, time.UTC)} }

// Now is the time that the clock stands at.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Simulator is what a platform's simulator offers to tests.
type Simulator interface {
	http.Handler
	simulator.Keeper
	Break(simulator.Fault)
	Heal()
	Requests() []simulator.Request
}

// Harness is one platform under test.
type Harness struct {
	Simulator Simulator
	Client    any // implements what the platform can do
	Clock     *Clock
	Lists     map[domain.Channel]string // scope id to write with, where the platform needs one
	ReadPath  string                    // prefix of the path of a list read, for faults; empty: any

	// FullReads says how a full read shows a reason, where that differs from an incremental one.
	FullReads map[platforms.Reason]platforms.Reason
}

// Transport serves requests in process.
type Transport struct{ http.Handler }

// RoundTrip implements http.RoundTripper. A handler that aborts looks like a connection that was lost.
func (t Transport) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	defer func() {
		if thrown := recover(); thrown != nil {
			if thrown != http.ErrAbortHandler { //nolint:errorlint // a panic's value, not an error
				panic(thrown)
			}
			resp, err = nil, errors.New("connection lost")
		}
	}()
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	if req.Body == nil {
		req = req.Clone(req.Context())
		req.Body = http.NoBody
	}
	rec := httptest.NewRecorder()
	t.ServeHTTP(rec, req)
	resp = rec.Result()
	resp.Request = req
	return resp, nil
}

// Client is an http.Client that a simulator answers.
func Client(h http.Handler) *http.Client {
	return &http.Client{Transport: Transport{h}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// reasons are the facts that the suite plants, and what they are to be read as.
var reasons = map[string]platforms.Reason{
	simulator.Unsubscribed: platforms.Unsubscribed,
	simulator.Complained:   platforms.Complaint,
	simulator.HardBounced:  platforms.HardBounce,
	simulator.Blocked:      platforms.Manual,
}

// Run runs the suite. Make builds a fresh platform with a simulator that sets no limits; its options' Now is the
// harness's clock.
func Run(t *testing.T, make func(t *testing.T, clock *Clock, opts simulator.Options) Harness) {
	t.Helper()
	fresh := func(t *testing.T, opts simulator.Options) Harness {
		t.Helper()
		clock := NewClock()
		opts.Now, opts.Unlimited = clock.Now, true
		opts.Accounts = []simulator.Account{{Name: Account, Key: "key-1", Secret: "secret-1"}}
		return make(t, clock, opts)
	}
	caps := fresh(t, simulator.Options{}).Client.(platforms.Describer).Caps()
	if _, ok := fresh(t, simulator.Options{}).Client.(platforms.Source); ok {
		for _, channel := range slices.Sorted(maps.Keys(caps.ReadReasons)) {
			if !slices.Contains(caps.ReadReasons[channel], platforms.Unsubscribed) {
				continue // what there is to read there, the platform's own tests plant
			}
			t.Run("reads "+string(channel), func(t *testing.T) {
				t.Parallel()
				readsAll(t, fresh(t, simulator.Options{}), channel)
			})
			t.Run("resumes reading "+string(channel), func(t *testing.T) {
				t.Parallel()
				resumes(t, fresh(t, simulator.Options{}), channel)
			})
			t.Run("reads what is new on "+string(channel), func(t *testing.T) {
				t.Parallel()
				readsNew(t, fresh(t, simulator.Options{}), channel)
			})
		}
		t.Run("fails as the reconciler expects", func(t *testing.T) {
			t.Parallel()
			fails(t, fresh)
		})
	}
	if _, ok := fresh(t, simulator.Options{}).Client.(platforms.Sink); ok {
		for _, channel := range caps.Writes {
			if channel != domain.Email && channel != domain.SMS {
				continue
			}
			t.Run("suppresses on "+string(channel), func(t *testing.T) {
				t.Parallel()
				suppresses(t, fresh(t, simulator.Options{Lag: 10 * time.Second, JobTime: 5 * time.Second}), channel)
			})
		}
		t.Run("refuses a batch that is too large", func(t *testing.T) {
			t.Parallel()
			h := fresh(t, simulator.Options{})
			batch := changes(domain.Email, caps.WriteMax+1, platforms.Unsubscribed, "")
			if _, err := h.Client.(platforms.Sink).Suppress(t.Context(), batch); !errors.Is(err, platforms.ErrBatch) {
				t.Errorf("Suppress = %v, want ErrBatch", err)
			}
			if _, err := h.Client.(platforms.Sink).Suppress(t.Context(), nil); !errors.Is(err, platforms.ErrBatch) {
				t.Errorf("Suppress of nothing = %v, want ErrBatch", err)
			}
		})
	}
	if _, ok := fresh(t, simulator.Options{}).Client.(platforms.Resubscriber); ok {
		t.Run("resubscribes with evidence alone", func(t *testing.T) {
			t.Parallel()
			resubscribes(t, fresh(t, simulator.Options{}))
		})
	}
}

// Address is the n-th test address on a channel.
func Address(channel domain.Channel, n int) string {
	if channel == domain.SMS {
		return fmt.Sprintf("+614%08d", n)
	}
	return fmt.Sprintf("person%04d@example.test", n)
}

// plant makes people of every kind that the channel's list can show, count of each, and gives what is to be read.
func plant(t *testing.T, h Harness, channel domain.Channel, from, count int, at time.Time) map[string]platforms.Reason {
	t.Helper()
	want := map[string]platforms.Reason{}
	n := from
	for _, what := range append([]string{simulator.Known}, slices.Sorted(maps.Keys(reasons))...) {
		if what != simulator.Known && !slices.Contains(h.Client.(platforms.Describer).Caps().ReadReasons[channel], reasons[what]) {
			continue
		}
		for range count {
			address := Address(channel, n)
			n++
			if err := h.Simulator.Happen(simulator.Fact{Account: Account, Channel: string(channel), Address: address, What: what, At: at}); err != nil {
				t.Fatal(err)
			}
			if what != simulator.Known {
				want[address] = reasons[what]
			}
		}
	}
	return want
}

// suppressedIn gives the addresses that records suppress, with their first reason.
func suppressedIn(t *testing.T, channel domain.Channel, records []platforms.Record) map[string]platforms.Reason {
	t.Helper()
	got := map[string]platforms.Reason{}
	for _, r := range records {
		if r.Addr.Channel != channel {
			t.Errorf("record %+v is on channel %s, want %s", r, r.Addr.Channel, channel)
		}
		if r.State == platforms.Suppressed && r.Scope.Kind != platforms.List {
			if len(r.Facts) == 0 || r.Facts[0].Native == "" {
				t.Errorf("record of %s does not say why: %+v", r.Addr.Value, r.Facts)
				continue
			}
			got[r.Addr.Value] = r.Facts[0].Reason
		}
	}
	return got
}

func readAll(t *testing.T, h Harness, q platforms.Query) []platforms.Record {
	t.Helper()
	var records []platforms.Record
	done := false
	for page, err := range h.Client.(platforms.Source).Suppressions(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		if done {
			t.Fatal("a page follows the last")
		}
		records, done = append(records, page.Records...), page.Done
	}
	if !done {
		t.Fatal("no page said that it is the last")
	}
	return records
}

func readsAll(t *testing.T, h Harness, channel domain.Channel) {
	want := plant(t, h, channel, 1, 120, h.Clock.Now().Add(-48*time.Hour))
	if len(want) == 0 {
		t.Fatal("nothing was planted")
	}
	got := suppressedIn(t, channel, readAll(t, h, platforms.Query{Channel: channel, Full: true}))
	diff(t, got, h.asFull(want))
	if there := h.Simulator.Suppressed(Account, string(channel)); len(there) != len(want) {
		t.Errorf("the platform suppresses %d, %d were planted", len(there), len(want))
	}
}

func diff[V comparable](t *testing.T, got, want map[string]V) {
	t.Helper()
	missing, wrong, extra := 0, 0, 0
	example := ""
	for address, reason := range want {
		switch found, ok := got[address]; {
		case !ok:
			missing++
			example = address
		case found != reason:
			wrong++
			example = fmt.Sprintf("%s: %v, want %v", address, found, reason)
		}
	}
	for address := range got {
		if _, ok := want[address]; !ok {
			extra++
			example = address
		}
	}
	if missing+wrong+extra > 0 {
		t.Errorf("%d missing, %d wrong, %d that should not be there, of %d; for example %s", missing, wrong, extra, len(want), example)
	}
}

// resumes reads one page at a time, as a process does that is killed after each.
func resumes(t *testing.T, h Harness, channel domain.Channel) {
	want := plant(t, h, channel, 1, 120, h.Clock.Now().Add(-48*time.Hour))
	var records []platforms.Record
	cursor, done, pages := platforms.Cursor(""), false, 0
	for !done {
		if pages++; pages > 100 {
			t.Fatal("the read does not end")
		}
		for page, err := range h.Client.(platforms.Source).Suppressions(t.Context(), platforms.Query{Channel: channel, Full: true, Cursor: cursor}) {
			if err != nil {
				t.Fatal(err)
			}
			records, cursor, done = append(records, page.Records...), page.Next, page.Done
			break
		}
	}
	diff(t, suppressedIn(t, channel, records), h.asFull(want))
}

// asFull is what a full read shows of what was planted.
func (h Harness) asFull(want map[string]platforms.Reason) map[string]platforms.Reason {
	shown := maps.Clone(want)
	for address, reason := range want {
		if as, ok := h.FullReads[reason]; ok {
			shown[address] = as
		}
	}
	return shown
}

func readsNew(t *testing.T, h Harness, channel domain.Channel) {
	plant(t, h, channel, 1, 5, h.Clock.Now())
	h.Clock.Advance(30 * 24 * time.Hour)
	since := h.Clock.Now().Add(-time.Minute)
	want := plant(t, h, channel, 500, 5, h.Clock.Now())
	got := suppressedIn(t, channel, readAll(t, h, platforms.Query{Channel: channel, Since: since}))
	diff(t, got, want)
}

func changes(channel domain.Channel, n int, reason platforms.Reason, list string) []platforms.Change {
	batch := make([]platforms.Change, n)
	for i := range batch {
		batch[i] = platforms.Change{
			Key: fmt.Sprint("change-", i), Addr: platforms.Address{Channel: channel, Value: Address(channel, i+1)}, Reason: reason,
			Scope: platforms.Scope{Kind: platforms.Global, ID: list}, At: time.Date(2026, 8, 19, 9, 30, 0, 0, time.UTC),
		}
		if list != "" {
			batch[i].Scope.Kind = platforms.Group
		}
	}
	return batch
}

// suppresses writes opt-outs of people whom the platform knows and of strangers, twice, and looks there.
func suppresses(t *testing.T, h Harness, channel domain.Channel) {
	const people = 12
	for n := 1; n <= people/2; n++ {
		fact := simulator.Fact{Account: Account, Channel: string(channel), Address: Address(channel, n), What: simulator.Known, List: h.Lists[channel]}
		if err := h.Simulator.Happen(fact); err != nil {
			t.Fatal(err)
		}
	}
	sink := h.Client.(platforms.Sink)
	caps := h.Client.(platforms.Describer).Caps()
	all := changes(channel, people, platforms.Unsubscribed, h.Lists[channel])
	want := map[string]bool{}
	for range 2 {
		for batch := range slices.Chunk(all, caps.WriteMax) {
			receipt, err := sink.Suppress(t.Context(), batch)
			if err != nil {
				t.Fatal(err)
			}
			settle(t, h, receipt)
			if len(receipt.Outcomes) != len(batch) {
				t.Fatalf("%d outcomes for %d changes", len(receipt.Outcomes), len(batch))
			}
			for i, outcome := range receipt.Outcomes {
				switch outcome.Status {
				case platforms.Applied, platforms.Unchanged, platforms.Acknowledged, platforms.InProgress:
					want[batch[i].Addr.Value] = true
				case platforms.NotFound, platforms.Declined, platforms.Failed, platforms.Challenged:
					t.Errorf("%s: %s (%s)", batch[i].Addr.Value, outcome.Status, outcome.Native)
				}
				if outcome.Key != batch[i].Key {
					t.Errorf("outcome %d is for %q, want %q", i, outcome.Key, batch[i].Key)
				}
			}
		}
	}
	h.Clock.Advance(caps.VerifyAfter)
	got := map[string]bool{}
	for address := range h.Simulator.Suppressed(Account, string(channel)) {
		got[address] = true
	}
	diff(t, got, want)
	if len(want) != people {
		t.Errorf("%d of %d were taken", len(want), people)
	}
	if reading, ok := h.Client.(platforms.Source); ok && slices.Contains(caps.ReadReasons[channel], platforms.Unsubscribed) {
		read := map[string]bool{}
		for page, err := range reading.Suppressions(t.Context(), platforms.Query{Channel: channel, Full: true}) {
			if err != nil {
				t.Fatal(err)
			}
			for address := range suppressedIn(t, channel, page.Records) {
				read[address] = true
			}
		}
		diff(t, read, want)
	}
}

// settle waits for a receipt's job.
func settle(t *testing.T, h Harness, receipt platforms.Receipt) {
	t.Helper()
	if receipt.Job == "" {
		return
	}
	for range 20 {
		report, err := h.Client.(platforms.JobPoller).Job(t.Context(), receipt.Job)
		if err != nil {
			t.Fatal(err)
		}
		if report.Done {
			if report.Failed {
				t.Errorf("job failed: %+v", report)
			}
			return
		}
		h.Clock.Advance(2 * time.Second)
	}
	t.Error("the job does not end")
}

func resubscribes(t *testing.T, h Harness) {
	channel := domain.Email
	address := Address(channel, 1)
	if err := h.Simulator.Happen(simulator.Fact{Account: Account, Channel: string(channel), Address: address, What: simulator.Unsubscribed}); err != nil {
		t.Fatal(err)
	}
	h.Clock.Advance(time.Hour)
	batch := changes(channel, 1, platforms.Resubscribed, "")
	batch[0].At = h.Clock.Now().Add(-time.Minute)
	resubscriber := h.Client.(platforms.Resubscriber)
	if _, err := resubscriber.Resubscribe(t.Context(), batch); !errors.Is(err, platforms.ErrNoEvidence) {
		t.Errorf("without evidence: %v, want ErrNoEvidence", err)
	}
	if there := h.Simulator.Suppressed(Account, string(channel)); there[address] == "" {
		t.Fatal("without evidence, the opt-out is gone all the same")
	}
	batch[0].Evidence = map[string]string{"event": "018f6b7e", "form_version": "7"}
	receipt, err := resubscriber.Resubscribe(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	h.Clock.Advance(h.Client.(platforms.Describer).Caps().VerifyAfter)
	_, still := h.Simulator.Suppressed(Account, string(channel))[address]
	switch status := receipt.Outcomes[0].Status; status {
	case platforms.Applied, platforms.Acknowledged, platforms.InProgress:
		if still {
			t.Errorf("the outcome is %s, and the opt-out is still there", status)
		}
	case platforms.Challenged, platforms.Declined:
		if !still {
			t.Errorf("the outcome is %s, and the opt-out is gone", status)
		}
	case platforms.Unchanged, platforms.NotFound, platforms.Failed:
		t.Errorf("outcome %s: %s", status, receipt.Outcomes[0].Native)
	}
}

// fails plants a failure before the list is read, and asks for the error that the reconciler acts on.
func fails(t *testing.T, fresh func(*testing.T, simulator.Options) Harness) {
	for name, tc := range map[string]struct {
		fault simulator.Fault
		want  error
		or    error // nil: nothing else will do
	}{
		"throttled":          {fault: simulator.Fault{Status: http.StatusTooManyRequests, Header: map[string]string{"Retry-After": "7"}}, want: platforms.ErrThrottled},
		"key refused":        {fault: simulator.Fault{Status: http.StatusUnauthorized, Times: -1}, want: platforms.ErrCredential},
		"down":               {fault: simulator.Fault{Status: http.StatusServiceUnavailable}, want: platforms.ErrUnavailable},
		"connection lost":    {fault: simulator.Fault{Drop: true}, want: platforms.ErrUnavailable},
		"not what it serves": {fault: simulator.Fault{Status: http.StatusOK, Body: "<html>maintenance"}, want: platforms.ErrRejected, or: platforms.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := fresh(t, simulator.Options{})
			tc.fault.Path = h.ReadPath
			h.Simulator.Break(tc.fault)
			var got error
			for _, err := range h.Client.(platforms.Source).Suppressions(t.Context(), platforms.Query{Channel: domain.Email, Full: true}) {
				got = err
			}
			if !errors.Is(got, tc.want) && (tc.or == nil || !errors.Is(got, tc.or)) {
				t.Fatalf("Suppressions = %v, want %v", got, tc.want)
			}
			var failed *platforms.APIError
			if errors.Is(tc.want, platforms.ErrThrottled) && (!errors.As(got, &failed) || !failed.Verdict.RetryAt.Equal(h.Clock.Now().Add(7*time.Second))) {
				t.Errorf("RetryAt = %+v, want seven seconds from now", failed)
			}
		})
	}
	t.Run("called off", func(t *testing.T) {
		t.Parallel()
		h := fresh(t, simulator.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var got error
		for _, err := range h.Client.(platforms.Source).Suppressions(ctx, platforms.Query{Channel: domain.Email, Full: true}) {
			got = err
		}
		if !errors.Is(got, context.Canceled) {
			t.Errorf("Suppressions = %v, want context.Canceled", got)
		}
	})
}

// Send posts a prepared request as the dispatcher would, and classifies the answer.
func Send(t *testing.T, sim http.Handler, dialect platforms.Dialect, url string, prepared platforms.Request, authorize func(*http.Request)) platforms.Verdict {
	t.Helper()
	if prepared.URL != nil {
		url = prepared.URL.String()
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(prepared.Body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = prepared.Header.Clone()
	if req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	authorize(req)
	resp, err := Transport{sim}.RoundTrip(req)
	if err != nil {
		return platforms.ClassifyError(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return dialect.Classify(resp.StatusCode, resp.Header, body, NewClock().Now())
}
