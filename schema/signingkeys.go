package schema

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/signature"
	tinked25519 "github.com/tink-crypto/tink-go/v2/signature/ed25519"
	"github.com/tink-crypto/tink-go/v2/tink"
	"golang.org/x/mod/sumdb/note"
)

// SigningKeys are a log's Ed25519 keys.
type SigningKeys struct {
	Signers   []note.Signer   // sign every checkpoint, the oldest first; more than one while keys are being rotated
	Verifiers []note.Verifier // of every key that ever signed, retired ones too
	Public    []string        // the same as text (C2SP signed-note "vkey"), the newest first: what verifiers are given out of band
}

// Origin is the name that a ledger's checkpoints go by unless it is given another: dispatch-ledger/ and its id.
func Origin(ctx context.Context, q Querier) (string, error) {
	var id string
	if err := q.QueryRowContext(ctx, `SELECT ledger_id FROM ledger_settings`).Scan(&id); err != nil {
		return "", fmt.Errorf("origin of the ledger: %w", unavailable(err))
	}
	return "dispatch-ledger/" + id, nil
}

// SigningKeys reads the keys of the log called origin, and makes the first one if there is none. Private keys are
// stored under the vault's master key.
func (v *Vault) SigningKeys(ctx context.Context, origin string) (SigningKeys, error) {
	keys, err := v.readSigningKeys(ctx, origin)
	if err != nil || len(keys.Signers) > 0 {
		return keys, err
	}
	if _, err := v.AddSigningKey(ctx, origin); err != nil {
		return SigningKeys{}, err
	}
	return v.readSigningKeys(ctx, origin)
}

func (v *Vault) readSigningKeys(ctx context.Context, origin string) (SigningKeys, error) {
	var keys SigningKeys
	rows, err := v.db.QueryContext(ctx, `SELECT id, verifier, wrapped, master FROM signing_keys
		WHERE starts_with(id, $1 || '+') ORDER BY created_at, id`, origin)
	if err != nil {
		return keys, fmt.Errorf("signing keys: %w", unavailable(err))
	}
	defer rows.Close()
	for rows.Next() {
		var id, public, label string
		var wrapped []byte
		if err := rows.Scan(&id, &public, &wrapped, &label); err != nil {
			return keys, fmt.Errorf("signing keys: %w", unavailable(err))
		}
		verifier, err := note.NewVerifier(public)
		if err != nil || signingKeyID(verifier) != id {
			return keys, fmt.Errorf("%w: the public signing key %s was changed: restore table signing_keys from a backup", ErrTampered, id)
		}
		keys.Verifiers = append(keys.Verifiers, verifier)
		keys.Public = append([]string{public}, keys.Public...)
		if wrapped == nil {
			continue
		}
		handle, err := v.master.unwrap(wrapped, label, signingKeyName(id))
		if err != nil {
			return keys, err
		}
		signer, err := newSigner(verifier, handle)
		if err != nil {
			return keys, err
		}
		keys.Signers = append(keys.Signers, signer)
	}
	if err := rows.Err(); err != nil {
		return keys, fmt.Errorf("signing keys: %w", unavailable(err))
	}
	return keys, nil
}

// AddSigningKey makes a new key, which from then on signs together with those that are not retired, and returns the public key.
//
// To rotate: add a key, give the new public key to everybody who verifies, and retire the old one when they have it.
// Every checkpoint in between carries both signatures, so whoever trusts either goes on from there.
func (v *Vault) AddSigningKey(ctx context.Context, origin string) (public string, err error) {
	handle, err := keyset.NewHandle(signature.ED25519KeyWithoutPrefixTemplate())
	if err != nil {
		return "", fmt.Errorf("new signing key: %w", err)
	}
	if public, err = publicKey(origin, handle); err != nil {
		return "", fmt.Errorf("new signing key: %w", err)
	}
	verifier, err := note.NewVerifier(public)
	if err != nil {
		return "", fmt.Errorf("new signing key for origin %q: %w (an origin has no spaces and no +)", origin, err)
	}
	id := signingKeyID(verifier)
	wrapped, label, err := v.master.wrap(handle, signingKeyName(id))
	if err != nil {
		return "", err
	}
	if _, err := v.db.ExecContext(ctx, `INSERT INTO signing_keys (id, verifier, wrapped, master, created_at) VALUES ($1, $2, $3, $4, $5)`,
		id, public, wrapped, label, v.clock()); err != nil {
		return "", fmt.Errorf("new signing key: %w", unavailable(err))
	}
	return public, nil
}

