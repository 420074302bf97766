package schema_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func TestLinks(t *testing.T) {
	t.Parallel()
	db, clock := pools(t, 1)[0], newHands()
	_, master := randomMasterKey(t)
	links := func() *schema.Links {
		t.Helper()
		l, err := openVault(t, db, master, clock).Links(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	here, elsewhere := links(), links()
	want := domain.Link{
		Kind: domain.LinkUnsubscribe, ProfileID: uuid.New(), DeliveryID: uuid.New(), Channel: domain.Email, Purpose: domain.Promo,
		ExpiresAt: clock.now().Add(240 * time.Hour).Truncate(time.Hour),
	}
	token, err := here.Token(want)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := elsewhere.Token(want); err != nil || again != token {
		t.Errorf("another process makes %q, %v, want the same token", again, err)
	}
	if got, err := elsewhere.Open(token, clock.now()); err != nil || got != want {
		t.Errorf("Open = %+v, %v, want %+v", got, err, want)
	}
	if strings.Contains(token, want.ProfileID.String()) || len(token) > 120 {
		t.Errorf("token %q is long or names the person", token)
	}
	if got, err := here.Open(token, want.ExpiresAt); !errors.Is(err, schema.ErrLinkExpired) || got != want {
		t.Errorf("at its end: Open = %+v, %v, want ErrLinkExpired", got, err)
	}
	for i := range token {
		changed := []byte(token)
		if changed[i]++; changed[i] == '{' || changed[i] == '.' {
			changed[i] = 'A'
		}
		if got, err := here.Open(string(changed), clock.now()); !errors.Is(err, schema.ErrLink) {
			t.Fatalf("with byte %d changed: Open = %+v, %v, want ErrLink", i, got, err)
		}
	}
	for name, bad := range map[string]string{"empty": "", "cut short": token[:len(token)-4], "long": strings.Repeat("A", 10_000), "padded": token + "==", "not base64": "%%%"} {
		if _, err := here.Open(bad, clock.now()); !errors.Is(err, schema.ErrLink) {
			t.Errorf("%s: error = %v, want ErrLink", name, err)
		}
	}
	other, err := openVault(t, pools(t, 1)[0], master, clock).Links(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Open(token, clock.now()); !errors.Is(err, schema.ErrLink) {
		t.Errorf("another ledger's: error = %v, want ErrLink", err)
	}
}
