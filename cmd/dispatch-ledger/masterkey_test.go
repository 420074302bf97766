package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// transit is as much of HashiCorp Vault as a master key needs: its transit engine's key "ledger", for whoever has the token.
func transit(t *testing.T, token string) (address, uri string) {
	t.Helper()
	var mu sync.Mutex
	kept := map[string][2]string{} // plaintext and associated data by ciphertext
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Plaintext  string `json:"plaintext"`
			Ciphertext string `json:"ciphertext"`
			Associated string `json:"associated_data"`
		}
		w.Header().Set("Content-Type", "application/json")
		refuse := func(status int, why string) {
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(map[string]any{"errors": []string{why}})
		}
		if r.Header.Get("X-Vault-Token") != token {
			refuse(http.StatusForbidden, "permission denied")
			return
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			refuse(http.StatusBadRequest, "no JSON")
			return
		}
		mu.Lock()
		defer mu.Unlock()
		answer := map[string]string{}
		switch r.URL.Path {
		case "/v1/transit/encrypt/ledger":
			answer["ciphertext"] = "vault:v1:" + rand.Text()
			kept[answer["ciphertext"]] = [2]string{in.Plaintext, in.Associated}
		case "/v1/transit/decrypt/ledger":
			found, ok := kept[in.Ciphertext]
			if !ok || found[1] != in.Associated {
				refuse(http.StatusBadRequest, "cipher: message authentication failed")
				return
			}
			answer["plaintext"] = found[0]
		default:
			refuse(http.StatusNotFound, "no such key")
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"data": answer})
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return s.URL, "hcvault://" + u.Host + "/transit/keys/ledger"
}

// TestTheMasterKeyMoves takes a ledger from the key file that it began with to a key management service, and on to the
// environment: each time with the new place first and the old one after it, one rotation, and then without the old one.
func TestTheMasterKeyMoves(t *testing.T) {
	address, uri := transit(t, "good")
	t.Setenv("VAULT_ADDR", address)
	t.Setenv("VAULT_TOKEN", "good")
	t.Setenv("VAULT_MAX_RETRIES", "0")
	key := make([]byte, 32)
	rand.Read(key)
	t.Setenv("LEDGER_KEY", base64.StdEncoding.EncodeToString(key))
	a := &told{t: t, databaseURL: schematest.Open(t).URL, dataDir: t.TempDir()}
	file := filepath.Join(a.dataDir, "master.key")
	does := func(stdin string, args ...string) string {
		t.Helper()
		out, code := a.runs(stdin, args...)
		if code != exitDone {
			t.Fatalf("%v = %d: %s", args, code, out)
		}
		return out
	}
	fails := func(says string, args ...string) {
		t.Helper()
		out, code := a.runs("", args...)
		if code == exitDone || !strings.Contains(out, says) || strings.Contains(out, os.Getenv("LEDGER_KEY")) {
			t.Errorf("%v = %d: %s; want it refused with %q", args, code, out, says)
		}
	}
	does("plantedsecretvalue", "secret", "set", "api_key")
	fails("sealed under local:", "keys", "show", "--master-key-uri", uri)
	if out := does("", "keys", "rotate", "--master-key-uri", uri, "--master-key-uri", file); !strings.Contains(out, "keys, ") || !strings.Contains(out, "rotated: ") {
		t.Errorf("rotating says %q", out)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if out := does("", "keys", "show", "--master-key-uri", uri); !strings.Contains(out, "master key "+uri) {
		t.Errorf("keys show says %q", out)
	}
	fails("sealed under "+uri, "keys", "show") // and makes a file that does not fit
	does("", "keys", "rotate", "--master-key-uri", "env:LEDGER_KEY,"+uri)
	if out := does("", "secret", "list", "--master-key-uri", "env:LEDGER_KEY"); !strings.Contains(out, "api_key") {
		t.Errorf("secret list says %q", out)
	}

	fails("no client for gcp-kms:// is built in", "keys", "show", "--master-key-uri", "gcp-kms://projects/p")
	fails("the variable NOWHERE is not set", "keys", "show", "--master-key-uri", "env:NOWHERE")
	fails("no such file", "keys", "show", "--master-key-uri", "file:"+file+".gone")
	fails("hcvault", "keys", "show", "--master-key-uri", "hcvault:///transit/keys/ledger")
	fails("malformed keyPath", "keys", "show", "--master-key-uri", strings.TrimSuffix(uri, "/keys/ledger"))
	other, otherURI := transit(t, "another")
	t.Setenv("VAULT_ADDR", other)
	fails("permission denied", "keys", "rotate", "--master-key-uri", otherURI, "--master-key-uri", "env:LEDGER_KEY")
}
