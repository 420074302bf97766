package schema

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/lib/pq"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/daead"
	"github.com/tink-crypto/tink-go/v2/daead/aessiv"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"
	"github.com/tink-crypto/tink-go/v2/secretdata"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

const (
	// KeyFreshness is how long a process may seal under a subject's key without looking whether the subject has been
	// erased. What it seals in that time nobody can open, because opening always looks.
	KeyFreshness = 2 * time.Second

	// keysCached bounds the subject keys that a process holds, at about 1.4 kB each.
	keysCached = 16_384

	// keysPerQuery bounds the size of one statement.
	keysPerQuery = 4_096

	// keyAttempts bounds how often a batch of keys is asked for again after losing a race: against another process
	// that made one of them, or against a rotation. Each loss means that somebody else has got further, so one retry is
	// the rule.
	keyAttempts = 5

	// subjectKeySize is the length of an AES-256-SIV key in bytes: one half authenticates, the other encrypts.
	subjectKeySize = 64

	// sealedFormat is the first byte of everything sealed. 1: AES-256-SIV under the subject's key, with this byte,
	// the subject and the caller's associated data as associated data.
	sealedFormat = 1
)

var (
	// ErrVault is the parent of all that can be wrong with a sealed value.
	ErrVault = errors.New("vault")

	// ErrErased says that the person was erased: the key is destroyed, and nothing sealed under it can be read again.
	ErrErased = fmt.Errorf("%w: subject erased", ErrVault)

	// ErrNoKey says that nothing was ever sealed for this subject, or that the subject is not among those that the
	// Sealer or Opener was made for.
	ErrNoKey = fmt.Errorf("%w: no key for this subject", ErrVault)

	// ErrTampered says that a sealed value is not what was sealed: changed, cut short, or offered with another subject or
	// other associated data.
	ErrTampered = fmt.Errorf("%w: sealed value does not open", ErrVault)
)

// Vault keeps personal data readable for as long as it may be, and no longer. Each person (subject) has a key; what
// concerns the person is sealed under it, and erasing the person destroys the key. The vault also holds the named secrets
// that targets authenticate with, and hashes contact addresses.
//
// A Vault is safe for concurrent use, and many processes may share one database.
type Vault struct {
	db     *sql.DB
	master MasterKey
	clock  func() time.Time

	contact, fingerprint *prf.Set // never change once there

	asks *Prepared

	mu       sync.RWMutex
	wrapping map[int]tink.AEAD // guarded by mu; by wrapping_keys.id
	newest   int               // guarded by mu; the one that wraps what is new

	keys    *lru.Cache[uuid.UUID, subjectKey]
	periods periods
	secrets *lru.Cache[string, cachedSecret]
}

// subjectKey is one person's key as read at some time, or the news that there is none any more.
type subjectKey struct {
	primitive tink.DeterministicAEAD // nil once the person is erased
	wrapped   []byte                 // as it is stored: while that is the same, so is the key
	readAt    time.Time
}

// OpenVault opens the vault of a migrated database. The first process to do so makes the vault's keys, under master.
//
// A database that was sealed under another master key is refused with [ErrMasterKey]. The vault may be used for as long
// as db is; it needs no closing.
func OpenVault(ctx context.Context, db *sql.DB, master MasterKey, clock func() time.Time) (*Vault, error) {
	v := &Vault{db: db, asks: NewPrepared(db), master: master, clock: clock}
	var err error
	if v.keys, err = lru.New[uuid.UUID, subjectKey](keysCached); err != nil {
		return nil, err
	}
	if v.secrets, err = lru.New[string, cachedSecret](secretsCached); err != nil {
		return nil, err
	}
	switch err := v.open(ctx); {
	case errors.Is(err, ErrMasterKey): // even where a key management service timed out: the database is well
		return nil, fmt.Errorf("open vault: %w", err)
	case err != nil:
		return nil, fmt.Errorf("open vault: %w", unavailable(err))
	}
	return v, nil
}

