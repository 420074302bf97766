// Package simulator behaves as Yotpo SMS & Email did, from what its pages describe: tokens for a store, customer
// events that overwrite by id, subscriber upserts that need a phone number, a leaky bucket.
//
// It shares no code with package yotpo.
package simulator

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
)

// Simulator is Yotpo. Make it with [New]. An account's key is its store id (app key), its secret the store's secret.
type Simulator struct {
	*simulator.Core
	opts    simulator.Options
	limiter *simulator.Limiter // 50 a minute

	mu       sync.Mutex // guards what follows
	accounts map[string]*account
	tokens   map[string]token
	later    simulator.Later
}

type token struct {
	account string
	expires time.Time
}

// Event is one customer event as it stands: a repeat of its id has overwritten the first.
type Event struct {
	ID     string          `json:"id"`
	Body   json.RawMessage `json:"body"`
	Writes int             `json:"writes"`
}

type account struct {
	simulator.Account
	events map[string]*Event
	people simulator.People
}

// New makes a simulator. The error is [simulator.ErrNoClock].
func New(opts simulator.Options) (*Simulator, error) {
	opts, err := opts.Defaults()
	if err != nil {
		return nil, err
	}
	s := &Simulator{
		opts: opts, accounts: map[string]*account{}, tokens: map[string]token{},
		limiter: simulator.NewLimiter(opts.Now, simulator.Window{Limit: 50, Per: time.Minute}),
	}
	for _, a := range opts.Accounts {
		s.accounts[a.Name] = &account{Account: a, events: map[string]*Event{}}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /core/v3/stores/{store}/access_tokens", s.accessToken)
	mux.HandleFunc("POST /messaging/v3/stores/{store}/customers/events", s.with(s.event))
	mux.HandleFunc("POST /core/v3/stores/{store}/subscribers", s.with(s.subscriber))
	s.Core = simulator.NewCore(opts.Now, func(r *http.Request, _ []byte) string {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.tokens[r.Header.Get("X-Yotpo-Token")].account
	}, mux, s)
	return s, nil
}

func (s *Simulator) accessToken(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Secret string `json:"secret"`
	}
	if json.NewDecoder(r.Body).Decode(&request) != nil {
		http.Error(w, `{"error":"bad request"}`, http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, a := range s.accounts {
		if a.Key == r.PathValue("store") && a.Secret == request.Secret {
			text := fmt.Sprintf("token-%s-%d", name, len(s.tokens)+1)
			s.tokens[text] = token{account: name, expires: s.opts.Now().Add(14 * 24 * time.Hour)}
			simulator.WriteJSON(w, http.StatusOK, "application/json", map[string]any{"access_token": text})
			return
		}
	}
	http.Error(w, `{"error":"unauthorized"}`, http.StatusUnauthorized)
}

func (s *Simulator) with(do func(a *account, w http.ResponseWriter, body []byte)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, `{"error":"bad request"}`, http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.later.Run(s.opts.Now())
		given, ok := s.tokens[r.Header.Get("X-Yotpo-Token")]
		a := s.accounts[given.account]
		switch {
		case !ok || !s.opts.Now().Before(given.expires) || a.Key != r.PathValue("store"):
			http.Error(w, `{"error":"unauthorized"}`, http.StatusUnauthorized)
		case !s.opts.Unlimited && !s.limiter.Take(a.Name).OK:
			http.Error(w, `{"error":"too many requests"}`, http.StatusTooManyRequests)
		default:
			do(a, w, body)
		}
	}
}

var (
	snake = regexp.MustCompile(`^[a-z0-9_]{1,255}$`)
	phone = regexp.MustCompile(`^\+[1-9]\d{6,13}$`)
)

func (s *Simulator) event(a *account, w http.ResponseWriter, body []byte) {
	var e struct {
		Source   string         `json:"source"`
		Action   string         `json:"action_name"`
		At       string         `json:"occurred_at"`
		ID       string         `json:"unique_event_id"`
		Customer map[string]any `json:"customer"`
	}
	refuse := func(text string) { http.Error(w, fmt.Sprintf(`{"error":%q}`, text), http.StatusBadRequest) }
	err := json.Unmarshal(body, &e)
	_, hasPhone := e.Customer["phone_number"]
	_, hasEmail := e.Customer["email"]
	_, timeErr := time.Parse(time.RFC3339, e.At)
	switch {
	case err != nil:
		refuse("bad JSON")
	case !snake.MatchString(e.Source) || !snake.MatchString(e.Action):
		refuse("source and action_name must be snake case")
	case timeErr != nil:
		refuse("occurred_at is not a time")
	case e.ID == "":
		refuse("unique_event_id is required")
	case hasPhone == hasEmail:
		refuse("exactly one of phone_number and email")
	default:
		stored := a.events[e.ID]
		if stored == nil {
			stored = &Event{ID: e.ID}
			a.events[e.ID] = stored
		}
		stored.Body, stored.Writes = append(json.RawMessage(nil), body...), stored.Writes+1
		simulator.WriteJSON(w, http.StatusOK, "application/json", map[string]any{})
	}
}

// Events are an account's customer events by id.
func (s *Simulator) Events(account string) map[string]Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := map[string]Event{}
	if a := s.accounts[account]; a != nil {
		for id, e := range a.events {
			events[id] = *e
		}
	}
	return events
}

