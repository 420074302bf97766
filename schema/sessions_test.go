package schema_test

import (
	"errors"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

func TestASessionEnds(t *testing.T) {
	t.Parallel()
	db, err := schema.Connect(schematest.Open(t).URL, schema.Options{Role: "ledger_service"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	ctx, now := t.Context(), time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	tokens, sessions := schema.NewTokens(db, clock), schema.NewSessions(db, clock)
	expires := now.Add(3 * time.Hour)
	_, info, err := tokens.Create(ctx, schema.TokenRequest{Name: "ada", Role: schema.RoleCompliance, CreatedBy: "test", ExpiresAt: &expires})
	if err != nil {
		t.Fatal(err)
	}
	open := func() string {
		t.Helper()
		secret, _, err := sessions.Open(ctx, db, schema.Session{Name: "ada", Role: schema.RoleCompliance, Method: "token", TokenID: info.ID})
		if err != nil {
			t.Fatal(err)
		}
		if s, err := sessions.Find(ctx, secret); err != nil || s.Name != "ada" || s.Role != schema.RoleCompliance {
			t.Fatalf("a new session: %+v, %v", s, err)
		}
		return secret
	}
	ended := func(why, secret string) {
		t.Helper()
		if _, err := sessions.Find(ctx, secret); !errors.Is(err, schema.ErrNoSession) || !errors.Is(err, schema.ErrUnauthenticated) {
			t.Errorf("%s: %v, want it ended", why, err)
		}
	}
	ended("never begun", "secret")
	secret := open()
	if err := sessions.Close(ctx, db, secret); err != nil {
		t.Fatal(err)
	}
	ended("closed", secret)

	secret = open()
	for range 2 { // used, it goes on
		now = now.Add(schema.SessionIdle - time.Minute)
		if _, err := sessions.Find(ctx, secret); err != nil && now.Before(expires) {
			t.Fatalf("after %s: %v", now, err)
		}
	}
	now = now.Add(schema.SessionIdle - time.Minute)
	if _, err := sessions.Peek(ctx, secret); err != nil { // a page that nobody is at asks for itself
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	ended("idle", secret)
	var left int
	if _, _, err := sessions.Open(ctx, db, schema.Session{Name: "bob", Role: schema.RoleAdmin, Method: "oidc"}); err != nil {
		t.Fatal(err)
	}
	if err := db.QueryRowContext(ctx, `SELECT count(*) FROM sessions`).Scan(&left); err != nil || left != 1 {
		t.Errorf("%d sessions are kept, %v; want those that ended swept", left, err)
	}

	_, info, err = tokens.Create(ctx, schema.TokenRequest{Name: "eve", Role: schema.RoleAdmin, CreatedBy: "test"})
	if err != nil {
		t.Fatal(err)
	}
	secret, s, err := sessions.Open(ctx, db, schema.Session{Name: "eve", Role: schema.RoleAdmin, Method: "token", TokenID: info.ID})
	if err != nil || !s.ExpiresAt.Equal(now.Add(schema.SessionMost)) {
		t.Fatalf("%+v, %v", s, err)
	}
	if err := tokens.Revoke(ctx, "eve", "ada"); err != nil {
		t.Fatal(err)
	}
	ended("its token revoked", secret)
}
