package domain_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

var retryNow = time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)

func TestAfterAnAttempt(t *testing.T) {
	t.Parallel()
	now := retryNow
	rapid.Check(t, func(t *rapid.T) {
		base := time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(time.Minute)).Draw(t, "base"))
		longest := time.Duration(rapid.Int64Range(int64(base), int64(24*time.Hour)).Draw(t, "max"))
		r := domain.Retry{MaxAttempts: rapid.IntRange(1, 50).Draw(t, "max attempts"), Base: domain.Duration(base), Max: domain.Duration(longest)}
		attempt := rapid.IntRange(1, 60).Draw(t, "attempt")
		asked := now.Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "asked")))

		outcome, next := r.After(domain.Failure{Attempt: attempt, Verdict: domain.RetryLater, Status: 503, NotBefore: asked}, now)
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
		if outcome, _ := r.After(domain.Failure{Attempt: 1, Verdict: domain.Permanent, Status: 400}, now); outcome != domain.Failed {
			t.Fatalf("what cannot end otherwise is %s", outcome)
		}
	})
}

func TestTheMostPreciseRuleHolds(t *testing.T) {
	t.Parallel()
	target := domain.Target{Handle: "t", URL: "https://example.com", Body: "{}", Retry: domain.Retry{On: map[string]domain.RetryRule{
		"503":     {Waits: []domain.Duration{domain.Duration(time.Hour), domain.Duration(2 * time.Hour)}},
		"5xx":     {MaxAttempts: 1},
		"404":     {Waits: []domain.Duration{domain.Duration(time.Minute)}},
		"4xx":     {MaxAttempts: 9},
		"network": {Waits: []domain.Duration{domain.Duration(5 * time.Minute)}},
		"lost":    {MaxAttempts: 1},
	}}}
	target.Normalize()
	if err := target.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		failure domain.Failure
		want    domain.Outcome
		wait    time.Duration // at least, and at most a tenth more
	}{
		"the status itself, its first wait":          {domain.Failure{Attempt: 1, Verdict: domain.RetryLater, Status: 503}, domain.Retrying, time.Hour},
		"its second wait":                            {domain.Failure{Attempt: 2, Verdict: domain.RetryLater, Status: 503}, domain.Retrying, 2 * time.Hour},
		"the waits are used up":                      {domain.Failure{Attempt: 3, Verdict: domain.RetryLater, Status: 503}, domain.Failed, 0},
		"the class, which repeats nothing":           {domain.Failure{Attempt: 1, Verdict: domain.RetryLater, Status: 500}, domain.Failed, 0},
		"a permanent answer whose status has a rule": {domain.Failure{Attempt: 1, Verdict: domain.Permanent, Status: 404}, domain.Retrying, time.Minute},
		"a permanent answer whose class alone has":   {domain.Failure{Attempt: 1, Verdict: domain.Permanent, Status: 400}, domain.Failed, 0},
		"a refusal, whatever its status":             {domain.Failure{Attempt: 1, Verdict: domain.Refused, Status: 404}, domain.Failed, 0},
		"a timeout is a network failure":             {domain.Failure{Attempt: 1, Verdict: domain.Timeout}, domain.Retrying, 5 * time.Minute},
		"a process that died":                        {domain.Failure{Attempt: 1, Verdict: domain.Lost}, domain.Failed, 0},
		"Retry-After beyond the wait":                {domain.Failure{Attempt: 1, Verdict: domain.RetryLater, Status: 503, NotBefore: retryNow.Add(3 * time.Hour)}, domain.Retrying, 3 * time.Hour},
		"a wait beyond Retry-After":                  {domain.Failure{Attempt: 1, Verdict: domain.RetryLater, Status: 503, NotBefore: retryNow.Add(time.Minute)}, domain.Retrying, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, next := target.Retry.After(c.failure, retryNow)
			if got != c.want {
				t.Fatalf("outcome = %s, want %s", got, c.want)
			}
			if c.want == domain.Retrying {
				if wait := next.Sub(retryNow); wait < c.wait || wait > c.wait+c.wait/8 {
					t.Errorf("next in %s, want %s and at most a little more", wait, c.wait)
				}
			}
		})
	}
}

func TestRulesThatMeanNothingAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		retry domain.Retry
		want  string
	}{
		"a kind that there is not":     {domain.Retry{On: map[string]domain.RetryRule{"9xx": {}}}, "/retry/on/9xx"},
		"a success":                    {domain.Retry{On: map[string]domain.RetryRule{"200": {}}}, "/retry/on/200"},
		"a wait of a year":             {domain.Retry{On: map[string]domain.RetryRule{"429": {Waits: []domain.Duration{domain.Duration(8760 * time.Hour)}}}}, "/retry/on/429/waits/0"},
		"more attempts than there are": {domain.Retry{On: map[string]domain.RetryRule{"429": {MaxAttempts: 51}}}, "/retry/on/429/max_attempts"},
		"a base beyond the max":        {domain.Retry{On: map[string]domain.RetryRule{"5xx": {Base: domain.Duration(time.Minute), Max: domain.Duration(time.Second)}}}, "/retry/on/5xx/base"},
		"no time for an attempt":       {domain.Retry{Timeout: domain.Duration(time.Millisecond)}, "/retry/timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := domain.Target{Handle: "t", URL: "https://example.com", Body: "{}", Retry: c.retry}
			target.Normalize()
			var invalid *domain.InvalidError
			if err := target.Validate(); !errors.As(err, &invalid) || invalid.Pointer != c.want {
				t.Errorf("Validate = %v, want a complaint about %s", err, c.want)
			}
		})
	}
}

func TestASchedulePutsRetriesIntoWords(t *testing.T) {
	t.Parallel()
	due := time.Date(2026, 11, 26, 13, 0, 0, 0, time.UTC) // a Thursday
	plain := domain.Target{Handle: "t", URL: "https://example.com", Body: "{}", Retry: domain.Retry{
		MaxAttempts: 3, Timeout: domain.Duration(time.Minute), Base: domain.Duration(10 * time.Minute), Max: domain.Duration(time.Hour),
		On: map[string]domain.RetryRule{"429": {Waits: []domain.Duration{domain.Duration(time.Minute), domain.Duration(time.Hour)}}, "lost": {MaxAttempts: 1}},
	}}
	quiet := plain
	quiet.Retry.On = nil
	quiet.QuietHours = &domain.QuietHours{From: "13:05", To: "18:00"}
	expiring := plain
	expiring.Retry.On = nil
	expiring.ExpireAfter = domain.Duration(30 * time.Minute)
	for name, c := range map[string]struct {
		target domain.Target
		want   []string
	}{
		"a rule for one status": {plain, []string{
			"When an attempt fails in any other way: tries again within 11m, then within 32m after the first; gives up Thursday 13:33 (26 November) at the latest.",
			"On 429: tries again 1m to 2m6s, then 1h1m to 1h9m after the first; gives up Thursday 14:10 (26 November) at the latest.",
			"When the process dies during an attempt: gives up at once, without another attempt; gives up Thursday 13:01 (26 November) at the latest.",
		}},
		"quiet hours": {quiet, []string{
			"When an attempt fails: tries again within 5h, then within 5h21m after the first; gives up Thursday 18:22 (26 November) at the latest.",
		}},
		"a delivery that expires": {expiring, []string{
			"When an attempt fails: tries again within 11m, then within 32m after the first; expires Thursday 13:30 (26 November).",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.target.Normalize()
			if err := c.target.Validate(); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range c.target.Schedules(due) {
				got = append(got, s.Words)
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// TestASchedulePromisesWhatHappens draws failures and holds each retry against the schedule.
func TestASchedulePromisesWhatHappens(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		target := domain.Target{Handle: "t", URL: "https://example.com", Body: "{}", Retry: domain.Retry{
			MaxAttempts: rapid.IntRange(1, 12).Draw(t, "max attempts"), Timeout: domain.Duration(time.Second),
			Base: domain.Duration(rapid.Int64Range(int64(time.Second), int64(time.Minute)).Draw(t, "base")), Max: domain.Duration(time.Hour),
		}}
		target.Normalize()
		schedule := target.Schedules(retryNow)[0]
		now := retryNow
		for attempt := 1; ; attempt++ {
			promised := schedule.Attempts[attempt-1]
			if now.Before(promised.Earliest) || now.After(promised.Latest.Add(time.Duration(attempt)*time.Microsecond)) {
				t.Fatalf("attempt %d at %s, promised %s to %s", attempt, now, promised.Earliest, promised.Latest)
			}
			failed := now.Add(time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "took")))
			outcome, next := target.Retry.After(domain.Failure{Attempt: attempt, Verdict: domain.NetworkError}, failed)
			if outcome == domain.Failed {
				if attempt != len(schedule.Attempts) || failed.After(schedule.GivesUp.Add(time.Duration(attempt)*time.Microsecond)) {
					t.Fatalf("given up after %d attempts at %s, promised %d and %s", attempt, failed, len(schedule.Attempts), schedule.GivesUp)
				}
				return
			}
			now = *next
		}
	})
}
