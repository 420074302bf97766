package schema

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/lib/pq"
)

const (
	// TokenFreshness is how long a process may accept a token without looking whether it has been revoked. The process
	// that revokes it refuses it at once.
	TokenFreshness = 5 * time.Second

	// tokensCached bounds the tokens that a process holds. Only tokens that exist are held, so that guessing cannot
	// crowd them out.
	tokensCached = 1_024

	// tokenPrefix lets people and secret scanners recognise a token.
	tokenPrefix = "dl_"

	// tokenSize is the randomness of a token in bytes.
	tokenSize = 32

	// bootstrapName is the name of the first token of a ledger.
	bootstrapName = "bootstrap"
)

// Role is what the bearer of a token may do.
type Role string

// The roles, as in table api_tokens.
const (
	RoleEmitter    Role = "emitter"    // sends events in
	RoleOperator   Role = "operator"   // sets up targets, retries deliveries
	RoleCompliance Role = "compliance" // reads the trail and its proofs
	RolePrivacy    Role = "privacy"    // erases, and answers access requests
	RoleAnalyst    Role = "analyst"    // reads projections, exports
	RoleAdmin      Role = "admin"      // everything, tokens and secrets included
	RoleDispatcher Role = "dispatcher" // joins the fleet that sends what a broker brings; nothing over HTTP
)

// Roles are all roles.
var Roles = []Role{RoleEmitter, RoleOperator, RoleCompliance, RolePrivacy, RoleAnalyst, RoleAdmin, RoleDispatcher}

var (
	// ErrUnauthenticated is the parent of all reasons to refuse a token. What the caller is told should be no more than
	// this.
	ErrUnauthenticated = errors.New("not authenticated")

	// ErrUnknownToken says that the token is none of this ledger's.
	ErrUnknownToken = fmt.Errorf("%w: unknown token", ErrUnauthenticated)

	// ErrExpiredToken says that the token's time is over.
	ErrExpiredToken = fmt.Errorf("%w: token expired", ErrUnauthenticated)

	// ErrRevokedToken says that somebody has revoked the token.
	ErrRevokedToken = fmt.Errorf("%w: token revoked", ErrUnauthenticated)

	// ErrInvalidToken says that a token cannot be made as asked for, and why.
	ErrInvalidToken = errors.New("invalid token")

	// ErrTokenExists says that a live token has this name already.
	ErrTokenExists = fmt.Errorf("%w: the name is taken by a token that is not revoked", ErrInvalidToken)
)

// Token is what the ledger knows of an API token. It does not know the token itself.
type Token struct {
	ID         int64      `json:"id"`
	Name       string     `json:"name"` // unique among the tokens that are not revoked; the actor in the trail
	Role       Role       `json:"role"`
	CreatedAt  time.Time  `json:"created_at"`
	CreatedBy  string     `json:"created_by"`
	ExpiresAt  *time.Time `json:"expires_at"` // nil: never
	RevokedAt  *time.Time `json:"revoked_at"` // nil: not revoked
	RevokedBy  *string    `json:"revoked_by"`
	LastUsedAt *time.Time `json:"last_used_at"` // to the minute; nil: never used
}

// valid returns the reason to refuse the token at the given time, or nil.
func (t Token) valid(at time.Time) error {
	switch {
	case t.RevokedAt != nil:
		return ErrRevokedToken
	case t.ExpiresAt != nil && !at.Before(*t.ExpiresAt):
		return ErrExpiredToken
	}
	return nil
}

// Tokens are the API tokens of a ledger. It is safe for concurrent use.
type Tokens struct {
	db      *sql.DB
	clock   func() time.Time
	cache   *lru.Cache[tokenHash, cachedToken]
	revoked sync.Map // hashes of the tokens that this process has revoked: no cached copy outlives that
}

// tokenHash is the SHA-256 of a token. Finding a token by its hash takes as long for a near miss as for a wild guess,
// because nobody can choose how the hash of a guess begins; and as tokens are random, a slow hash would add nothing.
type tokenHash [sha256.Size]byte

type cachedToken struct {
	token  Token
	readAt time.Time
}

// NewTokens returns the API tokens kept in a migrated database.
func NewTokens(db *sql.DB, clock func() time.Time) *Tokens {
	cache, err := lru.New[tokenHash, cachedToken](tokensCached)
	if err != nil {
		panic(err) // fails for sizes below 1 only
	}
	return &Tokens{db: db, clock: clock, cache: cache}
}

