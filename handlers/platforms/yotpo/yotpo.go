// Package yotpo speaks what Yotpo SMS & Email (formerly SMSBump) spoke.
//
// The product closed on 31 December 2025. The dialect, the simulator and the import are for moving away from it: a
// target still pointing there fails for good and is told so, the subscribers that Yotpo exported can be imported, and
// the way in which it took opt-outs, with their date, is kept for systems that emulate it.
//
// Where Yotpo's pages describe a field without showing its key, the key here is inferred: source, action_name,
// occurred_at, unique_event_id of an event; suppression_reason and suppression_timestamp of a subscriber.
package yotpo

import (
	"context"
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
const Name = "yotpo"

// Base is Yotpo's one host.
const Base = "https://api.yotpo.com"

const closed = "Yotpo SMS & Email closed on 31 December 2025: move the target to the platform that took its place"

//go:embed targets/*.yaml
var files embed.FS

func init() {
	targets, err := fs.Sub(files, "targets")
	if err != nil {
		panic(err) // the path is a constant
	}
	platforms.Register(platforms.Platform{Name: Name, Title: "Yotpo SMS & Email", Dialect: Dialect{}, Caps: caps, Import: columns, Targets: targets, Needs: needs, Connect: connect, Receive: receive})
}

// Dialect is how Yotpo took a send: a customer event that starts a flow.
type Dialect struct{}

var _ platforms.Dialect = Dialect{}

var snake = regexp.MustCompile(`^[a-z0-9]+(_[a-z0-9]+)*$`)

// Validate checks a customer event. The form of the original SMSBump API is recognised and explained.
func (Dialect) Validate(body []byte) error {
	var problems platforms.Problems
	if form, err := url.ParseQuery(string(body)); err == nil && form.Get("to") != "" && form.Get("message") != "" {
		problems.AddClass(platforms.ErrRetired, "", "this is the form of the original SMSBump API, which sent its key in a plain-http URL; %s", closed)
		return problems.Err(Name)
	}
	root, err := platforms.Inspect(Name, body, &problems)
	if err != nil {
		return err
	}
	if !root.NeedObject() {
		return problems.Err(Name)
	}
	if root.Get("channels").Present() {
		root.Get("channels").RejectClass(platforms.ErrDangerous, "changes consent from a template; record the consent in the ledger and let reconciliation carry it")
		return problems.Err(Name)
	}
	for _, name := range []string{"source", "action_name"} {
		if text, ok := root.Get(name).Filled(); ok && (len(text) > 255 || !snake.MatchString(text)) {
			root.Get(name).Reject("must be snake case of 255 characters at most, such as reward_earned")
		}
	}
	if text, ok := root.Get("occurred_at").Filled(); ok {
		if _, precision := platforms.ParseTime(text, time.UTC); precision == platforms.UnknownTime {
			root.Get("occurred_at").Reject("must be an ISO 8601 time, such as 2026-08-20T10:00:00Z")
		}
	}
	customer := root.Get("customer")
	if customer.NeedObject() {
		phone, email := customer.Get("phone_number"), customer.Get("email")
		switch {
		case phone.Present() && email.Present():
			customer.Reject("names somebody by phone_number and by email; Yotpo takes exactly one")
		case email.Present():
			address(domain.Email, email)
		default:
			address(domain.SMS, phone)
		}
		flat(customer.Get("properties"))
	}
	flat(root.Get("properties"))
	return problems.Err(Name)
}

func address(channel domain.Channel, n platforms.Node) {
	if text, ok := n.Filled(); ok {
		if normal, err := domain.NormalizeAddress(channel, text); err != nil || channel == domain.SMS && normal != text {
			n.Reject("must be an %s address; phone numbers in E.164, such as +61400000001", channel)
		}
	}
}

// flat refuses nesting, which Yotpo does not take.
func flat(properties platforms.Node) {
	if !properties.Present() || !properties.NeedObject() {
		return
	}
	for _, value := range properties.Members() {
		switch {
		case !value.Present():
			value.Reject("must not be null: leave it out")
		case value.IsObject() || value.IsArray():
			value.Reject("must be text, a number or a boolean: properties are flat")
		}
	}
}

// Prepare puts the delivery id into unique_event_id of an event that has none. Yotpo overwrites an event of the same
// id, and may start its flow again.
func (Dialect) Prepare(req platforms.Request) (platforms.Request, error) {
	out := req.Clone()
	out.Key = platforms.Key{Dedupe: platforms.DedupeOverwrites, In: "body /unique_event_id", Value: req.DeliveryID}
	if !gjson.ValidBytes(req.Body) || !gjson.ParseBytes(req.Body).IsObject() {
		return platforms.Request{}, fmt.Errorf("yotpo: prepare: %w: not a JSON object", platforms.ErrBody)
	}
	if own := gjson.GetBytes(req.Body, "unique_event_id").String(); strings.TrimSpace(own) != "" {
		out.Key.Value = own
		return out, nil
	}
	body, err := sjson.SetBytes(req.Body, "unique_event_id", req.DeliveryID)
	if err != nil {
		return platforms.Request{}, fmt.Errorf("yotpo: prepare: %w: %w", platforms.ErrBody, err)
	}
	out.Body = body
	return out, nil
}

// Classify reads the status class: Yotpo documents no error shape. An address that is gone is the product's end.
func (Dialect) Classify(status int, header http.Header, body []byte, now time.Time) platforms.Verdict {
	v := platforms.ByStatus(status, header, now)
	switch {
	case status == http.StatusGone, status == http.StatusNotFound:
		v.Kind, v.Disable, v.Reason = domain.Permanent, true, closed
	case status == http.StatusUnauthorized:
		v.Reason = "Yotpo refused the token: tokens last 14 days; make a new one and store it as the target's secret"
	}
	if v.Kind != domain.Accepted && len(body) > 0 {
		v.Native = platforms.Clip(string(body), 300)
	}
	return v
}

var caps = platforms.Caps{
	Channels:    []domain.Channel{domain.SMS, domain.Email},
	Writes:      []domain.Channel{domain.SMS},
	Dedupe:      platforms.DedupeOverwrites,
	WriteMax:    50,
	CarriesDate: true,
	Closed:      "2025-12-31",
	Cannot: []string{
		"Yotpo SMS & Email closed on 31 December 2025: nothing is sent through it any more.",
		"It has no list of opt-outs to read: import its export instead.",
		"A write needs the person's phone number, for an email opt-out too.",
		"Opt-ins are not written: Yotpo could send a welcome message on them.",
		"A repeated event overwrites the first and may start its flow again.",
		"Its webhooks are unsigned: they may suppress and may not clear.",
	},
}

// Client writes one store's opt-outs. Make it with [NewClient].
type Client struct {
	http   *http.Client
	base   string
	store  string
	now    func() time.Time
	tokens *platforms.TokenCache
}

var (
	_ platforms.Sink      = (*Client)(nil)
	_ platforms.Describer = (*Client)(nil)
)

// NewClient makes a client of one store, which its app key names.
func NewClient(client *http.Client, base, store string, secret platforms.Secret, now func() time.Time) *Client {
	c := &Client{http: client, base: base, store: store, now: now}
	c.tokens = &platforms.TokenCache{Now: now, Early: time.Hour, Fetch: func(ctx context.Context) (platforms.Secret, time.Time, error) {
		var answer struct {
			Token platforms.Secret `json:"access_token"`
		}
		api := platforms.API{Platform: Name, Client: client, Base: base, Now: now, Classify: Dialect{}.Classify}
		call := platforms.Call{Method: http.MethodPost, Path: c.path("/access_tokens"), Body: map[string]string{"secret": string(secret)}}
		if _, err := api.Do(ctx, call, &answer); err != nil {
			return "", time.Time{}, err
		}
		return answer.Token, now().Add(14 * 24 * time.Hour), nil
	}}
	return c
}

func (c *Client) path(rest string) string { return "/core/v3/stores/" + url.PathEscape(c.store) + rest }

// Caps says what Yotpo can do.
func (*Client) Caps() platforms.Caps { return caps }

// Suppress implements [platforms.Sink]: one upsert for each person, carrying our date. An email opt-out needs the
// person's phone number, in E.164, as the change's NativeKey.
func (c *Client) Suppress(ctx context.Context, batch []platforms.Change) (platforms.Receipt, error) {
	if err := platforms.CheckBatch(batch, caps.WriteMax); err != nil {
		return platforms.Receipt{}, err
	}
	api := platforms.API{
		Platform: Name, Client: c.http, Base: c.base, Now: c.now, Classify: Dialect{}.Classify,
		Authorize: func(ctx context.Context, r *http.Request) error {
			token, err := c.tokens.Token(ctx)
			if err == nil {
				r.Header.Set("X-Yotpo-Token", string(token))
			}
			return err
		},
		Expired: func(r *http.Request) { c.tokens.Drop(platforms.Secret(r.Header.Get("X-Yotpo-Token"))) },
	}
	return platforms.OneByOne(batch, func(change platforms.Change) (platforms.Status, string, error) {
		customer, channel := map[string]string{"phone": change.Addr.Value}, map[string]any{"consent": "unsubscribed", "source": "dispatch-ledger"}
		if change.Addr.Channel == domain.Email {
			if !strings.HasPrefix(change.NativeKey, "+") {
				return platforms.Declined, "Yotpo takes no email opt-out without the person's phone number", nil
			}
			customer = map[string]string{"phone": change.NativeKey, "email": change.Addr.Value}
			channel["suppress_email"] = "true"
			channel["suppression_reason"] = reasonFor(change.Reason)
			if !change.At.IsZero() {
				channel["suppression_timestamp"] = change.At.UTC().Format("2006-01-02T15:04:05.000Z")
			}
		}
		body := map[string]any{"customer": customer, "channels": map[string]any{string(change.Addr.Channel): channel}}
		_, err := api.Do(ctx, platforms.Call{Method: http.MethodPost, Path: c.path("/subscribers"), Body: body}, nil)
		if native, own := platforms.Own(err); own {
			return platforms.Declined, native, nil
		}
		return platforms.Applied, "", err
	})
}

func reasonFor(reason platforms.Reason) string {
	switch reason {
	case platforms.HardBounce, platforms.InvalidAddress:
		return "hard_bounce"
	case platforms.SoftBounce, platforms.Held:
		return "soft_bounce"
	case platforms.Unsubscribed, platforms.Complaint, platforms.Legal, platforms.Blocked, platforms.Manual, platforms.Deleted,
		platforms.PendingOptIn, platforms.NeverAsked, platforms.Resubscribed, platforms.Unknown:
	}
	return "manual_suppression"
}

// Inbound decodes Yotpo's webhooks. They are unsigned: every record is unauthenticated.
type Inbound struct{ Now func() time.Time }

var _ platforms.Inbound = Inbound{}

// Decode implements [platforms.Inbound]. EventKey is the WebhookMessageId header.
func (in Inbound) Decode(h http.Header, body []byte) ([]platforms.Record, error) {
	var said struct {
		Phone     string      `json:"phone"`
		ID        json.Number `json:"external_id"`
		Timestamp float64     `json:"timestamp"` // epoch milliseconds
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return nil, fmt.Errorf("yotpo: %w: %w", platforms.ErrInbound, err)
	}
	record := platforms.Record{
		Addr: platforms.AddressOf(domain.SMS, said.Phone), NativeKey: said.ID.String(), State: platforms.Suppressed, Scope: platforms.Scope{Kind: platforms.Global},
		EventKey: h.Get("Webhookmessageid"), ObservedAt: in.Now(), Unauthenticated: true,
	}
	fact := platforms.Fact{Reason: platforms.Unsubscribed, Native: h.Get("X-Yotpo-Webhooks-Event-Type"), Precision: platforms.UnknownTime}
	if said.Timestamp > 0 {
		fact.At, fact.Precision = time.UnixMilli(int64(said.Timestamp)).UTC(), platforms.Exact
	}
	switch fact.Native {
	case "communication.sms.unsubscribed.v1", "communication.sms.unsubscribe":
	case "communication.sms.subscribed.v1", "communication.sms.subscribe":
		record.State, fact.Reason = platforms.Cleared, platforms.Resubscribed
	default:
		return nil, nil
	}
	if said.Phone == "" {
		return nil, fmt.Errorf("yotpo: %w: no phone", platforms.ErrInbound)
	}
	record.Facts = []platforms.Fact{fact}
	return []platforms.Record{record}, nil
}

// columns are the headings of Yotpo's subscriber export.
var columns = platforms.Columns{
	Phone: []string{"Phone", "Phone Number", "Mobile"}, NativeKey: []string{"Customer ID", "External ID"},
	Reason: []string{"SMS Status", "SMS Consent", "Status", "Subscription Status"},
	At:     []string{"Unsubscribed At", "Unsubscribe Date", "Status Date", "Updated At", "Date"},
	Read: func(native string) (platforms.State, platforms.Reason) {
		switch strings.ToLower(strings.ReplaceAll(native, "-", " ")) {
		case "subscribed", "subscriber", "active":
			return platforms.Cleared, platforms.Resubscribed
		case "non subscriber", "never subscribed", "not subscribed":
			return platforms.NoConsent, platforms.NeverAsked
		case "unsubscribed", "unsubscriber":
			return platforms.Suppressed, platforms.Unsubscribed
		case "suppressed", "manual_suppression":
			return platforms.Suppressed, platforms.Manual
		case "hard_bounce":
			return platforms.Suppressed, platforms.HardBounce
		case "soft_bounce":
			return platforms.Suppressed, platforms.SoftBounce
		}
		return platforms.Suppressed, platforms.Unknown
	},
}
