package klaviyo_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/klaviyo"
)

const rewardEarned = `{"data":{"type":"event","attributes":{
  "time":"2026-08-20T10:00:00Z","value":12.5,"value_currency":"AUD",
  "properties":{"reward_amount":12.5,"reward_balance":40,"reward_expires_at":"2026-12-31"},
  "metric":{"data":{"type":"metric","attributes":{"name":"Reward Earned"}}},
  "profile":{"data":{"type":"profile","attributes":{"email":"ada@example.test","first_name":"Ada"}}}}}}`

// seedBody is the example of the comms guide, rendered: Klaviyo's Track call, retired in 2024.
const seedBody = `{"token":"PUBKEY","event":"Reward Earned",
  "customer_properties":{"$email":"ada@example.test","$first_name":"Ada","tier":"gold"},
  "properties":{"reward_amount":12.5,"$event_id":"r1"}}`

var received = time.Date(2026, 8, 20, 10, 0, 0, 0, time.UTC)

func TestValidate(t *testing.T) {
	t.Parallel()
	with := func(old, replacement string) string { return strings.Replace(rewardEarned, old, replacement, 1) }
	for name, tc := range map[string]struct {
		body    string
		want    error    // nil: accepted
		pointer []string // places that the error names
	}{
		"a track event": {body: rewardEarned},
		"an identify":   {body: `{"data":{"type":"profile","attributes":{"email":"ada@example.test","properties":{"tier":"gold"}}}}`},
		"a resource this package has no eyes for": {body: `{"data":{"type":"data-source-record-create-job","attributes":{}}}`},
		"nothing at all": {body: " ", want: platforms.ErrBody, pointer: []string{""}},
		"half a body":    {body: `{"data":`, want: platforms.ErrBody, pointer: []string{"/data"}},
		"a field overwritten by an injection": {
			body: with(`"first_name":"Ada"`, `"first_name":"x","email":"eve@example.test"`), want: platforms.ErrBody,
			pointer: []string{"/data/attributes/profile/data/attributes/email"},
		},
		"an email that did not resolve": {
			body: with("ada@example.test", ""), want: platforms.ErrBody,
			pointer: []string{"/data/attributes/profile/data/attributes", "/data/attributes/profile/data/attributes/email"},
		},
		"a number in quotes": {body: with(`"value":12.5`, `"value":"12.5"`), want: platforms.ErrBody, pointer: []string{"/data/attributes/value"}},
		"no properties": {
			body: with(`"properties":{"reward_amount":12.5,"reward_balance":40,"reward_expires_at":"2026-12-31"},`, ""), want: platforms.ErrBody,
			pointer: []string{"/data/attributes/properties"},
		},
		"a metric name of 128 characters": {
			body: with("Reward Earned", strings.Repeat("é", 128)), want: platforms.ErrBody,
			pointer: []string{"/data/attributes/metric/data/attributes/name"},
		},
		"a metric name of 127 characters": {body: with("Reward Earned", strings.Repeat("é", 127))},
		"a time without zone":             {body: with("2026-08-20T10:00:00Z", "2026-08-20 10:00:00"), want: platforms.ErrBody, pointer: []string{"/data/attributes/time"}},
		"a national phone number": {
			body: with(`"email":"ada@example.test"`, `"phone_number":"0400 000 001"`), want: platforms.ErrBody,
			pointer: []string{"/data/attributes/profile/data/attributes/phone_number"},
		},
		"more than 5 MB": {
			body: with("2026-12-31", strings.Repeat("x", 5<<20)), want: platforms.ErrBody,
			pointer: []string{"", "/data/attributes/properties/reward_expires_at"},
		},
		"the retired Track call": {body: seedBody, want: platforms.ErrRetired, pointer: []string{
			"", "/token", "/event",
			"/customer_properties/$email", "/customer_properties/$first_name", "/customer_properties/tier", "/properties/$event_id", "/properties/reward_amount",
		}},
		"a subscribe that wipes complaints":  {body: `{"data":{"type":"profile-subscription-bulk-create-job","attributes":{}}}`, want: platforms.ErrDangerous, pointer: []string{"/data"}},
		"a suppression lifted by a template": {body: `{"data":{"type":"profile-suppression-bulk-delete-job","attributes":{}}}`, want: platforms.ErrDangerous, pointer: []string{"/data"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := klaviyo.Dialect{}.Validate([]byte(tc.body))
			if !errors.Is(err, tc.want) {
				t.Fatalf("Validate = %v, want %v", err, tc.want)
			}
			var pointers []string
			var body *platforms.BodyError
			if errors.As(err, &body) {
				for _, p := range body.Problems {
					pointers = append(pointers, p.Pointer)
				}
			}
			slices.Sort(pointers)
			if want := slices.Sorted(slices.Values(tc.pointer)); !slices.Equal(pointers, want) {
				t.Errorf("problems at %q, want %q\n%v", pointers, want, err)
			}
		})
	}
}

