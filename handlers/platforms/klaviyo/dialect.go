package klaviyo

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
const Name = "klaviyo"

// Revision is the API revision that this package is written for.
const Revision = "2026-07-15"

// Limits of POST /api/events and its bulk form.
const (
	bodyMax       = 5 << 20   // bytes
	stringMax     = 100 << 10 // bytes
	propertiesMax = 400
	metricMax     = 127 // characters: "less than 128"
	bulkMax       = 1000
)

//go:embed targets/*.yaml
var files embed.FS

func init() {
	targets, err := fs.Sub(files, "targets")
	if err != nil {
		panic(err) // the path is a constant
	}
	platforms.Register(platforms.Platform{Name: Name, Title: "Klaviyo", Dialect: Dialect{}, Caps: caps, Import: columns, Targets: targets, Needs: needs, Connect: connect, Receive: receive})
}

// Dialect is how Klaviyo takes a send: POST /api/events, /api/event-bulk-create-jobs, /api/profile-import.
type Dialect struct{}

var _ platforms.Dialect = Dialect{}

// Validate recognises the JSON:API resource by its type and checks what Klaviyo checks before it answers 202. The
// body of the retired Track and Identify calls is recognised, and each of its fields is told its new place.
func (Dialect) Validate(body []byte) error {
	var problems platforms.Problems
	root, err := platforms.Inspect(Name, body, &problems)
	if err != nil {
		return err
	}
	if len(body) > bodyMax {
		root.Reject("is %d bytes; Klaviyo takes %d at most", len(body), bodyMax)
	}
	switch data := root.Get("data"); {
	case !data.Present() && legacy(root):
	case !data.NeedObject():
	default:
		resource(data)
	}
	return problems.Err(Name)
}

func resource(data platforms.Node) {
	kind, ok := data.Get("type").Filled()
	if !ok {
		return
	}
	attributes := data.Get("attributes")
	switch kind {
	case "event":
		if attributes.NeedObject() {
			event(attributes, true)
		}
	case "event-bulk-create-job":
		bulk(attributes)
	case "profile":
		if attributes.NeedObject() {
			identified(data)
			profile(attributes)
		}
	case "profile-subscription-bulk-create-job":
		data.RejectClass(platforms.ErrDangerous, "subscribes people, and erases their unsubscribe and complaint in Klaviyo; "+
			"record the consent in the ledger and let reconciliation carry it")
	case "profile-suppression-bulk-delete-job":
		data.RejectClass(platforms.ErrDangerous, "lifts suppressions; let reconciliation do it, with evidence")
	}
}

// bulk checks an event-bulk-create-job: up to 1,000 events of any number of profiles.
func bulk(attributes platforms.Node) {
	profiles := attributes.At("events-bulk-create", "data")
	if !profiles.NeedArray(bulkMax) {
		return
	}
	count := 0
	for _, p := range profiles.Items() {
		who := p.At("attributes", "profile", "data")
		if who.NeedObject() {
			identified(who)
			profile(who.Get("attributes"))
		}
		events := p.At("attributes", "events", "data")
		if !events.NeedArray(bulkMax) {
			continue
		}
		count += events.Len()
		for _, e := range events.Items() {
			event(e.Get("attributes"), false)
		}
	}
	if count > bulkMax {
		profiles.Reject("holds %d events; Klaviyo takes %d in one job", count, bulkMax)
	}
}

