package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// ledgerEntry is one of several ledgers that a process serves: a brand's.
type ledgerEntry struct {
	Name           string            `yaml:"name"`            // also its SQL schema, and its path /l/NAME/
	Hosts          []string          `yaml:"hosts"`           // names under which it is reached without that path
	DatabaseURL    string            `yaml:"database_url"`    // empty: the process's
	MasterKeyFile  string            `yaml:"master_key_file"` // empty: made on first use in the ledger's own directory
	LinksURL       string            `yaml:"links_url"`       // as --links-url
	CheckpointURLs []string          `yaml:"checkpoint_urls"` // as --checkpoint-url
	Environment    string            `yaml:"environment"`     // as --environment; empty: the process's
	Variables      map[string]string `yaml:"variables"`       // as --variable, over the process's
}

// ledgerName is what a ledger may be called: an SQL schema, with room for the names of its projections' schemas.
var ledgerName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`)

// readLedgers reads the file of --ledgers.
func readLedgers(path string) ([]ledgerEntry, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--ledgers: %w", err)
	}
	var file struct {
		Ledgers []ledgerEntry `yaml:"ledgers"`
	}
	if err := yaml.UnmarshalWithOptions(text, &file, yaml.Strict()); err != nil {
		return nil, usagef("--ledgers %s: %s", path, err)
	}
	if len(file.Ledgers) == 0 {
		return nil, usagef("--ledgers %s names no ledger: write ledgers: [{name: acme}]", path)
	}
	var names, hosts []string
	for i, e := range file.Ledgers {
		for _, other := range names {
			// A projection of the one would have the schema that the other is.
			if e.Name == other || strings.HasPrefix(e.Name, other+"_") || strings.HasPrefix(other, e.Name+"_") {
				return nil, usagef("--ledgers %s: %s and %s stand in each other's way: a ledger's projections live in schemas that begin with its name and _", path, other, e.Name)
			}
		}
		if !ledgerName.MatchString(e.Name) {
			return nil, usagef("--ledgers %s: entry %d is called %q: use lower-case letters, digits and _, starting with a letter", path, i+1, e.Name)
		}
		for _, h := range e.Hosts {
			if h = strings.ToLower(h); slices.Contains(hosts, h) {
				return nil, usagef("--ledgers %s: two ledgers have the host %s", path, h)
			}
			hosts = append(hosts, strings.ToLower(h))
		}
		names = append(names, e.Name)
	}
	return file.Ledgers, nil
}

// of gives the settings and flags of one ledger. What is a ledger's own (its key, its first token, its directory) is never
// taken from what the process was given.
func (s *settings) of(e ledgerEntry, f serveFlags) (*settings, serveFlags) {
	own := *s
	own.name, own.masterKey, own.dataDir = e.Name, e.MasterKeyFile, filepath.Join(s.dataDir, "ledgers", e.Name)
	own.checkpointURLs = e.CheckpointURLs
	if e.DatabaseURL != "" {
		own.databaseURL, own.directURL, own.readURL = e.DatabaseURL, "", ""
	}
	lookup := s.env.lookup
	own.env.lookup = func(name string) (string, bool) {
		if name == schema.MasterKeyVariable {
			name += "_" + strings.ToUpper(e.Name)
		}
		return lookup(name)
	}
	f.bootstrapToken, _ = lookup(environmentName("bootstrap-token") + "_" + strings.ToUpper(e.Name))
	f.pages.publicURL = e.LinksURL
	if e.Environment != "" {
		f.environment = e.Environment
	}
	variables := map[string]string{}
	for _, from := range []map[string]string{f.variables, e.Variables} {
		for k, v := range from {
			variables[k] = v
		}
	}
	f.variables = variables
	return &own, f
}

// serveLedgers serves several ledgers in one process. Each has its own schema, key, tokens and connections; one that fails is
// begun again after a while, and the others do not notice.
func (s *settings) serveLedgers(ctx context.Context, f serveFlags) (err error) {
	entries, err := readLedgers(f.ledgers)
	if err != nil {
		return err
	}
	switch {
	case f.bootstrapToken != "":
		return usagef("--bootstrap-token would let its holder into every ledger: set DISPATCH_LEDGER_BOOTSTRAP_TOKEN_NAME for each, or take the one that is printed")
	case f.broker.url == brokerEmbedded:
		return usagef("--ledgers and --broker embedded do not go together: name a broker that they share with --broker nats://HOST:4222")
	}
	base := &store{settings: s}
	if base.log, err = s.logger(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, base.Close()) }()
	if err := base.findDatabase(ctx); err != nil {
		return err
	}
	if base.pooled == "" {
		s.databaseURL = base.url
	}
	board := newSwitchboard(entries)
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w; choose another address with --listen", f.listen, err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	var wg sync.WaitGroup
	for _, e := range entries {
		own, flags := s.of(e, f)
		flags.mount = board.mounter(e.Name)
		wg.Go(func() { own.keepServing(ctx, flags, board, base.log.With(slog.String("ledger", e.Name))) })
	}
	fmt.Fprintf(s.env.stdout, "Serving on http://%s (%d ledgers, %s)\n", l.Addr(), len(entries), strings.Join(f.roles, ", "))
	err = api.Serve(ctx, l, board.handler(registry), api.ServeConfig{Log: base.log})
	wg.Wait()
	return err
}

// keepServing serves one ledger until ctx ends, and begins again when it fails.
func (s *settings) keepServing(ctx context.Context, f serveFlags, board *switchboard, log *slog.Logger) {
	patience := backoff.NewExponentialBackOff()
	patience.InitialInterval, patience.MaxInterval = time.Second, time.Minute
	for ctx.Err() == nil {
		began := time.Now()
		err := s.serving(ctx, func(ctx context.Context, st *store) error { return st.serve(ctx, f, nil) })
		if ctx.Err() != nil {
			if err != nil {
				log.WarnContext(ctx, "the ledger did not stop cleanly", slog.Any("error", err))
			}
			return
		}
		if err == nil {
			err = errors.New("it ended by itself")
		}
		board.failed(s.name, err)
		if time.Since(began) > 2*time.Minute {
			patience.Reset()
		}
		wait := patience.NextBackOff()
		log.ErrorContext(ctx, "the ledger is not served; the others are", slog.Any("error", err), slog.Duration("next_try_in", wait))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}
