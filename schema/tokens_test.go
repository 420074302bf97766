package schema_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func createToken(t testing.TB, tokens *schema.Tokens, name string, role schema.Role, expires *time.Time) string {
	t.Helper()
	token, _, err := tokens.Create(t.Context(), schema.TokenRequest{Name: name, Role: role, CreatedBy: "ops", ExpiresAt: expires})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokenIsWhatItWasMadeAs(t *testing.T) {
	t.Parallel()
	db, clock := pools(t, 1)[0], newHands()
	tokens := schema.NewTokens(db, clock.now)
	for _, role := range schema.Roles {
		token := createToken(t, tokens, "the-"+string(role), role, nil)
		random, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, "dl_"))
		if err != nil || !strings.HasPrefix(token, "dl_") || len(random) != 32 {
			t.Errorf("token %q: want dl_ and 32 bytes in base64url", token)
		}
		got, err := tokens.Authenticate(t.Context(), token)
		if err != nil || got.Role != role || got.Name != "the-"+string(role) || got.CreatedBy != "ops" || !got.CreatedAt.Equal(clock.now()) {
			t.Errorf("Authenticate = %+v, %v, want the %s", got, err, role)
		}
		var dump string
		if err := db.QueryRow(`SELECT string_agg(a::text || encode(hash, 'escape') || encode(hash, 'base64'), '') FROM api_tokens a`).Scan(&dump); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(dump, token[3:]) || strings.Contains(dump, fmt.Sprintf("%x", random)) {
			t.Error("the table shows the token")
		}
	}
	list, err := tokens.List(t.Context())
	if err != nil || len(list) != len(schema.Roles) {
		t.Fatalf("List = %+v, %v, want one for each role", list, err)
	}
	for i, role := range schema.Roles {
		if list[i].Role != role || list[i].RevokedAt != nil || list[i].ExpiresAt != nil {
			t.Errorf("List[%d] = %+v, want the live %s", i, list[i], role)
		}
	}
}

func TestTokenThatMustBeRefused(t *testing.T) {
	t.Parallel()
	clock := newHands()
	tokens := schema.NewTokens(pools(t, 1)[0], clock.now)
	expiry := clock.now().Add(time.Hour)
	lasting, passing, revoked := createToken(t, tokens, "lasting", schema.RoleAdmin, nil),
		createToken(t, tokens, "passing", schema.RoleEmitter, &expiry), createToken(t, tokens, "revoked", schema.RoleAdmin, nil)
	for _, token := range []string{lasting, passing, revoked} {
		if _, err := tokens.Authenticate(t.Context(), token); err != nil { // and now all three are at hand
			t.Fatal(err)
		}
	}
	if err := tokens.Revoke(t.Context(), "revoked", "security"); err != nil {
		t.Fatal(err)
	}
	clock.move(time.Hour - time.Nanosecond)
	if _, err := tokens.Authenticate(t.Context(), passing); err != nil {
		t.Errorf("just before its expiry: %v, want it good", err)
	}
	clock.move(time.Nanosecond)
	for name, tc := range map[string]struct {
		token string
		want  error
	}{
		"expired a moment ago":     {passing, schema.ErrExpiredToken},
		"revoked":                  {revoked, schema.ErrRevokedToken},
		"nothing":                  {"", schema.ErrUnknownToken},
		"a guess":                  {"dl_" + strings.Repeat("A", 43), schema.ErrUnknownToken},
		"all but the last letter":  {lasting[:len(lasting)-1], schema.ErrUnknownToken},
		"with a space after it":    {lasting + " ", schema.ErrUnknownToken},
		"in other letters":         {strings.ToUpper(lasting), schema.ErrUnknownToken},
		"its name":                 {"lasting", schema.ErrUnknownToken},
		"bytes that are not UTF-8": {"\xff\x00\xfe", schema.ErrUnknownToken},
	} {
		got, err := tokens.Authenticate(t.Context(), tc.token)
		if !errors.Is(err, tc.want) || !errors.Is(err, schema.ErrUnauthenticated) || got != (schema.Token{}) {
			t.Errorf("%s: Authenticate = %+v, %v, want %v", name, got, err, tc.want)
		}
		if tc.token != "" && strings.Contains(err.Error(), tc.token) {
			t.Errorf("%s: the error shows what was presented: %v", name, err)
		}
	}
	if _, err := tokens.Authenticate(t.Context(), lasting); err != nil {
		t.Errorf("the one that lasts: %v", err)
	}
}

