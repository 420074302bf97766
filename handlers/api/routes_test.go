package api

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

const targetBody = `{"name":"Klaviyo: Reward","platform":"klaviyo","url":"https://a.klaviyo.com/api/events",
	"headers":{"Authorization":"Klaviyo-API-Key {{ secret('klaviyo_private_key') }}"},
	"body":"{\"value\": {{ reward.amount }}, \"name\": \"{{ profile.first_name }}\"}",
	"consent":{"channel":"email","purpose":"promo"},"retry":{"max_attempts":3,"timeout":"5s"},"limits":{"rate":"50/s"},
	"condition":{">":[{"var":"reward.amount"},5]},"reason":"first version"}`

func TestATargetFromItsFirstVersionToItsLast(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	const path = "/v1/targets/reward"
	problem(t, h.call("operator", "GET", path, ""), http.StatusNotFound, "not-found")
	problem(t, h.call("operator", "DELETE", path, ""), http.StatusNotFound, "not-found")
	problem(t, h.call("operator", "POST", path+"/disable", ""), http.StatusNotFound, "not-found")
	problem(t, h.call("operator", "GET", path+"/versions", ""), http.StatusNotFound, "not-found")
	problem(t, h.call("operator", "PUT", path, targetBody, "If-Match", `"1"`), http.StatusPreconditionFailed, "version-mismatch")

	w := h.call("operator", "PUT", path, targetBody, "If-None-Match", "*")
	first := want[Target](t, w, http.StatusCreated)
	if w.Header().Get("ETag") != `"1"` || w.Header().Get("Location") != path {
		t.Errorf("headers = %v", w.Header())
	}
	if first.Handle != "reward" || first.Version != 1 || first.State != "enabled" || first.ChangedBy != "the-operator" || *first.Reason != "first version" ||
		first.Method != "POST" || first.Consent.Mode != domain.Enforce || first.Limits.Rate.Count != 50 || time.Duration(first.Retry.Timeout) != 5*time.Second {
		t.Errorf("created %+v", first)
	}
	if got := h.call("operator", "GET", path, "").Body.String(); got != w.Body.String() {
		t.Errorf("GET = %s, want what PUT answered: %s", got, w.Body)
	}

	// What is already so, and what GET answered, records nothing.
	for name, body := range map[string]string{"the same": targetBody, "what GET answers": w.Body.String()} {
		again := h.call("operator", "PUT", path, body)
		if got := want[Target](t, again, http.StatusOK); got.Version != 1 || again.Header().Get("ETag") != `"1"` {
			t.Errorf("%s again = version %d", name, got.Version)
		}
	}
	problem(t, h.call("operator", "PUT", path, targetBody, "If-None-Match", "*"), http.StatusPreconditionFailed, "version-mismatch")

	second := strings.Replace(targetBody, "50/s", "750/m", 1)
	if got := want[Target](t, h.call("operator", "PUT", path, second, "If-Match", `"0", "1"`), http.StatusOK); got.Version != 2 {
		t.Errorf("changed to version %d, want 2", got.Version)
	}
	stale := h.call("operator", "PUT", path, targetBody, "If-Match", `"1"`)
	problem(t, stale, http.StatusPreconditionFailed, "version-mismatch")
	if stale.Header().Get("ETag") != `"2"` {
		t.Errorf("a failed Precondition names ETag %q, want the one that holds", stale.Header().Get("ETag"))
	}
	problem(t, h.call("operator", "PUT", path, targetBody, "If-Match", `W/"2"`), http.StatusPreconditionFailed, "version-mismatch")

	disabled := h.call("operator", "POST", path+"/disable", `{"reason":"410 Gone"}`)
	if got := want[Target](t, disabled, http.StatusOK); got.State != "disabled" || got.Version != 2 || got.Revision != 3 || *got.Reason != "410 Gone" || disabled.Header().Get("ETag") != `"3"` {
		t.Errorf("disabled = %s", disabled.Body)
	}
	if got := want[Target](t, h.call("operator", "POST", path+"/disable", ""), http.StatusOK); got.Revision != 3 {
		t.Errorf("disabled twice = revision %d", got.Revision)
	}
	if got := want[Target](t, h.call("operator", "POST", path+"/enable", ""), http.StatusOK); got.State != "enabled" || got.Revision != 4 || got.Reason != nil {
		t.Errorf("enabled = %+v", got)
	}
	h.call("operator", "POST", path+"/disable", "")
	if got := want[Target](t, h.call("operator", "PUT", path, second), http.StatusOK); got.State != "enabled" || got.Version != 6 {
		t.Errorf("a disabled target that is put again = %+v, want it to send again", got)
	}

	if w := h.call("operator", "DELETE", path+"?reason=no+longer", "", "If-Match", `"6"`); w.Code != http.StatusNoContent || w.Body.Len() != 0 {
		t.Errorf("DELETE = %d %s", w.Code, w.Body)
	}
	problem(t, h.call("operator", "GET", path, ""), http.StatusNotFound, "not-found")
	versions := want[Page[Target]](t, h.call("operator", "GET", path+"/versions", ""), http.StatusOK)
	if len(versions.Items) != 3 || versions.Items[0].Version != 6 || versions.Items[2].Version != 1 || versions.Next != nil {
		t.Errorf("versions = %+v", versions)
	}
	if got := want[Target](t, h.call("operator", "PUT", path, targetBody), http.StatusCreated); got.Version != 8 {
		t.Errorf("created again as version %d, want 8", got.Version)
	}
}

func TestTargetsThatAreRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	with := func(old, replacement string) string {
		if !strings.Contains(targetBody, old) {
			t.Fatalf("%q is not in the body", old)
		}
		return strings.Replace(targetBody, old, replacement, 1)
	}
	t.Run("refused", func(t *testing.T) {
		for name, tc := range map[string]struct {
			body         string
			pointer      string
			line, column int
		}{
			"a URL that is not http":            {with("https://", "ftp://"), "/url", 0, 0},
			"a URL with the host from outside":  {with("https://a.klaviyo.com", "{{ profile.url }}"), "/url", 0, 0},
			"a template that does not compile":  {with(`\"value\": {{ reward.amount }}`, `\"value\":\n  {{ reward. }}`), "/body", 2, 14},
			"a filter that there is not":        {with(`reward.amount }}`, `reward.amount|sparkle }}`), "/body", 1, 28},
			"a field too many":                  {with(`"name"`, `"nam"`), "/nam", 0, 0},
			"a credential in plain text":        {with(`Klaviyo-API-Key {{ secret('klaviyo_private_key') }}`, "sk_live_17"), "/headers/Authorization", 0, 0},
			"another handle than the path's":    {with(`"name"`, `"handle":"other","name"`), "/handle", 0, 0},
			"a condition that is no JSON Logic": {with(`{">":[{"var":"reward.amount"},5]}`, `{"sparkle":1}`), "/condition", 0, 0},
			"a timeout of no time":              {with(`"5s"`, `"soon"`), "/retry/timeout", 0, 0},
			"a consent rule of no channel":      {with(`"email"`, `"fax"`), "/consent/channel", 0, 0},
			"a list":                            {`[]`, "", 0, 0},
			"null":                              {`null`, "", 0, 0},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				p := problem(t, h.call("operator", "PUT", "/v1/targets/reward", tc.body), http.StatusUnprocessableEntity, "invalid")
				if len(p.Errors) != 1 || p.Errors[0].Pointer != tc.pointer || p.Errors[0].Line != tc.line || p.Errors[0].Column != tc.column {
					t.Errorf("errors = %+v, want %s at %d:%d", p.Errors, tc.pointer, tc.line, tc.column)
				}
			})
		}
		problem(t, h.call("operator", "PUT", "/v1/targets/reward", `{"name":`), http.StatusBadRequest, "malformed")
		problem(t, h.call("operator", "PUT", "/v1/targets/reward", ""), http.StatusBadRequest, "malformed")
		problem(t, h.call("operator", "PUT", "/v1/targets/re%20ward", targetBody), http.StatusUnprocessableEntity, "invalid")
		problem(t, h.call("operator", "PUT", "/v1/targets/reward", targetBody, "If-None-Match", `"1"`), http.StatusUnprocessableEntity, "invalid")
		problem(t, h.call("operator", "PUT", "/v1/targets/reward", `{"body":"`+strings.Repeat("x", maxBodyBytes)+`"}`), http.StatusRequestEntityTooLarge, "too-large")
	})
	if head, err := h.api.Ledger.Head(t.Context()); err != nil || head != 0 {
		t.Errorf("head = %d, %v, want 0", head, err)
	}
}

