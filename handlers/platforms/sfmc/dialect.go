package sfmc

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

// Name is how targets name this platform.
const Name = "sfmc"

//go:embed targets/*.yaml
var files embed.FS

func init() {
	targets, err := fs.Sub(files, "targets")
	if err != nil {
		panic(err) // the path is a constant
	}
	platforms.Register(platforms.Platform{Name: Name, Title: "Salesforce Marketing Cloud", Dialect: Dialect{}, Caps: caps, Import: columns, Targets: targets, Needs: needs, Connect: connect, Receive: receive})
}

// Limits of a send.
const (
	recipientsMax = 2000
	keyMax        = 100 // characters of a messageKey
)

// Dialect is how Marketing Cloud takes a send: /messaging/v1/email/messages and /sms/messages,
// /messaging/v1/messageDefinitionSends (legacy), /interaction/v1/events (journey entry).
type Dialect struct{}

var _ platforms.Dialect = Dialect{}

// Validate recognises the call by the fields of its body.
func (Dialect) Validate(body []byte) error {
	var problems platforms.Problems
	root, err := platforms.Inspect(Name, body, &problems)
	if err != nil {
		return err
	}
	if !root.NeedObject() {
		return problems.Err(Name)
	}
	root.Walk(func(n platforms.Node) {
		if yes, _ := n.Bool(); yes && strings.HasSuffix(strings.ToLower(n.Pointer), "/resubscribe") {
			n.RejectClass(platforms.ErrDangerous, "subscribes the number again as a side effect: leave it out")
		}
	})
	switch {
	case root.Get("To").Present():
		to := root.Get("To")
		if to.NeedObject() {
			email(to.Get("Address"))
			to.Get("SubscriberKey").Filled()
			texts(to.At("ContactAttributes", "SubscriberAttributes"))
		}
	case root.Get("EventDefinitionKey").Present():
		root.Get("EventDefinitionKey").Filled()
		root.Get("ContactKey").Filled()
		if data := root.Get("Data"); data.Present() {
			data.NeedObject()
		}
	case root.Get("definitionKey").Present():
		root.Get("definitionKey").Filled()
		switch one, many := root.Get("recipient"), root.Get("recipients"); {
		case many.Present():
			if many.NeedArray(recipientsMax) {
				for _, r := range many.Items() {
					recipient(r)
				}
			}
		default:
			recipient(one)
		}
	default:
		root.Reject("is no send that Marketing Cloud knows: it needs definitionKey and recipient, To (legacy triggered send), or EventDefinitionKey and ContactKey (journey entry)")
	}
	return problems.Err(Name)
}

// recipient checks one recipient of a transactional message; the address is an email, or a number of digits.
func recipient(n platforms.Node) {
	if !n.NeedObject() {
		return
	}
	n.Get("contactKey").Filled()
	if to := n.Get("to"); to.Present() {
		if text, ok := to.Filled(); ok && !digits.MatchString(text) {
			email(to)
		}
	}
	texts(n.Get("attributes"))
	if key := n.Get("messageKey"); key.Present() {
		if text, ok := key.Text(); ok && len([]rune(text)) > keyMax {
			key.Reject("has %d characters; Marketing Cloud takes %d at most", len([]rune(text)), keyMax)
		}
	}
}

var digits = regexp.MustCompile(`^\+?[1-9]\d{7,14}$`)

func email(n platforms.Node) {
	if text, ok := n.Filled(); ok {
		if _, err := domain.NormalizeEmail(text); err != nil {
			n.Reject("must be an email address")
		}
	}
}

// texts checks that attributes are a flat object; their values are strings to Marketing Cloud.
func texts(attributes platforms.Node) {
	if !attributes.Present() || !attributes.NeedObject() {
		return
	}
	for _, value := range attributes.Members() {
		if value.IsObject() || value.IsArray() {
			value.Reject("must be text: attributes are flat")
		}
	}
}

