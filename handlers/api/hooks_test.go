package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/omneo"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/contacts"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

const hookSecret = "a secret between two"

// crm is a house whose webhooks are set up.
func crm(t *testing.T) *house {
	t.Helper()
	h := newHouse(t)
	if _, err := h.api.Vault.SetSecret(t.Context(), h.api.DB, omneo.SecretName, hookSecret, "test"); err != nil {
		t.Fatal(err)
	}
	return h
}

func signature(secret, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

func (h *house) hook(t *testing.T, event, body string) omneo.Taken {
	t.Helper()
	return want[omneo.Taken](t, h.call("", "POST", "/v1/hooks/omneo?event="+event, body, "X-Omneo-Hmac-SHA256", signature(hookSecret, body)), http.StatusOK)
}

// held is what holds for a profile on email, by purpose.
func (h *house) held(t *testing.T, profile string) map[domain.Purpose]consent.Entry {
	t.Helper()
	got := want[Consent](t, h.call("compliance", "GET", "/v1/profiles/"+profile+"/consent", ""), http.StatusOK)
	out := map[domain.Purpose]consent.Entry{}
	for _, e := range got.Items {
		if e.Channel == domain.Email {
			out[e.Purpose] = e
		}
	}
	return out
}

func profileBody(id, comms, more string) string {
	return `{"id":"` + id + `"` + more + `,"attributes":{"comms":{` + comms + `}}}`
}

func TestWhoMaySendHooks(t *testing.T) {
	t.Parallel()
	h := crm(t)
	body := profileBody(jane, `"email_promo":true`, "")
	stamp := h.clock.now().Format(time.RFC3339)
	stale := h.clock.now().Add(-6 * time.Minute).Format(time.RFC3339)
	send := func(with ...string) *httptest.ResponseRecorder {
		return h.call("", "POST", "/v1/hooks/omneo?event=profile.updated", body, with...)
	}
	for name, with := range map[string][]string{
		"no signature":          nil,
		"another secret":        {"X-Omneo-Hmac-SHA256", signature("another", body)},
		"over another body":     {"X-Omneo-Hmac-SHA256", signature(hookSecret, body+" ")},
		"no hex":                {"X-Omneo-Hmac-SHA256", "zz"},
		"outside the window":    {"X-Omneo-Hmac-SHA256", signature(hookSecret, body), "X-Omneo-Timestamp", stale},
		"a time that is not":    {"X-Omneo-Hmac-SHA256", signature(hookSecret, body), "X-Omneo-Timestamp", "yesterday"},
		"another's signed time": {"X-Omneo-Hmac-SHA256", signature(hookSecret, stale+"."+body), "X-Omneo-Timestamp", stamp},
	} {
		problem(t, send(with...), http.StatusUnauthorized, "bad-signature")
		if head, err := h.api.Ledger.Head(t.Context()); err != nil || head != 0 {
			t.Fatalf("%s: %d events recorded, %v", name, head, err)
		}
	}
	for name, with := range map[string][]string{
		"signed":                   {"X-Omneo-Hmac-SHA256", strings.ToUpper(signature(hookSecret, body))},
		"signed with its time":     {"X-Omneo-Hmac-SHA256", signature(hookSecret, stamp+"."+body), "X-Omneo-Timestamp", stamp},
		"in the window, unsigned":  {"X-Omneo-Hmac-SHA256", signature(hookSecret, body), "X-Omneo-Timestamp", stamp},
		"the time in Unix seconds": {"X-Omneo-Hmac-SHA256", signature(hookSecret, body), "X-Omneo-Timestamp", "1795510800"},
	} {
		if w := send(with...); w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

func TestHooksThatCannotBeRead(t *testing.T) {
	t.Parallel()
	h := crm(t)
	for body, pointer := range map[string]string{
		`[]`:            "",
		`{"id":"jane"}`: "/id",
		`{"event":"profile.merged","winner_id":"` + jane + `"}`:                           "/loser_id",
		`{"event":"profile.merged","winner_id":"` + jane + `","loser_id":"` + jane + `"}`: "/loser_id",
		`{"event":"profile.merged","loser_id":"` + jane + `"}`:                            "/winner_id",
	} {
		w := h.call("", "POST", "/v1/hooks/omneo", body, "X-Omneo-Hmac-SHA256", signature(hookSecret, body))
		if p := problem(t, w, http.StatusUnprocessableEntity, "invalid"); len(p.Errors) != 1 || p.Errors[0].Pointer != pointer {
			t.Errorf("%s: errors = %+v, want %q", body, p.Errors, pointer)
		}
	}
	if got := h.hook(t, "transaction.created", `{"id":"t-1","profile_id":"`+jane+`"}`); got.Ignored == "" || len(got.Events) != 0 {
		t.Errorf("a hook about something else = %+v", got)
	}
	odd := h.hook(t, "profile.updated", profileBody(jane, `"email_promo":true,"email_vibes":1,"sms_promo":"maybe"`, `,"email":"not an address","mobile_phone":"+61 491 570 156"`))
	if len(odd.Unread) != 3 || h.held(t, jane)[domain.Promo].Status != domain.OptedIn {
		t.Errorf("odd fields = %+v, want the rest recorded", odd)
	}
}

// The CRM's last values become the history that it does not keep.
func TestWhatHooksBecome(t *testing.T) {
	t.Parallel()
	h := crm(t)
	at := func(clock string) string {
		return `,"updated_at":"2026-11-24 ` + clock + `","created_at":"2026-01-02 03:04:05"`
	}

	first := h.hook(t, "profile.created", profileBody(jane, `"email_promo":true,"email_optout":false,"sms_promo":null,"email_discover":false`, at("01:00:00")+`,"email":"jane@example.com"`))
	if len(first.Events) != 3 { // the snapshot, the opt-in since January, the opt-out since now
		t.Errorf("the first hook = %+v", first)
	}
	got := h.held(t, jane)
	if promo := got[domain.Promo]; promo.DecidedBy != "import" || !promo.DecidedAt.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("what was there from the start = %+v, want it dated by the profile's creation", promo)
	}
	if len(got) != 2 || got[domain.Discover].Status != domain.OptedOut {
		t.Errorf("held = %+v, want nothing made of null and of not being opted out", got)
	}

	again := h.hook(t, "profile.created", profileBody(jane, `"email_promo":true,"email_optout":false,"sms_promo":null,"email_discover":false`, at("01:00:00")+`,"email":"jane@example.com"`))
	if !again.Duplicate || len(again.Events) != 0 {
		t.Errorf("the same hook again = %+v", again)
	}

	h.hook(t, "profile.updated", profileBody(jane, `"email_promo":false,"email_consent_updated_at":"2026-11-24T01:30:00Z"`, at("02:00:00")))
	if promo := h.held(t, jane)[domain.Promo]; promo.Status != domain.OptedOut || promo.DecidedBy != "customer" || !promo.DecidedAt.Equal(time.Date(2026, 11, 24, 1, 30, 0, 0, time.UTC)) {
		t.Errorf("a customer's decision = %+v", promo)
	}
	h.hook(t, "profile.updated", profileBody(jane, `"email_promo":true,"email_consent_updated_at":"2026-11-24T01:30:00Z"`, at("03:00:00")))
	if promo := h.held(t, jane)[domain.Promo]; promo.Status != domain.OptedIn || promo.DecidedBy != "admin" {
		t.Errorf("an edit beside the customer's old time = %+v, want it told apart", promo)
	}
	h.hook(t, "profile.updated", profileBody(jane, `"email_promo":true,"email_bounced":true,"email_consent_updated_at":"2026-11-24T01:30:00Z"`, at("04:00:00")+`,"email":"jane@example.com"`))
	if promo := h.held(t, jane)[domain.Promo]; promo.Status != domain.OptedIn || promo.DecidedBy != "admin" || len(h.held(t, jane)) != 2 {
		t.Errorf("after a bounce = %+v, want consent as it was", promo)
	}
	h.catchUp()
	known, err := consent.Look(t.Context(), h.api.DB, []uuid.UUID{uuid.MustParse(jane)})
	if err != nil || known.View(uuid.MustParse(jane), domain.Email).Address.Status != domain.AddressBounced {
		t.Errorf("the address = %+v, %v, want it bounced", known.View(uuid.MustParse(jane), domain.Email).Address, err)
	}
	h.hook(t, "profile.updated", profileBody(jane, `"email_promo":true`, at("05:00:00")+`,"email":"jane.new@example.com"`))
	h.catchUp()
	if known, err = consent.Look(t.Context(), h.api.DB, []uuid.UUID{uuid.MustParse(jane)}); err != nil || known.View(uuid.MustParse(jane), domain.Email).Address.Blocks() {
		t.Errorf("the new address = %+v, %v, want nothing known against it", known.View(uuid.MustParse(jane), domain.Email).Address, err)
	}
	addresses := want[Page[contacts.Address]](t, h.call("compliance", "GET", "/v1/profiles/"+jane+"/addresses", ""), http.StatusOK).Items
	if len(addresses) != 2 || !addresses[0].Current || addresses[1].Current || addresses[1].Fact == nil || addresses[1].Fact.Status != domain.AddressBounced {
		t.Errorf("addresses = %+v, want one current, and a former one that bounced", addresses)
	}
}

// An opt-out that reached the ledger first stands until the CRM has shown that it knows of it: a webhook carries the
// whole profile, and one sent about something else must not turn it round.
func TestAStaleSnapshotUndoesNoOptOut(t *testing.T) {
	t.Parallel()
	h := crm(t)
	at := func(clock string) string { return `,"updated_at":"2026-11-24 ` + clock + `"` }
	h.hook(t, "profile.created", profileBody(jane, `"email_promo":false`, at("01:00:00")))
	if w := h.call("privacy", "PUT", "/v1/profiles/"+jane+"/consent", `{"changes":[{"channel":"email","purpose":"promo","status":"opted_out"}],"decided_by":"customer","method":"preference_centre","decided_at":"2026-11-24T02:00:00Z"}`); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	h.hook(t, "profile.updated", profileBody(jane, `"email_promo":true`, at("03:00:00"))) // changed some time after 01:00, nobody knows when
	if got := h.held(t, jane)[domain.Promo]; got.Status != domain.OptedOut || got.Method != "preference_centre" {
		t.Errorf("after an edit that may be older = %+v, want the customer's opt-out", got)
	}
	h.hook(t, "profile.updated", profileBody(jane, `"email_promo":false`, at("04:00:00"))) // now it knows
	h.hook(t, "profile.updated", profileBody(jane, `"email_promo":true`, at("05:00:00")))
	if got := h.held(t, jane)[domain.Promo]; got.Status != domain.OptedIn {
		t.Errorf("after an edit that is later for certain = %+v, want it to count", got)
	}
	old := profileBody(jane, `"email_promo":true`, "")
	h.clock.move(time.Hour)
	h.hook(t, "profile.updated", old) // no time of its own: by its arrival
	h.clock.move(time.Hour)
	h.hook(t, "profile.updated", profileBody(jane, `"email_promo":false`, ""))
	h.clock.move(time.Hour)
	if h.hook(t, "profile.updated", old); h.held(t, jane)[domain.Promo].Status != domain.OptedOut {
		t.Errorf("an old webhook sent again = %+v, want it to permit nothing", h.held(t, jane)[domain.Promo])
	}
}

func TestMergedAndDeletedProfiles(t *testing.T) {
	t.Parallel()
	h := crm(t)
	winner, loser, other := uuid.NewString(), uuid.NewString(), uuid.NewString()
	h.hook(t, "profile.created", profileBody(winner, `"email_promo":true,"email_consent_updated_at":"2026-11-20T00:00:00Z"`, ""))
	h.hook(t, "profile.created", profileBody(loser, `"email_promo":false,"email_consent_updated_at":"2026-11-10T00:00:00Z"`, ""))
	merged := `{"winner_id":"` + winner + `","loser_id":"` + loser + `"}`
	if got := h.hook(t, "profile.merged", merged); len(got.Events) != 1 || got.Events[0].Type != "profile.merged" {
		t.Errorf("a merge = %+v", got)
	}
	for _, spelt := range []string{merged, `{"source_profile_id":"` + loser + `","destination_profile_id":"` + winner + `","merged_at":"2026-11-24 00:00:00"}`} {
		if got := h.hook(t, "profile.merged", spelt); len(got.Events) != 0 {
			t.Errorf("the same merge again = %+v", got)
		}
	}
	if got := h.held(t, winner)[domain.Promo]; got.Status != domain.OptedOut || got.ProfileID.String() != loser {
		t.Errorf("the winner = %+v, want the loser's opt-out", got)
	}
	h.hook(t, "profile.created", profileBody(other, `"email_promo":false`, ""))
	h.hook(t, "profile.updated", `{"id":"`+winner+`","identities":[{"handle":"klaviyo","identifier":"01H","merged_from":"`+other+`"}]}`)
	if got := want[Consent](t, h.call("compliance", "GET", "/v1/profiles/"+winner+"/consent", ""), http.StatusOK); len(got.Merges) != 2 {
		t.Errorf("merges = %+v, want the one that only the identities tell of", got.Merges)
	}
	h.hook(t, "profile.deleted", `{"id":"`+loser+`"}`)
	h.catchUp()
	known, err := consent.Look(t.Context(), h.api.DB, []uuid.UUID{uuid.MustParse(loser)})
	if err != nil || known.View(uuid.MustParse(loser), domain.Email).Deleted == nil {
		t.Errorf("the deleted profile = %+v, %v", known.View(uuid.MustParse(loser), domain.Email), err)
	}
}

func TestTheSameHookManyTimesAtOnce(t *testing.T) {
	t.Parallel()
	h := crm(t)
	body := profileBody(jane, `"email_promo":false`, `,"email":"jane@example.com"`)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if w := h.call("", "POST", "/v1/hooks/omneo", body, "X-Omneo-Hmac-SHA256", signature(hookSecret, body)); w.Code != http.StatusOK {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	wg.Wait()
	count := map[string]int{}
	for e, err := range schema.Events(t.Context(), h.api.DB, schema.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		count[e.Type]++
	}
	if count["profile.observed"] != 1 || count["consent.changed"] != 1 {
		t.Errorf("recorded %v, want each once", count)
	}
}
