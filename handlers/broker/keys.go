package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// errSealed is a message that none of the keys at hand opens: it is from somebody who is not of the fleet, from before the
// keys that this process was given, or from after its token was revoked.
var errSealed = errors.New("the message is not sealed under a key of this fleet")

// keys are the fleet's keys that this process holds. What it seals is bound to its kind, so that no message can be passed
// off as another.
type keys struct {
	mu     sync.RWMutex
	newest schema.FleetKey
	all    map[int64]schema.FleetKey
}

// set replaces the keys and reports whether the newest is another than before.
func (k *keys) set(newest schema.FleetKey, all map[int64]schema.FleetKey) (changed bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	changed = k.newest.Epoch != newest.Epoch
	k.newest, k.all = newest, maps.Clone(all)
	return changed
}

// epoch is that of the newest key; 0 while there is none.
func (k *keys) epoch() int64 {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.newest.Epoch
}

const epochHeader = "epoch"

// seal makes a message of a value. The same id published twice is one message.
func (k *keys) seal(kind, id string, value any) (*message.Message, error) {
	k.mu.RLock()
	key := k.newest
	k.mu.RUnlock()
	if key.AEAD == nil {
		return nil, fmt.Errorf("%w: this process holds none", errSealed)
	}
	plain, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	sealed, err := key.Encrypt(plain, []byte(kind))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	if id == "" {
		id = uuid.NewString()
	}
	msg := message.NewMessage(id, sealed)
	msg.Metadata.Set(epochHeader, strconv.FormatInt(key.Epoch, 10))
	return msg, nil
}

// open reads what seal made and gives the epoch that it was sealed in.
func (k *keys) open(kind string, msg *message.Message, into any) (epoch int64, err error) {
	epoch, err = strconv.ParseInt(msg.Metadata.Get(epochHeader), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", kind, errSealed)
	}
	k.mu.RLock()
	key, ok := k.all[epoch]
	k.mu.RUnlock()
	if !ok {
		return epoch, fmt.Errorf("%s of epoch %d: %w", kind, epoch, errSealed)
	}
	plain, err := key.Decrypt(msg.Payload, []byte(kind))
	if err != nil {
		return epoch, fmt.Errorf("%s of epoch %d: %w", kind, epoch, errSealed)
	}
	if err := json.Unmarshal(plain, into); err != nil {
		return epoch, fmt.Errorf("%s: %w", kind, err)
	}
	return epoch, nil
}
