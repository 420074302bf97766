package api

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// waiting records a delivery that is still to be sent.
func (h *house) waiting() uuid.UUID {
	firing := uuid.New()
	id := domain.DeliveryID(firing, "reward")
	h.record(domain.DeliveryPlanned{
		DeliveryID: id, MaxAttempts: 8, BodySHA256: strings.Repeat("9f", 32), Body: `{}`, URL: "https://example.com",
		Firing:  domain.Firing{FiringID: firing, FiringPosition: 41, Reaction: "r", Cause: "reaction", Target: "reward", TargetVersion: 1, Platform: "klaviyo"},
		Consent: domain.Decision{Decision: "allowed", Reason: "no_rule"},
	})
	return id
}

func TestATargetIsHeldReleasedAndDiscarded(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	problem(t, h.call("operator", "POST", "/v1/targets/reward/pause", ""), http.StatusNotFound, "not-found")
	want[Target](t, h.call("operator", "PUT", "/v1/targets/reward", targetBody), http.StatusCreated)
	ids := []uuid.UUID{h.waiting(), h.waiting(), h.waiting()}
	h.catchUp()
	problem(t, h.call("operator", "POST", "/v1/targets/reward/resume", ""), http.StatusConflict, "delivery-state")
	problem(t, h.call("operator", "POST", "/v1/targets/reward/pause", `{"until":"2020-01-01T00:00:00Z"}`), http.StatusUnprocessableEntity, "invalid")
	if w := h.call("operator", "POST", "/v1/targets/reward/pause", `{"reason":"the offer is being corrected"}`); w.Code != http.StatusNoContent {
		t.Fatalf("pause: %d %s", w.Code, w.Body)
	}
	h.catchUp()
	problem(t, h.call("operator", "POST", "/v1/targets/reward/pause", ""), http.StatusConflict, "delivery-state")
	type list struct{ Items []QueuedTarget }
	got := want[list](t, h.call("operator", "GET", "/v1/queue", ""), http.StatusOK)
	if len(got.Items) != 1 || got.Items[0].Queued != 3 || got.Items[0].Pause == nil || got.Items[0].Pause.Cause != domain.PausedByOperator || got.Items[0].Pause.Until != nil {
		t.Errorf("queue = %+v, want three held by an operator until somebody resumes them", got.Items)
	}
	if d := want[Delivery](t, h.call("operator", "GET", "/v1/deliveries/"+ids[0].String(), ""), http.StatusOK); d.Outcome != domain.Held {
		t.Errorf("a delivery of a paused target is %s", d.Outcome)
	}

	problem(t, h.call("operator", "POST", "/v1/targets/reward/discard", `{}`), http.StatusUnprocessableEntity, "invalid")
	if got := want[Discarded](t, h.call("operator", "POST", "/v1/targets/reward/discard", `{"reason":"withdrawn","dry_run":true}`), http.StatusOK); got.Waiting != 3 || got.Cancelled != 0 {
		t.Errorf("counted %+v, want three and none cancelled", got)
	}
	if got := want[Discarded](t, h.call("operator", "POST", "/v1/targets/reward/discard", `{"reason":"withdrawn"}`), http.StatusOK); got.Waiting != 3 || got.Cancelled != 3 {
		t.Errorf("discarded %+v, want all three", got)
	}
	h.catchUp()
	if d := want[Delivery](t, h.call("operator", "GET", "/v1/deliveries/"+ids[1].String(), ""), http.StatusOK); d.Outcome != domain.Cancelled || *d.Detail != "withdrawn" {
		t.Errorf("a discarded delivery is %s: %v", d.Outcome, d.Detail)
	}
	if w := h.call("operator", "POST", "/v1/targets/reward/resume", `{"reason":"corrected"}`); w.Code != http.StatusNoContent {
		t.Fatalf("resume: %d %s", w.Code, w.Body)
	}
	h.catchUp()
	if got := want[list](t, h.call("operator", "GET", "/v1/queue", ""), http.StatusOK); len(got.Items) != 0 {
		t.Errorf("queue = %+v, want nothing", got.Items)
	}
}

