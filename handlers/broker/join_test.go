package broker

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

var discard = slog.New(slog.DiscardHandler)

// fleet is a vault and the tokens of a ledger.
func fleet(t *testing.T) (*sql.DB, *schema.Vault, *schema.Tokens) {
	t.Helper()
	db, err := schema.Connect(schematest.Open(t).URL, schema.Options{Role: "ledger_service"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	key, err := schema.LoadOrCreateMasterKey(filepath.Join(t.TempDir(), "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	vault, err := schema.OpenVault(t.Context(), db, key, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return db, vault, schema.NewTokens(db, time.Now)
}

func TestJoining(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	db, vault, tokens := fleet(t)
	if err := (&porter{broker: b, tokens: tokens, vault: vault}).open(t.Context()); err != nil {
		t.Fatal(err)
	}
	ours, err := vault.Fleet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	token := func(name string, role schema.Role) string {
		text, _, err := tokens.Create(t.Context(), schema.TokenRequest{Name: name, Role: role, CreatedBy: "test"})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	member := Credential{Token: token("d1", schema.RoleDispatcher), Public: ours.Public}

	var k keys
	name, changed, err := b.joinWith(t.Context(), member, &k)
	if err != nil || name != "d1" || !changed || k.epoch() != ours.Newest.Epoch {
		t.Fatalf("join = %q, %v, %v with epoch %d", name, changed, err, k.epoch())
	}
	msg, err := k.seal("mark", "", mark{Dispatcher: "d1"})
	if err != nil {
		t.Fatal(err)
	}
	theirs := keys{}
	theirs.set(ours.Newest, ours.Keys)
	var m mark
	if _, err := theirs.open("mark", msg, &m); err != nil || m.Dispatcher != "d1" {
		t.Errorf("the ledger reads %v, %v of what the dispatcher sealed", m, err)
	}

	if _, _, err := b.joinWith(t.Context(), Credential{Token: token("e", schema.RoleEmitter), Public: ours.Public}, &keys{}); !errors.Is(err, ErrNotJoined) {
		t.Errorf("with an emitter's token: %v", err)
	}
	if _, _, err := b.joinWith(t.Context(), Credential{Token: "dl_nonsense", Public: ours.Public}, &keys{}); !errors.Is(err, ErrNotJoined) {
		t.Errorf("with a token that does not exist: %v", err)
	}
	// Another process revokes it: the one that answers has read the token a moment ago.
	if err := schema.NewTokens(db, time.Now).Revoke(t.Context(), "d1", "test"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.joinWith(t.Context(), member, &keys{}); !errors.Is(err, ErrNotJoined) {
		t.Errorf("after its token was revoked: %v", err)
	}
	next, err := vault.RotateFleet(t.Context(), ours.Newest.Epoch)
	if err != nil || next.Newest.Epoch != ours.Newest.Epoch+1 {
		t.Fatalf("rotated to %d, %v", next.Newest.Epoch, err)
	}
	again, err := vault.RotateFleet(t.Context(), ours.Newest.Epoch)
	if err != nil || again.Newest.Epoch != next.Newest.Epoch {
		t.Errorf("a second writer that rotates after the same epoch makes %d, %v", again.Newest.Epoch, err)
	}
	later := keys{}
	later.set(next.Newest, next.Keys)
	if msg, err = later.seal("jobs", "", batch{}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.open("jobs", msg, &batch{}); !errors.Is(err, errSealed) {
		t.Errorf("the revoked dispatcher opens what came after: %v", err)
	}
}

// TestAnImpostorCannotAnswer has somebody who may use the broker answer requests to join.
func TestAnImpostorCannotAnswer(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	_, vault, _ := fleet(t)
	ours, err := vault.Fleet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan []byte, 1)
	if _, err := b.nc.Subscribe(b.join(), func(m *nats.Msg) {
		seen <- m.Data
		m.Respond([]byte("take these keys"))
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var k keys
	if _, _, err := b.joinWith(ctx, Credential{Token: "dl_secret_token", Public: ours.Public}, &k); !errors.Is(err, errSealed) {
		t.Errorf("join = %v, want a refusal of the answer", err)
	}
	if k.epoch() != 0 {
		t.Error("keys were taken from an impostor")
	}
	if string(<-seen) == "" || k.newest.AEAD != nil {
		t.Error("the impostor saw nothing")
	}
}
