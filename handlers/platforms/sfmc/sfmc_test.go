package sfmc_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/platformtest"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/sfmc"
	sfmcsim "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/sfmc/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
)

const subdomain = "mc563885gzs27c5t9-63k636ttgm"

func harness(t *testing.T, clock *platformtest.Clock, opts simulator.Options) platformtest.Harness {
	t.Helper()
	sim, err := sfmcsim.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	tenant, err := sfmc.TenantOf(subdomain)
	if err != nil {
		t.Fatal(err)
	}
	return platformtest.Harness{
		Simulator: sim, Clock: clock, ReadPath: "/Service.asmx",
		FullReads: map[platforms.Reason]platforms.Reason{platforms.Complaint: platforms.Unsubscribed, platforms.HardBounce: platforms.Held},
		Client: sfmc.NewClient(sfmc.Config{
			HTTP: platformtest.Client(sim), Tenant: tenant, ClientID: opts.Accounts[0].Key, ClientSecret: platforms.Secret(opts.Accounts[0].Secret),
			Now: clock.Now, SMSExtension: "sms-opt-outs",
		}),
	}
}

func TestClient(t *testing.T) {
	t.Parallel()
	platformtest.Run(t, harness)
}

func newHarness(t *testing.T) (platformtest.Harness, *sfmc.Client, *sfmcsim.Simulator) {
	t.Helper()
	clock := platformtest.NewClock()
	h := harness(t, clock, simulator.Options{Now: clock.Now, Unlimited: true, Accounts: []simulator.Account{{Name: platformtest.Account, Key: "id", Secret: "s"}}})
	return h, h.Client.(*sfmc.Client), h.Simulator.(*sfmcsim.Simulator)
}

func happen(t *testing.T, h platformtest.Harness, f simulator.Fact) {
	t.Helper()
	f.Account = platformtest.Account
	if err := h.Simulator.Happen(f); err != nil {
		t.Fatal(err)
	}
}

func TestRetrievalThatWasForgottenBeginsAgain(t *testing.T) {
	t.Parallel()
	h, client, sim := newHarness(t)
	const people = 5200
	for n := range people {
		happen(t, h, simulator.Fact{Channel: "email", Address: platformtest.Address(domain.Email, n), What: simulator.Unsubscribed})
	}
	seen := map[string]bool{}
	var cursor platforms.Cursor
	for page, err := range client.Suppressions(t.Context(), platforms.Query{Channel: domain.Email, Full: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Records) != 2500 || page.Done {
			t.Fatalf("first page has %d records, done %v; want 2500, false", len(page.Records), page.Done)
		}
		cursor = page.Next
		break
	}
	sim.ForgetRetrievals(platformtest.Account)
	for page, err := range client.Suppressions(t.Context(), platforms.Query{Channel: domain.Email, Full: true, Cursor: cursor}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Records {
			seen[r.Addr.Value] = true
		}
	}
	if len(seen) != people {
		t.Errorf("%d of %d were seen", len(seen), people)
	}
}

func TestTokenThatExpiresDuringARead(t *testing.T) {
	t.Parallel()
	h, client, sim := newHarness(t)
	happen(t, h, simulator.Fact{Channel: "email", Address: "a@example.test", What: simulator.Unsubscribed})
	for _, err := range client.Suppressions(t.Context(), platforms.Query{Channel: domain.Email}) {
		if err != nil {
			t.Fatal(err)
		}
		h.Clock.Advance(18 * time.Minute)
	}
	tokens := 0
	for _, r := range sim.Requests() {
		if strings.HasSuffix(r.URL, "/v2/token") {
			tokens++
		}
	}
	if tokens < 3 {
		t.Errorf("%d tokens in most of an hour, want one each 18 minutes", tokens)
	}
}

func TestListUnsubscribeIsNotGlobal(t *testing.T) {
	t.Parallel()
	h, client, _ := newHarness(t)
	happen(t, h, simulator.Fact{Channel: "email", Address: "a@example.test", What: simulator.Unsubscribed, List: "69238"})
	var got []platforms.Record
	for page, err := range client.Suppressions(t.Context(), platforms.Query{Channel: domain.Email}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, page.Records...)
	}
	if len(got) != 1 || got[0].Scope != (platforms.Scope{Kind: platforms.List, ID: "69238"}) || got[0].Addr.Value != "a@example.test" {
		t.Errorf("records = %+v, want one, on the list", got)
	}
}

