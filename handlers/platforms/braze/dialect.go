package braze

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

// Name is how targets name this platform.
const Name = "braze"

//go:embed targets/*.yaml
var files embed.FS

func init() {
	targets, err := fs.Sub(files, "targets")
	if err != nil {
		panic(err) // the path is a constant
	}
	platforms.Register(platforms.Platform{Name: Name, Title: "Braze", Dialect: Dialect{}, Caps: caps, Import: columns, Targets: targets, Needs: needs, Connect: connect, Receive: receive})
}

// Instances are the hosts by instance.
var Instances = map[string]string{
	"us-01": "https://rest.iad-01.braze.com", "us-02": "https://rest.iad-02.braze.com", "us-03": "https://rest.iad-03.braze.com",
	"us-04": "https://rest.iad-04.braze.com", "us-05": "https://rest.iad-05.braze.com", "us-06": "https://rest.iad-06.braze.com",
	"us-07": "https://rest.iad-07.braze.com", "us-08": "https://rest.iad-08.braze.com", "us-09": "https://rest.us-09.braze.com",
	"us-10": "https://rest.us-10.braze.com", "eu-01": "https://rest.fra-01.braze.eu", "eu-02": "https://rest.fra-02.braze.eu",
	"au-01": "https://rest.au-01.braze.com", "id-01": "https://rest.id-01.braze.com", "jp-01": "https://rest.jp-01.braze.com",
}

// Limits of a send.
const (
	bodyMax       = 4 << 20 // bytes
	trackMax      = 75      // events, and as many attributes and purchases
	recipientsMax = 50
)

// Dialect is how Braze takes a send: /users/track, /campaigns/trigger/send, /canvas/trigger/send, /messages/send,
// /transactional/v1/campaigns/{id}/send.
type Dialect struct{}

var _ platforms.Dialect = Dialect{}

// Validate recognises the call by the fields of its body, and refuses what a template must never say: broadcast, a
// segment for an audience, and sending to people who unsubscribed.
func (Dialect) Validate(body []byte) error {
	var problems platforms.Problems
	root, err := platforms.Inspect(Name, body, &problems)
	if err != nil {
		return err
	}
	if len(body) > bodyMax {
		root.Reject("is %d bytes; Braze takes %d at most", len(body), bodyMax)
	}
	if !root.NeedObject() {
		return problems.Err(Name)
	}
	if root.Get("api_key").Present() {
		root.Get("api_key").Reject("belongs into the header: Authorization: Bearer {{ secret('braze_api_key') }}")
	}
	reach(root)
	switch {
	case root.Get("recipient").Present():
		transactional(root)
	case root.Get("campaign_id").Present() && !root.Get("messages").Present(), root.Get("canvas_id").Present():
		trigger(root)
	case root.Get("messages").Present():
		direct(root)
	case root.Get("events").Present(), root.Get("attributes").Present(), root.Get("purchases").Present():
		track(root)
	default:
		root.Reject("is no send that Braze knows: it needs events or attributes (track), campaign_id or canvas_id and recipients, messages, or recipient")
	}
	return problems.Err(Name)
}

// reach refuses what would reach more people than the delivery is for, or people who said no.
func reach(root platforms.Node) {
	if yes, _ := root.Get("broadcast").Bool(); yes {
		root.Get("broadcast").RejectClass(platforms.ErrDangerous, "sends to everybody in the campaign's segment: leave it out and name the recipient")
	}
	for _, name := range []string{"audience", "segment_id"} {
		if root.Get(name).Present() {
			root.Get(name).RejectClass(platforms.ErrDangerous, "sends to many: leave it out and name the recipient")
		}
	}
	if state, _ := root.Get("recipient_subscription_state").Text(); state == "all" {
		root.Get("recipient_subscription_state").RejectClass(platforms.ErrDangerous, `sends to people who unsubscribed: use "subscribed" or "opted_in"`)
	}
}

var identifiers = []string{"external_id", "user_alias", "braze_id", "email", "phone"}

func track(root platforms.Node) {
	for _, name := range []string{"events", "attributes", "purchases"} {
		list := root.Get(name)
		if !list.Present() || !list.NeedArray(trackMax) {
			continue
		}
		for _, item := range list.Items() {
			if !item.NeedObject() {
				continue
			}
			one(item, identifiers, true)
			switch name {
			case "events":
				item.Get("name").Filled()
				timestamp(item.Get("time"))
			case "attributes":
				for _, field := range []string{"email_subscribe", "push_subscribe", "subscription_groups"} {
					if item.Get(field).Present() {
						item.Get(field).RejectClass(platforms.ErrDangerous, "changes consent from a template; record the consent in the ledger and let reconciliation carry it")
					}
				}
			}
		}
	}
}

