package console

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/browsertest"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

const reward = "/targets/klaviyo-reward-earned"

// input puts text into a field as typing does.
func input(page *browsertest.Page, id, expression string) {
	var done bool
	page.Eval(`(() => { const f = document.getElementById("`+id+`"); f.value = `+expression+`; f.dispatchEvent(new Event("input", {bubbles: true})); return true })()`, &done)
}

// choose takes an option of a list.
func choose(page *browsertest.Page, selector, value string) {
	var done bool
	page.Eval(`(() => { const s = document.querySelector("`+selector+`"); s.value = "`+value+`"; s.dispatchEvent(new Event("change", {bubbles: true})); return s.value === "`+value+`" })()`, &done)
}

func (h *house) events(f schema.Filter) []domain.Recorded {
	h.t.Helper()
	events, err := audit.Events(h.t.Context(), h.console.DB, f)
	if err != nil {
		h.t.Fatal(err)
	}
	return events
}

// From an idea to a version: tried with a made-up context, with what really happened, in the inspector, and saved.
func TestEditingATargetInABrowser(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	page := h.signIn(t, schema.RoleOperator, reward+"/edit", browsertest.View{})
	page.WaitUntil(`document.querySelector(".paint .missing") !== null`) // reward.expires_at is not in the context
	var marked string
	page.Eval(`[...document.querySelectorAll(".paint .missing")].map(m => m.textContent).join()`, &marked)
	if marked != "{{ reward.expires_at|date('j F Y') }}" {
		t.Errorf("marked in the text as missing: %q", marked)
	}
	page.Click("#preview [data-unresolved]")
	page.Eval(`document.activeElement.value.slice(document.activeElement.selectionStart, document.activeElement.selectionEnd)`, &marked)
	if marked != "reward.expires_at" {
		t.Errorf("the list leads to %q in the text", marked)
	}

	page.Click("#contexts summary")
	page.Click(`#contexts button[data-into="contexts"]`)
	page.WaitFor("#contexts .error") // no firing is chosen, and no reason given
	choose(page, `select[name=delivery]`, h.sent["fired"].String())
	page.Type(`input[name="why"]`, "it looks odd, ticket 4711")
	page.Click(`#contexts button[data-into="contexts"]`)
	page.WaitUntil(`document.getElementById("context").value.includes("grace@example.com")`)
	page.WaitUntil(`document.getElementById("preview").textContent.includes("Every variable is in this context")`)
	page.WaitUntil(`document.querySelector(".paint .missing") === null`)
	if sent := page.Text("#preview .card pre"); !strings.Contains(sent, `"expires": "31 January 2027"`) || !strings.Contains(sent, `"first_name": "Grace"`) {
		t.Errorf("with the past context it would send %s", sent)
	}

	input(page, "file", `f.value.replace("rate: 50/s", "rate: 60/s")`)
	page.WaitUntil(`document.querySelector("#preview .diff .added") !== null`)
	if change := page.Text("#preview .diff .added"); change != "rate: 60/s" {
		t.Errorf("saving is said to change %q", change)
	}
	page.Click(`button[data-into="tested"]`)
	page.WaitFor("#tested .captured")
	if got := page.Text("#tested .captured"); !strings.Contains(got, "https://a.klaviyo.com/api/events") || !strings.Contains(got, "Klaviyo-API-Key ••••") || !strings.Contains(got, "grace@example.com") || strings.Contains(got, "pk_hush") {
		t.Errorf("the captured request: %s", got)
	}
	page.CheckAccessible()
	page.Screenshot("editor")
	if events := h.events(schema.Filter{Types: []string{"sealed.revealed"}, Limit: 10}); len(events) != 1 || events[0].Actor != "the-operator" || !strings.Contains(string(events[0].Data), "ticket 4711") {
		t.Errorf("the look at the past context is recorded as %+v", events)
	}

	var inspected string
	page.Eval(`document.querySelector("#tested .captured a").href`, &inspected)
	page.Type(`input[name="reason"]`, "faster")
	page.Follow(`#editor p.go button.primary`)
	page.CheckStatus(http.StatusOK)
	if said := page.Text("p.done"); !strings.HasPrefix(said, "Saved") {
		t.Errorf("after saving: %q", said)
	}
	if events := h.events(schema.Filter{Stream: domain.TargetStream("klaviyo-reward-earned"), Types: []string{"target.changed"}, Descending: true, Limit: 1}); events[0].Actor != "the-operator" || !strings.Contains(string(events[0].Data), "60/s") {
		t.Errorf("recorded: %+v", events)
	}
	page.CheckAccessible()

	// The inspector's own page shows the same request, to whoever has the address with its key.
	page.Goto(inspected)
	page.WaitFor("article")
	if got := page.Text("article"); !strings.Contains(got, "POST https://a.klaviyo.com/api/events") {
		t.Errorf("the inspector shows %s", got)
	}
	page.Click("article summary")
	page.CheckAccessible()
	page.Screenshot("inspector")
}

// Somebody without a mouse changes a target.
func TestEditingATargetByKeyboard(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	page := h.signIn(t, schema.RoleOperator, reward+"/edit", browsertest.View{})
	page.WaitFor("#preview .card")
	tabTo(page, "#file")
	page.Press(kb.Home + kb.Enter + kb.ArrowUp) // a line of its own, before the first
	page.Press("notes: typed")
	page.Press(kb.Escape + kb.Tab) // Tab alone would indent
	page.Press("by keyboard")
	focused(t, page, `input[name=reason]`)
	page.Press(kb.Tab)
	page.FollowByKey(kb.Enter)
	page.WaitFor("p.done")
	if events := h.events(schema.Filter{Stream: domain.TargetStream("klaviyo-reward-earned"), Descending: true, Limit: 1}); !strings.Contains(string(events[0].Data), `"notes":"typed"`) || !strings.Contains(string(events[0].Data), `"by keyboard"`) {
		t.Errorf("recorded: %s", events[0].Data)
	}
}