func TestValidateTellsLegacyFieldsTheirNewPlace(t *testing.T) {
	t.Parallel()
	err := klaviyo.Dialect{}.Validate([]byte(seedBody))
	for _, want := range []string{
		"https://a.klaviyo.com/api/events",
		"/event: is now data.attributes.metric.data.attributes.name",
		"/customer_properties/tier: is now data.attributes.profile.data.attributes.properties.tier",
		"/properties/$event_id: is now data.attributes.unique_id",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
}

func request(body string) platforms.Request {
	u, _ := url.Parse("https://a.klaviyo.com/api/events")
	return platforms.Request{DeliveryID: "8fc344db-713e-4590-ab26-e82d77ba3313", At: received, Method: http.MethodPost, URL: u, Header: http.Header{}, Body: []byte(body)}
}

func TestPrepare(t *testing.T) {
	t.Parallel()
	const id = "8fc344db-713e-4590-ab26-e82d77ba3313"
	own := strings.Replace(rewardEarned, `"value":12.5`, `"unique_id":"reward-7"`, 1)
	for name, tc := range map[string]struct{ body, at, want string }{
		"an event without a key gets the delivery's": {body: rewardEarned, at: "/data/attributes/unique_id", want: id},
		"the author's own key stays":                 {body: own, at: "/data/attributes/unique_id", want: "reward-7"},
		"a key that rendered empty is replaced":      {body: strings.Replace(own, "reward-7", " ", 1), at: "/data/attributes/unique_id", want: id},
		"a null key is replaced":                     {body: strings.Replace(own, `"reward-7"`, "null", 1), at: "/data/attributes/unique_id", want: id},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := request(tc.body)
			out, err := klaviyo.Dialect{}.Prepare(req)
			if err != nil {
				t.Fatal(err)
			}
			var doc struct {
				Data struct {
					Attributes struct {
						UniqueID string `json:"unique_id"`
					}
				}
			}
			if err := json.Unmarshal(out.Body, &doc); err != nil || doc.Data.Attributes.UniqueID != tc.want {
				t.Errorf("unique_id = %q (%v), want %q", doc.Data.Attributes.UniqueID, err, tc.want)
			}
			if want := (platforms.Key{Dedupe: platforms.DedupeDrops, In: "body " + tc.at, Value: tc.want}); out.Key != want {
				t.Errorf("Key = %+v, want %+v", out.Key, want)
			}
			if got := out.Header.Get("revision"); got != klaviyo.Revision {
				t.Errorf("revision = %q, want %q", got, klaviyo.Revision)
			}
			if string(req.Body) != tc.body || len(req.Header) != 0 {
				t.Error("Prepare changed the request it was given")
			}
		})
	}
}

// Preparing adds the key and nothing else, and preparing twice is preparing once.
func TestPrepareKeepsEverythingElse(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		properties := rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "properties")
		event := map[string]any{"data": map[string]any{"type": "event", "attributes": map[string]any{"properties": properties}}}
		body, err := json.Marshal(event)
		if err != nil {
			t.Fatal(err)
		}
		once, err := klaviyo.Dialect{}.Prepare(request(string(body)))
		if err != nil {
			t.Fatal(err)
		}
		twice, err := klaviyo.Dialect{}.Prepare(once)
		if err != nil {
			t.Fatal(err)
		}
		if string(once.Body) != string(twice.Body) {
			t.Fatalf("prepared twice: %s, once: %s", twice.Body, once.Body)
		}
		var got map[string]any
		if err := json.Unmarshal(once.Body, &got); err != nil {
			t.Fatal(err)
		}
		delete(got["data"].(map[string]any)["attributes"].(map[string]any), "unique_id")
		back, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if string(back) != string(body) {
			t.Fatalf("Prepare changed %s into %s", body, back)
		}
	})
}