// event checks the attributes of one event; withProfile when the profile stands in it.
func event(attributes platforms.Node, withProfile bool) {
	if name, ok := metricName(attributes.Get("metric")); ok && len([]rune(name)) > metricMax {
		attributes.At("metric", "data", "attributes", "name").Reject("has %d characters; Klaviyo takes %d at most", len([]rune(name)), metricMax)
	}
	if withProfile {
		if who := attributes.At("profile", "data"); who.NeedObject() {
			identified(who)
			profile(who.Get("attributes"))
		}
	}
	if properties := attributes.Get("properties"); properties.NeedObject() {
		if properties.Len() > propertiesMax {
			properties.Reject("has %d properties; Klaviyo takes %d at most", properties.Len(), propertiesMax)
		}
		properties.Walk(func(n platforms.Node) {
			if text, ok := n.Text(); ok && len(text) > stringMax {
				n.Reject("is %d bytes of text; Klaviyo takes %d at most", len(text), stringMax)
			}
		})
	}
	if value := attributes.Get("value"); value.Present() {
		if _, ok := value.Number(); !ok {
			value.Reject("must be a number: write it without quotes")
		}
	}
	if currency := attributes.Get("value_currency"); currency.Present() {
		if text, ok := currency.Text(); !ok || !currencyCode.MatchString(text) {
			currency.Reject("must be an ISO 4217 code such as AUD")
		}
	}
	if id := attributes.Get("unique_id"); id.Present() {
		if _, ok := id.Text(); !ok {
			id.Reject("must be a string: quote it")
		}
	}
	if at := attributes.Get("time"); at.Present() {
		text, ok := at.Text()
		switch when, err := time.Parse(time.RFC3339, text); {
		case !ok || err != nil:
			at.Reject("must be an ISO 8601 time with zone, such as 2026-08-20T10:00:00Z")
		case when.Year() < 1990:
			at.Reject("is before 1990, which Klaviyo does not take")
		}
	}
	if backfill := attributes.Get("backfill"); backfill.Present() {
		if _, ok := backfill.Bool(); !ok {
			backfill.Reject("must be true or false")
		}
	}
}

func metricName(metric platforms.Node) (string, bool) {
	if text, ok := metric.At("data", "type").Filled(); ok && text != "metric" {
		metric.At("data", "type").Reject(`must be "metric"`)
	}
	return metric.At("data", "attributes", "name").Filled()
}

// identified checks that a profile resource names somebody.
func identified(who platforms.Node) {
	if text, ok := who.Get("type").Filled(); ok && text != "profile" {
		who.Get("type").Reject(`must be "profile"`)
	}
	for _, name := range []string{"email", "phone_number", "external_id", "anonymous_id", "_kx"} {
		if text, ok := who.At("attributes", name).Text(); ok && strings.TrimSpace(text) != "" {
			return
		}
	}
	if text, ok := who.Get("id").Text(); ok && text != "" {
		return
	}
	who.Get("attributes").Reject("names nobody: it needs an email, phone_number, external_id, anonymous_id or the profile's id; " +
		"is the variable spelt as the context has it?")
}

var (
	currencyCode = regexp.MustCompile(`^[A-Z]{3}$`)
	e164         = regexp.MustCompile(`^\+[1-9][0-9]{1,14}$`)
	emailShape   = regexp.MustCompile(`^[^@\s]+@[^@\s.]+(\.[^@\s.]+)+$`)
)

func profile(attributes platforms.Node) {
	if email := attributes.Get("email"); email.Present() {
		if text, ok := email.Text(); !ok || !emailShape.MatchString(text) {
			email.Reject("must be an email address, or be left out")
		}
	}
	if phone := attributes.Get("phone_number"); phone.Present() {
		if text, ok := phone.Text(); !ok || !e164.MatchString(text) {
			phone.Reject("must be a phone number in E.164, such as +61400000001, or be left out")
		}
	}
	if properties := attributes.Get("properties"); properties.Present() {
		properties.NeedObject()
	}
	if attributes.Get("subscriptions").Present() {
		attributes.Get("subscriptions").RejectClass(platforms.ErrDangerous,
			"changes consent from a template; record the consent in the ledger and let reconciliation carry it")
	}
}

// legacyPlaces says where the fields of the retired Track and Identify calls went.
var legacyPlaces = map[string]string{
	"event":         "data.attributes.metric.data.attributes.name",
	"time":          "data.attributes.time, in ISO 8601",
	"$email":        "data.attributes.profile.data.attributes.email",
	"$phone_number": "data.attributes.profile.data.attributes.phone_number",
	"$id":           "data.attributes.profile.data.attributes.external_id",
	"$first_name":   "data.attributes.profile.data.attributes.first_name",
	"$last_name":    "data.attributes.profile.data.attributes.last_name",
	"$city":         "data.attributes.profile.data.attributes.location.city",
	"$region":       "data.attributes.profile.data.attributes.location.region",
	"$country":      "data.attributes.profile.data.attributes.location.country",
	"$zip":          "data.attributes.profile.data.attributes.location.zip",
	"$event_id":     "data.attributes.unique_id",
	"$value":        "data.attributes.value",
}