func TestTokenThatCannotBe(t *testing.T) {
	t.Parallel()
	clock := newHands()
	tokens := schema.NewTokens(pools(t, 1)[0], clock.now)
	createToken(t, tokens, "taken", schema.RoleAdmin, nil)
	now := clock.now()
	for name, tc := range map[string]struct {
		request schema.TokenRequest
		want    error
	}{
		"no name":              {schema.TokenRequest{Name: " ", Role: schema.RoleAdmin, CreatedBy: "ops"}, schema.ErrInvalidToken},
		"a role of its own":    {schema.TokenRequest{Name: "n", Role: "root", CreatedBy: "ops"}, schema.ErrInvalidToken},
		"no creator":           {schema.TokenRequest{Name: "n", Role: schema.RoleAdmin}, schema.ErrInvalidToken},
		"an expiry now":        {schema.TokenRequest{Name: "n", Role: schema.RoleAdmin, CreatedBy: "ops", ExpiresAt: &now}, schema.ErrInvalidToken},
		"a name that is taken": {schema.TokenRequest{Name: "taken", Role: schema.RoleEmitter, CreatedBy: "ops"}, schema.ErrTokenExists},
	} {
		if token, _, err := tokens.Create(t.Context(), tc.request); !errors.Is(err, tc.want) || !errors.Is(err, schema.ErrInvalidToken) || token != "" {
			t.Errorf("%s: Create: %v, want %v", name, err, tc.want)
		}
	}
	if err := tokens.Revoke(t.Context(), "taken", ""); !errors.Is(err, schema.ErrInvalidToken) {
		t.Errorf("Revoke by nobody: %v, want ErrInvalidToken", err)
	}
	if err := tokens.Revoke(t.Context(), "taken", "security"); err != nil {
		t.Fatal(err)
	}
	if err := tokens.Revoke(t.Context(), "taken", "security"); !errors.Is(err, schema.ErrUnknownToken) {
		t.Errorf("Revoke again: %v, want ErrUnknownToken", err)
	}
	createToken(t, tokens, "taken", schema.RoleEmitter, nil) // free again
	list, err := tokens.List(t.Context())
	if err != nil || len(list) != 2 || list[0].RevokedBy == nil || *list[0].RevokedBy != "security" || list[1].RevokedAt != nil {
		t.Errorf("List = %+v, %v, want the revoked one and its successor", list, err)
	}
}

