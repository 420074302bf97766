package dotdigital

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // the digest that Dotdigital signs with
	"encoding/hex"
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

// Page sizes. The offset list moves while it is read, so pages overlap: a row that slid over a page's edge is seen
// again rather than missed.
const (
	offsetPage    = 1000
	offsetOverlap = 50
	markerPage    = 1000
)

// Client reads and writes one account's suppressions. All fields are required.
type Client struct {
	HTTP     *http.Client
	Base     string // one of [Regions], or a simulator
	User     string // API user
	Password platforms.Secret
	Now      func() time.Time
}

var (
	_ platforms.Source       = Client{}
	_ platforms.Sink         = Client{}
	_ platforms.Resubscriber = Client{}
	_ platforms.JobPoller    = Client{}
	_ platforms.Describer    = Client{}
)

// Caps says what Dotdigital can do.
func (Client) Caps() platforms.Caps { return caps }

func (c Client) api() platforms.API {
	return platforms.API{
		Platform: Name, Client: c.HTTP, Base: c.Base, Now: c.Now, Classify: Dialect{}.Classify,
		Authorize: func(_ context.Context, r *http.Request) error {
			r.SetBasicAuth(c.User, string(c.Password))
			return nil
		},
	}
}

// Discover asks any region for the host that the account lives on.
func (c Client) Discover(ctx context.Context) (string, error) {
	var account struct {
		Properties []struct {
			Name  string `json:"name"`
			Value string `json:"value"`
		} `json:"properties"`
	}
	if _, err := c.api().Do(ctx, platforms.Call{Method: http.MethodGet, Path: "/v2/account-info"}, &account); err != nil {
		return "", err
	}
	for _, p := range account.Properties {
		if p.Name != "ApiEndpoint" {
			continue
		}
		for _, base := range Regions { // one of ours, and not wherever the answer points
			if strings.EqualFold(strings.TrimSuffix(p.Value, "/"), base) {
				return base, nil
			}
		}
	}
	return "", fmt.Errorf("dotdigital: the account names no region that we know: %w", platforms.ErrRejected)
}

// Suppressions implements [platforms.Source]. Emails that changed since come from the suppression list with reason
// and date; everything else is a walk over contacts.
func (c Client) Suppressions(ctx context.Context, q platforms.Query) iter.Seq2[platforms.Page, error] {
	return func(yield func(platforms.Page, error) bool) {
		var next func(context.Context, platforms.Query) (platforms.Page, error)
		switch {
		case q.Channel == domain.Email && !q.Full:
			next = c.suppressedSince
		case q.Channel == domain.Email, q.Channel == domain.SMS:
			next = c.contacts
		default:
			yield(platforms.Page{}, fmt.Errorf("dotdigital: no suppressions on channel %q: %w", q.Channel, errors.ErrUnsupported))
			return
		}
		for {
			page, err := next(ctx, q)
			if err != nil {
				yield(platforms.Page{}, err)
				return
			}
			if !yield(page, nil) || page.Done {
				return
			}
			q.Cursor = page.Next
		}
	}
}

// suppressedSince reads one page of the suppression list. The cursor is the number of rows to skip.
func (c Client) suppressedSince(ctx context.Context, q platforms.Query) (platforms.Page, error) {
	skip := 0
	if q.Cursor != "" {
		var err error
		if skip, err = strconv.Atoi(string(q.Cursor)); err != nil {
			return platforms.Page{}, fmt.Errorf("dotdigital: cursor %q: %w", q.Cursor, err)
		}
	}
	var rows []json.RawMessage
	call := platforms.Call{
		Method: http.MethodGet, Path: "/v2/contacts/suppressed-since/" + url.PathEscape(q.Since.UTC().Format(time.RFC3339)),
		Query: url.Values{"select": {strconv.Itoa(offsetPage)}, "skip": {strconv.Itoa(skip)}},
	}
	if _, err := c.api().Do(ctx, call, &rows); err != nil {
		return platforms.Page{}, err
	}
	page := platforms.Page{Done: len(rows) < offsetPage}
	if !page.Done {
		page.Next = platforms.Cursor(strconv.Itoa(skip + offsetPage - offsetOverlap))
	}
	for _, raw := range rows {
		var row struct {
			Contact struct {
				ID    int    `json:"id"`
				Email string `json:"email"`
			} `json:"suppressedContact"`
			Removed string `json:"dateRemoved"`
			Reason  string `json:"reason"`
		}
		if err := json.Unmarshal(raw, &row); err != nil {
			return platforms.Page{}, fmt.Errorf("dotdigital: suppressed contact: %w: %w", platforms.ErrRejected, err)
		}
		at, precision := platforms.ParseTime(row.Removed, time.UTC)
		page.Records = append(page.Records, c.record(domain.Email, row.Contact.Email, row.Contact.ID, row.Reason, at, precision))
	}
	return page, nil
}