func TestLiftedSuppressionIsSeen(t *testing.T) {
	t.Parallel()
	h, client, _ := newHarness(t)
	happen(t, h, simulator.Fact{Channel: "email", Address: "a@example.test", What: simulator.Unsubscribed})
	happen(t, h, simulator.Fact{Channel: "email", Address: "a@example.test", What: simulator.Resubscribed, At: h.Clock.Now().Add(time.Minute)})
	cleared := 0
	for page, err := range client.Suppressions(t.Context(), platforms.Query{Channel: domain.Email, Since: h.Clock.Now().Add(-time.Hour)}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Records {
			if r.State == platforms.Cleared {
				cleared++
			}
		}
	}
	if cleared != 1 {
		t.Errorf("%d records clear, want one", cleared)
	}
}

func TestCentralTimeOfDataViews(t *testing.T) {
	t.Parallel()
	h, client, _ := newHarness(t)
	at := h.Clock.Now().Add(-time.Hour)
	happen(t, h, simulator.Fact{Channel: "sms", Address: "+61400000001", What: simulator.Unsubscribed, At: at})
	for page, err := range client.Suppressions(t.Context(), platforms.Query{Channel: domain.SMS, Since: at.Add(-time.Minute)}) {
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Records) != 1 || !page.Records[0].Facts[0].At.Equal(at) || page.Records[0].Addr.Value != "+61400000001" {
			t.Errorf("records = %+v, want one at %v", page.Records, at)
		}
	}
}

func TestAllSubscribersOfAnAddressAreUnsubscribed(t *testing.T) {
	t.Parallel()
	h, client, sim := newHarness(t)
	happen(t, h, simulator.Fact{Channel: "email", Address: "a@example.test", What: simulator.Known})
	// A second subscriber under another key, added by the same address.
	receipt, err := client.Suppress(t.Context(), []platforms.Change{
		{Key: "known", Addr: platforms.Address{Channel: domain.Email, Value: "a@example.test"}, Reason: platforms.Unsubscribed},
		{Key: "stranger", Addr: platforms.Address{Channel: domain.Email, Value: "b@example.test"}, Reason: platforms.Complaint},
		{Key: "bounce", Addr: platforms.Address{Channel: domain.Email, Value: "c@example.test"}, Reason: platforms.HardBounce},
		{Key: "text", Addr: platforms.Address{Channel: domain.SMS, Value: "+61400000001"}, Reason: platforms.Unsubscribed},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []platforms.Status{platforms.Applied, platforms.Applied, platforms.Declined, platforms.Declined} {
		if o := receipt.Outcomes[i]; o.Status != want {
			t.Errorf("%s: %+v, want %s", o.Key, o, want)
		}
	}
	if got := sim.Suppressed(platformtest.Account, "email"); len(got) != 2 {
		t.Errorf("Marketing Cloud suppresses %v, want two", got)
	}
}

const (
	message   = `{"definitionKey":"reward-earned","recipient":{"contactKey":"cust-42","to":"ada@example.test","attributes":{"RewardAmount":"12.50"}}}`
	several   = `{"definitionKey":"reward-earned","recipients":[{"contactKey":"cust-42","to":"ada@example.test"},{"contactKey":"cust-43","to":"bob@example.test"}]}`
	triggered = `{"To":{"Address":"ada@example.test","SubscriberKey":"cust-42","ContactAttributes":{"SubscriberAttributes":{"RewardAmount":"12.50"}}}}`
	journey   = `{"ContactKey":"cust-42","EventDefinitionKey":"APIEvent-1","Data":{"RewardAmount":12.5}}`
)

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		body    string
		want    error
		pointer string
	}{
		"a message":                 {body: message},
		"a text":                    {body: strings.Replace(message, "ada@example.test", "61400000001", 1)},
		"several":                   {body: several},
		"a triggered send":          {body: triggered},
		"a journey entry":           {body: journey},
		"a resubscribe on the side": {body: strings.Replace(message, `"attributes"`, `"subscriptions":{"resubscribe":true},"attributes"`, 1), want: platforms.ErrDangerous, pointer: "/recipient/subscriptions/resubscribe"},
		"nobody":                    {body: strings.Replace(message, "cust-42", "", 1), want: platforms.ErrBody, pointer: "/recipient/contactKey"},
		"a bad address":             {body: strings.Replace(triggered, "ada@example.test", "ada", 1), want: platforms.ErrBody, pointer: "/To/Address"},
		"nested attributes":         {body: strings.Replace(message, `"12.50"`, `{}`, 1), want: platforms.ErrBody, pointer: "/recipient/attributes/RewardAmount"},
		"something else":            {body: `{"hello":1}`, want: platforms.ErrBody},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := sfmc.Dialect{}.Validate([]byte(tc.body))
			if !errors.Is(err, tc.want) {
				t.Fatalf("Validate = %v, want %v", err, tc.want)
			}
			var body *platforms.BodyError
			if errors.As(err, &body) && body.Problems[0].Pointer != tc.pointer {
				t.Errorf("Validate = %v, want a problem at %q", err, tc.pointer)
			}
		})
	}
}

