package schema_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// sealedThings is what a test seals to see whether it still opens.
type sealedThings map[uuid.UUID][]byte

// sealFor seals something for n people never seen before.
func sealFor(ctx context.Context, v *schema.Vault, n int) (sealedThings, error) {
	subjects := make([]uuid.UUID, n)
	for i := range subjects {
		subjects[i] = uuid.New()
	}
	s, err := v.Sealer(ctx, subjects)
	things := make(sealedThings)
	for _, subject := range subjects {
		if err == nil {
			things[subject], err = s.Seal(subject, []byte("ad"), subject[:])
		}
	}
	return things, err
}

// check opens all, and seals all again to the same bytes.
func (things sealedThings) check(t testing.TB, v *schema.Vault) {
	t.Helper()
	subjects := make([]uuid.UUID, 0, len(things))
	for subject := range things {
		subjects = append(subjects, subject)
	}
	s, o := sealer(t, v, subjects...), opener(t, v, subjects...)
	for subject, sealed := range things {
		if got, err := o.Open(subject, []byte("ad"), sealed); err != nil || !bytes.Equal(got, subject[:]) {
			t.Fatalf("Open for %s = %x, %v", subject, got, err)
		}
		if again, err := s.Seal(subject, []byte("ad"), subject[:]); err != nil || !bytes.Equal(again, sealed) {
			t.Fatalf("Seal again for %s = %x, %v, want %x", subject, again, err, sealed)
		}
	}
}

