package schema

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/aesgcm"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/secretdata"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// MasterKeyVariable is the environment variable that may hold the master key, in the form that [ParseMasterKey] reads.
const MasterKeyVariable = "DISPATCH_LEDGER_MASTER_KEY"

// masterKeySize is the length of a local master key in bytes, before base64.
const masterKeySize = 32

// ErrMasterKey says that a master key is missing, malformed, or not the one that the database was sealed under.
// The message says what to do about it and never contains key material.
var ErrMasterKey = errors.New("master key")

// KMS is a key management service as Tink sees one. Every Tink KMS client (Google Cloud, AWS, HashiCorp Vault)
// satisfies it.
type KMS interface {
	// GetAEAD returns the key at keyURI as something that encrypts and decrypts.
	GetAEAD(keyURI string) (tink.AEAD, error)
}

// MasterKey wraps the vault's own keys, a handful of them, and is never stored in the database. It comes from a file
// ([LoadOrCreateMasterKey], [LoadMasterKey]), from the environment ([MasterKeyFromEnvironment]) or from a key management
// service ([MasterKeyFromKMS]).
//
// While a master key is being replaced, a MasterKey holds the new one first and the old ones after it: the first wraps,
// all of them open. It is safe for concurrent use, and logs and prints as its fingerprint.
type MasterKey struct {
	wrappers []wrapper
	origin   string // where it came from, for messages: a path, a variable, "key management service"
}

// wrapper is one master key: what it does, and the name it goes by in the database.
type wrapper struct {
	label string // "local:" and a fingerprint, or the key's address in the key management service
	aead  tink.AEAD
}

// ParseMasterKey reads one or more keys of 32 bytes in base64 (standard or URL alphabet, padded or not), separated by
// commas or line breaks; the first wraps, the others only open. Lines that begin with # are ignored. Such a key comes from
// `openssl rand -base64 32`. Anything else is [ErrMasterKey].
func ParseMasterKey(text string) (MasterKey, error) {
	var master MasterKey
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		for item := range strings.SplitSeq(line, ",") {
			if item = strings.TrimSpace(item); item == "" {
				continue
			}
			w, err := localWrapper(item)
			if err != nil {
				return MasterKey{}, fmt.Errorf("%w: key %d: %w", ErrMasterKey, len(master.wrappers)+1, err)
			}
			master.wrappers = append(master.wrappers, w)
		}
	}
	if len(master.wrappers) == 0 {
		return MasterKey{}, fmt.Errorf("%w: empty: make one with `openssl rand -base64 32`", ErrMasterKey)
	}
	return master, nil
}

// localWrapper makes a wrapper of one key in base64. The two things it is used for, wrapping and its own fingerprint,
// get keys of their own by HKDF.
func localWrapper(text string) (wrapper, error) {
	alphabet := base64.RawStdEncoding
	if strings.ContainsAny(text, "-_") {
		alphabet = base64.RawURLEncoding
	}
	key, err := alphabet.DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return wrapper{}, errors.New("not base64: make one with `openssl rand -base64 32`") // the cause would quote the key
	}
	if len(key) != masterKeySize {
		return wrapper{}, fmt.Errorf("%d bytes long, want %d: make one with `openssl rand -base64 32`", len(key), masterKeySize)
	}
	wrapping, err := hkdf.Key(sha256.New, key, nil, "dispatch-ledger/master-key/wrap/1", masterKeySize)
	if err != nil {
		return wrapper{}, err
	}
	fingerprint, err := hkdf.Key(sha256.New, key, nil, "dispatch-ledger/master-key/fingerprint/1", 8)
	if err != nil {
		return wrapper{}, err
	}
	parameters, err := aesgcm.NewParameters(aesgcm.ParametersOpts{
		KeySizeInBytes: masterKeySize, IVSizeInBytes: 12, TagSizeInBytes: 16, Variant: aesgcm.VariantNoPrefix,
	})
	if err != nil {
		return wrapper{}, err
	}
	tinkKey, err := aesgcm.NewKey(secretdata.NewBytesFromData(wrapping, insecuresecretdataaccess.Token{}), 0, parameters)
	if err != nil {
		return wrapper{}, err
	}
	primitive, err := aesgcm.NewAEAD(tinkKey)
	if err != nil {
		return wrapper{}, err
	}
	return wrapper{label: "local:" + hex.EncodeToString(fingerprint), aead: primitive}, nil
}

// MasterKeyFromEnvironment reads [MasterKeyVariable] through lookup ([os.LookupEnv]). It reports false when the variable
// is absent or empty, and [ErrMasterKey] when it holds something that is not a key.
func MasterKeyFromEnvironment(lookup func(string) (string, bool)) (MasterKey, bool, error) {
	text, ok := lookup(MasterKeyVariable)
	if !ok || text == "" {
		return MasterKey{}, false, nil
	}
	master, err := ParseMasterKey(text)
	if err != nil {
		return MasterKey{}, false, fmt.Errorf("%s: %w", MasterKeyVariable, err)
	}
	master.origin = MasterKeyVariable
	return master, true, nil
}

// LoadMasterKey reads a key file, in the form that [ParseMasterKey] reads. A file that is absent, unreadable or malformed
// is [ErrMasterKey].
func LoadMasterKey(path string) (MasterKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return MasterKey{}, fmt.Errorf("%w: %w", ErrMasterKey, err)
	}
	master, err := ParseMasterKey(string(text))
	if err != nil {
		return MasterKey{}, fmt.Errorf("%s: %w", path, err)
	}
	master.origin = path
	return master, nil
}