// RetireSigningKey destroys the private key that belongs to a public one. Checkpoints that it signed stay verifiable. The last
// key of a log cannot be retired: add its successor first. ErrNotFound is a key that is retired already, or none.
func (v *Vault) RetireSigningKey(ctx context.Context, public string) error {
	verifier, err := note.NewVerifier(public)
	if err != nil {
		return fmt.Errorf("retire signing key: %w", err)
	}
	tx, err := v.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("retire signing key: %w", unavailable(err))
	}
	defer tx.Rollback()
	rows, err := tx.QueryContext(ctx, `SELECT id FROM signing_keys WHERE starts_with(id, $1 || '+') AND wrapped IS NOT NULL ORDER BY id FOR UPDATE`, verifier.Name())
	if err != nil {
		return fmt.Errorf("retire signing key: %w", unavailable(err))
	}
	defer rows.Close()
	alive, found := 0, false
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return fmt.Errorf("retire signing key: %w", unavailable(err))
		}
		alive++
		found = found || id == signingKeyID(verifier)
	}
	switch {
	case rows.Err() != nil:
		return fmt.Errorf("retire signing key: %w", unavailable(rows.Err()))
	case !found:
		return fmt.Errorf("signing key %s: %w", signingKeyID(verifier), ErrNotFound)
	case alive == 1:
		return fmt.Errorf("signing key %s is the only one: add its successor first", signingKeyID(verifier))
	}
	if _, err := tx.ExecContext(ctx, `UPDATE signing_keys SET wrapped = NULL, retired_at = $2 WHERE id = $1`, signingKeyID(verifier), v.clock()); err != nil {
		return fmt.Errorf("retire signing key: %w", unavailable(err))
	}
	return unavailable(tx.Commit())
}

// PublicSigningKeys are the public keys of every log that this database has signed for, retired ones too. They are
// what the database says of itself: whoever has a key from elsewhere should verify with that.
func PublicSigningKeys(ctx context.Context, q Querier) (note.Verifiers, error) {
	rows, err := q.QueryContext(ctx, `SELECT verifier FROM signing_keys`)
	if err != nil {
		return nil, fmt.Errorf("public signing keys: %w", unavailable(err))
	}
	defer rows.Close()
	var all []note.Verifier
	for rows.Next() {
		var public string
		if err := rows.Scan(&public); err != nil {
			return nil, fmt.Errorf("public signing keys: %w", unavailable(err))
		}
		if verifier, err := note.NewVerifier(public); err == nil { // one that does not parse verifies nothing
			all = append(all, verifier)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("public signing keys: %w", unavailable(err))
	}
	return note.VerifierList(all...), nil
}

// signer signs notes with a key that Tink holds.
type signer struct {
	note.Verifier
	tink tink.Signer
}

func newSigner(v note.Verifier, handle *keyset.Handle) (note.Signer, error) {
	s, err := signature.NewSigner(handle)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	return signer{Verifier: v, tink: s}, nil
}

// Sign makes a plain Ed25519 signature: the key's template has no prefix.
func (s signer) Sign(msg []byte) ([]byte, error) { return s.tink.Sign(msg) }

// publicKey writes the public half of a Tink keyset as a note's verifier key.
func publicKey(origin string, handle *keyset.Handle) (string, error) {
	public, err := handle.Public()
	if err != nil {
		return "", err
	}
	entry, err := public.Primary()
	if err != nil {
		return "", err
	}
	key, ok := entry.Key().(*tinked25519.PublicKey)
	if !ok {
		return "", fmt.Errorf("%T is no Ed25519 key", entry.Key())
	}
	return note.NewEd25519VerifierKey(origin, key.KeyBytes())
}

// signingKeyID names a key: its origin and its key id, as a signature line gives them.
func signingKeyID(v note.Verifier) string { return fmt.Sprintf("%s+%08x", v.Name(), v.KeyHash()) }

// signingKeyPrefix binds a wrapped signing key to its row.
const signingKeyPrefix = "dispatch-ledger/vault/signing/"

func signingKeyName(id string) string { return signingKeyPrefix + id }

// rewrapSigningKeys wraps the private keys under the master key, as part of a rotation.
func (v *Vault) rewrapSigningKeys(ctx context.Context, tx *sql.Tx) error {
	_, err := v.rewrapOwn(ctx, tx, `SELECT id, wrapped, master FROM signing_keys WHERE wrapped IS NOT NULL ORDER BY id FOR NO KEY UPDATE`,
		`UPDATE signing_keys SET wrapped = $2, master = $3 WHERE id = $1`, signingKeyPrefix)
	return err
}
