package dotdigital

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

// Name is how targets name this platform.
const Name = "dotdigital"

//go:embed targets/*.yaml
var files embed.FS

func init() {
	targets, err := fs.Sub(files, "targets")
	if err != nil {
		panic(err) // the path is a constant
	}
	platforms.Register(platforms.Platform{
		Name: Name, Title: "Dotdigital", Dialect: Dialect{}, Caps: caps, Import: columns, Targets: targets, Needs: needs, Connect: connect, Receive: receive,
	})
}

// Regions are the hosts by region: 1 is Europe, 2 North America, 3 Asia-Pacific. The right key on the wrong host is
// answered 403.
var Regions = map[string]string{
	"r1": "https://r1-api.dotdigital.com",
	"r2": "https://r2-api.dotdigital.com",
	"r3": "https://r3-api.dotdigital.com",
}

// Dialect is how Dotdigital takes a send: /v2/email and /v2/email/triggered-campaign and their batches,
// /marketing-email/v3/send, /v2/sms-messages/send-to, /cpaas/messages.
type Dialect struct{}

var _ platforms.Dialect = Dialect{}

// Limits of a send.
const (
	addressesMax = 100
	smsMax       = 1600 // characters
	metadataMax  = 1500 // characters
)

// Validate recognises the call by the fields of its body.
func (Dialect) Validate(body []byte) error {
	var problems platforms.Problems
	root, err := platforms.Inspect(Name, body, &problems)
	if err != nil {
		return err
	}
	if root.IsArray() {
		if root.Len() == 0 {
			root.Reject("is an empty batch")
		}
		for _, item := range root.Items() {
			email(item)
		}
		return problems.Err(Name)
	}
	switch {
	case !root.NeedObject():
	case root.Get("toAddresses").Present():
		email(root)
	case root.Get("content").Present():
		marketing(root)
	case root.Get("rules").Present(), root.Get("body").Present():
		root.Get("to").NeedObject()
	case root.Get("message").Present():
		if text, ok := root.Get("message").Filled(); ok && len([]rune(text)) > smsMax {
			root.Get("message").Reject("has %d characters; Dotdigital takes %d at most", len([]rune(text)), smsMax)
		}
	default:
		root.Reject("is no send that Dotdigital knows: it needs toAddresses (email), to and content (marketing email), or message (SMS)")
	}
	return problems.Err(Name)
}

// email checks a transactional email: a triggered campaign, or one with its own content.
func email(n platforms.Node) {
	if to := n.Get("toAddresses"); to.NeedArray(addressesMax) {
		for _, item := range to.Items() {
			address(item)
		}
	}
	if campaign := n.Get("campaignId"); campaign.Present() {
		if number, ok := campaign.Number(); !ok || number <= 0 {
			campaign.Reject("must be the campaign's number, without quotes")
		}
	} else {
		n.Get("subject").Filled()
		n.Get("fromAddress").Filled()
		if !n.Get("htmlContent").Present() && !n.Get("plainTextContent").Present() {
			n.Reject("needs a campaignId, or htmlContent or plainTextContent")
		}
	}
	personalization(n.Get("personalizationValues"))
	metadata(n.Get("metadata"))
}

func marketing(n platforms.Node) {
	address(n.Get("to"))
	content := n.Get("content")
	if !content.NeedObject() {
		return
	}
	switch source, _ := content.Get("source").Text(); source {
	case "template":
		if number, ok := content.Get("campaignId").Number(); !ok || number <= 0 {
			content.Get("campaignId").Reject("must be the campaign's number, without quotes")
		}
	default:
		if html, ok := content.Get("html").Text(); ok && !strings.Contains(html, "$UNSUB$") {
			content.Get("html").Reject("must hold $UNSUB$, where Dotdigital puts the unsubscribe link")
		}
	}
	personalization(content.Get("personalizationValues"))
	metadata(n.Get("metadata"))
}

func address(n platforms.Node) {
	if text, ok := n.Filled(); ok {
		if _, err := domain.NormalizeEmail(text); err != nil {
			n.Reject("must be an email address")
		}
	}
}

// personalization is a list of names and texts; an object and bare numbers are the usual mistakes.
func personalization(values platforms.Node) {
	switch {
	case !values.Present():
	case values.IsObject():
		values.Reject(`must be a list of {"name": …, "value": …}, not an object`)
	default:
		for _, item := range values.Items() {
			item.Get("name").Filled()
			if v := item.Get("value"); v.Present() {
				if _, ok := v.Text(); !ok {
					v.Reject("must be text: quote it")
				}
			}
		}
	}
}

func metadata(n platforms.Node) {
	if text, ok := n.Text(); ok && len([]rune(text)) > metadataMax {
		n.Reject("has %d characters; Dotdigital takes %d at most", len([]rune(text)), metadataMax)
	}
}

// Prepare puts the delivery id into metadata, which comes back on events, unless the target's author uses that.
// Dotdigital deduplicates nothing.
func (Dialect) Prepare(req platforms.Request) (platforms.Request, error) {
	out := req.Clone()
	out.Key.Dedupe = platforms.DedupeNone
	doc := gjson.ParseBytes(req.Body)
	if !gjson.ValidBytes(req.Body) {
		return platforms.Request{}, fmt.Errorf("dotdigital: prepare: %w: not valid JSON", platforms.ErrBody)
	}
	if !doc.IsObject() || !doc.Get("toAddresses").Exists() && !doc.Get("content").Exists() || doc.Get("metadata").Exists() {
		return out, nil
	}
	body, err := sjson.SetBytes(req.Body, "metadata.delivery_id", req.DeliveryID)
	if err != nil {
		return platforms.Request{}, fmt.Errorf("dotdigital: prepare: %w: %w", platforms.ErrBody, err)
	}
	out.Body = body
	out.Key.In, out.Key.Value = "body /metadata/delivery_id", req.DeliveryID
	return out, nil
}

