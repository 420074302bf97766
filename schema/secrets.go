package schema

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"time"
)

const (
	// SecretFreshness is how long a process may use a named secret as it last read it. A new value is used by every
	// process within this time.
	SecretFreshness = 5 * time.Second

	// SecretSizeMax is the longest value of a named secret, in bytes: room for a client certificate with its chain
	// and key.
	SecretSizeMax = 64 << 10

	// secretsCached bounds the secrets that a process holds.
	secretsCached = 1_024

	// mask is what a secret looks like wherever it is not needed.
	mask = "••••"
)

var (
	// ErrNoSecret says that no secret of this name is set.
	ErrNoSecret = fmt.Errorf("%w: secret", ErrNotFound)

	// ErrInvalidSecret says that a name or value cannot be a secret's, and what would be.
	ErrInvalidSecret = errors.New("invalid secret")
)

var secretNamePattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,127}$`)

// Secret is a named value that a target authenticates with. It shows as •••• wherever it is logged, printed or
// marshalled; [Secret.Reveal] is the one way to the value.
type Secret struct {
	Name        string
	Version     int    // counts the values the name has had, from 1
	Fingerprint string // 16 hexadecimal digits: a keyed hash of name and value

	values func() (current, previous string) // a function, because fmt walks into anything else that it may not call String on
}

// newSecretValues holds the values of a secret; an empty string is none.
func newSecretValues(current, previous string) func() (string, string) {
	return func() (string, string) { return current, previous }
}

// Reveal returns the current value.
func (s Secret) Reveal() string {
	if s.values == nil {
		return ""
	}
	current, _ := s.values()
	return current
}

// RevealPrevious returns the value before the current one, which stays valid beside it until the overlap is ended
// ([Vault.EndSecretOverlap]) or the next value is set. It reports false when there is none.
func (s Secret) RevealPrevious() (string, bool) {
	if s.values == nil {
		return "", false
	}
	_, previous := s.values()
	return previous, previous != ""
}

// cachedSecret is a secret as read at some time.
type cachedSecret struct {
	secret Secret
	readAt time.Time
}

// String is ••••.
func (Secret) String() string { return mask }

// Format prints •••• whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, mask) } //nolint:errcheck // fmt has no use for the error

// LogValue logs ••••.
func (Secret) LogValue() slog.Value { return slog.StringValue(mask) }

// MarshalJSON is "••••".
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + mask + `"`), nil }

// MarshalText is ••••, for YAML and whatever else asks for text.
func (Secret) MarshalText() ([]byte, error) { return []byte(mask), nil }

// putVersionSQL stores value $6 of the secret named $1, sealed under wrapping key $5, beside the one before it, and deletes
// the one before that. It answers with the version, or with nothing: when the fingerprint $2 is already the current one,
// or $5 no longer the newest wrapping key.
const putVersionSQL = `
WITH head AS (
    INSERT INTO secrets AS s (name, version, fingerprint, updated_at, updated_by)
    SELECT $1, 1, $2, $3::timestamptz, $4 WHERE $5 = (SELECT max(id) FROM wrapping_keys)
    ON CONFLICT (name) DO UPDATE
    SET version = s.version + 1, fingerprint = excluded.fingerprint, updated_at = excluded.updated_at, updated_by = excluded.updated_by
    WHERE s.fingerprint <> excluded.fingerprint
    RETURNING version
), outdated AS (
    DELETE FROM secret_versions v USING head h WHERE v.name = $1 AND v.version < h.version - 1
)
INSERT INTO secret_versions (name, version, wrapping_key, sealed) SELECT $1, version, $5, $6 FROM head RETURNING version`

// SetSecret makes value the current one of the named secret and keeps the value before it for the overlap. Setting the
// value that is current already changes nothing. The returned Secret has version and fingerprint, for the record of who
// set what; by is who did, and must not be empty.
//
// A name is a letter and up to 127 letters, digits, '_', '.' or '-'; a value has 1 to [SecretSizeMax] bytes; anything
// else is [ErrInvalidSecret]. Given a transaction, the value is there when it commits; every process uses it within
// [SecretFreshness] of that, and this one at once if [Vault.ForgetSecret] is called after the commit.
func (v *Vault) SetSecret(ctx context.Context, q Querier, name, value, by string) (Secret, error) {
	switch {
	case !secretNamePattern.MatchString(name):
		return Secret{}, fmt.Errorf("%w: a name begins with a letter and has up to 128 letters, digits, '_', '.' or '-'", ErrInvalidSecret)
	case value == "":
		return Secret{}, fmt.Errorf("%w: %s: the value is empty", ErrInvalidSecret, name)
	case len(value) > SecretSizeMax:
		return Secret{}, fmt.Errorf("%w: %s: the value has %d bytes, at most %d are kept", ErrInvalidSecret, name, len(value), SecretSizeMax)
	case by == "":
		return Secret{}, fmt.Errorf("%w: %s: it is not said who sets it", ErrInvalidSecret, name)
	}
	secret := Secret{
		Name:        name,
		Fingerprint: hex.EncodeToString(hash(v.fingerprint, name, value)[:8]),
		values:      newSecretValues(value, ""),
	}
	for range keyAttempts {
		id, wrapping := v.newestWrappingKey()
		sealed, err := wrapping.Encrypt([]byte(value), secretName(name))
		if err != nil {
			return Secret{}, fmt.Errorf("set secret %s: %w", name, unavailable(err))
		}
		err = q.QueryRowContext(ctx, putVersionSQL, name, secret.Fingerprint, v.clock(), by, id, sealed).Scan(&secret.Version)
		if err == nil {
			v.ForgetSecret(name)
			return secret, nil
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return Secret{}, fmt.Errorf("set secret %s: %w", name, unavailable(err))
		}
		if err := v.loadWrappingKeys(ctx); err != nil {
			return Secret{}, fmt.Errorf("set secret %s: %w", name, unavailable(err))
		}
		if newest, _ := v.newestWrappingKey(); newest != id {
			continue
		}
		err = q.QueryRowContext(ctx, `SELECT version FROM secrets WHERE name = $1 AND fingerprint = $2`, name, secret.Fingerprint).Scan(&secret.Version)
		if err == nil {
			return secret, nil
		}
		if !errors.Is(err, sql.ErrNoRows) { // no rows: changed again in between, so set it after all
			return Secret{}, fmt.Errorf("set secret %s: %w", name, unavailable(err))
		}
	}
	return Secret{}, fmt.Errorf("set secret %s: somebody else keeps changing it: try again", name)
}

