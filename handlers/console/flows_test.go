package console

import (
	"context"
	"encoding/csv"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/browsertest"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/dispatcher"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// What happens is to be seen without a reload.
func TestThePageFollowsTheLedger(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	page := h.signIn(t, schema.RoleCompliance, "/ledger", browsertest.View{})
	before := page.Text("#live")
	h.record("somebody", domain.TokenRevoked{Name: "engine"})
	page.WaitUntil(`document.getElementById("live").textContent.trim() !== ` + "`" + before + "`")
}

// Whoever erases somebody is told first what that does, and what it leaves.
func TestErasingAPersonInABrowser(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	person := h.people[2].String()
	page := h.signIn(t, schema.RolePrivacy, "/people/"+person, browsertest.View{})
	page.Follow(".acts a.danger")
	told := page.Text("main")
	for _, want := range []string{"email/all", "which are withheld", "cannot be called back"} {
		if !strings.Contains(told, want) {
			t.Errorf("before, the page does not say %q: %s", want, told)
		}
	}
	page.CheckAccessible()
	page.Screenshot("erase")
	page.Type(`.acts input[name="reason"]`, "request 17 of 3 March")
	page.Type(`.acts input[name="confirm"]`, person[:8])
	page.Follow(".acts button.danger")
	page.CheckStatus(http.StatusOK)
	if said := page.Text("h1"); !strings.Contains(said, "erased") {
		t.Errorf("afterwards the page is headed %q", said)
	}
	if _, erased, err := h.vault.Erasure(t.Context(), h.people[2]); err != nil || !erased {
		t.Errorf("the vault: erased %v, %v", erased, err)
	}
}

// The privacy desk records an answer and gives somebody what is held on them, and who looked is on the page.
func TestThePrivacyDesk(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	person := "/people/" + h.people[3].String()
	desk := h.client(schema.RolePrivacy)
	answer := url.Values{"channel": {"phone"}, "purpose": {"promo"}, "status": {"opted_out"}, "decided_by": {"customer"}, "decided_at": {"2026-03-03T10:00"}, "method": {"letter"}, "evidence": {"letter 12"}}
	if w := desk.post(person+"/consent", answer); w.Code != http.StatusSeeOther {
		t.Fatalf("recording: %d %s", w.Code, w.Body)
	}
	answer.Set("channel", "pigeon")
	if w := desk.post(person+"/consent", answer); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("an answer for no channel: %d", w.Code)
	}
	if w := desk.post(person+"/access", nil); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("access without a reason: %d", w.Code)
	}
	w := desk.post(person+"/access", url.Values{"reason": {"request 16"}})
	if w.Code != http.StatusOK || !strings.Contains(w.Header().Get("Content-Disposition"), "attachment") || !strings.Contains(w.Body.String(), "phone") {
		t.Errorf("access: %d %v", w.Code, w.Header())
	}
	h.catchUp()
	page := desk.get(person).Body.String()
	for _, want := range []string{"phone/promo", "3 Mar 10:00:00", "request 16", "the-privacy"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not show %q", want)
		}
	}
}

// A projection is rebuilt, and the page shows how far that has come without being loaded again.
func TestRebuildingInABrowser(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	page := h.signIn(t, schema.RoleOperator, "/projections", browsertest.View{})
	page.Follow(`form[action="/projections/consent/rebuild"] button`)
	page.WaitFor("progress")
	const bar = `document.querySelector("progress")`
	moving, seen := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		d, err := h.engine.Find("consent")
		if err == nil {
			var once sync.Once
			err = h.engine.Rebuild(context.WithoutCancel(t.Context()), d, projections.RebuildOptions{Slice: 40, By: "test", Progress: func(projections.Progress) {
				once.Do(func() { close(moving); <-seen })
			}})
		}
		ended <- err
	}()
	<-moving
	page.WaitUntil(bar + " && " + bar + ".value > 0 && " + bar + ".value < " + bar + ".max")
	page.CheckAccessible()
	page.Screenshot("rebuilding")
	close(seen)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	page.WaitUntil(bar + " === null")
	page.WaitFor(`form[action="/projections/consent/rebuild"] button`)
}

// Somebody without a mouse narrows the list of deliveries and opens one of it.
func TestFilteringByKeyboard(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	page := h.signIn(t, schema.RoleCompliance, "/deliveries", browsertest.View{})
	page.Press(kb.Tab)
	focused(t, page, ".skip")
	page.Press(kb.Enter) // past the menu
	tabTo(page, `input[name="target"]`)
	page.Press("klaviyo-reward-earned")
	tabTo(page, `input[value="failed"]`)
	page.Press(" ")
	page.FollowByKey(kb.Enter)
	if at := page.URL(); !strings.Contains(at, "outcome=failed") || !strings.Contains(at, "target=klaviyo-reward-earned") {
		t.Errorf("the list is at %s", at)
	}
	var badges []string
	page.Eval(`[...new Set([...document.querySelectorAll("tbody .badge")].map(b => b.textContent))]`, &badges)
	if len(badges) != 1 || badges[0] != "failed" {
		t.Errorf("the list shows %q", badges)
	}
	tabTo(page, `tbody a[href^="/deliveries/"]`)
	page.FollowByKey(kb.Enter)
	if heading := page.Text("h1"); !strings.HasPrefix(heading, "Delivery") {
		t.Errorf("the row leads to %q", heading)
	}
	tabTo(page, ".acts summary")
	page.Press(kb.Enter)
	page.WaitFor(`.acts input[name="reason"]`)
}

