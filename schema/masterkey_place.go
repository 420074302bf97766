package schema

import (
	"fmt"
	"strings"

	"github.com/tink-crypto/tink-go/v2/core/registry"
)

// MasterKeyAt reads the master key from where it is: a path or file:PATH, env:NAME through lookup ([os.LookupEnv]), or the
// address of a key in a key management service for which a client is registered with Tink (registry.RegisterKMSClient). Of
// several places the first wraps, and what the others wrapped is opened too.
//
// The error is [ErrMasterKey], and says which place it is about.
func MasterKeyAt(lookup func(string) (string, bool), places ...string) (MasterKey, error) {
	var all MasterKey
	for _, place := range places {
		key, err := masterKeyAt(lookup, place)
		if err != nil {
			return MasterKey{}, err
		}
		if len(all.wrappers) == 0 {
			all = key
			continue
		}
		all = all.AndPrevious(key)
	}
	if len(all.wrappers) == 0 {
		return MasterKey{}, fmt.Errorf("%w: no place is given", ErrMasterKey)
	}
	return all, nil
}

func masterKeyAt(lookup func(string) (string, bool), place string) (MasterKey, error) {
	if name, ok := strings.CutPrefix(place, "env:"); ok {
		text, found := lookup(name)
		if !found || text == "" {
			return MasterKey{}, fmt.Errorf("%w: the variable %s is not set", ErrMasterKey, name)
		}
		key, err := ParseMasterKey(text)
		if err != nil {
			return MasterKey{}, fmt.Errorf("%s: %w", name, err)
		}
		key.origin = name
		return key, nil
	}
	if path, ok := strings.CutPrefix(place, "file:"); ok || !strings.Contains(place, "://") {
		return LoadMasterKey(strings.TrimPrefix(path, "//"))
	}
	client, err := registry.GetKMSClient(place)
	if err != nil {
		scheme, _, _ := strings.Cut(place, "://")
		return MasterKey{}, fmt.Errorf("%w: no client for %s:// is built in; a place is a file, env:NAME, or hcvault://HOST/MOUNT/keys/NAME", ErrMasterKey, scheme)
	}
	return MasterKeyFromKMS(client, place)
}
