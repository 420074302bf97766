package omneo_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/omneo"
)

const jane = "8fc344db-713e-4590-ab26-e82d77ba3313"

func TestDecodeTheFormsThatTheCRMHas(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		event, body string
		field, want string
	}{
		"nested where the pages show it":   {body: `{"id":"` + jane + `","attributes":{"comms":{"email_promo":true}}}`, field: "email_promo", want: "yes"},
		"beside the profile":               {body: `{"id":"` + jane + `","comms":{"sms_promo":0}}`, field: "sms_promo", want: "no"},
		"in an envelope":                   {body: `{"event":"profile_update","data":{"id":"` + jane + `","attributes":{"comms":{"email_promo":"true"}}}}`, field: "email_promo", want: "yes"},
		"by an alias":                      {body: `{"id":"` + jane + `","comms":{"email_optin":false}}`, field: "email_promo", want: "no"},
		"two names that disagree":          {body: `{"id":"` + jane + `","comms":{"email_optin":true,"email_promo":false}}`, field: "email_promo", want: "no"},
		"the other way round":              {body: `{"id":"` + jane + `","comms":{"email_optin":false,"email_promo":true}}`, field: "email_promo", want: "no"},
		"opted out under either name":      {body: `{"id":"` + jane + `","comms":{"email_optout":false,"email_opt_out":true}}`, field: "email_optout", want: "yes"},
		"never asked":                      {body: `{"id":"` + jane + `","comms":{"push_promo":null}}`, field: "push_promo", want: "null"},
		"a boolean that Twig made text of": {body: `{"id":"` + jane + `","comms":{"push_promo":""}}`, field: "push_promo", want: "null"},
		"verified":                         {body: `{"id":"` + jane + `","comms":{"email_verification":"verified"}}`, field: "email_verification", want: "verified"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, err := omneo.Decode(http.Header{}, tc.event, []byte(tc.body))
			if err != nil || h.Topic != omneo.ProfileUpdated || h.Profile.ID.String() != jane || h.Profile.Comms[tc.field] != tc.want {
				t.Errorf("Decode = %+v, %v, want %s %q", h, err, tc.field, tc.want)
			}
		})
	}
	h, err := omneo.Decode(http.Header{}, "", []byte(`{"id":"`+jane+`","email":null,"mobile_phone":"","identities":{"klaviyo_id":12345678901234567890},"attributes":{"comms":{"updated_at":"2020-05-05 15:20:32","email_consent_updated_at":"2020-05-05T15:20:31.5Z"}}}`))
	if err != nil || len(h.Profile.Cleared) != 3 || h.Profile.Identities["klaviyo"] != "12345678901234567890" ||
		!h.Profile.At.Equal(time.Date(2020, 5, 5, 15, 20, 32, 0, time.UTC)) || h.Profile.Times[domain.Email].Nanosecond() != 500_000_000 {
		t.Errorf("Decode = %+v, %v", h.Profile, err)
	}
}

// Whatever comes, it is read or refused as invalid, and what is read can be recorded.
func FuzzDecode(f *testing.F) {
	f.Add("profile.updated", `{"id":"`+jane+`","email":"jane@example.com","identities":[{"handle":"klaviyo","identifier":"01H","merged_from":"1b0c1f5e-6a0d-4c39-9d0b-6d1a1fb0e2a7","updated_at":"x"}],"attributes":{"comms":{"email_promo":true,"sms_optout":"1","email_consent_updated_at":"2026-11-24T00:00:00Z","updated_at":"2026-11-24 00:00:00"}}}`)
	f.Add("profile.merged", `{"winner":{"id":"`+jane+`"},"loser_id":"1b0c1f5e-6a0d-4c39-9d0b-6d1a1fb0e2a7","merged_at":"0000-00-00 00:00:00"}`)
	f.Add("", `{"data":{"id":1},"attributes":[],"identities":{"":{}}}`)
	f.Fuzz(func(t *testing.T, event, body string) {
		h, err := omneo.Decode(http.Header{}, event, []byte(body))
		if err != nil {
			if !errors.Is(err, domain.ErrInvalid) {
				t.Fatalf("%v is not an invalid body", err)
			}
			return
		}
		for _, m := range h.Merges {
			if m.WinnerID == uuid.Nil || m.LoserID == uuid.Nil || m.WinnerID == m.LoserID {
				t.Fatalf("a merge of %s and %s", m.WinnerID, m.LoserID)
			}
		}
		for name, value := range h.Profile.Comms {
			if f, ok := domain.LookupComms(name); !ok || f.Canonical() != name || value == "" {
				t.Fatalf("comms hold %q: %q", name, value)
			}
		}
		now := domain.Snapshot{At: time.Now(), Comms: h.Profile.Comms, ConsentTimes: h.Profile.Times}
		for _, found := range domain.Compare(nil, now, h.Profile.Since, func(domain.Channel, domain.Purpose) time.Time { return time.Time{} }) {
			c := domain.ConsentChanged{ProfileID: uuid.New(), Changes: []domain.ConsentChange{found.ConsentChange}, DecidedAt: found.DecidedAt, DecidedBy: found.DecidedBy}
			if err := c.Validate(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