// Prepare names the message by the delivery's id: at the end of the URL for one recipient, in messageKey for each of
// several. A key that the target's author wrote is kept. The legacy triggered send and the journey entry have no key.
func (Dialect) Prepare(req platforms.Request) (platforms.Request, error) {
	out := req.Clone()
	out.Key.Dedupe = platforms.DedupeNone
	if !gjson.ValidBytes(req.Body) {
		return platforms.Request{}, fmt.Errorf("sfmc: prepare: %w: not valid JSON", platforms.ErrBody)
	}
	switch {
	case gjson.GetBytes(req.Body, "recipients").IsArray():
		for i, r := range gjson.GetBytes(req.Body, "recipients").Array() {
			if strings.TrimSpace(r.Get("messageKey").String()) != "" {
				continue
			}
			var err error
			if out.Body, err = sjson.SetBytes(out.Body, fmt.Sprintf("recipients.%d.messageKey", i), fmt.Sprintf("%s-%d", req.DeliveryID, i)); err != nil {
				return platforms.Request{}, fmt.Errorf("sfmc: prepare: %w: %w", platforms.ErrBody, err)
			}
		}
		out.Key = platforms.Key{Dedupe: platforms.DedupeRejects, In: "body messageKey of each recipient", Value: req.DeliveryID}
	case gjson.GetBytes(req.Body, "definitionKey").Exists() && out.URL != nil:
		before, own, found := strings.Cut(out.URL.Path, "/messages")
		if !found {
			break
		}
		own = strings.Trim(own, "/")
		if own == "" {
			own = req.DeliveryID
			out.URL.Path = before + "/messages/" + own
			out.URL.RawPath = "" // it is escaped from Path
		}
		out.Key = platforms.Key{Dedupe: platforms.DedupeRejects, In: "url messageKey", Value: own}
	}
	return out, nil
}

type answer struct {
	Message   string      `json:"message"`
	Code      json.Number `json:"errorcode"`
	RequestID string      `json:"requestId"`
	Retry     json.Number `json:"retryAfter"` // seconds
	Responses []struct {
		Key      string          `json:"messageKey"`
		SendID   string          `json:"recipientSendId"`
		Failed   bool            `json:"hasErrors"`
		Code     json.Number     `json:"errorcode"`
		Message  string          `json:"message"`
		Messages json.RawMessage `json:"messages"`
	} `json:"responses"`
	Errors []struct {
		Code    json.Number `json:"errorcode"`
		Message string      `json:"message"`
	} `json:"additionalErrors"`
}

// Classify reads Marketing Cloud's answers: errors can ride on a 202, a rejected messageKey means that an earlier
// attempt landed, and being blocked for a while is a 429 without a Retry-After.
func (Dialect) Classify(status int, header http.Header, body []byte, now time.Time) platforms.Verdict {
	v := platforms.ByStatus(status, header, now)
	var said answer
	_ = json.Unmarshal(body, &said) // a page that is no JSON leaves it empty, and the status speaks alone
	v.MessageID = said.RequestID
	text := said.Message
	for _, e := range said.Errors {
		text += "; " + e.Message
	}
	if text != "" {
		v.Native = platforms.Clip(strings.TrimSpace(said.Code.String()+" "+text), 300)
	}
	switch {
	case duplicate(text):
		v.Kind, v.RetryAt, v.Reason = domain.Duplicate, time.Time{}, "Marketing Cloud had this messageKey already: an earlier attempt landed"
	case v.Kind == domain.Accepted:
		return accepted(v, said)
	case status == http.StatusTooManyRequests && said.Code == "50200":
		v.Reason = "Marketing Cloud is blocking the account's calls for a while, and does not say how long"
	case status == http.StatusTooManyRequests:
		v.Reason = "Marketing Cloud is rate limiting the account"
		if v.RetryAt.IsZero() && said.Retry != "" {
			v.RetryAt = platforms.RetryAfter(http.Header{"Retry-After": {said.Retry.String()}}, now)
		}
	case status == http.StatusUnauthorized:
		v.Reason = "the access token is wrong or expired: tokens last 20 minutes"
	case status == http.StatusForbidden:
		v.Reason = "the installed package lacks the permission for this call (a change takes up to 5 minutes to reach new tokens)"
	case v.Kind == domain.Permanent && !v.Disable:
		v.Reason, v.Said = "Marketing Cloud refused the request", platforms.Clip(text, 200)
	}
	return v
}

