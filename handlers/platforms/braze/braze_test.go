package braze_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/braze"
	brazesim "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/braze/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/platformtest"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
)

func harness(t *testing.T, clock *platformtest.Clock, opts simulator.Options) platformtest.Harness {
	t.Helper()
	sim, err := brazesim.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return platformtest.Harness{
		Simulator: sim, Clock: clock, Lists: map[domain.Channel]string{domain.SMS: "group-1"}, ReadPath: "/email/",
		Client: braze.Client{HTTP: platformtest.Client(sim), Base: braze.Instances["us-01"], Key: platforms.Secret(opts.Accounts[0].Key), Now: clock.Now},
	}
}

func TestClient(t *testing.T) {
	t.Parallel()
	platformtest.Run(t, harness)
}

func newHarness(t *testing.T) (platformtest.Harness, braze.Client) {
	t.Helper()
	clock := platformtest.NewClock()
	h := harness(t, clock, simulator.Options{Now: clock.Now, Accounts: []simulator.Account{{Name: platformtest.Account, Key: "k"}}})
	return h, h.Client.(braze.Client)
}

const (
	tracked       = `{"events":[{"external_id":"cust-42","name":"reward_earned","time":"2026-08-20T10:00:00Z","properties":{"reward_amount":12.5}}],"attributes":[{"external_id":"cust-42","email":"ada@example.test"}]}`
	triggered     = `{"campaign_id":"9b3d","recipients":[{"external_user_id":"cust-42"}]}`
	transactional = `{"trigger_properties":{"reward_amount":12.5},"recipient":{"external_user_id":"cust-42"}}`
	direct        = `{"external_user_ids":["cust-42"],"messages":{"email":{}},"recipient_subscription_state":"subscribed"}`
)

var received = platformtest.NewClock().Now()

func TestValidate(t *testing.T) {
	t.Parallel()
	events := strings.TrimSuffix(strings.Repeat(`{"external_id":"c","name":"e","time":"2026-08-20T10:00:00Z"},`, 76), ",")
	for name, tc := range map[string]struct {
		body    string
		want    error
		pointer string
	}{
		"a tracked event":             {body: tracked},
		"a triggered campaign":        {body: triggered},
		"a transactional email":       {body: transactional},
		"a direct message":            {body: direct},
		"a broadcast":                 {body: `{"campaign_id":"9b3d","broadcast":true,"recipients":[{"external_user_id":"c"}]}`, want: platforms.ErrDangerous, pointer: "/broadcast"},
		"a segment":                   {body: strings.Replace(direct, `"external_user_ids":["cust-42"]`, `"segment_id":"s","external_user_ids":["c"]`, 1), want: platforms.ErrDangerous, pointer: "/segment_id"},
		"people who unsubscribed":     {body: strings.Replace(direct, `"subscribed"`, `"all"`, 1), want: platforms.ErrDangerous, pointer: "/recipient_subscription_state"},
		"consent by attribute":        {body: `{"attributes":[{"external_id":"c","email_subscribe":"opted_in"}]}`, want: platforms.ErrDangerous, pointer: "/attributes/0/email_subscribe"},
		"the key in the body":         {body: strings.Replace(tracked, `{"events"`, `{"api_key":"x","events"`, 1), want: platforms.ErrBody, pointer: "/api_key"},
		"nobody":                      {body: strings.Replace(tracked, `"external_id":"cust-42","name"`, `"external_id":"","name"`, 1), want: platforms.ErrBody, pointer: "/events/0"},
		"two names for one recipient": {body: strings.Replace(triggered, `"external_user_id"`, `"email":"a@example.test","external_user_id"`, 1), want: platforms.ErrBody, pointer: "/recipients/0"},
		"an email without a priority": {body: `{"campaign_id":"9b3d","recipients":[{"email":"a@example.test"}]}`, want: platforms.ErrBody, pointer: "/recipients/0/prioritization"},
		"no recipients":               {body: `{"campaign_id":"9b3d"}`, want: platforms.ErrBody, pointer: "/recipients"},
		"76 events":                   {body: `{"events":[` + events + `]}`, want: platforms.ErrBody, pointer: "/events"},
		"a time that is none":         {body: strings.Replace(tracked, "2026-08-20T10:00:00Z", "today", 1), want: platforms.ErrBody, pointer: "/events/0/time"},
		"a send id with a space":      {body: strings.Replace(transactional, "{", `{"external_send_id":"a b",`, 1), want: platforms.ErrBody, pointer: "/external_send_id"},
		"something else":              {body: `{"hello":1}`, want: platforms.ErrBody},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := braze.Dialect{}.Validate([]byte(tc.body))
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

func TestClassify(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		status int
		header http.Header
		body   string
		kind   domain.Verdict
		retry  time.Duration
	}{
		"queued":                       {status: 201, body: `{"message":"success","events_processed":1}`, kind: domain.Accepted},
		"in maintenance":               {status: 202, body: `{"message":"queued"}`, kind: domain.Accepted},
		"a transactional email":        {status: 201, body: `{"dispatch_id":"d","status":"sent","metadata":{}}`, kind: domain.Accepted},
		"errors beside a success":      {status: 201, body: `{"message":"success","events_processed":1,"errors":[{"type":"bad","input_array":"attributes","index":0}]}`, kind: domain.Partial},
		"errors and nothing taken":     {status: 201, body: `{"message":"success","errors":["bad"]}`, kind: domain.Permanent},
		"2xx and no success":           {status: 200, body: `{"message":"nope"}`, kind: domain.Permanent},
		"a proxy's page":               {status: 200, body: `<html>`, kind: domain.RetryLater},
		"an aborted send":              {status: 201, body: `{"dispatch_id":"d","status":"aborted"}`, kind: domain.Refused},
		"a send id used before":        {status: 400, body: `{"message":"The external reference has been queued.  Please retry to obtain send_id."}`, kind: domain.Duplicate},
		"a bad campaign":               {status: 400, body: `{"message":"Invalid campaign ID"}`, kind: domain.Permanent},
		"another instance's key":       {status: 401, kind: domain.AuthExpired},
		"throttled, until an epoch":    {status: 429, header: http.Header{"X-Ratelimit-Reset": {"1787220030"}}, kind: domain.RetryLater, retry: 30 * time.Second},
		"throttled, for some seconds":  {status: 429, header: http.Header{"X-Ratelimit-Reset": {"12"}}, kind: domain.RetryLater, retry: 12 * time.Second},
		"throttled, by the newer plan": {status: 429, header: http.Header{"X-Ratelimit-Retry-After": {"5"}}, kind: domain.RetryLater, retry: 5 * time.Second},
		"down":                         {status: 500, kind: domain.RetryLater},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := braze.Dialect{}.Classify(tc.status, tc.header, []byte(tc.body), received)
			if v.Kind != tc.kind || v.Reason == "" {
				t.Errorf("Classify = %+v, want %s", v, tc.kind)
			}
			if want := received.Add(tc.retry); tc.retry != 0 && !v.RetryAt.Equal(want) {
				t.Errorf("RetryAt = %v, want %v", v.RetryAt, want)
			}
		})
	}
}

