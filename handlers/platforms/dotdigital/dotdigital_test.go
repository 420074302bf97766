package dotdigital_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/dotdigital"
	dotdigitalsim "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/dotdigital/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/platformtest"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
)

func harness(t *testing.T, clock *platformtest.Clock, opts simulator.Options) platformtest.Harness {
	t.Helper()
	sim, err := dotdigitalsim.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return platformtest.Harness{
		Simulator: sim, Clock: clock, ReadPath: "/contacts/v3",
		Client: dotdigital.Client{
			HTTP: platformtest.Client(sim), Base: dotdigital.Regions["r1"], User: opts.Accounts[0].Key,
			Password: platforms.Secret(opts.Accounts[0].Secret), Now: clock.Now,
		},
	}
}

func TestClient(t *testing.T) {
	t.Parallel()
	platformtest.Run(t, harness)
}

const triggered = `{"toAddresses":["ada@example.test"],"campaignId":1043,"personalizationValues":[{"name":"REWARD_AMOUNT","value":"12.50"}]}`

var received = platformtest.NewClock().Now()

func TestValidate(t *testing.T) {
	t.Parallel()
	with := func(old, replacement string) string { return strings.Replace(triggered, old, replacement, 1) }
	for name, tc := range map[string]struct{ body, pointer string }{
		"a triggered campaign":      {body: triggered},
		"an email of its own":       {body: `{"toAddresses":["a@example.test"],"subject":"Hi","fromAddress":"b@example.test","htmlContent":"<p>"}`},
		"a batch":                   {body: "[" + triggered + "]"},
		"a marketing email":         {body: `{"to":"a@example.test","content":{"source":"template","campaignId":3456}}`},
		"a text":                    {body: `{"message":"hello"}`},
		"nobody":                    {body: with(`"ada@example.test"`, `""`), pointer: "/toAddresses/0"},
		"101 people":                {body: with(`"ada@example.test"`, strings.Repeat(`"a@example.test",`, 100)+`"a@example.test"`), pointer: "/toAddresses"},
		"a campaign in quotes":      {body: with("1043", `"1043"`), pointer: "/campaignId"},
		"a number for a text":       {body: with(`"12.50"`, `12.50`), pointer: "/personalizationValues/0/value"},
		"an object for a list":      {body: with(`[{"name":"REWARD_AMOUNT","value":"12.50"}]`, `{"REWARD_AMOUNT":"12.50"}`), pointer: "/personalizationValues"},
		"no unsubscribe link":       {body: `{"to":"a@example.test","content":{"source":"html","html":"<p>"}}`, pointer: "/content/html"},
		"a text of 1601 characters": {body: `{"message":"` + strings.Repeat("x", 1601) + `"}`, pointer: "/message"},
		"something else":            {body: `{"event":"x"}`, pointer: ""},
		"a bad one in a batch":      {body: "[" + triggered + "," + with("1043", "-1") + "]", pointer: "/1/campaignId"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := dotdigital.Dialect{}.Validate([]byte(tc.body))
			var body *platforms.BodyError
			switch {
			case tc.pointer == "" && name != "something else":
				if err != nil {
					t.Errorf("Validate = %v, want nil", err)
				}
			case !errors.As(err, &body) || body.Problems[0].Pointer != tc.pointer:
				t.Errorf("Validate = %v, want a problem at %q", err, tc.pointer)
			}
		})
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	epoch := http.Header{"X-Ratelimit-Reset": {"1787220030"}} // half a minute after the clock's start
	for name, tc := range map[string]struct {
		status int
		header http.Header
		body   string
		kind   domain.Verdict
		reason platforms.Reason // of the refusal
		retry  time.Duration
	}{
		"an empty 200":             {status: 200, kind: domain.Accepted},
		"a batch that went well":   {status: 200, body: `[{"index":0},{"index":1}]`, kind: domain.Accepted},
		"a batch that half failed": {status: 200, body: `[{"index":0},{"index":1,"failureCode":"ERROR_INVALID_EMAIL"}]`, kind: domain.Partial},
		"a batch that failed":      {status: 200, body: `[{"index":0,"failureCode":"ERROR_INVALID_EMAIL"}]`, kind: domain.Permanent},
		"who opted out":            {status: 409, body: `{"errorCode":"marketingEmail:unsubscribed"}`, kind: domain.Refused, reason: platforms.Unsubscribed},
		"who complained":           {status: 409, body: `{"errorCode":"marketingEmail:complaint"}`, kind: domain.Refused, reason: platforms.Complaint},
		"who is suppressed, in v2": {status: 400, body: `{"message":"Contact is suppressed. ERROR_CONTACT_SUPPRESSED"}`, kind: domain.Refused, reason: platforms.Manual},
		"another conflict":         {status: 409, body: `{"errorCode":"contacts:identifierConflict"}`, kind: domain.Permanent},
		"the old scheme's limit":   {status: 400, body: `{"message":"Usage exceeded ERROR_APIUSAGE_EXCEEDED"}`, header: epoch, kind: domain.RetryLater, retry: 30 * time.Second},
		"the new scheme's limit":   {status: 429, header: epoch, kind: domain.RetryLater, retry: 30 * time.Second},
		"a bad parameter":          {status: 400, body: `{"message":"Bad. ERROR_PARAMETER_INVALID"}`, kind: domain.Permanent},
		"a bad password":           {status: 401, kind: domain.AuthExpired},
		"another region":           {status: 403, kind: domain.AuthExpired},
		"down":                     {status: 503, body: "<html>", kind: domain.RetryLater},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := dotdigital.Dialect{}.Classify(tc.status, tc.header, []byte(tc.body), received)
			if v.Kind != tc.kind || v.Reason == "" || (v.Refusal != nil) != (tc.reason != "") || v.Refusal != nil && v.Refusal.Reason != tc.reason {
				t.Errorf("Classify = %+v (refusal %+v), want %s %s", v, v.Refusal, tc.kind, tc.reason)
			}
			if want := received.Add(tc.retry); tc.retry != 0 && !v.RetryAt.Equal(want) {
				t.Errorf("RetryAt = %v, want %v", v.RetryAt, want)
			}
		})
	}
}

