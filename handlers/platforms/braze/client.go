package braze

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

// Pages overlap: the lists are read by offset while they move, and a row that slid over a page's edge is seen again
// rather than missed.
const (
	pageSize    = 500
	pageOverlap = 20
)

// founding is before the first row of any list.
const founding = "2011-01-01"

// Client reads and writes one workspace's suppressions. All fields are required.
type Client struct {
	HTTP *http.Client
	Base string // one of [Instances], or a simulator
	Key  platforms.Secret
	Now  func() time.Time
}

var (
	_ platforms.Source       = Client{}
	_ platforms.Sink         = Client{}
	_ platforms.Resubscriber = Client{}
	_ platforms.Describer    = Client{}
)

// Caps says what Braze can do.
func (Client) Caps() platforms.Caps { return caps }

func (c Client) api() platforms.API {
	return platforms.API{
		Platform: Name, Client: c.HTTP, Base: c.Base, Now: c.Now, Classify: Dialect{}.Classify,
		Authorize: func(_ context.Context, r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+string(c.Key))
			return nil
		},
	}
}

// list is one of the lists that Braze shows.
type list struct {
	name, path, items string
	address, at       string // fields of a row
	reason            platforms.Reason
	ascending         bool // takes sort_direction
}

var lists = map[domain.Channel][]list{
	domain.Email: {
		{name: "unsubscribes", path: "/email/unsubscribes", items: "emails", address: "email", at: "unsubscribed_at", reason: platforms.Unsubscribed, ascending: true},
		{name: "hard_bounces", path: "/email/hard_bounces", items: "emails", address: "email", at: "hard_bounced_at", reason: platforms.HardBounce},
	},
	domain.SMS: {
		{name: "invalid_phone_numbers", path: "/sms/invalid_phone_numbers", items: "sms", address: "phone", at: "invalid_detected_at", reason: platforms.InvalidAddress},
	},
}

// Suppressions implements [platforms.Source]. Since is widened to whole days, with a day of overlap. The cursor is a
// list's name and an offset.
func (c Client) Suppressions(ctx context.Context, q platforms.Query) iter.Seq2[platforms.Page, error] {
	return func(yield func(platforms.Page, error) bool) {
		if len(lists[q.Channel]) == 0 {
			yield(platforms.Page{}, fmt.Errorf("braze: no suppressions on channel %q: %w", q.Channel, errors.ErrUnsupported))
			return
		}
		name, place, _ := strings.Cut(string(q.Cursor), ":")
		for i, l := range lists[q.Channel] {
			if name != "" && name != l.name {
				continue
			}
			offset := 0
			if name != "" {
				var err error
				if offset, err = strconv.Atoi(place); err != nil {
					yield(platforms.Page{}, fmt.Errorf("braze: cursor %q: %w", q.Cursor, err))
					return
				}
				name = ""
			}
			for more := true; more; {
				records, full, err := c.page(ctx, q, l, offset)
				if err != nil {
					yield(platforms.Page{}, err)
					return
				}
				more = full
				offset += pageSize - pageOverlap
				page := platforms.Page{Records: records, Complete: q.Full, Next: platforms.Cursor(fmt.Sprintf("%s:%d", l.name, offset))}
				switch {
				case more:
				case i+1 < len(lists[q.Channel]):
					page.Next = platforms.Cursor(lists[q.Channel][i+1].name + ":0")
				default:
					page.Next, page.Done = "", true
				}
				if !yield(page, nil) {
					return
				}
			}
		}
	}
}

