package main

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	vault "github.com/hashicorp/vault/api"
	"github.com/tink-crypto/tink-go-hcvault/v2/integration/hcvault"
	"github.com/tink-crypto/tink-go/v2/core/registry"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// key is the master key: from where it is said to be, from the environment, from a file, or made beside the private database.
func (s *settings) key() (schema.MasterKey, error) {
	if len(s.masterKeyURIs) > 0 {
		for _, place := range s.masterKeyURIs {
			if err := registerKMS(place); err != nil {
				return schema.MasterKey{}, err
			}
		}
		return schema.MasterKeyAt(s.env.lookup, s.masterKeyURIs...)
	}
	if key, ok, err := schema.MasterKeyFromEnvironment(s.env.lookup); ok || err != nil {
		return key, err
	}
	if s.masterKey != "" {
		return schema.LoadMasterKey(s.masterKey)
	}
	if err := os.MkdirAll(s.dataDir, 0o700); err != nil {
		return schema.MasterKey{}, fmt.Errorf("make the data directory: %w", err)
	}
	return schema.LoadOrCreateMasterKey(filepath.Join(s.dataDir, "master.key"))
}

const hcvaultScheme = "hcvault://"

// registerKMS makes the key management service of an address known to Tink. HashiCorp Vault's client takes its token, its CA
// and the rest from the variables that Vault's own tools read (VAULT_TOKEN, VAULT_CACERT, VAULT_NAMESPACE, …); the host is the
// address's, by HTTPS unless VAULT_ADDR names the same host otherwise.
func registerKMS(place string) error {
	if !strings.HasPrefix(place, hcvaultScheme) {
		return nil
	}
	if _, err := registry.GetKMSClient(place); err == nil {
		return nil // registered already
	}
	at, err := url.Parse(place)
	if err != nil || at.Host == "" || at.User != nil {
		return usagef("--master-key-uri %q is no address such as hcvault://vault.example.com:8200/transit/keys/ledger", place)
	}
	config := vault.DefaultConfig()
	if config.Error != nil {
		return fmt.Errorf("%w: HashiCorp Vault's settings: %w", schema.ErrMasterKey, config.Error)
	}
	if given, err := url.Parse(config.Address); err != nil || given.Host != at.Host {
		config.Address = "https://" + at.Host
	}
	client, err := vault.NewClient(config)
	if err != nil {
		return fmt.Errorf("%w: HashiCorp Vault: %w", schema.ErrMasterKey, err)
	}
	kms, err := hcvault.NewClientWithAEADOptions(hcvaultScheme+at.Host+"/", client.Logical())
	if err != nil {
		return fmt.Errorf("%w: HashiCorp Vault: %w", schema.ErrMasterKey, err)
	}
	registry.RegisterKMSClient(kms)
	return nil
}
