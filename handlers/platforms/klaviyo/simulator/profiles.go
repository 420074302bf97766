package simulator

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
)

// job is one asynchronous job.
type job struct {
	id, kind         string
	created, done    time.Time
	total, completed int
	skipped          int
}

// Happen implements [simulator.Keeper].
func (s *Simulator) Happen(f simulator.Fact) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[f.Account]
	if a == nil || f.Channel != "email" && f.Channel != "sms" {
		return fmt.Errorf("%w: account %q, channel %q", simulator.ErrFact, f.Account, f.Channel)
	}
	at := f.At
	if at.IsZero() {
		at = s.opts.Now()
	}
	at = at.UTC().Truncate(time.Second)
	person := s.person(a, f.Channel, f.Address)
	c := &person.Mail
	if f.Channel == "sms" {
		c = &person.Text
	}
	reasons := map[string]string{
		simulator.Unsubscribed: "UNSUBSCRIBE", simulator.Complained: "SPAM_COMPLAINT", simulator.HardBounced: "HARD_BOUNCE", simulator.Blocked: "USER_SUPPRESSED",
	}
	switch reason := reasons[f.What]; {
	case f.What == simulator.Known || f.What == simulator.Resubscribed:
		c.subscribe(at)
	case f.What == simulator.NeverAsked:
		*c = channel{}
	case reason == "" || f.Channel == "sms" && f.What != simulator.Unsubscribed:
		return fmt.Errorf("%w: Klaviyo has no %q on %s", simulator.ErrFact, f.What, f.Channel)
	case f.List != "":
		c.Lists = append(c.Lists, mark{List: f.List, Reason: reason, At: at})
	case f.What == simulator.Unsubscribed:
		c.unsubscribe(f.Channel, at)
	default:
		c.mark(reason, at)
	}
	s.touch(a, person)
	person.Updated = at
	return nil
}

// Suppressed implements [simulator.Keeper].
func (s *Simulator) Suppressed(account, on string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.later.Flush()
	list := map[string]string{}
	a := s.accounts[account]
	if a == nil {
		return list
	}
	for _, p := range a.profiles {
		switch {
		case on == "email" && p.Email != "" && len(p.Mail.Suppression) > 0:
			list[p.Email] = p.Mail.Suppression[0].Reason
		case on == "sms" && p.Phone != "" && p.Text.Consent == unsubscribed:
			list[p.Phone] = unsubscribed
		}
	}
	return list
}

const (
	subscribed   = "SUBSCRIBED"
	unsubscribed = "UNSUBSCRIBED"
)

// subscribe gives consent, and forgets what the documentation says it forgets.
func (c *channel) subscribe(at time.Time) {
	c.Consent, c.ConsentAt = subscribed, at
	c.Suppression = slices.DeleteFunc(c.Suppression, func(m mark) bool {
		return m.Reason == "UNSUBSCRIBE" || m.Reason == "SPAM_COMPLAINT" || m.Reason == "USER_SUPPRESSED"
	})
	c.Lists = nil
}

func (c *channel) unsubscribe(name string, at time.Time) {
	c.Consent, c.ConsentAt = unsubscribed, at
	if name == "email" {
		c.mark("UNSUBSCRIBE", at)
	}
}

// mark adds a reason, once.
func (c *channel) mark(reason string, at time.Time) {
	if !slices.ContainsFunc(c.Suppression, func(m mark) bool { return m.Reason == reason }) {
		c.Suppression = append(c.Suppression, mark{Reason: reason, At: at})
	}
}

// person finds or makes a profile by its address on a channel.
func (s *Simulator) person(a *account, on, address string) *profile {
	given := profileAttributes{Email: &address}
	if on == "sms" {
		given = profileAttributes{Phone: &address}
	}
	return s.upsert(a, &resource[profileAttributes]{Type: "profile", Attributes: &given})
}

