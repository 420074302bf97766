// Package simulator behaves as Klaviyo's API of revision 2026-07-15 is documented to: it refuses what the real one
// refuses, in the same JSON:API words, and forgets duplicates as silently.
//
// It knows nothing of package klaviyo, so that a misreading there does not repeat itself here.
package simulator

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
)

// mediaType is JSON:API's.
const mediaType = "application/vnd.api+json"

// bodyMax is the largest body in bytes that the events calls take.
const bodyMax = 5 << 20

// revisions are the stable ones that were not yet removed, two years after their release.
var revisions = []string{
	"2025-01-15", "2025-04-15", "2025-07-15", "2025-10-15", "2026-01-15", "2026-04-15", "2026-07-15",
}

// Simulator is one Klaviyo. Make it with [New].
type Simulator struct {
	*simulator.Core
	opts   simulator.Options
	events *simulator.Limiter // 350 a second, 3,500 a minute
	bulk   *simulator.Limiter // 10 a second, 150 a minute
	others *simulator.Limiter // 75 a second, 750 a minute

	mu       sync.Mutex // guards what follows
	accounts map[string]*account
	errors   int // counts error ids
	later    simulator.Later
}

// Event is one event that was recorded.
type Event struct {
	ID         string          `json:"id"`
	UniqueID   string          `json:"unique_id"`
	Metric     string          `json:"metric"`
	ProfileID  string          `json:"profile_id"`
	Email      string          `json:"email,omitempty"`
	Phone      string          `json:"phone_number,omitempty"`
	Time       time.Time       `json:"time"`
	Value      *float64        `json:"value,omitempty"`
	Properties json.RawMessage `json:"properties"`
	Backfill   bool            `json:"backfill,omitempty"` // recorded without starting flows
}

// account is one customer's data, guarded by the simulator's mutex.
type account struct {
	simulator.Account
	profiles  map[string]*profile
	byAddress map[string]*profile // "email:…", "phone:…", "external:…", "anonymous:…", "kx:…"
	events    []Event
	seen      map[string]bool // profile, metric and unique_id of every event
	dropped   int             // duplicates
	ids       int
	jobs      map[string]*job
	sorted    map[string]*index // by the name of what they are sorted by
	changes   int               // counts changes to profiles, so that an index knows when it is stale
}

// New makes a simulator. The error is [simulator.ErrNoClock].
func New(opts simulator.Options) (*Simulator, error) {
	opts, err := opts.Defaults()
	if err != nil {
		return nil, err
	}
	s := &Simulator{
		opts:     opts,
		events:   simulator.NewLimiter(opts.Now, simulator.Window{Limit: 350, Per: time.Second}, simulator.Window{Limit: 3500, Per: time.Minute}),
		bulk:     simulator.NewLimiter(opts.Now, simulator.Window{Limit: 10, Per: time.Second}, simulator.Window{Limit: 150, Per: time.Minute}),
		others:   simulator.NewLimiter(opts.Now, simulator.Window{Limit: 75, Per: time.Second}, simulator.Window{Limit: 750, Per: time.Minute}),
		accounts: map[string]*account{},
	}
	for _, a := range opts.Accounts {
		s.accounts[a.Name] = &account{
			Account: a, profiles: map[string]*profile{}, byAddress: map[string]*profile{}, seen: map[string]bool{}, jobs: map[string]*job{}, sorted: map[string]*index{},
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/api/track", s.retired)
	mux.HandleFunc("/api/identify", s.retired)
	mux.HandleFunc("POST /api/events", s.limited(s.events, s.createEvent))
	mux.HandleFunc("POST /api/event-bulk-create-jobs", s.limited(s.bulk, s.createEvents))
	mux.HandleFunc("POST /api/profile-import", s.limited(s.others, s.importProfile))
	mux.HandleFunc("GET /api/profiles", s.limited(s.others, s.getProfiles))
	mux.HandleFunc("POST /api/profile-suppression-bulk-create-jobs", s.limited(s.others, s.suppress))
	mux.HandleFunc("GET /api/profile-suppression-bulk-create-jobs/{id}", s.limited(s.others, s.job))
	mux.HandleFunc("POST /api/profile-suppression-bulk-delete-jobs", s.limited(s.others, s.unsuppress))
	mux.HandleFunc("GET /api/profile-suppression-bulk-delete-jobs/{id}", s.limited(s.others, s.job))
	mux.HandleFunc("POST /api/profile-subscription-bulk-delete-jobs", s.limited(s.others, s.unsubscribe))
	mux.HandleFunc("POST /api/profile-subscription-bulk-create-jobs", s.limited(s.others, s.subscribe))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, http.StatusNotFound, problem{Code: "not_found", Title: "Not found.", Detail: "The path " + r.URL.Path + " could not be found."})
	})
	s.Core = simulator.NewCore(opts.Now, func(r *http.Request, _ []byte) string {
		if a := s.authenticate(r); a != nil {
			return a.Name
		}
		return ""
	}, slashless(mux), s)
	return s, nil
}

