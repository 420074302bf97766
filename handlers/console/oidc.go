package console

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// OIDC is signing in by an OpenID Connect provider, with the authorization code flow and PKCE.
type OIDC struct {
	Name         string // on the button, such as "Example SSO"
	Issuer       string // such as https://login.example.com
	ClientID     string
	ClientSecret string
	RedirectURL  string                 // the console's own address with /login/oidc/callback
	Claim        string                 // in the ID token that says the roles or groups; "groups" by default
	Roles        map[string]schema.Role // by value of the claim; who has none of these is not let in
	Client       *http.Client           // to the provider; nil is the default one

	mu       sync.Mutex
	provider *oidc.Provider // guarded by mu; found when it is first needed, so that serving does not wait for it
}

// errNotLetIn is an identity that no role was given to.
var errNotLetIn = errors.New("no role of this ledger was given to you")

func (o *OIDC) context(ctx context.Context) context.Context {
	if o.Client != nil {
		return oidc.ClientContext(ctx, o.Client)
	}
	return ctx
}

func (o *OIDC) discover(ctx context.Context) (*oidc.Provider, oauth2.Config, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.provider == nil {
		// The provider keeps its context for fetching keys, so it must not be a request's.
		p, err := oidc.NewProvider(o.context(context.WithoutCancel(ctx)), o.Issuer)
		if err != nil {
			return nil, oauth2.Config{}, fmt.Errorf("find the OpenID provider: %w", err)
		}
		o.provider = p
	}
	return o.provider, oauth2.Config{
		ClientID: o.ClientID, ClientSecret: o.ClientSecret, Endpoint: o.provider.Endpoint(), RedirectURL: o.RedirectURL,
		Scopes: []string{oidc.ScopeOpenID, "profile", "email"},
	}, nil
}

// roleOf gives the strongest role that the claim's values stand for.
func (o *OIDC) roleOf(claims map[string]json.RawMessage) (schema.Role, error) {
	name := o.Claim
	if name == "" {
		name = "groups"
	}
	var values []string
	if err := json.Unmarshal(claims[name], &values); err != nil {
		var one string
		if json.Unmarshal(claims[name], &one) == nil {
			values = []string{one}
		}
	}
	for _, role := range []schema.Role{schema.RoleAdmin, schema.RoleOperator, schema.RolePrivacy, schema.RoleCompliance, schema.RoleAnalyst} {
		if slices.ContainsFunc(values, func(v string) bool { return o.Roles[v] == role }) {
			return role, nil
		}
	}
	return "", errNotLetIn
}

// stateCookie holds what a flow under way must come back with.
const stateCookie = "__Host-dispatch-ledger-oidc"

// flow is what is remembered between the two halves of signing in.
type flow struct {
	State, Nonce, Verifier, To string
}

func random() string {
	b := make([]byte, 24)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

func (c *console) beginOIDC(w http.ResponseWriter, r *http.Request) {
	if c.OIDC == nil {
		c.unrouted(w, r)
		return
	}
	if c.waits(w, r) {
		return
	}
	_, config, err := c.OIDC.discover(r.Context())
	if err != nil {
		c.Log.WarnContext(r.Context(), "signing in by OpenID Connect", slog.Any("error", err))
		c.askIn(w, r, http.StatusBadGateway, "The sign-in service does not answer. Try again, or use a token.")
		return
	}
	f := flow{State: random(), Nonce: random(), Verifier: oauth2.GenerateVerifier(), To: destination(r.FormValue("to"))}
	text, err := json.Marshal(f)
	if err != nil {
		c.fail(w, r, nil, err)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: stateCookie, Value: base64.RawURLEncoding.EncodeToString(text), Path: "/", MaxAge: 600, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	http.Redirect(w, r, config.AuthCodeURL(f.State, oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)), http.StatusSeeOther)
}

func (c *console) endOIDC(w http.ResponseWriter, r *http.Request) {
	if c.OIDC == nil {
		c.unrouted(w, r)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: stateCookie, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	if c.waits(w, r) {
		return
	}
	opened, to, err := c.identify(r)
	if err != nil {
		if !errors.Is(err, errStray) {
			c.Service.Failed(r.RemoteAddr)
		}
		c.Log.InfoContext(r.Context(), "signing in by OpenID Connect failed", slog.Any("error", err))
		text := "Signing in did not work. Try again; the log says why it failed."
		if errors.Is(err, errNotLetIn) {
			text = "You are known to the sign-in service, but no role of this ledger was given to you. Ask an administrator for one."
		}
		c.askIn(w, r, http.StatusForbidden, text)
		return
	}
	c.begin(w, r, schema.Session{Name: opened.Name, Role: schema.Role(opened.Role), Method: opened.Method}, opened, to)
}

// errStray is an answer to nothing that this browser asked. It counts against nobody: another site's page may have made it.
var errStray = errors.New("the answer is not to what this browser asked")

// begun gives the flow that a provider's answer belongs to.
func begun(r *http.Request) (f flow, err error) {
	cookie, err := r.Cookie(stateCookie)
	if err != nil {
		return f, err
	}
	text, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return f, err
	}
	if f.State == "" || subtle.ConstantTimeCompare([]byte(f.State), []byte(r.FormValue("state"))) != 1 {
		return f, errors.New("its state is another")
	}
	return f, nil
}

// identify takes the provider's answer apart: whose it is, and whether it answers the flow that this browser began.
func (c *console) identify(r *http.Request) (opened domain.SessionOpened, to string, err error) {
	f, err := begun(r)
	if err != nil {
		return opened, "", fmt.Errorf("%w: %w", errStray, err)
	}
	if problem := r.FormValue("error"); problem != "" {
		return opened, "", fmt.Errorf("the provider says %q", problem)
	}
	provider, config, err := c.OIDC.discover(r.Context())
	if err != nil {
		return opened, "", err
	}
	ctx := c.OIDC.context(r.Context())
	token, err := config.Exchange(ctx, r.FormValue("code"), oauth2.VerifierOption(f.Verifier))
	if err != nil {
		return opened, "", err
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := provider.VerifierContext(ctx, &oidc.Config{ClientID: c.OIDC.ClientID, Now: c.Clock}).Verify(ctx, raw)
	if err != nil {
		return opened, "", err
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(f.Nonce)) != 1 {
		return opened, "", errors.New("the identity was made for another sign-in")
	}
	var claims map[string]json.RawMessage
	var person struct {
		Email    string `json:"email"`
		Verified bool   `json:"email_verified"`
	}
	if err := errors.Join(id.Claims(&claims), id.Claims(&person)); err != nil {
		return opened, "", err
	}
	role, err := c.OIDC.roleOf(claims)
	if err != nil {
		return opened, "", err
	}
	name := id.Issuer + "#" + id.Subject
	if person.Email != "" && person.Verified {
		name = person.Email
	}
	return domain.SessionOpened{Name: name, Role: string(role), Method: "oidc", Issuer: id.Issuer, Login: id.Subject}, f.To, nil
}