// TokenRequest says what token to create.
type TokenRequest struct {
	Name      string
	Role      Role
	CreatedBy string
	ExpiresAt *time.Time // nil: never
}

// Create makes a token and returns it, this once: the ledger keeps a hash. It is "dl_" and 43 characters of URL-safe
// base64. A request without name, creator or known role, or with an expiry in the past, is [ErrInvalidToken]; a name
// that a live token has is [ErrTokenExists].
func (t *Tokens) Create(ctx context.Context, request TokenRequest) (token string, info Token, err error) {
	return t.CreateIn(ctx, t.db, request)
}

// CreateIn is Create in the caller's transaction.
func (t *Tokens) CreateIn(ctx context.Context, q Querier, request TokenRequest) (token string, info Token, err error) {
	now := t.clock().UTC()
	switch {
	case strings.TrimSpace(request.Name) == "":
		return "", Token{}, fmt.Errorf("%w: it needs a name", ErrInvalidToken)
	case !slices.Contains(Roles, request.Role):
		return "", Token{}, fmt.Errorf("%w: role %q is none of %v", ErrInvalidToken, request.Role, Roles)
	case request.CreatedBy == "":
		return "", Token{}, fmt.Errorf("%w: it is not said who creates it", ErrInvalidToken)
	case request.ExpiresAt != nil && !request.ExpiresAt.After(now):
		return "", Token{}, fmt.Errorf("%w: it would be expired from the start", ErrInvalidToken)
	}
	if token, err = newToken(); err != nil {
		return "", Token{}, fmt.Errorf("create token: %w", unavailable(err))
	}
	row := q.QueryRowContext(ctx, `
INSERT INTO api_tokens (hash, name, role, created_at, created_by, expires_at) VALUES ($1, $2, $3, $4, $5, $6)
RETURNING `+publicColumns, hashToken(token), request.Name, request.Role, now, request.CreatedBy, request.ExpiresAt)
	info, err = scanToken(row)
	var refusal *pq.Error
	if errors.As(err, &refusal) && refusal.Constraint == "api_tokens_live_name" {
		return "", Token{}, fmt.Errorf("%w: %s: revoke it or choose another name", ErrTokenExists, request.Name)
	}
	if err != nil {
		return "", Token{}, fmt.Errorf("create token: %w", unavailable(err))
	}
	return token, info, nil
}