// contacts reads one page of contacts, as they stand on the query's channel. The cursor is the service's marker.
func (c Client) contacts(ctx context.Context, q platforms.Query) (platforms.Page, error) {
	query := url.Values{"include": {"channelProperties"}, "limit": {strconv.Itoa(markerPage)}}
	if !q.Full {
		query.Set("~modified", "gte::"+q.Since.UTC().Format(time.RFC3339))
	}
	if q.Cursor != "" {
		query.Set("marker", string(q.Cursor))
	}
	var answer struct {
		Items []json.RawMessage `json:"_items"`
		Links struct {
			Next struct {
				Marker string `json:"marker"`
			} `json:"next"`
		} `json:"_links"`
	}
	if _, err := c.api().Do(ctx, platforms.Call{Method: http.MethodGet, Path: "/contacts/v3", Query: query}, &answer); err != nil {
		return platforms.Page{}, err
	}
	page := platforms.Page{Next: platforms.Cursor(answer.Links.Next.Marker), Complete: q.Full}
	page.Done = page.Next == "" || page.Next == q.Cursor || len(answer.Items) == 0
	for _, raw := range answer.Items {
		var contact struct {
			ID          int    `json:"contactId"`
			Updated     string `json:"updated"`
			Identifiers struct {
				Email  string `json:"email"`
				Mobile string `json:"mobileNumber"`
			} `json:"identifiers"`
			Channels map[string]struct {
				Status string `json:"status"`
			} `json:"channelProperties"`
		}
		if err := json.Unmarshal(raw, &contact); err != nil {
			return platforms.Page{}, fmt.Errorf("dotdigital: contact: %w: %w", platforms.ErrRejected, err)
		}
		address := contact.Identifiers.Email
		if q.Channel == domain.SMS {
			address = contact.Identifiers.Mobile
		}
		if address == "" {
			continue
		}
		at, precision := platforms.ParseTime(contact.Updated, time.UTC)
		if precision != platforms.UnknownTime {
			precision = platforms.UpperBound
		}
		page.Records = append(page.Records, c.record(q.Channel, address, contact.ID, contact.Channels[string(q.Channel)].Status, at, precision))
	}
	return page, nil
}

func (c Client) record(channel domain.Channel, address string, id int, native string, at time.Time, precision platforms.Precision) platforms.Record {
	state, reason := stateOf(native)
	if channel == domain.SMS && strings.EqualFold(native, "bounced") {
		reason = platforms.HardBounce
	}
	addr := platforms.AddressOf(channel, address)
	if channel == domain.SMS {
		addr = platforms.DigitsAddress(address)
	}
	if native == "" {
		native = "noSubscription"
	}
	return platforms.Record{
		Addr: addr, NativeKey: strconv.Itoa(id), State: state, Scope: platforms.Scope{Kind: platforms.Global},
		Facts:      []platforms.Fact{{Reason: reason, Native: native, At: at, Precision: precision}},
		ObservedAt: c.Now(),
	}
}

// words are Dotdigital's reasons and statuses, in lower case: the two versions of its API spell one fact in two ways.
var words = map[string]platforms.Reason{
	"unsubscribed": platforms.Unsubscribed, "softbounced": platforms.SoftBounce, "hardbounced": platforms.HardBounce, "bounced": platforms.HardBounce,
	"ispcomplained": platforms.Complaint, "directcomplaint": platforms.Complaint, "knowncomplainer": platforms.Complaint,
	"knownlitigator": platforms.Legal, "mailblocked": platforms.Blocked, "sharedsuppression": platforms.Blocked,
	"shareddomainsuppression": platforms.Blocked, "domainsuppression": platforms.Blocked, "domainsuppressed": platforms.Blocked,
	"blockedlocalpart": platforms.Blocked, "notallowed": platforms.Blocked, "spamtrap": platforms.Blocked, "purchased": platforms.Blocked,
	"nomxrecord": platforms.InvalidAddress, "suppressed": platforms.Manual, "deleted": platforms.Deleted, "binned": platforms.Deleted,
}

func stateOf(native string) (platforms.State, platforms.Reason) {
	switch word := strings.ToLower(strings.ReplaceAll(native, " ", "")); word {
	case "subscribed":
		return platforms.Cleared, platforms.Resubscribed
	case "nosubscription", "":
		return platforms.NoConsent, platforms.NeverAsked
	case "pendingoptin":
		return platforms.Pending, platforms.PendingOptIn
	default:
		if reason, ok := words[word]; ok {
			return platforms.Suppressed, reason
		}
		return platforms.Suppressed, platforms.Unknown
	}
}

