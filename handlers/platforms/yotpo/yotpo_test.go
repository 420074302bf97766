package yotpo_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/platformtest"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/yotpo"
	yotposim "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/yotpo/simulator"
)

func TestClient(t *testing.T) {
	t.Parallel()
	platformtest.Run(t, func(t *testing.T, clock *platformtest.Clock, opts simulator.Options) platformtest.Harness {
		sim, err := yotposim.New(opts)
		if err != nil {
			t.Fatal(err)
		}
		return platformtest.Harness{
			Simulator: sim, Clock: clock,
			Client: yotpo.NewClient(platformtest.Client(sim), yotpo.Base, opts.Accounts[0].Key, platforms.Secret(opts.Accounts[0].Secret), clock.Now),
		}
	})
}

func TestClosedListIsNoSource(t *testing.T) {
	t.Parallel()
	var client any = yotpo.NewClient(nil, "", "", "", nil)
	if _, ok := client.(platforms.Source); ok {
		t.Error("Yotpo's client says that it can read a list; there is none")
	}
	if _, ok := client.(platforms.Resubscriber); ok {
		t.Error("Yotpo's client says that it can resubscribe")
	}
}

func TestTokenIsRenewedAfterTwoWeeks(t *testing.T) {
	t.Parallel()
	clock := platformtest.NewClock()
	sim, err := yotposim.New(simulator.Options{Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	client := yotpo.NewClient(platformtest.Client(sim), yotpo.Base, "demo-key", "demo-secret", clock.Now)
	change := []platforms.Change{{Key: "1", Addr: platforms.Address{Channel: domain.SMS, Value: "+61400000001"}, Reason: platforms.Unsubscribed}}
	for range 3 {
		if receipt, err := client.Suppress(t.Context(), change); err != nil || receipt.Outcomes[0].Status != platforms.Applied {
			t.Fatalf("Suppress = %+v, %v", receipt, err)
		}
		clock.Advance(8 * 24 * time.Hour)
	}
	tokens := 0
	for _, r := range sim.Requests() {
		if strings.HasSuffix(r.URL, "/access_tokens") {
			tokens++
		}
	}
	if tokens != 2 {
		t.Errorf("%d tokens were asked for in 16 days, want 2", tokens)
	}
	sim.Break(simulator.Fault{Path: "/core/v3/stores/demo-key/subscribers", Status: http.StatusUnauthorized}) // revoked there
	if receipt, err := client.Suppress(t.Context(), change); err != nil || receipt.Outcomes[0].Status != platforms.Applied {
		t.Errorf("after a token was revoked: %+v, %v; want a new one and a second try", receipt, err)
	}
}

func TestEmailOptOutCarriesItsDateAndNeedsAPhone(t *testing.T) {
	t.Parallel()
	clock := platformtest.NewClock()
	sim, err := yotposim.New(simulator.Options{Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	client := yotpo.NewClient(platformtest.Client(sim), yotpo.Base, "demo-key", "demo-secret", clock.Now)
	receipt, err := client.Suppress(t.Context(), []platforms.Change{
		{Key: "without", Addr: platforms.Address{Channel: domain.Email, Value: "a@example.test"}, Reason: platforms.Unsubscribed},
		{Key: "with", Addr: platforms.Address{Channel: domain.Email, Value: "b@example.test"}, NativeKey: "+61400000002", Reason: platforms.Unsubscribed, At: clock.Now().Add(-time.Hour)},
	})
	if err != nil || receipt.Outcomes[0].Status != platforms.Declined || receipt.Outcomes[1].Status != platforms.Applied {
		t.Fatalf("Suppress = %+v, %v; want the first declined, the second applied", receipt, err)
	}
	requests := sim.Requests()
	if last := requests[len(requests)-1].Body; !strings.Contains(last, `"suppression_timestamp":"2026-08-20T09:00:00.000Z"`) {
		t.Errorf("the opt-out's date is not in %s", last)
	}
}

const event = `{"source":"omneo","action_name":"reward_earned","occurred_at":"2026-08-20T10:00:00Z","customer":{"phone_number":"+15005550006"},"properties":{"reward_amount":12.5}}`

func TestValidate(t *testing.T) {
	t.Parallel()
	with := func(old, replacement string) string { return strings.Replace(event, old, replacement, 1) }
	for name, tc := range map[string]struct {
		body    string
		want    error
		pointer string
	}{
		"an event":              {body: event},
		"the original form":     {body: "from=shop&to=%2B61400000001&message=hi", want: platforms.ErrRetired},
		"a subscribe":           {body: `{"customer":{"phone":"+15005550006"},"channels":{"sms":{"consent":"subscribed"}}}`, want: platforms.ErrDangerous, pointer: "/channels"},
		"both names":            {body: with(`"phone_number"`, `"email":"a@example.test","phone_number"`), want: platforms.ErrBody, pointer: "/customer"},
		"a number that is none": {body: with("+15005550006", "0400"), want: platforms.ErrBody, pointer: "/customer/phone_number"},
		"words for a name":      {body: with("reward_earned", "Reward Earned"), want: platforms.ErrBody, pointer: "/action_name"},
		"a null":                {body: with("12.5", "null"), want: platforms.ErrBody, pointer: "/properties/reward_amount"},
		"a nested property":     {body: with("12.5", "{}"), want: platforms.ErrBody, pointer: "/properties/reward_amount"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := yotpo.Dialect{}.Validate([]byte(tc.body))
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

func TestRepeatedEventOverwrites(t *testing.T) {
	t.Parallel()
	clock := platformtest.NewClock()
	sim, err := yotposim.New(simulator.Options{Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	client := yotpo.NewClient(platformtest.Client(sim), yotpo.Base, "demo-key", "demo-secret", clock.Now)
	if _, err := client.Suppress(t.Context(), []platforms.Change{{Addr: platforms.Address{Channel: domain.SMS, Value: "+61400000001"}}}); err != nil {
		t.Fatal(err) // makes the token
	}
	prepared, err := yotpo.Dialect{}.Prepare(platforms.Request{DeliveryID: "d-1", Body: []byte(event)})
	if err != nil || prepared.Key.Dedupe.SafeToRepeat() {
		t.Fatalf("Prepare = %+v, %v; an overwrite is not safe to repeat", prepared.Key, err)
	}
	for range 2 {
		v := platformtest.Send(t, sim, yotpo.Dialect{}, yotpo.Base+"/messaging/v3/stores/demo-key/customers/events", prepared, func(r *http.Request) { r.Header.Set("X-Yotpo-Token", "token-demo-1") })
		if v.Kind != domain.Accepted {
			t.Fatalf("verdict = %+v", v)
		}
	}
	if e := sim.Events("demo")["d-1"]; e.Writes != 2 {
		t.Errorf("event = %+v, want written twice", e)
	}
	if v := (yotpo.Dialect{}).Classify(404, nil, nil, clock.Now()); !v.Disable || !strings.Contains(v.Reason, "closed") {
		t.Errorf("404 = %+v, want the target disabled and the reason", v)
	}
}

func TestInbound(t *testing.T) {
	t.Parallel()
	in := yotpo.Inbound{Now: platformtest.NewClock().Now}
	header := func(event string) http.Header {
		return http.Header{"X-Yotpo-Webhooks-Event-Type": {event}, "Webhookmessageid": {"m-1"}}
	}
	const body = `{"phone":"+61400000001","external_id":42,"timestamp":1787220000000}`
	for event, want := range map[string]platforms.State{
		"communication.sms.unsubscribed.v1": platforms.Suppressed, "communication.sms.unsubscribe": platforms.Suppressed, "communication.sms.subscribed.v1": platforms.Cleared,
	} {
		records, err := in.Decode(header(event), []byte(body))
		if err != nil || len(records) != 1 || records[0].State != want || !records[0].Unauthenticated || records[0].EventKey != "m-1" || !records[0].Facts[0].At.Equal(in.Now()) {
			t.Errorf("%s: %+v, %v", event, records, err)
		}
	}
	if records, err := in.Decode(header("communication.sms.sent.v1"), []byte(body)); err != nil || len(records) > 0 {
		t.Errorf("a sent message: %+v, %v; want nothing", records, err)
	}
	if _, err := in.Decode(header("communication.sms.unsubscribed.v1"), []byte(`[]`)); !errors.Is(err, platforms.ErrInbound) {
		t.Errorf("another shape: %v, want ErrInbound", err)
	}
}
