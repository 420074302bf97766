// Package simulator behaves as Braze's REST API is documented to: prose for errors, errors inside a success, lists by
// whole days and by offset, mostly newest first, complaints that no list shows, and writes that take a while to show.
//
// It shares no code with package braze.
package simulator

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
)

// Simulator is one instance of Braze. Make it with [New]. An account's key is its REST API key.
type Simulator struct {
	*simulator.Core
	opts  simulator.Options
	track *simulator.Limiter // 3,000 in 3 seconds
	rest  *simulator.Limiter // 250,000 an hour

	mu       sync.Mutex // guards what follows
	accounts map[string]*account
	later    simulator.Later
}

// Sent is one thing that was taken: a tracked event, a triggered or a transactional message.
type Sent struct {
	Kind string          `json:"kind"` // event, attributes, campaign, message or transactional
	ID   string          `json:"id,omitempty"`
	Body json.RawMessage `json:"body"`
}

// subject is what a workspace knows of one address. A zero time: no.
type subject struct {
	address      string
	state        string // email: subscribed, opted_in, unsubscribed
	unsubscribed time.Time
	bounced      time.Time
	spam         time.Time
	invalid      time.Time
	groups       map[string]string // subscription group to Subscribed or Unsubscribed
}

type account struct {
	simulator.Account
	emails, phones map[string]*subject
	sent           []Sent
	sendIDs        map[string]time.Time // of transactional email
	dispatches     int
}

