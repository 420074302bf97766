package main

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/portal"
)

// pageFlags say how pages for people look and where they are reached.
type pageFlags struct {
	publicURL      string
	theme          string
	trustedProxies []string
}

func (f *pageFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.publicURL, "links-url", "", "address at which customers reach this service, such as https://preferences.example.com; needed for links in messages")
	flags.StringVar(&f.theme, "theme", "", "YAML file with the looks of the customers' pages; empty is plain")
	flags.StringSliceVar(&f.trustedProxies, "trusted-proxy", nil, "network of proxies whose X-Forwarded-For says who asks, such as 10.0.0.0/8 (repeatable)")
}

// portal is the customers' pages.
func (st *store) portal(ctx context.Context, f pageFlags) (http.Handler, error) {
	var theme portal.Theme
	var err error
	if f.theme != "" {
		if theme, err = portal.ReadTheme(f.theme); err != nil {
			return nil, usageError{err}
		}
	}
	var proxies []netip.Prefix
	for _, network := range f.trustedProxies {
		p, err := netip.ParsePrefix(network)
		if err != nil {
			return nil, usagef("--trusted-proxy %q is no network such as 10.0.0.0/8", network)
		}
		proxies = append(proxies, p)
	}
	links, err := st.vault.Links(ctx)
	if err != nil {
		return nil, err
	}
	return portal.New(portal.Config{
		Intake: st.intake(), Vault: st.vault, Links: links, DB: st.db, Clock: time.Now,
		Theme: theme, TrustedProxies: proxies, Log: st.log, Registry: st.registry,
	})
}

// addresses gives where links in messages lead; nil when the service was not told where it is reached.
func (st *store) addresses(ctx context.Context, publicURL string) (func(domain.Link) (string, error), error) {
	if publicURL == "" {
		return nil, nil //nolint:nilnil // no links, and templates that ask for one say why
	}
	u, err := url.Parse(publicURL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, usagef("--links-url %q is no address such as https://preferences.example.com", publicURL)
	}
	links, err := st.vault.Links(ctx)
	if err != nil {
		return nil, err
	}
	base := strings.TrimSuffix(u.String(), "/")
	return func(l domain.Link) (string, error) {
		token, err := links.Token(l)
		if err != nil {
			return "", fmt.Errorf("link: %w", err)
		}
		return base + l.Kind.Path() + token, nil
	}, nil
}
