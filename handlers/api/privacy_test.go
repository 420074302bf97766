package api

import (
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	desk "github.com/dispatch-ledger/dispatch-ledger/handlers/privacy"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// events lists the data of a person's events of a type, oldest first.
func (h *house) events(t *testing.T, eventType string) (found []Event) {
	t.Helper()
	return want[Page[Event]](t, h.call("admin", "GET", "/v1/events?order=asc&limit=500&type="+eventType, ""), http.StatusOK).Items
}

func TestAPersonIsErased(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	profile := uuid.MustParse(jane)
	h.call("operator", "POST", "/v1/events", cloudEvent("consent-1", "consent.changed", `{"profile_id":"`+jane+`","changes":[{"channel":"email","purpose":"promo","status":"opted_out"}],
		"decided_at":"2026-11-23T04:05:06Z","decided_by":"customer","contact":{"email":"Jane@Example.com"},"evidence":{"ip":"203.0.113.9"}}`), "Content-Type", "application/cloudevents+json")
	h.call("operator", "POST", "/v1/events", cloudEvent("fired-1", "reaction.fired", strings.Replace(firedData, `{"email":"jane@example.com"}`,
		`{"profile":{"email":"jane.private@example.com","mobile_phone":"+61491570156"}}`, 1)), "Content-Type", "application/cloudevents+json")
	firing := uuid.New()
	id := domain.DeliveryID(firing, "reward")
	h.record(domain.DeliveryPlanned{
		DeliveryID: id, MaxAttempts: 8, BodySHA256: strings.Repeat("9f", 32), Body: "jane@example.com", URL: "https://example.com",
		Firing:  domain.Firing{FiringID: firing, Reaction: "r", Cause: "reaction", Target: "reward", ProfileID: profile},
		Consent: domain.Decision{Decision: domain.DecisionNotRequired, Reason: "no_rule"}, DueAt: h.clock.now().Add(time.Hour),
	})
	h.catchUp()
	path := "/v1/profiles/" + jane + "/erasure"

	for name, body := range map[string]string{"no reason": `{}`, "an empty one": `{"reason":"  "}`, "one that names the person": `{"reason":"jane@example.com asked"}`} {
		if w := h.call("privacy", "POST", path, body); w.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	done := want[desk.Erasure](t, h.call("privacy", "POST", path, `{"reason":"ticket 4711"}`), http.StatusOK)
	if done.Already || done.By != "the-privacy" || done.Queued != 1 || done.Position == 0 {
		t.Errorf("erasure = %+v", done)
	}
	again := want[desk.Erasure](t, h.call("privacy", "POST", path, `{"reason":"ticket 4712"}`), http.StatusOK)
	if !again.Already || again.Position != done.Position || again.Reason != "ticket 4711" {
		t.Errorf("the second erasure = %+v, want the first", again)
	}
	erased := h.events(t, "profile.erased")
	if len(erased) != 1 || erased[0].Actor != "the-privacy" {
		t.Fatalf("profile.erased = %+v", erased)
	}
	// Every address is known by its hash: the one in the decision, and the two that only a sealed context named.
	for _, a := range []struct {
		channel domain.Channel
		address string
	}{{domain.Email, "jane@example.com"}, {domain.Email, "jane.private@example.com"}, {domain.SMS, "+61491570156"}, {domain.Phone, "+61491570156"}} {
		if hash := h.contactHash(a.channel, a.address); !strings.Contains(string(erased[0].Data), `{"channel":"`+string(a.channel)+`","hash":"`+hash+`"}`) {
			t.Errorf("the hash of %s is not in %s", a.address, erased[0].Data)
		}
	}
	for _, e := range h.events(t, "") {
		if e.ProfileID != nil && *e.ProfileID == profile && e.Sealed != nil && !e.Sealed.Erased {
			t.Errorf("event %d (%s) shows %+v", e.Position, e.Type, e.Sealed)
		}
	}
	h.catchUp()
	revealed := want[Delivery](t, h.call("privacy", "POST", "/v1/deliveries/"+id.String()+"/reveal", `{"reason":"ticket 4713"}`), http.StatusOK)
	if revealed.Request.Revealed != nil || !revealed.Request.Erased {
		t.Errorf("revealed after the erasure: %+v", revealed.Request)
	}
	if got := want[Consent](t, h.call("privacy", "GET", "/v1/profiles/"+jane+"/consent", ""), http.StatusOK); !got.Erased || len(got.Items) != 1 || got.Items[0].Status != domain.OptedOut {
		t.Errorf("consent after the erasure = %+v, want the opt-out kept", got)
	}
	if report, err := projections.NewEngine(h.api.DB, "", nil, definitions...).Verify(t.Context()); err != nil || !report.OK() {
		t.Errorf("Verify = %+v, %v", report, err)
	}
}

func TestSealedDataIsShownToWhoeverSaysWhy(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	profile := uuid.MustParse(jane)
	firing := uuid.New()
	id := domain.DeliveryID(firing, "reward")
	planned := h.record(domain.DeliveryPlanned{
		DeliveryID: id, MaxAttempts: 8, BodySHA256: strings.Repeat("9f", 32), Firing: domain.Firing{FiringID: firing, Reaction: "r", Cause: "reaction", Target: "reward", ProfileID: profile},
		Consent: domain.Decision{Decision: domain.DecisionNotRequired, Reason: "no_rule"},
		URL:     "https://example.com", Headers: map[string]string{"Authorization": "Key __secret_XYZ_my_key~"}, Body: `{"email":"jane@example.com","k":"__secret_XYZ_other.key~"}`, Placeholder: "__secret_XYZ_",
	})
	h.catchUp()
	shown := h.call("compliance", "POST", "/v1/deliveries/"+id.String()+"/reveal", `{"reason":"complaint 17"}`)
	delivery := want[Delivery](t, shown, http.StatusOK)
	if body := string(delivery.Request.Revealed); !strings.Contains(body, "jane@example.com") || !strings.Contains(body, "Key ••••") || strings.Contains(body, "XYZ") {
		t.Errorf("request = %s, want it open and the secrets masked", body)
	}
	event := want[Event](t, h.call("privacy", "POST", "/v1/events/1/reveal", `{"reason":"complaint 18"}`), http.StatusOK)
	if event.Position != planned.Position || !strings.Contains(string(event.Sealed.Revealed), "jane@example.com") {
		t.Errorf("event = %+v", event.Sealed)
	}
	var reasons []string
	for _, e := range h.events(t, "sealed.revealed") {
		reasons = append(reasons, e.Actor+" "+string(e.Data))
	}
	if all := strings.Join(reasons, "\n"); len(reasons) != 2 || !strings.Contains(all, "the-compliance ") || !strings.Contains(all, "complaint 18") || !strings.Contains(all, jane) {
		t.Errorf("recorded = %s", all)
	}
	problem(t, h.call("compliance", "POST", "/v1/deliveries/"+uuid.NewString()+"/reveal", `{"reason":"x"}`), http.StatusNotFound, "not-found")
	problem(t, h.call("compliance", "POST", "/v1/events/4711/reveal", `{"reason":"x"}`), http.StatusNotFound, "not-found")
}

func TestEverythingHeldOnAPersonIsHandedOut(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	profile := uuid.MustParse(jane)
	h.deliver("reward-earned", profile, domain.Succeeded)
	h.deliver("somebody-else", uuid.New(), domain.Succeeded)
	h.catchUp()
	path := "/v1/profiles/" + jane + "/access"
	problem(t, h.call("privacy", "GET", path, ""), http.StatusUnprocessableEntity, "invalid")
	held := want[desk.Access](t, h.call("privacy", "GET", path, "", "Reveal-Reason", "ticket 1"), http.StatusOK)
	types := []string{}
	for _, e := range held.Events {
		types = append(types, e.Type)
		if e.Seal == "sealed" && !strings.Contains(string(e.Sealed), "jane@example.com") {
			t.Errorf("%s comes without its sealed part: %+v", e.Type, e)
		}
	}
	if !slices.Equal(types, []string{"delivery.planned", "delivery.attempted", "sealed.revealed"}) || len(held.Messages) != 1 || held.Messages[0].Outcome != domain.Succeeded {
		t.Errorf("held = %v, %+v", types, held.Messages)
	}
	page := h.call("privacy", "GET", path+".html", "", "Reveal-Reason", "ticket 1")
	if !strings.HasPrefix(page.Header().Get("Content-Type"), "text/html") || !strings.Contains(page.Body.String(), "jane@example.com") || strings.Contains(page.Body.String(), "<script") {
		t.Errorf("page = %s %s", page.Header().Get("Content-Type"), page.Body)
	}
}

func TestRetentionEnds(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	profile := uuid.MustParse(jane)
	old := h.deliver("old", profile, domain.Succeeded)
	h.clock.move(31 * 24 * time.Hour)
	recent := h.deliver("recent", profile, domain.Succeeded)
	h.catchUp()
	for name, tc := range map[string]struct{ path, body string }{
		"no such type":        {"nothing.happened", `{"days":30,"reason":"x"}`},
		"nothing sealed":      {"target.changed", `{"days":30,"reason":"x"}`},
		"no reason":           {"delivery.planned", `{"days":30}`},
		"a negative time":     {"delivery.planned", `{"days":-1,"reason":"x"}`},
		"longer than for all": {"delivery.planned", `{"days":100000,"reason":"x"}`},
	} {
		if w := h.call("privacy", "PUT", "/v1/retentions/"+tc.path, tc.body); w.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	want[desk.Retention](t, h.call("privacy", "PUT", "/v1/retentions/delivery.planned", `{"days":30,"reason":"decision 9"}`), http.StatusOK)
	keeper, err := desk.NewKeeper(h.api.desk(), h.api.Log, nil)
	if err != nil {
		t.Fatal(err)
	}
	// A test's request in the inspector is a rendered body too.
	now := h.clock.now()
	inspected := func(at time.Time) int {
		t.Helper()
		i := schema.NewInspector(h.api.DB, h.api.Vault, func() time.Time { return at })
		b, err := i.Create(t.Context(), "test", schema.BinLongest, 0)
		if err == nil {
			_, _, err = i.Capture(t.Context(), b.ID, profile, schema.Inspected{Method: "POST", Body: []byte("jane@example.com")})
		}
		if err == nil {
			err = keeper.Round(t.Context())
		}
		found, err2 := i.Requests(t.Context(), b.ID, 0, 10)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	if old, recent := inspected(now.Add(-32*24*time.Hour)), inspected(now.Add(-29*24*time.Hour)); old != 0 || recent != 1 {
		t.Errorf("of what was inspected 32 days ago %d are kept, of what was 29 days ago %d; want 0 and 1", old, recent)
	}
	for range 2 { // the second finds nothing to do
		if err := keeper.Round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	get := func(of uuid.UUID) Delivery {
		return want[Delivery](t, h.call("compliance", "GET", "/v1/deliveries/"+of.String(), ""), http.StatusOK)
	}
	if d := get(old); !d.Request.Expired || d.Attempts[0].Response.Expired || !d.Attempts[0].Response.Sealed {
		t.Errorf("after 31 days the request is %+v and the answer %+v, want expired and sealed", d.Request, d.Attempts[0].Response)
	}
	if d := get(recent); !d.Request.Sealed {
		t.Errorf("the recent request is %+v, want sealed", d.Request)
	}
	if w := h.call("privacy", "POST", "/v1/deliveries/"+old.String()+"/reveal", `{"reason":"ticket 1"}`); !strings.Contains(w.Body.String(), `"expired":true`) {
		t.Errorf("revealed = %s", w.Body)
	}
	ended := h.events(t, "retention.ended")
	if len(ended) != 1 || !strings.Contains(string(ended[0].Data), `"days":1`) {
		t.Errorf("retention.ended = %+v", ended)
	}
	list := want[struct{ Items []desk.Retention }](t, h.call("compliance", "GET", "/v1/retentions", ""), http.StatusOK)
	if len(list.Items) != 1 || list.Items[0].Days != 30 || list.Items[0].ChangedBy != "the-privacy" || list.Items[0].EndedTo == "" {
		t.Errorf("retentions = %+v", list.Items)
	}
}

// contactHash is how an address appears in the ledger.
func (h *house) contactHash(channel domain.Channel, address string) string {
	return hex.EncodeToString(h.api.Vault.ContactHash(string(channel), address))
}
