// Package simulator behaves as Dotdigital's v2 and v3 APIs are documented to: empty answers to sends, failures
// inside a batch's 200, an offset list of suppressions that moves while it is read, contacts by marker, import jobs,
// and a resubscribe that can challenge or never happen.
//
// It shares no code with package dotdigital.
package simulator

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
)

// Simulator is one region of Dotdigital. Make it with [New]. An account's key is its API user, its secret the
// password.
type Simulator struct {
	*simulator.Core
	opts    simulator.Options
	limiter *simulator.Limiter

	mu       sync.Mutex // guards what follows
	accounts map[string]*account
	later    simulator.Later
}

// Sent is one email that was taken.
type Sent struct {
	To       string          `json:"to"`
	Campaign int             `json:"campaign,omitempty"`
	Metadata json.RawMessage `json:"metadata,omitempty"`
}

type account struct {
	simulator.Account
	people simulator.People
	sent   []Sent
	jobs   map[string]*job
}

type job struct {
	done                            time.Time
	total, created, updated, failed int
	failures                        []any
}

// New makes a simulator. The error is [simulator.ErrNoClock].
func New(opts simulator.Options) (*Simulator, error) {
	opts, err := opts.Defaults()
	if err != nil {
		return nil, err
	}
	s := &Simulator{opts: opts, accounts: map[string]*account{}, limiter: simulator.NewLimiter(opts.Now, simulator.Window{Limit: 1000, Per: time.Minute})}
	for _, a := range opts.Accounts {
		s.accounts[a.Name] = &account{Account: a, jobs: map[string]*job{}}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/account-info", s.with(s.info))
	mux.HandleFunc("POST /v2/email", s.with(s.send))
	mux.HandleFunc("POST /v2/email/triggered-campaign", s.with(s.send))
	mux.HandleFunc("POST /v2/email/batch", s.with(s.sendBatch))
	mux.HandleFunc("POST /v2/email/triggered-campaign/batch", s.with(s.sendBatch))
	mux.HandleFunc("POST /marketing-email/v3/send", s.with(s.sendMarketing))
	mux.HandleFunc("POST /v2/sms-messages/send-to/{number}", s.with(s.sendText))
	mux.HandleFunc("GET /v2/contacts/suppressed-since/{date}", s.with(s.suppressedSince))
	mux.HandleFunc("POST /v2/contacts/resubscribe", s.with(s.resubscribe))
	mux.HandleFunc("GET /contacts/v3", s.with(s.contacts))
	mux.HandleFunc("PATCH /contacts/v3/{identifier}/{value}", s.with(s.patch))
	mux.HandleFunc("PUT /contacts/v3/import", s.with(s.importContacts))
	mux.HandleFunc("GET /contacts/v3/import/{id}", s.with(s.importState))
	s.Core = simulator.NewCore(opts.Now, func(r *http.Request, _ []byte) string {
		if a := s.authenticate(r); a != nil {
			return a.Name
		}
		return ""
	}, mux, s)
	return s, nil
}

func (s *Simulator) authenticate(r *http.Request) *account {
	user, password, _ := r.BasicAuth()
	for _, a := range s.accounts { // the map itself never changes
		if subtle.ConstantTimeCompare([]byte(user+"\x00"+password), []byte(a.Key+"\x00"+a.Secret)) == 1 {
			return a
		}
	}
	return nil
}

// failure is an error answer of v2: the code is the last word of the message.
func failure(w http.ResponseWriter, status int, text, code string) {
	simulator.WriteJSON(w, status, "application/json", map[string]any{"message": text + " " + code})
}

// failure3 is an error answer of v3.
func failure3(w http.ResponseWriter, status int, code, description string) {
	simulator.WriteJSON(w, status, "application/json", map[string]any{"errorCode": code, "description": description, "details": []any{}})
}

type operation func(a *account, w http.ResponseWriter, r *http.Request, body []byte)

func (s *Simulator) with(do operation) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a := s.authenticate(r)
		if a == nil {
			failure(w, http.StatusUnauthorized, "Authorization has been denied for this request.", "ERROR_APIUSER_INVALID")
			return
		}
		if !s.opts.Unlimited {
			usage := s.limiter.Take(a.Name)
			w.Header().Set("X-RateLimit-Limit", strconv.Itoa(usage.Limit))
			w.Header().Set("X-RateLimit-Remaining", strconv.Itoa(usage.Remaining))
			w.Header().Set("X-RateLimit-Reset", strconv.FormatInt(s.opts.Now().Add(usage.Reset).Unix(), 10)) // an epoch
			w.Header().Set("X-RateLimit-Scope", "medium")
			if !usage.OK {
				failure(w, http.StatusTooManyRequests, "API usage exceeded.", "ERROR_APIUSAGE_EXCEEDED")
				return
			}
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			failure(w, http.StatusBadRequest, "Unreadable.", "ERROR_PARAMETER_INVALID")
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.later.Run(s.opts.Now())
		do(a, w, r, body)
	}
}