// send prepares and posts a body as the dispatcher would.
func send(t *testing.T, sim http.Handler, path, body string) platforms.Verdict {
	t.Helper()
	prepared, err := dotdigital.Dialect{}.Prepare(platforms.Request{DeliveryID: "d-1", Body: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	return platformtest.Send(t, sim, dotdigital.Dialect{}, dotdigital.Regions["r1"]+path, prepared, func(r *http.Request) { r.SetBasicAuth("demo-key", "demo-secret") })
}

func TestSends(t *testing.T) {
	t.Parallel()
	clock := platformtest.NewClock()
	sim, err := dotdigitalsim.New(simulator.Options{Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	if err := sim.Happen(simulator.Fact{Account: "demo", Channel: "email", Address: "out@example.test", What: simulator.Complained}); err != nil {
		t.Fatal(err)
	}
	marketing := func(to string) string {
		return `{"to":"` + to + `","content":{"source":"template","campaignId":3456}}`
	}
	if v := send(t, sim, "/v2/email/triggered-campaign", triggered); v.Kind != domain.Accepted {
		t.Errorf("triggered campaign: %+v, want accepted", v)
	}
	if v := send(t, sim, "/marketing-email/v3/send", marketing("in@example.test")); v.Kind != domain.Accepted {
		t.Errorf("marketing email: %+v, want accepted", v)
	}
	if v := send(t, sim, "/marketing-email/v3/send", marketing("out@example.test")); v.Kind != domain.Refused || v.Refusal.Reason != platforms.Complaint {
		t.Errorf("marketing email to who complained: %+v, want refused for a complaint", v)
	}
	sent := sim.Sent("demo")
	if len(sent) != 2 || !strings.Contains(string(sent[0].Metadata), `"delivery_id":"d-1"`) {
		t.Errorf("sent = %+v, want two, each with the delivery id", sent)
	}
}

func TestOneBadAddressOfAnImportIsNamed(t *testing.T) {
	t.Parallel()
	clock := platformtest.NewClock()
	h := harness(t, clock, simulator.Options{Now: clock.Now, Accounts: []simulator.Account{{Name: platformtest.Account, Key: "u", Secret: "p"}}})
	client := h.Client.(dotdigital.Client)
	receipt, err := client.Suppress(t.Context(), []platforms.Change{
		{Key: "1", Addr: platforms.Address{Channel: domain.Email, Value: "a@example.test"}, Reason: platforms.Unsubscribed},
		{Key: "2", Addr: platforms.Address{Channel: domain.Email, Value: "nobody"}, Reason: platforms.Unsubscribed},
	})
	if err != nil {
		t.Fatal(err)
	}
	clock.Advance(time.Second)
	if _, err := client.Job(t.Context(), receipt.Job); err != nil {
		t.Fatal(err)
	}
	report, err := client.Job(t.Context(), receipt.Job)
	if err != nil || !report.Done || report.Completed != 1 || report.Rejected["nobody"] == "" {
		t.Errorf("Job = %+v, %v; want done, one taken, the other named", report, err)
	}
}

func TestListMovesWhileItIsRead(t *testing.T) {
	t.Parallel()
	clock := platformtest.NewClock()
	h := harness(t, clock, simulator.Options{Now: clock.Now, Unlimited: true, Accounts: []simulator.Account{{Name: platformtest.Account, Key: "u", Secret: "p"}}})
	happen := func(n int, what string) {
		if err := h.Simulator.Happen(simulator.Fact{Account: platformtest.Account, Channel: "email", Address: platformtest.Address(domain.Email, n), What: what}); err != nil {
			t.Fatal(err)
		}
	}
	const people = 2500
	for n := range people {
		happen(n, simulator.Unsubscribed)
	}
	seen := map[string]bool{}
	page := 0
	for p, err := range h.Client.(platforms.Source).Suppressions(t.Context(), platforms.Query{Channel: domain.Email, Since: clock.Now().Add(-time.Hour)}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range p.Records {
			seen[r.Addr.Value] = true
		}
		for n := range 20 { // twenty people at the front resubscribe, and every row moves up
			happen(page*20+n, simulator.Resubscribed)
		}
		page++
	}
	if len(seen) != people {
		t.Errorf("%d of %d were seen", len(seen), people)
	}
}

func TestDiscover(t *testing.T) {
	t.Parallel()
	clock := platformtest.NewClock()
	h := harness(t, clock, simulator.Options{Now: clock.Now, Accounts: []simulator.Account{{Name: "shop", Key: "u", Secret: "p"}}})
	if base, err := h.Client.(dotdigital.Client).Discover(t.Context()); err != nil || base != dotdigital.Regions["r3"] {
		t.Errorf("Discover = %q, %v; want %q", base, err, dotdigital.Regions["r3"])
	}
}

func TestInbound(t *testing.T) {
	t.Parallel()
	in := dotdigital.Inbound{Secret: "s3cret", Now: platformtest.NewClock().Now}
	const failed = `{"eventId":"e-1","name":"message.failed","timestamp":"2026-08-20T09:00:00Z","payload":{"metadata":{"delivery_id":"d-1"},"details":{"channel":"sms","additionalInfo":{"to":"61400000001"}}}}`
	sign := func(body string) http.Header {
		mac := hmac.New(sha1.New, []byte("s3cret"))
		mac.Write([]byte(body))
		return http.Header{"X-Comapi-Signature": {hex.EncodeToString(mac.Sum(nil))}}
	}
	for _, body := range []string{failed, "[" + failed + `,{"name":"message.read"}]`} {
		records, err := in.Decode(sign(body), []byte(body))
		if err != nil || len(records) != 1 || records[0].Addr.Value != "+61400000001" || records[0].EventKey != "e-1" || records[0].DeliveryID != "d-1" ||
			records[0].Facts[0].Reason.Class() != platforms.DeliverabilityClass {
			t.Errorf("Decode = %+v, %v; want one failure of delivery", records, err)
		}
	}
	if _, err := in.Decode(sign(failed), []byte(failed+" ")); !errors.Is(err, platforms.ErrSignature) {
		t.Errorf("one byte more: %v, want ErrSignature", err)
	}
	if _, err := in.Decode(sign("x"), []byte("x")); !errors.Is(err, platforms.ErrInbound) {
		t.Errorf("another shape: %v, want ErrInbound", err)
	}
}

func TestStates(t *testing.T) {
	t.Parallel()
	file := "Email,Reason,Date Removed\n" + strings.Join([]string{
		"a@example.test,HardBounced,2026-08-20", "b@example.test,hardBounced,", "c@example.test,PendingOptIn,", "d@example.test,Subscribed,", "e@example.test,SomethingNew,",
	}, "\n")
	p, err := platforms.Lookup("dotdigital")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for r, err := range p.Import.Import(strings.NewReader(file), platformtest.NewClock().Now) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(r.State)+" "+string(r.Facts[0].Reason))
	}
	want := []string{"suppressed hard_bounce", "suppressed hard_bounce", "pending pending_opt_in", "cleared resubscribed", "suppressed unknown"}
	if !slices.Equal(got, want) {
		t.Errorf("states = %q, want %q", got, want)
	}
}