// one checks that an object names somebody by exactly one of the fields. With address, an email or phone beside an id
// is an attribute to be set, and no second name.
func one(n platforms.Node, fields []string, address bool) {
	var named []string
	for _, field := range fields {
		v := n.Get(field)
		text, isText := v.Text()
		if v.IsObject() || isText && strings.TrimSpace(text) != "" {
			if address && (field == "email" || field == "phone") && len(named) > 0 {
				continue
			}
			named = append(named, field)
		}
	}
	switch len(named) {
	case 0:
		n.Reject("names nobody: it needs one of %s; is the variable spelt as the context has it?", strings.Join(fields, ", "))
	case 1:
	default:
		n.Reject("names somebody by %s; Braze takes exactly one", strings.Join(named, " and "))
	}
}

func timestamp(n platforms.Node) {
	if text, ok := n.Filled(); ok {
		if _, precision := platforms.ParseTime(text, time.UTC); precision == platforms.UnknownTime {
			n.Reject("must be an ISO 8601 time, such as 2026-08-20T10:00:00Z")
		}
	}
}

func trigger(root platforms.Node) {
	if recipients := root.Get("recipients"); recipients.NeedArray(recipientsMax) {
		for _, r := range recipients.Items() {
			one(r, []string{"external_user_id", "user_alias", "email"}, false)
			if r.Get("email").Present() && !r.Get("prioritization").IsArray() {
				r.Get("prioritization").Reject("is required beside email: which of the profiles that share it")
			}
			if only, isBool := r.Get("send_to_existing_only").Bool(); isBool && !only {
				r.Get("attributes").NeedObject()
			}
		}
	}
}

func direct(root platforms.Node) {
	root.Get("messages").NeedObject()
	ids, aliases := root.Get("external_user_ids"), root.Get("user_aliases")
	switch {
	case ids.Present():
		ids.NeedArray(recipientsMax)
	case aliases.Present():
		aliases.NeedArray(recipientsMax)
	default:
		root.Get("external_user_ids").Reject("is required: name the recipient")
	}
}

var sendID = regexp.MustCompile(`^[a-zA-Z0-9\-_+/=]+$`)

func transactional(root platforms.Node) {
	recipient := root.Get("recipient")
	if recipient.NeedObject() {
		one(recipient, []string{"external_user_id", "user_alias", "email"}, false)
	}
	if id := root.Get("external_send_id"); id.Present() {
		if text, ok := id.Text(); !ok || text != "" && !sendID.MatchString(text) {
			id.Reject("takes letters, digits and -_+/= alone")
		}
	}
}

// Prepare puts the delivery id into external_send_id of a transactional email that has none. Braze deduplicates
// nothing else.
func (Dialect) Prepare(req platforms.Request) (platforms.Request, error) {
	out := req.Clone()
	out.Key.Dedupe = platforms.DedupeNone
	if !gjson.ValidBytes(req.Body) {
		return platforms.Request{}, fmt.Errorf("braze: prepare: %w: not valid JSON", platforms.ErrBody)
	}
	if !gjson.GetBytes(req.Body, "recipient").IsObject() {
		return out, nil
	}
	out.Key = platforms.Key{Dedupe: platforms.DedupeRejects, In: "body /external_send_id", Value: req.DeliveryID}
	if own := gjson.GetBytes(req.Body, "external_send_id").String(); strings.TrimSpace(own) != "" {
		out.Key.Value = own
		return out, nil
	}
	body, err := sjson.SetBytes(req.Body, "external_send_id", req.DeliveryID)
	if err != nil {
		return platforms.Request{}, fmt.Errorf("braze: prepare: %w: %w", platforms.ErrBody, err)
	}
	out.Body = body
	return out, nil
}

type answer struct {
	Message    string            `json:"message"`
	Errors     []json.RawMessage `json:"errors"`
	DispatchID string            `json:"dispatch_id"`
	Status     string            `json:"status"`
	Events     int               `json:"events_processed"`
	Attributes int               `json:"attributes_processed"`
	Purchases  int               `json:"purchases_processed"`
}

