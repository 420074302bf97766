package api

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
)

func TestTheQuestionsOfCompliance(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	person := uuid.MustParse(jane)
	firing := func(target string) (domain.Firing, uuid.UUID) {
		f := domain.Firing{FiringID: uuid.New(), Reaction: "reward", Cause: "reaction", Target: target, TargetVersion: 1, Platform: "klaviyo", ProfileID: person}
		return f, domain.DeliveryID(f.FiringID, target)
	}
	against, againstID := firing("record-only")
	late, lateID := firing("slow")
	held, heldID := firing("strict")
	for _, p := range []domain.Payload{
		domain.ConsentChanged{ProfileID: person, DecidedAt: h.clock.now(), DecidedBy: "import", Method: "=cmd()", Changes: []domain.ConsentChange{{Channel: domain.Email, Purpose: domain.Promo, Status: domain.OptedOut}}},
		domain.DeliveryPlanned{DeliveryID: againstID, Firing: against, BodySHA256: "00", MaxAttempts: 1, Consent: domain.Decision{Decision: domain.DecisionFlagged, Reason: "opted_out"}},
		domain.DeliveryAttempted{DeliveryID: againstID, Target: against.Target, ProfileID: person, Attempt: 1, StartedAt: h.clock.now(), Status: 202, Verdict: domain.Accepted, Outcome: domain.Succeeded},
		domain.DeliveryPlanned{DeliveryID: lateID, Firing: late, BodySHA256: "00", MaxAttempts: 1},
		domain.DeliveryAttempted{DeliveryID: lateID, Target: late.Target, ProfileID: person, Attempt: 1, StartedAt: h.clock.now(), Verdict: domain.Timeout, Outcome: domain.Failed},
		domain.DeliveryWithheld{DeliveryID: heldID, Firing: held, Reason: "consent", Detail: "opted out"},
	} {
		h.record(p)
	}
	h.catchUp()

	for name, tc := range map[string]struct {
		path string
		want uuid.UUID
	}{
		"sent to people who were opted out":     {"/v1/deliveries?against=opted_out", againstID},
		"firings that never became a delivery":  {"/v1/deliveries?outcome=withheld,rejected&reason=consent", heldID},
		"of a version of a target, in a period": {"/v1/deliveries?target=slow&version=1&from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z", lateID},
	} {
		page := want[Page[DeliverySummary]](t, h.call("compliance", "GET", tc.path, ""), http.StatusOK)
		if len(page.Items) != 1 || page.Items[0].ID != tc.want {
			t.Errorf("%s: %+v, want delivery %s alone", name, page.Items, tc.want)
		}
	}
	if u := want[Page[Unknown]](t, h.call("compliance", "GET", "/v1/audit/unknown-outcomes?open=true", ""), http.StatusOK); len(u.Items) != 1 || u.Items[0].DeliveryID != lateID {
		t.Errorf("unknown outcomes: %+v", u.Items)
	}
	counts := want[Page[deliveries.Count]](t, h.call("analyst", "GET", "/v1/audit/outcomes?reaction=reward&by=target", ""), http.StatusOK)
	if len(counts.Items) != 3 || counts.Items[0].Outcomes.Total() != 1 {
		t.Errorf("outcomes by target: %+v", counts.Items)
	}
	changes := want[Page[audit.RecordedChange]](t, h.call("privacy", "GET", "/v1/audit/consent-changes?status=opted_out&decided_by=import", ""), http.StatusOK)
	if len(changes.Items) != 1 || changes.Items[0].ProfileID != person || changes.Items[0].Source != "/test" {
		t.Errorf("consent changes: %+v", changes.Items)
	}
	if events := want[Page[Event]](t, h.call("compliance", "GET", "/v1/events?actor=test&type=delivery.withheld", ""), http.StatusOK); len(events.Items) != 1 || *events.Items[0].DeliveryID != heldID {
		t.Errorf("events of an actor and type: %+v", events.Items)
	}
	problem(t, h.call("compliance", "GET", "/v1/audit/consent-changes?status=maybe", ""), http.StatusUnprocessableEntity, "invalid")
	problem(t, h.call("compliance", "GET", "/v1/deliveries?against=gravity", ""), http.StatusUnprocessableEntity, "invalid")

	// Every list page by page, as CSV, whose Link header leads on.
	w := h.call("compliance", "GET", "/v1/deliveries?limit=2", "", "Accept", "text/csv")
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/csv") {
		t.Fatalf("CSV: %d %v %s", w.Code, w.Header(), w.Body)
	}
	rows, err := csv.NewReader(bytes.NewReader(w.Body.Bytes())).ReadAll()
	if err != nil || len(rows) != 3 || rows[0][0] != "id" || rows[1][0] != heldID.String() {
		t.Fatalf("CSV rows: %q, %v", rows, err)
	}
	next, ok := strings.CutPrefix(w.Header().Get("Link"), "<")
	next, _, ok2 := strings.Cut(next, `>; rel="next"`)
	if !ok || !ok2 {
		t.Fatalf("Link = %q", w.Header().Get("Link"))
	}
	w = h.call("compliance", "GET", next, "", "Accept", "text/csv")
	if rows, err := csv.NewReader(w.Body).ReadAll(); err != nil || len(rows) != 2 || rows[1][0] != againstID.String() || w.Header().Get("Link") != "" {
		t.Errorf("the last page: %q, %v, Link %q", rows, err, w.Header().Get("Link"))
	}
	if text := h.call("compliance", "GET", "/v1/audit/consent-changes", "", "Accept", "text/csv").Body.String(); !strings.Contains(text, ",'=cmd(),") {
		t.Errorf("a formula reaches the spreadsheet: %s", text)
	}
	problem(t, h.call("", "GET", "/v1/deliveries", "", "Accept", "text/csv"), http.StatusUnauthorized, "unauthenticated")
	problem(t, h.call("compliance", "GET", "/v1/deliveries?cursor=x", "", "Accept", "text/csv"), http.StatusUnprocessableEntity, "invalid")
}

func TestColumnsOfCSVAreTheFieldsOfJSON(t *testing.T) {
	t.Parallel()
	type inner struct {
		A int    `json:"a"`
		B *int64 `json:"b"`
	}
	type row struct {
		inner
		At     time.Time       `json:"at"`
		In     *inner          `json:"in"`
		List   []string        `json:"list"`
		Raw    json.RawMessage `json:"raw"`
		Hidden string          `json:"-"`
		Minus  float64         `json:"minus"`
		Text   string          `json:"text"`
	}
	seven := int64(7)
	var out bytes.Buffer
	err := WriteCSV(&out, []row{
		{At: time.Unix(0, 0).UTC(), In: &inner{1, &seven}, List: []string{"x"}, Raw: json.RawMessage(`{"k":1}`), Minus: -1.5, Text: "-x\"y\n"},
		{},
	}, true)
	if err != nil {
		t.Fatal(err)
	}
	const want = "a,b,at,in.a,in.b,list,raw,minus,text\n" +
		"0,,1970-01-01T00:00:00Z,1,7,\"[\"\"x\"\"]\",\"{\"\"k\"\":1}\",-1.5,\"'-x\"\"y\n\"\n" +
		"0,,0001-01-01T00:00:00Z,,,,,0,\n"
	if out.String() != want {
		t.Errorf("CSV =\n%s\nwant\n%s", out.String(), want)
	}
}