// page reads one page of a list, and reports whether it was full.
func (c Client) page(ctx context.Context, q platforms.Query, l list, offset int) ([]platforms.Record, bool, error) {
	query := url.Values{
		"start_date": {founding},
		"end_date":   {c.Now().UTC().AddDate(0, 0, 1).Format(time.DateOnly)}, // read as midnight: today ends tomorrow
		"limit":      {strconv.Itoa(pageSize)},
		"offset":     {strconv.Itoa(offset)},
	}
	if !q.Full && !q.Since.IsZero() {
		query.Set("start_date", q.Since.UTC().AddDate(0, 0, -1).Format(time.DateOnly))
	}
	if l.ascending {
		query.Set("sort_direction", "asc")
	}
	var doc map[string]json.RawMessage
	if _, err := c.api().Do(ctx, platforms.Call{Method: http.MethodGet, Path: l.path, Query: query}, &doc); err != nil {
		return nil, false, err
	}
	var rows []json.RawMessage
	if items, ok := doc[l.items]; ok {
		if err := json.Unmarshal(items, &rows); err != nil {
			return nil, false, fmt.Errorf("braze: %s: %w: %w", l.name, platforms.ErrRejected, err)
		}
	}
	var records []platforms.Record
	for _, raw := range rows {
		var row map[string]any
		if err := json.Unmarshal(raw, &row); err != nil {
			return nil, false, fmt.Errorf("braze: %s: %w: %w", l.name, platforms.ErrRejected, err)
		}
		text := func(name string) string { s, _ := row[name].(string); return s }
		at, precision := platforms.ParseTime(text(l.at), time.UTC)
		native := text("reason")
		if native == "" {
			native = l.name // the reason is which list was asked
		}
		records = append(records, platforms.Record{
			Addr: platforms.AddressOf(q.Channel, text(l.address)), State: platforms.Suppressed, Scope: platforms.Scope{Kind: platforms.Global},
			Facts: []platforms.Fact{{Reason: l.reason, Native: native, At: at, Precision: precision}}, ObservedAt: c.Now(),
		})
	}
	return records, len(rows) >= pageSize, nil
}

type object = map[string]any

// Suppress implements [platforms.Sink]. An email opt-out is the subscription state; a manual block the blocklist; a
// bounce is declined, because Braze would unsubscribe the person with it. A text message opt-out needs the
// subscription group as its scope.
func (c Client) Suppress(ctx context.Context, batch []platforms.Change) (platforms.Receipt, error) {
	return c.write(ctx, batch, func(change platforms.Change) (path, field, state, declined string) {
		switch class := change.Reason.Class(); {
		case change.Addr.Channel == domain.SMS && change.Scope.ID == "":
			return "", "", "", "Braze keeps SMS opt-outs per subscription group: set the policy's group"
		case class == platforms.DeliverabilityClass:
			return "", "", "", "Braze takes a bounce only by unsubscribing the person too"
		case change.Addr.Channel == domain.SMS:
			return "/v2/subscription/status/set", change.Scope.ID, "unsubscribed", ""
		case change.Addr.Channel != domain.Email:
			return "", "", "", "Braze keeps no suppression list on this channel"
		case class == platforms.ConsentClass:
			return "/email/status", "", "unsubscribed", ""
		default:
			return "/email/blocklist", "", "", ""
		}
	})
}

// Resubscribe implements [platforms.Resubscriber]: with the explicit state, which the evidence is for.
func (c Client) Resubscribe(ctx context.Context, batch []platforms.Change) (platforms.Receipt, error) {
	if err := platforms.CheckEvidence(batch); err != nil {
		return platforms.Receipt{}, err
	}
	return c.write(ctx, batch, func(change platforms.Change) (path, field, state, declined string) {
		switch {
		case change.Addr.Channel == domain.Email:
			return "/email/status", "", "opted_in", ""
		case change.Addr.Channel == domain.SMS && change.Scope.ID != "":
			return "/v2/subscription/status/set", change.Scope.ID, "subscribed", ""
		}
		return "", "", "", "Braze keeps SMS opt-outs per subscription group: set the policy's group"
	})
}