func TestOneOfManyChangesFromTheSameVersionWins(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.call("operator", "PUT", "/v1/targets/reward", targetBody)
	race := func(with ...string) (codes map[int]int) {
		const writers = 8
		var wg sync.WaitGroup
		answers := make([]*httptest.ResponseRecorder, writers)
		for i := range writers {
			wg.Go(func() {
				body := strings.Replace(targetBody, "Klaviyo: Reward", uuid.NewString(), 1)
				answers[i] = h.call("operator", "PUT", "/v1/targets/reward", body, with...)
			})
		}
		wg.Wait()
		codes = map[int]int{}
		for _, w := range answers {
			codes[w.Code]++
		}
		return codes
	}
	if codes := race("If-Match", `"1"`); codes[http.StatusOK] != 1 || codes[http.StatusPreconditionFailed] != 7 {
		t.Errorf("with If-Match: %v, want one winner", codes)
	}
}

func TestPreview(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.call("operator", "PUT", "/v1/targets/reward", targetBody)
	const path = "/v1/targets/reward/preview"
	got := want[Preview](t, h.call("operator", "POST", path, `{"context":{"reward":{"amount":10.0},"profile":{}}}`), http.StatusOK)
	if got.Body != `{"value": 10, "name": ""}` && got.Body != `{"value": 10.0, "name": ""}` {
		t.Errorf("body = %s", got.Body)
	}
	if got.Headers["Authorization"] != "Klaviyo-API-Key ••••" || got.URL != "https://a.klaviyo.com/api/events" || got.Method != "POST" || got.Condition == nil || !*got.Condition {
		t.Errorf("preview = %+v", got)
	}
	if len(got.Unresolved) != 1 || got.Unresolved[0].Name != "profile.first_name" {
		t.Errorf("unresolved = %+v", got.Unresolved)
	}
	draft := strings.Replace(targetBody, `"reason":"first version"`, `"unresolved":"error"`, 1)
	p := problem(t, h.call("operator", "POST", path, `{"context":{"reward":{"amount":1}},"draft":`+draft+`}`), http.StatusUnprocessableEntity, "not-renderable")
	if len(p.Errors) != 1 || p.Errors[0].Pointer != "/body" || p.Errors[0].Line != 1 {
		t.Errorf("a draft that is strict: %+v", p.Errors)
	}
	p = problem(t, h.call("operator", "POST", path, `{"context":{},"draft":{"url":"https://example.com","body":"{{"}}`), http.StatusUnprocessableEntity, "invalid")
	if len(p.Errors) != 1 || p.Errors[0].Pointer != "/draft/body" || p.Errors[0].Line != 1 {
		t.Errorf("a draft that does not compile: %+v", p.Errors)
	}
	for name, body := range map[string]string{
		"a context that is no object": `{"context":[]}`, "no context": `{}`, "a field too many": `{"context":{},"contxt":{}}`, "a version below 1": `{"context":{},"version":-1}`,
	} {
		if w := h.call("operator", "POST", path, body); w.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	problem(t, h.call("operator", "POST", path, `{"context":{},"version":7}`), http.StatusNotFound, "not-found")
	problem(t, h.call("operator", "POST", "/v1/targets/other/preview", `{"context":{}}`), http.StatusNotFound, "not-found")
	if head, err := h.api.Ledger.Head(t.Context()); err != nil || head != 1 {
		t.Errorf("head = %d, %v: a preview records nothing", head, err)
	}
}

func TestTargetsAreListedPageByPage(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, handle := range []string{"a", "b", "c", "d"} {
		h.call("operator", "PUT", "/v1/targets/"+handle, targetBody)
	}
	h.call("operator", "DELETE", "/v1/targets/c", "")
	h.catchUp()
	var got []string
	path := "/v1/targets?limit=2"
	for pages := 1; ; pages++ {
		page := want[Page[Target]](t, h.call("analyst", "GET", path, ""), http.StatusOK)
		for _, item := range page.Items {
			got = append(got, item.Handle)
		}
		if page.Next == nil || pages == 5 {
			break
		}
		path = "/v1/targets?limit=2&cursor=" + *page.Next
	}
	if strings.Join(got, "") != "abd" {
		t.Errorf("targets = %v, want a, b, d", got)
	}
}

func TestListsRefuseWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	foreign := encodeCursor("targets", "x")
	for path, parameter := range map[string]string{
		"/v1/targets?limit=0":                                           "query.limit",
		"/v1/targets?limit=501":                                         "query.limit",
		"/v1/targets?limit=many":                                        "query.limit",
		"/v1/targets?cursor=!!":                                         "",
		"/v1/deliveries?cursor=" + foreign:                              "",
		"/v1/deliveries?outcome=delivered":                              "query.outcome",
		"/v1/deliveries?platform=pigeon":                                "query.platform",
		"/v1/deliveries?profile=jane":                                   "query.profile",
		"/v1/deliveries?from=yesterday":                                 "query.from",
		"/v1/deliveries/17":                                             "path.id",
		"/v1/events?type=reaction.teleported":                           "query.type",
		"/v1/events?order=up":                                           "query.order",
		"/v1/events/0":                                                  "path.position",
		"/v1/events/first":                                              "path.position",
		"/v1/profiles/jane/consent":                                     "path.id",
		"/v1/profiles/" + jane + "/consent?as_of=now":                   "query.as_of",
		"/v1/profiles/" + jane + "/consent?known_at=1":                  "query.known_at",
		"/v1/profiles/" + jane + "/consent?position=3&delivery=" + jane: "query.delivery",
		"/v1/profiles/" + jane + "/history?cursor=" + foreign:           "",
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			p := problem(t, h.call("admin", "GET", path, ""), http.StatusUnprocessableEntity, "invalid")
			if parameter != "" && (len(p.Errors) != 1 || p.Errors[0].Parameter != parameter) {
				t.Errorf("errors = %+v, want %s", p.Errors, parameter)
			}
			if strings.Contains(p.Detail+p.Errors0(), "jane") {
				t.Errorf("problem = %+v repeats what was sent", p)
			}
		})
	}
}

