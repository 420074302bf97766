package simulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// profile is one person in an account.
type profile struct {
	ID          string         `json:"id"`
	Email       string         `json:"email,omitempty"`
	Phone       string         `json:"phone_number,omitempty"`
	ExternalID  string         `json:"external_id,omitempty"`
	AnonymousID string         `json:"anonymous_id,omitempty"`
	FirstName   string         `json:"first_name,omitempty"`
	LastName    string         `json:"last_name,omitempty"`
	Properties  map[string]any `json:"properties,omitempty"`
	Created     time.Time      `json:"created"`
	Updated     time.Time      `json:"updated"`
	Mail        channel        `json:"email_marketing"`
	Text        channel        `json:"sms_marketing"`
}

// channel is what a profile's subscription to a channel is.
type channel struct {
	Consent     string    `json:"consent,omitempty"` // empty: NEVER_SUBSCRIBED
	ConsentAt   time.Time `json:"consent_at,omitzero"`
	Suppression []mark    `json:"suppression,omitempty"` // email only
	Lists       []mark    `json:"list_suppressions,omitempty"`
}

// mark is one reason for a suppression.
type mark struct {
	List   string    `json:"list,omitempty"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// The shapes that the calls take. A pointer tells absent (or null) from empty.
type (
	envelope[A any] struct {
		Data *resource[A] `json:"data"`
	}
	resource[A any] struct {
		Type       string `json:"type"`
		ID         string `json:"id"`
		Attributes *A     `json:"attributes"`
	}
	profileAttributes struct {
		Email       *string        `json:"email"`
		Phone       *string        `json:"phone_number"`
		ExternalID  *string        `json:"external_id"`
		AnonymousID *string        `json:"anonymous_id"`
		Kx          *string        `json:"_kx"`
		FirstName   *string        `json:"first_name"`
		LastName    *string        `json:"last_name"`
		Properties  map[string]any `json:"properties"`
	}
	metricAttributes struct {
		Name string `json:"name"`
	}
	eventAttributes struct {
		Properties json.RawMessage              `json:"properties"`
		Time       *time.Time                   `json:"time"`
		Value      *float64                     `json:"value"`
		Currency   *string                      `json:"value_currency"`
		UniqueID   *string                      `json:"unique_id"`
		Backfill   *bool                        `json:"backfill"`
		Metric     *envelope[metricAttributes]  `json:"metric"`
		Profile    *envelope[profileAttributes] `json:"profile"`
	}
	bulkAttributes struct {
		Events *struct {
			Data []resource[struct {
				Profile *envelope[profileAttributes] `json:"profile"`
				Events  *struct {
					Data []resource[eventAttributes] `json:"data"`
				} `json:"events"`
			}] `json:"data"`
		} `json:"events-bulk-create"`
	}
)

// parse decodes a body whose resource must be of a type.
func parse[A any](body []byte, kind string) (*resource[A], []problem) {
	var doc envelope[A]
	if err := json.Unmarshal(body, &doc); err != nil {
		pointer := "/data"
		var field *json.UnmarshalTypeError
		if errors.As(err, &field) {
			pointer = "/" + strings.ReplaceAll(field.Field, ".", "/")
			return nil, []problem{invalid(pointer, "Invalid input: expected "+field.Type.String()+".")}
		}
		return nil, []problem{{Code: "parse_error", Title: "Malformed request.", Detail: "JSON parse error - " + err.Error(), Pointer: pointer}}
	}
	switch {
	case doc.Data == nil:
		return nil, []problem{required("/data", "data")}
	case doc.Data.Type != kind:
		return nil, []problem{invalid("/data/type", fmt.Sprintf("%q is not a valid resource type for this endpoint: expected %q.", doc.Data.Type, kind))}
	case doc.Data.Attributes == nil:
		return nil, []problem{required("/data/attributes", "attributes")}
	}
	return doc.Data, nil
}

func invalid(pointer, detail string) problem {
	return problem{Code: "invalid", Title: "Invalid input.", Detail: detail, Pointer: pointer}
}

func required(pointer, name string) problem {
	return invalid(pointer, fmt.Sprintf("'%s' is a required field.", name))
}

// createEvent is POST /api/events.
func (s *Simulator) createEvent(a *account, _ *http.Request, body []byte) reply {
	data, problems := parse[eventAttributes](body, "event")
	if problems == nil {
		problems = s.checkEvent(data.Attributes, "/data/attributes")
		problems = append(problems, checkProfile(data.Attributes.Profile, "/data/attributes/profile")...)
	}
	if len(problems) > 0 {
		return reply{status: http.StatusBadRequest, problems: problems}
	}
	person := s.upsert(a, data.Attributes.Profile.Data)
	if id, fresh := s.identity(a, person, data.Attributes); fresh {
		s.store(a, person, data.Attributes, id)
	} else {
		a.dropped++
	}
	return reply{status: http.StatusAccepted}
}

// createEvents is POST /api/event-bulk-create-jobs. One repeated unique_id fails the whole request.
func (s *Simulator) createEvents(a *account, _ *http.Request, body []byte) reply {
	data, problems := parse[bulkAttributes](body, "event-bulk-create-job")
	if problems != nil {
		return reply{status: http.StatusBadRequest, problems: problems}
	}
	const at = "/data/attributes/events-bulk-create/data"
	if data.Attributes.Events == nil || len(data.Attributes.Events.Data) == 0 {
		return reply{status: http.StatusBadRequest, problems: []problem{required(at, "data")}}
	}
	count := 0
	for i, group := range data.Attributes.Events.Data {
		where := at + "/" + strconv.Itoa(i) + "/attributes"
		if group.Attributes == nil || group.Attributes.Events == nil {
			problems = append(problems, required(where, "events"))
			continue
		}
		problems = append(problems, checkProfile(group.Attributes.Profile, where+"/profile")...)
		for j, event := range group.Attributes.Events.Data {
			count++
			place := fmt.Sprintf("%s/events/data/%d/attributes", where, j)
			if event.Attributes == nil {
				problems = append(problems, required(place, "attributes"))
				continue
			}
			problems = append(problems, s.checkEvent(event.Attributes, place)...)
		}
	}
	if count > 1000 {
		problems = append(problems, invalid(at, "The number of events must not exceed 1000."))
	}
	if len(problems) > 0 {
		return reply{status: http.StatusBadRequest, problems: problems}
	}
	type pending struct {
		person *profile
		event  *eventAttributes
		id     string
	}
	var all []pending
	inRequest := map[string]bool{}
	for i, group := range data.Attributes.Events.Data {
		person := s.upsert(a, group.Attributes.Profile.Data)
		for j, event := range group.Attributes.Events.Data {
			id, fresh := s.identity(a, person, event.Attributes)
			key := identityKey(person, event.Attributes, id)
			if !fresh || inRequest[key] {
				return reply{status: http.StatusBadRequest, problems: []problem{invalid(
					fmt.Sprintf("%s/%d/attributes/events/data/%d/attributes/unique_id", at, i, j), "The unique_id is repeated: nothing was processed.")}}
			}
			inRequest[key] = true
			all = append(all, pending{person, event.Attributes, id})
		}
	}
	for _, p := range all {
		s.store(a, p.person, p.event, p.id)
	}
	return reply{status: http.StatusAccepted}
}

// importProfile is POST /api/profile-import: 201 when it made the profile, 200 when it changed one.
func (s *Simulator) importProfile(a *account, _ *http.Request, body []byte) reply {
	data, problems := parse[profileAttributes](body, "profile")
	if problems == nil {
		problems = checkProfile(&envelope[profileAttributes]{Data: data}, "")
	}
	if len(problems) > 0 {
		return reply{status: http.StatusBadRequest, problems: problems}
	}
	before := len(a.profiles)
	person := s.upsert(a, data)
	status := http.StatusOK
	if len(a.profiles) > before {
		status = http.StatusCreated
	}
	return reply{status: status, body: map[string]any{"data": map[string]any{
		"type": "profile", "id": person.ID,
		"attributes": map[string]any{
			"email": person.Email, "phone_number": person.Phone, "external_id": person.ExternalID, "first_name": person.FirstName,
			"last_name": person.LastName, "properties": person.Properties, "created": person.Created, "updated": person.Updated,
		},
		"links": map[string]any{"self": "https://a.klaviyo.com/api/profiles/" + person.ID},
	}}}
}

func (s *Simulator) checkEvent(e *eventAttributes, at string) []problem {
	var problems []problem
	var properties map[string]any
	switch err := json.Unmarshal(e.Properties, &properties); {
	case len(e.Properties) == 0 || string(e.Properties) == "null":
		problems = append(problems, required(at+"/properties", "properties"))
	case err != nil:
		problems = append(problems, invalid(at+"/properties", "Invalid input: expected an object."))
	case len(properties) > 400:
		problems = append(problems, invalid(at+"/properties", "The number of properties must not exceed 400."))
	default:
		for name, value := range properties {
			if longest(value) > 100<<10 {
				problems = append(problems, invalid(at+"/properties/"+name, "A string must not exceed 100 KB."))
			}
		}
	}
	switch {
	case e.Metric == nil || e.Metric.Data == nil:
		problems = append(problems, required(at+"/metric/data", "data"))
	case e.Metric.Data.Type != "metric":
		problems = append(problems, invalid(at+"/metric/data/type", "Invalid resource type: expected 'metric'."))
	case e.Metric.Data.Attributes == nil || strings.TrimSpace(e.Metric.Data.Attributes.Name) == "":
		problems = append(problems, required(at+"/metric/data/attributes/name", "name"))
	case utf8.RuneCountInString(e.Metric.Data.Attributes.Name) >= 128:
		problems = append(problems, invalid(at+"/metric/data/attributes/name", "The metric name must be less than 128 characters."))
	}
	if e.Time != nil && (e.Time.Year() < 1990 || e.Time.After(s.opts.Now().AddDate(1, 0, 0))) {
		problems = append(problems, invalid(at+"/time", "The time must be after 1990 and at most one year in the future."))
	}
	if e.Currency != nil && !currency.MatchString(*e.Currency) {
		problems = append(problems, invalid(at+"/value_currency", "The currency must be an ISO 4217 code."))
	}
	return problems
}

// longest is the length in bytes of the longest string in a JSON value.
func longest(v any) int {
	n := 0
	switch v := v.(type) {
	case string:
		n = len(v)
	case []any:
		for _, item := range v {
			n = max(n, longest(item))
		}
	case map[string]any:
		for _, item := range v {
			n = max(n, longest(item))
		}
	}
	return n
}

var (
	currency = regexp.MustCompile(`^[A-Z]{3}$`)
	phone    = regexp.MustCompile(`^\+[1-9]\d{6,14}$`)
	address  = regexp.MustCompile(`^[^@\s"<>(),;:\\]+@[^@\s"<>(),;:\\.]+(\.[^@\s"<>(),;:\\.]+)+$`)
)

func checkProfile(p *envelope[profileAttributes], at string) []problem {
	if p == nil || p.Data == nil {
		return []problem{required(at+"/data", "data")}
	}
	at += "/data"
	var problems []problem
	if p.Data.Type != "profile" {
		problems = append(problems, invalid(at+"/type", "Invalid resource type: expected 'profile'."))
	}
	if p.Data.Attributes == nil {
		return append(problems, required(at+"/attributes", "attributes"))
	}
	named := p.Data.ID != ""
	for _, id := range []*string{p.Data.Attributes.Email, p.Data.Attributes.Phone, p.Data.Attributes.ExternalID, p.Data.Attributes.AnonymousID, p.Data.Attributes.Kx} {
		named = named || id != nil && *id != ""
	}
	if !named {
		problems = append(problems, invalid(at+"/attributes", "One of id, email, phone_number, external_id, anonymous_id is required."))
	}
	if e := p.Data.Attributes.Email; e != nil && !address.MatchString(*e) {
		problems = append(problems, invalid(at+"/attributes/email", "'email' must be a valid email address."))
	}
	if n := p.Data.Attributes.Phone; n != nil && !phone.MatchString(*n) {
		problems = append(problems, invalid(at+"/attributes/phone_number", "Invalid phone number format (Example of a valid format: +12345678901)"))
	}
	return problems
}

// upsert finds the profile that a resource names, or makes it, and takes over its attributes: absent ones stay.
func (s *Simulator) upsert(a *account, data *resource[profileAttributes]) *profile {
	given := data.Attributes
	keys := map[string]*string{"email:": lower(given.Email), "phone:": given.Phone, "external:": given.ExternalID, "anonymous:": given.AnonymousID, "kx:": given.Kx}
	person := a.profiles[data.ID]
	for _, kind := range []string{"external:", "email:", "phone:", "anonymous:", "kx:"} {
		if id := keys[kind]; person == nil && id != nil && *id != "" {
			person = a.byAddress[kind+*id]
		}
	}
	now := s.opts.Now().UTC()
	if person == nil {
		a.ids++
		person = &profile{ID: fmt.Sprintf("01SIMPROFILE%014d", a.ids), Created: now, Properties: map[string]any{}}
		a.profiles[person.ID] = person
	}
	for kind, id := range keys {
		if id != nil && *id != "" {
			a.byAddress[kind+*id] = person
		}
	}
	set(&person.Email, lower(given.Email))
	set(&person.Phone, given.Phone)
	set(&person.ExternalID, given.ExternalID)
	set(&person.AnonymousID, given.AnonymousID)
	set(&person.FirstName, given.FirstName)
	set(&person.LastName, given.LastName)
	for name, value := range given.Properties {
		person.Properties[name] = value
	}
	s.touch(a, person)
	return person
}

// touch marks a profile as changed now.
func (s *Simulator) touch(a *account, person *profile) {
	person.Updated = s.later.Now(s.opts.Now).UTC()
	a.changes++
}

func lower(text *string) *string {
	if text == nil {
		return nil
	}
	l := strings.ToLower(*text)
	return &l
}

func set(field, given *string) {
	if given != nil {
		*field = *given
	}
}

// identity is an event's unique_id, by default its time in seconds, and whether the account has not seen it yet.
func (s *Simulator) identity(a *account, person *profile, e *eventAttributes) (id string, fresh bool) {
	if e.UniqueID != nil && *e.UniqueID != "" {
		id = *e.UniqueID
	} else {
		id = strconv.FormatInt(s.when(e).Unix(), 10)
	}
	return id, !a.seen[identityKey(person, e, id)]
}

func identityKey(person *profile, e *eventAttributes, id string) string {
	return person.ID + "\x00" + e.Metric.Data.Attributes.Name + "\x00" + id
}

func (s *Simulator) when(e *eventAttributes) time.Time {
	if e.Time != nil {
		return e.Time.UTC().Truncate(time.Second)
	}
	return s.opts.Now().UTC().Truncate(time.Second)
}

func (s *Simulator) store(a *account, person *profile, e *eventAttributes, id string) {
	a.seen[identityKey(person, e, id)] = true
	a.ids++
	a.events = append(a.events, Event{
		ID: fmt.Sprintf("01SIMEVENT%016d", a.ids), UniqueID: id, Metric: e.Metric.Data.Attributes.Name,
		ProfileID: person.ID, Email: person.Email, Phone: person.Phone, Time: s.when(e), Value: e.Value,
		Properties: append(json.RawMessage(nil), e.Properties...), Backfill: e.Backfill != nil && *e.Backfill,
	})
}
