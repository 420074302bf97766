package outbound

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"code.dny.dev/ssrf"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/sync/singleflight"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// Timing of access tokens.
const (
	tokensMax    = 1024
	tokenUnknown = 5 * time.Minute // how long one is used whose endpoint does not say how long it lasts
	tokenEarly   = time.Minute     // how long before it expires it is fetched anew, at most; a tenth of its life otherwise
	tokenRefused = 2 * time.Second // how long a failure of the endpoint is taken to last: requests in flight do not add to it
	tokenPatient = 15 * time.Second
)

// tokens keeps the access tokens of the client credentials grant. However many requests need one, one fetches it.
type tokens struct {
	client   *http.Client
	now      func() time.Time
	fetching singleflight.Group

	mu   sync.Mutex // guards the entries of kept
	kept *lru.Cache[tokenKey, granted]
}

// tokenKey is a hash of all that a token depends on, so that a rotated secret or another scope is another token.
type tokenKey [sha256.Size]byte

// granted is what a token endpoint answered: a token, or why not.
type granted struct {
	token string
	until time.Time
	err   error
}

func newTokens(c *http.Client, now func() time.Time) *tokens {
	kept, _ := lru.New[tokenKey, granted](tokensMax) // fails on a size below 1
	return &tokens{client: c, now: now, kept: kept}
}

// tokenError is a token endpoint that gives no token. It quotes nothing that the endpoint said but its error code.
type tokenError struct {
	reason  string
	verdict domain.Verdict // what the delivery's attempt is then
}

func (e *tokenError) Error() string { return e.reason }

// token gives a token that is good now, and its key to drop it by.
func (t *tokens) token(ctx context.Context, o domain.OAuth2, id, secret string) (token string, key tokenKey, err error) {
	if key, err = keyOf(o, id, secret); err != nil {
		return "", key, err
	}
	t.mu.Lock()
	got, ok := t.kept.Get(key)
	t.mu.Unlock()
	if ok && t.now().Before(got.until) {
		return got.token, key, got.err
	}
	answer := t.fetching.DoChan(string(key[:]), func() (any, error) {
		fetching, cancel := context.WithTimeout(context.WithoutCancel(ctx), tokenPatient) // for all who wait, not only for the first
		defer cancel()
		got := t.fetch(fetching, o, id, secret)
		t.mu.Lock()
		t.kept.Add(key, got)
		t.mu.Unlock()
		return got, nil
	})
	select {
	case r := <-answer:
		got := r.Val.(granted)
		return got.token, key, got.err
	case <-ctx.Done():
		return "", key, &tokenError{"its token endpoint does not answer in time", domain.Timeout}
	}
}

// drop forgets a token that was refused, unless another has taken its place already.
func (t *tokens) drop(key tokenKey, token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if got, ok := t.kept.Peek(key); ok && got.token == token {
		t.kept.Remove(key)
	}
}

func keyOf(o domain.OAuth2, id, secret string) (tokenKey, error) {
	b, err := json.Marshal([]any{o, id, secret})
	return sha256.Sum256(b), err
}

func (t *tokens) fetch(ctx context.Context, o domain.OAuth2, id, secret string) granted {
	params := url.Values{}
	for name, value := range o.Params {
		params.Set(name, value)
	}
	style := oauth2.AuthStyleInParams
	if o.Style == domain.OAuth2Header {
		style = oauth2.AuthStyleInHeader
	}
	grant := clientcredentials.Config{
		ClientID: id, ClientSecret: secret, TokenURL: o.TokenURL, Scopes: o.Scopes, EndpointParams: params, AuthStyle: style,
	}
	began := t.now()
	token, err := grant.Token(context.WithValue(ctx, oauth2.HTTPClient, t.client))
	if err != nil {
		return granted{err: tokenFailure(err), until: t.now().Add(tokenRefused)}
	}
	if kind := token.Type(); kind != "Bearer" {
		return granted{err: &tokenError{"its token endpoint gives a token that is not a bearer's", domain.Permanent}, until: t.now().Add(tokenRefused)}
	}
	life := tokenUnknown
	if token.ExpiresIn > 0 {
		life = time.Duration(token.ExpiresIn) * time.Second
		if token.ExpiresIn > int64(24*time.Hour/time.Second) {
			life = 24 * time.Hour
		}
		life -= min(tokenEarly, life/10)
	}
	return granted{token: token.AccessToken, until: began.Add(life)}
}

func tokenFailure(err error) error {
	var refused *oauth2.RetrieveError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, ssrf.ErrProhibitedIP):
		return &tokenError{"its token endpoint is at an address that is not public; if it is in one of your own networks, allow it with --allow-network", domain.Permanent}
	case errors.As(err, &refused) && refused.Response != nil:
		status := refused.Response.StatusCode
		said := fmt.Sprintf("its token endpoint answers %d", status)
		if known[refused.ErrorCode] {
			said += " " + refused.ErrorCode
		}
		if status == http.StatusTooManyRequests || status >= 500 {
			return &tokenError{said, domain.RetryLater}
		}
		return &tokenError{said + ": check the secrets that auth.oauth2 names", domain.AuthExpired}
	case errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded):
		return &tokenError{"its token endpoint does not answer in time", domain.Timeout}
	}
	return &tokenError{"its token endpoint gives no token", domain.NetworkError}
}

// known are the error codes of RFC 6749, section 5.2. Others may hold anything.
var known = map[string]bool{
	"invalid_request": true, "invalid_client": true, "invalid_grant": true, "unauthorized_client": true, "unsupported_grant_type": true, "invalid_scope": true,
}