func (s *Simulator) info(a *account, w http.ResponseWriter, _ *http.Request, _ []byte) {
	simulator.WriteJSON(w, http.StatusOK, "application/json", map[string]any{"id": 1, "properties": []any{
		map[string]any{"name": "Name", "type": "String", "value": a.Name},
		map[string]any{"name": "ApiEndpoint", "type": "String", "value": "https://r3-api.dotdigital.com"},
	}})
}

type email struct {
	To       []string        `json:"toAddresses"`
	Campaign *int            `json:"campaignId"`
	Subject  string          `json:"subject"`
	From     string          `json:"fromAddress"`
	HTML     string          `json:"htmlContent"`
	Plain    string          `json:"plainTextContent"`
	Values   []value         `json:"personalizationValues"`
	Metadata json.RawMessage `json:"metadata"`
}

type value struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

var address = regexp.MustCompile(`^[^@\s"<>(),;:\\]+@[^@\s"<>(),;:\\.]+(\.[^@\s"<>(),;:\\.]+)+$`)

// problem says why an email is not taken; empty: it is.
func (e email) problem() string {
	switch {
	case len(e.To) == 0 || len(e.To) > 100:
		return "ERROR_PARAMETER_INVALID"
	case slices.ContainsFunc(e.To, func(to string) bool { return !address.MatchString(to) }):
		return "ERROR_INVALID_EMAIL"
	case e.Campaign == nil && (e.Subject == "" || e.From == "" || e.HTML+e.Plain == ""):
		return "ERROR_PARAMETER_INVALID"
	case len(e.Metadata) > 1500:
		return "ERROR_PARAMETER_INVALID"
	}
	return ""
}

func (s *Simulator) take(a *account, e email) {
	for _, to := range e.To {
		sent := Sent{To: strings.ToLower(to), Metadata: append(json.RawMessage(nil), e.Metadata...)}
		if e.Campaign != nil {
			sent.Campaign = *e.Campaign
		}
		a.sent = append(a.sent, sent)
	}
}

// send is POST /v2/email and /v2/email/triggered-campaign: consent is not looked at, and success says nothing.
func (s *Simulator) send(a *account, w http.ResponseWriter, r *http.Request, body []byte) {
	var e email
	if json.Unmarshal(body, &e) != nil || strings.HasSuffix(r.URL.Path, "triggered-campaign") && e.Campaign == nil {
		failure(w, http.StatusBadRequest, "The request is invalid.", "ERROR_PARAMETER_INVALID")
		return
	}
	if code := e.problem(); code != "" {
		failure(w, http.StatusBadRequest, "The request is invalid.", code)
		return
	}
	s.take(a, e)
	w.WriteHeader(http.StatusOK)
}