// New makes a simulator. The error is [simulator.ErrNoClock].
func New(opts simulator.Options) (*Simulator, error) {
	opts, err := opts.Defaults()
	if err != nil {
		return nil, err
	}
	s := &Simulator{
		opts: opts, accounts: map[string]*account{},
		track: simulator.NewLimiter(opts.Now, simulator.Window{Limit: 3000, Per: 3 * time.Second}),
		rest:  simulator.NewLimiter(opts.Now, simulator.Window{Limit: 250_000, Per: time.Hour}),
	}
	for _, a := range opts.Accounts {
		s.accounts[a.Name] = &account{Account: a, emails: map[string]*subject{}, phones: map[string]*subject{}, sendIDs: map[string]time.Time{}}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /users/track", s.with(s.track, s.trackUsers))
	mux.HandleFunc("POST /campaigns/trigger/send", s.with(s.rest, s.trigger))
	mux.HandleFunc("POST /messages/send", s.with(s.rest, s.trigger))
	mux.HandleFunc("POST /transactional/v1/campaigns/{id}/send", s.with(nil, s.transactional))
	mux.HandleFunc("GET /email/unsubscribes", s.with(s.rest, s.list("emails", "email", "unsubscribed_at", func(x *subject) time.Time { return x.unsubscribed })))
	mux.HandleFunc("GET /email/hard_bounces", s.with(s.rest, s.list("emails", "email", "hard_bounced_at", func(x *subject) time.Time { return x.bounced })))
	mux.HandleFunc("GET /sms/invalid_phone_numbers", s.with(s.rest, s.list("sms", "phone", "invalid_detected_at", func(x *subject) time.Time { return x.invalid })))
	mux.HandleFunc("POST /email/status", s.with(s.rest, s.emailStatus))
	mux.HandleFunc("POST /email/blocklist", s.with(s.rest, s.emails(func(x *subject, now time.Time) {
		x.unsubscribe(now)
		x.bounced = now
	})))
	mux.HandleFunc("POST /email/bounce/remove", s.with(s.rest, s.emails(func(x *subject, _ time.Time) { x.bounced = time.Time{} })))
	mux.HandleFunc("POST /email/spam/remove", s.with(s.rest, s.emails(func(x *subject, _ time.Time) { x.spam = time.Time{} })))
	mux.HandleFunc("POST /v2/subscription/status/set", s.with(s.rest, s.groupStatus))
	s.Core = simulator.NewCore(opts.Now, func(r *http.Request, _ []byte) string {
		if a := s.authenticate(r); a != nil {
			return a.Name
		}
		return ""
	}, mux, s)
	return s, nil
}

func (x *subject) unsubscribe(now time.Time) {
	if x.state != "unsubscribed" {
		x.state, x.unsubscribed = "unsubscribed", now
	}
}

func (s *Simulator) authenticate(r *http.Request) *account {
	key, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	for _, a := range s.accounts { // the map itself never changes
		if subtle.ConstantTimeCompare([]byte(key), []byte(a.Key)) == 1 {
			return a
		}
	}
	return nil
}

func say(w http.ResponseWriter, status int, message string, more map[string]any) {
	answer := map[string]any{"message": message}
	maps.Copy(answer, more)
	simulator.WriteJSON(w, status, "application/json", answer)
}

type operation func(a *account, w http.ResponseWriter, r *http.Request, body []byte)

// with checks what all calls share; a nil limiter: the call is never limited.
func (s *Simulator) with(limiter *simulator.Limiter, do operation) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a := s.authenticate(r)
		if a == nil {
			say(w, http.StatusUnauthorized, "Invalid API key: "+r.Host, nil)
			return
		}
		if limiter != nil && !s.opts.Unlimited {
			usage := limiter.Take(a.Name)
			w.Header().Set("X-RateLimit-Limit", strconv.Itoa(usage.Limit))
			w.Header().Set("X-RateLimit-Remaining", strconv.Itoa(usage.Remaining))
			w.Header().Set("X-RateLimit-Reset", strconv.FormatInt(s.opts.Now().Add(usage.Reset).Unix(), 10)) // an epoch
			if !usage.OK {
				say(w, http.StatusTooManyRequests, "You have exceeded your request quota", nil)
				return
			}
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || len(body) > 4<<20 {
			say(w, http.StatusRequestEntityTooLarge, "Request entity too large", nil)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.later.Run(s.opts.Now())
		do(a, w, r, body)
	}
}

// trackUsers is POST /users/track: bad objects are reported, the others taken, and repeats counted again.
func (s *Simulator) trackUsers(a *account, w http.ResponseWriter, _ *http.Request, body []byte) {
	var request struct {
		Events     []map[string]any `json:"events"`
		Attributes []map[string]any `json:"attributes"`
		Purchases  []map[string]any `json:"purchases"`
	}
	if err := json.Unmarshal(body, &request); err != nil {
		say(w, http.StatusBadRequest, "Bad JSON: "+err.Error(), nil)
		return
	}
	total := len(request.Events) + len(request.Attributes) + len(request.Purchases)
	if total == 0 || len(request.Events) > 75 || len(request.Attributes) > 75 || len(request.Purchases) > 75 {
		say(w, http.StatusBadRequest, "No users, or more than 75 objects of one kind", nil)
		return
	}
	errs, processed := []any{}, map[string]int{}
	take := func(kind string, objects []map[string]any, complete func(map[string]any) bool) {
		for i, object := range objects {
			if !named(object, "external_id", "user_alias", "braze_id", "email", "phone") || !complete(object) {
				errs = append(errs, map[string]any{"type": "'external_id', 'braze_id', 'user_alias', 'email' or 'phone', and the object's own fields, are required", "input_array": kind, "index": i})
				continue
			}
			raw, err := json.Marshal(object)
			if err != nil {
				continue
			}
			processed[kind]++
			a.sent = append(a.sent, Sent{Kind: strings.TrimSuffix(kind, "s"), Body: raw})
		}
	}
	take("events", request.Events, func(o map[string]any) bool {
		name, _ := o["name"].(string)
		at, _ := o["time"].(string)
		_, err := time.Parse(time.RFC3339, at)
		return name != "" && err == nil
	})
	take("attributes", request.Attributes, func(map[string]any) bool { return true })
	take("purchases", request.Purchases, func(map[string]any) bool { return true })
	more := map[string]any{}
	for kind, n := range processed {
		more[kind+"_processed"] = n
	}
	if len(errs) > 0 {
		more["errors"] = errs
	}
	if len(errs) == total {
		say(w, http.StatusBadRequest, "Valid data must be provided", more)
		return
	}
	say(w, http.StatusCreated, "success", more)
}

// named reports whether an object has one of the fields, filled.
func named(object map[string]any, fields ...string) bool {
	return slices.ContainsFunc(fields, func(field string) bool {
		switch v := object[field].(type) {
		case string:
			return v != ""
		case map[string]any:
			return len(v) > 0
		}
		return false
	})
}

// trigger is POST /campaigns/trigger/send and /messages/send.
func (s *Simulator) trigger(a *account, w http.ResponseWriter, r *http.Request, body []byte) {
	var request struct {
		Campaign   string           `json:"campaign_id"`
		Recipients []map[string]any `json:"recipients"`
		Broadcast  bool             `json:"broadcast"`
		Users      []string         `json:"external_user_ids"`
		Messages   map[string]any   `json:"messages"`
	}
	direct := strings.HasPrefix(r.URL.Path, "/messages")
	switch err := json.Unmarshal(body, &request); {
	case err != nil:
		say(w, http.StatusBadRequest, "Bad JSON: "+err.Error(), nil)
		return
	case direct && (len(request.Messages) == 0 || len(request.Users) == 0 || len(request.Users) > 50):
		say(w, http.StatusBadRequest, "Messages and 1 to 50 external_user_ids are required", nil)
		return
	case !direct && request.Campaign == "":
		say(w, http.StatusBadRequest, "Invalid campaign ID", nil)
		return
	case !direct && !request.Broadcast && (len(request.Recipients) == 0 || len(request.Recipients) > 50):
		say(w, http.StatusBadRequest, "1 to 50 recipients are required", nil)
		return
	}
	for _, recipient := range request.Recipients {
		if !named(recipient, "external_user_id", "user_alias", "email") {
			say(w, http.StatusBadRequest, "A recipient must have external_user_id, user_alias or email", nil)
			return
		}
	}
	say(w, http.StatusCreated, "success", map[string]any{"dispatch_id": s.take(a, "campaign", "", body)})
}

func (s *Simulator) take(a *account, kind, id string, body []byte) string {
	a.dispatches++
	a.sent = append(a.sent, Sent{Kind: kind, ID: id, Body: append(json.RawMessage(nil), body...)})
	return fmt.Sprintf("%032x", a.dispatches)
}

var sendID = regexp.MustCompile(`^[a-zA-Z0-9\-_+/=]+$`)

// transactional is POST /transactional/v1/campaigns/{id}/send: external_send_id is remembered for a day.
func (s *Simulator) transactional(a *account, w http.ResponseWriter, _ *http.Request, body []byte) {
	var request struct {
		SendID    string         `json:"external_send_id"`
		Recipient map[string]any `json:"recipient"`
	}
	now := s.opts.Now()
	switch err := json.Unmarshal(body, &request); {
	case err != nil:
		say(w, http.StatusBadRequest, "Bad JSON: "+err.Error(), nil)
		return
	case !named(request.Recipient, "external_user_id", "user_alias", "email"):
		say(w, http.StatusBadRequest, "Recipient must be provided", nil)
		return
	case request.SendID != "" && !sendID.MatchString(request.SendID):
		say(w, http.StatusBadRequest, "external_send_id is invalid", nil)
		return
	}
	if at, seen := a.sendIDs[request.SendID]; seen && request.SendID != "" && now.Sub(at) < 24*time.Hour {
		say(w, http.StatusBadRequest, "The external reference has been queued.  Please retry to obtain send_id.", nil)
		return
	}
	a.sendIDs[request.SendID] = now
	id := s.take(a, "transactional", request.SendID, body)
	simulator.WriteJSON(w, http.StatusCreated, "application/json", map[string]any{"dispatch_id": id, "status": "sent", "metadata": map[string]any{
		"received_at": now.UTC(), "external_send_id": request.SendID,
	}})
}

// Sent is what an account took, in order.
func (s *Simulator) Sent(account string) []Sent {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[account]; a != nil {
		return slices.Clone(a.sent)
	}
	return nil
}

// list is one of the GET lists.
func (s *Simulator) list(items, address, at string, when func(*subject) time.Time) operation {
	return func(a *account, w http.ResponseWriter, r *http.Request, _ []byte) {
		query := r.URL.Query()
		limit, offset := 100, 0
		var err error
		for name, value := range map[string]*int{"limit": &limit, "offset": &offset} {
			if text := query.Get(name); text != "" {
				if *value, err = strconv.Atoi(text); err != nil || *value < 0 {
					say(w, http.StatusBadRequest, name+" must be a number", nil)
					return
				}
			}
		}
		from, err1 := time.Parse(time.DateOnly, query.Get("start_date"))
		to, err2 := time.Parse(time.DateOnly, query.Get("end_date"))
		if err1 != nil || err2 != nil || limit < 1 || limit > 500 {
			say(w, http.StatusBadRequest, "start_date and end_date must be YYYY-MM-DD, limit at most 500", nil)
			return
		}
		subjects := a.emails
		if address == "phone" {
			subjects = a.phones
		}
		var found []*subject
		for _, x := range subjects {
			if t := when(x); !t.IsZero() && !t.Before(from) && !t.After(to) {
				found = append(found, x)
			}
		}
		slices.SortFunc(found, func(x, y *subject) int {
			order := when(x).Compare(when(y))
			if order == 0 {
				order = strings.Compare(x.address, y.address)
			}
			if query.Get("sort_direction") != "asc" {
				return -order
			}
			return order
		})
		rows := []any{}
		for _, x := range found[min(offset, len(found)):min(offset+limit, len(found))] {
			row := map[string]any{address: x.address, at: when(x).UTC().Format("2006-01-02 15:04:05 -0700")}
			if address == "phone" {
				row["reason"] = "deactivated"
			}
			rows = append(rows, row)
		}
		say(w, http.StatusOK, "success", map[string]any{items: rows})
	}
}

// emailList reads 1 to 50 addresses, which are an array or one text.
func emailList(raw json.RawMessage) []string {
	var many []string
	if json.Unmarshal(raw, &many) != nil {
		many = []string{""}
		if json.Unmarshal(raw, &many[0]) != nil {
			return nil
		}
	}
	if len(many) > 50 {
		return nil
	}
	return many
}

// emails is a call that does something to a list of emails, known or not.
func (s *Simulator) emails(do func(*subject, time.Time)) operation {
	return func(a *account, w http.ResponseWriter, _ *http.Request, body []byte) {
		var request struct {
			Email json.RawMessage `json:"email"`
		}
		if json.Unmarshal(body, &request) != nil {
			say(w, http.StatusBadRequest, "Bad JSON", nil)
			return
		}
		addresses := emailList(request.Email)
		if len(addresses) == 0 {
			say(w, http.StatusBadRequest, "1 to 50 emails are required", nil)
			return
		}
		s.after(func() {
			for _, email := range addresses {
				do(find(a.emails, strings.ToLower(email)), s.later.Now(s.opts.Now).UTC())
			}
		})
		say(w, http.StatusCreated, "success", nil)
	}
}

// after does something once it would show in reads.
func (s *Simulator) after(do func()) {
	if s.opts.Lag == 0 {
		do()
		return
	}
	s.later.Do(s.opts.Now().Add(s.opts.Lag), do)
}

func find(subjects map[string]*subject, address string) *subject {
	x := subjects[address]
	if x == nil {
		x = &subject{address: address, state: "subscribed", groups: map[string]string{}}
		subjects[address] = x
	}
	return x
}

func (s *Simulator) emailStatus(a *account, w http.ResponseWriter, r *http.Request, body []byte) {
	var request struct {
		State string `json:"subscription_state"`
	}
	if json.Unmarshal(body, &request) != nil || !slices.Contains([]string{"subscribed", "unsubscribed", "opted_in"}, request.State) {
		say(w, http.StatusBadRequest, "subscription_state must be subscribed, unsubscribed or opted_in", nil)
		return
	}
	s.emails(func(x *subject, now time.Time) {
		if request.State == "unsubscribed" {
			x.unsubscribe(now)
			return
		}
		x.state, x.unsubscribed = request.State, time.Time{}
	})(a, w, r, body)
}

func (s *Simulator) groupStatus(a *account, w http.ResponseWriter, _ *http.Request, body []byte) {
	var request struct {
		Groups []struct {
			ID     string   `json:"subscription_group_id"`
			State  string   `json:"subscription_state"`
			Phones []string `json:"phones"`
			Emails []string `json:"emails"`
		} `json:"subscription_groups"`
	}
	if json.Unmarshal(body, &request) != nil || len(request.Groups) == 0 {
		say(w, http.StatusBadRequest, "subscription_groups is required", nil)
		return
	}
	for _, g := range request.Groups {
		switch {
		case g.ID == "" || g.State != "subscribed" && g.State != "unsubscribed":
			say(w, http.StatusBadRequest, "A group needs its id and a state", nil)
			return
		case len(g.Phones) > 0 && len(g.Emails) > 0:
			say(w, http.StatusBadRequest, "Cannot have both emails and phones", nil)
			return
		case len(g.Phones)+len(g.Emails) == 0 || len(g.Phones)+len(g.Emails) > 50:
			say(w, http.StatusBadRequest, "1 to 50 users are required", nil)
			return
		}
	}
	s.after(func() {
		for _, g := range request.Groups {
			word := strings.ToUpper(g.State[:1]) + g.State[1:]
			for _, phone := range g.Phones {
				find(a.phones, phone).groups[g.ID] = word
			}
			for _, email := range g.Emails {
				find(a.emails, strings.ToLower(email)).groups[g.ID] = word
			}
		}
	})
	say(w, http.StatusCreated, "success", nil)
}

// Happen implements [simulator.Keeper]. On SMS, what happens happens to a subscription group.
func (s *Simulator) Happen(f simulator.Fact) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[f.Account]
	at := f.At
	if at.IsZero() {
		at = s.opts.Now()
	}
	at = at.UTC().Truncate(time.Second)
	switch {
	case a == nil:
		return fmt.Errorf("%w: account %q", simulator.ErrFact, f.Account)
	case f.Channel == "email":
		x := find(a.emails, f.Address)
		switch f.What {
		case simulator.Known, simulator.NeverAsked:
		case simulator.Resubscribed:
			x.state, x.unsubscribed = "opted_in", time.Time{}
		case simulator.Unsubscribed:
			x.unsubscribe(at)
		case simulator.HardBounced:
			x.bounced = at
		case simulator.Complained:
			x.spam = at
		case simulator.Blocked:
			x.unsubscribe(at)
			x.bounced = at
		default:
			return fmt.Errorf("%w: %q on email", simulator.ErrFact, f.What)
		}
	case f.Channel == "sms" && f.What == simulator.HardBounced:
		find(a.phones, f.Address).invalid = at
	case f.Channel == "sms" && f.List != "" && (f.What == simulator.Known || f.What == simulator.Resubscribed):
		find(a.phones, f.Address).groups[f.List] = "Subscribed"
	case f.Channel == "sms" && f.List != "" && f.What == simulator.Unsubscribed:
		find(a.phones, f.Address).groups[f.List] = "Unsubscribed"
	default:
		return fmt.Errorf("%w: %q on %q without a subscription group", simulator.ErrFact, f.What, f.Channel)
	}
	return nil
}

// Suppressed implements [simulator.Keeper].
func (s *Simulator) Suppressed(account, channel string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.later.Flush()
	list := map[string]string{}
	a := s.accounts[account]
	if a == nil {
		return list
	}
	subjects := a.emails
	if channel == "sms" {
		subjects = a.phones
	}
	for address, x := range subjects {
		for _, group := range x.groups {
			if channel == "sms" && group == "Unsubscribed" {
				list[address] = group
			}
		}
		for word, at := range map[string]time.Time{"hard_bounced": x.bounced, "marked_as_spam": x.spam, "invalid": x.invalid} {
			if !at.IsZero() {
				list[address] = word
			}
		}
		if x.state == "unsubscribed" {
			list[address] = x.state
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
		people := map[string]any{}
		for _, subjects := range []map[string]*subject{a.emails, a.phones} {
			for address, x := range subjects {
				people[address] = map[string]any{
					"state": x.state, "unsubscribed": x.unsubscribed, "bounced": x.bounced, "spam": x.spam, "invalid": x.invalid, "groups": maps.Clone(x.groups),
				}
			}
		}
		state[name] = map[string]any{"sent": slices.Clone(a.sent), "people": people}
	}
	return state
}
