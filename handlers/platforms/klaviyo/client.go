package klaviyo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

// Base is Klaviyo's one host.
const Base = "https://a.klaviyo.com"

// Page sizes and batch limits.
const (
	pageSize     = 100 // profiles, the most
	suppressMax  = 100 // profiles in one suppress or unsubscribe call
	subscribeMax = 1000
)

// Client reads and writes one account's suppressions. All fields are required.
//
// Klaviyo keeps suppression and consent apart. An opt-out is written by the unsubscribe call, which takes no job to
// poll; a bounce or a manual block by the suppress call, which is a job and knows emails only.
type Client struct {
	HTTP *http.Client
	Base string           // [Base], or a simulator
	Key  platforms.Secret // private key with profiles:read, profiles:write, subscriptions:write, lists:write
	Now  func() time.Time
}

var (
	_ platforms.Source       = Client{}
	_ platforms.Sink         = Client{}
	_ platforms.Resubscriber = Client{}
	_ platforms.JobPoller    = Client{}
	_ platforms.Describer    = Client{}
)

// Caps says what Klaviyo can do.
func (Client) Caps() platforms.Caps { return caps }

func (c Client) api() platforms.API {
	return platforms.API{
		Platform: Name, Client: c.HTTP, Base: c.Base, Now: c.Now, Classify: Dialect{}.Classify,
		Authorize: func(_ context.Context, r *http.Request) error {
			r.Header.Set("Authorization", "Klaviyo-API-Key "+string(c.Key))
			r.Header.Set("Revision", Revision)
			r.Header.Set("Accept", mediaType)
			return nil
		},
	}
}

const mediaType = "application/vnd.api+json"

// phase is one walk over profiles. An incremental email read takes two, because global and per-list suppressions
// are found by different filters.
type phase struct {
	name   string
	filter string // field that the filter and the sort go by; empty: everything, by creation
	op     string
}

var (
	everything = []phase{{name: "all"}}
	suppressed = []phase{
		{name: "global", filter: "subscriptions.email.marketing.suppression.timestamp", op: "greater-or-equal"},
		{name: "lists", filter: "subscriptions.email.marketing.list_suppressions.timestamp", op: "greater-or-equal"},
	}
	updated = []phase{{name: "updated", filter: "updated", op: "greater-than"}}
)

// Suppressions implements [platforms.Source]. An incremental read of emails follows the suppressions' own
// timestamps and cannot show a lifted one; SMS has no such list, so all profiles updated since are walked, and those
// that may be texted are yielded too.
func (c Client) Suppressions(ctx context.Context, q platforms.Query) iter.Seq2[platforms.Page, error] {
	return func(yield func(platforms.Page, error) bool) {
		var phases []phase
		switch {
		case q.Channel != domain.Email && q.Channel != domain.SMS:
			yield(platforms.Page{}, fmt.Errorf("klaviyo: no suppressions on channel %q: %w", q.Channel, errors.ErrUnsupported))
			return
		case q.Full:
			phases = everything
		case q.Channel == domain.SMS:
			phases = updated
		default:
			phases = suppressed
		}
		name, after, _ := strings.Cut(string(q.Cursor), ":")
		for i := 0; i < len(phases); {
			p := phases[i]
			if name != "" && name != p.name {
				i++
				continue
			}
			records, next, err := c.page(ctx, q, p, after)
			if err != nil {
				yield(platforms.Page{}, err)
				return
			}
			name, after = p.name, next
			page := platforms.Page{Records: records, Complete: q.Full, Next: platforms.Cursor(name + ":" + after)}
			if next == "" {
				i++
				name = ""
				if page.Done = i == len(phases); !page.Done {
					page.Next = platforms.Cursor(phases[i].name + ":")
				} else {
					page.Next = ""
				}
			}
			if !yield(page, nil) {
				return
			}
		}
	}
}