func (s *Simulator) sendBatch(a *account, w http.ResponseWriter, _ *http.Request, body []byte) {
	var emails []email
	if json.Unmarshal(body, &emails) != nil || len(emails) == 0 {
		failure(w, http.StatusBadRequest, "The request is invalid.", "ERROR_PARAMETER_INVALID")
		return
	}
	answers := []any{}
	for i, e := range emails {
		one := map[string]any{"index": i}
		if code := e.problem(); code != "" {
			one["failureCode"], one["failureReason"] = code, "The email is invalid."
		} else {
			s.take(a, e)
		}
		answers = append(answers, one)
	}
	simulator.WriteJSON(w, http.StatusOK, "application/json", answers)
}

var refusals = map[string]string{
	"unsubscribed": "unsubscribed", "hardBounced": "hardBounced", "ispComplained": "complaint", "directComplaint": "complaint",
	"suppressed": "suppressed", "blockedlocalpart": "blocked", "spamTrap": "spamTrap",
}

// sendMarketing is POST /marketing-email/v3/send: it looks at consent, and makes unknown contacts.
func (s *Simulator) sendMarketing(a *account, w http.ResponseWriter, _ *http.Request, body []byte) {
	var m struct {
		To      string `json:"to"`
		Content *struct {
			Source   string  `json:"source"`
			Campaign int     `json:"campaignId"`
			HTML     string  `json:"html"`
			Values   []value `json:"personalizationValues"`
		} `json:"content"`
		Metadata json.RawMessage `json:"metadata"`
	}
	switch {
	case json.Unmarshal(body, &m) != nil || m.Content == nil:
		failure3(w, http.StatusBadRequest, "marketingEmail:invalidRequest", "The request is invalid.")
		return
	case !address.MatchString(m.To):
		failure3(w, http.StatusConflict, "marketingEmail:invalidEmailAddress", "The email address is invalid.")
		return
	case m.Content.Source == "template" && m.Content.Campaign <= 0, m.Content.HTML != "" && !strings.Contains(m.Content.HTML, "$UNSUB$"):
		failure3(w, http.StatusBadRequest, "marketingEmail:invalidContent", "The content is invalid.")
		return
	}
	person := a.people.Make("email", strings.ToLower(m.To), s.opts.Now().UTC())
	if refusal, refused := refusals[person.Mail.Word]; refused {
		failure3(w, http.StatusConflict, "marketingEmail:"+refusal, "The contact cannot be sent to.")
		return
	}
	a.sent = append(a.sent, Sent{To: person.Email, Campaign: m.Content.Campaign, Metadata: append(json.RawMessage(nil), m.Metadata...)})
	simulator.WriteJSON(w, http.StatusCreated, "application/json", map[string]any{})
}

func (s *Simulator) sendText(a *account, w http.ResponseWriter, r *http.Request, body []byte) {
	var m struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &m) != nil || m.Message == "" || len(m.Message) > 1600 {
		failure(w, http.StatusBadRequest, "The request is invalid.", "ERROR_PARAMETER_INVALID")
		return
	}
	a.sent = append(a.sent, Sent{To: "+" + r.PathValue("number")})
	w.WriteHeader(http.StatusNoContent)
}

// Sent is what an account sent, in order.
func (s *Simulator) Sent(account string) []Sent {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[account]; a != nil {
		return slices.Clone(a.sent)
	}
	return nil
}

// out reports whether a status keeps somebody from being sent to.
func out(word string) bool {
	return word != "" && word != "subscribed" && word != "noSubscription" && word != "pendingOptIn"
}

// v2 is v3's word as v2 spells it.
func v2(word string) string {
	if word == "pendingOptIn" {
		return "PendingOptIn"
	}
	return strings.ToUpper(word[:1]) + word[1:]
}