// write groups changes by call, group and state, and makes one call for each.
func (c Client) write(ctx context.Context, batch []platforms.Change, how func(platforms.Change) (path, group, state, declined string)) (platforms.Receipt, error) {
	if err := platforms.CheckBatch(batch, caps.WriteMax); err != nil {
		return platforms.Receipt{}, err
	}
	type call struct{ path, group, state string }
	receipt := platforms.Receipt{Outcomes: platforms.Outcomes(batch, platforms.Failed, "not reached")}
	members := map[call][]int{}
	var order []call
	for i, change := range batch {
		path, group, state, declined := how(change)
		if declined != "" {
			receipt.Outcomes[i].Status, receipt.Outcomes[i].Native = platforms.Declined, declined
			continue
		}
		k := call{path, group, state}
		if members[k] == nil {
			order = append(order, k)
		}
		members[k] = append(members[k], i)
	}
	for place, k := range order {
		addresses := make([]string, 0, len(members[k]))
		for _, i := range members[k] {
			addresses = append(addresses, batch[i].Addr.Value)
		}
		body := object{"email": addresses}
		if k.state != "" {
			body["subscription_state"] = k.state
		}
		if k.group != "" {
			body = object{"subscription_groups": []object{{"subscription_group_id": k.group, "subscription_state": k.state, "phones": addresses}}}
		}
		answered, err := c.api().Do(ctx, platforms.Call{Method: http.MethodPost, Path: k.path, Body: body}, nil)
		if err != nil {
			if place == 0 {
				return platforms.Receipt{}, err
			}
			for _, i := range members[k] {
				receipt.Outcomes[i].Native = platforms.Clip(err.Error(), 300)
			}
			continue
		}
		status, native := platforms.Acknowledged, ""
		var said answer
		if json.Unmarshal(answered.Body, &said) == nil && len(said.Errors) > 0 {
			status, native = platforms.Failed, platforms.Clip(string(said.Errors[0]), 300)
		}
		for _, i := range members[k] {
			receipt.Outcomes[i].Status, receipt.Outcomes[i].Native = status, native
		}
	}
	return receipt, nil
}

// Inbound decodes what Braze posts: events of Currents, and postbacks of transactional email. Braze signs neither; a
// bearer token can be agreed for Currents. Without one, records are marked unauthenticated.
type Inbound struct {
	Token platforms.Secret // expected as a bearer token; empty: anybody may post
	Now   func() time.Time
}

var _ platforms.Inbound = Inbound{}

// currents are the events that say something about suppression.
var currents = map[string]struct {
	channel domain.Channel
	reason  platforms.Reason
}{
	"users.messages.email.Unsubscribe": {domain.Email, platforms.Unsubscribed},
	"users.messages.email.MarkAsSpam":  {domain.Email, platforms.Complaint},
	"users.messages.email.Bounce":      {domain.Email, platforms.HardBounce},
	"users.messages.email.SoftBounce":  {domain.Email, platforms.SoftBounce},
}

type currentsEvent struct {
	Type       string  `json:"event_type"`
	ID         string  `json:"id"`
	Time       float64 `json:"time"` // epoch seconds
	ExternalID string  `json:"external_user_id"`
	User       struct {
		ExternalID string `json:"external_user_id"`
	} `json:"user"`
	Properties struct {
		Email   string `json:"email_address"`
		Phone   string `json:"to_phone_number"`
		Channel string `json:"channel"`
		Status  string `json:"subscription_status"`
		Group   string `json:"subscription_group_id"`
		State   string `json:"state"`
	} `json:"properties"`
}

