package sfmc

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

// Limits of the reads and writes.
const (
	lookupMax  = 200  // keys or addresses in one filter
	rowsetPage = 2500 // rows of a data extension
)

// central is the time zone of data views, which carry no mark of it: UTC-6 the whole year.
var central = time.FixedZone("CST", -6*60*60)

// Config is one business unit.
type Config struct {
	HTTP         *http.Client
	Tenant       Tenant
	ClientID     string
	ClientSecret platforms.Secret
	MID          string // the business unit; empty: the package's own
	Now          func() time.Time

	// KeyIsEmail says that the account's subscriber keys are email addresses. It is a setting and never a guess: it
	// saves the second call that turns keys into addresses.
	KeyIsEmail bool

	// SMSExtension is the external key of a data extension filled by a scheduled query over _SMSSubscriptionLog.
	// Empty: SMS opt-outs cannot be read.
	SMSExtension string
}

// Client reads and writes the suppressions of one business unit. Make it with [NewClient].
type Client struct {
	Config
	tokens *platforms.TokenCache
}

var (
	_ platforms.Source       = (*Client)(nil)
	_ platforms.Sink         = (*Client)(nil)
	_ platforms.Resubscriber = (*Client)(nil)
	_ platforms.Describer    = (*Client)(nil)
)

// NewClient makes a client. Its tokens are renewed five minutes before they expire.
func NewClient(config Config) *Client {
	c := &Client{Config: config}
	c.tokens = &platforms.TokenCache{Now: config.Now, Early: 5 * time.Minute, Fetch: c.fetchToken}
	return c
}

// Caps says what this business unit can do.
func (c *Client) Caps() platforms.Caps {
	with := caps
	if c.SMSExtension != "" {
		with.ReadReasons = map[domain.Channel][]platforms.Reason{
			domain.Email: caps.ReadReasons[domain.Email], domain.SMS: {platforms.Unsubscribed},
		}
	}
	return with
}

func (c *Client) fetchToken(ctx context.Context) (platforms.Secret, time.Time, error) {
	body := map[string]string{"grant_type": "client_credentials", "client_id": c.ClientID, "client_secret": string(c.ClientSecret)}
	if c.MID != "" {
		body["account_id"] = c.MID
	}
	var answer struct {
		Token   platforms.Secret `json:"access_token"`
		Expires int              `json:"expires_in"`
	}
	api := platforms.API{Platform: Name, Client: c.HTTP, Base: c.Tenant.Auth, Now: c.Now, Classify: Dialect{}.Classify}
	if _, err := api.Do(ctx, platforms.Call{Method: http.MethodPost, Path: "/v2/token", Body: body}, &answer); err != nil {
		return "", time.Time{}, err
	}
	return answer.Token, c.Now().Add(time.Duration(answer.Expires) * time.Second), nil
}

// Authorize adds the business unit's token to a request; the dispatcher uses it for sends.
func (c *Client) Authorize(ctx context.Context, r *http.Request) error {
	token, err := c.tokens.Token(ctx)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+string(token))
	return nil
}

// Expired drops the token that a refused request carried.
func (c *Client) Expired(r *http.Request) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	c.tokens.Drop(platforms.Secret(token))
}

func (c *Client) rest() platforms.API {
	return platforms.API{
		Platform: Name, Client: c.HTTP, Base: c.Tenant.REST, Now: c.Now, Classify: Dialect{}.Classify, Authorize: c.Authorize, Expired: c.Expired,
	}
}

// soap makes one SOAP call. A token that was refused is dropped and the call made once more.
func (c *Client) soap(ctx context.Context, action string, body any) (reply, error) {
	api := platforms.API{Platform: Name, Client: c.HTTP, Base: c.Tenant.SOAP, Now: c.Now, Classify: classifySOAP}
	for again := true; ; again = false {
		token, err := c.tokens.Token(ctx)
		if err != nil {
			return reply{}, err
		}
		content, err := encode(token, body)
		if err != nil {
			return reply{}, err
		}
		answer, err := api.Do(ctx, platforms.Call{
			Method: http.MethodPost, Path: "/Service.asmx", Type: "text/xml; charset=utf-8", Body: content,
			Header: http.Header{"Soapaction": {action}, "Accept": {"text/xml"}},
		}, nil)
		if errors.Is(err, platforms.ErrCredential) && again {
			c.tokens.Drop(token)
			continue
		}
		if err != nil {
			return reply{}, err
		}
		var said reply
		if err := xml.Unmarshal(answer.Body, &said); err != nil {
			return reply{}, fmt.Errorf("sfmc: %s: %w: %w", action, platforms.ErrRejected, err)
		}
		return said, nil
	}
}

