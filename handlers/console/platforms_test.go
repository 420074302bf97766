package console

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/browsertest"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// furnishPlatforms connects a platform, with runs of each kind, findings, and opt-outs that it was told of.
func (h *house) furnishPlatforms() {
	h.t.Helper()
	policy := domain.PlatformPolicy{Name: "klaviyo", Platform: "klaviyo", Credentials: map[string]string{"key": "klaviyo_private_key"}}
	policy.Normalize()
	h.record("ada", domain.PlatformPolicyChanged{Policy: policy, Reason: "connected"})
	hash := func(i int) string { return strings.Repeat("0123456789abcdef", 4)[i:i+16] + strings.Repeat("ab", 24) }
	started := func(state string) uuid.UUID {
		id := uuid.New()
		h.runs[state] = id
		h.record("reconciler", domain.ReconciliationStarted{ID: id, Platform: "klaviyo", Mode: "incremental", Channels: []domain.Channel{domain.Email}, Trigger: "schedule", Policy: 1})
		return id
	}
	for i := range int64(6) {
		id := started("done")
		h.record("reconciler", domain.ReconciliationFinished{ID: id, Platform: "klaviyo", Outcome: domain.RunDone, Seconds: 4, Counts: domain.ReconciliationCounts{
			Read: 20_000 + 10*i, Suppressed: 20_000, OptedOut: 19_000, Contacts: 120_000, Agreed: 19_950 - i*i, Differences: map[string]int64{domain.MissingThere: 12 - i, domain.MissingHere: 3 * i, domain.LiftedThere: 1},
			Planned: map[string]int64{"record": 3 * i, "push": 12 - i, "ask": 1}, Open: 2, Unconfirmed: 4,
		}})
	}
	if _, err := h.console.DB.ExecContext(h.t.Context(), `INSERT INTO reconciled_differences (run, platform, channel, class, profile_id, reason, theirs_at, decision, action)
		VALUES ($1, 'klaviyo', 'email', 'missing_here', $2, 'unsubscribed', now(), 6, 'record')`, h.runs["done"], h.people[1]); err != nil {
		h.t.Fatal(err)
	}
	held := started("held")
	if _, err := h.console.DB.ExecContext(h.t.Context(), `INSERT INTO reconciliations (platform, id, mode, "trigger", actor, channels, started_at, phase, policy)
		VALUES ('klaviyo', $1, 'incremental', 'schedule', 'reconciler', '{email}', now(), 'held', 1)`, held); err != nil {
		h.t.Fatal(err)
	}
	h.record("reconciler", domain.ReconciliationHeld{ID: held, Platform: "klaviyo", Changes: 4100, Of: 20_000, Percent: 20.5, Cap: 5, Explain: "4,100 of 20,000 suppressed addresses would change, more than 5 %"})
	raise := func(class, action string, actions ...string) uuid.UUID {
		id := uuid.New()
		h.record("reconciler", domain.FindingRaised{
			ID: id, Platform: "klaviyo", Run: h.runs["done"], Channel: domain.Email, Class: class, Hash: hash(len(actions)), ProfileID: h.people[len(actions)], Count: 1, Theirs: "unsubscribed since 3 March", Ours: "opted in since 9 March",
			Explain: "The person agreed again here, six days after the opt-out there.", Action: action, Actions: actions, Decision: 3,
		})
		return id
	}
	h.finding = raise(domain.ResubscribedHere, domain.ActKeepSuppressed, domain.ActResubscribe, domain.ActKeepSuppressed)
	raise(domain.LiftedThere, domain.ActSuppressThere, domain.ActSuppressThere, domain.ActRecordOptIn, domain.ActAcceptDivergent)
	decided := time.Now().AddDate(0, 0, -3)
	_, position := h.record("portal", domain.ConsentChanged{
		ProfileID: h.people[2], DecidedAt: decided, DecidedBy: "customer", Method: "preference_centre", Changes: []domain.ConsentChange{{Channel: domain.Email, Purpose: domain.PurposeAll, Status: domain.OptedOut}},
	})
	entry := []domain.PushEntry{{Hash: hash(7), ProfileID: h.people[2], Decision: position, DecidedAt: decided}}
	h.record("reconciler", domain.SuppressionOrdered{Platform: "klaviyo", Channel: domain.Email, Intent: domain.Suppress, Batch: uuid.New(), Entries: entry},
		domain.SuppressionConfirmed{Platform: "klaviyo", Channel: domain.Email, Intent: domain.Suppress, ConfirmedAt: time.Now(), Entries: entry})
	h.record("privacy", domain.RetentionChanged{Type: "delivery.planned", Days: 90, Reason: "what was sent is looked at for a quarter"})
}