// The shapes that the jobs take.
type (
	jobAttributes struct {
		Profiles *struct {
			Data []resource[jobProfile] `json:"data"`
		} `json:"profiles"`
		Historical bool `json:"historical_import"`
	}
	jobProfile struct {
		Email         *string               `json:"email"`
		Phone         *string               `json:"phone_number"`
		Subscriptions map[string]jobConsent `json:"subscriptions"`
	}
	jobConsent struct {
		Marketing *struct {
			Consent     string     `json:"consent"`
			ConsentedAt *time.Time `json:"consented_at"`
		} `json:"marketing"`
	}
)

const profilesAt = "/data/attributes/profiles/data"

// readJob decodes a job over profiles and checks their addresses. Consent is what each subscription must say; empty:
// the job has none.
func readJob(body []byte, kind string, most int, consent string) ([]resource[jobProfile], bool, []problem) {
	data, problems := parse[jobAttributes](body, kind)
	if problems != nil {
		return nil, false, problems
	}
	if data.Attributes.Profiles == nil || len(data.Attributes.Profiles.Data) == 0 {
		return nil, false, []problem{required(profilesAt, "profiles")}
	}
	profiles := data.Attributes.Profiles.Data
	if len(profiles) > most {
		return nil, false, []problem{invalid(profilesAt, fmt.Sprintf("The number of profiles must not exceed %d.", most))}
	}
	for i, p := range profiles {
		at := profilesAt + "/" + strconv.Itoa(i)
		switch {
		case p.Type != "profile":
			problems = append(problems, invalid(at+"/type", "Invalid resource type: expected 'profile'."))
			continue
		case p.Attributes == nil, p.Attributes.Email == nil && (p.Attributes.Phone == nil || consent == ""):
			problems = append(problems, required(at+"/attributes/email", "email"))
			continue
		}
		if e := p.Attributes.Email; e != nil && !address.MatchString(*e) {
			problems = append(problems, invalid(at+"/attributes/email", "'email' must be a valid email address."))
		}
		if n := p.Attributes.Phone; n != nil && !phone.MatchString(*n) {
			problems = append(problems, invalid(at+"/attributes/phone_number", "Invalid phone number format (Example of a valid format: +12345678901)"))
		}
		for name, subscription := range p.Attributes.Subscriptions {
			if subscription.Marketing != nil && subscription.Marketing.Consent != consent {
				problems = append(problems, invalid(at+"/attributes/subscriptions/"+name+"/marketing/consent", "The consent must be "+consent+"."))
			}
		}
	}
	return profiles, data.Attributes.Historical, problems
}

// suppress is POST /api/profile-suppression-bulk-create-jobs. Unknown emails become profiles.
func (s *Simulator) suppress(a *account, _ *http.Request, body []byte) reply {
	profiles, _, problems := readJob(body, "profile-suppression-bulk-create-job", 100, "")
	if len(problems) > 0 {
		return reply{status: http.StatusBadRequest, problems: problems}
	}
	return s.start(a, "profile-suppression-bulk-create-job", profiles, func(person *profile) {
		person.Mail.mark("USER_SUPPRESSED", s.later.Now(s.opts.Now).UTC().Truncate(time.Second))
	}, true)
}

// unsuppress is POST /api/profile-suppression-bulk-delete-jobs: it lifts USER_SUPPRESSED and nothing else, and
// passes over emails it does not know.
func (s *Simulator) unsuppress(a *account, _ *http.Request, body []byte) reply {
	profiles, _, problems := readJob(body, "profile-suppression-bulk-delete-job", 100, "")
	if len(problems) > 0 {
		return reply{status: http.StatusBadRequest, problems: problems}
	}
	return s.start(a, "profile-suppression-bulk-delete-job", profiles, func(person *profile) {
		person.Mail.Suppression = slices.DeleteFunc(person.Mail.Suppression, func(m mark) bool { return m.Reason == "USER_SUPPRESSED" })
	}, false)
}