func TestSends(t *testing.T) {
	t.Parallel()
	h, _ := newHarness(t)
	sim := h.Simulator.(*brazesim.Simulator)
	send := func(path, body string) platforms.Verdict {
		prepared, err := braze.Dialect{}.Prepare(platforms.Request{DeliveryID: "8fc344db-713e-4590-ab26-e82d77ba3313", URL: &url.URL{Scheme: "https", Host: "rest.iad-01.braze.com", Path: path}, Body: []byte(body)})
		if err != nil {
			t.Fatal(err)
		}
		return platformtest.Send(t, sim, braze.Dialect{}, "", prepared, func(r *http.Request) { r.Header.Set("Authorization", "Bearer k") })
	}
	for _, tc := range []struct {
		path, body string
		want       domain.Verdict
	}{
		{"/users/track", tracked, domain.Accepted},
		{"/users/track", strings.Replace(tracked, `"external_id":"cust-42","email"`, `"email_"`, 1), domain.Partial},
		{"/campaigns/trigger/send", triggered, domain.Accepted},
		{"/messages/send", direct, domain.Accepted},
		{"/transactional/v1/campaigns/9b3d/send", transactional, domain.Accepted},
		{"/transactional/v1/campaigns/9b3d/send", transactional, domain.Duplicate},
		{"/campaigns/trigger/send", `{"recipients":[{"external_user_id":"c"}]}`, domain.Permanent},
	} {
		if v := send(tc.path, tc.body); v.Kind != tc.want {
			t.Errorf("%s %s: %+v, want %s", tc.path, tc.body, v, tc.want)
		}
	}
	h.Clock.Advance(25 * time.Hour)
	if v := send("/transactional/v1/campaigns/9b3d/send", transactional); v.Kind != domain.Accepted {
		t.Errorf("the same key a day later: %+v; Braze has forgotten it by then", v)
	}
}