// duplicate recognises the rejection of a repeated messageKey, whose code no page gives.
func duplicate(text string) bool {
	text = strings.ToLower(text)
	return strings.Contains(text, "messagekey") && (strings.Contains(text, "duplicate") || strings.Contains(text, "already") || strings.Contains(text, "unique"))
}

func accepted(v platforms.Verdict, said answer) platforms.Verdict {
	for i, r := range said.Responses {
		words := platforms.Clip(strings.TrimSpace(r.Code.String()+" "+r.Message+" "+string(r.Messages)), 300)
		if r.Failed || r.Code != "" && r.Code != "0" {
			v.Items = append(v.Items, platforms.ItemError{Index: i, Native: words})
		}
		if v.MessageID == "" {
			v.MessageID = r.SendID
		}
	}
	switch {
	case len(v.Items) == 0:
		v.Reason = "Marketing Cloud queued it"
	case len(v.Items) == len(said.Responses):
		v.Kind, v.Native, v.Reason, v.Said = domain.Permanent, v.Items[0].Native, "Marketing Cloud reports errors inside a success, and nothing taken", v.Items[0].Native
	default:
		v.Kind, v.Native = domain.Partial, v.Items[0].Native
		v.Reason = fmt.Sprintf("Marketing Cloud took %d of %d", len(said.Responses)-len(v.Items), len(said.Responses))
	}
	return v
}

// Tenant are a tenant's hosts.
type Tenant struct{ Auth, REST, SOAP string }

// TenantOf gives the hosts of a tenant by its subdomain, 28 characters starting with mc.
func TenantOf(subdomain string) (Tenant, error) {
	if !subdomainShape.MatchString(subdomain) {
		return Tenant{}, fmt.Errorf("sfmc: %q is not a tenant's subdomain: it is the first part of the Authentication Base URI in the installed package, 28 characters starting with mc", subdomain)
	}
	host := func(part string) string {
		return (&url.URL{Scheme: "https", Host: subdomain + "." + part + ".marketingcloudapis.com"}).String()
	}
	return Tenant{Auth: host("auth"), REST: host("rest"), SOAP: host("soap")}, nil
}

var subdomainShape = regexp.MustCompile(`^mc[a-z0-9_-]{26}$`)

var caps = platforms.Caps{
	Channels: []domain.Channel{domain.Email, domain.SMS, domain.Push},
	Writes:   []domain.Channel{domain.Email},
	Dedupe:   platforms.DedupeRejects,
	ReadReasons: map[domain.Channel][]platforms.Reason{
		domain.Email: {platforms.Unsubscribed, platforms.Complaint, platforms.HardBounce, platforms.SoftBounce, platforms.Held, platforms.Deleted},
	},
	ShowsAll:    true,
	SinceStep:   time.Second,
	SeesClears:  true,
	WriteMax:    200,
	VerifyAfter: time.Minute,
	Cannot: []string{
		"SMS opt-outs are read from a data extension that a scheduled query over _SMSSubscriptionLog fills: set its key.",
		"SMS opt-outs cannot be written: an opted-out keyword is the subscriber's own.",
		"A bounce cannot be written: Marketing Cloud holds an address by its own count.",
		"The legacy triggered send and the journey entry are not deduplicated: after a timeout, a repeat may reach the person twice.",
		"A write takes no date.",
		"Calls are counted per year by edition: reading often is not free.",
	},
}
