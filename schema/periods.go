package schema

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/lib/pq"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/secretdata"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// ErrExpired says that the retention of what was sealed has ended: the key of its type and day is destroyed.
var ErrExpired = fmt.Errorf("%w: retention ended", ErrVault)

// periodFormat is the first byte of what is sealed under a key of its event type and day. After it come the day, four
// bytes, and the ciphertext of what the subject's key made: format 1. Both keys are needed to open it.
const periodFormat = 2

// periodHeader is the length of what stands before the ciphertext.
const periodHeader = 1 + 4

// periodFreshness is how long a process may go on opening with a period's key that another has destroyed. The end of a
// retention is a matter of days.
const periodFreshness = time.Minute

// Day counts the days in UTC since 1970-01-01.
type Day int32

// DayOf is the day that a moment lies in.
func DayOf(t time.Time) Day { return Day(math.Floor(float64(t.Unix()) / 86_400)) }

// Start is the day's first moment.
func (d Day) Start() time.Time { return time.Unix(int64(d)*86_400, 0).UTC() }

// String is the date.
func (d Day) String() string { return d.Start().Format(time.DateOnly) }

// period names a key: what is sealed of an event type on a day.
type period struct {
	eventType string
	day       Day
}

// name binds a wrapped key to its period.
func (p period) name() []byte { return fmt.Appendf(nil, "period\x00%s\x00%d", p.eventType, p.day) }

// bind is the associated data of what is sealed in a period; id is the event's, and of fixed length.
func (p period) bind(id []byte) []byte {
	return slices.Concat([]byte{periodFormat}, binary.BigEndian.AppendUint32(nil, uint32(p.day)), id, []byte(p.eventType)) //nolint:gosec // two's complement
}

// periodKey is a period's key as read at some time, or the news that it is destroyed.
type periodKey struct {
	primitive tink.DeterministicAEAD // nil once destroyed
	readAt    time.Time
}

// periods are the period keys that a process holds: few, one for each type of the days that it has to do with.
type periods struct {
	mu   sync.Mutex
	keys map[period]periodKey // guarded by mu
}

// periodsCached bounds them: a year of every type, and more.
const periodsCached = 8_192

func (p *periods) fresh(of period, now time.Time) (periodKey, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key, ok := p.keys[of]
	return key, ok && (key.primitive == nil || now.Sub(key.readAt) < periodFreshness)
}

func (p *periods) put(of period, key periodKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keys == nil || len(p.keys) >= periodsCached {
		p.keys = map[period]periodKey{}
	}
	p.keys[of] = key
}

// ensurePeriodSQL finds the key of period $1, $2 and makes it, of the candidate $3 wrapped under $4, where there is none.
// No row comes back to whoever loses a race or holds an old wrapping key; they ask again.
const ensurePeriodSQL = `
WITH known AS (
    SELECT wrapping_key, wrapped FROM period_keys WHERE type = $1 AND day = $2
), made AS (
    INSERT INTO period_keys (type, day, wrapping_key, wrapped, created_at)
    SELECT $1, $2, $4, $3, $5 WHERE NOT EXISTS (SELECT FROM known) AND $4 = (SELECT max(id) FROM wrapping_keys)
    ON CONFLICT (type, day) DO NOTHING
    RETURNING wrapping_key, wrapped
)
SELECT wrapping_key, wrapped FROM known UNION ALL SELECT wrapping_key, wrapped FROM made`

// ensurePeriod gives the key of a period, and makes it if there is none. The error is ErrExpired once it is destroyed.
func (v *Vault) ensurePeriod(ctx context.Context, of period) (tink.DeterministicAEAD, error) {
	if key, ok := v.periods.fresh(of, v.clock()); ok {
		return key.usable()
	}
	for range keyAttempts {
		id, wrapping := v.newestWrappingKey()
		secret, err := secretdata.NewBytesFromRand(subjectKeySize)
		if err != nil {
			return nil, err
		}
		candidate, err := wrapping.Encrypt(secret.Data(insecuresecretdataaccess.Token{}), of.name())
		if err != nil {
			return nil, err
		}
		var wrappedBy sql.NullInt32
		var wrapped []byte
		err = v.db.QueryRowContext(ctx, ensurePeriodSQL, of.eventType, int32(of.day), candidate, id, v.clock()).Scan(&wrappedBy, &wrapped)
		switch {
		case err == nil:
			key, err := v.keepPeriod(ctx, of, wrappedBy, wrapped)
			if err != nil {
				return nil, err
			}
			return key.usable()
		case !errors.Is(err, sql.ErrNoRows) && !violatesForeignKey(err):
			return nil, fmt.Errorf("period key: %w", unavailable(err))
		}
		if err := v.loadWrappingKeys(ctx); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: the key of %s for %s is still missing after %d attempts: another process keeps changing it; try again",
		ErrVault, of.eventType, of.day, keyAttempts)
}