// phase is one retrieval of a read.
type phase struct {
	object     string
	properties []string
}

var (
	everybody = []phase{{"Subscriber", []string{"SubscriberKey", "EmailAddress", "Status", "UnsubscribedDate"}}}
	changes   = []phase{
		{"UnsubEvent", []string{"SubscriberKey", "EventDate", "List.ID", "IsMasterUnsubscribed"}},
		{"BounceEvent", []string{"SubscriberKey", "EventDate", "BounceCategory", "EventType"}},
		{"SubscriberStatusEvent", []string{"SubscriberKey", "CreatedDate", "CurrentStatus", "PreviousStatus", "ReasonUnsub"}},
	}
)

// Suppressions implements [platforms.Source]. An incremental read of emails takes three retrievals of events; a full
// one walks all subscribers, where a complaint shows as an unsubscribe and a bounce as Held. The cursor names the
// retrieval and the request to continue, which Marketing Cloud forgets after a while: the retrieval then begins
// again, and repeats are for the reader to recognise.
func (c *Client) Suppressions(ctx context.Context, q platforms.Query) iter.Seq2[platforms.Page, error] {
	return func(yield func(platforms.Page, error) bool) {
		if q.Channel == domain.SMS && c.SMSExtension != "" {
			c.extension(ctx, q, yield)
			return
		}
		if q.Channel != domain.Email {
			yield(platforms.Page{}, fmt.Errorf("sfmc: no suppressions on channel %q: %w", q.Channel, errors.ErrUnsupported))
			return
		}
		phases := changes
		if q.Full {
			phases = everybody
		}
		object, request, _ := strings.Cut(string(q.Cursor), ":")
		at := max(0, slices.IndexFunc(phases, func(p phase) bool { return p.object == object }))
		resumed := request != ""
		for at < len(phases) {
			p := phases[at]
			said, err := c.retrieve(ctx, p, q, request)
			if err == nil && strings.HasPrefix(said.Retrieve.Status, "Error") {
				if resumed { // the request to continue is forgotten
					request, resumed = "", false
					continue
				}
				err = &platforms.APIError{
					Platform: Name, Method: "Retrieve", Path: p.object,
					Verdict: platforms.Verdict{Kind: domain.Permanent, Reason: "Marketing Cloud refused the retrieval", Native: platforms.Clip(said.Retrieve.Status, 300)},
				}
			}
			var records []platforms.Record
			if err == nil {
				records, err = c.records(ctx, p, said.Retrieve.Results)
			}
			if err != nil {
				yield(platforms.Page{}, err)
				return
			}
			page := platforms.Page{Records: records, Complete: q.Full}
			resumed, request = false, ""
			if said.Retrieve.Status == "MoreDataAvailable" {
				request = said.Retrieve.ID
				page.Next = platforms.Cursor(p.object + ":" + request)
			} else if at++; at < len(phases) {
				page.Next = platforms.Cursor(phases[at].object + ":")
			} else {
				page.Done = true
			}
			if !yield(page, nil) {
				return
			}
		}
	}
}

func (c *Client) retrieve(ctx context.Context, p phase, q platforms.Query, request string) (reply, error) {
	var msg retrieveRequest
	msg.Request.ObjectType, msg.Request.Properties, msg.Request.Continue = p.object, p.properties, request
	switch {
	case p.object == "Subscriber":
		msg.Request.Filter = &filter{Type: "SimpleFilterPart", Property: "SubscriberKey", Operator: "isNotNull"}
	default:
		date := "EventDate"
		if p.object == "SubscriberStatusEvent" {
			date = "CreatedDate"
		}
		msg.Request.Filter = &filter{
			Type: "SimpleFilterPart", Property: date, Operator: "greaterThan", Date: q.Since.Add(-time.Second).UTC().Format("2006-01-02T15:04:05Z"),
		}
	}
	return c.soap(ctx, "Retrieve", msg)
}