func (v *Vault) open(ctx context.Context) (err error) {
	if err := v.loadWrappingKeys(ctx); err != nil {
		return err
	}
	if v.newest == 0 {
		if err := v.makeKeys(ctx); err != nil {
			return err
		}
		if err := v.loadWrappingKeys(ctx); err != nil {
			return err
		}
	}
	if v.contact, err = v.hashKey(ctx, purposeContact); err != nil {
		return err
	}
	v.fingerprint, err = v.hashKey(ctx, purposeFingerprint)
	return err
}

// The purposes of hash_keys. Each key is used for the one thing alone.
const (
	purposeContact     = "contact"
	purposeFingerprint = "fingerprint"
)

// makeKeys gives an empty vault its keys. All of them or none: a vault that has lost its contact key must not be given
// another, because every hash in the ledger was made with the first.
func (v *Vault) makeKeys(ctx context.Context) error {
	tx, err := v.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()

	if made, err := v.addWrappingKey(ctx, tx, 1); err != nil || !made {
		return err // not made: another process got here first and has made them all
	}
	var used bool
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM hash_keys) OR EXISTS (SELECT FROM subject_keys)`).Scan(&used); err != nil {
		return err
	}
	if used {
		return fmt.Errorf("%w: the wrapping keys are missing: restore table wrapping_keys from a backup", ErrVault)
	}
	for _, purpose := range []string{purposeContact, purposeFingerprint} {
		handle, err := keyset.NewHandle(prf.HMACSHA256PRFKeyTemplate())
		if err != nil {
			return err
		}
		wrapped, label, err := v.master.wrap(handle, hashKeyName(purpose))
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO hash_keys (purpose, wrapped, master, created_at) VALUES ($1, $2, $3, $4)`,
			purpose, wrapped, label, v.clock()); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// addWrappingKey stores a new wrapping key under the given number. It reports false when somebody else has taken the
// number.
func (v *Vault) addWrappingKey(ctx context.Context, tx *sql.Tx, id int) (bool, error) {
	handle, err := newWrappingKey()
	if err != nil {
		return false, err
	}
	wrapped, label, err := v.master.wrap(handle, wrappingKeyName(id))
	if err != nil {
		return false, err
	}
	result, err := tx.ExecContext(ctx,
		`INSERT INTO wrapping_keys (id, wrapped, master, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING`,
		id, wrapped, label, v.clock())
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n == 1, err
}

func wrappingKeyName(id int) string     { return fmt.Sprintf("dispatch-ledger/vault/wrapping/%d", id) }
func hashKeyName(purpose string) string { return "dispatch-ledger/vault/hash/" + purpose }

// loadWrappingKeys brings the wrapping keys in memory up to date with the table.
func (v *Vault) loadWrappingKeys(ctx context.Context) error {
	rows, err := v.db.QueryContext(ctx, `SELECT id, wrapped, master FROM wrapping_keys ORDER BY id`)
	if err != nil {
		return err
	}
	defer rows.Close()

	v.mu.RLock()
	known := v.wrapping
	v.mu.RUnlock()

	loaded, newest := make(map[int]tink.AEAD), 0
	for rows.Next() {
		var (
			id      int
			wrapped []byte
			label   string
		)
		if err := rows.Scan(&id, &wrapped, &label); err != nil {
			return err
		}
		if loaded[id] = known[id]; loaded[id] == nil {
			handle, err := v.master.unwrap(wrapped, label, wrappingKeyName(id))
			if err != nil {
				return err
			}
			if loaded[id], err = aead.New(handle); err != nil {
				return err
			}
		}
		newest = id
	}
	if err := rows.Err(); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	// A slower reader must not put back what a faster one has replaced.
	if newest >= v.newest {
		v.wrapping, v.newest = loaded, newest
	}
	return nil
}