func TestWhatCannotBeWrittenIsDeclined(t *testing.T) {
	t.Parallel()
	h, client := newHarness(t)
	receipt, err := client.Suppress(t.Context(), []platforms.Change{
		{Key: "bounce", Addr: platforms.Address{Channel: domain.Email, Value: "b@example.test"}, Reason: platforms.HardBounce},
		{Key: "no group", Addr: platforms.Address{Channel: domain.SMS, Value: "+61400000001"}, Reason: platforms.Unsubscribed},
		{Key: "by hand", Addr: platforms.Address{Channel: domain.Email, Value: "m@example.test"}, Reason: platforms.Manual},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []platforms.Status{platforms.Declined, platforms.Declined, platforms.Acknowledged} {
		if o := receipt.Outcomes[i]; o.Status != want || want == platforms.Declined && o.Native == "" {
			t.Errorf("%s: %+v, want %s", o.Key, o, want)
		}
	}
	if got := h.Simulator.Suppressed(platformtest.Account, "email"); len(got) != 1 {
		t.Errorf("Braze suppresses %v, want the one blocked by hand", got)
	}
}

func TestComplaintsAreNotOnAnyList(t *testing.T) {
	t.Parallel()
	h, client := newHarness(t)
	if err := h.Simulator.Happen(simulator.Fact{Account: platformtest.Account, Channel: "email", Address: "c@example.test", What: simulator.Complained}); err != nil {
		t.Fatal(err)
	}
	for page, err := range client.Suppressions(t.Context(), platforms.Query{Channel: domain.Email, Full: true}) {
		if err != nil || len(page.Records) > 0 {
			t.Errorf("page = %+v, %v; want nothing", page, err)
		}
	}
	if text := strings.Join(client.Caps().Cannot, "\n"); !strings.Contains(text, "complaints cannot be listed") {
		t.Errorf("the operator is not told: %s", text)
	}
}

func TestTodayIsOnTheList(t *testing.T) {
	t.Parallel()
	h, client := newHarness(t)
	for n := range 3 {
		fact := simulator.Fact{Account: platformtest.Account, Channel: "email", Address: fmt.Sprintf("p%d@example.test", n), What: simulator.Unsubscribed, At: h.Clock.Now().Add(-time.Duration(n) * 11 * time.Hour)}
		if err := h.Simulator.Happen(fact); err != nil {
			t.Fatal(err)
		}
	}
	var got []platforms.Record
	for page, err := range client.Suppressions(t.Context(), platforms.Query{Channel: domain.Email, Since: h.Clock.Now()}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, page.Records...)
	}
	if len(got) != 3 { // since 10 o'clock is since midnight yesterday
		t.Errorf("%d records, want today's and yesterday's three", len(got))
	}
}

func TestInbound(t *testing.T) {
	t.Parallel()
	now := platformtest.NewClock().Now
	const body = `{"events":[
	  {"event_type":"users.messages.email.Unsubscribe","id":"e-1","time":1787220000,"user":{"external_user_id":"cust-42"},"properties":{"email_address":"Ada@example.test"}},
	  {"event_type":"users.messages.email.MarkAsSpam","id":"e-2","time":1787220000,"properties":{"email_address":"bob@example.test"}},
	  {"event_type":"users.messages.subscriptiongroupstatechange","id":"e-3","time":1787220000,"properties":{"to_phone_number":"+61400000001","subscription_group_id":"g","subscription_status":"Subscribed"}},
	  {"event_type":"users.messages.email.Open","id":"e-4","time":1787220000}]}`
	open, err := braze.Inbound{Now: now}.Decode(http.Header{}, []byte(body))
	if err != nil || len(open) != 3 {
		t.Fatalf("Decode = %+v, %v; want three records", open, err)
	}
	if r := open[0]; r.Addr.Value != "ada@example.test" || r.EventKey != "e-1" || r.NativeKey != "cust-42" || !r.Unauthenticated || !r.Facts[0].At.Equal(received) {
		t.Errorf("first record = %+v", r)
	}
	if r := open[1]; r.Facts[0].Reason != platforms.Complaint {
		t.Errorf("second record = %+v, want a complaint", r)
	}
	if r := open[2]; r.State != platforms.Cleared || !r.Unauthenticated || r.Scope != (platforms.Scope{Kind: platforms.Group, ID: "g"}) {
		t.Errorf("third record = %+v, want an unauthenticated resubscribe to the group", r)
	}
	in := braze.Inbound{Token: "t0ken", Now: now}
	if _, err := in.Decode(http.Header{}, []byte(body)); !errors.Is(err, platforms.ErrSignature) {
		t.Errorf("without the token: %v, want ErrSignature", err)
	}
	records, err := in.Decode(http.Header{"Authorization": {"Bearer t0ken"}}, []byte(`{"dispatch_id":"d","status":"bounced","metadata":{"external_send_id":"delivery-1","bounced_at":"2026-08-20T09:00:00Z","reason":"no such user"}}`))
	if err != nil || len(records) != 1 || records[0].DeliveryID != "delivery-1" || records[0].Unauthenticated || records[0].Facts[0].Reason != platforms.HardBounce {
		t.Errorf("postback = %+v, %v", records, err)
	}
	if _, err := in.Decode(http.Header{"Authorization": {"Bearer t0ken"}}, []byte(`x`)); !errors.Is(err, platforms.ErrInbound) {
		t.Errorf("another shape: %v, want ErrInbound", err)
	}
}