// keepPeriod unwraps a key as it stands in the table, and keeps it in memory.
func (v *Vault) keepPeriod(ctx context.Context, of period, wrappedBy sql.NullInt32, wrapped []byte) (periodKey, error) {
	key := periodKey{readAt: v.clock()}
	if wrappedBy.Valid {
		wrapping, err := v.wrappingKey(ctx, int(wrappedBy.Int32))
		if err != nil {
			return key, err
		}
		secret, err := wrapping.Decrypt(wrapped, of.name())
		if err != nil {
			return key, fmt.Errorf("%w: the stored key of %s for %s", ErrTampered, of.eventType, of.day)
		}
		if key.primitive, err = deterministic(secret); err != nil {
			return key, err
		}
	}
	v.periods.put(of, key)
	return key, nil
}

func (k periodKey) usable() (tink.DeterministicAEAD, error) {
	if k.primitive == nil {
		return nil, ErrExpired
	}
	return k.primitive, nil
}

// readPeriods gives the keys of periods: from memory those that this process has read lately, the others in one round
// trip. A period that nothing was ever sealed in is absent.
func (v *Vault) readPeriods(ctx context.Context, wanted map[period]struct{}) (map[period]periodKey, error) {
	var types pq.StringArray
	var days pq.Int32Array
	keys := make(map[period]periodKey, len(wanted))
	now := v.clock()
	for of := range wanted {
		if key, ok := v.periods.fresh(of, now); ok {
			keys[of] = key
		} else {
			types, days = append(types, of.eventType), append(days, int32(of.day))
		}
	}
	if len(types) == 0 {
		return keys, nil
	}
	rows, err := v.db.QueryContext(ctx, `SELECT k.type, k.day, k.wrapping_key, k.wrapped
		FROM unnest($1::text[], $2::integer[]) AS w (type, day) JOIN period_keys k USING (type, day)`, types, days)
	if err != nil {
		return nil, fmt.Errorf("period keys: %w", unavailable(err))
	}
	defer rows.Close()
	type row struct {
		of        period
		wrappedBy sql.NullInt32
		wrapped   []byte
	}
	var all []row // first all the rows, then the keys: finding a wrapping key may need the connection
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.of.eventType, &r.of.day, &r.wrappedBy, &r.wrapped); err != nil {
			return nil, fmt.Errorf("period keys: %w", unavailable(err))
		}
		all = append(all, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("period keys: %w", unavailable(err))
	}
	for _, r := range all {
		if keys[r.of], err = v.keepPeriod(ctx, r.of, r.wrappedBy, r.wrapped); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// periodOf reads the period that a sealed value belongs to; false for one of the format before there were any.
func periodOf(eventType string, sealed []byte) (period, bool) {
	if len(sealed) < periodHeader || sealed[0] != periodFormat {
		return period{}, false
	}
	return period{eventType, Day(binary.BigEndian.Uint32(sealed[1:]))}, true //nolint:gosec // two's complement
}

// sealPeriod puts a sealed value under its period's key.
func sealPeriod(key tink.DeterministicAEAD, of period, id, sealed []byte) ([]byte, error) {
	ciphertext, err := key.EncryptDeterministically(sealed, of.bind(id))
	if err != nil {
		return nil, fmt.Errorf("%w: seal: %w", ErrVault, err)
	}
	out := make([]byte, 0, periodHeader+len(ciphertext))
	out = append(out, periodFormat)
	out = binary.BigEndian.AppendUint32(out, uint32(of.day)) //nolint:gosec // two's complement
	return append(out, ciphertext...), nil
}

// openPeriod undoes sealPeriod.
func openPeriod(key tink.DeterministicAEAD, of period, id, sealed []byte) ([]byte, error) {
	plaintext, err := key.DecryptDeterministically(sealed[periodHeader:], of.bind(id))
	if err != nil {
		return nil, ErrTampered
	}
	return plaintext, nil
}

// Expired is what the end of a retention destroyed.
type Expired struct {
	Type string
	Days []Day // whose keys were destroyed, in order
}

// Expire destroys, in the caller's transaction, the keys of an event type for all days before a day. Once it commits,
// nothing sealed of the type on those days can be opened, in this process at once and in others within a minute. What it
// finds destroyed already it leaves out; of two calls at the same time one finds everything.
//
// As with [Vault.Erase], what is left is in dead rows until vacuum passes, and in backups.
func (v *Vault) Expire(ctx context.Context, tx *sql.Tx, eventType string, before Day) (Expired, error) {
	e := Expired{Type: eventType}
	rows, err := tx.QueryContext(ctx, `UPDATE period_keys SET wrapping_key = NULL, wrapped = NULL, destroyed_at = $3
		WHERE type = $1 AND day < $2 AND destroyed_at IS NULL RETURNING day`, eventType, int32(before), v.clock())
	if err != nil {
		return e, fmt.Errorf("expire %s: %w", eventType, unavailable(err))
	}
	defer rows.Close()
	for rows.Next() {
		var day Day
		if err := rows.Scan(&day); err != nil {
			return e, fmt.Errorf("expire %s: %w", eventType, unavailable(err))
		}
		e.Days = append(e.Days, day)
	}
	if err := rows.Err(); err != nil {
		return e, fmt.Errorf("expire %s: %w", eventType, unavailable(err))
	}
	slices.Sort(e.Days)
	v.periods.mu.Lock()
	defer v.periods.mu.Unlock()
	for _, day := range e.Days {
		delete(v.periods.keys, period{eventType, day}) // read again, whether or not the transaction commits
	}
	return e, nil
}