// wrappingKey returns the wrapping key with the given number, looking in the table once if it is not known yet.
func (v *Vault) wrappingKey(ctx context.Context, id int) (tink.AEAD, error) {
	for attempt := range 2 {
		v.mu.RLock()
		key := v.wrapping[id]
		v.mu.RUnlock()
		if key != nil {
			return key, nil
		}
		if attempt == 0 {
			if err := v.loadWrappingKeys(ctx); err != nil {
				return nil, err
			}
		}
	}
	return nil, fmt.Errorf("%w: wrapping key %d is missing: restore table wrapping_keys from a backup", ErrVault, id)
}

// newestWrappingKey returns the key that wraps what is new, and its number.
func (v *Vault) newestWrappingKey() (int, tink.AEAD) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.newest, v.wrapping[v.newest]
}

func (v *Vault) hashKey(ctx context.Context, purpose string) (*prf.Set, error) {
	var (
		wrapped []byte
		label   string
	)
	err := v.db.QueryRowContext(ctx, `SELECT wrapped, master FROM hash_keys WHERE purpose = $1`, purpose).Scan(&wrapped, &label)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("%w: the %s key is missing: restore table hash_keys from a backup", ErrVault, purpose)
	}
	if err != nil {
		return nil, err
	}
	handle, err := v.master.unwrap(wrapped, label, hashKeyName(purpose))
	if err != nil {
		return nil, err
	}
	return prf.NewPRFSet(handle)
}

// ContactHash is how a contact address appears in the ledger: HMAC-SHA256 of channel and normalised address (e-mail
// lower-cased and trimmed, phone in E.164), 32 bytes, under a key that does nothing else. It survives the person's erasure, so
// that an opt-out is still honoured, and says nothing to whoever does not hold the key.
func (v *Vault) ContactHash(channel, normalisedAddress string) []byte {
	return hash(v.contact, channel, normalisedAddress)
}

// AddressHash normalises an address and hashes it. The error is that of [domain.NormalizeAddress]: it is none.
func (v *Vault) AddressHash(c domain.Channel, address string) (domain.ContactHash, error) {
	normalised, err := domain.NormalizeAddress(c, address)
	if err != nil {
		return domain.ContactHash{}, err
	}
	return domain.ContactHash{Channel: c, Hash: hex.EncodeToString(v.ContactHash(string(c), normalised))}, nil
}

// hash is a keyed hash of two strings, of which the first contains no NUL.
func hash(key *prf.Set, first, second string) []byte {
	sum, err := key.ComputePrimaryPRF([]byte(first+"\x00"+second), 32)
	if err != nil {
		panic("HMAC-SHA256 has 32 bytes to give: " + err.Error()) // fails for longer outputs only
	}
	return sum
}

// Sealer returns what seals for the given subjects, and makes a key for each that has none. Keys that this process has
// read within [KeyFreshness] are used as they are; for the others there is one round trip, however many they are.
//
// An erased subject is no error here: sealing for it is [ErrErased], and the rest of the batch goes on. The keys are
// committed at once, on a connection of the vault's own: do not call Sealer while a transaction that has just erased one
// of its subjects is open.
func (v *Vault) Sealer(ctx context.Context, subjects []uuid.UUID) (Sealer, error) {
	now := v.clock()
	keys := make(map[uuid.UUID]subjectKey, len(subjects))
	missing := make(map[uuid.UUID]struct{})
	for _, subject := range subjects {
		if subject == uuid.Nil {
			continue // nobody: an event without a subject
		}
		key, ok := v.keys.Get(subject)
		if ok && (key.primitive == nil || now.Sub(key.readAt) < KeyFreshness) {
			keys[subject] = key
		} else {
			missing[subject] = struct{}{}
		}
	}
	// Sorted, so that two batches which make the same keys wait for each other and never in a circle.
	for batch := range slices.Chunk(slices.SortedFunc(maps.Keys(missing), compareUUID), keysPerQuery) {
		if err := v.ensure(ctx, batch, keys); err != nil {
			return Sealer{}, fmt.Errorf("subject keys: %w", unavailable(err))
		}
	}
	return Sealer{keys: keys}, nil
}

func compareUUID(a, b uuid.UUID) int { return cmp.Compare(string(a[:]), string(b[:])) }

