package sfmc

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

// Inbound decodes the Event Notification Service's posts. The signature is the base64 HMAC-SHA256 of the raw body,
// without a timestamp: repeats are recognised by EventKey alone.
type Inbound struct {
	Key platforms.Secret // signature key, as it was shown once
	Now func() time.Time
}

var _ platforms.Inbound = Inbound{}

// Verification is the one unsigned post that begins a callback: it changes nothing, and is confirmed by
// [Client.ConfirmCallback]. Decode returns it as an error.
type Verification struct {
	CallbackID string `json:"callbackId"`
	Key        string `json:"verificationKey"`
}

// Error says what to do with it.
func (v *Verification) Error() string {
	return "sfmc: callback " + v.CallbackID + " asks to be verified: confirm it within four hours"
}

// Decode implements [platforms.Inbound]. The time is timestampUTC: unsubscribeDate is Central time written as if it
// were an epoch.
func (in Inbound) Decode(h http.Header, body []byte) ([]platforms.Record, error) {
	if h.Get("X-Sfmc-Ens-Signature") == "" {
		var v Verification
		if json.Unmarshal(body, &v) == nil && v.CallbackID != "" && v.Key != "" {
			return nil, &v
		}
	}
	given, err := base64.StdEncoding.DecodeString(strings.TrimSpace(h.Get("X-Sfmc-Ens-Signature")))
	mac := hmac.New(sha256.New, []byte(in.Key))
	mac.Write(body)
	if err != nil || len(in.Key) == 0 || !hmac.Equal(mac.Sum(nil), given) {
		return nil, fmt.Errorf("sfmc: %w", platforms.ErrSignature)
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, fmt.Errorf("sfmc: %w: %w", platforms.ErrInbound, err)
	}
	var records []platforms.Record
	for _, one := range raw {
		var event struct {
			Type      string `json:"eventCategoryType"`
			Timestamp int64  `json:"timestampUTC"` // epoch milliseconds
			Composite struct {
				Job        string `json:"jobId"`
				Batch      string `json:"batchId"`
				Subscriber string `json:"subscriberId"`
			} `json:"composite"`
			Info struct { // "Info" too: encoding/json does not mind
				To         string `json:"to"`
				Key        string `json:"subscriberKey"`
				Contact    string `json:"contactKey"`
				MessageKey string `json:"messageKey"`
				Reason     string `json:"reason"`
				Code       any    `json:"statusCode"` // documented as text, and shown as a number elsewhere
				Status     string `json:"statusMessage"`
				Bounce     string `json:"bounceType"`
				Category   string `json:"bounceCategory"`
			} `json:"info"`
		}
		if err := json.Unmarshal(one, &event); err != nil {
			return nil, fmt.Errorf("sfmc: %w: %w", platforms.ErrInbound, err)
		}
		channel, reason := domain.Email, platforms.Unsubscribed
		native := event.Type
		switch event.Type {
		case "EngagementEvents.EmailUnsubscribe":
		case "TransactionalSendEvents.EmailBounced":
			reason = platforms.SoftBounce
			if strings.Contains(strings.ToLower(event.Info.Bounce+event.Info.Category), "hard") {
				reason = platforms.HardBounce
			}
		case "TransactionalSendEvents.EmailNotSent":
			var about bool
			if reason, about = notSent(fmt.Sprint(event.Info.Code)); !about {
				continue
			}
			native = strings.TrimSpace(event.Info.Reason + " " + event.Info.Status)
		case "TransactionalSendEvents.SmsBounced":
			channel, reason = domain.SMS, platforms.SoftBounce
		default:
			continue
		}
		addr := platforms.AddressOf(channel, event.Info.To)
		if channel == domain.SMS {
			addr = platforms.DigitsAddress(event.Info.To)
		}
		digest := sha256.Sum256(one) // no key is given: the entry itself is
		records = append(records, platforms.Record{
			Addr: addr, NativeKey: cmp.Or(event.Info.Key, event.Info.Contact), State: platforms.Suppressed, Scope: platforms.Scope{Kind: platforms.Global}, ObservedAt: in.Now(),
			Facts:    []platforms.Fact{{Reason: reason, Native: native, At: time.UnixMilli(event.Timestamp).UTC(), Precision: platforms.Exact}},
			EventKey: base64.RawURLEncoding.EncodeToString(digest[:18]), DeliveryID: event.Info.MessageKey,
		})
	}
	return records, nil
}

// notSent reads a subscriber error code: why Marketing Cloud did not send. about is false for what is wrong with the request rather
// than with writing to the person.
//
// That somebody is unsubscribed there is no opt-out of this moment: since when, only the list says, and they may have agreed here
// since. It counts as a suppression for a reason that is not known until the list is read.
func notSent(code string) (reason platforms.Reason, about bool) {
	switch code {
	case "2":
		return platforms.Held, true
	case "5":
		return platforms.InvalidAddress, true
	case "4", "6", "7", "8", "9", "10", "11", "12", "13", "14": // keys, attributes and addresses that are missing or do not match
		return "", false
	}
	return platforms.Unknown, true // 1 and 3 are unsubscribed, here or in the partner's system
}

// columns are the headings of the All Subscribers export and of data views. Their times are Central.
var columns = platforms.Columns{
	Email: []string{"Email Address", "EmailAddress", "Email"}, Phone: []string{"MobileNumber", "Mobile Number"},
	NativeKey: []string{"Subscriber Key", "SubscriberKey"}, Reason: []string{"Status", "ReasonUnsub", "BounceType", "OptOutStatusID"},
	At: []string{"Date Unsubscribed", "DateUnsubscribed", "UnsubscribedDate", "EventDate", "OptOutDate", "DateUndeliverable"}, Zone: central,
	Read: func(native string) (platforms.State, platforms.Reason) {
		if native == "" {
			return platforms.Suppressed, platforms.Unknown
		}
		if strings.HasPrefix(strings.ToLower(native), "spam complaint") {
			return platforms.Suppressed, platforms.Complaint
		}
		return stateOf(native)
	},
}

// Confirm answers the verification, as a client of the same business unit.
func (v *Verification) Confirm(ctx context.Context, client platforms.Describer) error {
	c, ok := client.(*Client)
	if !ok {
		return fmt.Errorf("%w: the client is not of Marketing Cloud", platforms.ErrConnection)
	}
	return c.ConfirmCallback(ctx, v)
}
