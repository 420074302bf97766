package schema_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// firing makes an event of a person with something to seal.
func firing(t testing.TB, person uuid.UUID, text string) ([]domain.Event, [][]byte) {
	t.Helper()
	e, secret, err := domain.New(uuid.New(), domain.ReactionFired{
		Reaction: "r", Target: "t", Cause: "reaction", ProfileID: person, Context: []byte(`{"text":"` + text + `"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Actor, e.Source = "test", "/test"
	return []domain.Event{e}, [][]byte{secret}
}

// opened opens what stands in the ledger under an id.
func opened(t testing.TB, v *schema.Vault, q schema.Querier, id uuid.UUID) schema.Part {
	t.Helper()
	rec, err := schema.EventByID(t.Context(), q, id)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := v.Open(t.Context(), []domain.Recorded{rec})
	if err != nil {
		t.Fatal(err)
	}
	return parts[0]
}

func expire(t testing.TB, v *schema.Vault, db *sql.DB, eventType string, before time.Time) []schema.Day {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	e, err := v.Expire(t.Context(), tx, eventType, schema.DayOf(before))
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	return e.Days
}

// TestRetentionForgetsByTypeAndDay seals on three days, lets the first end, and reads the rest.
func TestRetentionForgetsByTypeAndDay(t *testing.T) {
	t.Parallel()
	db := pools(t, 1)[0]
	clock := newHands()
	_, master := randomMasterKey(t)
	v, other := openVault(t, db, master, clock), openVault(t, db, master, clock)
	ledger := schema.OpenLedger(db, nil, nil)
	t.Cleanup(ledger.Close)
	person := uuid.New()
	var ids []uuid.UUID
	first := clock.now()
	for range 3 {
		events, secrets := firing(t, person, "Ada")
		if err := v.SealEvents(t.Context(), events, secrets); err != nil {
			t.Fatal(err)
		}
		if _, err := ledger.Append(t.Context(), events...); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, events[0].ID)
		clock.move(24 * time.Hour)
	}
	for _, id := range ids {
		if part := opened(t, other, db, id); part.Seal != schema.SealClosed || !bytes.Contains(part.Secret, []byte("Ada")) {
			t.Fatalf("before anything ended, Open = %+v", part)
		}
	}
	if days := expire(t, v, db, "consent.changed", clock.now()); days != nil {
		t.Errorf("another type's retention destroyed %v", days)
	}
	if days := expire(t, v, db, "reaction.fired", first.Add(24*time.Hour)); !slices.Equal(days, []schema.Day{schema.DayOf(first)}) {
		t.Errorf("Expire destroyed %v, want the first day", days)
	}
	if days := expire(t, v, db, "reaction.fired", first.Add(24*time.Hour)); days != nil {
		t.Errorf("the second Expire destroyed %v, want nothing", days)
	}
	clock.move(2 * time.Minute) // the other process has looked again
	for _, vault := range []*schema.Vault{v, other} {
		if part := opened(t, vault, db, ids[0]); part.Seal != schema.SealExpired || part.Secret != nil {
			t.Errorf("what has expired opens as %+v", part)
		}
		for _, id := range ids[1:] {
			if part := opened(t, vault, db, id); part.Seal != schema.SealClosed {
				t.Errorf("what has not expired opens as %+v", part)
			}
		}
	}
	if _, err := db.ExecContext(t.Context(), `UPDATE period_keys SET destroyed_at = NULL, wrapping_key = 1, wrapped = '\x00'`); err == nil {
		t.Error("a destroyed key could be put back")
	}
}

// TestRepeatOnAnotherDayIsARepeat seals the same event again on the next day, after its day has expired, and after its
// person was erased: the ledger recognises it each time, and tells it from other content for as long as it can.
func TestRepeatOnAnotherDayIsARepeat(t *testing.T) {
	t.Parallel()
	v, db, clock := newVault(t)
	ledger := schema.OpenLedger(db, nil, nil)
	t.Cleanup(ledger.Close)
	person, first := uuid.New(), clock.now()
	events, secrets := firing(t, person, "Ada")
	other := [][]byte{bytes.Replace(secrets[0], []byte("Ada"), []byte("Eve"), 1)}
	append1 := func(secrets [][]byte, seal func(ctx context.Context, events []domain.Event, secrets [][]byte) error) (bool, error) {
		t.Helper()
		again := slices.Clone(events)
		if err := seal(t.Context(), again, secrets); err != nil {
			t.Fatal(err)
		}
		at, err := ledger.Append(t.Context(), again...)
		return err == nil && at[0].Duplicate, err
	}
	if _, err := append1(secrets, v.SealEvents); err != nil {
		t.Fatal(err)
	}
	if duplicate, err := append1(secrets, v.SealEvents); !duplicate {
		t.Errorf("on the same day: not a repeat, %v", err)
	}
	clock.move(24 * time.Hour)
	if _, err := append1(secrets, v.SealEvents); !errors.Is(err, schema.ErrIDReused) {
		t.Errorf("sealed on another day the bytes are the same: %v", err)
	}
	if duplicate, err := append1(secrets, v.SealAgain); !duplicate {
		t.Errorf("on another day: not a repeat, %v", err)
	}
	if _, err := append1(other, v.SealAgain); !errors.Is(err, schema.ErrIDReused) {
		t.Errorf("other content under the same id: error = %v, want ErrIDReused", err)
	}
	expire(t, v, db, "reaction.fired", first.Add(24*time.Hour))
	if duplicate, err := append1(secrets, v.SealAgain); !duplicate {
		t.Errorf("after its day expired: not a repeat, %v", err)
	}
	erase(t, v, db, person)
	if duplicate, err := append1(secrets, v.SealAgain); !duplicate {
		t.Errorf("after the person was erased: not a repeat, %v", err)
	}
	if part := opened(t, v, db, events[0].ID); part.Seal != schema.SealErased {
		t.Errorf("Open = %+v, want erased", part)
	}
}

// TestRotationRewrapsPeriods moves to another master key and reads what was sealed under the old.
func TestRotationRewrapsPeriods(t *testing.T) {
	t.Parallel()
	db := pools(t, 1)[0]
	clock := newHands()
	_, before := randomMasterKey(t)
	_, after := randomMasterKey(t)
	ledger := schema.OpenLedger(db, nil, nil)
	t.Cleanup(ledger.Close)
	events, secrets := firing(t, uuid.New(), "Ada")
	if err := openVault(t, db, before, clock).SealEvents(t.Context(), events, secrets); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Append(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
	if err := openVault(t, db, after.AndPrevious(before), clock).Rotate(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if part := opened(t, openVault(t, db, after, clock), db, events[0].ID); part.Seal != schema.SealClosed {
		t.Errorf("under the new master key, Open = %+v", part)
	}
}