// ensureKeysSQL finds the keys of subjects $1 and makes those that are missing, of the candidates $2 wrapped under $3.
//
// A subject is absent from the answer if another process made its key after this statement began (DO NOTHING: the first
// key is the key), or if $3 is no longer the newest wrapping key. The caller asks again.
const ensureKeysSQL = `
WITH known AS (
    SELECT subject, wrapping_key, wrapped FROM subject_keys WHERE subject = ANY ($1::uuid[])
), made AS (
    INSERT INTO subject_keys (subject, wrapping_key, wrapped, created_at)
    SELECT c.subject, $3, c.wrapped, $4
    FROM unnest($1::uuid[], $2::bytea[]) AS c (subject, wrapped)
    WHERE NOT EXISTS (SELECT FROM known k WHERE k.subject = c.subject) AND $3 = (SELECT max(id) FROM wrapping_keys)
    ON CONFLICT (subject) DO NOTHING
    RETURNING subject, wrapping_key, wrapped
)
SELECT subject, wrapping_key, wrapped FROM known UNION ALL SELECT subject, wrapping_key, wrapped FROM made`

// ensure adds the keys of the given subjects to keys and to the cache.
func (v *Vault) ensure(ctx context.Context, subjects []uuid.UUID, keys map[uuid.UUID]subjectKey) error {
	for range keyAttempts {
		id, wrapping := v.newestWrappingKey()
		candidates := make([][]byte, len(subjects))
		for i, subject := range subjects {
			secret, err := secretdata.NewBytesFromRand(subjectKeySize)
			if err != nil {
				return err
			}
			if candidates[i], err = wrapping.Encrypt(secret.Data(insecuresecretdataaccess.Token{}), subjectKeyName(subject)); err != nil {
				return err
			}
		}
		now := v.clock()
		rows, err := v.asks.QueryContext(ctx, ensureKeysSQL, UUIDs(subjects), byteas(candidates), id, now)
		if err == nil {
			err = v.read(ctx, rows, func(subject uuid.UUID, key subjectKey) { keys[subject] = key })
		}
		if err != nil && !violatesForeignKey(err) { // a foreign key: the wrapping key was rotated away meanwhile
			return err
		}
		subjects = slices.DeleteFunc(slices.Clone(subjects), func(s uuid.UUID) bool { _, ok := keys[s]; return ok })
		if len(subjects) == 0 {
			return nil
		}
		if err := v.loadWrappingKeys(ctx); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: %d keys still missing after %d attempts: another process keeps changing them; try again", ErrVault, len(subjects), keyAttempts)
}

// read calls found with each key in rows, which it closes, and remembers it: whoever reads what was sealed for a person often
// seals something for them next.
func (v *Vault) read(ctx context.Context, rows *sql.Rows, found func(uuid.UUID, subjectKey)) error {
	type row struct {
		subject  uuid.UUID
		wrapping sql.NullInt32
		wrapped  []byte
	}
	defer rows.Close()
	readAt := v.clock()
	var all []row // first all the rows, then the keys: finding a wrapping key may need the connection
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.subject, &r.wrapping, &r.wrapped); err != nil {
			return err
		}
		all = append(all, r)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, r := range all {
		key := subjectKey{wrapped: r.wrapped, readAt: readAt}
		if known, ok := v.keys.Peek(r.subject); r.wrapping.Valid && ok && known.primitive != nil && bytes.Equal(known.wrapped, r.wrapped) {
			key.primitive = known.primitive // unwrapping it again would give the same, for more than opening what it sealed costs
		} else if r.wrapping.Valid {
			wrapping, err := v.wrappingKey(ctx, int(r.wrapping.Int32))
			if err != nil {
				return err
			}
			if key.primitive, err = openSubjectKey(wrapping, r.subject, r.wrapped); err != nil {
				return err
			}
		}
		v.keys.Add(r.subject, key)
		found(r.subject, key)
	}
	return nil
}