type object = map[string]any

// contact is a contact with a status on the change's channel, as writes give it.
func contact(change platforms.Change, status string) object {
	identifier, value, channel := identify(change.Addr)
	return object{
		"matchIdentifier": identifier, "identifiers": object{identifier: value},
		"channelProperties": object{channel: object{"status": status}},
	}
}

func identify(addr platforms.Address) (identifier, value, channel string) {
	if addr.Channel == domain.SMS {
		return "mobileNumber", strings.TrimPrefix(addr.Value, "+"), "sms"
	}
	return "email", addr.Value, "email"
}

// statusFor is the status that a reason is written as: only an opt-out withdraws consent there.
func statusFor(reason platforms.Reason) string {
	if reason.Class() == platforms.ConsentClass {
		return "unsubscribed"
	}
	return "suppressed"
}

// Suppress implements [platforms.Sink]: one change at once, several as an import job. Both take in people whom
// Dotdigital does not know, which its suppress-contacts call does not.
func (c Client) Suppress(ctx context.Context, batch []platforms.Change) (platforms.Receipt, error) {
	if err := platforms.CheckBatch(batch, caps.WriteMax); err != nil {
		return platforms.Receipt{}, err
	}
	if len(batch) == 1 {
		return platforms.OneByOne(batch, func(change platforms.Change) (platforms.Status, string, error) {
			return c.patch(ctx, change, statusFor(change.Reason))
		})
	}
	contacts := make([]object, len(batch))
	for i, change := range batch {
		contacts[i] = contact(change, statusFor(change.Reason))
	}
	var job struct {
		ID string `json:"importId"`
	}
	call := platforms.Call{Method: http.MethodPut, Path: "/contacts/v3/import", Body: object{"mergeOption": "overwrite", "contacts": contacts}}
	if _, err := c.api().Do(ctx, call, &job); err != nil {
		return platforms.Receipt{}, err
	}
	return platforms.Receipt{Outcomes: platforms.Outcomes(batch, platforms.InProgress, ""), Job: platforms.JobID(job.ID)}, nil
}

func (c Client) patch(ctx context.Context, change platforms.Change, status string) (platforms.Status, string, error) {
	identifier, value, _ := identify(change.Addr)
	body := contact(change, status)
	delete(body, "matchIdentifier")
	_, err := c.api().Do(ctx, platforms.Call{
		Method: http.MethodPatch, Path: "/contacts/v3/" + identifier + "/" + url.PathEscape(value),
		Query: url.Values{"merge-option": {"overwrite"}}, Body: body,
	}, nil)
	if native, own := platforms.Own(err); own {
		return platforms.Declined, native, nil
	}
	return platforms.Applied, "", err
}

// Resubscribe implements [platforms.Resubscriber]. By email Dotdigital may ask the person first, or never do it.
func (c Client) Resubscribe(ctx context.Context, batch []platforms.Change) (platforms.Receipt, error) {
	if err := errors.Join(platforms.CheckBatch(batch, caps.WriteMax), platforms.CheckEvidence(batch)); err != nil {
		return platforms.Receipt{}, err
	}
	return platforms.OneByOne(batch, func(change platforms.Change) (platforms.Status, string, error) {
		if change.Addr.Channel == domain.SMS {
			return c.patch(ctx, change, "subscribed")
		}
		var answer struct {
			Status string `json:"status"`
		}
		body := object{"unsubscribedContact": object{"email": change.Addr.Value}}
		_, err := c.api().Do(ctx, platforms.Call{Method: http.MethodPost, Path: "/v2/contacts/resubscribe", Body: body}, &answer)
		if native, own := platforms.Own(err); own {
			return platforms.Declined, native, nil
		}
		switch answer.Status {
		case "ContactAdded":
			return platforms.Applied, answer.Status, err
		case "ContactChallenged":
			return platforms.Challenged, answer.Status, err
		case "ContactCannotBeUnsuppressed":
			return platforms.Declined, answer.Status, err
		}
		return platforms.Acknowledged, answer.Status, err
	})
}