// Errors0 is the first field's detail, for the test above.
func (p *Problem) Errors0() string {
	if len(p.Errors) == 0 {
		return ""
	}
	return p.Errors[0].Detail
}

func TestConsentByHand(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	const path = "/v1/profiles/" + jane
	put := func(status, decided string, with ...string) *httptest.ResponseRecorder {
		return h.call("privacy", "PUT", path+"/consent", `{"changes":[{"channel":"email","purpose":"promo","status":"`+status+`"}],"decided_by":"staff","method":"phone"`+decided+`}`, with...)
	}
	at := func(clock string) string { return `,"decided_at":"2026-11-24T` + clock + `Z"` }
	if w := put("opted_in", at("08:00:00"), "Idempotency-Key", "k1"); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	if w := put("opted_in", at("08:00:00"), "Idempotency-Key", "k1"); !strings.Contains(w.Body.String(), `"duplicate":true`) {
		t.Errorf("a repeat = %s", w.Body)
	}
	problem(t, put("opted_out", at("08:00:00"), "Idempotency-Key", "k1"), http.StatusConflict, "id-reused")
	if w := put("opted_out", ""); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	put("opted_in", at("07:00:00")) // heard of late, decided early

	get := func(query string) Consent {
		return want[Consent](t, h.call("compliance", "GET", path+"/consent"+query, ""), http.StatusOK)
	}
	for query, status := range map[string]domain.ConsentStatus{
		"": "opted_out", "?position=1": "opted_in", "?position=2": "opted_out", "?as_of=2026-11-24T08:30:00Z": "opted_in", "?as_of=2026-11-24T18:30:00%2B10:00": "opted_in",
	} {
		if got := get(query); len(got.Items) != 1 || got.Items[0].Status != status || got.Items[0].Actor != "the-privacy" || got.Items[0].DecidedBy != "staff" || got.Erased {
			t.Errorf("consent%s = %+v, want %s", query, got, status)
		}
	}
	if got := get("?as_of=2026-11-24T06:00:00Z"); len(got.Items) != 0 {
		t.Errorf("before the first decision = %+v", got)
	}
	first := want[Page[consent.Entry]](t, h.call("compliance", "GET", path+"/history?limit=2", ""), http.StatusOK)
	if len(first.Items) != 2 || first.Next == nil || first.Items[0].Position != 1 {
		t.Fatalf("history = %+v", first)
	}
	rest := want[Page[consent.Entry]](t, h.call("compliance", "GET", path+"/history?limit=2&cursor="+*first.Next, ""), http.StatusOK)
	if len(rest.Items) != 1 || rest.Next != nil || rest.Items[0].Position != 3 {
		t.Errorf("the rest of the history = %+v", rest)
	}
	h.erase(uuid.MustParse(jane))
	if got := get(""); !got.Erased || len(got.Items) != 1 {
		t.Errorf("after the erasure = %+v, want the opt-out still there", got)
	}
}

func TestConsentByHandThatIsRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for name, tc := range map[string]struct{ body, pointer string }{
		"another person":        {`{"profile_id":"` + jane + `","changes":[{"channel":"email","purpose":"promo","status":"opted_in"}],"decided_by":"staff"}`, "/profile_id"},
		"nothing decided":       {`{"changes":[],"decided_by":"staff"}`, "/changes"},
		"no such status":        {`{"changes":[{"channel":"email","purpose":"promo","status":"yes"}],"decided_by":"staff"}`, "/changes/0/status"},
		"decided in the future": {`{"changes":[{"channel":"email","purpose":"promo","status":"opted_in"}],"decided_by":"staff","decided_at":"2027-01-01T00:00:00Z"}`, "/decided_at"},
		"a field too many":      {`{"change":[],"decided_by":"staff"}`, "/change"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := problem(t, h.call("privacy", "PUT", "/v1/profiles/"+jane+"/consent", tc.body), http.StatusUnprocessableEntity, "invalid")
			if len(p.Errors) != 1 || p.Errors[0].Pointer != tc.pointer || p.Errors[0].Index != nil {
				t.Errorf("errors = %+v, want %s", p.Errors, tc.pointer)
			}
		})
	}
}

// deliver records a firing's delivery with one attempt, and returns its id.
func (h *house) deliver(reaction string, profile uuid.UUID, outcome domain.Outcome) uuid.UUID {
	firing := uuid.New()
	id := domain.DeliveryID(firing, "reward")
	decided := h.clock.now().Add(-time.Hour)
	h.record(domain.DeliveryPlanned{
		DeliveryID: id, MaxAttempts: 8, BodySHA256: strings.Repeat("9f", 32), Body: `{"email":"jane@example.com"}`, URL: "https://example.com",
		Firing:     domain.Firing{FiringID: firing, FiringPosition: 41, Reaction: reaction, Trigger: "reward.created", Cause: "reaction", Target: "reward", TargetVersion: 3, Platform: "klaviyo", ProfileID: profile},
		Consent:    domain.Decision{Decision: "allowed", Reason: "opted_in", Channel: "email", Purpose: "promo", Status: "opted_in", DecidedAt: &decided, Position: 17, AsOf: 41},
		Unresolved: []domain.Unresolved{{Name: "profile.last_name", Part: "body", Line: 1, Column: 4}},
		DueAt:      h.clock.now(),
	})
	h.record(domain.DeliveryAttempted{
		DeliveryID: id, Target: "reward", ProfileID: profile, Attempt: 1, StartedAt: h.clock.now(), DurationMS: 12.4, Status: 202,
		Verdict: domain.Accepted, Outcome: outcome, Address: "198.51.100.7:443", Worker: "host-1/1", ResponseBody: "jane@example.com",
	})
	return id
}