// slashless lets a call end in a slash, as the real one does.
func slashless(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		trimmed, u := *r, *r.URL
		u.Path = "/" + strings.Trim(u.Path, "/")
		trimmed.URL = &u
		next.ServeHTTP(w, &trimmed)
	})
}

// Events is what an account has recorded, in the order of arrival.
func (s *Simulator) Events(account string) []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[account]; a != nil {
		return slices.Clone(a.events)
	}
	return nil
}

// Dropped is how many duplicate events an account has silently dropped.
func (s *Simulator) Dropped(account string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[account]; a != nil {
		return a.dropped
	}
	return 0
}

// State implements [simulator.Keeper].
func (s *Simulator) State() any {
	s.mu.Lock()
	defer s.mu.Unlock()
	type view struct {
		Account  string    `json:"account"`
		Events   []Event   `json:"events"`
		Dropped  int       `json:"dropped"`
		Profiles []profile `json:"profiles"`
	}
	views := []view{}
	for _, name := range slices.Sorted(maps.Keys(s.accounts)) {
		a := s.accounts[name]
		v := view{Account: name, Events: slices.Clone(a.events), Dropped: a.dropped, Profiles: []profile{}}
		for _, id := range slices.Sorted(maps.Keys(a.profiles)) {
			v.Profiles = append(v.Profiles, *a.profiles[id])
		}
		views = append(views, v)
	}
	return views
}

// problem is one JSON:API error.
type problem struct {
	Code, Title, Detail string
	Pointer, Parameter  string
	Meta                map[string]any
}

// refuse answers with JSON:API errors.
func (s *Simulator) refuse(w http.ResponseWriter, status int, problems ...problem) {
	type source struct {
		Pointer   string `json:"pointer,omitempty"`
		Parameter string `json:"parameter,omitempty"`
	}
	type object struct {
		ID     string         `json:"id"`
		Status int            `json:"status"`
		Code   string         `json:"code"`
		Title  string         `json:"title"`
		Detail string         `json:"detail"`
		Source source         `json:"source"`
		Meta   map[string]any `json:"meta"`
	}
	objects := []object{}
	s.mu.Lock()
	for _, p := range problems {
		s.errors++
		if p.Meta == nil {
			p.Meta = map[string]any{}
		}
		objects = append(objects, object{
			ID: fmt.Sprintf("00000000-0000-4000-8000-%012d", s.errors), Status: status, Code: p.Code, Title: p.Title,
			Detail: p.Detail, Source: source{Pointer: p.Pointer, Parameter: p.Parameter}, Meta: p.Meta,
		})
	}
	s.mu.Unlock()
	simulator.WriteJSON(w, status, mediaType, map[string]any{"errors": objects})
}

// retired answers the calls of the v1 API.
func (s *Simulator) retired(w http.ResponseWriter, _ *http.Request) {
	s.refuse(w, http.StatusGone, problem{
		Code: "gone", Title: "This API has been retired.",
		Detail: "The v1 and v2 APIs were retired on June 30, 2024. Use https://developers.klaviyo.com/en/reference/create_event instead.",
	})
}

