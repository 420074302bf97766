package schema_test

import (
	"bytes"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// hands is a clock that stands still until it is moved.
type hands struct {
	mu sync.Mutex
	at time.Time
}

func newHands() *hands { return &hands{at: time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)} }

func (h *hands) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at
}

func (h *hands) move(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at = h.at.Add(d)
}

// pools opens a ledger's database as the service, as n processes would.
func pools(t testing.TB, n int) []*sql.DB {
	t.Helper()
	own := schematest.Open(t)
	dbs := make([]*sql.DB, n)
	for i := range dbs {
		db, err := schema.Connect(own.URL, schema.Options{Role: "ledger_service"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		dbs[i] = db
	}
	return dbs
}

func randomMasterKey(t testing.TB) (text string, master schema.MasterKey) {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	text = base64.StdEncoding.EncodeToString(key)
	master, err := schema.ParseMasterKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return text, master
}

func openVault(t testing.TB, db *sql.DB, master schema.MasterKey, clock *hands) *schema.Vault {
	t.Helper()
	v, err := schema.OpenVault(t.Context(), db, master, clock.now)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// newVault is a vault on a database of its own.
func newVault(t testing.TB) (*schema.Vault, *sql.DB, *hands) {
	t.Helper()
	_, master := randomMasterKey(t)
	db, clock := pools(t, 1)[0], newHands()
	return openVault(t, db, master, clock), db, clock
}

func sealer(t testing.TB, v *schema.Vault, subjects ...uuid.UUID) schema.Sealer {
	t.Helper()
	s, err := v.Sealer(t.Context(), subjects)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func opener(t testing.TB, v *schema.Vault, subjects ...uuid.UUID) schema.Opener {
	t.Helper()
	o, err := v.Opener(t.Context(), subjects)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func erase(t testing.TB, v *schema.Vault, db *sql.DB, subject uuid.UUID) {
	t.Helper()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if err := v.Erase(t.Context(), tx, subject, "privacy-desk", "request 17"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// TestSealedValueOpensOnlyAsItWasSealed is the contract of Seal and Open: whatever was sealed opens to itself; the same
// input gives the same bytes; and with any part of it changed, nothing opens.
func TestSealedValueOpensOnlyAsItWasSealed(t *testing.T) {
	t.Parallel()
	v, _, _ := newVault(t)
	jane, john := uuid.New(), uuid.New()
	seal, open := sealer(t, v, jane, john), opener(t, v, jane, john)

	rapid.Check(t, func(t *rapid.T) {
		plaintext := rapid.SliceOfN(rapid.Byte(), 0, 2_000).Draw(t, "plaintext")
		ad := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "associated data")
		sealed, err := seal.Seal(jane, ad, plaintext)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := open.Open(jane, ad, sealed); err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("Open = %x, %v, want %x", got, err, plaintext)
		}
		if again, err := seal.Seal(jane, ad, plaintext); err != nil || !bytes.Equal(again, sealed) {
			t.Fatalf("sealed again = %x, %v, want %x", again, err, sealed)
		}
		if len(sealed) != len(plaintext)+17 || sealed[0] != 1 {
			t.Fatalf("sealed = %x: want format 1 and 17 bytes more than the %d of the plaintext", sealed, len(plaintext))
		}
		if other, err := seal.Seal(john, ad, plaintext); err != nil || bytes.Equal(other, sealed) {
			t.Fatalf("another person's key seals to the same bytes (%v)", err)
		}

		changed := slices.Clone(sealed)
		changed[rapid.IntRange(0, len(sealed)-1).Draw(t, "changed byte")] ^= byte(rapid.IntRange(1, 255).Draw(t, "change"))
		cut := sealed[:rapid.IntRange(0, len(sealed)-1).Draw(t, "cut to")]
		otherAD := append(slices.Clone(ad), rapid.SliceOfN(rapid.Byte(), 1, 4).Draw(t, "more associated data")...)
		for name, tc := range map[string]struct {
			subject    uuid.UUID
			ad, sealed []byte
		}{
			"another subject":         {john, ad, sealed},
			"other associated data":   {jane, otherAD, sealed},
			"a changed byte":          {jane, ad, changed},
			"cut short":               {jane, ad, cut},
			"something added":         {jane, ad, append(slices.Clone(sealed), 0)},
			"never sealed, but empty": {jane, ad, nil},
		} {
			if got, err := open.Open(tc.subject, tc.ad, tc.sealed); !errors.Is(err, schema.ErrTampered) || got != nil {
				t.Fatalf("%s: Open = %x, %v, want ErrTampered", name, got, err)
			}
		}
	})
}

func TestSealingIsTheSameAcrossProcessesAndRestarts(t *testing.T) {
	t.Parallel()
	dbs := pools(t, 2)
	text, master := randomMasterKey(t)
	jane, ad, plaintext := uuid.New(), []byte("event 1"), []byte(`{"email":"jane@example.com"}`)
	sealed, err := sealer(t, openVault(t, dbs[0], master, newHands()), jane).Seal(jane, ad, plaintext)
	if err != nil {
		t.Fatal(err)
	}
	same, err := schema.ParseMasterKey(text)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := openVault(t, dbs[1], same, newHands())
	if again, err := sealer(t, elsewhere, jane).Seal(jane, ad, plaintext); err != nil || !bytes.Equal(again, sealed) {
		t.Errorf("sealed elsewhere = %x, %v, want %x", again, err, sealed)
	}
	if got, err := opener(t, elsewhere, jane).Open(jane, ad, sealed); err != nil || !bytes.Equal(got, plaintext) {
		t.Errorf("opened elsewhere = %q, %v, want %q", got, err, plaintext)
	}
}

func TestErasedPersonIsSealedAndOpenedNoMore(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dbs := pools(t, 2)
	_, master := randomMasterKey(t)
	clock := newHands()
	here, elsewhere := openVault(t, dbs[0], master, clock), openVault(t, dbs[1], master, clock)
	jane, john, ad := uuid.New(), uuid.New(), []byte("event 1")
	hash := here.ContactHash("email", "jane@example.com")
	sealed, err := sealer(t, here, jane, john).Seal(jane, ad, []byte("jane"))
	if err != nil {
		t.Fatal(err)
	}
	sealer(t, elsewhere, jane, john) // and now elsewhere has the key at hand too

	erase(t, here, dbs[0], jane)

	for name, v := range map[string]*schema.Vault{"in the process that erased": here, "in another process": elsewhere} {
		if got, err := opener(t, v, jane).Open(jane, ad, sealed); !errors.Is(err, schema.ErrErased) {
			t.Errorf("%s, at once: Open = %q, %v, want ErrErased", name, got, err)
		}
	}
	// Where the key was at hand it may seal a little longer, but what it seals nobody opens.
	if late, err := sealer(t, elsewhere, jane).Seal(jane, ad, []byte("late")); err == nil {
		if got, err := opener(t, elsewhere, jane).Open(jane, ad, late); !errors.Is(err, schema.ErrErased) {
			t.Errorf("sealed late: Open = %q, %v, want ErrErased", got, err)
		}
	}
	clock.move(schema.KeyFreshness)
	for name, v := range map[string]*schema.Vault{"in the process that erased": here, "in another process": elsewhere} {
		s := sealer(t, v, jane, john)
		if _, err := s.Seal(jane, ad, []byte("jane")); !errors.Is(err, schema.ErrErased) {
			t.Errorf("%s, after KeyFreshness: Seal: %v, want ErrErased", name, err)
		}
		if _, err := s.Seal(john, ad, []byte("john")); err != nil {
			t.Errorf("%s: one person's erasure stops another's sealing: %v", name, err)
		}
	}
	if got := elsewhere.ContactHash("email", "jane@example.com"); !bytes.Equal(got, hash) {
		t.Errorf("contact hash after erasure = %x, want %x", got, hash)
	}
	got, ok, err := here.Erasure(ctx, jane)
	want := schema.Erasure{Subject: jane, At: clock.now().Add(-schema.KeyFreshness), By: "privacy-desk", Reason: "request 17"}
	if got.At = got.At.UTC(); err != nil || !ok || got != want {
		t.Errorf("Erasure = %+v, %v, %v, want %+v", got, ok, err, want)
	}
	if _, ok, err := here.Erasure(ctx, john); err != nil || ok {
		t.Errorf("Erasure of somebody alive = %v, %v, want none", ok, err)
	}
}

func TestErasure(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	v, db, clock := newVault(t)
	begin := func() *sql.Tx {
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tx.Rollback() })
		return tx
	}

	t.Run("is part of the caller's transaction", func(t *testing.T) {
		jane, ad := uuid.New(), []byte("event 1")
		sealed, err := sealer(t, v, jane).Seal(jane, ad, []byte("jane"))
		if err != nil {
			t.Fatal(err)
		}
		tx := begin()
		if err := v.Erase(ctx, tx, jane, "privacy-desk", "request 17"); err != nil {
			t.Fatal(err)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		if got, err := opener(t, v, jane).Open(jane, ad, sealed); err != nil || string(got) != "jane" {
			t.Errorf("after a rollback: Open = %q, %v, want jane", got, err)
		}
	})
	t.Run("of a person who was never seen keeps him from ever having a key", func(t *testing.T) {
		nobody := uuid.New()
		erase(t, v, db, nobody)
		if _, err := sealer(t, v, nobody).Seal(nobody, nil, []byte("x")); !errors.Is(err, schema.ErrErased) {
			t.Errorf("Seal: %v, want ErrErased", err)
		}
	})
	t.Run("happens once, and the first stands", func(t *testing.T) {
		jane := uuid.New()
		sealer(t, v, jane)
		erase(t, v, db, jane)
		first, _, err := v.Erasure(ctx, jane)
		if err != nil {
			t.Fatal(err)
		}
		clock.move(time.Hour)
		tx := begin()
		if err := v.Erase(ctx, tx, jane, "somebody else", "again"); !errors.Is(err, schema.ErrErased) {
			t.Errorf("second Erase: %v, want ErrErased", err)
		}
		if err := tx.Commit(); err != nil {
			t.Errorf("the transaction of a refused erasure does not commit: %v", err)
		}
		if again, _, err := v.Erasure(ctx, jane); err != nil || again != first {
			t.Errorf("Erasure = %+v, %v, want %+v", again, err, first)
		}
	})
	t.Run("is final in the database too", func(t *testing.T) {
		jane := uuid.New()
		erase(t, v, db, jane)
		_, err := db.Exec(`UPDATE subject_keys SET erased_at = NULL, erased_by = NULL, erased_reason = NULL,
			wrapping_key = 1, wrapped = '\x00' WHERE subject = $1`, jane)
		if err == nil {
			t.Error("an erased subject could be given a key again")
		}
	})
	t.Run("needs somebody and a reason", func(t *testing.T) {
		for _, who := range [][2]string{{"", "request 17"}, {"privacy-desk", ""}} {
			if err := v.Erase(ctx, begin(), uuid.New(), who[0], who[1]); !errors.Is(err, schema.ErrVault) {
				t.Errorf("by %q for %q: %v, want ErrVault", who[0], who[1], err)
			}
		}
	})
	t.Run("is for people", func(t *testing.T) {
		for _, nobody := range []uuid.UUID{uuid.Nil, schema.Nobody} {
			if err := v.Erase(ctx, begin(), nobody, "privacy-desk", "request 17"); !errors.Is(err, schema.ErrVault) {
				t.Errorf("Erase(%s): %v, want ErrVault", nobody, err)
			}
		}
	})
}

func TestSubjectWithoutKey(t *testing.T) {
	t.Parallel()
	v, db, _ := newVault(t)
	jane, john := uuid.New(), uuid.New()
	if _, err := opener(t, v, jane).Open(jane, nil, []byte{1}); !errors.Is(err, schema.ErrNoKey) {
		t.Errorf("Open for somebody never sealed for: %v, want ErrNoKey", err)
	}
	var n int
	if err := db.QueryRow(`SELECT count(*) FROM subject_keys`).Scan(&n); err != nil || n != 0 {
		t.Errorf("opening made %d keys, %v, want none", n, err)
	}
	if _, err := sealer(t, v, jane).Seal(john, nil, []byte("x")); !errors.Is(err, schema.ErrNoKey) {
		t.Errorf("Seal for somebody the Sealer was not made for: %v, want ErrNoKey", err)
	}
	if _, err := sealer(t, v, uuid.Nil).Seal(uuid.Nil, nil, []byte("x")); !errors.Is(err, schema.ErrNoKey) {
		t.Errorf("Seal for nobody: %v, want ErrNoKey", err)
	}
}

// TestManyProcessesAgreeOnOneKey races several vaults, each with connections and a cache of its own, for overlapping batches of
// new people.
func TestManyProcessesAgreeOnOneKey(t *testing.T) {
	t.Parallel()
	const processes, people = 4, 300
	_, master := randomMasterKey(t)
	var all []uuid.UUID
	for range people {
		all = append(all, uuid.New())
	}
	sealed := make([]map[uuid.UUID][]byte, 2*processes)
	var group sync.WaitGroup
	for p, db := range pools(t, processes) {
		for worker := range 2 {
			group.Go(func() {
				v, err := schema.OpenVault(t.Context(), db, master, newHands().now)
				if err != nil {
					t.Error(err)
					return
				}
				mine := make(map[uuid.UUID][]byte)
				sealed[2*p+worker] = mine
				order := slices.Clone(all)
				for i := range order { // each in an order of its own
					j := (i*7 + p*31 + worker*17) % people
					order[i], order[j] = order[j], order[i]
				}
				for batch := range slices.Chunk(order, 40) {
					s, err := v.Sealer(t.Context(), batch)
					if err != nil {
						t.Error(err)
						return
					}
					for _, subject := range batch {
						if mine[subject], err = s.Seal(subject, []byte("ad"), []byte("x")); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
	}
	group.Wait()
	for p := range sealed {
		for _, subject := range all {
			if !bytes.Equal(sealed[p][subject], sealed[0][subject]) {
				t.Fatalf("processes 0 and %d seal differently for %s", p, subject)
			}
		}
	}
}

func TestWrappedKeysCannotBeExchanged(t *testing.T) {
	t.Parallel()
	v, db, clock := newVault(t)
	jane, john := uuid.New(), uuid.New()
	sealer(t, v, jane, john)
	if _, err := db.Exec(`UPDATE subject_keys SET wrapped = (SELECT wrapped FROM subject_keys WHERE subject = $1) WHERE subject = $2`, jane, john); err != nil {
		t.Fatal(err)
	}
	clock.move(schema.KeyFreshness)
	if _, err := v.Opener(t.Context(), []uuid.UUID{john}); !errors.Is(err, schema.ErrTampered) {
		t.Errorf("Opener with another person's key: %v, want ErrTampered", err)
	}
	if _, err := v.Sealer(t.Context(), []uuid.UUID{john}); !errors.Is(err, schema.ErrTampered) {
		t.Errorf("Sealer with another person's key: %v, want ErrTampered", err)
	}
}

func TestContactHash(t *testing.T) {
	t.Parallel()
	v, _, _ := newVault(t)
	other, _, _ := newVault(t)
	hash := v.ContactHash("email", "jane@example.com")
	if len(hash) != 32 {
		t.Errorf("hash has %d bytes, want 32", len(hash))
	}
	for name, different := range map[string][]byte{
		"another address": v.ContactHash("email", "john@example.com"),
		"another channel": v.ContactHash("sms", "jane@example.com"),
		"another ledger":  other.ContactHash("email", "jane@example.com"),
	} {
		if bytes.Equal(different, hash) {
			t.Errorf("%s has the same hash", name)
		}
	}
}

// TestLostKeysAreNotReplaced: a vault whose contact key is gone must not make up another, which would match no hash in
// the ledger.
func TestLostKeysAreNotReplaced(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"contact key lost":  `DELETE FROM hash_keys WHERE purpose = 'contact'`,
		"wrapping key lost": `SET session_replication_role = replica; DELETE FROM wrapping_keys`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, master := randomMasterKey(t)
			db := pools(t, 1)[0]
			db.SetMaxOpenConns(1)
			sealer(t, openVault(t, db, master, newHands()), uuid.New())
			for _, s := range []string{"SET ROLE NONE", damage, "SET ROLE ledger_service"} {
				if _, err := db.Exec(s); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := schema.OpenVault(t.Context(), db, master, newHands().now); !errors.Is(err, schema.ErrVault) {
				t.Errorf("OpenVault: %v, want ErrVault", err)
			}
		})
	}
}

func TestServiceMayNotForgeHistory(t *testing.T) {
	t.Parallel()
	v, db, _ := newVault(t)
	sealer(t, v, uuid.New())
	for _, statement := range []string{
		`DELETE FROM subject_keys`,
		`TRUNCATE subject_keys`,
		`DELETE FROM hash_keys`,
		`UPDATE subject_keys SET subject = gen_random_uuid()`,
		`DELETE FROM wrapping_keys`, // refused for as long as a key depends on it
		`DELETE FROM api_tokens`,
		`UPDATE api_tokens SET role = 'admin'`,
	} {
		if _, err := db.Exec(statement); err == nil {
			t.Errorf("the service may run %s", statement)
		}
	}
	for _, table := range []string{"wrapping_keys", "hash_keys", "subject_keys", "secrets", "secret_versions", "api_tokens"} {
		var may bool
		if err := db.QueryRow(`SELECT has_any_column_privilege('ledger_reader', $1, 'SELECT')`, table).Scan(&may); err != nil || may {
			t.Errorf("ledger_reader may read %s (%v)", table, err)
		}
	}
}

func benchmarkVault(b *testing.B, people int) (*schema.Vault, *hands, []uuid.UUID) {
	b.Helper()
	v, _, clock := newVault(b)
	subjects := make([]uuid.UUID, people)
	for i := range subjects {
		subjects[i] = uuid.New()
	}
	return v, clock, subjects
}

func BenchmarkSeal500Bytes(b *testing.B) {
	v, _, subjects := benchmarkVault(b, 1)
	s, ad, plaintext := sealer(b, v, subjects...), subjects[0][:], make([]byte, 500)
	b.SetBytes(500)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Seal(subjects[0], ad, plaintext); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen500Bytes(b *testing.B) {
	v, _, subjects := benchmarkVault(b, 1)
	ad := subjects[0][:]
	sealed, err := sealer(b, v, subjects...).Seal(subjects[0], ad, make([]byte, 500))
	if err != nil {
		b.Fatal(err)
	}
	o := opener(b, v, subjects...)
	b.SetBytes(500)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := o.Open(subjects[0], ad, sealed); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkKeys is what it costs to get the keys for a batch of people: new ones, known ones that this process holds, and
// known ones that it has to read.
func BenchmarkKeys(b *testing.B) {
	for _, people := range []int{1, 500} {
		b.Run(fmt.Sprintf("sealer/new/%d", people), func(b *testing.B) {
			v, _, subjects := benchmarkVault(b, people)
			for b.Loop() {
				for i := range subjects {
					subjects[i] = uuid.New()
				}
				sealer(b, v, subjects...)
			}
		})
		b.Run(fmt.Sprintf("sealer/held/%d", people), func(b *testing.B) {
			v, _, subjects := benchmarkVault(b, people)
			for b.Loop() {
				sealer(b, v, subjects...)
			}
		})
		b.Run(fmt.Sprintf("sealer/read/%d", people), func(b *testing.B) {
			v, clock, subjects := benchmarkVault(b, people)
			for b.Loop() {
				clock.move(schema.KeyFreshness)
				sealer(b, v, subjects...)
			}
		})
		b.Run(fmt.Sprintf("opener/%d", people), func(b *testing.B) {
			v, _, subjects := benchmarkVault(b, people)
			sealer(b, v, subjects...)
			for b.Loop() {
				opener(b, v, subjects...)
			}
		})
	}
}