// What failed is counted, put back by a worker while the page shows how far it has come, and asked for once however often the
// form is sent.
func TestReplayingInABrowser(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	page := h.signIn(t, schema.RoleOperator, "/deliveries?outcome=failed", browsertest.View{})
	page.Follow(`a[href^="/replays"]`)
	page.Follow(`button[name="count"]`)
	if text := page.Text(".counted"); !strings.Contains(text, "5 deliveries fit") {
		t.Errorf("it counts %s", text)
	}
	page.CheckAccessible()
	page.Screenshot("replays")
	page.Type(`.counted input[name="rate"]`, "20")
	page.Type(`.counted input[name="reason"]`, "Klaviyo was down")
	page.Follow(".counted button.danger")
	page.WaitFor(".acts button.danger") // it may be stopped
	controls := dispatcher.Controls{DB: h.console.DB, Ledger: h.ledger, Vault: h.vault, Now: time.Now}
	if err := controls.WorkReplay(t.Context(), uuid.MustParse(path.Base(strings.Split(page.URL(), "?")[0])), nil); err != nil {
		t.Fatal(err)
	}
	page.WaitUntil(`document.querySelector("#live strong").textContent === "5" && document.querySelector("h1 .badge").textContent === "done"`)
	page.CheckAccessible()
	page.Screenshot("replay")
	if n := len(h.events(schema.Filter{Types: []string{"delivery.requeued"}, Limit: 50})); n != 5 {
		t.Errorf("%d were put back", n)
	}
	asked := h.events(schema.Filter{Types: []string{"replay.asked"}, Limit: 50})
	if len(asked) != 1 || asked[0].Actor != "the-operator" || !strings.Contains(string(asked[0].Data), "Klaviyo was down") {
		t.Errorf("asked: %+v", asked)
	}
	v := h.client(schema.RoleOperator)
	form := url.Values{"id": {uuid.NewString()}, "outcome": {"cancelled"}, "reason": {"twice"}}
	v.post("/replays", form)
	if w := v.post("/replays", form); w.Code != http.StatusSeeOther {
		t.Errorf("the same form again: %d", w.Code)
	}
	if asked := h.events(schema.Filter{Types: []string{"replay.asked"}, Limit: 50}); len(asked) != 2 {
		t.Errorf("asked for %d times, want once more", len(asked))
	}
}

// Each list is to be had as a table, whole, with the filters of the page.
func TestEachListIsExported(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.furnish()
	v := h.client(schema.RoleAdmin)
	for path, want := range map[string]string{
		"/deliveries?outcome=withheld": "6 withheld", "/deliveries/unknown": "1 timeout", "/consent-changes?status=opted_out": "4 opted_out", "/ledger?type=target.changed": "2 target.changed",
		"/targets": "1 klaviyo-reward-earned", "/reconciliation": "7 klaviyo", "/reconciliation/" + h.runs["done"].String(): "1 missing_here", "/findings": "2 klaviyo", "/opt-outs": "4 ",
	} {
		page := v.get(path).Body.String()
		if !strings.Contains(page, "format=csv") {
			t.Errorf("%s offers no export", path)
		}
		join := "?"
		if strings.Contains(path, "?") {
			join = "&"
		}
		w := v.get(path + join + "format=csv")
		rows, err := csv.NewReader(w.Body).ReadAll()
		if err != nil || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/csv") {
			t.Errorf("%s as CSV: %v %v", path, err, w.Header())
			continue
		}
		number, holds, _ := strings.Cut(want, " ")
		n := 0
		for _, row := range rows[1:] {
			if strings.Contains(strings.Join(row, ","), holds) {
				n++
			}
		}
		if strconv.Itoa(n) != number || n != len(rows)-1 {
			t.Errorf("%s as CSV has %d rows, %d of them with %q, want %s", path, len(rows)-1, n, holds, number)
		}
	}
}

// An export is the whole list, each row once, however many times it has to read.
func TestAnExportGoesOn(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	const acts = 2*csvStep + 1
	h.record("privacy", slices.Repeat([]domain.Payload{domain.RetentionChanged{Type: "delivery.planned", Days: 90, Reason: "a quarter"}}, acts)...)
	rows, err := csv.NewReader(h.client(schema.RoleAdmin).get("/ledger?type=retention.changed&cursor=anything&format=csv").Body).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	positions := map[string]bool{}
	for _, row := range rows {
		positions[row[slices.Index(rows[0], "position")]] = true
	}
	if len(rows) != acts+1 || len(positions) != acts+1 {
		t.Errorf("%d rows, %d of them different; want %d and a heading", len(rows), len(positions), acts)
	}
}
