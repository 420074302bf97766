package domain

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Retry says how often and how patiently an attempt is repeated.
type Retry struct {
	MaxAttempts int                  `json:"max_attempts,omitempty" yaml:"max_attempts,omitempty" doc:"1 to 50; 8 by default"`
	Timeout     Duration             `json:"timeout,omitzero" yaml:"timeout,omitempty" doc:"of one attempt, 100ms to 2m; 10s by default"`
	Base        Duration             `json:"base,omitzero" yaml:"base,omitempty" doc:"the first wait's upper bound; 2s by default"`
	Max         Duration             `json:"max,omitzero" yaml:"max,omitempty" doc:"the longest wait; 1h by default"`
	Budget      Rate                 `json:"budget,omitzero" yaml:"budget,omitempty" doc:"retries over all processes, such as 20/s: what goes beyond waits its turn; none by default"`
	On          map[string]RetryRule `json:"on,omitempty" yaml:"on,omitempty" doc:"other rules for some failures: by status (429), status class (5xx), network, timeout or lost; the most precise holds"`
}

// RetryRule is how failures of one kind are repeated. What it leaves out is as in Retry.
type RetryRule struct {
	MaxAttempts int        `json:"max_attempts,omitempty" yaml:"max_attempts,omitempty" doc:"of the delivery, whatever the earlier ones failed with; 1 repeats nothing"`
	Base        Duration   `json:"base,omitzero" yaml:"base,omitempty"`
	Max         Duration   `json:"max,omitzero" yaml:"max,omitempty"`
	Waits       []Duration `json:"waits,omitempty" yaml:"waits,omitempty" doc:"the waits themselves, one for each retry, such as 1m, 5m, 1h; up to a tenth is added"`
}

// Failure is an attempt that did not end a delivery well.
type Failure struct {
	Attempt   int     // 1 is the first since the delivery was planned or last put back
	Verdict   Verdict // what its answer means
	Status    int     // HTTP; 0 when no answer arrived
	NotBefore time.Time
}

// After says what a delivery is after a failure, and when it is tried again.
//
// The wait is exponential with full jitter: uniform between nothing and Base, 2·Base, 4·Base, … up to Max. It is
// never shorter than asked for: NotBefore, from Retry-After and its kin, is a floor, and the jitter comes on top.
func (r Retry) After(f Failure, now time.Time) (Outcome, *time.Time) {
	rule, named := r.rule(f)
	if !f.Verdict.Retryable() && !(f.Verdict == Permanent && named) || f.Attempt >= rule.MaxAttempts {
		return Failed, nil
	}
	shortest, longest := rule.wait(f.Attempt)
	next := now.Add(shortest + jitter(longest-shortest))
	if f.NotBefore.After(now) {
		next = latest(next, f.NotBefore)
		if next.Equal(f.NotBefore) {
			next = next.Add(jitter(longest / 10))
		}
	}
	next = next.UTC().Truncate(time.Microsecond).Add(time.Microsecond) // never earlier, not even by what truncating takes
	return Retrying, &next
}