// LoadOrCreateMasterKey reads the key file at path and makes it, with a random key that only its owner may read, when
// there is none. Of several processes that start at once, one makes the key and all of them use it.
//
// It is meant for the embedded default, where key and database live side by side. Losing the file makes all personal data
// in the database unreadable, for good; a file that others may read is refused.
func LoadOrCreateMasterKey(path string) (MasterKey, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := createMasterKey(path); err != nil {
			return MasterKey{}, fmt.Errorf("%w: create %s: %w", ErrMasterKey, path, err)
		}
	case err != nil:
		return MasterKey{}, fmt.Errorf("%w: %w", ErrMasterKey, err)
	case info.Mode().Perm()&0o077 != 0:
		return MasterKey{}, fmt.Errorf("%w: %s can be read by other users (mode %#o): run chmod 600 %[2]s", ErrMasterKey, path, info.Mode().Perm())
	}
	return LoadMasterKey(path)
}

// createMasterKey puts a new key at path, whole and on disk, unless another process has put one there meanwhile.
func createMasterKey(path string) error {
	key := make([]byte, masterKeySize)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	draft, err := os.CreateTemp(dir, ".master-key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name())
	_, err = fmt.Fprintf(draft, "# The master key of this ledger. Without it, personal data in the database cannot be read. Back it up apart from the database.\n%s\n",
		base64.StdEncoding.EncodeToString(key))
	if err = errors.Join(err, draft.Sync(), draft.Close()); err != nil {
		return err
	}
	// A link, not a rename: it fails where a key exists already, so nobody's key is ever replaced.
	if err := os.Link(draft.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// MasterKeyFromKMS uses a key that never leaves a key management service. The service is asked when a vault is opened or
// rotated, a few times, and not while it works. keyURI is kept in the database, so that a wrong one can be told from an
// outage. A service that does not know the key is [ErrMasterKey].
func MasterKeyFromKMS(kms KMS, keyURI string) (MasterKey, error) {
	primitive, err := kms.GetAEAD(keyURI)
	if err != nil {
		return MasterKey{}, fmt.Errorf("%w: %s: %w", ErrMasterKey, keyURI, err)
	}
	return MasterKey{wrappers: []wrapper{{label: keyURI, aead: primitive}}, origin: "key management service"}, nil
}

// AndPrevious returns a MasterKey that wraps with m and also opens what the previous ones wrapped: what a vault is opened
// with to move it from one master key to another (see [Vault.Rotate]).
func (m MasterKey) AndPrevious(previous ...MasterKey) MasterKey {
	all := MasterKey{wrappers: append([]wrapper(nil), m.wrappers...), origin: m.origin}
	for _, p := range previous {
		all.wrappers = append(all.wrappers, p.wrappers...)
	}
	return all
}

// String is the fingerprint of the key that wraps, or its address in the key management service.
func (m MasterKey) String() string {
	if len(m.wrappers) == 0 {
		return "none"
	}
	return m.wrappers[0].label
}

// GoString keeps %#v from walking into the key.
func (m MasterKey) GoString() string { return "schema.MasterKey(" + m.String() + ")" }

// LogValue logs the fingerprint.
func (m MasterKey) LogValue() slog.Value { return slog.StringValue(m.String()) }

// wrap encrypts a keyset under the first key and says which one that was. name binds the result to its row, so that rows
// cannot be exchanged for one another.
func (m MasterKey) wrap(handle *keyset.Handle, name string) (wrapped []byte, label string, err error) {
	if len(m.wrappers) == 0 {
		return nil, "", fmt.Errorf("%w: none given", ErrMasterKey)
	}
	var buffer bytes.Buffer
	if err := handle.WriteWithAssociatedData(keyset.NewBinaryWriter(&buffer), m.wrappers[0].aead, []byte(name)); err != nil {
		return nil, "", fmt.Errorf("%w: wrap %s under %s: %w", ErrMasterKey, name, m, err)
	}
	return buffer.Bytes(), m.wrappers[0].label, nil
}

// unwrap opens what wrap made. It tells a key that is not at hand from one that is and does not fit.
func (m MasterKey) unwrap(wrapped []byte, label, name string) (*keyset.Handle, error) {
	for _, w := range m.wrappers {
		if w.label != label {
			continue
		}
		handle, err := keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(wrapped)), w.aead, []byte(name))
		if err != nil {
			return nil, fmt.Errorf("%w: %s does not open %s: the row was changed, or the key management service is not answering: %w",
				ErrMasterKey, label, name, err)
		}
		return handle, nil
	}
	origin := ""
	if m.origin != "" {
		origin = " (from " + m.origin + ")"
	}
	return nil, fmt.Errorf("%w: this database is sealed under %s, and the key given is %s%s: give the one it was sealed under, "+
		"as a file or in %s; to change keys, give the new one first and the old one after it, then rotate",
		ErrMasterKey, label, m, origin, MasterKeyVariable)
}

// newWrappingKey makes a key that wraps subject keys and secrets.
func newWrappingKey() (*keyset.Handle, error) { return keyset.NewHandle(aead.AES256GCMKeyTemplate()) }
