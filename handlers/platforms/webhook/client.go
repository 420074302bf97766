package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

// Limits of the suppression contract.
const (
	pageSize = 500
	writeMax = 500
)

// Client speaks the suppression contract that we offer to in-house systems:
//
//	GET  {base}/suppressions?channel=&since=&cursor=&limit=   {"items":[…],"next_cursor":"…","complete":true}
//	POST {base}/suppressions {"items":[…]}                    200 {"results":[…]} or 202 {"job":"…"}
//	GET  {base}/jobs/{id}                                     {"status":"running|done|failed","total":…,"completed":…}
//
// Since filters on recorded_at, when the system learned of the row; rows of lifted suppressions are there too
// (state "cleared"). Writes are signed after Standard Webhooks.
type Client struct {
	HTTP    *http.Client
	Base    string           // such as https://crm.example/ledger
	Token   platforms.Secret // sent as a bearer token; empty: none
	Signing platforms.Secret // whsec_…; empty: unsigned
	Now     func() time.Time
}

var (
	_ platforms.Source       = Client{}
	_ platforms.Sink         = Client{}
	_ platforms.Resubscriber = Client{}
	_ platforms.JobPoller    = Client{}
	_ platforms.Describer    = Client{}
)

// item is one row of the contract.
type item struct {
	Channel      string     `json:"channel"`
	Address      string     `json:"address"`
	State        string     `json:"state"` // suppressed, cleared, pending or no_consent
	Reason       string     `json:"reason"`
	Scope        string     `json:"scope,omitempty"` // global, or a list's name
	OccurredAt   *time.Time `json:"occurred_at,omitempty"`
	RecordedAt   *time.Time `json:"recorded_at,omitempty"`
	Source       string     `json:"source,omitempty"`
	NativeReason string     `json:"native_reason,omitempty"`
	NativeID     string     `json:"native_id,omitempty"`
	Key          string     `json:"idempotency_key,omitempty"`

	Evidence map[string]string `json:"evidence,omitempty"`
}

// Caps says what the contract can do.
func (Client) Caps() platforms.Caps { return caps }

func (c Client) api(body []byte, id string) platforms.API {
	return platforms.API{
		Platform: Name, Client: c.HTTP, Base: c.Base, Now: c.Now, Classify: Dialect{}.Classify,
		Authorize: func(_ context.Context, r *http.Request) error {
			if c.Token != "" {
				r.Header.Set("Authorization", "Bearer "+string(c.Token))
			}
			if body == nil || c.Signing == "" {
				return nil
			}
			signed, err := Dialect{}.Prepare(platforms.Request{DeliveryID: id, At: c.Now(), Header: r.Header, Body: body, SigningSecrets: []string{string(c.Signing)}})
			if err != nil {
				return err
			}
			r.Header = signed.Header
			return nil
		},
	}
}

// Suppressions implements [platforms.Source].
func (c Client) Suppressions(ctx context.Context, q platforms.Query) iter.Seq2[platforms.Page, error] {
	return func(yield func(platforms.Page, error) bool) {
		cursor := q.Cursor
		for {
			query := url.Values{"channel": {string(q.Channel)}, "limit": {fmt.Sprint(pageSize)}}
			if !q.Full && !q.Since.IsZero() {
				query.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
			}
			if cursor != "" {
				query.Set("cursor", string(cursor))
			}
			var answer struct {
				Items    []item `json:"items"`
				Next     string `json:"next_cursor"`
				Complete bool   `json:"complete"`
			}
			if _, err := c.api(nil, "").Do(ctx, platforms.Call{Method: http.MethodGet, Path: "/suppressions", Query: query}, &answer); err != nil {
				yield(platforms.Page{}, err)
				return
			}
			page := platforms.Page{Next: platforms.Cursor(answer.Next), Done: answer.Next == "", Complete: q.Full && answer.Complete}
			page.Records = make([]platforms.Record, len(answer.Items))
			for i := range answer.Items {
				page.Records[i] = answer.Items[i].record(c.Now())
			}
			if !yield(page, nil) || page.Done {
				return
			}
			if page.Next == cursor {
				yield(platforms.Page{}, fmt.Errorf("webhook: suppressions: %w: the cursor %q leads to itself", platforms.ErrRejected, cursor))
				return
			}
			cursor = page.Next
		}
	}
}

var states = map[string]platforms.State{
	"suppressed": platforms.Suppressed, "cleared": platforms.Cleared, "pending": platforms.Pending, "no_consent": platforms.NoConsent,
}

