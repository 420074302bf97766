package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/pflag"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/broker"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/outbound"
)

// brokerEmbedded asks for a broker inside this process.
const brokerEmbedded = "embedded"

// brokerFlags say where the broker is and how to get in.
type brokerFlags struct {
	url         string
	credentials string
	ca          string
	certificate string
	key         string
	replicas    int
	maxBytes    int64
	join        string
}

func (f *brokerFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.url, "broker", "", "NATS servers with JetStream that carry firings and deliveries, such as nats://a:4222,nats://b:4222, or embedded for one inside this process")
	flags.StringVar(&f.credentials, "broker-creds", "", "file with NATS user credentials")
	flags.StringVar(&f.ca, "broker-ca", "", "PEM file with the CAs that the broker's certificates are checked by; empty: the system's")
	flags.StringVar(&f.certificate, "broker-cert", "", "PEM file of a client certificate for the broker")
	flags.StringVar(&f.key, "broker-key", "", "PEM file of its private key")
	flags.IntVar(&f.replicas, "broker-replicas", 3, "copies of each stream in the cluster: 1, 3 or 5")
	flags.Int64Var(&f.maxBytes, "broker-max-bytes", 1<<30, "bytes of firings that may wait on the broker; past it publishers are refused")
	flags.StringVar(&f.join, "join", "", "what 'token create --role dispatcher' printed, for --roles dispatch; best given as DISPATCH_LEDGER_JOIN")
}

func (f *brokerFlags) config(ledger string) broker.Config {
	return broker.Config{
		URL: f.url, Ledger: ledger, Credentials: f.credentials, CA: f.ca, Certificate: f.certificate, Key: f.key,
		Replicas: f.replicas, MaxBytes: f.maxBytes,
	}
}

// brokerConfig is the broker that this process uses, started first where it is to be inside; nil when none is named.
func (st *store) brokerConfig(f brokerFlags) (*broker.Config, error) {
	if f.url == "" {
		return nil, nil
	}
	c := f.config(st.settings.name)
	if f.url == brokerEmbedded {
		server, err := broker.StartEmbedded(broker.EmbeddedConfig{Dir: filepath.Join(st.settings.dataDir, "broker"), Name: "embedded"})
		if err != nil {
			return nil, err
		}
		st.closeDown = append(st.closeDown, func() error { server.Close(); return nil })
		c.URL, c.Replicas = server.URL(), 1
	}
	st.broker = &c
	return &c, nil
}

// writer is this process's side of the broker, as one that has the ledger.
func (st *store) writer(ctx context.Context, c broker.Config) (*broker.Writer, error) {
	return broker.NewWriter(ctx, broker.WriterConfig{
		Broker: c, DB: st.db, Vault: st.vault, Tokens: st.tokens, Intake: &intake.Service{Ledger: st.ledger, Vault: st.vault, Clock: time.Now},
		Now: time.Now, Log: st.log, Registry: st.registry,
	})
}

// dispatcherConfig is what a dispatcher that takes its work from the broker needs besides the way to join.
func (f *serveFlags) dispatcherConfig(o workerOptions, r prometheus.Registerer) broker.DispatchConfig {
	return broker.DispatchConfig{
		Sender: outbound.New(outbound.NewClient(outbound.Options{Allowed: o.allowed}), time.Now),
		Name:   workerName(), Capacity: f.concurrency, Now: time.Now, Registry: r,
	}
}

// dispatchBeside takes work from the broker in a process that has the ledger too, and so needs no token to join.
func (st *store) dispatchBeside(ctx context.Context, f serveFlags, o workerOptions) error {
	c := f.dispatcherConfig(o, st.registry)
	c.Broker, c.Log, c.Join = f.broker.config(st.settings.name), st.log, st.vault.Fleet
	if st.broker != nil {
		c.Broker = *st.broker
	}
	d, err := broker.NewDispatcher(ctx, c)
	if err != nil {
		return unlessStopped(ctx, err)
	}
	return d.Run(ctx)
}

// dispatchOnly runs a process that makes requests and has no connection to the database.
func (s *settings) dispatchOnly(ctx context.Context, f serveFlags) error {
	log, err := s.logger()
	if err != nil {
		return err
	}
	o, err := f.workers()
	if err != nil {
		return err
	}
	if f.broker.url == brokerEmbedded {
		return usagef("a dispatcher of its own needs a broker that is reachable from elsewhere: --broker nats://HOST:4222")
	}
	credential, err := broker.ParseCredential(f.broker.join)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	c := f.dispatcherConfig(o, registry)
	c.Broker, c.Log, c.Credential = f.broker.config(s.name), log, credential
	d, err := broker.NewDispatcher(ctx, c)
	if err != nil {
		return unlessStopped(ctx, err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w; choose another address with --listen", f.listen, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := d.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go server.Serve(l) //nolint:errcheck // it ends when it is closed below
	fmt.Fprintf(s.env.stdout, "Serving on http://%s (%s). It sends what %s brings.\n", l.Addr(), roleDispatch, "the broker")
	return errors.Join(d.Run(ctx), server.Close())
}

// unlessStopped is nothing when the process was asked to stop before it began.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // what went wrong is that it was stopped
	}
	return err
}
