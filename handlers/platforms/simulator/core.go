// Package simulator is what the platforms' simulators have in common: accounts, a clock, faults on demand, rate
// limits, and a record of what was received.
//
// A simulator is an http.Handler that behaves as a platform's documentation says. Tests run it in process; the
// command "simulate" serves it. Over HTTP it is steered below /_simulator/, without authentication: it holds nothing
// worth protecting and is meant for one's own machine.
//
//	GET    /_simulator/requests   what was received, oldest first, without credentials
//	DELETE /_simulator/requests   forget it
//	GET    /_simulator/state      what the platform now knows, in the simulator's own words
//	POST   /_simulator/facts      something happens there: a Fact
//	POST   /_simulator/faults     add a Fault
//	DELETE /_simulator/faults     heal
package simulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Account is one customer of the simulated platform.
type Account struct {
	Name   string `json:"name"`   // how tests and faults refer to it
	Key    string `json:"key"`    // what its requests authenticate with: a private key, a client id, a user
	Secret string `json:"secret"` // the second half of the credential, where the platform has one
}

// Options set up a simulator. Now is required.
type Options struct {
	Now       func() time.Time
	Accounts  []Account     // none: one account "demo" with key "demo-key" and secret "demo-secret"
	Lag       time.Duration // how long a write takes to show in reads
	JobTime   time.Duration // how long an asynchronous job takes
	Unlimited bool          // no rate limits
}

// ErrNoClock says that Options lack their clock.
var ErrNoClock = errors.New("simulator: Options.Now is required")

// Defaults fills in what was left out. The error is [ErrNoClock].
func (o Options) Defaults() (Options, error) {
	if o.Now == nil {
		return o, ErrNoClock
	}
	if len(o.Accounts) == 0 {
		o.Accounts = []Account{{Name: "demo", Key: "demo-key", Secret: "demo-secret"}}
	}
	return o, nil
}

// Fault makes matching requests go wrong. The zero value of a field matches everything.
type Fault struct {
	Method  string `json:"method,omitempty"`
	Path    string `json:"path,omitempty"`    // prefix of the path
	Account string `json:"account,omitempty"` // its name
	Skip    int    `json:"skip,omitempty"`    // let this many pass first
	Times   int    `json:"times,omitempty"`   // then strike this many; 0: once; negative: always

	DelayMS int               `json:"delay_ms,omitempty"` // wait first, in milliseconds
	Status  int               `json:"status,omitempty"`   // answer so; 0: the answer is the platform's own
	Header  map[string]string `json:"header,omitempty"`
	Body    string            `json:"body,omitempty"`
	Drop    bool              `json:"drop,omitempty"`  // close the connection without an answer
	After   bool              `json:"after,omitempty"` // do the work first: the answer is lost, its effect is not
}

// Request is one request as it was received.
type Request struct {
	At      time.Time   `json:"at"`
	Account string      `json:"account,omitempty"` // empty: it did not authenticate
	Method  string      `json:"method"`
	URL     string      `json:"url"`
	Header  http.Header `json:"header"` // without Authorization and its like
	Body    string      `json:"body,omitempty"`
	Status  int         `json:"status"` // 0: the connection was dropped
}

// bodyMax bounds what a simulator reads; every platform's own limit is below it.
const bodyMax = 16 << 20

// requestsMax bounds the record: the oldest half goes when it is full.
const requestsMax = 20_000

// Core wraps a platform's handler with what all simulators share. Its methods are safe for concurrent use.
type Core struct {
	now     func() time.Time
	account func(*http.Request, []byte) string
	next    http.Handler
	keeper  Keeper

	mu       sync.Mutex // guards what follows
	faults   []*Fault
	requests []Request
}

// NewCore wraps next. Account names the account that a request authenticates as, or "". The keeper answers for what
// the platform knows.
func NewCore(now func() time.Time, account func(r *http.Request, body []byte) string, next http.Handler, keeper Keeper) *Core {
	return &Core{now: now, account: account, next: next, keeper: keeper}
}

// Break adds a fault. Faults are tried in the order they were added; the first that matches strikes.
func (c *Core) Break(f Fault) {
	if f.Times == 0 {
		f.Times = 1
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, &f)
}

// Heal removes all faults.
func (c *Core) Heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = nil
}