// openSubjectKey turns a stored key into what seals and opens.
func openSubjectKey(wrapping tink.AEAD, subject uuid.UUID, wrapped []byte) (tink.DeterministicAEAD, error) {
	secret, err := wrapping.Decrypt(wrapped, subjectKeyName(subject))
	if err != nil {
		return nil, fmt.Errorf("%w: the stored key of subject %s", ErrTampered, subject)
	}
	return deterministic(secret)
}

// deterministic makes of a key's 64 bytes what seals and opens.
func deterministic(secret []byte) (tink.DeterministicAEAD, error) {
	parameters, err := aessiv.NewParameters(subjectKeySize, aessiv.VariantNoPrefix)
	if err != nil {
		return nil, err
	}
	key, err := aessiv.NewKey(secretdata.NewBytesFromData(secret, insecuresecretdataaccess.Token{}), 0, parameters)
	if err != nil {
		return nil, err
	}
	manager := keyset.NewManager()
	id, err := manager.AddKey(key)
	if err != nil {
		return nil, err
	}
	if err := manager.SetPrimary(id); err != nil {
		return nil, err
	}
	handle, err := manager.Handle()
	if err != nil {
		return nil, err
	}
	return daead.New(handle)
}

// subjectKeyName binds a wrapped key to its subject.
func subjectKeyName(subject uuid.UUID) []byte { return append([]byte("subject\x00"), subject[:]...) }

const findKeysSQL = `SELECT subject, wrapping_key, wrapped FROM subject_keys WHERE subject = ANY ($1::uuid[])`

// Opener returns what opens for the given subjects. It reads their keys from the database each time, in one round trip:
// once an erasure has committed, no Opener made afterwards, in any process, opens anything of that person.
//
// An erased subject is no error here; opening for it is [ErrErased]. No key is made; opening for a subject that never had
// one is [ErrNoKey].
func (v *Vault) Opener(ctx context.Context, subjects []uuid.UUID) (Opener, error) {
	keys := make(map[uuid.UUID]subjectKey, len(subjects))
	for batch := range slices.Chunk(subjects, keysPerQuery) {
		rows, err := v.asks.QueryContext(ctx, findKeysSQL, UUIDs(batch))
		if err == nil {
			err = v.read(ctx, rows, func(subject uuid.UUID, key subjectKey) { keys[subject] = key })
		}
		if err != nil {
			return Opener{}, fmt.Errorf("subject keys: %w", unavailable(err))
		}
	}
	return Opener{keys: keys}, nil
}

// Sealer seals for the subjects it was made for. Make one for each batch of work and let it go afterwards. It does no I/O and
// is safe for concurrent use; the zero Sealer knows no subject.
type Sealer struct{ keys map[uuid.UUID]subjectKey }

// Seal encrypts plaintext for subject. The same subject, associated data and plaintext give the same bytes, so that a
// repeated event is the same event: associatedData must be the event's id (or something else that is unique to what is
// sealed), and opening needs it again. The result is 17 bytes longer than plaintext and begins with a format version.
//
// Errors: [ErrErased]; [ErrNoKey] when the Sealer was not made for the subject.
func (s Sealer) Seal(subject uuid.UUID, associatedData, plaintext []byte) ([]byte, error) {
	key, err := usable(s.keys, subject)
	if err != nil {
		return nil, err
	}
	ciphertext, err := key.EncryptDeterministically(plaintext, bind(subject, associatedData))
	if err != nil {
		return nil, fmt.Errorf("%w: seal: %w", ErrVault, err)
	}
	return append([]byte{sealedFormat}, ciphertext...), nil
}

// Opener opens what was sealed for the subjects it was made for. Make one for each batch of work and let it go afterwards:
// it does not hear of later erasures. It does no I/O and is safe for concurrent use; the zero Opener knows no subject.
type Opener struct{ keys map[uuid.UUID]subjectKey }