// authenticate finds the account whose private key a request carries.
func (s *Simulator) authenticate(r *http.Request) *account {
	key, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Klaviyo-API-Key ")
	if !ok {
		return nil
	}
	for _, a := range s.accounts { // the map itself never changes
		if subtle.ConstantTimeCompare([]byte(strings.TrimSpace(key)), []byte(a.Key)) == 1 {
			return a
		}
	}
	return nil
}

// operation is a call that passed the checks all calls share. It runs under the simulator's mutex and answers
// through reply, so that what it writes is written outside.
type operation func(a *account, r *http.Request, body []byte) reply

// reply is an answer: a refusal when problems are given, else a body, or none.
type reply struct {
	status   int
	body     any
	problems []problem
}

// limited checks credential, quota, revision and media type before an operation.
func (s *Simulator) limited(quota *simulator.Limiter, op operation) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a := s.authenticate(r)
		switch {
		case r.Header.Get("Authorization") == "":
			s.refuse(w, http.StatusUnauthorized, problem{
				Code: "not_authenticated", Title: "Authentication credentials were not provided.",
				Detail: "Missing or invalid authorization scheme. Please use Klaviyo-API-Key.", Pointer: "/data/",
			})
			return
		case a == nil:
			s.refuse(w, http.StatusUnauthorized, problem{
				Code: "authentication_failed", Title: "Incorrect authentication credentials.",
				Detail: "Incorrect authentication credentials.", Pointer: "/data/",
			})
			return
		}
		if !s.opts.Unlimited && !s.allow(w, quota.Take(a.Name)) {
			return
		}
		switch revision := r.Header.Get("Revision"); {
		case revision == "":
			s.refuse(w, http.StatusBadRequest, problem{
				Code: "invalid", Title: "Invalid input.", Detail: "A revision header is required, in the format YYYY-MM-DD[.suffix].",
			})
			return
		case !slices.Contains(revisions, revision):
			s.refuse(w, http.StatusNotFound, problem{
				Code: "not_found", Title: "Not found.", Detail: "No valid revisions found for method",
			})
			return
		}
		if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); r.Method != http.MethodGet &&
			(err != nil || media != mediaType && media != "application/json") {
			s.refuse(w, http.StatusUnsupportedMediaType, problem{
				Code: "unsupported_media_type", Title: "Unsupported media type.",
				Detail: fmt.Sprintf("Unsupported media type %q in request.", r.Header.Get("Content-Type")), Pointer: "/data/",
			})
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || len(body) > bodyMax {
			s.refuse(w, http.StatusRequestEntityTooLarge, problem{
				Code: "payload_too_large", Title: "Payload too large.", Detail: "The payload must not exceed 5 MB.", Pointer: "/data/",
			})
			return
		}
		s.mu.Lock()
		s.later.Run(s.opts.Now())
		answer := op(a, r, body)
		s.mu.Unlock()
		switch {
		case len(answer.problems) > 0:
			s.refuse(w, answer.status, answer.problems...)
		case answer.body != nil:
			simulator.WriteJSON(w, answer.status, mediaType, answer.body)
		default:
			w.WriteHeader(answer.status)
		}
	}
}

// allow writes the quota headers and, when the quota is used up, the refusal. It reports whether to go on.
func (s *Simulator) allow(w http.ResponseWriter, usage simulator.Usage) bool {
	seconds := func(d time.Duration) string { return strconv.Itoa(int((d + time.Second - 1) / time.Second)) }
	if usage.OK {
		w.Header().Set("RateLimit-Limit", strconv.Itoa(usage.Limit))
		w.Header().Set("RateLimit-Remaining", strconv.Itoa(usage.Remaining))
		w.Header().Set("RateLimit-Reset", seconds(usage.Reset))
		return true
	}
	w.Header().Set("Retry-After", seconds(usage.Wait))
	s.refuse(w, http.StatusTooManyRequests, problem{
		Code: "throttled", Title: "Request was throttled.", Pointer: "/data",
		Detail: "Request was throttled. Expected available in " + seconds(usage.Wait) + " seconds.",
	})
	return false
}