// Decode implements [platforms.Inbound].
func (in Inbound) Decode(h http.Header, body []byte) ([]platforms.Record, error) {
	token, _ := strings.CutPrefix(h.Get("Authorization"), "Bearer ")
	if in.Token != "" && subtle.ConstantTimeCompare([]byte(token), []byte(in.Token)) != 1 {
		return nil, fmt.Errorf("braze: %w: the bearer token is not the one agreed", platforms.ErrSignature)
	}
	var said struct {
		Events     []currentsEvent `json:"events"`
		DispatchID string          `json:"dispatch_id"`
		Status     string          `json:"status"`
		Metadata   struct {
			SendID    string `json:"external_send_id"`
			Reason    string `json:"reason"`
			BouncedAt string `json:"bounced_at"`
			AbortedAt string `json:"aborted_at"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return nil, fmt.Errorf("braze: %w: %w", platforms.ErrInbound, err)
	}
	var records []platforms.Record
	for _, e := range said.Events {
		if record, ok := in.event(e); ok {
			records = append(records, record)
		}
	}
	if said.Status == "bounced" || said.Status == "aborted" {
		reason, when := platforms.HardBounce, said.Metadata.BouncedAt
		if said.Status == "aborted" {
			reason, when = platforms.Unknown, said.Metadata.AbortedAt
		}
		at, precision := platforms.ParseTime(when, time.UTC)
		records = append(records, platforms.Record{ // names the delivery and no address
			Addr: platforms.Address{Channel: domain.Email}, State: platforms.Suppressed, Scope: platforms.Scope{Kind: platforms.Global},
			Facts:      []platforms.Fact{{Reason: reason, Native: strings.TrimSpace(said.Status + " " + said.Metadata.Reason), At: at, Precision: precision}},
			DeliveryID: said.Metadata.SendID, EventKey: said.DispatchID + "-" + said.Status, ObservedAt: in.Now(), Unauthenticated: in.Token == "",
		})
	}
	return records, nil
}

func (in Inbound) event(e currentsEvent) (platforms.Record, bool) {
	id := e.User.ExternalID
	if id == "" {
		id = e.ExternalID
	}
	at := time.Unix(0, int64(e.Time*float64(time.Second))).UTC()
	record := platforms.Record{
		NativeKey: id, State: platforms.Suppressed, Scope: platforms.Scope{Kind: platforms.Global}, EventKey: e.ID,
		ObservedAt: in.Now(), Unauthenticated: in.Token == "",
	}
	fact := platforms.Fact{Native: e.Type, At: at, Precision: platforms.Second}
	known, ok := currents[e.Type]
	switch {
	case ok:
		record.Addr, fact.Reason = platforms.AddressOf(known.channel, e.Properties.Email), known.reason
	case e.Type == "users.messages.subscriptiongroupstatechange" || e.Type == "users.behaviors.subscriptiongroup.StateChange":
		record.Addr = platforms.AddressOf(domain.Email, e.Properties.Email)
		if e.Properties.Phone != "" || strings.EqualFold(e.Properties.Channel, "sms") {
			record.Addr = platforms.AddressOf(domain.SMS, e.Properties.Phone)
		}
		record.Scope = platforms.Scope{Kind: platforms.Group, ID: e.Properties.Group}
		fact.Reason, fact.Native = platforms.Unsubscribed, e.Properties.Status
		if !strings.EqualFold(e.Properties.Status, "Unsubscribed") {
			record.State, fact.Reason = platforms.Cleared, platforms.Resubscribed
		}
	default:
		return platforms.Record{}, false
	}
	record.Facts = []platforms.Fact{fact}
	return record, true
}

// columns are the headings of Braze's list and segment exports.
var columns = platforms.Columns{
	Email: []string{"email", "email_address"}, Phone: []string{"phone", "phone_number"}, NativeKey: []string{"external_id", "user_id", "braze_id"},
	Reason: []string{"email_subscribe", "subscription_state", "status", "reason"},
	At:     []string{"email_unsubscribed_at", "unsubscribed_at", "hard_bounced_at", "invalid_detected_at", "marked_email_as_spam_at"},
	Read: func(native string) (platforms.State, platforms.Reason) {
		switch strings.ToLower(native) {
		case "":
			return platforms.Suppressed, platforms.Unknown
		case "unsubscribed":
			return platforms.Suppressed, platforms.Unsubscribed
		case "subscribed", "opted_in":
			return platforms.Cleared, platforms.Resubscribed
		case "hard_bounced", "hard_bounce":
			return platforms.Suppressed, platforms.HardBounce
		case "spam", "marked_as_spam":
			return platforms.Suppressed, platforms.Complaint
		case "provider_error", "deactivated":
			return platforms.Suppressed, platforms.InvalidAddress
		case "unknown":
			return platforms.NoConsent, platforms.NeverAsked
		}
		return platforms.Suppressed, platforms.Unknown
	},
}