// records reads the objects of one page, and finds their addresses.
func (c *Client) records(ctx context.Context, p phase, results []result) ([]platforms.Record, error) {
	addresses, err := c.addresses(ctx, results)
	if err != nil {
		return nil, err
	}
	var records []platforms.Record
	for _, r := range results {
		record := platforms.Record{
			NativeKey: r.Key, State: platforms.Suppressed, Scope: platforms.Scope{Kind: platforms.Global}, ObservedAt: c.Now(),
			Addr: platforms.AddressOf(domain.Email, addresses[r.Key]),
		}
		fact := platforms.Fact{}
		when := r.EventDate
		switch p.object {
		case "Subscriber":
			record.State, fact.Reason = stateOf(r.Status)
			fact.Native, when = r.Status, r.Unsubscribed
		case "UnsubEvent":
			fact.Reason, fact.Native = platforms.Unsubscribed, "UnsubEvent"
			if !strings.EqualFold(r.Master, "true") {
				record.Scope = platforms.Scope{Kind: platforms.List, ID: r.List}
			}
		case "BounceEvent":
			fact.Reason, fact.Native = platforms.SoftBounce, strings.TrimSpace(r.EventType+" "+r.Category)
			if strings.HasPrefix(strings.ToLower(r.EventType), "hard") {
				fact.Reason = platforms.HardBounce
			}
		case "SubscriberStatusEvent":
			when, fact.Native = r.Created, strings.TrimSpace(r.Current+" "+r.Reason)
			switch {
			case strings.EqualFold(r.Current, "Normal"):
				record.State, fact.Reason = platforms.Cleared, platforms.Resubscribed
			case strings.EqualFold(r.Current, "Held"):
				fact.Reason = platforms.Held
			case strings.HasPrefix(strings.ToLower(r.Reason), "spam complaint"):
				fact.Reason = platforms.Complaint
			default:
				fact.Reason = platforms.Unsubscribed
			}
		}
		fact.At, fact.Precision = platforms.ParseTime(when, central)
		record.Facts = []platforms.Fact{fact}
		records = append(records, record)
	}
	return records, nil
}

// stateOf reads a subscriber's status. Held and Bounced are deliverability: no consent is withdrawn by them.
func stateOf(status string) (platforms.State, platforms.Reason) {
	switch strings.ToLower(status) {
	case "active", "normal":
		return platforms.Cleared, platforms.Resubscribed
	case "unsubscribed", "unsub":
		return platforms.Suppressed, platforms.Unsubscribed
	case "held":
		return platforms.Suppressed, platforms.Held
	case "bounced":
		return platforms.Suppressed, platforms.SoftBounce
	case "deleted":
		return platforms.Suppressed, platforms.Deleted
	}
	return platforms.Suppressed, platforms.Unknown
}

// addresses finds the email addresses of the subscribers that results name.
func (c *Client) addresses(ctx context.Context, results []result) (map[string]string, error) {
	found := map[string]string{}
	var missing []string
	for _, r := range results {
		switch {
		case r.Email != "":
			found[r.Key] = r.Email
		case c.KeyIsEmail:
			found[r.Key] = r.Key
		default:
			missing = append(missing, r.Key)
		}
	}
	slices.Sort(missing)
	for chunk := range slices.Chunk(slices.Compact(missing), lookupMax) {
		subscribers, err := c.lookup(ctx, "SubscriberKey", chunk)
		if err != nil {
			return nil, err
		}
		for _, s := range subscribers {
			found[s.Key] = s.Email
		}
	}
	return found, nil
}