// reasons are those of the contract: the neutral ones, by their own names.
var reasons = map[string]platforms.Reason{}

func init() {
	for _, r := range []platforms.Reason{
		platforms.Unsubscribed, platforms.Complaint, platforms.Legal, platforms.HardBounce, platforms.SoftBounce, platforms.Held,
		platforms.InvalidAddress, platforms.Blocked, platforms.Manual, platforms.Deleted, platforms.PendingOptIn, platforms.NeverAsked, platforms.Resubscribed,
	} {
		reasons[string(r)] = r
	}
}

// record reads a row. An unknown state suppresses; an unknown reason is kept verbatim.
func (row item) record(now time.Time) platforms.Record {
	state, ok := states[row.State]
	if !ok {
		state = platforms.Suppressed
	}
	reason, ok := reasons[row.Reason]
	if !ok {
		reason = platforms.Unknown
	}
	native := row.NativeReason
	if native == "" {
		native = row.Reason
	}
	fact := platforms.Fact{Reason: reason, Native: native, Precision: platforms.UnknownTime}
	switch {
	case row.OccurredAt != nil:
		fact.At, fact.Precision = row.OccurredAt.UTC(), platforms.Exact
	case row.RecordedAt != nil:
		fact.At, fact.Precision = row.RecordedAt.UTC(), platforms.UpperBound
	}
	scope := platforms.Scope{Kind: platforms.Global}
	if row.Scope != "" && row.Scope != string(platforms.Global) {
		scope = platforms.Scope{Kind: platforms.List, ID: row.Scope}
	}
	return platforms.Record{
		Addr: platforms.AddressOf(domain.Channel(row.Channel), row.Address), NativeKey: row.NativeID, State: state,
		Facts: []platforms.Fact{fact}, Scope: scope, ObservedAt: now, EventKey: row.Key,
	}
}

// Suppress implements [platforms.Sink].
func (c Client) Suppress(ctx context.Context, batch []platforms.Change) (platforms.Receipt, error) {
	return c.write(ctx, batch, platforms.Suppressed)
}

// Resubscribe implements [platforms.Resubscriber]; the evidence goes with it.
func (c Client) Resubscribe(ctx context.Context, batch []platforms.Change) (platforms.Receipt, error) {
	if err := platforms.CheckEvidence(batch); err != nil {
		return platforms.Receipt{}, err
	}
	return c.write(ctx, batch, platforms.Cleared)
}

var statuses = map[string]platforms.Status{
	"applied": platforms.Applied, "unchanged": platforms.Unchanged, "not_found": platforms.NotFound, "refused": platforms.Declined,
}

func (c Client) write(ctx context.Context, batch []platforms.Change, state platforms.State) (platforms.Receipt, error) {
	if err := platforms.CheckBatch(batch, writeMax); err != nil {
		return platforms.Receipt{}, err
	}
	items := make([]item, len(batch))
	for i, change := range batch {
		items[i] = item{
			Channel: string(change.Addr.Channel), Address: change.Addr.Value, State: string(state), Reason: string(change.Reason),
			Scope: change.Scope.ID, Source: "dispatch-ledger", Key: change.Key, Evidence: change.Evidence,
		}
		if !change.At.IsZero() {
			at := change.At.UTC()
			items[i].OccurredAt = &at
		}
	}
	body, err := json.Marshal(map[string]any{"items": items})
	if err != nil {
		return platforms.Receipt{}, fmt.Errorf("webhook: suppressions: %w", err)
	}
	var answer struct {
		Job     string `json:"job"`
		Results []struct {
			Index    int    `json:"index"`
			Status   string `json:"status"`
			NativeID string `json:"native_id"`
			Detail   string `json:"detail"`
		} `json:"results"`
	}
	call := platforms.Call{Method: http.MethodPost, Path: "/suppressions", Body: body}
	if _, err := c.api(body, batch[0].Key).Do(ctx, call, &answer); err != nil {
		return platforms.Receipt{}, err
	}
	if answer.Job != "" {
		return platforms.Receipt{Outcomes: platforms.Outcomes(batch, platforms.InProgress, ""), Job: platforms.JobID(answer.Job)}, nil
	}
	receipt := platforms.Receipt{Outcomes: platforms.Outcomes(batch, platforms.Acknowledged, "the answer does not name it")}
	for _, result := range answer.Results {
		if result.Index < 0 || result.Index >= len(batch) {
			continue
		}
		outcome := &receipt.Outcomes[result.Index]
		outcome.Native = platforms.Clip(result.Detail, 300)
		if status, ok := statuses[result.Status]; ok {
			outcome.Status = status
		} else {
			outcome.Status, outcome.Native = platforms.Failed, "unknown status "+result.Status
		}
	}
	return receipt, nil
}