// A difference is decided on, with a reason, by who may.
func TestDecidingInABrowser(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	page := h.signIn(t, schema.RoleOperator, "/reconciliation", browsertest.View{})
	page.Follow("main .warning a")
	if n := len(h.events(schema.Filter{Types: []string{"finding.resolved"}, Limit: 10})); n != 0 {
		t.Fatalf("%d are decided already", n)
	}
	page.CheckAccessible()
	page.Click(`form[action="/findings/` + h.finding.String() + `/resolve"] input[value="resubscribe"]`)
	page.Type(`form[action="/findings/`+h.finding.String()+`/resolve"] input[name="reason"]`, "asked on the phone")
	page.Follow(`form[action="/findings/` + h.finding.String() + `/resolve"] button`)
	if text := page.Text("main"); !strings.Contains(strings.ToLower(text), "evidence") {
		t.Errorf("to lift it without evidence is answered with %s", text)
	}
	page.Goto(h.server.URL + "/findings")
	page.Type(`form[action="/findings/`+h.finding.String()+`/resolve"] input[name="reason"]`, "they said no on the phone")
	page.Follow(`form[action="/findings/` + h.finding.String() + `/resolve"] button`)
	if said := page.Text("p.done"); !strings.HasPrefix(said, "Decided") {
		t.Errorf("after deciding: %q", said)
	}
	if events := h.events(schema.Filter{Types: []string{"finding.resolved"}, Limit: 10}); len(events) != 1 || events[0].Actor != "the-operator" || !strings.Contains(string(events[0].Data), "keep_suppressed") {
		t.Errorf("recorded: %+v", events)
	}

	page.Goto(h.server.URL + "/reconciliation/" + h.runs["held"].String())
	if text := page.Text(".held"); !strings.Contains(text, "20.5") {
		t.Errorf("the held run says %s", text)
	}
	page.CheckAccessible()
	page.Screenshot("held")
	page.Type(`.held input[name="reason"]`, "first run after the migration")
	page.Follow(".held button.primary")
	if said := page.Text("p.done"); !strings.HasPrefix(said, "Approved") {
		t.Errorf("after approving: %q", said)
	}
	if events := h.events(schema.Filter{Types: []string{"reconciliation.approved"}, Limit: 10}); len(events) != 1 || events[0].Actor != "the-operator" {
		t.Errorf("recorded: %+v", events)
	}
}