func TestADeliveryIsShownAsTheContractHasIt(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	profile := uuid.MustParse(jane)
	id := h.deliver("reward-earned", profile, domain.Succeeded)
	h.catchUp()
	w := h.call("compliance", "GET", "/v1/deliveries/"+id.String(), "")
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatalf("%s: %v", w.Body, err)
	}
	attempt := got["attempts"].([]any)[0].(map[string]any)
	for name, c := range map[string]struct{ got, want any }{
		"id":                {got["id"], id.String()},
		"firing.position":   {got["firing"].(map[string]any)["position"], 41.0},
		"firing.reaction":   {got["firing"].(map[string]any)["reaction"], "reward-earned"},
		"firing.cause":      {got["firing"].(map[string]any)["cause"], "reaction"},
		"firing.trigger":    {got["firing"].(map[string]any)["trigger"], "reward.created"},
		"target.handle":     {got["target"].(map[string]any)["handle"], "reward"},
		"target.version":    {got["target"].(map[string]any)["version"], 3.0},
		"target.platform":   {got["target"].(map[string]any)["platform"], "klaviyo"},
		"profile_id":        {got["profile_id"], jane},
		"outcome":           {got["outcome"], "succeeded"},
		"next_attempt_at":   {got["next_attempt_at"], nil},
		"consent.decision":  {got["consent"].(map[string]any)["decision"], "allowed"},
		"consent.channel":   {got["consent"].(map[string]any)["channel"], "email"},
		"consent.position":  {got["consent"].(map[string]any)["position"], 17.0},
		"unresolved":        {got["unresolved"].([]any)[0].(map[string]any)["name"], "profile.last_name"},
		"body_sha256":       {got["body_sha256"], strings.Repeat("9f", 32)},
		"request":           {got["request"].(map[string]any)["sealed"], true},
		"attempt":           {attempt["attempt"], 1.0},
		"attempt.duration":  {attempt["duration_ms"], 12.4},
		"attempt.status":    {attempt["status"], 202.0},
		"attempt.verdict":   {attempt["verdict"], "accepted"},
		"attempt.address":   {attempt["address"], "198.51.100.7:443"},
		"attempt.position":  {attempt["position"], 2.0},
		"attempt.started":   {attempt["started_at"], "2026-11-24T09:00:00Z"},
		"attempt.response":  {attempt["response"].(map[string]any)["sealed"], true},
		"planned_at is set": {got["planned_at"] != nil && got["finished_at"] != nil, true},
	} {
		if c.got != c.want {
			t.Errorf("%s = %v, want %v", name, c.got, c.want)
		}
	}
	if strings.Contains(w.Body.String(), "jane@") {
		t.Errorf("personal data is shown: %s", w.Body)
	}
	h.erase(profile)
	erased := want[Delivery](t, h.call("compliance", "GET", "/v1/deliveries/"+id.String(), ""), http.StatusOK)
	if erased.Request == nil || !erased.Request.Erased || !erased.Attempts[0].Response.Erased {
		t.Errorf("after the erasure = %+v", erased)
	}
	problem(t, h.call("compliance", "GET", "/v1/deliveries/"+uuid.NewString(), ""), http.StatusNotFound, "not-found")
}

func TestDeliveriesAreFilteredAndPaged(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	profile := uuid.MustParse(jane)
	var ids []string
	for i := range 5 {
		reaction, outcome := "even", domain.Succeeded
		if i%2 == 1 {
			reaction, outcome = "odd", domain.Failed
		}
		ids = append(ids, h.deliver(reaction, profile, outcome).String())
	}
	waiting := domain.DeliveryPlanned{DeliveryID: uuid.New(), Firing: domain.Firing{FiringID: uuid.New(), Reaction: "waiting", Cause: "manual", Target: "reward"}, DueAt: h.clock.now()}
	h.record(waiting)
	claimed := waiting
	claimed.DeliveryID, claimed.FiringID = uuid.New(), uuid.New()
	h.record(claimed)
	ids = append(ids, waiting.DeliveryID.String(), claimed.DeliveryID.String())
	h.catchUp()
	if _, err := h.api.DB.ExecContext(t.Context(), `INSERT INTO leases (delivery_id, attempt, worker, expires_at) VALUES ($1, 1, 'host-1/1', now() + interval '1 hour')`, claimed.DeliveryID); err != nil {
		t.Fatal(err)
	}
	list := func(query string) (got []string) {
		t.Helper()
		path := "/v1/deliveries?limit=2" + query
		for range 10 {
			page := want[Page[DeliverySummary]](t, h.call("analyst", "GET", path, ""), http.StatusOK)
			for _, d := range page.Items {
				for i, id := range ids {
					if d.ID.String() == id {
						got = append(got, strconv.Itoa(i))
					}
				}
			}
			if page.Next == nil {
				return got
			}
			path = "/v1/deliveries?limit=2" + query + "&cursor=" + *page.Next
		}
		t.Fatal("the pages do not end")
		return nil
	}
	for query, want := range map[string]string{
		"": "6543210", "&outcome=sending": "6", "&outcome=pending": "5", "&outcome=pending,sending,failed": "6531", "&reaction=odd": "31", "&outcome=failed": "31", "&outcome=failed,succeeded": "43210", "&outcome=failed&reaction=even": "",
		"&target=reward&platform=klaviyo&profile=" + jane: "43210", "&target=other": "", "&profile=" + uuid.NewString(): "",
		"&from=2020-01-01T00:00:00Z": "6543210", "&to=2020-01-01T00:00:00Z": "",
	} {
		if got := strings.Join(list(query), ""); got != want {
			t.Errorf("deliveries%s = %s, want %s", query, got, want)
		}
	}
}