// start makes a job that does something to each profile once its time has come.
func (s *Simulator) start(a *account, kind string, profiles []resource[jobProfile], do func(*profile), create bool) reply {
	a.ids++
	now := s.opts.Now().UTC()
	j := &job{id: fmt.Sprintf("01SIMJOB%018d", a.ids), kind: kind, created: now, done: now.Add(s.opts.JobTime), total: len(profiles)}
	a.jobs[j.id] = j
	s.later.Do(j.done, func() {
		for _, p := range profiles {
			email := strings.ToLower(*p.Attributes.Email)
			if a.byAddress["email:"+email] == nil && !create {
				j.skipped++
				continue
			}
			j.completed++
			s.afterLag(func() {
				person := s.person(a, "email", email)
				do(person)
				s.touch(a, person)
			})
		}
	})
	s.later.Run(now)
	return reply{status: http.StatusAccepted, body: map[string]any{"data": j.resource(now)}}
}

// afterLag does something once it would show in reads.
func (s *Simulator) afterLag(do func()) {
	if s.opts.Lag == 0 {
		do()
		return
	}
	s.later.Do(s.later.Now(s.opts.Now).Add(s.opts.Lag), do)
}

func (j *job) resource(now time.Time) map[string]any {
	status, completed := "queued", any(nil)
	switch {
	case !now.Before(j.done):
		status, completed = "complete", j.done
	case now.After(j.created):
		status = "processing"
	}
	return map[string]any{
		"type": j.kind, "id": j.id,
		"attributes": map[string]any{
			"status": status, "created_at": j.created, "completed_at": completed,
			"total_count": j.total, "completed_count": j.completed, "skipped_count": j.skipped,
		},
		"links": map[string]any{"self": "https://a.klaviyo.com/api/" + j.kind + "s/" + j.id},
	}
}

// job is GET …-jobs/{id}.
func (s *Simulator) job(a *account, r *http.Request, _ []byte) reply {
	j := a.jobs[r.PathValue("id")]
	if j == nil || !strings.Contains(r.URL.Path, j.kind) {
		return reply{status: http.StatusNotFound, problems: []problem{{
			Code: "not_found", Title: "Not found.", Detail: "A job with id " + r.PathValue("id") + " does not exist.",
		}}}
	}
	return reply{status: http.StatusOK, body: map[string]any{"data": j.resource(s.opts.Now().UTC())}}
}

// unsubscribe is POST /api/profile-subscription-bulk-delete-jobs. With a list, those who are on it are unsubscribed
// from it, and those who are not from everything; without one, everybody from everything.
func (s *Simulator) unsubscribe(a *account, _ *http.Request, body []byte) reply {
	profiles, _, problems := readJob(body, "profile-subscription-bulk-delete-job", 100, unsubscribed)
	if len(problems) > 0 {
		return reply{status: http.StatusBadRequest, problems: problems}
	}
	s.later.Do(s.opts.Now().Add(s.opts.JobTime), func() {
		s.afterLag(func() {
			at := s.later.Now(s.opts.Now).UTC().Truncate(time.Second)
			s.each(a, profiles, func(_ *profile, name string, c *channel, _ *time.Time) { c.unsubscribe(name, at) })
		})
	})
	s.later.Run(s.opts.Now())
	return reply{status: http.StatusAccepted}
}

// subscribe is POST /api/profile-subscription-bulk-create-jobs.
func (s *Simulator) subscribe(a *account, _ *http.Request, body []byte) reply {
	profiles, historical, problems := readJob(body, "profile-subscription-bulk-create-job", 1000, subscribed)
	now := s.opts.Now()
	for i, p := range profiles {
		for name, subscription := range p.Attributes.Subscriptions {
			at := fmt.Sprintf("%s/%d/attributes/subscriptions/%s/marketing/consented_at", profilesAt, i, name)
			switch given := subscription.Marketing; {
			case given == nil:
			case historical && given.ConsentedAt == nil:
				problems = append(problems, required(at, "consented_at"))
			case historical && given.ConsentedAt.After(now):
				problems = append(problems, invalid(at, "'consented_at' must be in the past."))
			case !historical && given.ConsentedAt != nil:
				problems = append(problems, invalid(at, "'consented_at' is only allowed when 'historical_import' is true."))
			}
		}
	}
	if len(problems) > 0 {
		return reply{status: http.StatusBadRequest, problems: problems}
	}
	s.later.Do(now.Add(s.opts.JobTime), func() {
		s.afterLag(func() {
			s.each(a, profiles, func(_ *profile, _ string, c *channel, at *time.Time) {
				when := s.later.Now(s.opts.Now).UTC().Truncate(time.Second)
				if at != nil {
					when = at.UTC()
				}
				c.subscribe(when)
			})
		})
	})
	s.later.Run(now)
	return reply{status: http.StatusAccepted}
}

