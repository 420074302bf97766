package domain_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

func TestAfterAnAttempt(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		base := time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(time.Minute)).Draw(t, "base"))
		longest := time.Duration(rapid.Int64Range(int64(base), int64(24*time.Hour)).Draw(t, "max"))
		r := domain.Retry{MaxAttempts: rapid.IntRange(1, 50).Draw(t, "max attempts"), Base: domain.Duration(base), Max: domain.Duration(longest)}
		attempt := rapid.IntRange(1, 60).Draw(t, "attempt")
		asked := now.Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "asked")))

		outcome, next := r.After(attempt, true, now, asked)
		if attempt >= r.MaxAttempts {
			if outcome != domain.Failed || next != nil {
				t.Fatalf("after the last attempt: %s, %v", outcome, next)
			}
			return
		}
		if outcome != domain.Retrying || next.Before(asked) || next.Before(now) {
			t.Fatalf("%s at %s, which is before the %s that was asked for", outcome, next, asked)
		}
		if latest := asked.Add(longest + time.Microsecond); next.After(latest) && next.After(now.Add(longest+time.Microsecond)) {
			t.Fatalf("next at %s, later than %s", next, latest)
		}
		if outcome, _ := r.After(1, false, now, asked); outcome != domain.Failed {
			t.Fatalf("what cannot end otherwise is %s", outcome)
		}
	})
}
