package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/tracing"
)

// serveFlags are the flags of commands that run the service.
type serveFlags struct {
	listen         string
	roles          []string
	bootstrapToken string
	allowNetworks  []string
	variables      map[string]string
	environment    string
	concurrency    int
	leaseGrace     time.Duration
	outside        outside
	drain          time.Duration
	otlpEndpoint   string
	traceRatio     float64
	broker         brokerFlags
	signIn         signIn
	pages          pageFlags
	ledgers        string

	mount func(context.Context, http.Handler) error // where the API is reached, in place of listen; nil: there
}

func (f *serveFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8080", "address of the API; port 0 takes a free one")
	flags.StringSliceVar(&f.roles, "roles", []string{"api", "worker"}, "what this process does: api, worker, and with --broker dispatch, which needs no database")
	f.signIn.addTo(flags)
	flags.StringVar(&f.bootstrapToken, "bootstrap-token", "", "becomes the first admin token of an empty ledger; empty prints a random one, once")
	flags.StringSliceVar(&f.allowNetworks, "allow-network", nil, "network that targets may reach besides public addresses, such as 127.0.0.0/8 (repeatable)")
	flags.StringToStringVar(&f.variables, "variable", nil, "constant that templates may name, such as klaviyo_public_key=ABC123 (repeatable)")
	flags.StringVar(&f.environment, "environment", "", "which of the environments that targets have constants for this is, such as production")
	flags.IntVar(&f.concurrency, "concurrency", 256, "requests in flight in this process, over all targets")
	flags.DurationVar(&f.leaseGrace, "lease-grace", 5*time.Second, "how much longer than its timeout an attempt may take before it counts as lost")
	f.outside.addTo(flags)
	flags.DurationVar(&f.drain, "drain", 30*time.Second, "how long requests in flight may take to end when the process is asked to stop; what is not claimed yet stays queued")
	flags.StringVar(&f.otlpEndpoint, "otlp-endpoint", "", "collector that OpenTelemetry spans go to, by OTLP over HTTP, such as http://localhost:4318; empty: none are made")
	flags.Float64Var(&f.traceRatio, "trace-ratio", 1, "part of the firings that are traced, 0 to 1, each wholly")
	f.broker.addTo(flags)
	f.pages.addTo(flags)
	flags.StringVar(&f.ledgers, "ledgers", "", "YAML file with several ledgers to serve in place of the one, each under /l/NAME/ and its own hosts; see docs/scaling.md")
}

func (f *serveFlags) workers() (workerOptions, error) {
	o := workerOptions{publicURL: f.pages.publicURL, variables: map[string]any{}, environment: f.environment, concurrency: f.concurrency, grace: f.leaseGrace, outside: f.outside, drain: f.drain}
	for _, n := range f.allowNetworks {
		p, err := netip.ParsePrefix(n)
		if err != nil {
			return o, usagef("--allow-network %q is no network such as 10.1.0.0/16", n)
		}
		o.allowed = append(o.allowed, p)
	}
	for k, v := range f.variables {
		o.variables[k] = v
	}
	return o, nil
}

func newServe(s *settings) *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the service: API, planner, dispatcher, projections",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			if f.ledgers != "" && slices.Contains(f.roles, roleDispatch) {
				return usagef("--ledgers goes with the roles %s and %s; a dispatcher takes the work of one ledger", roleAPI, roleWorker)
			}
			if f.ledgers != "" {
				return s.serveLedgers(cmd.Context(), f)
			}
			if slices.Equal(f.roles, []string{roleDispatch}) {
				return s.dispatchOnly(cmd.Context(), f)
			}
			return s.serving(cmd.Context(), func(ctx context.Context, st *store) error { return st.serve(ctx, f, nil) })
		},
	}
	f.addTo(cmd.Flags())
	return cmd
}

// The roles of a process.
const (
	roleAPI      = "api"
	roleWorker   = "worker"
	roleDispatch = "dispatch"
)

// check reports roles that do not exist or do not go together.
func (f *serveFlags) check() error {
	for _, role := range f.roles {
		if !slices.Contains([]string{roleAPI, roleWorker, roleDispatch}, role) {
			return usagef("--roles names %q; there are %s, %s and %s", role, roleAPI, roleWorker, roleDispatch)
		}
	}
	if slices.Contains(f.roles, roleDispatch) && f.broker.url == "" {
		return usagef("--roles %s takes its work from a broker: name one with --broker nats://HOST:4222; without a broker, the worker dispatches by itself", roleDispatch)
	}
	return nil
}