func TestSends(t *testing.T) {
	t.Parallel()
	h, client, sim := newHarness(t)
	send := func(path, body string) platforms.Verdict {
		t.Helper()
		prepared, err := sfmc.Dialect{}.Prepare(platforms.Request{
			DeliveryID: "8fc344db", Body: []byte(body), URL: &url.URL{Scheme: "https", Host: subdomain + ".rest.marketingcloudapis.com", Path: path},
		})
		if err != nil {
			t.Fatal(err)
		}
		return platformtest.Send(t, sim, sfmc.Dialect{}, "", prepared, func(r *http.Request) {
			if err := client.Authorize(r.Context(), r); err != nil {
				t.Fatal(err)
			}
		})
	}
	for _, tc := range []struct {
		path, body string
		want       domain.Verdict
	}{
		{"/messaging/v1/email/messages/", message, domain.Accepted},
		{"/messaging/v1/email/messages", message, domain.Duplicate}, // the same delivery again
		{"/messaging/v1/email/messages/own-key", message, domain.Accepted},
		{"/messaging/v1/email/messages/", several, domain.Accepted},
		{"/messaging/v1/email/messages/", strings.Replace(several, `"cust-43"`, `"cust-43","messageKey":"fresh"`, 1), domain.Partial},
		{"/messaging/v1/messageDefinitionSends/key:reward-earned/send", triggered, domain.Accepted},
		{"/messaging/v1/messageDefinitionSends/key:reward-earned/send", strings.Replace(triggered, "cust-42", "", 1), domain.Permanent},
		{"/interaction/v1/events", journey, domain.Accepted},
		{"/interaction/v1/events", `{}`, domain.Permanent},
	} {
		if v := send(tc.path, tc.body); v.Kind != tc.want {
			t.Errorf("%s %s: %+v, want %s", tc.path, tc.body, v, tc.want)
		}
	}
	if sent := sim.Sent(platformtest.Account); sent[0].Key != "8fc344db" || sent[1].Key != "own-key" {
		t.Errorf("sent = %+v, want the delivery's key, then the author's", sent)
	}
	h.Clock.Advance(49 * time.Hour)
	if v := send("/messaging/v1/email/messages/", message); v.Kind != domain.Accepted {
		t.Errorf("the same key two days later: %+v; Marketing Cloud has forgotten it by then", v)
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	received := platformtest.NewClock().Now()
	for name, tc := range map[string]struct {
		status int
		header http.Header
		body   string
		kind   domain.Verdict
		retry  time.Duration
	}{
		"throttled":                    {status: 429, header: http.Header{"Retry-After": {"5"}}, kind: domain.RetryLater, retry: 5 * time.Second},
		"throttled, in the body alone": {status: 429, body: `{"message":"Rate limit exceeded","errorcode":50100,"retryAfter":5}`, kind: domain.RetryLater, retry: 5 * time.Second},
		"blocked":                      {status: 429, body: `{"message":"temporarily blocked","errorcode":50200}`, kind: domain.RetryLater},
		"token expired":                {status: 401, body: `{"message":"Not Authorized","errorcode":0}`, kind: domain.AuthExpired},
		"not permitted":                {status: 403, kind: domain.AuthExpired},
		"see inside":                   {status: 400, body: `{"message":"see","errorcode":10006,"additionalErrors":[{"errorcode":1,"message":"messageKey already used"}]}`, kind: domain.Duplicate},
		"bad":                          {status: 400, body: `{"message":"bad","errorcode":10003}`, kind: domain.Permanent},
		"down":                         {status: 500, kind: domain.RetryLater},
	} {
		v := sfmc.Dialect{}.Classify(tc.status, tc.header, []byte(tc.body), received)
		if v.Kind != tc.kind || v.Reason == "" || tc.retry != 0 && !v.RetryAt.Equal(received.Add(tc.retry)) {
			t.Errorf("%s: %+v, want %s", name, v, tc.kind)
		}
	}
}

func TestInbound(t *testing.T) {
	t.Parallel()
	in := sfmc.Inbound{Key: "s1gnature", Now: platformtest.NewClock().Now}
	sign := func(body string) http.Header {
		mac := hmac.New(sha256.New, []byte("s1gnature"))
		mac.Write([]byte(body))
		return http.Header{"X-Sfmc-Ens-Signature": {base64.StdEncoding.EncodeToString(mac.Sum(nil))}}
	}
	const body = `[{"eventCategoryType":"EngagementEvents.EmailUnsubscribe","timestampUTC":1591407815000,"info":{"to":"Ada@example.test","unsubscribeDate":1591386215000}},
	  {"eventCategoryType":"TransactionalSendEvents.SmsBounced","timestampUTC":1591407815000,"Info":{"to":"61400000001"}},
	  {"eventCategoryType":"EngagementEvents.EmailOpen","timestampUTC":1591407815000,"info":{}}]`
	records, err := in.Decode(sign(body), []byte(body))
	if err != nil || len(records) != 2 {
		t.Fatalf("Decode = %+v, %v; want two records", records, err)
	}
	if r := records[0]; r.Addr.Value != "ada@example.test" || r.Facts[0].At.Unix() != 1591407815 || r.Facts[0].Reason != platforms.Unsubscribed || r.EventKey == "" {
		t.Errorf("first record = %+v, want Ada's opt-out at timestampUTC", r)
	}
	if r := records[1]; r.Addr.Value != "+61400000001" || r.Facts[0].Reason.Class() != platforms.DeliverabilityClass {
		t.Errorf("second record = %+v, want a bounced text", r)
	}
	again, err := in.Decode(sign(body), []byte(body))
	if err != nil || again[0].EventKey != records[0].EventKey || records[0].EventKey == records[1].EventKey {
		t.Errorf("event keys %q, %q and %q: want the same for a repeat and others for others", records[0].EventKey, again[0].EventKey, records[1].EventKey)
	}
	if _, err := in.Decode(sign(body), []byte(body+" ")); !errors.Is(err, platforms.ErrSignature) {
		t.Errorf("one byte more: %v, want ErrSignature", err)
	}
	var verification *sfmc.Verification
	if _, err := in.Decode(http.Header{}, []byte(`{"callbackId":"c","verificationKey":"k"}`)); !errors.As(err, &verification) || verification.Key != "k" {
		t.Errorf("the first post: %v, want a Verification", err)
	}
}

func TestConfirmCallback(t *testing.T) {
	t.Parallel()
	_, client, sim := newHarness(t)
	if err := client.ConfirmCallback(t.Context(), &sfmc.Verification{CallbackID: "c", Key: "k"}); err != nil {
		t.Fatal(err)
	}
	requests := sim.Requests()
	if last := requests[len(requests)-1]; !strings.HasSuffix(last.URL, "/platform/v1/ens-verify") || !strings.Contains(last.Body, `"verificationKey":"k"`) {
		t.Errorf("last request = %+v", last)
	}
}

func TestTenantOf(t *testing.T) {
	t.Parallel()
	if tenant, err := sfmc.TenantOf(subdomain); err != nil || tenant.SOAP != "https://"+subdomain+".soap.marketingcloudapis.com" {
		t.Errorf("TenantOf = %+v, %v", tenant, err)
	}
	for _, bad := range []string{"", "mc", "evil.example/x", subdomain + ".evil"} {
		if _, err := sfmc.TenantOf(bad); err == nil {
			t.Errorf("TenantOf(%q) takes it", bad)
		}
	}
}

// canned answers the calls of the data extension, page by page, and gives a token to whoever asks.
type canned []string

// RoundTrip implements http.RoundTripper.
func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	body := `{"access_token":"t","expires_in":1079}`
	if page, err := strconv.Atoi(r.URL.Query().Get("$page")); err == nil {
		body = `{"items":[]}`
		if page <= len(c) {
			body = c[page-1]
		}
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// The extension is read to its end when fewer rows are granted than were asked for; joining one keyword takes no opt-out from another
// back; and who is in no row is not taken to be lifted: the query may be filling it at this moment.
func TestTextsAreReadByKeyword(t *testing.T) {
	t.Parallel()
	row := func(keyword, out, in string) string {
		return `{"keys":{"mobilenumber":"61400000001"},"values":{"subscriptiondefinitionid":"` + keyword + `","optoutdate":"` + out + `","optindate":"` + in + `","optoutstatusid":"1"}}`
	}
	pages := canned{
		`{"pageSize":2,"page":1,"count":3,"items":[` + row("NEWS", "5/1/2026 9:00:00 AM", "4/1/2026 9:00:00 AM") + `,` + row("VIP", "5/1/2026 9:00:00 AM", "5/2/2026 9:00:00 AM") + `]}`,
		`{"pageSize":2,"page":2,"count":3,"items":[` + row("", "5/3/2026 9:00:00 AM", "") + `]}`,
	}
	tenant := sfmc.Tenant{Auth: "https://auth.test", REST: "https://rest.test", SOAP: "https://soap.test"}
	client := sfmc.NewClient(sfmc.Config{HTTP: &http.Client{Transport: pages}, Tenant: tenant, ClientID: "id", ClientSecret: "s", Now: time.Now, SMSExtension: "texts"})
	var got []string
	for page, err := range client.Suppressions(t.Context(), platforms.Query{Channel: domain.SMS, Full: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if page.Complete {
			t.Error("who is in no row is taken to be lifted")
		}
		for _, r := range page.Records {
			got = append(got, strings.Join([]string{string(r.Scope.Kind), r.Scope.ID, string(r.State), r.Addr.Value, r.Facts[0].At.Format(time.DateTime)}, " "))
		}
	}
	want := []string{
		"list NEWS suppressed +61400000001 2026-05-01 15:00:00", "list VIP cleared +61400000001 2026-05-02 15:00:00", "global  suppressed +61400000001 2026-05-03 15:00:00",
	}
	if !slices.Equal(got, want) {
		t.Errorf("read\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What was not sent says something of the person where the code does, and never that they opted out just now.
func TestWhatWasNotSent(t *testing.T) {
	t.Parallel()
	in := sfmc.Inbound{Key: "s1gnature", Now: platformtest.NewClock().Now}
	for code, want := range map[string]platforms.Reason{`"1"`: platforms.Unknown, `"2"`: platforms.Held, `3`: platforms.Unknown, `"5"`: platforms.InvalidAddress, `"10"`: "", `24`: platforms.Unknown, `null`: platforms.Unknown} {
		body := `[{"eventCategoryType":"TransactionalSendEvents.EmailNotSent","timestampUTC":1591407815000,"info":{"to":"ada@example.test","subscriberKey":"cust-42","statusCode":` + code + `,"statusMessage":"why"}}]`
		mac := hmac.New(sha256.New, []byte("s1gnature"))
		mac.Write([]byte(body))
		records, err := in.Decode(http.Header{"X-Sfmc-Ens-Signature": {base64.StdEncoding.EncodeToString(mac.Sum(nil))}}, []byte(body))
		switch {
		case err != nil:
			t.Errorf("%s: %v", code, err)
		case want == "":
			if len(records) > 0 {
				t.Errorf("%s: %+v, want nothing of the person", code, records)
			}
		case len(records) != 1 || records[0].Facts[0].Reason != want || records[0].NativeKey != "cust-42" || want.Class() == platforms.ConsentClass:
			t.Errorf("%s: %+v, want %s", code, records, want)
		}
	}
}