// each visits the subscriptions that a job names.
func (s *Simulator) each(a *account, profiles []resource[jobProfile], do func(*profile, string, *channel, *time.Time)) {
	for _, p := range profiles {
		person := s.upsert(a, &resource[profileAttributes]{Type: "profile", ID: p.ID, Attributes: &profileAttributes{Email: p.Attributes.Email, Phone: p.Attributes.Phone}})
		for name, subscription := range p.Attributes.Subscriptions {
			if subscription.Marketing == nil {
				continue
			}
			switch name {
			case "email":
				do(person, name, &person.Mail, subscription.Marketing.ConsentedAt)
			case "sms":
				do(person, name, &person.Text, subscription.Marketing.ConsentedAt)
			}
		}
		s.touch(a, person)
	}
}

// index is an account's profiles in the order of one field.
type index struct {
	changes int // of the account when it was made
	rows    []row
}

type row struct {
	at     time.Time
	person *profile
}

func (r row) compare(at time.Time, id string) int {
	return cmp.Or(r.at.Compare(at), cmp.Compare(r.person.ID, id))
}

// sortable are the fields that profiles are sorted and filtered by; a zero time is left out.
var sortable = map[string]func(*profile) time.Time{
	"created": func(p *profile) time.Time { return p.Created },
	"updated": func(p *profile) time.Time { return p.Updated },
	"subscriptions.email.marketing.suppression.timestamp":       func(p *profile) time.Time { return latest(p.Mail.Suppression) },
	"subscriptions.email.marketing.list_suppressions.timestamp": func(p *profile) time.Time { return latest(p.Mail.Lists) },
}

func latest(marks []mark) time.Time {
	var at time.Time
	for _, m := range marks {
		if m.At.After(at) {
			at = m.At
		}
	}
	return at
}

// by is the account's index of a field, made anew when profiles have changed.
func (a *account) by(field string) []row {
	ix := a.sorted[field]
	if ix != nil && ix.changes == a.changes {
		return ix.rows
	}
	ix = &index{changes: a.changes}
	for _, p := range a.profiles {
		if at := sortable[field](p); !at.IsZero() {
			ix.rows = append(ix.rows, row{at, p})
		}
	}
	slices.SortFunc(ix.rows, func(x, y row) int { return x.compare(y.at, y.person.ID) })
	a.sorted[field] = ix
	return ix.rows
}

var filterShape = regexp.MustCompile(`^(greater-than|greater-or-equal|equals)\(([a-z_.]+),"?([^"()]+)"?\)$`)