// Job implements [platforms.JobPoller] for the import job.
func (c Client) Job(ctx context.Context, id platforms.JobID) (platforms.JobReport, error) {
	var answer struct {
		Status  string `json:"status"`
		Summary struct {
			Total   int `json:"total"`
			Created int `json:"created"`
			Updated int `json:"updated"`
			Failed  int `json:"failed"`
		} `json:"summary"`
		Failures []struct {
			Identifiers struct {
				Email  string `json:"email"`
				Mobile string `json:"mobileNumber"`
			} `json:"identifiers"`
			Failures []struct {
				Code string `json:"failureCode"`
			} `json:"failures"`
		} `json:"failures"`
	}
	if _, err := c.api().Do(ctx, platforms.Call{Method: http.MethodGet, Path: "/contacts/v3/import/" + url.PathEscape(string(id))}, &answer); err != nil {
		return platforms.JobReport{}, err
	}
	report := platforms.JobReport{
		Done: answer.Status != "NotFinished", Failed: answer.Status != "NotFinished" && answer.Status != "Finished", Native: answer.Status,
		Total: answer.Summary.Total, Completed: answer.Summary.Created + answer.Summary.Updated, Skipped: answer.Summary.Failed,
		Rejected: map[string]string{},
	}
	for _, failure := range answer.Failures {
		var codes []string
		for _, f := range failure.Failures {
			codes = append(codes, f.Code)
		}
		address := failure.Identifiers.Email
		if address == "" {
			address = platforms.DigitsAddress(failure.Identifiers.Mobile).Value
		}
		report.Rejected[address] = strings.Join(codes, ", ")
	}
	return report, nil
}

// Inbound decodes Dotdigital's message webhooks. The signature is the hex HMAC-SHA1 of the raw body, without a
// timestamp: repeats are recognised by EventKey alone. They tell of deliveries that failed; opt-outs are found on the
// list.
type Inbound struct {
	Secret platforms.Secret
	Now    func() time.Time
}

var _ platforms.Inbound = Inbound{}

// Decode implements [platforms.Inbound].
func (in Inbound) Decode(h http.Header, body []byte) ([]platforms.Record, error) {
	given, err := hex.DecodeString(strings.ToLower(strings.TrimSpace(h.Get("X-Comapi-Signature"))))
	mac := hmac.New(sha1.New, []byte(in.Secret))
	mac.Write(body)
	if err != nil || len(in.Secret) == 0 || !hmac.Equal(mac.Sum(nil), given) {
		return nil, fmt.Errorf("dotdigital: %w", platforms.ErrSignature)
	}
	type event struct {
		ID        string `json:"eventId"`
		Name      string `json:"name"`
		Timestamp string `json:"timestamp"`
		Payload   struct {
			Metadata struct {
				DeliveryID string `json:"delivery_id"`
			} `json:"metadata"`
			Details struct {
				Channel        string `json:"channel"`
				AdditionalInfo struct {
					To string `json:"to"`
				} `json:"additionalInfo"`
			} `json:"details"`
		} `json:"payload"`
	}
	var events []event
	if err := json.Unmarshal(body, &events); err != nil { // one, or an array when batched
		events = make([]event, 1)
		if err := json.Unmarshal(body, &events[0]); err != nil {
			return nil, fmt.Errorf("dotdigital: %w: %w", platforms.ErrInbound, err)
		}
	}
	var records []platforms.Record
	for _, e := range events {
		channel := domain.Channel(e.Payload.Details.Channel)
		if e.Name != "message.failed" || channel != domain.SMS && channel != domain.Email {
			continue
		}
		addr := platforms.AddressOf(channel, e.Payload.Details.AdditionalInfo.To)
		if channel == domain.SMS {
			addr = platforms.DigitsAddress(e.Payload.Details.AdditionalInfo.To)
		}
		at, precision := platforms.ParseTime(e.Timestamp, time.UTC)
		records = append(records, platforms.Record{
			Addr: addr, State: platforms.Suppressed, Scope: platforms.Scope{Kind: platforms.Global}, ObservedAt: in.Now(),
			Facts:    []platforms.Fact{{Reason: platforms.SoftBounce, Native: e.Name, At: at, Precision: precision}},
			EventKey: e.ID, DeliveryID: e.Payload.Metadata.DeliveryID,
		})
	}
	return records, nil
}

// columns are the headings of Dotdigital's suppression and contact exports.
var columns = platforms.Columns{
	Email: []string{"Email", "Email Address"}, Phone: []string{"Mobile Number", "MobileNumber", "Mobile"},
	NativeKey: []string{"Contact ID", "ID"}, Reason: []string{"Reason", "Suppression Reason", "Status", "SMS Status"},
	At: []string{"Date Removed", "Date Suppressed", "Suppressed", "Date"},
	Read: func(native string) (platforms.State, platforms.Reason) {
		if native == "" {
			return platforms.Suppressed, platforms.Unknown
		}
		return stateOf(native)
	},
}
