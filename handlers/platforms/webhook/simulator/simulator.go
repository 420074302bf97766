// Package simulator is an in-house system that keeps the suppression contract of package webhook, and a receiver of
// signed webhooks that remembers their ids.
package simulator

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
)

// Simulator is one in-house system. Make it with [New]. An account's key is its bearer token, its secret, when it
// starts with whsec_, what requests must be signed with.
type Simulator struct {
	*simulator.Core
	opts simulator.Options

	mu       sync.Mutex // guards what follows
	accounts map[string]*account
	later    simulator.Later
}

// Message is one webhook that was received.
type Message struct {
	ID   string          `json:"id"`
	Body json.RawMessage `json:"body"`
}

type account struct {
	simulator.Account
	rows     []row // in the order they were recorded
	jobs     map[string]*job
	messages []Message
	repeats  int
}

type row struct {
	Channel    string    `json:"channel"`
	Address    string    `json:"address"`
	State      string    `json:"state"`
	Reason     string    `json:"reason"`
	Scope      string    `json:"scope"`
	OccurredAt time.Time `json:"occurred_at"`
	RecordedAt time.Time `json:"recorded_at"`
}

type job struct {
	done             time.Time
	total, completed int
}

// New makes a simulator. The error is [simulator.ErrNoClock].
func New(opts simulator.Options) (*Simulator, error) {
	opts, err := opts.Defaults()
	if err != nil {
		return nil, err
	}
	s := &Simulator{opts: opts, accounts: map[string]*account{}}
	for _, a := range opts.Accounts {
		s.accounts[a.Name] = &account{Account: a, jobs: map[string]*job{}}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /suppressions", s.with(s.list))
	mux.HandleFunc("POST /suppressions", s.with(s.write))
	mux.HandleFunc("GET /jobs/{id}", s.with(s.job))
	mux.HandleFunc("POST /", s.with(s.receive))
	s.Core = simulator.NewCore(opts.Now, func(r *http.Request, _ []byte) string {
		if a := s.authenticate(r); a != nil {
			return a.Name
		}
		return ""
	}, mux, s)
	return s, nil
}

func (s *Simulator) authenticate(r *http.Request) *account {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	for _, a := range s.accounts { // the map itself never changes
		if subtle.ConstantTimeCompare([]byte(token), []byte(a.Key)) == 1 {
			return a
		}
	}
	return nil
}

// with authenticates, and verifies the signature of what is posted.
func (s *Simulator) with(do func(a *account, w http.ResponseWriter, r *http.Request, body []byte)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a := s.authenticate(r)
		if a == nil {
			http.Error(w, "unknown token", http.StatusUnauthorized)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if r.Method == http.MethodPost && strings.HasPrefix(a.Secret, "whsec_") {
			hook, err := standardwebhooks.NewWebhook(a.Secret)
			if err == nil {
				err = hook.VerifyIgnoringTimestamp(body, r.Header)
			}
			if err != nil {
				http.Error(w, "signature: "+err.Error(), http.StatusUnauthorized)
				return
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.later.Run(s.opts.Now())
		do(a, w, r, body)
	}
}

// receive is any other path: a webhook. A repeated webhook-id is answered like the first and not taken again.
func (s *Simulator) receive(a *account, w http.ResponseWriter, r *http.Request, body []byte) {
	id := r.Header.Get("webhook-id")
	switch {
	case !json.Valid(body):
		http.Error(w, "not JSON", http.StatusBadRequest)
		return
	case id != "" && slices.ContainsFunc(a.messages, func(m Message) bool { return m.ID == id }):
		a.repeats++
	default:
		a.messages = append(a.messages, Message{ID: id, Body: append(json.RawMessage(nil), body...)})
	}
	w.WriteHeader(http.StatusNoContent)
}

// Messages is what an account received, each once.
func (s *Simulator) Messages(account string) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[account]; a != nil {
		return slices.Clone(a.messages)
	}
	return nil
}

// list is GET /suppressions: rows recorded since, oldest first; the cursor is the number of rows passed.
func (s *Simulator) list(a *account, w http.ResponseWriter, r *http.Request, _ []byte) {
	query := r.URL.Query()
	limit, err := strconv.Atoi(query.Get("limit"))
	if err != nil || limit < 1 || limit > 500 {
		http.Error(w, "limit is 1 to 500", http.StatusBadRequest)
		return
	}
	passed := 0
	if cursor := query.Get("cursor"); cursor != "" {
		if passed, err = strconv.Atoi(cursor); err != nil || passed < 0 {
			http.Error(w, "no such cursor", http.StatusBadRequest)
			return
		}
	}
	since := time.Time{}
	if text := query.Get("since"); text != "" {
		if since, err = time.Parse(time.RFC3339, text); err != nil {
			http.Error(w, "since is not a time", http.StatusBadRequest)
			return
		}
	}
	answer := map[string]any{"complete": true}
	items := []row{}
	for ; passed < len(a.rows) && len(items) < limit; passed++ {
		if row := a.rows[passed]; row.Channel == query.Get("channel") && !row.RecordedAt.Before(since) && a.current(row) {
			items = append(items, row)
		}
	}
	answer["items"] = items
	if passed < len(a.rows) {
		answer["next_cursor"] = strconv.Itoa(passed)
	}
	simulator.WriteJSON(w, http.StatusOK, "application/json", answer)
}

// current reports whether no later row speaks of the same address and scope.
func (a *account) current(r row) bool {
	for i := len(a.rows) - 1; i >= 0; i-- {
		if o := a.rows[i]; o.Channel == r.Channel && o.Address == r.Address && o.Scope == r.Scope {
			return o == r
		}
	}
	return false
}

// write is POST /suppressions: at once, or as a job when the simulator's jobs take time.
func (s *Simulator) write(a *account, w http.ResponseWriter, _ *http.Request, body []byte) {
	var request struct {
		Items []row `json:"items"`
	}
	if err := json.Unmarshal(body, &request); err != nil || len(request.Items) == 0 || len(request.Items) > 500 {
		http.Error(w, fmt.Sprintf("items: 1 to 500 rows: %v", err), http.StatusBadRequest)
		return
	}
	if s.opts.JobTime > 0 {
		id := fmt.Sprintf("job-%d", len(a.jobs)+1)
		j := &job{done: s.opts.Now().Add(s.opts.JobTime), total: len(request.Items)}
		a.jobs[id] = j
		s.later.Do(j.done, func() {
			for _, item := range request.Items {
				s.record(a, item)
				j.completed++
			}
		})
		simulator.WriteJSON(w, http.StatusAccepted, "application/json", map[string]any{"job": id})
		return
	}
	results := []any{}
	for i, item := range request.Items {
		status := "applied"
		if !s.record(a, item) {
			status = "unchanged"
		}
		results = append(results, map[string]any{"index": i, "status": status})
	}
	simulator.WriteJSON(w, http.StatusOK, "application/json", map[string]any{"results": results})
}

func (s *Simulator) job(a *account, w http.ResponseWriter, r *http.Request, _ []byte) {
	j := a.jobs[r.PathValue("id")]
	if j == nil {
		http.NotFound(w, r)
		return
	}
	status := "running"
	if !s.opts.Now().Before(j.done) {
		status = "done"
	}
	simulator.WriteJSON(w, http.StatusOK, "application/json", map[string]any{"status": status, "total": j.total, "completed": j.completed})
}

// record takes a row in, and reports whether it changed anything.
func (s *Simulator) record(a *account, r row) bool {
	if r.Scope == "" {
		r.Scope = "global"
	}
	r.RecordedAt = s.later.Now(s.opts.Now).UTC()
	if r.OccurredAt.IsZero() {
		r.OccurredAt = r.RecordedAt
	}
	for i := len(a.rows) - 1; i >= 0; i-- {
		if o := a.rows[i]; o.Channel == r.Channel && o.Address == r.Address && o.Scope == r.Scope {
			if o.State == r.State && o.Reason == r.Reason && !r.OccurredAt.After(o.OccurredAt) {
				return false
			}
			break
		}
	}
	a.rows = append(a.rows, r)
	return true
}

// Happen implements [simulator.Keeper].
func (s *Simulator) Happen(f simulator.Fact) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[f.Account]
	if a == nil {
		return fmt.Errorf("%w: account %q", simulator.ErrFact, f.Account)
	}
	r := row{Channel: f.Channel, Address: f.Address, State: "suppressed", Reason: f.What, Scope: f.List, OccurredAt: f.At.UTC()}
	switch f.What {
	case simulator.Known, simulator.Resubscribed:
		r.State, r.Reason = "cleared", "resubscribed"
	case simulator.NeverAsked:
		r.State, r.Reason = "no_consent", "no_consent"
	case simulator.Unsubscribed, simulator.Complained, simulator.HardBounced, simulator.SoftBounced, simulator.Blocked:
	default:
		return fmt.Errorf("%w: %q", simulator.ErrFact, f.What)
	}
	s.record(a, r)
	return nil
}

// Suppressed implements [simulator.Keeper].
func (s *Simulator) Suppressed(account, channel string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.later.Flush()
	list := map[string]string{}
	if a := s.accounts[account]; a != nil {
		for _, r := range a.rows {
			switch {
			case r.Channel != channel || r.Scope != "global":
			case r.State == "suppressed":
				list[r.Address] = r.Reason
			default:
				delete(list, r.Address)
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
		state[name] = map[string]any{"messages": slices.Clone(a.messages), "repeats": a.repeats, "suppressions": slices.Clone(a.rows)}
	}
	return state
}