// Requests is what was received so far, oldest first.
func (c *Core) Requests() []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Request(nil), c.requests...)
}

// Forget empties the record of requests.
func (c *Core) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = nil
}

// ServeHTTP implements http.Handler.
func (c *Core) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if rest, ok := strings.CutPrefix(r.URL.Path, "/_simulator/"); ok {
		c.control(w, r, rest)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyMax))
	if err != nil {
		http.Error(w, "the request could not be read", http.StatusRequestEntityTooLarge)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	entry := Request{At: c.now(), Account: c.account(r, body), Method: r.Method, URL: r.URL.String(), Header: public(r.Header), Body: string(body)}
	answer := c.answer(w, r, entry)
	entry.Status = answer
	c.record(entry)
	if answer == 0 {
		panic(http.ErrAbortHandler) // net/http closes the connection and stays quiet
	}
}

// answer serves one request, through a fault when one matches, and gives its status; 0: hang up.
func (c *Core) answer(w http.ResponseWriter, r *http.Request, entry Request) int {
	fault, struck := c.strike(entry, r.URL.Path)
	if struck && fault.DelayMS > 0 {
		wait := time.NewTimer(time.Duration(fault.DelayMS) * time.Millisecond)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-r.Context().Done():
			return 0
		}
	}
	if !struck || fault.Status == 0 && !fault.Drop {
		out := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		c.next.ServeHTTP(out, r)
		return out.status
	}
	if fault.After {
		c.next.ServeHTTP(&discard{header: http.Header{}}, r)
	}
	if fault.Drop {
		return 0
	}
	for name, value := range fault.Header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(fault.Status)
	_, _ = io.WriteString(w, fault.Body) // the caller may have hung up: nothing to do about it
	return fault.Status
}

// strike finds the fault for a request and uses it up by one.
func (c *Core) strike(entry Request, path string) (Fault, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.faults {
		switch {
		case f.Times == 0,
			f.Method != "" && !strings.EqualFold(f.Method, entry.Method),
			!strings.HasPrefix(path, f.Path),
			f.Account != "" && f.Account != entry.Account:
			continue
		case f.Skip > 0:
			f.Skip--
			continue
		case f.Times > 0:
			f.Times--
		}
		return *f, true
	}
	return Fault{}, false
}

func (c *Core) record(entry Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.requests) >= requestsMax {
		c.requests = append([]Request(nil), c.requests[requestsMax/2:]...)
	}
	c.requests = append(c.requests, entry)
}

func (c *Core) control(w http.ResponseWriter, r *http.Request, what string) {
	switch r.Method + " " + what {
	case "GET requests":
		WriteJSON(w, http.StatusOK, "application/json", c.Requests())
	case "DELETE requests":
		c.Forget()
		w.WriteHeader(http.StatusNoContent)
	case "GET state":
		WriteJSON(w, http.StatusOK, "application/json", c.keeper.State())
	case "POST facts":
		var f Fact
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
		dec.DisallowUnknownFields()
		err := dec.Decode(&f)
		if err == nil {
			err = c.keeper.Happen(f)
		}
		if err != nil {
			http.Error(w, "not a fact: "+err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	case "POST faults":
		var f Fault
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&f); err != nil {
			http.Error(w, "not a fault: "+err.Error(), http.StatusBadRequest)
			return
		}
		if f.Status != 0 && (f.Status < 200 || f.Status > 599) {
			http.Error(w, "a fault's status is 200 to 599", http.StatusBadRequest)
			return
		}
		c.Break(f)
		w.WriteHeader(http.StatusNoContent)
	case "DELETE faults":
		c.Heal()
		w.WriteHeader(http.StatusNoContent)
	default:
		http.NotFound(w, r)
	}
}

// WriteJSON answers with a value as JSON.
func WriteJSON(w http.ResponseWriter, status int, mediaType string, v any) {
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the caller may have hung up: nothing to do about it
}

// public is a header without what authenticates.
func public(h http.Header) http.Header {
	h = h.Clone()
	for _, name := range []string{"Authorization", "Cookie", "X-Yotpo-Token", "Proxy-Authorization"} {
		h.Del(name)
	}
	return h
}

// statusWriter remembers the status that was written.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// discard takes an answer that nobody will see.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}