// Classify reads Braze's answers, which are prose: a 2xx is a success only when its message is success or queued and
// it lists no errors.
func (Dialect) Classify(status int, header http.Header, body []byte, now time.Time) platforms.Verdict {
	v := platforms.ByStatus(status, header, now)
	var said answer
	readable := json.Unmarshal(body, &said) == nil
	v.MessageID = said.DispatchID
	if said.Message != "" {
		v.Native = platforms.Clip(said.Message, 300)
	}
	if strings.Contains(strings.ToLower(said.Message), "external reference has been queued") {
		v.Kind, v.RetryAt, v.Reason = domain.Duplicate, time.Time{}, "Braze had this external_send_id already: an earlier attempt landed"
		return v
	}
	switch {
	case v.Kind == domain.Accepted && !readable && len(body) > 0:
		v.Kind, v.Reason = domain.RetryLater, "a 2xx without Braze's answer in it: something between us answered"
	case v.Kind == domain.Accepted:
		return accepted(v, said)
	case status == http.StatusTooManyRequests:
		v.Reason = "Braze is rate limiting the workspace"
		for _, at := range []time.Time{v.RetryAt, retryAfter(header, now), v.Limit.Reset} {
			if !at.IsZero() {
				v.RetryAt = at
				break
			}
		}
	case status == http.StatusUnauthorized:
		v.Reason = "Braze refused the key: is it this instance's, and does the target name its secret?"
	case status == http.StatusForbidden:
		v.Reason = "Braze refused the key here: it lacks the permission, or the plan lacks the endpoint"
	case v.Kind == domain.Permanent && !v.Disable:
		v.Reason, v.Said = "Braze refused the request", platforms.Clip(said.Message, 200)
	}
	return v
}

func retryAfter(header http.Header, now time.Time) time.Time {
	if text := header.Get("X-Ratelimit-Retry-After"); text != "" {
		return platforms.RetryAfter(http.Header{"Retry-After": {text}}, now)
	}
	return time.Time{}
}

// accepted reads what a 2xx holds.
func accepted(v platforms.Verdict, said answer) platforms.Verdict {
	for _, raw := range said.Errors {
		item := platforms.ItemError{Index: -1, Native: platforms.Clip(string(raw), 300)}
		var detail struct {
			Type  string `json:"type"`
			Index *int   `json:"index"`
		}
		if json.Unmarshal(raw, &detail) == nil && detail.Index != nil {
			item.Index, item.Native = *detail.Index, platforms.Clip(detail.Type, 300)
		}
		v.Items = append(v.Items, item)
	}
	done := strings.EqualFold(said.Message, "success") || strings.EqualFold(said.Message, "queued") || said.Message == "" && said.Status != ""
	switch {
	case len(v.Items) > 0 && said.Events+said.Attributes+said.Purchases > 0:
		v.Kind, v.Native, v.Reason = domain.Partial, v.Items[0].Native, "Braze took part of it, and reports errors inside a success"
	case len(v.Items) > 0:
		v.Kind, v.Native, v.Reason, v.Said = domain.Permanent, v.Items[0].Native, "Braze reports errors inside a success, and nothing taken", v.Items[0].Native
	case strings.EqualFold(said.Status, "aborted"):
		v.Kind, v.Reason = domain.Refused, "Braze will not send to this person"
		v.Refusal = &platforms.Fact{Reason: platforms.Unknown, Native: "aborted", Precision: platforms.UnknownTime}
	case !done:
		v.Kind, v.Reason, v.Said = domain.Permanent, "Braze answered 2xx without success", platforms.Clip(said.Message, 200)
	default:
		v.Reason = "Braze queued it"
	}
	return v
}

var caps = platforms.Caps{
	Channels: []domain.Channel{domain.Email, domain.SMS, domain.Push},
	Writes:   []domain.Channel{domain.Email, domain.SMS},
	Dedupe:   platforms.DedupeNone,
	ReadReasons: map[domain.Channel][]platforms.Reason{
		domain.Email: {platforms.Unsubscribed, platforms.HardBounce},
		domain.SMS:   {platforms.InvalidAddress},
	},
	SinceStep:    24 * time.Hour,
	WriteMax:     50,
	NeedsScopeID: map[domain.Channel]bool{domain.SMS: true},
	VerifyAfter:  5 * time.Minute,
	Slides:       true,
	Cannot: []string{
		"Spam complaints cannot be listed: connect Currents, or import an export.",
		"SMS and subscription group opt-outs cannot be listed: connect Currents, or import an export.",
		"A lifted suppression leaves no trace on a list: only a full read shows it.",
		"A bounce cannot be written without unsubscribing the person too, so it is not.",
		"Lists are by whole days in UTC, and a write takes no date.",
		"Nothing but transactional email is deduplicated: after a timeout, a repeat may reach the person twice.",
	},
}