// legacy recognises the body of the Track and Identify calls, and says where each field belongs today. It reports
// whether it did.
func legacy(root platforms.Node) bool {
	_, token := root.Get("token").Text()
	people := root.Get("customer_properties").IsObject() || root.Get("properties").IsObject()
	if !token || !people {
		return false
	}
	const retired = "this body belongs to Klaviyo's Track and Identify calls, which were retired on 30 June 2024 and answer 410"
	root.RejectClass(platforms.ErrRetired, "%s: POST to https://a.klaviyo.com/api/events (or /api/profile-import to identify) "+
		"with the headers Authorization: Klaviyo-API-Key … and revision: %s", retired, Revision)
	root.Get("token").RejectClass(platforms.ErrRetired, "leave it out: a private key in the Authorization header takes its place")
	move := func(n platforms.Node, name, otherwise string) {
		to := legacyPlaces[name]
		if to == "" {
			to = otherwise
		}
		n.RejectClass(platforms.ErrRetired, "is now %s", to)
	}
	for _, name := range []string{"event", "time"} {
		if n := root.Get(name); n.Present() {
			move(n, name, "")
		}
	}
	for name, n := range root.Get("customer_properties").Members() {
		move(n, name, "data.attributes.profile.data.attributes.properties."+name)
	}
	for name, n := range root.Get("properties").Members() {
		move(n, name, "data.attributes.properties."+name)
	}
	return true
}

// Prepare puts the delivery id into data.attributes.unique_id of an event that has none, into each event of a bulk
// job likewise, and adds the revision header when the target does not set it. A profile import is repeatable as it
// is and takes no key.
func (Dialect) Prepare(req platforms.Request) (platforms.Request, error) {
	out := req.Clone()
	if out.Header.Get("Revision") == "" {
		out.Header.Set("Revision", Revision)
	}
	if out.Header.Get("Content-Type") == "" {
		out.Header.Set("Content-Type", "application/vnd.api+json")
	}
	if !gjson.ValidBytes(req.Body) {
		return platforms.Request{}, fmt.Errorf("klaviyo: prepare: %w: not valid JSON", platforms.ErrBody)
	}
	var err error
	switch gjson.GetBytes(req.Body, "data.type").String() {
	case "event":
		out.Body, out.Key, err = withKey(req.Body, "data.attributes", req.DeliveryID)
	case "event-bulk-create-job":
		const events = "data.attributes.events-bulk-create.data"
		for i, p := range gjson.GetBytes(req.Body, events).Array() {
			for j := range p.Get("attributes.events.data").Array() {
				path := fmt.Sprintf("%s.%d.attributes.events.data.%d.attributes", events, i, j)
				out.Body, _, err = withKey(out.Body, path, fmt.Sprintf("%s-%d-%d", req.DeliveryID, i, j))
				if err != nil {
					break
				}
			}
		}
		out.Key = platforms.Key{Dedupe: platforms.DedupeRejects, In: "body unique_id of each event", Value: req.DeliveryID}
	case "profile":
		out.Key = platforms.Key{Dedupe: platforms.DedupeDrops} // an upsert: the same content again changes nothing
	}
	if err != nil {
		return platforms.Request{}, fmt.Errorf("klaviyo: prepare: %w: %w", platforms.ErrBody, err)
	}
	return out, nil
}

// withKey sets unique_id below path, unless text that is not blank stands there already. Without it Klaviyo would
// take the event's second as its identity, and two events in one second would become one.
func withKey(body []byte, path, id string) ([]byte, platforms.Key, error) {
	path += ".unique_id"
	key := platforms.Key{Dedupe: platforms.DedupeDrops, In: "body /" + strings.ReplaceAll(path, ".", "/"), Value: id}
	if own := gjson.GetBytes(body, path); own.Type == gjson.String && strings.TrimSpace(own.String()) != "" {
		key.Value = own.String()
		return body, key, nil
	}
	body, err := sjson.SetBytes(body, path, id)
	return body, key, err
}