// page reads one page of a walk and gives the cursor of the next; empty when there is none.
func (c Client) page(ctx context.Context, q platforms.Query, p phase, after string) ([]platforms.Record, string, error) {
	query := url.Values{
		"additional-fields[profile]": {"subscriptions"}, // left out, everybody looks unsuppressed
		"page[size]":                 {strconv.Itoa(pageSize)},
		"sort":                       {"created"},
	}
	if p.filter != "" {
		since := q.Since
		if p.op == "greater-than" {
			since = since.Add(-time.Second) // Klaviyo offers no greater-or-equal here
		}
		query.Set("filter", fmt.Sprintf("%s(%s,%s)", p.op, p.filter, since.UTC().Format(time.RFC3339)))
		query.Set("sort", p.filter)
	}
	if after != "" {
		query.Set("page[cursor]", after)
	}
	var doc struct {
		Data  []json.RawMessage `json:"data"`
		Links struct {
			Next string `json:"next"`
		} `json:"links"`
	}
	if _, err := c.api().Do(ctx, platforms.Call{Method: http.MethodGet, Path: "/api/profiles", Query: query}, &doc); err != nil {
		return nil, "", err
	}
	var records []platforms.Record
	for _, raw := range doc.Data {
		found, err := c.records(raw, q, p)
		if err != nil {
			return nil, "", err
		}
		records = append(records, found...)
	}
	// Only the cursor is taken from the link: its host is the answer's word, and our key must not follow it.
	next := ""
	if doc.Links.Next != "" {
		link, err := url.Parse(doc.Links.Next)
		if err != nil {
			return nil, "", fmt.Errorf("klaviyo: next page: %w", err)
		}
		next = link.Query().Get("page[cursor]")
	}
	return records, next, nil
}

type profileResource struct {
	ID         string `json:"id"`
	Attributes struct {
		Email         string `json:"email"`
		Phone         string `json:"phone_number"`
		Subscriptions *struct {
			Email struct {
				Marketing marketing `json:"marketing"`
			} `json:"email"`
			SMS struct {
				Marketing marketing `json:"marketing"`
			} `json:"sms"`
		} `json:"subscriptions"`
	} `json:"attributes"`
}

type marketing struct {
	Consent          string        `json:"consent"`
	ConsentTimestamp string        `json:"consent_timestamp"`
	Suppression      []suppression `json:"suppression"`
	ListSuppressions []suppression `json:"list_suppressions"`
}

type suppression struct {
	ListID    string `json:"list_id"`
	Reason    string `json:"reason"`
	Timestamp string `json:"timestamp"`
}

// records reads a profile on one channel: a record for the profile as a whole, and one for each list it is
// suppressed on. A profile that a filtered walk found for another reason gives none.
func (c Client) records(raw json.RawMessage, q platforms.Query, p phase) ([]platforms.Record, error) {
	var doc profileResource
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("klaviyo: profile: %w", err)
	}
	subscriptions := doc.Attributes.Subscriptions
	if subscriptions == nil {
		return nil, fmt.Errorf("klaviyo: profile %s came without its subscriptions, though they were asked for: %w", doc.ID, platforms.ErrRejected)
	}
	base := platforms.Record{NativeKey: doc.ID, Scope: platforms.Scope{Kind: platforms.Global}, ObservedAt: c.Now()}
	if q.Channel == domain.SMS {
		if doc.Attributes.Phone == "" {
			return nil, nil
		}
		base.Addr = platforms.AddressOf(domain.SMS, doc.Attributes.Phone)
		base.State, base.Facts = consent(subscriptions.SMS.Marketing)
		return []platforms.Record{base}, nil
	}
	if doc.Attributes.Email == "" {
		return nil, nil
	}
	base.Addr = platforms.AddressOf(domain.Email, doc.Attributes.Email)
	state := subscriptions.Email.Marketing
	var records []platforms.Record
	if p.name != "lists" {
		global := base
		global.State, global.Facts = consent(state)
		if facts := facts(state.Suppression); len(facts) > 0 {
			global.State, global.Facts = platforms.Suppressed, facts
		}
		records = append(records, global)
	}
	if p.name != "global" {
		for _, s := range state.ListSuppressions {
			list := base
			list.State, list.Facts = platforms.Suppressed, facts([]suppression{s})
			list.Scope = platforms.Scope{Kind: platforms.List, ID: s.ListID}
			records = append(records, list)
		}
	}
	return records, nil
}

// consent reads the state of a channel on which nothing is suppressed.
func consent(m marketing) (platforms.State, []platforms.Fact) {
	at, precision := platforms.ParseTime(m.ConsentTimestamp, time.UTC)
	fact := platforms.Fact{Native: m.Consent, At: at, Precision: precision}
	switch m.Consent {
	case "UNSUBSCRIBED":
		fact.Reason = platforms.Unsubscribed
		return platforms.Suppressed, []platforms.Fact{fact}
	case "SUBSCRIBED":
		fact.Reason = platforms.Resubscribed
		return platforms.Cleared, []platforms.Fact{fact}
	}
	fact.Reason = platforms.NeverAsked
	return platforms.NoConsent, []platforms.Fact{fact}
}

func facts(suppressions []suppression) []platforms.Fact {
	facts := make([]platforms.Fact, 0, len(suppressions))
	for _, s := range suppressions {
		at, precision := platforms.ParseTime(s.Timestamp, time.UTC)
		facts = append(facts, platforms.Fact{Reason: reasonOf(s.Reason), Native: s.Reason, At: at, Precision: precision})
	}
	return facts
}

