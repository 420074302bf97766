package schema_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/tink-crypto/tink-go/v2/testing/fakekms"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func TestParseMasterKey(t *testing.T) {
	t.Parallel()
	one, first := randomMasterKey(t)
	two, second := randomMasterKey(t)
	raw, err := base64.StdEncoding.DecodeString(one)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		text string
		want schema.MasterKey
		bad  bool
	}{
		"as openssl prints it":            {text: one + "\n", want: first},
		"without padding":                 {text: strings.TrimRight(one, "="), want: first},
		"in the URL alphabet":             {text: base64.URLEncoding.EncodeToString(raw), want: first},
		"with a comment above":            {text: "# made on Monday\n" + one, want: first},
		"the new one before the old":      {text: two + "," + one, want: second},
		"one on each line":                {text: one + "\n" + two + "\n", want: first},
		"nothing":                         {text: "", bad: true},
		"a comment only":                  {text: "# here goes the key", bad: true},
		"too short":                       {text: base64.StdEncoding.EncodeToString(raw[:31]), bad: true},
		"too long":                        {text: base64.StdEncoding.EncodeToString(append(raw, 0)), bad: true},
		"a pass phrase":                   {text: "correct horse battery staple", bad: true},
		"a good key and then a damaged":   {text: one + "," + two[1:], bad: true},
		"hexadecimal, which looks base64": {text: fmt.Sprintf("%x", raw), bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := schema.ParseMasterKey(tc.text)
			if tc.bad {
				if !errors.Is(err, schema.ErrMasterKey) {
					t.Fatalf("ParseMasterKey: %v, want ErrMasterKey", err)
				}
				for _, word := range strings.FieldsFunc(tc.text, func(r rune) bool { return r == ',' || r == '\n' }) {
					if strings.Contains(err.Error(), word) {
						t.Errorf("the error quotes the key: %v", err)
					}
				}
				return
			}
			if err != nil || got.String() != tc.want.String() {
				t.Errorf("ParseMasterKey = %v, %v, want %v", got, err, tc.want)
			}
		})
	}
}

func TestMasterKeyPrintsAsItsFingerprint(t *testing.T) {
	t.Parallel()
	text, master := randomMasterKey(t)
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("opened", slog.Any("master", master))
	for name, shown := range map[string]string{
		"%v": fmt.Sprintf("%v", master), "%+v": fmt.Sprintf("%+v", master), "%#v": fmt.Sprintf("%#v", master), "%s": fmt.Sprint(master), "slog": log.String(),
	} {
		if !strings.Contains(shown, master.String()) {
			t.Errorf("%s = %q, want the fingerprint %s", name, shown, master)
		}
		if strings.Contains(shown, text) || strings.Contains(shown, string(raw)) {
			t.Errorf("%s shows the key", name)
		}
	}
	if got := (schema.MasterKey{}).String(); got != "none" {
		t.Errorf("the zero MasterKey prints as %q, want none", got)
	}
}

func TestMasterKeyFile(t *testing.T) {
	t.Parallel()
	t.Run("is made once and read ever after", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "new", "master.key")
		first, err := schema.LoadOrCreateMasterKey(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode = %v, %v, want 0600", info.Mode(), err)
		}
		again, err := schema.LoadOrCreateMasterKey(path)
		if err != nil || again.String() != first.String() {
			t.Errorf("read again = %v, %v, want %v", again, err, first)
		}
		if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
			t.Errorf("files = %v, %v, want the key alone", files, err)
		}
	})
	t.Run("is the same for all who make it at once", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "master.key")
		got := make([]string, 16)
		var group sync.WaitGroup
		for i := range got {
			group.Go(func() {
				master, err := schema.LoadOrCreateMasterKey(path)
				if err != nil {
					t.Error(err)
				}
				got[i] = master.String()
			})
		}
		group.Wait()
		for i := range got {
			if got[i] != got[0] {
				t.Fatalf("starts 0 and %d have keys %s and %s", i, got[0], got[i])
			}
		}
	})
	t.Run("is refused when others may read it", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "master.key")
		if _, err := schema.LoadOrCreateMasterKey(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := schema.LoadOrCreateMasterKey(path); !errors.Is(err, schema.ErrMasterKey) || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("LoadOrCreateMasterKey: %v, want ErrMasterKey with chmod 600", err)
		}
	})
	t.Run("is never overwritten", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "master.key")
		if err := os.WriteFile(path, []byte("half a k"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := schema.LoadOrCreateMasterKey(path); !errors.Is(err, schema.ErrMasterKey) || !strings.Contains(err.Error(), path) {
			t.Errorf("LoadOrCreateMasterKey: %v, want ErrMasterKey that names the file", err)
		}
		if content, err := os.ReadFile(path); err != nil || string(content) != "half a k" {
			t.Errorf("content = %q, %v, want it untouched", content, err)
		}
	})
	t.Run("must be there when it is not ours to make", func(t *testing.T) {
		t.Parallel()
		if _, err := schema.LoadMasterKey(filepath.Join(t.TempDir(), "master.key")); !errors.Is(err, schema.ErrMasterKey) {
			t.Errorf("LoadMasterKey: %v, want ErrMasterKey", err)
		}
	})
}

