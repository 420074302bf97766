package klaviyo_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/klaviyo"
	klaviyosim "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/klaviyo/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/platformtest"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
)

// harness holds every call of the client and every answer of the simulator against Klaviyo's OpenAPI.
func harness(t *testing.T, clock *platformtest.Clock, opts simulator.Options) platformtest.Harness {
	t.Helper()
	sim, err := klaviyosim.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return platformtest.Harness{
		Simulator: sim, Clock: clock, ReadPath: "/api/profiles",
		Client: klaviyo.Client{
			HTTP: &http.Client{Transport: newContract(t, sim, true)}, Base: klaviyo.Base, Key: platforms.Secret(opts.Accounts[0].Key), Now: clock.Now,
		},
	}
}

func TestClient(t *testing.T) {
	t.Parallel()
	platformtest.Run(t, harness)
}

func newHarness(t *testing.T) (platformtest.Harness, klaviyo.Client, *klaviyosim.Simulator) {
	t.Helper()
	clock := platformtest.NewClock()
	h := harness(t, clock, simulator.Options{Now: clock.Now, Accounts: []simulator.Account{{Name: platformtest.Account, Key: "pk"}}})
	return h, h.Client.(klaviyo.Client), h.Simulator.(*klaviyosim.Simulator)
}

func TestBouncesGoThroughASuppressJobAndOptOutsThroughUnsubscribe(t *testing.T) {
	t.Parallel()
	_, client, sim := newHarness(t)
	receipt, err := client.Suppress(t.Context(), []platforms.Change{
		{Key: "bounce", Addr: platforms.Address{Channel: domain.Email, Value: "b@example.test"}, Reason: platforms.HardBounce},
		{Key: "opt-out", Addr: platforms.Address{Channel: domain.Email, Value: "o@example.test"}, Reason: platforms.Unsubscribed},
		{Key: "dead number", Addr: platforms.Address{Channel: domain.SMS, Value: "+61400000001"}, Reason: platforms.HardBounce},
	})
	if err != nil {
		t.Fatal(err)
	}
	var statuses []platforms.Status
	for _, o := range receipt.Outcomes {
		statuses = append(statuses, o.Status)
	}
	if want := []platforms.Status{platforms.InProgress, platforms.Acknowledged, platforms.Declined}; !slices.Equal(statuses, want) {
		t.Errorf("statuses = %v, want %v", statuses, want)
	}
	if report, err := client.Job(t.Context(), receipt.Job); err != nil || !report.Done || report.Completed != 1 {
		t.Errorf("Job = %+v, %v; want done, one completed", report, err)
	}
	want := map[string]string{"b@example.test": "USER_SUPPRESSED", "o@example.test": "UNSUBSCRIBE"}
	if got := sim.Suppressed(platformtest.Account, "email"); len(got) != 2 || got["b@example.test"] != want["b@example.test"] || got["o@example.test"] != want["o@example.test"] {
		t.Errorf("Klaviyo suppresses %v, want %v", got, want)
	}
}

func TestOneBadAddressDoesNotKeepTheOthersOut(t *testing.T) {
	t.Parallel()
	clock := platformtest.NewClock()
	sim, err := klaviyosim.New(simulator.Options{Now: clock.Now, Accounts: []simulator.Account{{Name: "shop", Key: "pk"}}})
	if err != nil {
		t.Fatal(err)
	}
	client := klaviyo.Client{HTTP: platformtest.Client(sim), Base: klaviyo.Base, Key: "pk", Now: clock.Now}
	receipt, err := client.Suppress(t.Context(), []platforms.Change{
		{Key: "1", Addr: platforms.Address{Channel: domain.Email, Value: "a@example.test"}, Reason: platforms.Unsubscribed},
		{Key: "2", Addr: platforms.Address{Channel: domain.Email, Value: "not an address"}, Reason: platforms.Unsubscribed},
		{Key: "3", Addr: platforms.Address{Channel: domain.Email, Value: "c@example.test"}, Reason: platforms.Unsubscribed},
	})
	if err != nil {
		t.Fatal(err)
	}
	if s := receipt.Outcomes; s[0].Status != platforms.Acknowledged || s[1].Status != platforms.Declined || s[1].Native == "" || s[2].Status != platforms.Acknowledged {
		t.Errorf("outcomes = %+v, want the second alone declined, in Klaviyo's words", s)
	}
	if got := sim.Suppressed("shop", "email"); len(got) != 2 {
		t.Errorf("Klaviyo suppresses %v, want two", got)
	}
}

