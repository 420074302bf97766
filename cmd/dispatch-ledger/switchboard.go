package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
)

// switchboard leads requests to the ledgers of a process: by the host's name, or by the path /l/NAME/.
type switchboard struct {
	hosts map[string]string // name of the ledger by host

	mu      sync.RWMutex
	ledgers map[string]*mounted // guarded by mu; by name, every one that there is
}

// mounted is a ledger's place on the switchboard.
type mounted struct {
	handler http.Handler    // nil while it is not served
	ended   context.Context // ends when requests that are still open have to
	open    sync.WaitGroup
	problem string // why it is not served; empty: it begins
}

func newSwitchboard(entries []ledgerEntry) *switchboard {
	b := &switchboard{hosts: map[string]string{}, ledgers: map[string]*mounted{}}
	for _, e := range entries {
		b.ledgers[e.Name] = &mounted{}
		for _, h := range e.Hosts {
			b.hosts[strings.ToLower(h)] = e.Name
		}
	}
	return b
}

// hangUp is how long requests may take to end when their ledger does.
const hangUp = 10 * time.Second

// mounter gives what puts a ledger's handler in its place until ctx ends, and returns when no request is in it any more.
func (b *switchboard) mounter(name string) func(context.Context, http.Handler) error {
	return func(ctx context.Context, h http.Handler) error {
		ended, end := context.WithCancel(context.WithoutCancel(ctx))
		defer end()
		m := &mounted{handler: h, ended: ended}
		b.put(name, m)
		<-ctx.Done()
		b.put(name, &mounted{problem: "it is stopping"})
		timer := time.AfterFunc(hangUp, end)
		defer timer.Stop()
		m.open.Wait()
		return nil
	}
}

func (b *switchboard) put(name string, m *mounted) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ledgers[name] = m
}

// failed notes why a ledger is not served. Whoever asks is only told that it is not.
func (b *switchboard) failed(name string, _ error) {
	b.put(name, &mounted{problem: "it failed; the log says why"})
}

// enter gives a ledger's handler and keeps it until leave is called. known is false for a ledger that there is not.
func (b *switchboard) enter(name string) (m *mounted, leave func(), known bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	m, known = b.ledgers[name]
	if !known || m.handler == nil {
		return nil, nil, known
	}
	m.open.Add(1) // under the lock under which it is taken out, so before anybody waits
	return m, m.open.Done, true
}

func (b *switchboard) handler(registry *prometheus.Registry) http.Handler {
	own := http.NewServeMux()
	own.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, http.StatusOK, map[string]string{"status": "alive"})
	})
	own.HandleFunc("GET /readyz", b.ready)
	own.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	own.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "no-such-ledger", "No such ledger", "Use /l/NAME/ before the path, or a host that belongs to a ledger.")
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, ok := b.hosts[hostOf(r)]; ok {
			b.lead(name, "", w, r)
			return
		}
		if rest, ok := strings.CutPrefix(r.URL.Path, "/l/"); ok {
			name, _, _ := strings.Cut(rest, "/")
			b.lead(name, "/l/"+name, w, r)
			return
		}
		own.ServeHTTP(w, r)
	})
}

// lead has a ledger answer a request, without the prefix of its path.
func (b *switchboard) lead(name, prefix string, w http.ResponseWriter, r *http.Request) {
	m, leave, known := b.enter(name)
	switch {
	case !known:
		refuse(w, http.StatusNotFound, "no-such-ledger", "No such ledger", "Check the name in the path.")
		return
	case m == nil:
		w.Header().Set("Retry-After", "5")
		refuse(w, http.StatusServiceUnavailable, "ledger-unavailable", "The ledger is not served at the moment", "Send the same request again after Retry-After; GET /readyz says which ledgers are served.")
		return
	}
	defer leave()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(m.ended, cancel)()
	http.StripPrefix(prefix, m.handler).ServeHTTP(w, r.WithContext(ctx))
}

// ready says which ledgers are served. One that is not does not make the process unready for the others.
func (b *switchboard) ready(w http.ResponseWriter, _ *http.Request) {
	answer := struct {
		Status  string            `json:"status"`
		Ledgers map[string]string `json:"ledgers"`
	}{"not ready", map[string]string{}}
	status := http.StatusServiceUnavailable
	b.mu.RLock()
	defer b.mu.RUnlock()
	for name, m := range b.ledgers {
		switch {
		case m.handler != nil:
			answer.Ledgers[name], answer.Status, status = "served", "ready", http.StatusOK
		case m.problem != "":
			answer.Ledgers[name] = m.problem
		default:
			answer.Ledgers[name] = "it begins"
		}
	}
	answerJSON(w, status, answer)
}

// hostOf is the name that a request came under.
func hostOf(r *http.Request) string {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func answerJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // a caller that is gone does not miss it
}

// refuse answers with a problem of RFC 9457.
func refuse(w http.ResponseWriter, status int, name, title, next string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(api.Problem{Type: "urn:dispatch-ledger:problem:" + name, Title: title, Status: status, NextStep: next})
}