// tabTo presses Tab until the element has the focus.
func tabTo(page *browsertest.Page, selector string) {
	const most = 60
	for range most {
		page.Press(kb.Tab)
		var there bool
		if page.Eval("document.activeElement.matches(`"+selector+"`)", &there); there {
			return
		}
	}
	page.WaitUntil("document.activeElement.matches(`" + selector + "`)") // fails, and says what was sought
}

func focused(t *testing.T, page *browsertest.Page, selector string) {
	t.Helper()
	var there bool
	if page.Eval("document.activeElement.matches(`"+selector+"`)", &there); !there {
		t.Errorf("the focus is not on %s", selector)
	}
}

// A change that takes two people: one proposes, cannot approve, and the other does, having seen what it changes.
func TestFourEyesInABrowser(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	operator := h.client(schema.RoleOperator)
	form := func(file, revision string) url.Values {
		return url.Values{"file": {file}, "revision": {revision}, "reason": {"with care"}}
	}
	const file = "url: https://example.com/\nbody: '{}'\napproval: required\n"
	if w := operator.post("/targets/guarded/edit", form(file, "0")); w.Code != http.StatusSeeOther || !strings.Contains(w.Header().Get("Location"), "done=") {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	h.catchUp()
	proposer := h.signIn(t, schema.RoleOperator, "/proposals", browsertest.View{})
	if text := proposer.Text("main"); !strings.Contains(text, "somebody else has to approve") || strings.Contains(text, "Approve proposal") || !strings.Contains(text, "Withdraw proposal") {
		t.Errorf("the proposer sees %s", text)
	}
	page := h.signIn(t, schema.RoleCompliance, "/targets", browsertest.View{})
	page.Follow(`main .warning a`)
	if shown := page.Text(".diff"); !strings.Contains(shown, "https://example.com/") {
		t.Errorf("the proposal shows %s", shown)
	}
	page.CheckAccessible()
	page.Screenshot("proposals")
	page.Type(`.proposal input[name="reason"]`, "looked at")
	page.Follow(".proposal button.primary")
	if said := page.Text("p.done"); !strings.HasPrefix(said, "Approved") {
		t.Errorf("after approving: %q", said)
	}
	events := h.events(schema.Filter{Stream: domain.TargetStream("guarded"), Types: []string{"target.changed"}, Limit: 10})
	if len(events) != 1 || events[0].Actor != "the-compliance" || !strings.Contains(string(events[0].Data), "the-operator") {
		t.Errorf("recorded: %+v", events)
	}
}

// Each act on the page of a target, as a form sends it.
func TestActsOnATarget(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	v := h.client(schema.RoleOperator)
	for _, act := range []struct {
		path    string
		form    url.Values
		done    string
		holding string // what the newest event about the target holds
	}{
		{"/move", url.Values{"url": {"https://inspector.example.com/"}, "reason": {"to try"}}, "moved", `"url":"https://inspector.example.com/"`},
		{"/move", url.Values{"url": {"https://inspector.example.com/"}, "reason": {"again"}}, "unchanged", `"reason":"to try"`},
		{"/rollback", url.Values{"version": {"1"}, "reason": {"it was better"}}, "saved", `"restores":1`},
		{"/pause", url.Values{"reason": {"they are migrating"}}, "paused", ""},
		{"/resume", url.Values{"reason": {"done"}}, "resumed", ""},
		{"/switch", url.Values{"to": {"disabled"}, "reason": {"over"}}, "disabled", `"over"`},
	} {
		h.catchUp()
		w := v.post(reward+act.path, act.form)
		if at := w.Header().Get("Location"); w.Code != http.StatusSeeOther || at != reward+"?done="+act.done {
			t.Fatalf("%s %v: %d, to %q, want %s", act.path, act.form, w.Code, at, act.done)
		}
		if events := h.events(schema.Filter{Stream: domain.TargetStream("klaviyo-reward-earned"), Descending: true, Limit: 1}); !strings.Contains(string(events[0].Data), act.holding) {
			t.Errorf("%s is recorded as %s", act.path, events[0].Data)
		}
	}
	for query, want := range map[string]string{"?from=1&to=2": "reward.amount", "?from=1&to=1": "They are the same", "?from=1&to=99": "no such version"} {
		if body := v.get(reward + query).Body.String(); !strings.Contains(body, want) {
			t.Errorf("comparing %s does not show %q", query, want)
		}
	}
	// A condition and a sample survive an edit that does not touch them.
	file := "name: A\nurl: https://example.com/\nbody: '{}'\ncondition: {\"===\": [1, 1]}\nsample: {\"b\": 1, \"a\": 2}\n"
	if w := v.post("/targets/whole/edit", url.Values{"file": {file}, "revision": {"0"}}); w.Code != http.StatusSeeOther {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	_, text, _ := strings.Cut(v.get("/targets/whole/edit").Body.String(), `required>`)
	text, _, _ = strings.Cut(text, "</textarea>")
	text = strings.NewReplacer("&#34;", `"`, "&#39;", "'", "&#43;", "+", "&lt;", "<", "&gt;", ">", "&amp;", "&").Replace(text)
	if w := v.post("/targets/whole/edit", url.Values{"file": {text}, "revision": {"1"}}); w.Header().Get("Location") != "/targets/whole?done=unchanged" {
		t.Errorf("saving what was not edited: %d, to %q; the file was\n%s", w.Code, w.Header().Get("Location"), text)
	}
}
