package schema

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/google/uuid"
	"github.com/lib/pq"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// rotationBatch is how many keys one transaction of a rotation re-wraps, and so how many rows it locks at a time.
const rotationBatch = 1_000

// Rotation says how far a rotation has come.
type Rotation struct {
	Done, Total int // keys re-wrapped and keys to re-wrap, in this run
}

// Rotate re-wraps every key and secret: the vault's own keys under the master key that the vault was opened with, and
// everything else under a new wrapping key, batch by batch, while the vault is in use. What is sealed does not change, only
// what the keys are wrapped in. At the end the old wrapping keys are deleted.
//
// It is resumable: a run that was stopped or failed is finished by the next one, on any process. progress, which may be
// nil, is called after each batch.
//
// To replace the master key, start every process with the new one first and the old one after it ([MasterKey.AndPrevious],
// or both in one file or variable), rotate, then take the old one away. Whoever has an old backup and the old master key can
// still read what the backup holds, so destroy that key once no backup has to be restored with it.
func (v *Vault) Rotate(ctx context.Context, progress func(Rotation)) error {
	if progress == nil {
		progress = func(Rotation) {}
	}
	newest, err := v.beginRotation(ctx)
	if err != nil {
		return fmt.Errorf("begin rotation: %w", unavailable(err))
	}
	// If the process stops from here on, everything can be read, through the old wrapping keys or the new one, and the
	// next run goes on with the same new one.
	var state Rotation
	for _, t := range rotated {
		var n int
		if err := v.db.QueryRowContext(ctx, t.count, newest).Scan(&n); err != nil {
			return fmt.Errorf("rotate: %w", unavailable(err))
		}
		state.Total += n
	}
	for {
		for _, t := range rotated {
			if err := v.rewrapAll(ctx, t, newest, &state, progress); err != nil {
				return fmt.Errorf("rotate: %w", unavailable(err))
			}
		}
		// A process that began a statement before the new wrapping key was there may have used an old one since. The
		// foreign keys refuse the deletion then, and there is a little more to do; new statements see the new key.
		_, err := v.db.ExecContext(ctx, `DELETE FROM wrapping_keys WHERE id < $1`, newest)
		if !violatesForeignKey(err) {
			if err != nil {
				return fmt.Errorf("end rotation: %w", unavailable(err))
			}
			return v.loadWrappingKeys(ctx)
		}
	}
}

// beginRotation wraps the vault's own keys under the master key and returns the number of the wrapping key to rotate to:
// a new one, or the one that an unfinished rotation has made.
func (v *Vault) beginRotation(ctx context.Context) (newest int, err error) {
	tx, err := v.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback()

	// Locked, so that of two rotations that begin at once the second finds what the first has made. NO KEY: others may
	// go on referring to these rows.
	names, err := v.rewrapOwn(ctx, tx, `SELECT id::text, wrapped, master FROM wrapping_keys ORDER BY id FOR NO KEY UPDATE`,
		`UPDATE wrapping_keys SET wrapped = $2, master = $3 WHERE id = $1::integer`, "dispatch-ledger/vault/wrapping/")
	if err != nil {
		return 0, err
	}
	if _, err := v.rewrapOwn(ctx, tx, `SELECT purpose, wrapped, master FROM hash_keys ORDER BY purpose FOR NO KEY UPDATE`,
		`UPDATE hash_keys SET wrapped = $2, master = $3 WHERE purpose = $1`, "dispatch-ledger/vault/hash/"); err != nil {
		return 0, err
	}
	if _, err := v.rewrapOwn(ctx, tx, `SELECT purpose, wrapped, master FROM link_keys ORDER BY purpose FOR NO KEY UPDATE`,
		`UPDATE link_keys SET wrapped = $2, master = $3 WHERE purpose = $1`, "dispatch-ledger/vault/links/"); err != nil {
		return 0, err
	}
	if err := v.rewrapSigningKeys(ctx, tx); err != nil {
		return 0, err
	}
	if err := v.rewrapFleetKeys(ctx, tx); err != nil {
		return 0, err
	}
	if err := tx.QueryRowContext(ctx, `SELECT max(id) FROM wrapping_keys`).Scan(&newest); err != nil {
		return 0, err
	}
	if len(names) == 1 {
		newest++
		if _, err := v.addWrappingKey(ctx, tx, newest); err != nil {
			return 0, err
		}
	}
	if err := tx.Commit(); err != nil {
		return 0, err
	}
	return newest, v.loadWrappingKeys(ctx)
}

// rewrapOwn wraps the rows of one of the two tables of vault keys under the master key and returns their names.
func (v *Vault) rewrapOwn(ctx context.Context, tx *sql.Tx, lock, update, prefix string) (names []string, err error) {
	type row struct {
		name, label string
		wrapped     []byte
	}
	rows, err := tx.QueryContext(ctx, lock)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []row
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.name, &r.wrapped, &r.label); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for _, r := range all {
		handle, err := v.master.unwrap(r.wrapped, r.label, prefix+r.name)
		if err != nil {
			return nil, err
		}
		wrapped, label, err := v.master.wrap(handle, prefix+r.name)
		if err != nil {
			return nil, err
		}
		if _, err := tx.ExecContext(ctx, update, r.name, wrapped, label); err != nil {
			return nil, err
		}
		names = append(names, r.name)
	}
	return names, nil
}

