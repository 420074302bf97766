package api

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/semaphore"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/catalogue"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/inspector"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/outbound"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/reconciler"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/tracing"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Config is what the API works on.
type Config struct {
	Ledger  *schema.Ledger  // appends
	Vault   *schema.Vault   // tells who was erased, and hashes addresses
	DB      *sql.DB         // reads; the projections' schemas are on its search path
	Replica *schema.Replica // answers questions in the primary's place; nil: there is none
	Auth    Authenticator   // knows the tokens; *schema.Tokens
	Tokens  *schema.Tokens  // gives them out and revokes them; Auth by default

	// Projections are those that may be rebuilt; nil has none.
	Projections *projections.Engine

	// Reconciler keeps the platforms' lists in step; nil has one made that reaches public addresses alone.
	Reconciler *reconciler.Service

	// Checks are asked by /readyz, besides the database, its migrations and its readers, which New adds.
	Checks []Check

	// Variables are the constants that templates may name besides the context, and Environment selects among those that
	// targets have, for POST …/preview.
	Variables   map[string]any
	Environment string

	// Inspector takes the requests of tests. Nil makes one; its pages are served where it is mounted.
	Inspector *inspector.Handler

	// Fallback serves the paths that are not the API's, such as the console's. Nil: they are not found.
	Fallback http.Handler

	Anchors []schema.Anchor // memories outside the database that a verification compares with

	Limits   intake.Limits        // of what may be sent; zero fields are the defaults
	Inflight int64                // bytes of event bodies that may be held at the same time; 256 MiB by default
	Registry *prometheus.Registry // for /metrics; nil makes one
	Log      *slog.Logger         // nil is discarded
	Clock    func() time.Time     // nil is the system's
	Tracer   *tracing.Tracer      // nil: no spans
	Version  string               // of the program, for the API description
}

// api is the state behind the handler.
type api struct {
	Config
	intake  *intake.Service
	doorman *doorman
	mux     *http.ServeMux
	huma    huma.API
	metrics metrics
	bodies  *semaphore.Weighted // of Inflight
	streams chan struct{}       // those that are open
	hooks   chan struct{}       // one for each webhook that is worked on
	errs    []error             // mistakes in the registration, told by New
	served  map[string]string   // pattern by operation, for the tests
	calls   map[string]any      // handler by operation, for Operation.Call

	catalogue catalogue.Catalogue
	verifier  verifier
}

// New gives the handler of the API. It fails on a mistake in the configuration or in the tables of this package.
func New(c Config) (http.Handler, error) {
	a, err := newAPI(c)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	return a.handler(), nil
}

func newAPI(c Config) (*api, error) {
	if c.Ledger == nil || c.Vault == nil || c.DB == nil || c.Auth == nil {
		return nil, errors.New("the fields Ledger, Vault, DB and Auth are required")
	}
	if tokens, ok := c.Auth.(*schema.Tokens); ok && c.Tokens == nil {
		c.Tokens = tokens
	}
	if c.Tokens == nil {
		return nil, errors.New("the field Tokens is required beside an Auth that is not *schema.Tokens")
	}
	c.Limits = c.Limits.WithDefaults()
	if c.Inflight <= 0 {
		c.Inflight = defaultInflight
	}
	c.Inflight = max(c.Inflight, int64(c.Limits.RequestBytes)+1)
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now //nolint:forbidigo // the one place where the API's clock is the system's
	}
	if c.Projections == nil {
		c.Projections = projections.NewEngine(c.DB, "", c.Log)
	}
	if c.Reconciler == nil {
		var err error
		c.Reconciler, err = reconciler.New(reconciler.Config{
			DB: c.DB, Ledger: c.Ledger, Vault: c.Vault, HTTP: outbound.NewClient(outbound.Options{}).HTTP(), Now: c.Clock, Log: c.Log,
		})
		if err != nil {
			return nil, err
		}
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	if c.Inspector == nil {
		c.Inspector = inspector.New(schema.NewInspector(c.DB, c.Vault, c.Clock), c.Log)
	}
	a := &api{
		Config: c, mux: http.NewServeMux(), served: map[string]string{}, calls: map[string]any{},
		bodies: semaphore.NewWeighted(c.Inflight), hooks: make(chan struct{}, hooksAtOnce),
		intake: &intake.Service{Ledger: c.Ledger, Vault: c.Vault, Clock: c.Clock, Tracer: c.Tracer},

		catalogue: catalogue.Catalogue{DB: c.DB, Ledger: c.Ledger, Now: c.Clock},
	}
	var err error
	if a.doorman, err = newDoorman(c.Auth, c.Clock); err != nil {
		return nil, err
	}
	if a.metrics, err = newMetrics(c.Registry); err != nil {
		return nil, err
	}
	a.huma = humago.New(a.mux, describe(c.Version))
	a.eventRoutes()
	a.proofRoutes()
	a.tileRoutes()
	a.targetRoutes()
	a.partialRoutes()
	a.trialRoutes()
	a.consentRoutes()
	a.hookRoutes()
	a.deliveryRoutes()
	a.deliveryActionRoutes()
	a.replayRoutes()
	a.queueRoutes()
	a.reconciliationRoutes()
	a.platformRoutes()
	a.auditRoutes()
	a.verificationRoutes()
	a.administrationRoutes()
	a.projectionRoutes()
	a.privacyRoutes()
	a.streamRoutes()
	a.healthRoutes()
	a.handle("metrics", "/metrics", promhttp.HandlerFor(c.Registry, promhttp.HandlerOpts{}))
	finish(a.huma.OpenAPI())
	a.docsRoutes()
	return a, errors.Join(a.errs...)
}