// lookup retrieves the subscribers that have one of the values.
func (c *Client) lookup(ctx context.Context, property string, values []string) ([]result, error) {
	var msg retrieveRequest
	msg.Request.ObjectType, msg.Request.Properties = "Subscriber", []string{"SubscriberKey", "EmailAddress", "Status"}
	operator := "IN"
	if len(values) == 1 {
		operator = "equals" // IN of one value is refused
	}
	msg.Request.Filter = &filter{Type: "SimpleFilterPart", Property: property, Operator: operator, Values: values}
	var all []result
	for {
		said, err := c.soap(ctx, "Retrieve", msg)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(said.Retrieve.Status, "Error") {
			return nil, fmt.Errorf("sfmc: subscribers by %s: %w: %s", property, platforms.ErrRejected, platforms.Clip(said.Retrieve.Status, 300))
		}
		all = append(all, said.Retrieve.Results...)
		if said.Retrieve.Status != "MoreDataAvailable" {
			return all, nil
		}
		msg.Request.Continue = said.Retrieve.ID
	}
}

// extension reads SMS opt-outs from the data extension, page by page. The cursor is the page's number.
//
// A row is of one keyword, where the query writes SubscriptionDefinitionID: joining another is no taking back of the opt-out from
// this one. Who is in none of the rows may be in them in a moment, since a query that overwrites the extension empties it first: a
// lifting is only what a row shows.
func (c *Client) extension(ctx context.Context, q platforms.Query, yield func(platforms.Page, error) bool) {
	number := 1
	if q.Cursor != "" {
		var err error
		if number, err = strconv.Atoi(string(q.Cursor)); err != nil {
			yield(platforms.Page{}, fmt.Errorf("sfmc: cursor %q: %w", q.Cursor, err))
			return
		}
	}
	for ; ; number++ {
		var answer struct {
			Size  int `json:"pageSize"` // as it was granted
			Count int `json:"count"`    // of all rows
			Items []struct {
				Keys   map[string]string `json:"keys"`
				Values map[string]string `json:"values"`
			} `json:"items"`
		}
		_, err := c.rest().Do(ctx, platforms.Call{
			Method: http.MethodGet, Path: "/data/v1/customobjectdata/key/" + url.PathEscape(c.SMSExtension) + "/rowset",
			Query: url.Values{"$page": {strconv.Itoa(number)}, "$pageSize": {strconv.Itoa(rowsetPage)}},
		}, &answer)
		if err != nil {
			yield(platforms.Page{}, err)
			return
		}
		size := rowsetPage
		if answer.Size > 0 {
			size = answer.Size
		}
		done := len(answer.Items) < size || answer.Count > 0 && number*size >= answer.Count
		page := platforms.Page{Done: done, Next: platforms.Cursor(strconv.Itoa(number + 1))}
		if page.Done {
			page.Next = ""
		}
		for _, item := range answer.Items {
			field := map[string]string{}
			for _, part := range []map[string]string{item.Keys, item.Values} {
				for name, value := range part {
					field[strings.ToLower(name)] = value
				}
			}
			at, precision := platforms.ParseTime(field["optoutdate"], central)
			if at.IsZero() || !q.Full && at.Before(q.Since) {
				continue // never opted out, or before what was asked
			}
			record := platforms.Record{
				Addr: platforms.DigitsAddress(field["mobilenumber"]), NativeKey: field["subscriberkey"], State: platforms.Suppressed,
				Scope: platforms.Scope{Kind: platforms.Global}, ObservedAt: c.Now(),
				Facts: []platforms.Fact{{Reason: platforms.Unsubscribed, Native: "OptOutStatusID " + field["optoutstatusid"], At: at, Precision: precision}},
			}
			if keyword := field["subscriptiondefinitionid"]; keyword != "" {
				record.Scope = platforms.Scope{Kind: platforms.List, ID: keyword}
			}
			if in, _ := platforms.ParseTime(field["optindate"], central); in.After(at) {
				record.State, record.Facts[0].Reason, record.Facts[0].At = platforms.Cleared, platforms.Resubscribed, in
			}
			page.Records = append(page.Records, record)
		}
		if !yield(page, nil) || page.Done {
			return
		}
	}
}