// Job implements [platforms.JobPoller].
func (c Client) Job(ctx context.Context, id platforms.JobID) (platforms.JobReport, error) {
	var answer struct {
		Status    string `json:"status"`
		Total     int    `json:"total"`
		Completed int    `json:"completed"`
	}
	if _, err := c.api(nil, "").Do(ctx, platforms.Call{Method: http.MethodGet, Path: "/jobs/" + url.PathEscape(string(id))}, &answer); err != nil {
		return platforms.JobReport{}, err
	}
	return platforms.JobReport{
		Done: answer.Status == "done" || answer.Status == "failed", Failed: answer.Status == "failed",
		Native: answer.Status, Total: answer.Total, Completed: answer.Completed,
	}, nil
}

// Inbound decodes webhooks that an in-house system sends us, signed after Standard Webhooks: one row of the
// contract, or {"items":[…]}.
type Inbound struct {
	Secrets   []platforms.Secret // whsec_…; any of them may have signed, so that a sender can rotate
	Tolerance time.Duration      // how old or how far ahead the timestamp may be; 0: five minutes
	Now       func() time.Time
}

var _ platforms.Inbound = Inbound{}

// Decode implements [platforms.Inbound]. EventKey is the webhook-id with the row's place.
func (in Inbound) Decode(h http.Header, body []byte) ([]platforms.Record, error) {
	if err := in.verify(h, body); err != nil {
		return nil, err
	}
	var many struct {
		Items []json.RawMessage `json:"items"`
		Data  json.RawMessage   `json:"data"`
	}
	if err := json.Unmarshal(body, &many); err != nil {
		return nil, fmt.Errorf("webhook: %w: %w", platforms.ErrInbound, err)
	}
	rows := many.Items
	switch {
	case rows != nil:
	case many.Data != nil: // the specification's envelope: {"type","timestamp","data"}
		rows = []json.RawMessage{many.Data}
	default:
		rows = []json.RawMessage{body}
	}
	var records []platforms.Record
	for i, raw := range rows {
		var row item
		if err := json.Unmarshal(raw, &row); err != nil || row.Address == "" || row.Channel == "" {
			return nil, fmt.Errorf("webhook: %w: row %d has no channel and address", platforms.ErrInbound, i)
		}
		record := row.record(in.Now())
		record.EventKey = fmt.Sprintf("%s-%d", h.Get("webhook-id"), i)
		records = append(records, record)
	}
	return records, nil
}

func (in Inbound) verify(h http.Header, body []byte) error {
	tolerance := in.Tolerance
	if tolerance == 0 {
		tolerance = 5 * time.Minute
	}
	var seconds int64
	if _, err := fmt.Sscanf(h.Get("webhook-timestamp"), "%d", &seconds); err != nil {
		return fmt.Errorf("webhook: %w: no webhook-timestamp", platforms.ErrSignature)
	}
	if age := in.Now().Sub(time.Unix(seconds, 0)).Abs(); age > tolerance {
		return fmt.Errorf("webhook: %w: it is %s off, the most is %s", platforms.ErrSignature, age.Round(time.Second), tolerance)
	}
	var errs []error
	for _, secret := range in.Secrets {
		hook, err := standardwebhooks.NewWebhook(string(secret))
		if err != nil {
			errs = append(errs, errors.New(`a secret is not "whsec_" and base64`))
			continue
		}
		if err := hook.VerifyIgnoringTimestamp(body, h); err == nil {
			return nil
		}
	}
	return errors.Join(append(errs, fmt.Errorf("webhook: %w", platforms.ErrSignature))...)
}

var columns = platforms.Columns{
	Email: []string{"email", "email address"}, Phone: []string{"phone", "mobile", "phone number"}, NativeKey: []string{"id", "native id", "customer id"},
	Reason: []string{"reason", "status", "state"}, At: []string{"occurred at", "date", "timestamp", "recorded at"},
	Read: func(native string) (platforms.State, platforms.Reason) {
		switch native {
		case "":
			return platforms.Suppressed, platforms.Unknown
		case "cleared", "resubscribed", "subscribed":
			return platforms.Cleared, platforms.Resubscribed
		case "no_consent":
			return platforms.NoConsent, platforms.NeverAsked
		}
		if reason, ok := reasons[native]; ok {
			return platforms.Suppressed, reason
		}
		return platforms.Suppressed, platforms.Unknown
	},
}
