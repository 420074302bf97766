package domain

import (
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Auth is how a target authenticates where a header template does not do. One of its fields is set.
type Auth struct {
	Basic  *BasicAuth `json:"basic,omitempty" yaml:"basic,omitempty" doc:"user name and password, RFC 7617"`
	OAuth2 *OAuth2    `json:"oauth2,omitempty" yaml:"oauth2,omitempty" doc:"client credentials, RFC 6749 section 4.4"`
}

// BasicAuth is a user name, and a password by the name of its secret.
type BasicAuth struct {
	Username string `json:"username" yaml:"username" doc:"in the open; it holds no colon"`
	Password string `json:"password" yaml:"password" doc:"the secret that holds it, by name"`
}

// OAuth2 is the client credentials grant. The token is fetched when it is needed, kept until shortly before it expires, and
// fetched anew when it is refused.
type OAuth2 struct {
	TokenURL     string            `json:"token_url" yaml:"token_url" doc:"https, or http in a network that is allowed; no template"`
	ClientID     string            `json:"client_id" yaml:"client_id" doc:"the secret that holds it, by name"`
	ClientSecret string            `json:"client_secret" yaml:"client_secret" doc:"the secret that holds it, by name"`
	Scopes       []string          `json:"scopes,omitempty" yaml:"scopes,omitempty"`
	Params       map[string]string `json:"params,omitempty" yaml:"params,omitempty" doc:"further fields of the token request, in the open, such as account_id for Marketing Cloud or audience"`
	Style        string            `json:"style,omitempty" yaml:"style,omitempty" doc:"params (the default): client_id and client_secret are fields of the form; header: they are HTTP Basic"`
}

// TLS is what a target's connections are made with beyond the system's trust. Certificates are always verified.
type TLS struct {
	Certificate string `json:"certificate,omitempty" yaml:"certificate,omitempty" doc:"the secret that holds the client certificate, its chain and its key in PEM, by name"`
	CA          string `json:"ca,omitempty" yaml:"ca,omitempty" doc:"the secret that holds the authorities that the receiver's certificate may come from, in PEM, by name; instead of the system's"`
}

// The ways in which a client states its credentials to a token endpoint.
const (
	OAuth2Params = "params"
	OAuth2Header = "header"
)

// secretNames is the form of a secret's name, as the vault has it.
var secretNames = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,127}$`)

func validSecretName(pointer, name string) error {
	if !secretNames.MatchString(name) {
		return Invalid(pointer, "is %q; it is the name of a secret: a letter, then up to 127 letters, digits, '_', '.' and '-'", clip(name))
	}
	return nil
}

// Secrets lists the secrets that the target names outside of its templates, each once, in order.
func (t Target) Secrets() []string {
	names := slices.Clone(t.Signing)
	names = append(names, t.HMAC)
	if t.Auth != nil && t.Auth.Basic != nil {
		names = append(names, t.Auth.Basic.Password)
	}
	if t.Auth != nil && t.Auth.OAuth2 != nil {
		names = append(names, t.Auth.OAuth2.ClientID, t.Auth.OAuth2.ClientSecret)
	}
	if t.TLS != nil {
		names = append(names, t.TLS.Certificate, t.TLS.CA)
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == "" })
}

func (t Target) validateAuth() error {
	for i, name := range t.Signing {
		if err := validSecretName("/signing/"+digits(i), name); err != nil {
			return err
		}
	}
	if t.HMAC != "" {
		if err := validSecretName("/hmac", t.HMAC); err != nil {
			return err
		}
	}
	if t.TLS != nil {
		if err := t.TLS.validate(); err != nil {
			return within("/tls", err)
		}
	}
	if t.Auth == nil {
		return nil
	}
	for name := range t.Headers {
		if strings.EqualFold(name, "Authorization") {
			return Invalid("/auth", "and the header Authorization cannot both be given")
		}
	}
	switch basic, oauth := t.Auth.Basic, t.Auth.OAuth2; {
	case basic != nil && oauth != nil || basic == nil && oauth == nil:
		return Invalid("/auth", "is one of basic and oauth2")
	case basic != nil:
		return within("/auth/basic", basic.validate())
	default:
		return within("/auth/oauth2", oauth.validate())
	}
}

func (b BasicAuth) validate() error {
	if b.Username == "" || strings.ContainsAny(b.Username, ":\r\n\x00") {
		return Invalid("/username", "is empty, or holds a colon or a line break")
	}
	return validSecretName("/password", b.Password)
}

func (t TLS) validate() error {
	if t.Certificate == "" && t.CA == "" {
		return Invalid("", "names neither certificate nor ca")
	}
	if t.Certificate != "" {
		if err := validSecretName("/certificate", t.Certificate); err != nil {
			return err
		}
	}
	if t.CA != "" {
		return validSecretName("/ca", t.CA)
	}
	return nil
}

// reservedParams are those of the token request that the grant itself sets.
var reservedParams = []string{"grant_type", "client_id", "client_secret", "scope"}

func (o OAuth2) validate() error {
	u, err := url.Parse(o.TokenURL)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.Fragment != "":
		return Invalid("/token_url", "is %q; it is an http(s) URL with a host, without a user and without a fragment", clip(o.TokenURL))
	case strings.Contains(o.TokenURL, "{{") || strings.Contains(o.TokenURL, "{%"):
		return Invalid("/token_url", "is a template; it is a URL as it stands")
	case o.Style != "" && o.Style != OAuth2Params && o.Style != OAuth2Header:
		return Invalid("/style", "is %q; it is %s or %s", clip(o.Style), OAuth2Params, OAuth2Header)
	case len(o.Scopes) > 64:
		return Invalid("/scopes", "holds %d scopes, more than 64", len(o.Scopes))
	case len(o.Params) > 32:
		return Invalid("/params", "holds %d fields, more than 32", len(o.Params))
	}
	for i, scope := range o.Scopes {
		if scope == "" || strings.ContainsAny(scope, " \t\r\n") {
			return Invalid("/scopes/"+digits(i), "is empty or holds white space; give one scope an item")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.Params)) {
		if slices.Contains(reservedParams, strings.ToLower(name)) {
			return Invalid("/params/"+pointerToken(name), "is set by the grant itself; leave it out")
		}
	}
	if err := validSecretName("/client_id", o.ClientID); err != nil {
		return err
	}
	return validSecretName("/client_secret", o.ClientSecret)
}