// suppressedSince is GET /v2/contacts/suppressed-since/{date}: oldest removal first, by offset.
func (s *Simulator) suppressedSince(a *account, w http.ResponseWriter, r *http.Request, _ []byte) {
	since, err := time.Parse(time.RFC3339, r.PathValue("date"))
	query := r.URL.Query()
	selected, err1 := strconv.Atoi(query.Get("select"))
	skip, err2 := strconv.Atoi(query.Get("skip"))
	if err != nil || err1 != nil || err2 != nil || selected < 1 || selected > 1000 || skip < 0 {
		failure(w, http.StatusBadRequest, "The request is invalid.", "ERROR_PARAMETER_INVALID")
		return
	}
	var found []*simulator.Person
	for _, p := range a.people.All {
		if p.Email != "" && out(p.Mail.Word) && !p.Mail.At.Before(since) {
			found = append(found, p)
		}
	}
	slices.SortStableFunc(found, func(x, y *simulator.Person) int { return x.Mail.At.Compare(y.Mail.At) })
	rows := []any{}
	for _, p := range found[min(skip, len(found)):min(skip+selected, len(found))] {
		rows = append(rows, map[string]any{
			"suppressedContact": map[string]any{
				"id": p.ID, "email": p.Email, "optInType": "Unknown", "emailType": "Html", "dataFields": nil, "status": v2(p.Mail.Word),
			},
			"dateRemoved": p.Mail.At.Format("2006-01-02 15:04:05.000000-07:00"), // one of the two spellings in its documents
			"reason":      v2(p.Mail.Word),
		})
	}
	simulator.WriteJSON(w, http.StatusOK, "application/json", rows)
}

// contacts is GET /contacts/v3, by marker: the number of the last contact seen.
func (s *Simulator) contacts(a *account, w http.ResponseWriter, r *http.Request, _ []byte) {
	query := r.URL.Query()
	limit, err := strconv.Atoi(query.Get("limit"))
	if err != nil || limit < 1 || limit > 5000 {
		failure3(w, http.StatusBadRequest, "contacts:invalidLimit", "The limit must be between 1 and 5000.")
		return
	}
	after := 0
	if marker := query.Get("marker"); marker != "" {
		if after, err = strconv.Atoi(marker); err != nil {
			failure3(w, http.StatusBadRequest, "contacts:invalidMarker", "The marker is invalid.")
			return
		}
	}
	since := time.Time{}
	if filter := query.Get("~modified"); filter != "" {
		text, ok := strings.CutPrefix(filter, "gte::")
		if since, err = time.Parse(time.RFC3339, text); err != nil || !ok {
			failure3(w, http.StatusBadRequest, "contacts:invalidFilter", "The filter is invalid.")
			return
		}
	}
	items, last, more := []any{}, after, false
	for _, p := range a.people.All[min(after, len(a.people.All)):] {
		if len(items) == limit {
			more = true
			break
		}
		last = p.ID
		if p.Updated.Before(since) {
			continue
		}
		items = append(items, contact(p, strings.Contains(query.Get("include"), "channelProperties")))
	}
	link := func(marker string) map[string]any {
		return map[string]any{"marker": marker, "link": "https://r1-api.dotdigital.com/contacts/v3?marker=" + marker}
	}
	links := map[string]any{"self": link(query.Get("marker")), "first": link("")}
	if more {
		links["next"] = link(strconv.Itoa(last))
	}
	simulator.WriteJSON(w, http.StatusOK, "application/json", map[string]any{"_items": items, "_links": links})
}

func contact(p *simulator.Person, channels bool) map[string]any {
	identifiers, properties := map[string]any{}, map[string]any{}
	if p.Email != "" {
		identifiers["email"] = p.Email
		properties["email"] = map[string]any{"status": orNone(p.Mail.Word), "emailType": "Html", "optInType": "single"}
	}
	if p.Phone != "" {
		identifiers["mobileNumber"] = strings.TrimPrefix(p.Phone, "+")
		properties["sms"] = map[string]any{"status": orNone(p.Text.Word), "countryCode": "AU"}
	}
	c := map[string]any{"contactId": p.ID, "created": p.Created, "updated": p.Updated, "identifiers": identifiers}
	if channels {
		c["channelProperties"] = properties
	}
	return c
}