// Suppress implements [platforms.Sink]: opt-outs become Unsubscribed on All Subscribers. All subscribers who share an
// address are unsubscribed; a stranger is added under the address as key.
func (c *Client) Suppress(ctx context.Context, batch []platforms.Change) (platforms.Receipt, error) {
	return c.update(ctx, batch, "Unsubscribed")
}

// Resubscribe implements [platforms.Resubscriber]. Whether Active lifts Held or a complaint is not documented: read
// back.
func (c *Client) Resubscribe(ctx context.Context, batch []platforms.Change) (platforms.Receipt, error) {
	if err := platforms.CheckEvidence(batch); err != nil {
		return platforms.Receipt{}, err
	}
	return c.update(ctx, batch, "Active")
}

func (c *Client) update(ctx context.Context, batch []platforms.Change, status string) (platforms.Receipt, error) {
	if err := platforms.CheckBatch(batch, caps.WriteMax); err != nil {
		return platforms.Receipt{}, err
	}
	receipt := platforms.Receipt{Outcomes: platforms.Outcomes(batch, platforms.Failed, "the answer does not name it")}
	var addresses []string
	for i, change := range batch {
		switch {
		case change.Addr.Channel != domain.Email:
			receipt.Outcomes[i].Status, receipt.Outcomes[i].Native = platforms.Declined, "Marketing Cloud takes no SMS opt-out by API: it is the subscriber's keyword"
		case status == "Unsubscribed" && change.Reason.Class() == platforms.DeliverabilityClass:
			receipt.Outcomes[i].Status, receipt.Outcomes[i].Native = platforms.Declined, "Marketing Cloud takes a bounce only by unsubscribing the person"
		case change.Scope.ID != "":
			receipt.Outcomes[i].Status, receipt.Outcomes[i].Native = platforms.Declined, "only All Subscribers is written"
		default:
			addresses = append(addresses, change.Addr.Value)
		}
	}
	if len(addresses) == 0 {
		return receipt, nil
	}
	keys := map[string][]string{}
	if !c.KeyIsEmail {
		known, err := c.lookup(ctx, "EmailAddress", addresses)
		if err != nil {
			return platforms.Receipt{}, err
		}
		for _, s := range known {
			address := platforms.AddressOf(domain.Email, s.Email).Value
			keys[address] = append(keys[address], s.Key)
		}
	}
	var request updateRequest
	request.Options.Property, request.Options.Action = "*", "UpdateAdd"
	var owner []int // of each object: its change
	for i, change := range batch {
		if receipt.Outcomes[i].Status == platforms.Declined {
			continue
		}
		mine := keys[change.Addr.Value]
		if len(mine) == 0 {
			mine = []string{change.Addr.Value}
			if change.NativeKey != "" && !c.KeyIsEmail {
				mine[0] = change.NativeKey
			}
		}
		for _, key := range mine {
			request.Objects = append(request.Objects, subscriberObject{Type: "Subscriber", Email: change.Addr.Value, Key: key, Status: status})
			owner = append(owner, i)
		}
	}
	said, err := c.soap(ctx, "Update", request)
	if err != nil {
		return platforms.Receipt{}, err
	}
	failed := map[int]bool{}
	for _, r := range said.Update.Results {
		if r.Ordinal < 0 || r.Ordinal >= len(owner) || failed[owner[r.Ordinal]] {
			continue // a change is done when each of its subscribers is
		}
		outcome := &receipt.Outcomes[owner[r.Ordinal]]
		outcome.Status, outcome.Native = platforms.Applied, r.StatusMessage
		if r.StatusCode != "OK" {
			outcome.Status = platforms.Declined
			failed[owner[r.Ordinal]] = true
		}
	}
	return receipt, nil
}

// ConfirmCallback answers the verification that [Inbound] hands back as a [*Verification]. It must be within four
// hours.
func (c *Client) ConfirmCallback(ctx context.Context, v *Verification) error {
	_, err := c.rest().Do(ctx, platforms.Call{
		Method: http.MethodPost, Path: "/platform/v1/ens-verify", Body: map[string]string{"callbackId": v.CallbackID, "verificationKey": v.Key},
	}, nil)
	return err
}