func TestTheLedgerIsRead(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	profile := uuid.MustParse(jane)
	h.call("emitter", "POST", "/v1/events", cloudEvent("1", "reaction.fired", firedData), "Content-Type", "application/cloudevents+json")
	h.call("operator", "PUT", "/v1/targets/reward", targetBody)
	h.deliver("reward-earned", profile, domain.Succeeded)
	one := want[Event](t, h.call("compliance", "GET", "/v1/events/1", ""), http.StatusOK)
	if one.Type != "reaction.fired" || one.Actor != "the-emitter" || one.Source != "/crm" || *one.ProfileID != profile || !one.Sealed.Sealed || len(one.Leaf) != 64 {
		t.Errorf("event 1 = %+v", one)
	}
	if two := want[Event](t, h.call("compliance", "GET", "/v1/events/2", ""), http.StatusOK); two.Sealed != nil || *two.Target != "reward" || two.ProfileID != nil {
		t.Errorf("event 2 = %+v", two)
	}
	problem(t, h.call("compliance", "GET", "/v1/events/9", ""), http.StatusNotFound, "not-found")
	list := func(query string) string {
		t.Helper()
		var got []string
		path := "/v1/events?limit=2" + query
		for range 10 {
			page := want[Page[Event]](t, h.call("compliance", "GET", path, ""), http.StatusOK)
			for _, e := range page.Items {
				got = append(got, strconv.FormatInt(e.Position, 10))
			}
			if page.Next == nil {
				break
			}
			path = "/v1/events?limit=2" + query + "&cursor=" + *page.Next
		}
		return strings.Join(got, "")
	}
	delivery := want[Event](t, h.call("compliance", "GET", "/v1/events/3", ""), http.StatusOK).DeliveryID.String()
	for query, want := range map[string]string{
		"": "4321", "&order=asc": "1234", "&order=asc&after=2": "34", "&type=target.changed": "2", "&type=target.changed,reaction.fired": "21", "&profile=" + jane: "431",
		"&target=reward": "432", "&delivery=" + delivery: "43", "&stream=target-reward": "2", "&to=2020-01-01T00:00:00Z": "", "&from=2020-01-01T00:00:00Z": "4321",
	} {
		if got := list(query); got != want {
			t.Errorf("events%s = %s, want %s", query, got, want)
		}
	}
	h.erase(profile)
	if one := want[Event](t, h.call("compliance", "GET", "/v1/events/1", ""), http.StatusOK); !one.Sealed.Erased || one.Sealed.Sealed {
		t.Errorf("event 1 after the erasure = %+v", one.Sealed)
	}
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	get := func(status int) readiness {
		t.Helper()
		return want[readiness](t, h.call("", "GET", "/readyz", ""), status)
	}
	if got := get(http.StatusOK); got.Status != "ready" || len(got.Checks) != 3 {
		t.Errorf("ready = %+v", got)
	}
	exec := func(statement string) {
		t.Helper()
		if _, err := h.owner.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	exec(`UPDATE subscriptions SET state = 'parked', error = 'jane@example.com', error_position = 7 WHERE name = 'projection.audit'`)
	if got := get(http.StatusServiceUnavailable); got.Checks["readers"] != "projection audit is parked at event 7; GET /v1/projections says why" {
		t.Errorf("with a parked projection = %+v", got)
	}
	parked := want[Page[projections.Status]](t, h.call("operator", "GET", "/v1/projections?limit=1", ""), http.StatusOK)
	if len(parked.Items) != 1 || parked.Items[0].Name != "audit" || parked.Items[0].State != "parked" || parked.Next == nil {
		t.Errorf("projections = %+v", parked)
	}
	rest := want[Page[projections.Status]](t, h.call("operator", "GET", "/v1/projections?cursor="+*parked.Next, ""), http.StatusOK)
	if len(rest.Items) != len(definitions)-1 || rest.Next != nil {
		t.Errorf("the other projections = %+v", rest)
	}
	exec(`UPDATE subscriptions SET state = 'running'`)
	exec(`REVOKE SELECT ON goose_db_version FROM ledger_service`)
	if got := get(http.StatusServiceUnavailable); got.Checks["migrations"] != "could not be asked; the log says why" || !strings.Contains(h.log.String(), "permission denied") {
		t.Errorf("what only the operator may know = %+v, log %s", got, h.log)
	}
	exec(`GRANT SELECT ON goose_db_version TO ledger_service`)
	exec(`DELETE FROM goose_db_version WHERE version_id = (SELECT max(version_id) FROM goose_db_version)`)
	if got := get(http.StatusServiceUnavailable); !strings.Contains(got.Checks["migrations"], "run 'dispatch-ledger migrate'") {
		t.Errorf("with a migration to come = %+v", got)
	}
	exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)`)
	if got := get(http.StatusServiceUnavailable); !strings.Contains(got.Checks["migrations"], "later") {
		t.Errorf("with a later program's migrations = %+v", got)
	}
}

func TestAnEventIsProven(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ctx, db := t.Context(), h.api.DB
	problem(t, h.call("compliance", "GET", "/v1/checkpoint", ""), http.StatusNotFound, "not-found")
	for _, handle := range []string{"a", "b", "c"} {
		h.call("operator", "PUT", "/v1/targets/"+handle, targetBody)
	}
	early := h.call("compliance", "GET", "/v1/events/2/proof", "")
	problem(t, early, http.StatusNotFound, "not-covered-yet")
	if early.Header().Get("Retry-After") == "" {
		t.Error("not covered yet, and not said when")
	}

	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if failure, err := schema.Attempt(ctx, tx, schema.Slice{From: 0, To: 3}, schema.GrowTree); err != nil || failure != nil {
		t.Fatal(err, failure)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO subscriptions (name, position) VALUES ($1, 3)`, schema.TreeSubscription.Name); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	origin, err := schema.Origin(ctx, db)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := h.api.Vault.SigningKeys(ctx, origin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&schema.Checkpointer{DB: db, Origin: origin, Keys: keys, Clock: h.clock.now}).Sign(ctx); err != nil {
		t.Fatal(err)
	}

	w := h.call("compliance", "GET", "/v1/events/2/proof", "")
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Fatalf("proof = %d %s %s", w.Code, w.Header().Get("Content-Type"), w.Body)
	}
	var proof evidence.Proof
	if err := proof.UnmarshalText(w.Body.Bytes()); err != nil {
		t.Fatal(err)
	}
	event := want[Event](t, h.call("compliance", "GET", "/v1/events/2", ""), http.StatusOK)
	leaf, err := hex.DecodeString(event.Leaf)
	if err != nil {
		t.Fatal(err)
	}
	known, err := schema.PublicSigningKeys(ctx, db)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := proof.Verify([32]byte(leaf), known); err != nil {
		t.Errorf("the proof does not verify: %v", err)
	}
	checkpoint := h.call("analyst", "GET", "/v1/checkpoint", "")
	if c, _, err := evidence.OpenCheckpoint(checkpoint.Body.Bytes(), known); err != nil || c.Size != 3 {
		t.Errorf("checkpoint = %s, %v", checkpoint.Body, err)
	}
	problem(t, h.call("compliance", "GET", "/v1/events/9/proof", ""), http.StatusNotFound, "not-found")

	// Anybody can compute the root from the tiles, as C2SP tlog-tiles has them.
	tile := h.call("", "GET", "/v1/tile/0/000.p/3", "")
	if hashes := tile.Body.Bytes(); tile.Code != http.StatusOK || len(hashes) != 3*32 || !bytes.Equal(hashes[32:64], leaf) || !strings.Contains(tile.Header().Get("Cache-Control"), "immutable") {
		t.Errorf("tile = %d, %x", tile.Code, hashes)
	} else if c, err := evidence.ParseCheckpoint(checkpoint.Body.String()); err != nil || tlog.NodeHash(tlog.NodeHash(tlog.Hash(hashes[:32]), tlog.Hash(hashes[32:64])), tlog.Hash(hashes[64:])) != c.Root {
		t.Errorf("the tile's hashes do not give the root of the checkpoint (%v)", err)
	}
	for path, name := range map[string]string{
		"0/000": "not-found", "0/000.p/4": "not-found", "1/000.p/1": "not-found", "0/001.p/1": "not-found",
		"entries/000": "no-such-route", "data/000": "no-such-route", "0/x001": "no-such-route", "0/000.p/0": "no-such-route", "0/../../../etc": "no-such-route", "64/000": "not-found",
	} {
		if w := h.call("", "GET", "/v1/tile/"+path, ""); w.Code != http.StatusMovedPermanently && w.Code != http.StatusTemporaryRedirect {
			problem(t, w, http.StatusNotFound, name)
		}
	}
}
