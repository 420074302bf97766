package schema

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"fmt"
	"strconv"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/hybrid"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// fleetKept is how long a key of the fleet outlives its epoch: far longer than anything sealed under it is of use.
const fleetKept = 24 * time.Hour

// FleetKey is what jobs and outcomes of one epoch are sealed under.
type FleetKey struct {
	Epoch     int64
	CreatedAt time.Time
	tink.AEAD
	handle *keyset.Handle
}

// Export writes the key for a dispatcher that may have it. The caller seals it for that dispatcher.
func (k FleetKey) Export() ([]byte, error) {
	var b bytes.Buffer
	if err := insecurecleartextkeyset.Write(k.handle, keyset.NewBinaryWriter(&b)); err != nil {
		return nil, fmt.Errorf("export fleet key %d: %w", k.Epoch, err)
	}
	return b.Bytes(), nil
}

// ImportFleetKey reads what Export wrote.
func ImportFleetKey(epoch int64, exported []byte) (FleetKey, error) {
	handle, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(exported)))
	if err != nil {
		return FleetKey{}, fmt.Errorf("fleet key %d: %w", epoch, err)
	}
	return newFleetKey(epoch, time.Time{}, handle)
}

func newFleetKey(epoch int64, createdAt time.Time, handle *keyset.Handle) (FleetKey, error) {
	primitive, err := aead.New(handle)
	if err != nil {
		return FleetKey{}, fmt.Errorf("fleet key %d: %w", epoch, err)
	}
	return FleetKey{Epoch: epoch, CreatedAt: createdAt, AEAD: primitive, handle: handle}, nil
}

// Fleet is the ledger's side of the keys that it shares with its dispatchers.
type Fleet struct {
	Identity tink.HybridDecrypt // opens what a dispatcher addressed to the ledger
	Public   string             // the other half, as text for those who join
	Keys     map[int64]FleetKey // by epoch
	Newest   FleetKey
}

// fleetKeyName binds a wrapped key of the fleet to its row.
func fleetKeyName(epoch int64) string { return fleetKeyPrefix + strconv.FormatInt(epoch, 10) }

const fleetKeyPrefix = "dispatch-ledger/vault/fleet/"

// Fleet reads the fleet's keys, and makes the first ones if there are none.
func (v *Vault) Fleet(ctx context.Context) (Fleet, error) {
	fleet, err := v.readFleet(ctx)
	if err != nil || fleet.Identity != nil && fleet.Newest.Epoch > 0 {
		return fleet, err
	}
	identity, err := keyset.NewHandle(hybrid.DHKEM_X25519_HKDF_SHA256_HKDF_SHA256_AES_256_GCM_Key_Template())
	if err != nil {
		return Fleet{}, fmt.Errorf("new identity of the fleet: %w", err)
	}
	if err := v.addFleetKey(ctx, v.db, 0, identity); err != nil {
		return Fleet{}, err
	}
	if err := v.nextFleetKey(ctx, v.db, 0); err != nil {
		return Fleet{}, err
	}
	return v.readFleet(ctx)
}

// RotateFleet begins the epoch after the given one, unless somebody else has begun it already, and destroys keys that
// nothing alive is sealed under any more. What was sealed in earlier epochs can still be opened for a day.
func (v *Vault) RotateFleet(ctx context.Context, after int64) (Fleet, error) {
	if err := v.nextFleetKey(ctx, v.db, after); err != nil {
		return Fleet{}, err
	}
	_, err := v.db.ExecContext(ctx, `DELETE FROM fleet_keys k WHERE epoch > 0 AND EXISTS (
		SELECT FROM fleet_keys n WHERE n.epoch = k.epoch + 1 AND n.created_at < $1)`, v.clock().Add(-fleetKept))
	if err != nil {
		return Fleet{}, fmt.Errorf("rotate the fleet's key: %w", unavailable(err))
	}
	return v.readFleet(ctx)
}

func (v *Vault) nextFleetKey(ctx context.Context, q Querier, after int64) error {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return fmt.Errorf("new fleet key: %w", err)
	}
	return v.addFleetKey(ctx, q, after+1, handle)
}

// addFleetKey stores a key; of two processes that make the same epoch's at once, the first one's stays.
func (v *Vault) addFleetKey(ctx context.Context, q Querier, epoch int64, handle *keyset.Handle) error {
	wrapped, label, err := v.master.wrap(handle, fleetKeyName(epoch))
	if err != nil {
		return err
	}
	_, err = q.ExecContext(ctx, `INSERT INTO fleet_keys (epoch, wrapped, master, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		epoch, wrapped, label, v.clock())
	if err != nil {
		return fmt.Errorf("new fleet key: %w", unavailable(err))
	}
	return nil
}

func (v *Vault) readFleet(ctx context.Context) (Fleet, error) {
	rows, err := v.db.QueryContext(ctx, `SELECT epoch, wrapped, master, created_at FROM fleet_keys ORDER BY epoch`)
	if err != nil {
		return Fleet{}, fmt.Errorf("fleet keys: %w", unavailable(err))
	}
	defer rows.Close()
	fleet := Fleet{Keys: map[int64]FleetKey{}}
	for rows.Next() {
		var epoch int64
		var wrapped []byte
		var label string
		var createdAt time.Time
		if err := rows.Scan(&epoch, &wrapped, &label, &createdAt); err != nil {
			return Fleet{}, fmt.Errorf("fleet keys: %w", unavailable(err))
		}
		handle, err := v.master.unwrap(wrapped, label, fleetKeyName(epoch))
		if err != nil {
			return Fleet{}, err
		}
		if epoch == 0 {
			if fleet.Identity, err = hybrid.NewHybridDecrypt(handle); err != nil {
				return Fleet{}, fmt.Errorf("identity of the fleet: %w", err)
			}
			if fleet.Public, err = PublicKeyset(handle); err != nil {
				return Fleet{}, fmt.Errorf("identity of the fleet: %w", err)
			}
			continue
		}
		key, err := newFleetKey(epoch, createdAt, handle)
		if err != nil {
			return Fleet{}, err
		}
		fleet.Keys[epoch], fleet.Newest = key, key
	}
	if err := rows.Err(); err != nil {
		return Fleet{}, fmt.Errorf("fleet keys: %w", unavailable(err))
	}
	return fleet, nil
}

// PublicKeyset writes the public half of a key pair as URL-safe text, for HybridEncrypter.
func PublicKeyset(handle *keyset.Handle) (string, error) {
	public, err := handle.Public()
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := public.WriteWithNoSecrets(keyset.NewBinaryWriter(&b)); err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(b.Bytes()), nil
}

// HybridEncrypter reads a public key that PublicKeyset wrote.
func HybridEncrypter(public string) (tink.HybridEncrypt, error) {
	raw, err := base64.RawURLEncoding.DecodeString(public)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	handle, err := keyset.ReadWithNoSecrets(keyset.NewBinaryReader(bytes.NewReader(raw)))
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return hybrid.NewHybridEncrypt(handle)
}

// rewrapFleetKeys wraps the fleet's keys under the master key, as part of a rotation.
func (v *Vault) rewrapFleetKeys(ctx context.Context, tx *sql.Tx) error {
	_, err := v.rewrapOwn(ctx, tx, `SELECT epoch::text, wrapped, master FROM fleet_keys ORDER BY epoch FOR NO KEY UPDATE`,
		`UPDATE fleet_keys SET wrapped = $2, master = $3 WHERE epoch = $1::bigint`, fleetKeyPrefix)
	return err
}
