package schema

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"time"
)

// How long a session lasts: at most SessionMost, and SessionIdle after its last request.
const (
	SessionMost = 12 * time.Hour
	SessionIdle = time.Hour
)

// ErrNoSession is a cookie that no session answers to, any more or ever.
var ErrNoSession = fmt.Errorf("%w: the session has ended", ErrUnauthenticated)

// Session is somebody who is signed in.
type Session struct {
	Name      string // the actor in the ledger
	Role      Role
	Method    string // token or oidc
	TokenID   int64  // of a session by token
	CreatedAt time.Time
	ExpiresAt time.Time
}

// Sessions are the sessions of people at the console. It is safe for concurrent use.
type Sessions struct {
	db    *sql.DB
	clock func() time.Time
}

// NewSessions returns the sessions kept in a migrated database.
func NewSessions(db *sql.DB, clock func() time.Time) *Sessions {
	return &Sessions{db: db, clock: clock}
}

// Open begins a session in the caller's transaction and gives the secret that stands for it, this once.
func (s *Sessions) Open(ctx context.Context, q Querier, session Session) (secret string, _ Session, err error) {
	random := make([]byte, tokenSize)
	if _, err := rand.Read(random); err != nil {
		return "", session, fmt.Errorf("open session: %w", err)
	}
	secret = base64.RawURLEncoding.EncodeToString(random)
	session.CreatedAt = s.clock().UTC().Truncate(time.Microsecond)
	session.ExpiresAt = session.CreatedAt.Add(SessionMost)
	token := sql.NullInt64{Int64: session.TokenID, Valid: session.TokenID != 0}
	hash := sha256.Sum256([]byte(secret))
	// Those whose time is over are swept by whoever comes.
	_, err = q.ExecContext(ctx, `
WITH swept AS (DELETE FROM sessions WHERE expires_at <= $6 OR seen_at <= $6 - $8 * interval '1 second')
INSERT INTO sessions (hash, name, role, method, token_id, created_at, seen_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $6, $7)`,
		hash[:], session.Name, session.Role, session.Method, token, session.CreatedAt, session.ExpiresAt, int(SessionIdle.Seconds()))
	if err != nil {
		return "", session, fmt.Errorf("open session: %w", unavailable(err))
	}
	return secret, session, nil
}

// Find gives the session that a secret stands for, and notes that it was used. A session by token lasts no longer than its
// token, and has the role that the token has now.
func (s *Sessions) Find(ctx context.Context, secret string) (session Session, err error) {
	return s.find(ctx, secret, true)
}

// Peek is Find for what a page asks by itself: it does not keep the session from ending when nobody uses it.
func (s *Sessions) Peek(ctx context.Context, secret string) (Session, error) {
	return s.find(ctx, secret, false)
}

func (s *Sessions) find(ctx context.Context, secret string, used bool) (session Session, err error) {
	hash, now := sha256.Sum256([]byte(secret)), s.clock().UTC()
	var token sql.NullInt64
	var seen time.Time
	err = s.db.QueryRowContext(ctx, `
SELECT s.name, coalesce(t.role, s.role), s.method, s.token_id, s.created_at, s.expires_at, s.seen_at
FROM sessions s LEFT JOIN api_tokens t ON t.id = s.token_id
WHERE s.hash = $1 AND s.expires_at > $2 AND s.seen_at > $3
  AND (s.token_id IS NULL OR t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > $2))`, hash[:], now, now.Add(-SessionIdle)).
		Scan(&session.Name, &session.Role, &session.Method, &token, &session.CreatedAt, &session.ExpiresAt, &seen)
	if errors.Is(err, sql.ErrNoRows) {
		return session, ErrNoSession
	}
	if err != nil {
		return session, fmt.Errorf("find session: %w", unavailable(err))
	}
	session.TokenID = token.Int64
	if minute := now.Truncate(time.Minute); used && seen.Before(minute) {
		if _, err := s.db.ExecContext(ctx, `UPDATE sessions SET seen_at = $2 WHERE hash = $1 AND seen_at < $2`, hash[:], minute); err != nil {
			return session, fmt.Errorf("find session: %w", unavailable(err))
		}
	}
	return session, nil
}

// Close ends the session that a secret stands for, in the caller's transaction.
func (s *Sessions) Close(ctx context.Context, q Querier, secret string) error {
	hash := sha256.Sum256([]byte(secret))
	if _, err := q.ExecContext(ctx, `DELETE FROM sessions WHERE hash = $1`, hash[:]); err != nil {
		return fmt.Errorf("close session: %w", unavailable(err))
	}
	return nil
}