// defaultInflight is the memory that event bodies may take, in bytes, before their decoded forms.
const defaultInflight = 256 << 20

// maxBodyBytes bounds the bodies that are not events.
const maxBodyBytes = 1 << 20

// bodyReadTimeout is how long a body may take to arrive.
const bodyReadTimeout = 30 * time.Second

// register serves an operation to the roles that access names for it.
func register[I, O any](a *api, op huma.Operation, handle func(context.Context, *I) (*O, error)) {
	r, ok := access[op.OperationID]
	if !ok {
		a.errs = append(a.errs, fmt.Errorf("operation %q has no rule in access", op.OperationID))
		return
	}
	if op.MaxBodyBytes == 0 {
		op.MaxBodyBytes = maxBodyBytes
	}
	op.BodyReadTimeout = bodyReadTimeout
	if !r.public {
		op.Security = []map[string][]string{{"bearer": {}}}
		op.Description = strings.TrimSpace(op.Description + "\n\nRoles: " + r.names() + ".")
		op.Errors = append(op.Errors, http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusServiceUnavailable)
		op.Middlewares = append(huma.Middlewares{a.authenticate(r)}, op.Middlewares...)
	}
	a.served[op.OperationID] = op.Method + " " + op.Path
	a.calls[op.OperationID] = handle
	if _, ok := questions[op.OperationID]; ok {
		describeQuestion(&op)
		handle = asking(a, op.OperationID, handle)
	}
	if op.RequestBody != nil {
		// The operation reads its body itself. Huma would check it against the description, and replace that by its
		// own for a raw body.
		op.SkipValidateBody = true
		op.Errors = append(op.Errors, http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity)
		defer func(described map[string]*huma.MediaType) { op.RequestBody.Content = described }(maps.Clone(op.RequestBody.Content))
	}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return out, nil
	})
}

// handle serves a plain GET under the same rules.
func (a *api) handle(operation, path string, h http.Handler) {
	r, ok := access[operation]
	if !ok {
		a.errs = append(a.errs, fmt.Errorf("operation %q has no rule in access", operation))
		return
	}
	a.served[operation] = http.MethodGet + " " + path
	a.mux.Handle(http.MethodGet+" "+path, a.guard(r, h))
}

// authenticate lets an operation's request pass when its token's role may.
func (a *api) authenticate(r rule) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		who, err := a.doorman.admit(ctx.Context(), ctx.Header("Authorization"), ctx.RemoteAddr(), r)
		if err != nil {
			_, w := humago.Unwrap(ctx)
			a.refuse(w, ctx.Context(), err)
			return
		}
		next(huma.WithValue(ctx, principalKey{}, who))
	}
}

// problem makes the answer to an error, and logs what only the operator may know.
func (a *api) problem(ctx context.Context, err error) *Problem {
	p := problemOf(ctx, err)
	if p.Status >= http.StatusInternalServerError {
		level := slog.LevelWarn // the moment's fault: the caller tries again
		switch {
		case p.Status == http.StatusInternalServerError:
			level = slog.LevelError
		case errors.Is(ctx.Err(), context.Canceled):
			level = slog.LevelDebug // the caller left
		}
		a.Log.Log(ctx, level, "request failed", slog.String("request", p.RequestID), slog.String("problem", p.Type), slog.Any("error", err))
	}
	return p
}

// refuse answers a request with a problem.
func (a *api) refuse(w http.ResponseWriter, ctx context.Context, err error) {
	if errors.Is(err, errUnauthenticated) || errors.Is(err, errLocked) {
		a.metrics.refused.Inc()
	}
	writeProblem(w, a.problem(ctx, err))
}