// getProfiles is GET /api/profiles, with the filters and sorts that a reader of suppressions needs.
func (s *Simulator) getProfiles(a *account, r *http.Request, _ []byte) reply {
	query := r.URL.Query()
	refuse := func(parameter, detail string) reply {
		return reply{status: http.StatusBadRequest, problems: []problem{{Code: "invalid", Title: "Invalid input.", Detail: detail, Parameter: parameter}}}
	}
	size := 20
	if text := query.Get("page[size]"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 100 {
			return refuse("page[size]", "Page size must be an integer between 1 and 100.")
		}
		size = n
	}
	sort := query.Get("sort")
	if sort == "" {
		sort = "created"
	}
	if sortable[sort] == nil {
		return refuse("sort", fmt.Sprintf("%q is not a field that can be sorted by here.", sort))
	}
	rows := a.by(sort)
	if filter := query.Get("filter"); filter != "" {
		parts := filterShape.FindStringSubmatch(filter)
		if parts == nil {
			return refuse("filter", "Invalid filter provided.")
		}
		switch op, field, value := parts[1], parts[2], parts[3]; {
		case field == "email" && op == "equals":
			rows = slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return r.person.Email != strings.ToLower(value) })
		case op == "equals" || field == "updated" && op != "greater-than" || field != sort || sortable[field] == nil:
			return refuse("filter", fmt.Sprintf("%q is not allowed on field %q.", op, field))
		default:
			since, err := time.Parse(time.RFC3339, value)
			if err != nil {
				return refuse("filter", "Invalid filter provided: not a time.")
			}
			first, _ := slices.BinarySearchFunc(rows, since, func(r row, since time.Time) int {
				if r.at.After(since) || op == "greater-or-equal" && r.at.Equal(since) {
					return 1
				}
				return -1
			})
			rows = rows[first:]
		}
	}
	if cursor := query.Get("page[cursor]"); cursor != "" {
		at, id, ok := decodeCursor(cursor)
		if !ok {
			return refuse("page[cursor]", "Invalid cursor provided.")
		}
		first, found := slices.BinarySearchFunc(rows, id, func(r row, id string) int { return r.compare(at, id) })
		if found {
			first++
		}
		rows = rows[first:]
	}
	more := len(rows) > size
	if more {
		rows = rows[:size]
	}
	data := []any{}
	for _, r := range rows {
		data = append(data, r.person.resource(query.Get("additional-fields[profile]")))
	}
	self := url.URL{Scheme: "https", Host: "a.klaviyo.com", Path: "/api/profiles", RawQuery: query.Encode()}
	links := map[string]any{"self": self.String()}
	if more {
		last := rows[len(rows)-1]
		query.Set("page[cursor]", encodeCursor(last.at, last.person.ID))
		next := self
		next.RawQuery = query.Encode()
		links["next"] = next.String()
	}
	return reply{status: http.StatusOK, body: map[string]any{"data": data, "links": links}}
}

func encodeCursor(at time.Time, id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(at.Format(time.RFC3339Nano) + " " + id))
}

func decodeCursor(text string) (at time.Time, id string, ok bool) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return time.Time{}, "", false
	}
	stamp, id, ok := strings.Cut(string(raw), " ")
	at, err = time.Parse(time.RFC3339Nano, stamp)
	return at, id, ok && err == nil
}

// resource is a profile as GET /api/profiles gives it; subscriptions only when asked for.
func (p *profile) resource(additional string) any {
	attributes := map[string]any{
		"email": orNull(p.Email), "phone_number": orNull(p.Phone), "external_id": orNull(p.ExternalID), "first_name": orNull(p.FirstName),
		"last_name": orNull(p.LastName), "properties": p.Properties, "created": p.Created, "updated": p.Updated,
	}
	if strings.Contains(additional, "subscriptions") {
		attributes["subscriptions"] = map[string]any{
			"email": map[string]any{"marketing": map[string]any{
				"can_receive_email_marketing": len(p.Mail.Suppression) == 0, "consent": p.Mail.consent(), "consent_timestamp": orNoTime(p.Mail.ConsentAt),
				"last_updated": orNoTime(p.Mail.ConsentAt), "method": "PREFERENCE_PAGE", "double_optin": false,
				"suppression": marks(p.Mail.Suppression), "list_suppressions": marks(p.Mail.Lists),
			}},
			"sms": map[string]any{"marketing": map[string]any{
				"can_receive_sms_marketing": p.Text.Consent == subscribed, "consent": p.Text.consent(), "consent_timestamp": orNoTime(p.Text.ConsentAt),
				"last_updated": orNoTime(p.Text.ConsentAt), "method": "API",
			}},
		}
	}
	return map[string]any{
		"type": "profile", "id": p.ID, "attributes": attributes,
		"links": map[string]any{"self": "https://a.klaviyo.com/api/profiles/" + p.ID},
	}
}

func (c channel) consent() string {
	if c.Consent == "" {
		return "NEVER_SUBSCRIBED"
	}
	return c.Consent
}

func marks(marks []mark) []any {
	list := []any{}
	for _, m := range marks {
		one := map[string]any{"reason": m.Reason, "timestamp": m.At}
		if m.List != "" {
			one["list_id"] = m.List
		}
		list = append(list, one)
	}
	return list
}

func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}

func orNoTime(at time.Time) any {
	if at.IsZero() {
		return nil
	}
	return at
}