// answer is a JSON:API error answer.
type answer struct {
	Errors []struct {
		Code   string `json:"code"`
		Title  string `json:"title"`
		Detail string `json:"detail"`
		Source struct {
			Pointer   string `json:"pointer"`
			Parameter string `json:"parameter"`
		} `json:"source"`
		Meta struct {
			DuplicateProfileID string `json:"duplicate_profile_id"`
		} `json:"meta"`
	} `json:"errors"`
}

// Classify reads Klaviyo's answers: 202 is queued, 429 names its wait in Retry-After or, failing that, the seconds
// left of the window in RateLimit-Reset, other 4xx are final, 410 is a call that was retired.
func (Dialect) Classify(status int, header http.Header, body []byte, now time.Time) platforms.Verdict {
	v := platforms.ByStatus(status, header, now)
	if v.Kind == domain.Accepted {
		v.Reason = "Klaviyo validated and queued it"
		return v
	}
	var said answer
	_ = json.Unmarshal(body, &said) // a proxy's HTML page leaves it empty, and the status speaks alone
	detail := ""
	if len(said.Errors) > 0 {
		first := said.Errors[0]
		v.Native = platforms.Clip(strings.TrimSpace(first.Code+": "+first.Detail), 300)
		detail = first.Detail
		if at := first.Source.Pointer + first.Source.Parameter; at != "" {
			detail += " (at " + at + ")"
		}
		if more := len(said.Errors) - 1; more > 0 {
			detail += fmt.Sprintf(", and %d more", more)
		}
		detail = platforms.Clip(detail, 300)
	}
	switch {
	case status == http.StatusTooManyRequests:
		v.Reason = "Klaviyo is rate limiting the account"
		if v.RetryAt.IsZero() {
			v.RetryAt = v.Limit.Reset
		}
	case status == http.StatusUnauthorized:
		v.Reason = "Klaviyo refused the private key: check the secret that the target's Authorization header names"
	case status == http.StatusForbidden:
		v.Reason = "the private key lacks a scope for this call (events:write, profiles:write): give it the scope in Klaviyo"
	case status == http.StatusGone:
		v.Reason = "this Klaviyo call is retired: move the target to https://a.klaviyo.com/api/events with a current revision"
	case status == http.StatusNotFound && strings.Contains(strings.ToLower(detail), "revision"):
		v.Reason = "Klaviyo knows no such revision of this call: set the target's revision header to " + Revision
	case status == http.StatusConflict && len(said.Errors) > 0 && said.Errors[0].Meta.DuplicateProfileID != "":
		v.Kind, v.RetryAt = domain.Permanent, time.Time{}
		v.Reason = "the profile exists already: use /api/profile-import, which creates or updates"
	case status == http.StatusConflict:
		v.Kind, v.RetryAt = domain.Permanent, time.Time{}
		v.Reason, v.Said = "Klaviyo reports a conflict", detail
	case status >= 400 && status < 500 && v.Kind == domain.Permanent:
		v.Reason, v.Said = "Klaviyo refused the request", detail
		if detail == "" {
			v.Reason = "Klaviyo refused the request without saying why"
		}
	}
	return v
}

var caps = platforms.Caps{
	Channels: []domain.Channel{domain.Email, domain.SMS, domain.Push},
	Writes:   []domain.Channel{domain.Email, domain.SMS},
	Dedupe:   platforms.DedupeDrops,
	ReadReasons: map[domain.Channel][]platforms.Reason{
		domain.Email: {platforms.Unsubscribed, platforms.Complaint, platforms.HardBounce, platforms.InvalidAddress, platforms.Manual},
		domain.SMS:   {platforms.Unsubscribed},
	},
	ShowsAll:    true,
	SinceStep:   time.Second,
	WriteMax:    100,
	VerifyAfter: 30 * time.Second,
	Cannot: []string{
		"A lifted suppression leaves no trace on the incremental list: only a full read shows it.",
		"SMS opt-outs cannot be asked for: they are found by walking all profiles changed since.",
		"A write takes no date: Klaviyo stamps its own, so our opt-out reads back later than it was decided.",
	},
}
