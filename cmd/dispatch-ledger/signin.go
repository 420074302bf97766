package main

import (
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/console"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// signIn says how people sign in at the console besides by token.
type signIn struct {
	name, issuer, client, secretFile, address, claim string
	roles                                            map[string]string
}

func (s *signIn) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&s.issuer, "oidc-issuer", "", "OpenID Connect provider that people sign in by at the console, such as https://login.example.com; empty offers tokens only")
	flags.StringVar(&s.client, "oidc-client-id", "", "the console's client id at the provider")
	flags.StringVar(&s.secretFile, "oidc-client-secret-file", "", "file with its client secret; empty for a public client")
	flags.StringVar(&s.address, "public-url", "", "where people reach the console, such as https://ledger.example.com; the provider leads back to it")
	flags.StringVar(&s.name, "oidc-name", "single sign-on", "what the button says after 'Sign in with'")
	flags.StringVar(&s.claim, "oidc-claim", "groups", "claim of the ID token that says what somebody may do")
	flags.StringToStringVar(&s.roles, "oidc-role", nil, "which value of the claim has which role, such as crm-compliance=compliance (repeatable)")
}

// provider gives the OpenID Connect provider, nil when there is none.
func (s signIn) provider() (*console.OIDC, error) {
	if s.issuer == "" {
		return nil, nil
	}
	address, err := url.Parse(s.address)
	if s.client == "" || s.address == "" || err != nil || address.Scheme != "https" && address.Hostname() != "localhost" && address.Hostname() != "127.0.0.1" {
		return nil, usagef("--oidc-issuer needs --oidc-client-id and --public-url, an https address")
	}
	o := &console.OIDC{
		Name: s.name, Issuer: s.issuer, ClientID: s.client, Claim: s.claim, Roles: map[string]schema.Role{},
		RedirectURL: strings.TrimSuffix(s.address, "/") + "/login/oidc/callback",
	}
	if s.secretFile != "" {
		secret, err := os.ReadFile(s.secretFile)
		if err != nil {
			return nil, fmt.Errorf("--oidc-client-secret-file: %w", err)
		}
		o.ClientSecret = strings.TrimSpace(string(secret))
	}
	for value, role := range s.roles {
		switch r := schema.Role(role); r {
		case schema.RoleOperator, schema.RoleCompliance, schema.RolePrivacy, schema.RoleAnalyst, schema.RoleAdmin:
			o.Roles[value] = r
		case schema.RoleEmitter:
			return nil, usagef("--oidc-role %s=%s: an emitter is a program, and sees nothing", value, role)
		default:
			return nil, usagef("--oidc-role %s=%s: the roles are operator, compliance, privacy, analyst and admin", value, role)
		}
	}
	if len(o.Roles) == 0 {
		return nil, usagef("--oidc-issuer needs an --oidc-role, or nobody is let in")
	}
	return o, nil
}