func wrappingKeys(t testing.TB, db schema.Querier) (ids []int) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `SELECT id FROM wrapping_keys ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return ids
}

// TestRotationKeepsEverythingReadable moves a vault from one master key to the next, any number of times, between sealing and
// erasing.
func TestRotationKeepsEverythingReadable(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db := pools(t, 1)[0]
	_, master := randomMasterKey(t)
	v := openVault(t, db, master, newHands())
	things, erased := sealedThings{}, sealedThings{}

	rapid.Check(t, func(r *rapid.T) {
		more, err := sealFor(t.Context(), v, rapid.IntRange(0, 5).Draw(r, "sealed"))
		if err != nil {
			r.Fatal(err)
		}
		maps.Copy(things, more)
		for range rapid.IntRange(0, 2).Draw(r, "erased") {
			for subject, sealed := range things {
				erase(t, v, db, subject)
				erased[subject] = sealed
				delete(things, subject)
				break
			}
		}
		if rapid.Bool().Draw(r, "rotate") {
			_, next := randomMasterKey(t)
			hash := v.ContactHash("email", "jane@example.com")
			if err := openVault(t, db, next.AndPrevious(master), newHands()).Rotate(ctx, nil); err != nil {
				r.Fatal(err)
			}
			if _, err := schema.OpenVault(ctx, db, master, newHands().now); !errors.Is(err, schema.ErrMasterKey) {
				r.Fatalf("OpenVault with the old master key: %v, want ErrMasterKey", err)
			}
			if ids := wrappingKeys(t, db); len(ids) != 1 {
				r.Fatalf("wrapping keys = %v, want the new one alone", ids)
			}
			v, master = openVault(t, db, next, newHands()), next
			if got := v.ContactHash("email", "jane@example.com"); !bytes.Equal(got, hash) {
				r.Fatalf("contact hash = %x, want %x as before", got, hash)
			}
		}
		things.check(t, v)
		for subject, sealed := range erased {
			if _, err := opener(t, v, subject).Open(subject, []byte("ad"), sealed); !errors.Is(err, schema.ErrErased) {
				r.Fatalf("Open for an erased person: %v, want ErrErased", err)
			}
		}
	})
}

func TestRotationResumes(t *testing.T) {
	t.Parallel()
	dbs := pools(t, 2)
	_, old := randomMasterKey(t)
	_, next := randomMasterKey(t)
	const people = 2_500
	openVault(t, dbs[0], old, newHands())
	v := openVault(t, dbs[0], next.AndPrevious(old), newHands())
	things, err := sealFor(t.Context(), v, people)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.SetSecret(t.Context(), dbs[0], "klaviyo_private_key", "pk_1", "ops"); err != nil {
		t.Fatal(err)
	}

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var before schema.Rotation
	err = openVault(t, dbs[0], next.AndPrevious(old), newHands()).Rotate(ctx, func(r schema.Rotation) {
		before = r
		stop()
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("stopped Rotate: %v, want context.Canceled", err)
	}
	if before.Done <= 0 || before.Done >= people || before.Total != people+1 {
		t.Fatalf("stopped at %+v, want some of %d keys and one secret", before, people)
	}
	things.check(t, v)                                      // a process that was told nothing
	things.check(t, openVault(t, dbs[1], next, newHands())) // the new master key alone: it wraps all wrapping keys
	if ids := wrappingKeys(t, dbs[0]); !slices.Equal(ids, []int{1, 2}) {
		t.Fatalf("wrapping keys = %v, want 1 and 2", ids)
	}

	resumed := openVault(t, dbs[1], next, newHands())
	var steps []schema.Rotation
	if err := resumed.Rotate(t.Context(), func(r schema.Rotation) { steps = append(steps, r) }); err != nil {
		t.Fatal(err)
	}
	left := people + 1 - before.Done
	if last := steps[len(steps)-1]; last.Done != left || last.Total != left {
		t.Errorf("the second run ended at %+v, want the %d that were left", last, left)
	}
	if !slices.IsSortedFunc(steps, func(a, b schema.Rotation) int { return a.Done - b.Done }) {
		t.Errorf("progress = %+v, want it to rise", steps)
	}
	if ids := wrappingKeys(t, dbs[0]); !slices.Equal(ids, []int{2}) {
		t.Errorf("wrapping keys = %v, want 2 alone", ids)
	}
	things.check(t, openVault(t, dbs[0], next, newHands()))
	if secret, err := resumed.Secret(t.Context(), "klaviyo_private_key"); err != nil || secret.Reveal() != "pk_1" {
		t.Errorf("Secret = %v, want the one set before", err)
	}
}

// TestRotationWhileTheVaultIsInUse rotates again and again while processes that are told nothing of it seal for new people and
// set secrets. Nothing they do fails, and nothing is left behind under a key that is gone.
func TestRotationWhileTheVaultIsInUse(t *testing.T) {
	t.Parallel()
	const workers, rounds, rotations = 3, 40, 5
	ctx := t.Context()
	dbs := pools(t, workers+1)
	_, master := randomMasterKey(t)
	rotating := openVault(t, dbs[workers], master, newHands())
	var (
		group sync.WaitGroup
		mu    sync.Mutex
		all   = sealedThings{}
	)
	for _, db := range dbs[:workers] {
		v := openVault(t, db, master, newHands())
		group.Go(func() {
			for range rounds {
				things, err := sealFor(ctx, v, 10)
				if err != nil {
					t.Error(err)
				}
				if _, err := v.SetSecret(ctx, db, "signing_key", uuid.NewString(), "ops"); err != nil {
					t.Error(err)
				}
				mu.Lock()
				maps.Copy(all, things)
				mu.Unlock()
			}
		})
	}
	for range rotations {
		if err := rotating.Rotate(ctx, nil); err != nil {
			t.Error(err)
		}
	}
	group.Wait()
	if err := rotating.Rotate(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if ids := wrappingKeys(t, dbs[0]); !slices.Equal(ids, []int{rotations + 2}) {
		t.Errorf("wrapping keys = %v, want %d alone", ids, rotations+2)
	}
	if len(all) != workers*rounds*10 {
		t.Errorf("sealed for %d people, want %d", len(all), workers*rounds*10)
	}
	fresh := openVault(t, dbs[0], master, newHands())
	all.check(t, fresh)
	if _, err := fresh.Secret(ctx, "signing_key"); err != nil {
		t.Errorf("Secret: %v", err)
	}
}
