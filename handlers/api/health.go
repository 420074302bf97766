package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Check is something that must hold for the service to take requests. Run says why it does not, in words that may be
// shown to anybody.
type Check struct {
	Name string
	Run  func(context.Context) error
}

// checkTimeout is how long a check may take before it counts as failed.
const checkTimeout = 3 * time.Second

// The statuses of /readyz.
const (
	ready    = "ready"
	notReady = "not ready"
)

// readiness is the answer of /readyz.
type readiness struct {
	Status string            `json:"status" doc:"ready, or not ready."`
	Checks map[string]string `json:"checks" doc:"By name: ok, or what does not hold."`

	Replica *replicaState `json:"replica,omitempty" doc:"The read replica, where there is one."`
}

func (a *api) healthRoutes() {
	a.handle("health", "/healthz", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"status":"alive"}` + "\n"))
	}))
	a.document("health", "/healthz", "Is the process alive?", http.StatusOK)
	a.handle("ready", "/readyz", http.HandlerFunc(a.ready))
	a.document("ready", "/readyz", "Can it take requests? The database answers, its migrations are this program's, no reader of the ledger is parked.",
		http.StatusOK, http.StatusServiceUnavailable)
}

// document adds a plain route to the API description.
func (a *api) document(operation, path, summary string, statuses ...int) {
	op := huma.Operation{OperationID: operation, Method: http.MethodGet, Path: path, Summary: summary, Tags: []string{"Operation"}, Responses: map[string]*huma.Response{}}
	for _, status := range statuses {
		op.Responses[fmt.Sprint(status)] = &huma.Response{Description: http.StatusText(status)}
	}
	a.huma.OpenAPI().AddOperation(&op)
}

// ready asks every check at the same time.
func (a *api) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
	defer cancel()
	checks := append([]Check{
		{"database", func(ctx context.Context) error { _, err := schema.Head(ctx, a.DB); return a.veil(ctx, err) }},
		{"migrations", func(ctx context.Context) error { return a.veil(ctx, schema.Migrated(ctx, a.DB)) }},
		{"readers", func(ctx context.Context) error { return a.veil(ctx, a.readersRun(ctx)) }},
	}, a.Checks...)
	results := make([]error, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() { results[i] = c.Run(ctx) })
	}
	wg.Wait()
	answer := readiness{Status: ready, Checks: map[string]string{}, Replica: a.replicaState()}
	for i, c := range checks {
		answer.Checks[c.Name] = "ok"
		if err := results[i]; err != nil {
			answer.Status, answer.Checks[c.Name] = notReady, err.Error()
		}
	}
	writeReadiness(w, answer)
}

// errParked is a reader that stopped at an event it cannot handle.
var errParked = errors.New("is parked")

// veil shows what is meant for everybody, and logs the rest: what the database says is for the operator.
func (a *api) veil(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, schema.ErrNotMigrated) || errors.Is(err, errParked) {
		return err
	}
	a.Log.WarnContext(ctx, "readiness could not be asked", slog.Any("error", err))
	if schema.Transient(err) {
		return schema.ErrUnavailable
	}
	return errors.New("could not be asked; the log says why")
}

func writeReadiness(w http.ResponseWriter, answer readiness) {
	setHeaders(w)
	w.Header().Set("Content-Type", "application/json")
	if answer.Status != ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(answer) // a caller that is gone does not miss it
}

// readersRun holds when no subscription is parked at an event that it cannot handle.
func (a *api) readersRun(ctx context.Context) error {
	statuses, err := projections.Statuses(ctx, a.DB)
	if err != nil {
		return err
	}
	for _, s := range statuses {
		if s.State == "parked" {
			at := s.Position + 1
			if s.ErrorPosition != nil {
				at = *s.ErrorPosition
			}
			return fmt.Errorf("%s %s %w at event %d; GET /v1/projections says why", s.Kind, s.Name, errParked, at)
		}
	}
	return nil
}
