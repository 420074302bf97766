package klaviyo

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

// Inbound decodes Klaviyo's system webhooks.
//
// The signature is the hex HMAC-SHA256 of the raw body followed by the text of the Klaviyo-Timestamp header, nothing
// between them.
type Inbound struct {
	Secret    platforms.Secret
	Tolerance time.Duration // how old or how far ahead the timestamp may be; 0: five minutes
	Now       func() time.Time
}

var _ platforms.Inbound = Inbound{}

type notification struct {
	Data []struct {
		Topic      string `json:"topic"`
		ExternalID string `json:"external_id"`
		Payload    struct {
			Data struct {
				Attributes struct {
					Datetime   string         `json:"datetime"`
					Properties map[string]any `json:"event_properties"`
				} `json:"attributes"`
				Relationships struct {
					Profile struct {
						Data struct {
							ID string `json:"id"`
						} `json:"data"`
					} `json:"profile"`
				} `json:"relationships"`
			} `json:"data"`
			Included []struct {
				Type       string `json:"type"`
				ID         string `json:"id"`
				Attributes struct {
					Email string `json:"email"`
					Phone string `json:"phone_number"`
				} `json:"attributes"`
			} `json:"included"`
		} `json:"payload"`
	} `json:"data"`
	Meta struct {
		Timestamp string `json:"timestamp"`
	} `json:"meta"`
}

// topics are those that say something about suppression, without their common prefix.
var topics = map[string]struct {
	channel domain.Channel
	state   platforms.State
	reason  platforms.Reason
}{
	"unsubscribed_from_email_marketing":          {domain.Email, platforms.Suppressed, platforms.Unsubscribed},
	"subscribed_to_email_marketing":              {domain.Email, platforms.Cleared, platforms.Resubscribed},
	"manually_suppressed_from_email_marketing":   {domain.Email, platforms.Suppressed, platforms.Manual},
	"manually_unsuppressed_from_email_marketing": {domain.Email, platforms.Cleared, platforms.Manual},
	"bounced_email":                   {domain.Email, platforms.Suppressed, platforms.HardBounce},
	"marked_email_as_spam":            {domain.Email, platforms.Suppressed, platforms.Complaint},
	"dropped_email":                   {domain.Email, platforms.Suppressed, platforms.Blocked},
	"subscribed_to_sms_marketing":     {domain.SMS, platforms.Cleared, platforms.Resubscribed},
	"unsubscribed_from_sms_marketing": {domain.SMS, platforms.Suppressed, platforms.Unsubscribed},
	"failed_to_deliver_sms":           {domain.SMS, platforms.Suppressed, platforms.SoftBounce},
}

// Decode implements [platforms.Inbound]. Topics that say nothing about suppression give no record. EventKey is the
// entry's external_id.
func (in Inbound) Decode(h http.Header, body []byte) ([]platforms.Record, error) {
	if err := in.verify(h, body); err != nil {
		return nil, err
	}
	var said notification
	if err := json.Unmarshal(body, &said); err != nil {
		return nil, fmt.Errorf("klaviyo: %w: %w", platforms.ErrInbound, err)
	}
	var records []platforms.Record
	for i, entry := range said.Data {
		topic, ok := topics[strings.TrimPrefix(entry.Topic, "event:klaviyo.")]
		if !ok {
			continue
		}
		payload := entry.Payload.Data
		when := payload.Attributes.Datetime
		if when == "" {
			when = said.Meta.Timestamp
		}
		at, precision := platforms.ParseTime(when, time.UTC)
		reason := topic.reason
		if kind, _ := payload.Attributes.Properties["Bounce Type"].(string); reason == platforms.HardBounce && strings.EqualFold(kind, "soft") {
			reason = platforms.SoftBounce
		}
		record := platforms.Record{
			NativeKey: payload.Relationships.Profile.Data.ID, State: topic.state, Scope: platforms.Scope{Kind: platforms.Global},
			Facts:    []platforms.Fact{{Reason: reason, Native: entry.Topic, At: at, Precision: precision}},
			EventKey: entry.ExternalID, ObservedAt: in.Now(),
		}
		if record.EventKey == "" {
			record.EventKey = fmt.Sprintf("%s-%d", h.Get("Klaviyo-Webhook-Id")+h.Get("Klaviyo-Timestamp"), i)
		}
		for _, included := range entry.Payload.Included {
			if included.Type != "profile" || record.NativeKey != "" && included.ID != record.NativeKey {
				continue
			}
			address := included.Attributes.Email
			if topic.channel == domain.SMS {
				address = included.Attributes.Phone
			}
			record.NativeKey, record.Addr = included.ID, platforms.AddressOf(topic.channel, address)
		}
		record.Addr.Channel = topic.channel
		records = append(records, record)
	}
	return records, nil
}

func (in Inbound) verify(h http.Header, body []byte) error {
	stamp := h.Get("Klaviyo-Timestamp")
	given, err := hex.DecodeString(strings.ToLower(strings.TrimSpace(h.Get("Klaviyo-Signature"))))
	if err != nil {
		return fmt.Errorf("klaviyo: %w: Klaviyo-Signature is not hex", platforms.ErrSignature)
	}
	mac := hmac.New(sha256.New, []byte(in.Secret))
	mac.Write(body)
	mac.Write([]byte(stamp))
	if len(in.Secret) == 0 || !hmac.Equal(mac.Sum(nil), given) {
		return fmt.Errorf("klaviyo: %w", platforms.ErrSignature)
	}
	at, err := http.ParseTime(stamp)
	if err != nil {
		return fmt.Errorf("klaviyo: %w: Klaviyo-Timestamp is not an HTTP date", platforms.ErrSignature)
	}
	tolerance := in.Tolerance
	if tolerance == 0 {
		tolerance = 5 * time.Minute
	}
	if age := in.Now().Sub(at).Abs(); age > tolerance {
		return fmt.Errorf("klaviyo: %w: it is %s off, the most is %s", platforms.ErrSignature, age.Round(time.Second), tolerance)
	}
	return nil
}

// columns are the headings of Klaviyo's profile and suppression exports.
var columns = platforms.Columns{
	Email:     []string{"Email", "Email Address", "$email"},
	Phone:     []string{"Phone Number", "$phone_number"},
	NativeKey: []string{"Klaviyo ID", "Profile ID", "$id"},
	Reason:    []string{"Email Suppressions", "Suppression Reason", "Reason", "Email Marketing Consent", "SMS Marketing Consent"},
	At:        []string{"Email Suppressions Timestamp", "Suppression Timestamp", "Date Suppressed", "Timestamp", "Email Marketing Consent Timestamp", "SMS Marketing Consent Timestamp"},
	Read: func(native string) (platforms.State, platforms.Reason) {
		native = strings.Trim(native, "[]'\" ")
		switch strings.ToUpper(native) {
		case "":
			return platforms.Suppressed, platforms.Unknown // the list itself says so
		case "SUBSCRIBED":
			return platforms.Cleared, platforms.Resubscribed
		case "NEVER_SUBSCRIBED":
			return platforms.NoConsent, platforms.NeverAsked
		}
		return platforms.Suppressed, reasonOf(native)
	},
}