func (s *Simulator) subscriber(a *account, w http.ResponseWriter, body []byte) {
	var request struct {
		Customer struct {
			Phone string `json:"phone"`
			Email string `json:"email"`
		} `json:"customer"`
		Channels map[string]struct {
			Consent   string `json:"consent"`
			Source    string `json:"source"`
			Suppress  string `json:"suppress_email"`
			Reason    string `json:"suppression_reason"`
			Timestamp string `json:"suppression_timestamp"`
		} `json:"channels"`
	}
	refuse := func(text string) { http.Error(w, fmt.Sprintf(`{"error":%q}`, text), http.StatusBadRequest) }
	if err := json.Unmarshal(body, &request); err != nil {
		refuse("bad JSON")
		return
	}
	if !phone.MatchString(request.Customer.Phone) {
		refuse("phone is required, 15 characters at most")
		return
	}
	now := s.opts.Now().UTC()
	at := map[string]time.Time{}
	for name, c := range request.Channels {
		at[name] = now
		switch {
		case !slices.Contains([]string{"", "subscribed", "unsubscribed"}, c.Consent):
			refuse("consent must be subscribed, unsubscribed or blank")
			return
		case c.Source != "" && (len(c.Source) < 3 || len(c.Source) > 40):
			refuse("source must be 3 to 40 characters")
			return
		case c.Timestamp != "":
			given, err := time.Parse("2006-01-02T15:04:05.000Z", c.Timestamp)
			if err != nil {
				refuse("suppression_timestamp is not a time")
				return
			}
			at[name] = given
		}
	}
	apply := func() {
		person := a.people.Make("sms", request.Customer.Phone, now)
		if request.Customer.Email != "" {
			person.Email = request.Customer.Email
			a.people.Know(person)
		}
		for name, c := range request.Channels {
			word := c.Consent
			if c.Suppress == "true" {
				word = "manual_suppression"
				if c.Reason != "" {
					word = c.Reason
				}
			}
			a.people.Set(person, name, word, at[name])
		}
	}
	if s.opts.Lag > 0 {
		s.later.Do(s.opts.Now().Add(s.opts.Lag), apply)
	} else {
		apply()
	}
	simulator.WriteJSON(w, http.StatusOK, "application/json", map[string]any{})
}

// Happen implements [simulator.Keeper].
func (s *Simulator) Happen(f simulator.Fact) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[f.Account]
	words := map[string]string{
		simulator.Known: "subscribed", simulator.Resubscribed: "subscribed", simulator.NeverAsked: "", simulator.Unsubscribed: "unsubscribed",
		simulator.HardBounced: "hard_bounce", simulator.SoftBounced: "soft_bounce", simulator.Blocked: "manual_suppression",
	}
	word, ok := words[f.What]
	if a == nil || !ok || f.Channel != "sms" && f.Channel != "email" {
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
			if word := p.On(channel).Word; word != "" && word != "subscribed" && p.Address(channel) != "" {
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
		state[name] = map[string]any{"events": maps.Clone(a.events), "people": people}
	}
	return state
}