// What is of one kind is decided on at once, from the page that shows it alone.
func TestDecidingAlikeOnThePage(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	for range 2 {
		h.record("reconciler", domain.FindingRaised{
			ID: uuid.New(), Platform: "klaviyo", Run: h.runs["done"], Channel: domain.Email, Class: domain.LiftedThere, ProfileID: h.people[0], Count: 1, Explain: "Klaviyo lifted it.",
			Action: domain.ActSuppressThere, Actions: []string{domain.ActSuppressThere, domain.ActRecordOptIn, domain.ActAcceptDivergent},
		})
	}
	h.catchUp()
	v := h.client(schema.RoleOperator)
	if all := v.get("/findings").Body.String(); strings.Contains(all, "alike") || !strings.Contains(all, "/findings?platform=klaviyo&amp;class=lifted_there") {
		t.Error("the page of all findings offers to decide alike, or does not lead to those of one kind")
	}
	page := v.get("/findings?platform=klaviyo&class=lifted_there").Body.String()
	if !strings.Contains(page, "Decide on all 3 alike") || strings.Count(page, `value="record_opt_in"`) != 3 || strings.Count(page, `value="suppress_there"`) != 4 {
		t.Errorf("the page of one kind: %s", page)
	}
	form := url.Values{"platform": {"klaviyo"}, "class": {"lifted_there"}, "action": {"record_opt_in"}, "reason": {"x"}}
	if w := v.post("/findings/resolve", form); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("to opt all of them in: %d", w.Code)
	}
	form.Set("action", "suppress_there")
	if w := v.post("/findings/resolve", form); w.Code != http.StatusSeeOther {
		t.Errorf("to suppress all of them: %d %s", w.Code, w.Body)
	}
	if events := h.events(schema.Filter{Types: []string{"finding.resolved"}, Limit: 10}); len(events) != 3 || events[0].Actor != "the-operator" {
		t.Errorf("recorded: %+v", events)
	}
}

// Each form of the policies' page changes what it says, or says what is wrong with it.
func TestPoliciesChange(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	admin := h.client(schema.RoleAdmin)
	send := url.Values{"position": {"0"}, "never_asked": {"send"}, "channel": {"email"}, "until": {"2027-01-31"}, "imported": {"withhold"}, "within": {"72h"}, "reason": {"legal, 2026-118"}}
	for _, tc := range []struct {
		path   string
		form   url.Values
		status int
		holds  string // of the answer, or of the newest event
	}{
		{"/policies/consent", url.Values{"position": {"0"}, "never_asked": {"send"}, "imported": {"accept"}, "reason": {"x"}}, http.StatusUnprocessableEntity, "until"},
		{"/policies/consent", send, http.StatusSeeOther, `"never_asked":"send","channels":["email"],"until":"2027-01-31T23:59:59Z","imported":"withhold","promptness":{"within":"72h0m0s"}`},
		{"/policies/consent", send, http.StatusPreconditionFailed, ""},
		{"/policies/retention", url.Values{"type": {"reaction.fired"}, "days": {"30"}}, http.StatusUnprocessableEntity, "reason"},
		{"/policies/retention", url.Values{"type": {"reaction.fired"}, "days": {"30"}, "reason": {"short"}}, http.StatusSeeOther, `"days":30`},
		{"/policies/platforms/braze", url.Values{"file": {"platform: nothing"}}, http.StatusUnprocessableEntity, "platform"},
		{"/policies/platforms/klaviyo", url.Values{"etag": {`"1"`}, "file": {"platform: klaviyo\ncredentials: {key: klaviyo_private_key}\ncap: 7.5\n"}, "reason": {"a wider cap"}}, http.StatusSeeOther, `"cap":7.5`},
		{"/policies/platforms/klaviyo", url.Values{"etag": {`"1"`}, "file": {"platform: klaviyo\ncredentials: {key: klaviyo_private_key}\n"}}, http.StatusPreconditionFailed, ""},
	} {
		w := admin.post(tc.path, tc.form)
		h.catchUp()
		said := w.Body.String()
		if tc.status == http.StatusSeeOther {
			said = string(h.events(schema.Filter{Descending: true, Limit: 1})[0].Data)
		}
		if w.Code != tc.status || !strings.Contains(strings.ToLower(said), strings.ToLower(tc.holds)) {
			t.Errorf("%s %v: %d %s, want %d and %q", tc.path, tc.form, w.Code, said, tc.status, tc.holds)
		}
	}
	if page := admin.get("/policies").Body.String(); !strings.Contains(page, "sent to") || !strings.Contains(page, "7.5 %") || !strings.Contains(page, "30 days") {
		t.Errorf("the page afterwards: %s", page)
	}
	if w := admin.get("/policies/platforms/?name=sfmc"); w.Header().Get("Location") != "/policies/platforms/sfmc" {
		t.Errorf("a new connection: %d to %q", w.Code, w.Header().Get("Location"))
	}
}
