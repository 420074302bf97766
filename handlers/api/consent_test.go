package api

import (
	"net/http"
	"testing"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// What held, what was known, and both at once are three questions.
func TestConsentOnTwoClocks(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	path := "/v1/profiles/" + jane
	put := func(status, decided string) {
		t.Helper()
		w := h.call("privacy", "PUT", path+"/consent", `{"changes":[{"channel":"email","purpose":"promo","status":"`+status+`"}],"decided_by":"customer","decided_at":"2026-11-24T`+decided+`Z"}`)
		if w.Code != http.StatusOK {
			t.Fatal(w.Body)
		}
	}
	put("opted_in", "01:00:00")  // event 1
	put("opted_in", "05:00:00")  // event 2
	put("opted_out", "03:00:00") // event 3, heard of late
	put("opted_out", "07:00:00") // event 4
	for query, want4 := range map[string]struct {
		status   domain.ConsentStatus
		position int64
	}{
		"":                                       {"opted_out", 4},
		"?as_of=2026-11-24T06:00:00Z":            {"opted_in", 2},
		"?as_of=2026-11-24T04:00:00Z":            {"opted_out", 3},
		"?as_of=2026-11-24T04:00:00Z&position=2": {"opted_in", 1}, // what we believed then about that hour
		"?position=3":                            {"opted_in", 2},
		"?known_at=2999-01-01T00:00:00Z":         {"opted_out", 4},
	} {
		got := want[Consent](t, h.call("compliance", "GET", path+"/consent"+query, ""), http.StatusOK)
		if len(got.Items) != 1 || got.Items[0].Status != want4.status || got.Items[0].Position != want4.position {
			t.Errorf("consent%s = %+v, want %s by event %d", query, got.Items, want4.status, want4.position)
		}
	}
	if got := want[Consent](t, h.call("compliance", "GET", path+"/consent?known_at=2000-01-01T00:00:00Z", ""), http.StatusOK); len(got.Items) != 0 {
		t.Errorf("before anything was known = %+v", got.Items)
	}
	problem(t, h.call("compliance", "GET", path+"/consent?delivery="+uuid.NewString(), ""), http.StatusNotFound, "not-found")
}

func TestAMergedPersonKeepsBothHistories(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	winner, loser := uuid.NewString(), uuid.NewString()
	post := func(event string) {
		t.Helper()
		if w := h.call("emitter", "POST", "/v1/events", event, "Content-Type", "application/cloudevents+json"); w.Code != http.StatusAccepted {
			t.Fatal(w.Body)
		}
	}
	post(`{"specversion":"1.0","id":"1","source":"/crm","type":"consent.changed","data":{"profile_id":"` + winner + `","changes":[{"channel":"email","purpose":"promo","status":"opted_in"}],"decided_at":"2026-11-20T00:00:00Z","decided_by":"customer"}}`)
	post(`{"specversion":"1.0","id":"2","source":"/crm","type":"consent.changed","data":{"profile_id":"` + loser + `","changes":[{"channel":"email","purpose":"promo","status":"opted_out"}],"decided_at":"2026-11-10T00:00:00Z","decided_by":"customer"}}`)
	post(`{"specversion":"1.0","id":"3","source":"/crm","type":"profile.merged","data":{"winner_id":"` + winner + `","loser_id":"` + loser + `","merged_at":"2026-11-21T00:00:00Z"}}`)
	for _, id := range []string{winner, loser} {
		got := want[Consent](t, h.call("compliance", "GET", "/v1/profiles/"+id+"/consent", ""), http.StatusOK)
		if len(got.Items) != 1 || got.Items[0].Status != "opted_out" || got.Items[0].ProfileID.String() != loser || len(got.Merges) != 1 {
			t.Errorf("consent of %s = %+v, want the loser's opt-out", id, got)
		}
		history := want[Page[map[string]any]](t, h.call("compliance", "GET", "/v1/profiles/"+id+"/history", ""), http.StatusOK)
		if len(history.Items) != 2 {
			t.Errorf("history of %s = %+v, want both profiles' answers", id, history.Items)
		}
		before := want[Consent](t, h.call("compliance", "GET", "/v1/profiles/"+id+"/consent?position=2", ""), http.StatusOK)
		if len(before.Items) != 1 || before.Items[0].ProfileID.String() != id || len(before.Merges) != 0 {
			t.Errorf("before the merge, %s = %+v, want its own answer", id, before)
		}
	}
}

func TestConsentPolicy(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	const path = "/v1/consent/policy"
	w := h.call("analyst", "GET", path, "")
	type policy struct {
		ConsentPolicy
		Position int64 `json:"position"`
	}
	if got := want[policy](t, w, http.StatusOK); got.NeverAsked != "withhold" || got.Promptness.BusinessDays != 5 || got.Position != 0 || w.Header().Get("ETag") != `"0"` {
		t.Errorf("the default policy = %+v, ETag %s", got, w.Header().Get("ETag"))
	}
	const send = `{"never_asked":"send","channels":["email"],"until":"2027-01-31T00:00:00Z","imported":"accept","promptness":{"business_days":10,"calendar":"us","time_zone":"America/New_York"},"reason":"legal 118"}`
	changed := want[policy](t, h.call("admin", "PUT", path, send, "If-Match", `"0"`), http.StatusOK)
	if changed.Position == 0 || changed.NeverAsked != "send" {
		t.Errorf("the changed policy = %+v", changed)
	}
	problem(t, h.call("admin", "PUT", path, send, "If-Match", `"0"`), http.StatusPreconditionFailed, "version-mismatch")
	if got := want[policy](t, h.call("compliance", "GET", path, ""), http.StatusOK); got.Position != changed.Position || got.Promptness.Calendar != "us" || got.Until == nil {
		t.Errorf("the policy in force = %+v", got)
	}
	for body, pointer := range map[string]string{
		`{"never_asked":"send","imported":"accept","promptness":{"business_days":5,"calendar":"au","time_zone":"UTC"},"reason":"x"}`: "/until",
		`{"never_asked":"withhold","imported":"accept","promptness":{"business_days":5,"calendar":"mars","time_zone":"UTC"}}`:        "/promptness/calendar",
		`{"never_asked":"withhold","imported":"accept","promptness":{"business_days":5,"calendar":"au","time_zone":"Mars/Olympus"}}`: "/promptness/time_zone",
		`{"never_asked":"withhold","imported":"accept","promptness":{}}`:                                                             "/promptness",
	} {
		p := problem(t, h.call("admin", "PUT", path, body), http.StatusUnprocessableEntity, "invalid")
		if len(p.Errors) != 1 || p.Errors[0].Pointer != pointer {
			t.Errorf("%s: errors = %+v, want %s", body, p.Errors, pointer)
		}
	}
}