func TestRetriesAreDescribedBeforeTheyAreSaved(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	type answer struct{ Schedules []domain.RetrySchedule }
	body := `{"retry":{"max_attempts":2,"timeout":"1m","base":"1h","max":"1h"},"due":"2026-11-26T12:00:00Z","zone":"Australia/Sydney"}`
	got := want[answer](t, h.call("operator", "POST", "/v1/retry-schedules", body), http.StatusOK)
	if len(got.Schedules) != 1 || got.Schedules[0].Words != "When an attempt fails: tries again within 1h1m after the first; gives up Friday 00:02 (27 November) at the latest." {
		t.Errorf("schedules = %+v", got.Schedules)
	}
	want[Target](t, h.call("operator", "PUT", "/v1/targets/reward", targetBody), http.StatusCreated)
	h.catchUp()
	got = want[answer](t, h.call("compliance", "POST", "/v1/retry-schedules", `{"handle":"reward"}`), http.StatusOK)
	if len(got.Schedules) != 1 || len(got.Schedules[0].Attempts) != 3 {
		t.Errorf("schedules of a target with three attempts = %+v", got.Schedules)
	}
	problem(t, h.call("operator", "POST", "/v1/retry-schedules", `{"handle":"nobody"}`), http.StatusNotFound, "not-found")
	p := problem(t, h.call("operator", "POST", "/v1/retry-schedules", `{"retry":{"on":{"9xx":{}}}}`), http.StatusUnprocessableEntity, "invalid")
	if len(p.Errors) != 1 || p.Errors[0].Pointer != "/retry/on/9xx" {
		t.Errorf("errors = %+v", p.Errors)
	}
	problem(t, h.call("operator", "POST", "/v1/retry-schedules", `{"zone":"Mars/Olympus"}`), http.StatusUnprocessableEntity, "invalid")
}

// failed records a delivery that was given up.
func (h *house) failed() uuid.UUID {
	id := h.waiting()
	h.record(domain.DeliveryAttempted{DeliveryID: id, Target: "reward", Attempt: 1, StartedAt: time.Unix(1, 0), Verdict: domain.Permanent, Outcome: domain.Failed, Status: 400})
	return id
}

func TestAReplayIsAskedForSeenAndCancelled(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	want[Target](t, h.call("operator", "PUT", "/v1/targets/reward", targetBody), http.StatusCreated)
	h.failed()
	h.failed()
	h.waiting()
	h.catchUp()
	problem(t, h.call("operator", "POST", "/v1/replays", `{"outcomes":["succeeded"]}`), http.StatusUnprocessableEntity, "invalid")
	counted := want[Replay](t, h.call("operator", "POST", "/v1/replays", `{"target":"reward","dry_run":true}`), http.StatusOK)
	if counted.ID != nil || counted.State != "counted" || counted.Selected != 2 || counted.Outcomes[domain.Failed] != 2 {
		t.Errorf("a dry run counts %+v, want two failed and no id", counted)
	}
	w := h.call("operator", "POST", "/v1/replays", `{"id":"018f5a1e-7c2b-7d4e-9a3f-5b6c7d8e9f01","target":"reward","rate":2,"reason":"mended"}`)
	asked := want[Replay](t, w, http.StatusAccepted)
	if asked.State != "running" || asked.Selected != 2 || w.Header().Get("Location") != "/v1/replays/"+asked.ID.String() {
		t.Errorf("asked for %+v at %q", asked, w.Header().Get("Location"))
	}
	if again := want[Replay](t, h.call("operator", "POST", "/v1/replays", `{"id":"018f5a1e-7c2b-7d4e-9a3f-5b6c7d8e9f01","target":"reward"}`), http.StatusAccepted); again.Rate != 2 {
		t.Errorf("asked for again it is another one: %+v", again)
	}
	type list struct{ Items []Replay }
	if got := want[list](t, h.call("analyst", "GET", "/v1/replays", ""), http.StatusOK); len(got.Items) != 1 || got.Items[0].Reason != "mended" {
		t.Errorf("listed are %+v", got.Items)
	}
	if w := h.call("operator", "POST", "/v1/replays/"+asked.ID.String()+"/cancel", ""); w.Code != http.StatusNoContent {
		t.Fatalf("cancel: %d %s", w.Code, w.Body)
	}
	problem(t, h.call("operator", "POST", "/v1/replays/"+asked.ID.String()+"/cancel", ""), http.StatusConflict, "delivery-state")
	problem(t, h.call("operator", "GET", "/v1/replays/"+uuid.NewString(), ""), http.StatusNotFound, "not-found")
	if got := want[Replay](t, h.call("operator", "GET", "/v1/replays/"+asked.ID.String(), ""), http.StatusOK); got.State != "cancelled" || got.Requeued != 0 {
		t.Errorf("it is %+v, want cancelled with nothing put back: no worker runs here", got)
	}
}