func newToken() (string, error) {
	random := make([]byte, tokenSize)
	if _, err := rand.Read(random); err != nil {
		return "", err
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(random), nil
}

func hashToken(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

const publicColumns = `id, name, role, created_at, created_by, expires_at, revoked_at, revoked_by, last_used_at`

func scanToken(row interface{ Scan(dest ...any) error }) (Token, error) {
	var t Token
	err := row.Scan(&t.ID, &t.Name, &t.Role, &t.CreatedAt, &t.CreatedBy, &t.ExpiresAt, &t.RevokedAt, &t.RevokedBy, &t.LastUsedAt)
	t.CreatedAt = t.CreatedAt.UTC()
	for _, at := range []*time.Time{t.ExpiresAt, t.RevokedAt, t.LastUsedAt} {
		if at != nil {
			*at = at.UTC()
		}
	}
	return t, err
}

// Bootstrap makes the first admin token of a ledger that has none, of however many processes ask at once only one. Given a
// token, it makes that one; given an empty string, it makes a random one, which it returns. It reports whether it made one:
// a ledger that has, or ever had, a token is left as it is.
//
// A given token should be as random as Create's, since a hash is no protection for one that can be guessed. One that
// cannot travel in a header (printable ASCII without spaces) is [ErrInvalidToken].
func (t *Tokens) Bootstrap(ctx context.Context, given string) (token string, created bool, err error) {
	if strings.ContainsFunc(given, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", false, fmt.Errorf("%w: the bootstrap token may hold printable ASCII without spaces only", ErrInvalidToken)
	}
	token = given
	if token == "" {
		if token, err = newToken(); err != nil {
			return "", false, fmt.Errorf("bootstrap token: %w", unavailable(err))
		}
	}
	// Two processes may both find the table empty; the index api_tokens_one_bootstrap lets one of them in.
	result, err := t.db.ExecContext(ctx, `
INSERT INTO api_tokens (hash, name, role, bootstrap, created_at, created_by)
SELECT $1, $2, $3, true, $4, $2 WHERE NOT EXISTS (SELECT FROM api_tokens)
ON CONFLICT DO NOTHING`, hashToken(token), bootstrapName, RoleAdmin, t.clock().UTC())
	if err != nil {
		return "", false, fmt.Errorf("bootstrap token: %w", unavailable(err))
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return "", false, err
	}
	return token, true, nil
}

// Any reports whether the ledger has a token, revoked ones included.
func (t *Tokens) Any(ctx context.Context) (bool, error) {
	var any bool
	if err := t.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM api_tokens)`).Scan(&any); err != nil {
		return false, fmt.Errorf("tokens: %w", unavailable(err))
	}
	return any, nil
}

// authenticateSQL finds the token with hash $1 and, when it is good at $2, notes the minute of its use.
const authenticateSQL = `
WITH used AS (
    UPDATE api_tokens SET last_used_at = date_trunc('minute', $2::timestamptz)
    WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)
      AND (last_used_at IS NULL OR last_used_at < date_trunc('minute', $2::timestamptz))
)
SELECT ` + publicColumns + ` FROM api_tokens WHERE hash = $1`

// Authenticate returns what is known of a token that was presented, or an error that wraps [ErrUnauthenticated] when it
// must be refused. A revocation elsewhere is honoured within [TokenFreshness], an expiry at once.
func (t *Tokens) Authenticate(ctx context.Context, presented string) (Token, error) {
	if presented == "" {
		return Token{}, ErrUnknownToken
	}
	now := t.clock()
	hash := tokenHash(sha256.Sum256([]byte(presented)))
	cached, ok := t.cache.Get(hash)
	if !ok || now.Sub(cached.readAt) >= TokenFreshness {
		token, err := scanToken(t.db.QueryRowContext(ctx, authenticateSQL, hash[:], now))
		if errors.Is(err, sql.ErrNoRows) {
			return Token{}, ErrUnknownToken
		}
		if err != nil {
			return Token{}, fmt.Errorf("authenticate: %w", unavailable(err))
		}
		cached = cachedToken{token: token, readAt: now}
		t.cache.Add(hash, cached)
	}
	if _, revoked := t.revoked.Load(hash); revoked {
		return Token{}, ErrRevokedToken
	}
	if err := cached.token.valid(now); err != nil {
		return Token{}, err
	}
	return cached.token, nil
}

// AuthenticateAfresh is Authenticate for what must not go by what this process has read before: a token that any process has
// revoked is refused.
func (t *Tokens) AuthenticateAfresh(ctx context.Context, presented string) (Token, error) {
	t.cache.Remove(tokenHash(sha256.Sum256([]byte(presented))))
	return t.Authenticate(ctx, presented)
}

// Revoke ends the life of the token with the given name. A name that no live token has is [ErrUnknownToken].
func (t *Tokens) Revoke(ctx context.Context, name, by string) error {
	done, err := t.RevokeIn(ctx, t.db, name, by)
	if err == nil {
		done()
	}
	return err
}

// RevokeIn is Revoke in the caller's transaction. Once that is committed, done has this process refuse the token at once.
func (t *Tokens) RevokeIn(ctx context.Context, q Querier, name, by string) (done func(), err error) {
	if by == "" {
		return nil, fmt.Errorf("%w: it is not said who revokes it", ErrInvalidToken)
	}
	var hash []byte
	err = q.QueryRowContext(ctx, `UPDATE api_tokens SET revoked_at = $2, revoked_by = $3 WHERE name = $1 AND revoked_at IS NULL RETURNING hash`,
		name, t.clock().UTC(), by).Scan(&hash)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("%w: no live token is named %s", ErrUnknownToken, name)
	}
	if err != nil {
		return nil, fmt.Errorf("revoke token %s: %w", name, unavailable(err))
	}
	return func() { t.revoked.Store(tokenHash(hash), struct{}{}) }, nil
}

// List returns all tokens, revoked ones included, oldest first.
func (t *Tokens) List(ctx context.Context) ([]Token, error) {
	rows, err := t.db.QueryContext(ctx, `SELECT `+publicColumns+` FROM api_tokens ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", unavailable(err))
	}
	defer rows.Close()
	var all []Token
	for rows.Next() {
		token, err := scanToken(rows)
		if err != nil {
			return nil, fmt.Errorf("tokens: %w", unavailable(err))
		}
		all = append(all, token)
	}
	return all, rows.Err()
}
