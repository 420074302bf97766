package outbound

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

// The CRM's own signature of a body: lower-case hex of its HMAC-SHA256. It has no room for a second one, so while its secret
// is being rotated the one by the value before it stands in a header of its own.
const (
	HMACHeader         = "X-Omneo-Hmac-SHA256"
	HMACPreviousHeader = "X-Omneo-Hmac-SHA256-Previous"
)

// ready is a request that can leave.
type ready struct {
	platforms.Request
	dialect  platforms.Dialect
	secrets  *secrets
	token    string // the access token in it; "" when it has none
	tokenKey tokenKey
}

// unfit is a request that cannot be made, and what that means for the delivery.
type unfit struct {
	kind   domain.Verdict
	reason string
}

func (u *unfit) Error() string { return u.reason }

// granting gives an access token, and its key to drop it by.
type granting func(ctx context.Context, o domain.OAuth2, id, secret string) (token string, key tokenKey, err error)

// build puts secrets, authentication, the platform's idempotency key and the signatures into a request. Masked, dots stand in
// the place of secrets, and no token is fetched; signatures are real. The error is an *unfit.
func build(ctx context.Context, in Request, at time.Time, grant granting, masked bool) (*ready, error) {
	p, err := platforms.Lookup(in.Platform)
	if err != nil {
		return nil, &unfit{domain.Permanent, err.Error()}
	}
	r := &ready{dialect: p.Dialect, secrets: newSecrets(in, masked)}
	if err := r.fill(ctx, in, at, grant); err != nil {
		var token *tokenError
		if errors.As(err, &token) {
			return nil, &unfit{token.verdict, token.reason}
		}
		return nil, &unfit{domain.RetryLater, err.Error()}
	}
	if r.Request, err = p.Dialect.Prepare(r.Request); err != nil {
		return nil, &unfit{domain.Permanent, r.secrets.Replace(err.Error())}
	}
	if in.HMAC != "" {
		r.Header.Set(HMACHeader, sign(in.Secrets[in.HMAC], r.Body))
		if previous, ok := in.Previous[in.HMAC]; ok {
			r.Header.Set(HMACPreviousHeader, sign(previous, r.Body))
		}
	}
	return r, nil
}

func (r *ready) fill(ctx context.Context, in Request, at time.Time, grant granting) error {
	text, err := r.secrets.fill(in.URL, url.QueryEscape)
	if err != nil {
		return err
	}
	u, err := url.Parse(text)
	if err != nil {
		return errors.New("its URL does not parse")
	}
	header := make(http.Header, len(in.Headers)+4)
	header.Set("Content-Type", in.ContentType)
	header.Set("User-Agent", "dispatch-ledger")
	for name, value := range in.Headers {
		if value, err = r.secrets.fill(value, asItIs); err != nil {
			return err
		}
		header.Set(name, value)
	}
	escape := asItIs
	switch in.Content {
	case domain.ContentJSON:
		escape = jsonEscape
	case domain.ContentForm:
		escape = url.QueryEscape
	case domain.ContentText:
	}
	body, err := r.secrets.fill(in.Body, escape)
	if err != nil {
		return err
	}
	r.Request = platforms.Request{
		DeliveryID: in.DeliveryID.String(), At: at, Method: in.Method, URL: u, Header: header, Body: []byte(body), SigningSecrets: in.signing(),
	}
	if in.Auth == nil {
		return nil
	}
	return r.authorize(ctx, *in.Auth, grant)
}

// signing gives the values that sign a request, the newest first: of each secret the current one, and while it is being
// rotated the one before it.
func (r Request) signing() (values []string) {
	for _, name := range r.Signing {
		values = append(values, r.Secrets[name])
		if previous, ok := r.Previous[name]; ok {
			values = append(values, previous)
		}
	}
	return values
}

// material is what its connection is made with.
func (r Request) material() Material {
	if r.TLS == nil {
		return Material{}
	}
	return Material{Certificate: r.Secrets[r.TLS.Certificate], CA: r.Secrets[r.TLS.CA]}
}

// authorize sets the Authorization header.
func (r *ready) authorize(ctx context.Context, auth domain.Auth, grant granting) error {
	if auth.Basic != nil {
		password, err := r.secrets.line(auth.Basic.Password)
		if err != nil {
			return err
		}
		both := base64.StdEncoding.EncodeToString([]byte(auth.Basic.Username + ":" + password))
		r.secrets.hide(both)
		r.Header.Set("Authorization", "Basic "+r.shown(both))
		return nil
	}
	id, err := r.secrets.line(auth.OAuth2.ClientID)
	if err != nil {
		return err
	}
	secret, err := r.secrets.line(auth.OAuth2.ClientSecret)
	if err != nil {
		return err
	}
	if !r.secrets.masked {
		if r.token, r.tokenKey, err = grant(ctx, *auth.OAuth2, id, secret); err != nil {
			return err
		}
		r.secrets.hide(r.token)
	}
	r.Header.Set("Authorization", "Bearer "+r.shown(r.token))
	return nil
}

// shown is a credential, or the dots that stand for it.
func (r *ready) shown(credential string) string {
	if r.secrets.masked {
		return Mask
	}
	return credential
}

func sign(key string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}