func TestASecretIsRetiredAndDeleted(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	problem(t, h.call("operator", "DELETE", "/v1/secrets/key", ""), http.StatusNotFound, "not-found")
	for _, value := range []string{"one", "two"} {
		if w := h.call("operator", "PUT", "/v1/secrets/key", `{"value":"`+value+`"}`); w.Code != http.StatusNoContent {
			t.Fatalf("set: %d %s", w.Code, w.Body)
		}
	}
	type list struct{ Items []schema.SecretInfo }
	rotating := func() (out []bool) {
		for _, s := range want[list](t, h.call("operator", "GET", "/v1/secrets", ""), http.StatusOK).Items {
			out = append(out, s.Overlap)
		}
		return out
	}
	if got := rotating(); !slices.Equal(got, []bool{true}) {
		t.Errorf("rotating: %v, want one that is", got)
	}
	if w := h.call("operator", "POST", "/v1/secrets/key/retire", ""); w.Code != http.StatusNoContent {
		t.Fatalf("retire: %d %s", w.Code, w.Body)
	}
	problem(t, h.call("operator", "POST", "/v1/secrets/key/retire", ""), http.StatusNotFound, "not-found")
	if got := rotating(); !slices.Equal(got, []bool{false}) {
		t.Errorf("rotating: %v, want one that is not", got)
	}
	if w := h.call("operator", "DELETE", "/v1/secrets/key", ""); w.Code != http.StatusNoContent {
		t.Fatalf("delete: %d %s", w.Code, w.Body)
	}
	if got := rotating(); got != nil {
		t.Errorf("a deleted secret is listed")
	}
	var recorded int
	if err := h.api.DB.QueryRowContext(t.Context(), `SELECT count(*) FROM events WHERE type IN ('secret.retired', 'secret.deleted')`).Scan(&recorded); err != nil || recorded != 2 {
		t.Errorf("%d events (%v), want one for each", recorded, err)
	}
}

func TestAnAttemptShowsTheSendersQuota(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	want[Target](t, h.call("operator", "PUT", "/v1/targets/reward", targetBody), http.StatusCreated)
	id := h.waiting()
	reset := time.Unix(1_800_000_000, 0).UTC()
	h.record(domain.DeliveryAttempted{
		DeliveryID: id, Target: "reward", Attempt: 1, StartedAt: time.Unix(1, 0), Verdict: domain.Accepted, Outcome: domain.Succeeded, Status: 202,
		RateLimit: &domain.RateLimit{Limit: 250, Remaining: 12, Reset: reset},
	})
	h.catchUp()
	d := want[Delivery](t, h.call("operator", "GET", "/v1/deliveries/"+id.String(), ""), http.StatusOK)
	if len(d.Attempts) != 1 || d.Attempts[0].RateLimit == nil || d.Attempts[0].RateLimit.Remaining != 12 || !d.Attempts[0].RateLimit.Reset.Equal(reset) {
		t.Errorf("attempts = %+v, want one with the quota that the answer told of", d.Attempts)
	}
}