func TestRevocationReachesOtherProcessesInTime(t *testing.T) {
	t.Parallel()
	dbs, clock := pools(t, 2), newHands()
	here, elsewhere := schema.NewTokens(dbs[0], clock.now), schema.NewTokens(dbs[1], clock.now)
	token := createToken(t, here, "ci", schema.RoleEmitter, nil)
	if _, err := elsewhere.Authenticate(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	if err := here.Revoke(t.Context(), "ci", "security"); err != nil {
		t.Fatal(err)
	}
	if _, err := here.Authenticate(t.Context(), token); !errors.Is(err, schema.ErrRevokedToken) {
		t.Errorf("in the process that revoked it: %v, want ErrRevokedToken at once", err)
	}
	clock.move(schema.TokenFreshness)
	if _, err := elsewhere.Authenticate(t.Context(), token); !errors.Is(err, schema.ErrRevokedToken) {
		t.Errorf("elsewhere, after TokenFreshness: %v, want ErrRevokedToken", err)
	}
}

func TestLastUseIsNotedToTheMinute(t *testing.T) {
	t.Parallel()
	db, clock := pools(t, 1)[0], newHands() // 04:05:06
	tokens := schema.NewTokens(db, clock.now)
	token := createToken(t, tokens, "ci", schema.RoleEmitter, nil)
	used := func() *time.Time {
		t.Helper()
		list, err := tokens.List(t.Context())
		if err != nil || len(list) != 1 {
			t.Fatalf("List = %+v, %v", list, err)
		}
		return list[0].LastUsedAt
	}
	if got := used(); got != nil {
		t.Errorf("never used, but %v", got)
	}
	minute := clock.now().Truncate(time.Minute)
	writes := func() (n int64) {
		t.Helper()
		if err := db.QueryRow(`SELECT xmin::text::bigint FROM api_tokens`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	var first int64
	for range 3 {
		if _, err := tokens.Authenticate(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if got := used(); got == nil || !got.Equal(minute) {
			t.Errorf("last used = %v, want %v", got, minute)
		}
		if first == 0 {
			first = writes()
		}
		clock.move(schema.TokenFreshness)
	}
	if writes() != first {
		t.Error("uses within a minute are written more than once")
	}
	clock.move(time.Minute)
	if _, err := tokens.Authenticate(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	if got := used(); got == nil || !got.Equal(minute.Add(time.Minute)) {
		t.Errorf("a minute later, last used = %v, want %v", got, minute.Add(time.Minute))
	}
}

func TestBootstrap(t *testing.T) {
	t.Parallel()
	t.Run("makes the given token the first admin's", func(t *testing.T) {
		t.Parallel()
		tokens := schema.NewTokens(pools(t, 1)[0], newHands().now)
		if any, err := tokens.Any(t.Context()); err != nil || any {
			t.Errorf("Any on an empty ledger = %v, %v, want false", any, err)
		}
		token, created, err := tokens.Bootstrap(t.Context(), "a-token-from-the-environment")
		if err != nil || !created || token != "a-token-from-the-environment" {
			t.Fatalf("Bootstrap = %q, %v, %v, want the token given", token, created, err)
		}
		if got, err := tokens.Authenticate(t.Context(), token); err != nil || got.Role != schema.RoleAdmin {
			t.Errorf("Authenticate = %+v, %v, want an admin", got, err)
		}
		if any, err := tokens.Any(t.Context()); err != nil || !any {
			t.Errorf("Any = %v, %v, want true", any, err)
		}
		for _, again := range []string{"a-token-from-the-environment", "another", ""} { // a restart, with and without
			if token, created, err := tokens.Bootstrap(t.Context(), again); err != nil || created || token != "" {
				t.Errorf("Bootstrap again = %q, %v, %v, want nothing made", token, created, err)
			}
		}
	})
	t.Run("makes a random token when none is given", func(t *testing.T) {
		t.Parallel()
		tokens := schema.NewTokens(pools(t, 1)[0], newHands().now)
		token, created, err := tokens.Bootstrap(t.Context(), "")
		if err != nil || !created || !strings.HasPrefix(token, "dl_") || len(token) != 46 {
			t.Errorf("Bootstrap = %q, %v, %v, want a random token", token, created, err)
		}
	})
	t.Run("does not open a ledger again whose tokens are all revoked", func(t *testing.T) {
		t.Parallel()
		tokens := schema.NewTokens(pools(t, 1)[0], newHands().now)
		createToken(t, tokens, "only", schema.RoleAdmin, nil)
		if err := tokens.Revoke(t.Context(), "only", "security"); err != nil {
			t.Fatal(err)
		}
		if _, created, err := tokens.Bootstrap(t.Context(), "back-door"); err != nil || created {
			t.Errorf("Bootstrap = %v, %v, want nothing made", created, err)
		}
	})
	t.Run("refuses what cannot travel in a header", func(t *testing.T) {
		t.Parallel()
		tokens := schema.NewTokens(pools(t, 1)[0], newHands().now)
		for _, given := range []string{"with space", "with\nline", "schlüssel"} {
			if _, created, err := tokens.Bootstrap(t.Context(), given); !errors.Is(err, schema.ErrInvalidToken) || created {
				t.Errorf("Bootstrap(%q) = %v, %v, want ErrInvalidToken", given, created, err)
			}
		}
	})
	t.Run("has one winner among many", func(t *testing.T) {
		t.Parallel()
		const processes = 6
		dbs := pools(t, processes)
		var winners atomic.Int32
		var winner atomic.Pointer[string]
		var group sync.WaitGroup
		for _, db := range dbs {
			tokens := schema.NewTokens(db, newHands().now)
			group.Go(func() {
				token, created, err := tokens.Bootstrap(t.Context(), "")
				if err != nil {
					t.Error(err)
				}
				if created {
					winners.Add(1)
					winner.Store(&token)
				}
			})
		}
		group.Wait()
		if winners.Load() != 1 {
			t.Fatalf("%d processes made the first token, want 1", winners.Load())
		}
		if got, err := schema.NewTokens(dbs[0], newHands().now).Authenticate(t.Context(), *winner.Load()); err != nil || got.Role != schema.RoleAdmin {
			t.Errorf("Authenticate = %+v, %v, want the winner", got, err)
		}
	})
}

// BenchmarkAuthenticate is what a token costs on a request, when it is at hand and when it has to be read.
func BenchmarkAuthenticate(b *testing.B) {
	clock := newHands()
	tokens := schema.NewTokens(pools(b, 1)[0], clock.now)
	token := createToken(b, tokens, "ci", schema.RoleEmitter, nil)
	for name, pause := range map[string]time.Duration{"held": 0, "read": schema.TokenFreshness} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				clock.move(pause)
				if _, err := tokens.Authenticate(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