func TestMasterKeyFromEnvironment(t *testing.T) {
	t.Parallel()
	text, master := randomMasterKey(t)
	for name, tc := range map[string]struct {
		value   string
		want    bool
		wantErr error
	}{
		"a key":   {value: text, want: true},
		"empty":   {value: ""},
		"garbage": {value: "garbage", wantErr: schema.ErrMasterKey},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, ok, err := schema.MasterKeyFromEnvironment(func(name string) (string, bool) { return tc.value, name == schema.MasterKeyVariable })
			if ok != tc.want || !errors.Is(err, tc.wantErr) || ok && got.String() != master.String() {
				t.Errorf("MasterKeyFromEnvironment = %v, %v, %v, want %v, %v", got, ok, err, tc.want, tc.wantErr)
			}
		})
	}
}

func TestVaultOfAnotherMasterKeyIsRefused(t *testing.T) {
	t.Parallel()
	db := pools(t, 1)[0]
	_, right := randomMasterKey(t)
	_, wrong := randomMasterKey(t)
	openVault(t, db, right, newHands())
	_, err := schema.OpenVault(t.Context(), db, wrong, newHands().now)
	if !errors.Is(err, schema.ErrMasterKey) {
		t.Fatalf("OpenVault: %v, want ErrMasterKey", err)
	}
	for _, want := range []string{right.String(), wrong.String(), schema.MasterKeyVariable} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not mention %s: %v", want, err)
		}
	}
	if _, err := schema.OpenVault(t.Context(), db, schema.MasterKey{}, newHands().now); !errors.Is(err, schema.ErrMasterKey) {
		t.Errorf("OpenVault without a key: %v, want ErrMasterKey", err)
	}
	openVault(t, db, wrong.AndPrevious(right), newHands())
}

func TestVaultOnAKeyManagementService(t *testing.T) {
	t.Parallel()
	kms, err := fakekms.NewClient("fake-kms://")
	if err != nil {
		t.Fatal(err)
	}
	uri, err := fakekms.NewKeyURI()
	if err != nil {
		t.Fatal(err)
	}
	remote, err := schema.MasterKeyFromKMS(kms, uri)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := schema.MasterKeyFromKMS(kms, "other-kms://key"); !errors.Is(err, schema.ErrMasterKey) {
		t.Errorf("an address that the service does not know: %v, want ErrMasterKey", err)
	}
	// From a file to the service: a ledger that grows up.
	db := pools(t, 1)[0]
	_, file := randomMasterKey(t)
	jane := uuid.New()
	sealed, err := sealer(t, openVault(t, db, file, newHands()), jane).Seal(jane, nil, []byte("jane"))
	if err != nil {
		t.Fatal(err)
	}
	if err := openVault(t, db, remote.AndPrevious(file), newHands()).Rotate(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got, err := opener(t, openVault(t, db, remote, newHands()), jane).Open(jane, nil, sealed); err != nil || string(got) != "jane" {
		t.Errorf("Open = %q, %v, want jane", got, err)
	}
	if _, err := schema.OpenVault(t.Context(), db, file, newHands().now); !errors.Is(err, schema.ErrMasterKey) {
		t.Errorf("OpenVault with the file that was left behind: %v, want ErrMasterKey", err)
	}
}