// reasonOf reads Klaviyo's suppression reasons. SPAM_REPORT is how one page of the documentation spells
// SPAM_COMPLAINT.
func reasonOf(native string) platforms.Reason {
	switch strings.ToUpper(strings.ReplaceAll(strings.TrimSpace(native), " ", "_")) {
	case "UNSUBSCRIBE", "UNSUBSCRIBED":
		return platforms.Unsubscribed
	case "SPAM_COMPLAINT", "SPAM_REPORT", "MARKED_AS_SPAM":
		return platforms.Complaint
	case "HARD_BOUNCE", "BOUNCED":
		return platforms.HardBounce
	case "INVALID_EMAIL":
		return platforms.InvalidAddress
	case "USER_SUPPRESSED":
		return platforms.Manual
	case "NEVER_SUBSCRIBED":
		return platforms.NeverAsked
	}
	return platforms.Unknown
}

// Suppress implements [platforms.Sink]: opt-outs by the unsubscribe call, which is acknowledged and has no job, the
// rest by the suppress job, whose id the receipt carries. Klaviyo stamps its own time on both.
func (c Client) Suppress(ctx context.Context, batch []platforms.Change) (platforms.Receipt, error) {
	if err := platforms.CheckBatch(batch, suppressMax); err != nil {
		return platforms.Receipt{}, err
	}
	receipt := platforms.Receipt{Outcomes: make([]platforms.Outcome, len(batch))}
	groups := map[string][]int{} // indexes into batch: "suppress", or "unsubscribe" and a list's id
	for i, change := range batch {
		receipt.Outcomes[i].Key = change.Key
		switch {
		case change.Reason.Class() == platforms.ConsentClass:
			groups["unsubscribe"+change.Scope.ID] = append(groups["unsubscribe"+change.Scope.ID], i)
		case change.Addr.Channel == domain.Email && change.Scope.ID == "":
			groups["suppress"] = append(groups["suppress"], i)
		default:
			receipt.Outcomes[i].Status = platforms.Declined
			receipt.Outcomes[i].Native = "Klaviyo suppresses email addresses, on the account as a whole; only an opt-out goes further"
		}
	}
	for group, indexes := range groups {
		var err error
		if group == "suppress" {
			receipt.Job, err = c.suppress(ctx, batch, indexes, receipt.Outcomes)
		} else {
			err = c.unsubscribe(ctx, batch, indexes, strings.TrimPrefix(group, "unsubscribe"), receipt.Outcomes)
		}
		if err != nil {
			return platforms.Receipt{}, err
		}
	}
	return receipt, nil
}

// suppress makes a suppress job of the named changes.
func (c Client) suppress(ctx context.Context, batch []platforms.Change, indexes []int, outcomes []platforms.Outcome) (platforms.JobID, error) {
	answer, err := c.submit(ctx, "/api/profile-suppression-bulk-create-jobs", indexes, outcomes, func(indexes []int) any {
		profiles := []any{}
		for _, i := range indexes {
			profiles = append(profiles, object{"type": "profile", "attributes": object{"email": batch[i].Addr.Value}})
		}
		return object{"data": object{"type": "profile-suppression-bulk-create-job", "attributes": object{"profiles": object{"data": profiles}}}}
	}, platforms.InProgress)
	if err != nil || answer == nil {
		return "", err
	}
	var job jobResource
	if err := json.Unmarshal(answer, &job); err != nil {
		return "", fmt.Errorf("klaviyo: suppress job: %w", err)
	}
	return platforms.JobID(job.Data.ID), nil
}

// unsubscribe writes opt-outs, of one list or of the account.
func (c Client) unsubscribe(ctx context.Context, batch []platforms.Change, indexes []int, list string, outcomes []platforms.Outcome) error {
	_, err := c.submit(ctx, "/api/profile-subscription-bulk-delete-jobs", indexes, outcomes, func(indexes []int) any {
		profiles := []any{}
		for _, i := range indexes {
			profiles = append(profiles, object{"type": "profile", "attributes": subscription(batch[i], object{"consent": "UNSUBSCRIBED"})})
		}
		data := object{"type": "profile-subscription-bulk-delete-job", "attributes": object{"profiles": object{"data": profiles}}}
		if list != "" {
			data["relationships"] = object{"list": object{"data": object{"type": "list", "id": list}}}
		}
		return object{"data": data}
	}, platforms.Acknowledged)
	return err
}

type object = map[string]any

// subscription is a profile's attributes with a marketing consent on the change's channel.
func subscription(change platforms.Change, consent object) object {
	field, channel := "email", "email"
	if change.Addr.Channel == domain.SMS {
		field, channel = "phone_number", "sms"
	}
	return object{field: change.Addr.Value, "subscriptions": object{channel: object{"marketing": consent}}}
}