// Open decrypts what [Sealer.Seal] returned for the same subject and associated data.
//
// Errors: [ErrErased]; [ErrNoKey]; [ErrTampered] when anything differs from what was sealed.
func (o Opener) Open(subject uuid.UUID, associatedData, sealed []byte) ([]byte, error) {
	key, err := usable(o.keys, subject)
	if err != nil {
		return nil, err
	}
	if len(sealed) == 0 || sealed[0] != sealedFormat {
		return nil, fmt.Errorf("%w: unknown format", ErrTampered)
	}
	plaintext, err := key.DecryptDeterministically(sealed[1:], bind(subject, associatedData))
	if err != nil {
		return nil, ErrTampered
	}
	return plaintext, nil
}

func usable(keys map[uuid.UUID]subjectKey, subject uuid.UUID) (tink.DeterministicAEAD, error) {
	key, ok := keys[subject]
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: %s", ErrNoKey, subject)
	case key.primitive == nil:
		return nil, fmt.Errorf("%w: %s", ErrErased, subject)
	}
	return key.primitive, nil
}

// bind is the associated data of a sealed value: format and subject have fixed lengths, so that no two combinations agree.
func bind(subject uuid.UUID, associatedData []byte) []byte {
	return slices.Concat([]byte{sealedFormat}, subject[:], associatedData)
}

// Erase destroys the subject's key in the caller's transaction: once it commits, nothing sealed for the subject can be
// opened, here or anywhere, and nothing can be sealed for it again. A tombstone stays, with the time, who asked for it (by)
// and why (reason); neither may contain personal data, and neither may be empty.
//
// A subject that never had a key is erased too, so that none is made later. A subject that is erased already is
// [ErrErased]: the first erasure stands and the transaction is still good.
//
// What is left of the key is its old row version on disk until vacuum passes, and the backups and write-ahead log of
// before: wrapped, and beyond reading once the master key of that time is replaced ([Vault.Rotate]) and destroyed.
func (v *Vault) Erase(ctx context.Context, tx *sql.Tx, subject uuid.UUID, by, reason string) error {
	if subject == uuid.Nil || subject == Nobody {
		return fmt.Errorf("%w: erase %s: this is nobody", ErrVault, subject)
	}
	if by == "" || reason == "" {
		return fmt.Errorf("%w: erase %s: say who asks for it and why", ErrVault, subject)
	}
	result, err := tx.ExecContext(ctx, `
INSERT INTO subject_keys AS k (subject, created_at, erased_at, erased_by, erased_reason) VALUES ($1, $2, $2, $3, $4)
ON CONFLICT (subject) DO UPDATE
SET wrapping_key = NULL, wrapped = NULL, erased_at = excluded.erased_at, erased_by = excluded.erased_by, erased_reason = excluded.erased_reason
WHERE k.erased_at IS NULL`, subject, v.clock(), by, reason)
	if err != nil {
		return fmt.Errorf("erase %s: %w", subject, unavailable(err))
	}
	v.keys.Remove(subject)
	if n, err := result.RowsAffected(); err != nil || n == 1 {
		return err
	}
	return fmt.Errorf("%w: %s", ErrErased, subject)
}

// Erasure is the tombstone of a person's key.
type Erasure struct {
	Subject    uuid.UUID
	At         time.Time
	By, Reason string
}

// Erasure returns the tombstone of an erased subject, and false for one that is not erased.
func (v *Vault) Erasure(ctx context.Context, subject uuid.UUID) (Erasure, bool, error) {
	e := Erasure{Subject: subject}
	err := v.db.QueryRowContext(ctx, `SELECT erased_at, erased_by, erased_reason FROM subject_keys WHERE subject = $1 AND erased_at IS NOT NULL`,
		subject).Scan(&e.At, &e.By, &e.Reason)
	if errors.Is(err, sql.ErrNoRows) {
		return Erasure{}, false, nil
	}
	if err != nil {
		return Erasure{}, false, fmt.Errorf("look for an erasure: %w", unavailable(err))
	}
	return e, true, nil
}

// violatesForeignKey reports whether PostgreSQL refused a row because what it refers to is gone.
func violatesForeignKey(err error) bool {
	var refusal *pq.Error
	return errors.As(err, &refusal) && refusal.Code.Name() == "foreign_key_violation"
}