func orNone(word string) string {
	if word == "" {
		return "noSubscription"
	}
	return word
}

type change struct {
	Match       string            `json:"matchIdentifier"`
	Identifiers map[string]string `json:"identifiers"`
	Channels    map[string]struct {
		Status string `json:"status"`
	} `json:"channelProperties"`
}

// problem says why a change is not taken; empty: it is.
func (c change) problem() string {
	if email, ok := c.Identifiers["email"]; ok && !address.MatchString(email) {
		return "contacts:invalidEmail"
	}
	if number, ok := c.Identifiers["mobileNumber"]; ok && !digits.MatchString(number) {
		return "contacts:invalidMobileNumber"
	}
	if c.Identifiers["email"] == "" && c.Identifiers["mobileNumber"] == "" {
		return "contacts:missingIdentifier"
	}
	for channel, given := range c.Channels {
		allowed := []string{"subscribed", "unsubscribed", "suppressed"}
		if channel == "sms" {
			allowed = append(allowed, "noSubscription")
		}
		if !slices.Contains(allowed, given.Status) {
			return "contacts:invalidStatus"
		}
	}
	return ""
}

var digits = regexp.MustCompile(`^[1-9]\d{6,14}$`)

// apply takes a change in once the lag has passed, and reports whether the person is new.
func (s *Simulator) apply(a *account, c change) bool {
	channel, value := "email", strings.ToLower(c.Identifiers["email"])
	if value == "" {
		channel, value = "sms", "+"+c.Identifiers["mobileNumber"]
	}
	isNew := a.people.Find(channel, value) == nil
	do := func() {
		now := s.later.Now(s.opts.Now).UTC()
		person := a.people.Make(channel, value, now)
		for name, given := range c.Channels {
			if person.On(name).Word != given.Status {
				a.people.Set(person, name, given.Status, now)
			}
		}
	}
	if s.opts.Lag == 0 {
		do()
	} else {
		s.later.Do(s.later.Now(s.opts.Now).Add(s.opts.Lag), do)
	}
	return isNew
}

func (s *Simulator) patch(a *account, w http.ResponseWriter, r *http.Request, body []byte) {
	var c change
	if json.Unmarshal(body, &c) != nil {
		failure3(w, http.StatusBadRequest, "contacts:invalidRequest", "The request is invalid.")
		return
	}
	if c.Identifiers == nil {
		c.Identifiers = map[string]string{}
	}
	c.Identifiers[r.PathValue("identifier")] = r.PathValue("value")
	if code := c.problem(); code != "" {
		failure3(w, http.StatusBadRequest, code, "The contact is invalid.")
		return
	}
	status := http.StatusOK
	if s.apply(a, c) {
		status = http.StatusCreated
	}
	simulator.WriteJSON(w, status, "application/json", map[string]any{"identifiers": c.Identifiers})
}

func (s *Simulator) importContacts(a *account, w http.ResponseWriter, _ *http.Request, body []byte) {
	var request struct {
		Contacts []change `json:"contacts"`
	}
	if json.Unmarshal(body, &request) != nil || len(request.Contacts) == 0 {
		failure3(w, http.StatusBadRequest, "contacts:invalidRequest", "The request is invalid.")
		return
	}
	id := fmt.Sprintf("import-%d", len(a.jobs)+1)
	j := &job{done: s.opts.Now().Add(s.opts.JobTime), total: len(request.Contacts)}
	a.jobs[id] = j
	s.later.Do(j.done, func() {
		for _, c := range request.Contacts {
			code := c.problem()
			switch {
			case code != "":
				j.failed++
				j.failures = append(j.failures, map[string]any{"identifiers": c.Identifiers, "failures": []any{map[string]any{"failureCode": code}}})
			case s.apply(a, c):
				j.created++
			default:
				j.updated++
			}
		}
	})
	simulator.WriteJSON(w, http.StatusAccepted, "application/json", map[string]any{"importId": id})
}