// culprit finds the index of the profile that an error points at.
var culprit = regexp.MustCompile(`/profiles/data/(\d+)(/|$)`)

// submit sends changes as one job. Klaviyo refuses the whole for one bad address and points at it: that one is
// declined in Klaviyo's words, and the rest sent again. It returns the last answer; nil when none was left to send.
func (c Client) submit(ctx context.Context, path string, indexes []int, outcomes []platforms.Outcome,
	body func([]int) any, status platforms.Status,
) ([]byte, error) {
	indexes = append([]int(nil), indexes...)
	for len(indexes) > 0 {
		answer, err := c.api().Do(ctx, platforms.Call{Method: http.MethodPost, Path: path, Type: mediaType, Body: body(indexes)}, nil)
		if err == nil {
			for _, i := range indexes {
				outcomes[i].Status = status
			}
			return answer.Body, nil
		}
		bad := map[int]string{}
		var failed *platforms.APIError
		if errors.As(err, &failed) && failed.Status == http.StatusBadRequest {
			bad = culprits(failed.Body, len(indexes))
		}
		if len(bad) == 0 {
			return nil, err
		}
		kept := indexes[:0]
		for place, i := range indexes {
			if words, is := bad[place]; is {
				outcomes[i].Status, outcomes[i].Native = platforms.Declined, words
				continue
			}
			kept = append(kept, i)
		}
		indexes = kept
	}
	return nil, nil
}

// culprits are the places in a batch that an error answer points at, with what it says of each.
func culprits(body []byte, n int) map[int]string {
	var said answer
	if err := json.Unmarshal(body, &said); err != nil {
		return nil
	}
	bad := map[int]string{}
	for _, e := range said.Errors {
		if found := culprit.FindStringSubmatch(e.Source.Pointer); found != nil {
			if place, err := strconv.Atoi(found[1]); err == nil && place < n {
				bad[place] = platforms.Clip(e.Detail, 300)
			}
		}
	}
	return bad
}

// Resubscribe implements [platforms.Resubscriber] by a historical import: no opt-in message is sent, and the consent
// carries the date of its evidence. It erases UNSUBSCRIBE, SPAM_REPORT and USER_SUPPRESSED in Klaviyo.
func (c Client) Resubscribe(ctx context.Context, batch []platforms.Change) (platforms.Receipt, error) {
	if err := platforms.CheckBatch(batch, subscribeMax); err != nil {
		return platforms.Receipt{}, err
	}
	if err := platforms.CheckEvidence(batch); err != nil {
		return platforms.Receipt{}, err
	}
	receipt := platforms.Receipt{Outcomes: platforms.Outcomes(batch, platforms.Failed, "")}
	all := make([]int, len(batch))
	for i := range all {
		all[i] = i
	}
	_, err := c.submit(ctx, "/api/profile-subscription-bulk-create-jobs", all, receipt.Outcomes, func(indexes []int) any {
		profiles := []any{}
		for _, i := range indexes {
			consent := object{"consent": "SUBSCRIBED", "consented_at": batch[i].At.UTC().Format(time.RFC3339)}
			profiles = append(profiles, object{"type": "profile", "attributes": subscription(batch[i], consent)})
		}
		return object{"data": object{
			"type":       "profile-subscription-bulk-create-job",
			"attributes": object{"historical_import": true, "custom_source": "dispatch-ledger", "profiles": object{"data": profiles}},
		}}
	}, platforms.Acknowledged)
	if err != nil {
		return platforms.Receipt{}, err
	}
	return receipt, nil
}

type jobResource struct {
	Data struct {
		ID         string `json:"id"`
		Attributes struct {
			Status    string `json:"status"`
			Total     int    `json:"total_count"`
			Completed int    `json:"completed_count"`
			Skipped   int    `json:"skipped_count"`
		} `json:"attributes"`
	} `json:"data"`
}

// Job implements [platforms.JobPoller] for the suppress job. It counts and names nobody: read back to learn more.
func (c Client) Job(ctx context.Context, id platforms.JobID) (platforms.JobReport, error) {
	var job jobResource
	path := "/api/profile-suppression-bulk-create-jobs/" + url.PathEscape(string(id))
	if _, err := c.api().Do(ctx, platforms.Call{Method: http.MethodGet, Path: path}, &job); err != nil {
		return platforms.JobReport{}, err
	}
	a := job.Data.Attributes
	return platforms.JobReport{
		Done: a.Status == "complete" || a.Status == "cancelled", Failed: a.Status == "cancelled", Native: a.Status,
		Total: a.Total, Completed: a.Completed, Skipped: a.Skipped,
	}, nil
}
