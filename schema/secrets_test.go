package schema_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func setSecret(t testing.TB, v *schema.Vault, q schema.Querier, name, value string) schema.Secret {
	t.Helper()
	secret, err := v.SetSecret(t.Context(), q, name, value, "ops")
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func readSecret(t testing.TB, v *schema.Vault, name string) schema.Secret {
	t.Helper()
	secret, err := v.Secret(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func TestSecretLives(t *testing.T) {
	t.Parallel()
	v, db, clock := newVault(t)
	const name = "klaviyo_private_key"
	// want checks what Secret returns: version, value, and the value before it ("" for none).
	want := func(when string, version int, current, previous string) {
		t.Helper()
		got := readSecret(t, v, name)
		old, overlap := got.RevealPrevious()
		if got.Name != name || got.Version != version || got.Reveal() != current || old != previous || overlap != (previous != "") {
			t.Errorf("%s: version %d is %q after %q (%v), want version %d: %q after %q", when, got.Version, got.Reveal(), old, overlap, version, current, previous)
		}
	}

	if _, err := v.Secret(t.Context(), name); !errors.Is(err, schema.ErrNoSecret) || !errors.Is(err, schema.ErrNotFound) || !strings.Contains(err.Error(), "secret set "+name) {
		t.Errorf("before it is set: %v, want ErrNoSecret with what to run", err)
	}
	first := setSecret(t, v, db, name, "pk_1")
	want("set", 1, "pk_1", "")
	second := setSecret(t, v, db, name, "pk_2")
	want("changed", 2, "pk_2", "pk_1")
	if again := setSecret(t, v, db, name, "pk_2"); again.Version != 2 || again.Fingerprint != second.Fingerprint {
		t.Errorf("set to what it is = version %d, %s, want version 2, %s", again.Version, again.Fingerprint, second.Fingerprint)
	}
	want("set to what it is", 2, "pk_2", "pk_1")
	if back := setSecret(t, v, db, name, "pk_1"); back.Version != 3 || back.Fingerprint != first.Fingerprint || back.Fingerprint == second.Fingerprint {
		t.Errorf("set back = version %d, %s, want version 3, %s", back.Version, back.Fingerprint, first.Fingerprint)
	}
	want("set back", 3, "pk_1", "pk_2")
	var kept int
	if err := db.QueryRow(`SELECT count(*) FROM secret_versions`).Scan(&kept); err != nil || kept != 2 {
		t.Errorf("values kept = %d, %v, want the current one and the one before", kept, err)
	}

	setSecret(t, v, db, "braze_key", "b1")
	list, err := v.Secrets(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("Secrets = %+v, %v, want two", list, err)
	}
	if list[0].Name != "braze_key" || list[1] != (schema.SecretInfo{
		Name: name, Version: 3, Fingerprint: first.Fingerprint, Overlap: true, UpdatedAt: clock.now(), UpdatedBy: "ops",
	}) {
		t.Errorf("Secrets = %+v, want braze_key and version 3 of %s", list, name)
	}

	for _, wantOld := range []bool{true, false} {
		if got, err := v.EndSecretOverlap(t.Context(), db, name); err != nil || got != wantOld {
			t.Errorf("EndSecretOverlap = %v, %v, want %v", got, err, wantOld)
		}
		want("overlap ended", 3, "pk_1", "")
	}
	for _, wantThere := range []bool{true, false} {
		if got, err := v.DeleteSecret(t.Context(), db, name); err != nil || got != wantThere {
			t.Errorf("DeleteSecret = %v, %v, want %v", got, err, wantThere)
		}
	}
	if _, err := v.Secret(t.Context(), name); !errors.Is(err, schema.ErrNoSecret) {
		t.Errorf("deleted: %v, want ErrNoSecret", err)
	}
	want2 := readSecret(t, v, "braze_key")
	if want2.Reveal() != "b1" {
		t.Errorf("another secret = %q after a deletion, want b1", want2.Reveal())
	}
}

func TestSecretThatCannotBe(t *testing.T) {
	t.Parallel()
	v, db, _ := newVault(t)
	for name, tc := range map[string]struct{ name, value, by string }{
		"no name":              {"", "hunter2", "ops"},
		"a name with a space":  {"klaviyo key", "hunter2", "ops"},
		"a name with a digit":  {"1key", "hunter2", "ops"},
		"a name with a quote":  {`key')`, "hunter2", "ops"},
		"a name too long":      {strings.Repeat("k", 129), "hunter2", "ops"},
		"no value":             {"key", "", "ops"},
		"a value too long":     {"key", strings.Repeat("hunter2", schema.SecretSizeMax/7+1), "ops"},
		"nobody who sets it":   {"key", "hunter2", ""},
		"a name on two lines":  {"key\n", "hunter2", "ops"},
		"a name of other text": {"schlüssel", "hunter2", "ops"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := v.SetSecret(t.Context(), db, tc.name, tc.value, tc.by)
			if !errors.Is(err, schema.ErrInvalidSecret) {
				t.Fatalf("SetSecret: %v, want ErrInvalidSecret", err)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows the value: %v", err)
			}
		})
	}
	longest := strings.Repeat("k", schema.SecretSizeMax)
	setSecret(t, v, db, strings.Repeat("k", 128), longest)
	if got := readSecret(t, v, strings.Repeat("k", 128)).Reveal(); got != longest {
		t.Errorf("the longest value comes back with %d bytes, want %d", len(got), len(longest))
	}
}

func TestSecretShowsAsDots(t *testing.T) {
	t.Parallel()
	v, db, _ := newVault(t)
	setSecret(t, v, db, "key", "hunter1")
	setSecret(t, v, db, "key", "hunter2")
	secret := readSecret(t, v, "key")
	type holder struct {
		Open   schema.Secret
		hidden schema.Secret // fmt reads it
	}
	shown := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%U"} {
		shown[verb] = fmt.Sprintf(verb, secret)
		shown[verb+" of a pointer"] = fmt.Sprintf(verb, &secret)
		shown[verb+" of what holds it"] = fmt.Sprintf(verb, holder{secret, secret})
		shown[verb+" of a list"] = fmt.Sprintf(verb, []schema.Secret{secret})
	}
	encoded, err := json.Marshal(map[string]any{"by value": secret, "by pointer": &secret, "inside": holder{Open: secret}})
	if err != nil {
		t.Fatal(err)
	}
	shown["JSON"] = string(encoded)
	text, err := secret.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	shown["text"], shown["a string"] = string(text), secret.String()
	for name, handler := range map[string]func(*bytes.Buffer) slog.Handler{
		"slog text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"slog JSON": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var log bytes.Buffer
		slog.New(handler(&log)).Info("sent", slog.Any("secret", secret), slog.Any("holder", holder{secret, secret}))
		shown[name] = log.String()
	}
	for name, s := range shown {
		if strings.Contains(s, "hunter") || strings.Contains(strings.ToLower(s), fmt.Sprintf("%x", "hunter")) {
			t.Errorf("%s shows the value: %s", name, s)
		}
		if !strings.Contains(name, "holds") && !strings.Contains(s, "••••") {
			t.Errorf("%s = %s, want ••••", name, s)
		}
	}
	var zero schema.Secret
	if _, ok := zero.RevealPrevious(); ok || zero.Reveal() != "" {
		t.Error("the zero Secret has a value")
	}
}

func TestSecretsAreSealedAtRest(t *testing.T) {
	t.Parallel()
	v, db, clock := newVault(t)
	setSecret(t, v, db, "key", "hunter2-hunter2")
	setSecret(t, v, db, "other", "swordfish")
	var dump string
	if err := db.QueryRow(`SELECT string_agg(s::text || encode(v.sealed, 'escape'), '') FROM secrets s JOIN secret_versions v USING (name)`).Scan(&dump); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(dump, "hunter2") {
		t.Errorf("the tables show the value: %s", dump)
	}
	if _, err := db.Exec(`UPDATE secret_versions SET sealed = (SELECT sealed FROM secret_versions WHERE name = 'other') WHERE name = 'key'`); err != nil {
		t.Fatal(err)
	}
	clock.move(schema.SecretFreshness)
	if got, err := v.Secret(t.Context(), "key"); !errors.Is(err, schema.ErrTampered) {
		t.Errorf("another secret's value under this name = version %d, %v, want ErrTampered", got.Version, err)
	}
}

func TestSecretReachesOtherProcessesInTime(t *testing.T) {
	t.Parallel()
	dbs := pools(t, 2)
	_, master := randomMasterKey(t)
	clock := newHands()
	here, elsewhere := openVault(t, dbs[0], master, clock), openVault(t, dbs[1], master, clock)
	setSecret(t, here, dbs[0], "key", "old")
	readSecret(t, elsewhere, "key")
	setSecret(t, here, dbs[0], "key", "new")
	if got := readSecret(t, here, "key").Reveal(); got != "new" {
		t.Errorf("where it was set = %q, want new at once", got)
	}
	clock.move(schema.SecretFreshness - time.Nanosecond)
	if got := readSecret(t, elsewhere, "key").Reveal(); got != "old" {
		t.Errorf("elsewhere, within SecretFreshness = %q, want what is at hand", got)
	}
	clock.move(time.Nanosecond)
	if got := readSecret(t, elsewhere, "key").Reveal(); got != "new" {
		t.Errorf("elsewhere, after SecretFreshness = %q, want new", got)
	}
	setSecret(t, here, dbs[0], "key", "newer")
	elsewhere.ForgetSecret("key")
	if got := readSecret(t, elsewhere, "key").Reveal(); got != "newer" {
		t.Errorf("elsewhere, told to forget = %q, want newer", got)
	}
}

func TestSecretInATransaction(t *testing.T) {
	t.Parallel()
	v, db, _ := newVault(t)
	setSecret(t, v, db, "key", "kept")
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	setSecret(t, v, tx, "key", "dropped")
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if got := readSecret(t, v, "key"); got.Reveal() != "kept" || got.Version != 1 {
		t.Errorf("after a rollback = version %d, %q, want version 1, kept", got.Version, got.Reveal())
	}
}

// TestSecretSetByMany: every setting is one version; the last two values are kept, and the list agrees with the value.
func TestSecretSetByMany(t *testing.T) {
	t.Parallel()
	const processes, rounds = 4, 15
	dbs := pools(t, processes)
	_, master := randomMasterKey(t)
	versions := make([][]int, processes)
	var group sync.WaitGroup
	for p, db := range dbs {
		v := openVault(t, db, master, newHands())
		group.Go(func() {
			for i := range rounds {
				secret, err := v.SetSecret(t.Context(), db, "key", fmt.Sprintf("%d/%d", p, i), "ops")
				if err != nil {
					t.Error(err)
				}
				versions[p] = append(versions[p], secret.Version)
			}
		})
	}
	group.Wait()
	seen := map[int]bool{}
	for _, mine := range versions {
		for _, n := range mine {
			seen[n] = true
		}
	}
	if len(seen) != processes*rounds || !seen[1] || !seen[processes*rounds] {
		t.Errorf("versions = %v, want 1 to %d, each once", versions, processes*rounds)
	}
	got := readSecret(t, openVault(t, dbs[0], master, newHands()), "key")
	if _, ok := got.RevealPrevious(); !ok || got.Version != processes*rounds {
		t.Errorf("in the end: version %d, previous kept: %v; want version %d with the one before", got.Version, ok, processes*rounds)
	}
}
