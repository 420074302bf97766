package platforms

import (
	"context"
	"sync"
	"time"
)

// TokenCache keeps an access token until shortly before it expires. It is safe for concurrent use: callers that find
// it stale wait for one fetch.
type TokenCache struct {
	Fetch func(context.Context) (token Secret, expires time.Time, err error)
	Now   func() time.Time
	Early time.Duration // fetch anew this long before it expires

	mu      sync.Mutex // guards what follows
	token   Secret
	expires time.Time
}

// Token is a token that is good now. The error is Fetch's.
func (c *TokenCache) Token(ctx context.Context) (Secret, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token != "" && c.Now().Add(c.Early).Before(c.expires) {
		return c.token, nil
	}
	token, expires, err := c.Fetch(ctx)
	if err != nil {
		return "", err
	}
	c.token, c.expires = token, expires
	return token, nil
}

// Drop forgets a token that was refused, unless another has taken its place already.
func (c *TokenCache) Drop(token Secret) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token == token {
		c.token = ""
	}
}