// refusals are the codes that say why a person is not sent to, in v3's words and v2's.
var refusals = map[string]platforms.Reason{
	"marketingemail:unsubscribed": platforms.Unsubscribed, "marketingemail:hardbounced": platforms.HardBounce,
	"marketingemail:complaint": platforms.Complaint, "marketingemail:blocked": platforms.Blocked, "marketingemail:spamtrap": platforms.Blocked,
	"marketingemail:suppressed": platforms.Manual, "marketingemail:invalidemailaddress": platforms.InvalidAddress,
	"error_contact_suppressed": platforms.Manual, "error_contact_unsubscribed": platforms.Unsubscribed,
	"error_email_banned": platforms.Blocked, "error_invalid_email": platforms.InvalidAddress,
}

// Classify reads Dotdigital's answers: an empty 200 is all that success says, a batch's 200 can hold failures, 409 is
// a person who is out, and a 400 can be a rate limit of the older scheme.
func (Dialect) Classify(status int, header http.Header, body []byte, now time.Time) platforms.Verdict {
	v := platforms.ByStatus(status, header, now)
	if v.Kind == domain.Accepted {
		v.Reason = "Dotdigital took it"
		return batch(v, body)
	}
	code, text := errorOf(body)
	if text != "" {
		v.Native = platforms.Clip(text, 300)
	}
	switch reason, refused := refusals[strings.ToLower(code)]; {
	case status == http.StatusBadRequest && code == "ERROR_APIUSAGE_EXCEEDED", status == http.StatusTooManyRequests:
		v.Kind, v.Reason = domain.RetryLater, "Dotdigital is rate limiting the account"
		if v.RetryAt = platforms.RetryAfter(header, now); v.RetryAt.IsZero() {
			v.RetryAt = v.Limit.Reset
		}
	case refused:
		v.Kind, v.RetryAt = domain.Refused, time.Time{}
		v.Reason = "Dotdigital will not send to this person"
		v.Refusal = &platforms.Fact{Reason: reason, Native: code, At: now, Precision: platforms.UpperBound}
	case status == http.StatusUnauthorized:
		v.Reason = "Dotdigital refused the API user: check the secret that the target's Authorization header names"
	case status == http.StatusForbidden:
		v.Reason = "Dotdigital refused the API user here: is this the account's region (r1, r2, r3), and may the user do this?"
	case status == http.StatusConflict:
		v.Kind, v.RetryAt, v.Reason = domain.Permanent, time.Time{}, "Dotdigital reports a conflict"
	case v.Kind == domain.Permanent && !v.Disable:
		v.Reason = "Dotdigital refused the request"
	}
	return v
}

// batch reads the answer of a batch call: a list in which each failed item names its code.
func batch(v platforms.Verdict, body []byte) platforms.Verdict {
	var items []struct {
		Index  int    `json:"index"`
		Code   string `json:"failureCode"`
		Reason string `json:"failureReason"`
	}
	if json.Unmarshal(body, &items) != nil {
		return v
	}
	for _, item := range items {
		if item.Code != "" {
			v.Items = append(v.Items, platforms.ItemError{Index: item.Index, Native: platforms.Clip(item.Code+": "+item.Reason, 300)})
		}
	}
	switch {
	case len(v.Items) == 0:
	case len(v.Items) == len(items):
		v.Kind, v.Reason, v.Native = domain.Permanent, "Dotdigital took none of the batch", v.Items[0].Native
	default:
		v.Kind, v.Native = domain.Partial, v.Items[0].Native
		v.Reason = fmt.Sprintf("Dotdigital took %d of %d", len(items)-len(v.Items), len(items))
	}
	return v
}

// errorOf reads an error's code and text: v3 names its code, v2 ends its message with it.
func errorOf(body []byte) (code, text string) {
	var said struct {
		Message     string `json:"message"`
		Code        string `json:"errorCode"`
		Description string `json:"description"`
	}
	if json.Unmarshal(body, &said) != nil {
		return "", ""
	}
	if said.Code != "" {
		return said.Code, strings.TrimSpace(said.Code + ": " + said.Description)
	}
	words := strings.Fields(said.Message)
	for i := len(words) - 1; i >= 0; i-- {
		if word := strings.Trim(words[i], ".:"); strings.HasPrefix(word, "ERROR_") {
			return word, said.Message
		}
	}
	return "", said.Message
}

var caps = platforms.Caps{
	Channels: []domain.Channel{domain.Email, domain.SMS},
	Writes:   []domain.Channel{domain.Email, domain.SMS},
	Dedupe:   platforms.DedupeNone,
	ReadReasons: map[domain.Channel][]platforms.Reason{
		domain.Email: {platforms.Unsubscribed, platforms.Complaint, platforms.HardBounce, platforms.SoftBounce, platforms.Blocked, platforms.Manual, platforms.InvalidAddress},
		domain.SMS:   {platforms.Unsubscribed, platforms.HardBounce, platforms.Manual},
	},
	ShowsAll:    true,
	SinceStep:   time.Second,
	WriteMax:    500,
	VerifyAfter: 30 * time.Second,
	Challenges:  map[domain.Channel]bool{domain.Email: true},
	Cannot: []string{
		"Nothing is deduplicated: after a timeout, a repeat may reach the person twice.",
		"A lifted email suppression leaves no trace on the incremental list: only a full read shows it.",
		"SMS states tell that a number is out, not since when: the contact's last change is the latest it can be.",
		"An email suppression is lifted by asking the person to confirm, or never: who waits is put before somebody here.",
		"A write takes no date.",
	},
}