// secretName binds a sealed value to the secret it belongs to.
func secretName(name string) []byte { return []byte("secret\x00" + name) }

// Secret returns a named secret, as it was at most [SecretFreshness] ago. A name that is not set is [ErrNoSecret].
func (v *Vault) Secret(ctx context.Context, name string) (Secret, error) {
	now := v.clock()
	if cached, ok := v.secrets.Get(name); ok && now.Sub(cached.readAt) < SecretFreshness {
		return cached.secret, nil
	}
	secret, err := v.readSecret(ctx, name)
	if err != nil {
		return Secret{}, fmt.Errorf("secret %s: %w", name, unavailable(err))
	}
	v.secrets.Add(name, cachedSecret{secret, now}) // the time before reading: what is set from now on is newer
	return secret, nil
}

func (v *Vault) readSecret(ctx context.Context, name string) (Secret, error) {
	type version struct {
		number, wrapping int
		sealed           []byte
	}
	rows, err := v.db.QueryContext(ctx, `
SELECT s.version, s.fingerprint, v.version, v.wrapping_key, v.sealed
FROM secrets s JOIN secret_versions v USING (name) WHERE s.name = $1`, name)
	if err != nil {
		return Secret{}, err
	}
	defer rows.Close()
	secret := Secret{Name: name}
	var current, previous string
	var versions []version
	for rows.Next() {
		var got version
		if err := rows.Scan(&secret.Version, &secret.Fingerprint, &got.number, &got.wrapping, &got.sealed); err != nil {
			return Secret{}, err
		}
		versions = append(versions, got)
	}
	if err := rows.Err(); err != nil {
		return Secret{}, err
	}
	for _, got := range versions {
		wrapping, err := v.wrappingKey(ctx, got.wrapping)
		if err != nil {
			return Secret{}, err
		}
		value, err := wrapping.Decrypt(got.sealed, secretName(name))
		if err != nil {
			return Secret{}, ErrTampered
		}
		if got.number == secret.Version {
			current = string(value)
		} else {
			previous = string(value)
		}
	}
	if current == "" {
		return Secret{}, fmt.Errorf("%w: run dispatch-ledger secret set %s", ErrNoSecret, name)
	}
	secret.values = newSecretValues(current, previous)
	return secret, nil
}

// ForgetSecret makes this process read the named secret again when it is next needed.
func (v *Vault) ForgetSecret(name string) { v.secrets.Remove(name) }

// EndSecretOverlap deletes the value before the current one: the other side has changed over. It reports whether there was
// one.
func (v *Vault) EndSecretOverlap(ctx context.Context, q Querier, name string) (bool, error) {
	return v.deleteSecret(ctx, q, name,
		`DELETE FROM secret_versions v USING secrets s WHERE s.name = $1 AND v.name = s.name AND v.version < s.version`)
}

// DeleteSecret deletes a secret with all its values. It reports whether there was one.
func (v *Vault) DeleteSecret(ctx context.Context, q Querier, name string) (bool, error) {
	return v.deleteSecret(ctx, q, name, `DELETE FROM secrets WHERE name = $1`)
}

func (v *Vault) deleteSecret(ctx context.Context, q Querier, name, statement string) (bool, error) {
	result, err := q.ExecContext(ctx, statement, name)
	if err != nil {
		return false, fmt.Errorf("delete secret %s: %w", name, unavailable(err))
	}
	v.ForgetSecret(name)
	n, err := result.RowsAffected()
	return n > 0, err
}

// SecretInfo is what may be known of a secret by those who may not know its value.
type SecretInfo struct {
	Name        string    `json:"name"`
	Version     int       `json:"version"`
	Fingerprint string    `json:"fingerprint"` // as in [Secret]
	Overlap     bool      `json:"overlap"`     // the value before the current one is still kept
	UpdatedAt   time.Time `json:"updated_at"`
	UpdatedBy   string    `json:"updated_by"`
}

// Secrets lists the secrets that are set, by name.
func (v *Vault) Secrets(ctx context.Context) ([]SecretInfo, error) {
	rows, err := v.db.QueryContext(ctx, `
SELECT name, version, fingerprint, EXISTS (SELECT FROM secret_versions v WHERE v.name = s.name AND v.version < s.version), updated_at, updated_by
FROM secrets s ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("secrets: %w", unavailable(err))
	}
	defer rows.Close()
	var all []SecretInfo
	for rows.Next() {
		var s SecretInfo
		if err := rows.Scan(&s.Name, &s.Version, &s.Fingerprint, &s.Overlap, &s.UpdatedAt, &s.UpdatedBy); err != nil {
			return nil, fmt.Errorf("secrets: %w", unavailable(err))
		}
		s.UpdatedAt = s.UpdatedAt.UTC()
		all = append(all, s)
	}
	return all, rows.Err()
}