func TestClassify(t *testing.T) {
	t.Parallel()
	problem := func(code, detail, more string) string {
		return `{"errors":[{"id":"e1","code":"` + code + `","title":"t","detail":"` + detail + `"` + more + `}]}`
	}
	for name, tc := range map[string]struct {
		status  int
		header  http.Header
		body    string
		kind    domain.Verdict
		retry   time.Duration // from the answer's arrival; 0: none
		disable bool
		says    string // part of the reason
	}{
		"queued":                      {status: 202, kind: domain.Accepted},
		"profile made":                {status: 201, kind: domain.Accepted, body: `{"data":{}}`},
		"bad email":                   {status: 400, kind: domain.Permanent, body: problem("invalid", "bad", `,"source":{"pointer":"/data/attributes/email"}`), says: "(at /data/attributes/email)"},
		"bad key":                     {status: 401, kind: domain.AuthExpired, says: "private key"},
		"scope missing":               {status: 403, kind: domain.AuthExpired, says: "scope"},
		"unknown revision":            {status: 404, kind: domain.Permanent, body: problem("not_found", "No valid revisions found for method", ""), says: klaviyo.Revision},
		"profile exists":              {status: 409, kind: domain.Permanent, body: problem("duplicate_profile", "exists", `,"meta":{"duplicate_profile_id":"01G"}`), says: "profile-import"},
		"retired call":                {status: 410, kind: domain.Permanent, disable: true, says: "/api/events"},
		"throttled, with Retry-After": {status: 429, kind: domain.RetryLater, header: http.Header{"Retry-After": {"7"}}, retry: 7 * time.Second},
		"throttled, window's rest":    {status: 429, kind: domain.RetryLater, header: http.Header{"Ratelimit-Reset": {"42"}}, retry: 42 * time.Second},
		"throttled for a year":        {status: 429, kind: domain.RetryLater, header: http.Header{"Retry-After": {"31536000"}}, retry: platforms.MaxRetryAfter},
		"throttled until yesterday":   {status: 503, kind: domain.RetryLater, header: http.Header{"Retry-After": {"Wed, 19 Aug 2026 10:00:00 GMT"}}, retry: -1},
		"a proxy's page":              {status: 502, kind: domain.RetryLater, body: "<html>"},
		"a timeout at the edge":       {status: 524, kind: domain.RetryLater},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := klaviyo.Dialect{}.Classify(tc.status, tc.header, []byte(tc.body), received)
			if v.Kind != tc.kind || v.Disable != tc.disable || !strings.Contains(v.Reason+": "+v.Said, tc.says) || v.Reason == "" {
				t.Errorf("Classify = %+v, want %s, disable %v, reason with %q", v, tc.kind, tc.disable, tc.says)
			}
			var want time.Time
			if tc.retry != 0 {
				want = received.Add(max(tc.retry, 0))
			}
			if !v.RetryAt.Equal(want) {
				t.Errorf("RetryAt = %v, want %v", v.RetryAt, want)
			}
		})
	}
}

func TestClassifyReadsTheQuota(t *testing.T) {
	t.Parallel()
	v := klaviyo.Dialect{}.Classify(202, http.Header{
		"Ratelimit-Limit": {"350, 350;w=1, 3500;w=60"}, "Ratelimit-Remaining": {"349"}, "Ratelimit-Reset": {"12"},
	}, nil, received)
	want := platforms.RateLimit{Limit: 350, Remaining: 349, Reset: received.Add(12 * time.Second), Known: true}
	if v.Limit != want {
		t.Errorf("Limit = %+v, want %+v", v.Limit, want)
	}
}

// Whatever a template renders to, a body is accepted or refused with a reason, and an accepted one can be prepared.
func FuzzValidate(f *testing.F) {
	for _, body := range []string{rewardEarned, seedBody, `{"data":{"type":"event"}}`, `[]`, `{"data":{"type":"event-bulk-create-job","attributes":{"events-bulk-create":{"data":[{}]}}}}`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if err := (klaviyo.Dialect{}).Validate(body); err != nil {
			if !errors.Is(err, platforms.ErrBody) || err.Error() == "" {
				t.Fatalf("Validate = %v, want ErrBody", err)
			}
			return
		}
		out, err := klaviyo.Dialect{}.Prepare(request(string(body)))
		if err != nil {
			t.Fatalf("Prepare refuses what Validate accepts: %v", err)
		}
		if err := (klaviyo.Dialect{}).Validate(out.Body); err != nil {
			t.Fatalf("prepared body is refused: %v", err)
		}
	})
}