// jitter is uniform between nothing and the longest.
func jitter(longest time.Duration) time.Duration {
	// With a factor of 1, the library draws uniformly between 0 and twice the interval.
	b := backoff.ExponentialBackOff{InitialInterval: longest / 2, RandomizationFactor: 1, Multiplier: 1, MaxInterval: longest}
	b.Reset()
	return b.NextBackOff()
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// rule gives the rule that holds for a failure, completed, and whether it names the failure's very status: then what is
// permanent otherwise is repeated too.
func (r Retry) rule(f Failure) (rule RetryRule, named bool) {
	for _, kind := range kindsOf(f) {
		found, ok := r.On[kind]
		if !ok {
			continue
		}
		return r.complete(found), kind == strconv.Itoa(f.Status)
	}
	return r.complete(RetryRule{}), false
}

// complete puts in what a rule leaves out.
func (r Retry) complete(rule RetryRule) RetryRule {
	if rule.MaxAttempts == 0 {
		rule.MaxAttempts = r.MaxAttempts
		if len(rule.Waits) > 0 {
			rule.MaxAttempts = len(rule.Waits) + 1
		}
	}
	if rule.Base == 0 {
		rule.Base = r.Base
		if rule.Max > 0 {
			rule.Base = min(rule.Base, rule.Max)
		}
	}
	if rule.Max == 0 {
		rule.Max = max(r.Max, rule.Base)
	}
	return rule
}

// wait bounds the wait after an attempt.
func (r RetryRule) wait(attempt int) (shortest, longest time.Duration) {
	if n := len(r.Waits); n > 0 {
		shortest = time.Duration(r.Waits[min(attempt, n)-1])
		return shortest, shortest + shortest/10
	}
	longest = min(time.Duration(r.Max), time.Duration(r.Base))
	for n := 1; n < attempt && longest < time.Duration(r.Max); n++ {
		longest = min(time.Duration(r.Max), 2*longest) // both at most a day: it cannot overflow
	}
	return 0, longest
}

// kindsOf names the rules that may hold for a failure, the most precise first.
func kindsOf(f Failure) []string {
	switch {
	case f.Verdict == Lost:
		return []string{"lost"}
	case f.Verdict == Timeout:
		return []string{"timeout", "network"}
	case f.Status == 0:
		return []string{"network"}
	}
	return []string{strconv.Itoa(f.Status), strconv.Itoa(f.Status/100) + "xx"}
}

// validate reports what is wrong with a completed Retry.
func (r Retry) validate() error {
	switch {
	case r.MaxAttempts < 1 || r.MaxAttempts > maxAttempts:
		return Invalid("/max_attempts", "is %d; it is 1 to %d", r.MaxAttempts, maxAttempts)
	case r.Timeout < Duration(100*time.Millisecond) || r.Timeout > Duration(2*time.Minute):
		return Invalid("/timeout", "is %s; it is 100ms to 2m", r.Timeout)
	case r.Base < Duration(time.Millisecond) || r.Base > r.Max:
		return Invalid("/base", "is %s; it is at least 1ms and at most retry.max", r.Base)
	case r.Max > Duration(24*time.Hour):
		return Invalid("/max", "is %s; it is at most 24h", r.Max)
	case len(r.On) > maxRules:
		return Invalid("/on", "holds %d rules, more than %d", len(r.On), maxRules)
	}
	for _, kind := range slices.Sorted(maps.Keys(r.On)) {
		if err := r.complete(r.On[kind]).validate(kind); err != nil {
			return within("/on/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(kind), err)
		}
	}
	return nil
}

const (
	maxAttempts = 50
	maxRules    = 32
)

func (r RetryRule) validate(kind string) error {
	switch {
	case !failureKind(kind):
		return Invalid("", "is no kind of failure; it is a status such as 429, a class such as 5xx, network, timeout or lost")
	case r.MaxAttempts < 1 || r.MaxAttempts > maxAttempts:
		return Invalid("/max_attempts", "is %d; it is 1 to %d", r.MaxAttempts, maxAttempts)
	case len(r.Waits) > maxAttempts-1:
		return Invalid("/waits", "holds %d waits, more than %d", len(r.Waits), maxAttempts-1)
	case r.Base < Duration(time.Millisecond) || r.Base > r.Max:
		return Invalid("/base", "is %s; it is at least 1ms and at most max, which is %s", r.Base, r.Max)
	case r.Max > Duration(24*time.Hour):
		return Invalid("/max", "is %s; it is at most 24h", r.Max)
	}
	for i, wait := range r.Waits {
		if wait < Duration(time.Millisecond) || wait > Duration(7*24*time.Hour) {
			return Invalid("/waits/"+strconv.Itoa(i), "is %s; it is 1ms to 168h", wait)
		}
	}
	return nil
}

func failureKind(kind string) bool {
	if slices.Contains([]string{"network", "timeout", "lost"}, kind) {
		return true
	}
	if len(kind) != 3 || kind[0] < '3' || kind[0] > '5' {
		return false
	}
	if kind[1:] == "xx" {
		return true
	}
	_, err := strconv.Atoi(kind)
	return err == nil
}
