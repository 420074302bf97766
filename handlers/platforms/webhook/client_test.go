package webhook_test

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
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/webhook"
	webhooksim "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/webhook/simulator"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func TestClient(t *testing.T) {
	t.Parallel()
	platformtest.Run(t, func(t *testing.T, clock *platformtest.Clock, opts simulator.Options) platformtest.Harness {
		opts.Accounts[0].Secret = secret
		sim, err := webhooksim.New(opts)
		if err != nil {
			t.Fatal(err)
		}
		return platformtest.Harness{
			Simulator: sim, Clock: clock, ReadPath: "/suppressions",
			Client: webhook.Client{
				HTTP: platformtest.Client(sim), Base: "https://crm.example", Token: platforms.Secret(opts.Accounts[0].Key), Signing: secret, Now: clock.Now,
			},
		}
	})
}

func TestListShowsWhatWasLifted(t *testing.T) {
	t.Parallel()
	clock := platformtest.NewClock()
	sim, err := webhooksim.New(simulator.Options{Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{simulator.Unsubscribed, simulator.Resubscribed} {
		if err := sim.Happen(simulator.Fact{Account: "demo", Channel: "email", Address: "a@example.test", What: what}); err != nil {
			t.Fatal(err)
		}
	}
	client := webhook.Client{HTTP: platformtest.Client(sim), Base: "https://crm.example", Token: "demo-key", Now: clock.Now}
	for page, err := range client.Suppressions(t.Context(), platforms.Query{Channel: domain.Email, Since: clock.Now().Add(-time.Hour)}) {
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Records) != 1 || page.Records[0].State != platforms.Cleared {
			t.Errorf("records = %+v, want one that clears", page.Records)
		}
	}
}

func sign(t *testing.T, at time.Time, id, body string) http.Header {
	t.Helper()
	out, err := webhook.Dialect{}.Prepare(platforms.Request{DeliveryID: id, At: at, Body: []byte(body), SigningSecrets: []string{secret}})
	if err != nil {
		t.Fatal(err)
	}
	return out.Header
}

func TestInbound(t *testing.T) {
	t.Parallel()
	clock := platformtest.NewClock()
	in := webhook.Inbound{Secrets: []platforms.Secret{"whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", secret}, Now: clock.Now}
	const row = `{"channel":"sms","address":"+61 400 000 001","state":"suppressed","reason":"stop_keyword","occurred_at":"2026-08-20T09:00:00Z"}`
	for name, body := range map[string]string{
		"a row":               row,
		"rows":                `{"items":[` + row + `]}`,
		"the spec's envelope": `{"type":"suppression.added","timestamp":"2026-08-20T09:00:00Z","data":` + row + `}`,
	} {
		records, err := in.Decode(sign(t, clock.Now(), "msg_1", body), []byte(body))
		if err != nil || len(records) != 1 {
			t.Errorf("%s: %+v, %v", name, records, err)
			continue
		}
		r := records[0]
		if r.Addr != (platforms.Address{Channel: domain.SMS, Value: "+61400000001"}) || r.State != platforms.Suppressed ||
			r.Facts[0].Reason != platforms.Unknown || r.Facts[0].Native != "stop_keyword" || r.EventKey != "msg_1-0" || r.Unauthenticated {
			t.Errorf("%s: %+v", name, r)
		}
	}
	good := sign(t, clock.Now(), "msg_1", row)
	for name, tc := range map[string]struct {
		header http.Header
		body   string
		want   error
	}{
		"a changed body":       {good, strings.Replace(row, "sms", "SMS", 1), platforms.ErrSignature},
		"an hour old":          {sign(t, clock.Now().Add(-time.Hour), "msg_1", row), row, platforms.ErrSignature},
		"unsigned":             {http.Header{}, row, platforms.ErrSignature},
		"signed, and no row":   {sign(t, clock.Now(), "msg_1", `{"hello":1}`), `{"hello":1}`, platforms.ErrInbound},
		"signed, and not JSON": {sign(t, clock.Now(), "msg_1", `hello`), `hello`, platforms.ErrInbound},
	} {
		if _, err := in.Decode(tc.header, []byte(tc.body)); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}