// rotatedTable is a table whose rows are encrypted under a wrapping key. Rows are found in the order of their key, and a
// row that is done is found no more.
type rotatedTable struct {
	count  string // how many rows an older wrapping key than $1 still wraps
	lock   string // the first $3 of them from key $2 on: key, version, wrapping key, ciphertext
	update string // rows (keys $2, versions $3) now read $4, under $1
	first  string // before all keys
	name   func(key string, version int64) []byte
}

var rotated = []rotatedTable{
	{
		count: `SELECT count(*) FROM subject_keys WHERE wrapping_key < $1`,
		lock: `SELECT subject::text, 0, wrapping_key, wrapped FROM subject_keys
			WHERE subject >= $2::uuid AND wrapping_key < $1 ORDER BY subject LIMIT $3 FOR NO KEY UPDATE`,
		update: `UPDATE subject_keys k SET wrapping_key = $1, wrapped = u.wrapped
			FROM unnest($2::uuid[], $3::integer[], $4::bytea[]) AS u (subject, version, wrapped) WHERE k.subject = u.subject`,
		first: uuid.Nil.String(),
		name:  func(key string, _ int64) []byte { return subjectKeyName(uuid.MustParse(key)) },
	},
	{
		count: `SELECT count(*) FROM secret_versions WHERE wrapping_key < $1`,
		lock: `SELECT name, version, wrapping_key, sealed FROM secret_versions
			WHERE name >= $2 AND wrapping_key < $1 ORDER BY name, version LIMIT $3 FOR NO KEY UPDATE`,
		update: `UPDATE secret_versions s SET wrapping_key = $1, sealed = u.sealed
			FROM unnest($2::text[], $3::integer[], $4::bytea[]) AS u (name, version, sealed)
			WHERE s.name = u.name AND s.version = u.version`,
		name: func(name string, _ int64) []byte { return secretName(name) },
	},
	{
		count: `SELECT count(*) FROM period_keys WHERE wrapping_key < $1`,
		lock: `SELECT type, day, wrapping_key, wrapped FROM period_keys
			WHERE type >= $2 AND wrapping_key < $1 ORDER BY type, day LIMIT $3 FOR NO KEY UPDATE`,
		update: `UPDATE period_keys k SET wrapping_key = $1, wrapped = u.wrapped
			FROM unnest($2::text[], $3::integer[], $4::bytea[]) AS u (type, day, wrapped)
			WHERE k.type = u.type AND k.day = u.day`,
		name: func(eventType string, day int64) []byte { return period{eventType, Day(day)}.name() },
	},
}

// rewrapAll brings a whole table under the newest wrapping key.
func (v *Vault) rewrapAll(ctx context.Context, t rotatedTable, newest int, state *Rotation, progress func(Rotation)) error {
	wrapping, err := v.wrappingKey(ctx, newest)
	if err != nil {
		return err
	}
	for from := t.first; ; {
		n, last, err := v.rewrapBatch(ctx, t, newest, wrapping, from)
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		from = last
		state.Done += n
		state.Total = max(state.Total, state.Done)
		progress(*state)
	}
}

// rewrapBatch re-wraps up to rotationBatch rows from the given key on, in one transaction. It returns how many they
// were and the key of the last.
func (v *Vault) rewrapBatch(ctx context.Context, t rotatedTable, newest int, wrapping tink.AEAD, from string) (n int, last string, err error) {
	tx, err := v.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, "", err
	}
	defer tx.Rollback()

	rows, err := tx.QueryContext(ctx, t.lock, newest, from, rotationBatch)
	if err != nil {
		return 0, "", err
	}
	defer rows.Close()
	var (
		keys     pq.StringArray
		versions pq.Int64Array
		wrapped  pq.ByteaArray
	)
	for rows.Next() {
		var (
			key          string
			version      int64
			old          int
			ciphertext   []byte
			oldWrapping  tink.AEAD
			plaintextKey []byte
		)
		if err := rows.Scan(&key, &version, &old, &ciphertext); err != nil {
			return 0, "", err
		}
		if oldWrapping, err = v.wrappingKey(ctx, old); err != nil {
			return 0, "", err
		}
		if plaintextKey, err = oldWrapping.Decrypt(ciphertext, t.name(key, version)); err != nil {
			return 0, "", fmt.Errorf("%w: the stored key of %s", ErrTampered, key)
		}
		if ciphertext, err = wrapping.Encrypt(plaintextKey, t.name(key, version)); err != nil {
			return 0, "", err
		}
		keys, versions, wrapped, last = append(keys, key), append(versions, version), append(wrapped, ciphertext), key
	}
	if err := rows.Err(); err != nil {
		return 0, "", err
	}
	if len(keys) == 0 {
		return 0, "", nil
	}
	if _, err := tx.ExecContext(ctx, t.update, newest, keys, versions, wrapped); err != nil {
		return 0, "", err
	}
	return len(keys), last, tx.Commit()
}