func TestListSuppressionIsARecordOfItsOwn(t *testing.T) {
	t.Parallel()
	h, client, _ := newHarness(t)
	if err := h.Simulator.Happen(simulator.Fact{Account: platformtest.Account, Channel: "email", Address: "a@example.test", What: simulator.Unsubscribed, List: "Y6nRLr"}); err != nil {
		t.Fatal(err)
	}
	for _, q := range []platforms.Query{{Channel: domain.Email, Full: true}, {Channel: domain.Email, Since: h.Clock.Now().Add(-time.Hour)}} {
		var lists, global []platforms.Record
		for page, err := range client.Suppressions(t.Context(), q) {
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page.Records {
				if r.Scope == (platforms.Scope{Kind: platforms.List, ID: "Y6nRLr"}) {
					lists = append(lists, r)
				} else if r.State == platforms.Suppressed {
					global = append(global, r)
				}
			}
		}
		if len(lists) != 1 || len(global) != 0 {
			t.Errorf("%+v: %d on the list, %d globally; want one and none", q, len(lists), len(global))
		}
	}
}

// The link to the next page is the answer's word: our key follows its cursor and never its host.
func TestNextLinkCannotLeadTheKeyAway(t *testing.T) {
	t.Parallel()
	var hosts []string
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hosts = append(hosts, r.URL.Host)
		next := `"https://evil.example/api/profiles?page%5Bcursor%5D=x"`
		if r.URL.Query().Get("page[cursor]") != "" {
			next = "null"
		}
		_, _ = w.Write([]byte(`{"data":[],"links":{"next":` + next + `}}`))
	})
	client := klaviyo.Client{HTTP: platformtest.Client(serve), Base: klaviyo.Base, Key: "pk", Now: platformtest.NewClock().Now}
	for _, err := range client.Suppressions(t.Context(), platforms.Query{Channel: domain.SMS, Full: true}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(hosts, []string{"a.klaviyo.com", "a.klaviyo.com"}) {
		t.Errorf("asked %v, want a.klaviyo.com twice", hosts)
	}
}

const unsubscribeHook = `{"data":[
  {"topic":"event:klaviyo.unsubscribed_from_email_marketing","external_id":"e-1","payload":{"data":{"attributes":{"datetime":"2026-08-20T09:59:00+00:00"},
    "relationships":{"profile":{"data":{"type":"profile","id":"01G"}}}},"included":[{"type":"profile","id":"01G","attributes":{"email":"Ada@Example.test "}}]}},
  {"topic":"event:klaviyo.bounced_email","external_id":"e-2","payload":{"data":{"attributes":{"event_properties":{"Bounce Type":"Soft"}}}}},
  {"topic":"event:klaviyo.opened_email","external_id":"e-3","payload":{}}],
  "meta":{"timestamp":"2026-08-20T10:00:00+00:00"}}`

func signed(secret, body, stamp string) http.Header {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body + stamp))
	h := http.Header{}
	h.Set("Klaviyo-Signature", hex.EncodeToString(mac.Sum(nil)))
	h.Set("Klaviyo-Timestamp", stamp)
	return h
}

func TestInbound(t *testing.T) {
	t.Parallel()
	clock := platformtest.NewClock()
	in := klaviyo.Inbound{Secret: "s3cret", Now: clock.Now}
	stamp := clock.Now().Format(http.TimeFormat)
	records, err := in.Decode(signed("s3cret", unsubscribeHook, stamp), []byte(unsubscribeHook))
	if err != nil {
		t.Fatal(err)
	}
	if len(records) != 2 {
		t.Fatalf("records = %+v, want two", records)
	}
	r := records[0]
	if r.Addr != (platforms.Address{Channel: domain.Email, Value: "ada@example.test"}) || r.State != platforms.Suppressed || r.EventKey != "e-1" ||
		r.NativeKey != "01G" || r.Facts[0].Reason != platforms.Unsubscribed || r.Unauthenticated {
		t.Errorf("first record = %+v", r)
	}
	if records[1].Facts[0].Reason != platforms.SoftBounce {
		t.Errorf("second record = %+v, want a soft bounce", records[1])
	}
	for name, tc := range map[string]struct {
		header http.Header
		body   string
	}{
		"another secret":      {signed("other", unsubscribeHook, stamp), unsubscribeHook},
		"a changed body":      {signed("s3cret", unsubscribeHook, stamp), strings.Replace(unsubscribeHook, "e-1", "e-9", 1)},
		"an old one replayed": {signed("s3cret", unsubscribeHook, "Thu, 20 Aug 2026 09:00:00 GMT"), unsubscribeHook},
		"no signature":        {http.Header{}, unsubscribeHook},
		"a date that is none": {signed("s3cret", unsubscribeHook, "now"), unsubscribeHook},
	} {
		if _, err := in.Decode(tc.header, []byte(tc.body)); !errors.Is(err, platforms.ErrSignature) {
			t.Errorf("%s: %v, want ErrSignature", name, err)
		}
	}
	if _, err := (klaviyo.Inbound{Now: clock.Now}).Decode(signed("", "{}", stamp), []byte("{}")); !errors.Is(err, platforms.ErrSignature) {
		t.Errorf("without a secret: %v, want ErrSignature", err)
	}
	if _, err := in.Decode(signed("s3cret", "[]", stamp), []byte("[]")); !errors.Is(err, platforms.ErrInbound) {
		t.Errorf("another shape: %v, want ErrInbound", err)
	}
}