// serve runs the service until ctx ends. ready, unless nil, is told the address once requests are answered.
func (st *store) serve(ctx context.Context, f serveFlags, ready func(address string)) (err error) {
	o, err := f.workers()
	if err != nil {
		return err
	}
	if f.mount == nil {
		st.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	token, created, err := st.tokens.Bootstrap(ctx, f.bootstrapToken)
	if err != nil {
		return err
	}
	if created && f.bootstrapToken == "" {
		fmt.Fprintf(st.settings.env.stdout, "The ledger %s is empty. Its first admin token, shown this once:\n\n    %s\n\n", st.settings.name, token)
	}

	if f.otlpEndpoint != "" {
		if o.tracer, err = tracing.Open(ctx, tracing.Config{Endpoint: f.otlpEndpoint, Ratio: f.traceRatio, Version: version(), Worker: workerName()}); err != nil {
			return usageError{err}
		}
		defer func() {
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if err := o.tracer.Close(closing); err != nil {
				st.log.WarnContext(ctx, "the last spans did not reach the collector", slog.Any("error", err))
			}
		}()
	}

	choices, err := st.portal(ctx, f.pages)
	if err != nil {
		return err
	}
	if o.reconciler, err = st.newReconciler(o.allowed, nil, st.registry); err != nil {
		return err
	}

	// Whichever part ends, for whatever reason, ends the others.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failures []error
	part := func(name string, run func(context.Context) error) {
		wg.Go(func() {
			defer cancel()
			if err := run(ctx); err != nil {
				mu.Lock()
				failures = append(failures, fmt.Errorf("%s: %w", name, err))
				mu.Unlock()
			}
		})
	}
	if slices.Contains(f.roles, roleWorker) {
		if o.broker, err = st.brokerConfig(f.broker); err != nil {
			return err
		}
		part(roleWorker, func(ctx context.Context) error { return st.work(ctx, o) })
	}
	if slices.Contains(f.roles, roleDispatch) || f.broker.url == brokerEmbedded && slices.Contains(f.roles, roleWorker) {
		part(roleDispatch, func(ctx context.Context) error { return st.dispatchBeside(ctx, f, o) })
	}
	if slices.Contains(f.roles, roleAPI) {
		service, err := api.Open(api.Config{
			Ledger: st.ledger, Vault: st.vault, DB: st.db, Replica: st.replica, Auth: st.tokens, Variables: o.variables, Environment: o.environment, Projections: st.engine, Reconciler: o.reconciler,
			Registry: st.registry, Log: st.log, Clock: time.Now, Version: version(), Tracer: o.tracer, Anchors: st.settings.anchors(), Inspector: st.inspector(),
		})
		if err != nil {
			return err
		}
		pages, err := st.pages(service, f.signIn, choices)
		if err != nil {
			return err
		}
		handler := service.Handler(pages)
		answer := f.mount
		if answer == nil {
			if answer, err = st.listening(ctx, f, ready); err != nil {
				cancel()
				wg.Wait()
				return err
			}
		}
		if st.replica != nil {
			part("replica", func(ctx context.Context) error { st.replica.Run(ctx); return nil })
		}
		part("inspector", func(ctx context.Context) error { return st.sweepInspector(ctx, st.inspector().Inspector) })
		part("api", func(ctx context.Context) error { return answer(ctx, handler) })
	}
	if f.mount != nil && !slices.Contains(f.roles, roleAPI) {
		part("switchboard", func(ctx context.Context) error { return f.mount(ctx, http.NotFoundHandler()) }) // it works, and answers nothing
	}
	wg.Wait()
	return errors.Join(failures...)
}

// listening listens, says so, and gives what answers there until ctx ends.
func (st *store) listening(ctx context.Context, f serveFlags, ready func(address string)) (func(context.Context, http.Handler) error, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; choose another address with --listen", f.listen, err)
	}
	if ready != nil {
		ready(l.Addr().String())
	} else {
		fmt.Fprintf(st.settings.env.stdout, "Serving on http://%s (%s). API description: http://%[1]s/docs\n", l.Addr(), strings.Join(f.roles, ", "))
	}
	return func(ctx context.Context, h http.Handler) error {
		return api.Serve(ctx, l, h, api.ServeConfig{Log: st.log})
	}, nil
}