func (s *Simulator) importState(a *account, w http.ResponseWriter, r *http.Request, _ []byte) {
	j := a.jobs[r.PathValue("id")]
	if j == nil {
		failure3(w, http.StatusNotFound, "contacts:importNotFound", "No such import.")
		return
	}
	status := "NotFinished"
	if !s.opts.Now().Before(j.done) {
		status = "Finished"
	}
	simulator.WriteJSON(w, http.StatusOK, "application/json", map[string]any{
		"importId": r.PathValue("id"), "status": status, "failures": j.failures,
		"summary": map[string]any{"total": j.total, "created": j.created, "updated": j.updated, "failed": j.failed},
	})
}

// resubscribe is POST /v2/contacts/resubscribe: who complained can never come back, who opted out is asked first,
// and anybody else is back at once.
func (s *Simulator) resubscribe(a *account, w http.ResponseWriter, _ *http.Request, body []byte) {
	var request struct {
		Contact struct {
			Email string `json:"email"`
		} `json:"unsubscribedContact"`
	}
	if json.Unmarshal(body, &request) != nil || !address.MatchString(request.Contact.Email) {
		failure(w, http.StatusBadRequest, "The contact is invalid.", "ERROR_INVALID_EMAIL")
		return
	}
	now := s.opts.Now().UTC()
	person := a.people.Make("email", strings.ToLower(request.Contact.Email), now)
	status := "ContactAdded"
	switch person.Mail.Word {
	case "ispComplained", "directComplaint", "hardBounced", "suppressed":
		status = "ContactCannotBeUnsuppressed"
	case "unsubscribed":
		status = "ContactChallenged"
	default:
		a.people.Set(person, "email", "subscribed", now)
	}
	simulator.WriteJSON(w, http.StatusOK, "application/json", map[string]any{"contact": map[string]any{"id": person.ID, "email": person.Email}, "status": status})
}

var happenings = map[string]string{
	simulator.Known: "subscribed", simulator.Resubscribed: "subscribed", simulator.NeverAsked: "noSubscription",
	simulator.Unsubscribed: "unsubscribed", simulator.Complained: "ispComplained", simulator.HardBounced: "hardBounced",
	simulator.SoftBounced: "softBounced", simulator.Blocked: "suppressed",
}

// Happen implements [simulator.Keeper].
func (s *Simulator) Happen(f simulator.Fact) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, word := s.accounts[f.Account], happenings[f.What]
	if f.Channel == "sms" && f.What == simulator.HardBounced {
		word = "bounced"
	}
	if a == nil || word == "" || f.Channel != "email" && f.Channel != "sms" || f.Channel == "sms" && f.What == simulator.Complained {
		return fmt.Errorf("%w: account %q, %q on %q", simulator.ErrFact, f.Account, f.What, f.Channel)
	}
	at := f.At
	if at.IsZero() {
		at = s.opts.Now()
	}
	a.people.Set(a.people.Make(f.Channel, f.Address, at.UTC()), f.Channel, word, at.UTC())
	return nil
}

// Suppressed implements [simulator.Keeper].
func (s *Simulator) Suppressed(account, channel string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.later.Flush()
	list := map[string]string{}
	if a := s.accounts[account]; a != nil {
		for _, p := range a.people.All {
			if word := p.On(channel).Word; out(word) && p.Address(channel) != "" {
				list[p.Address(channel)] = word
			}
		}
	}
	return list
}

// State implements [simulator.Keeper].
func (s *Simulator) State() any {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := map[string]any{}
	for name, a := range s.accounts {
		people := []simulator.Person{}
		for _, p := range a.people.All {
			people = append(people, *p)
		}
		state[name] = map[string]any{"sent": slices.Clone(a.sent), "contacts": people}
	}
	return state
}
