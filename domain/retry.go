package domain

import (
	"time"

	"github.com/cenkalti/backoff/v5"
)

// After says what a delivery is after an attempt that did not settle it, and when it is tried again.
//
// The wait is exponential with full jitter: uniform between nothing and Base, 2·Base, 4·Base, … up to Max. It is
// never shorter than asked for: notBefore, from Retry-After and its kin, is a floor, and the jitter comes on top.
func (r Retry) After(attempt int, retryable bool, now, notBefore time.Time) (Outcome, *time.Time) {
	if !retryable || attempt >= r.MaxAttempts {
		return Failed, nil
	}
	longest := time.Duration(r.Max)
	ceiling := min(longest, time.Duration(r.Base))
	for n := 1; n < attempt && ceiling < longest; n++ {
		ceiling = min(longest, 2*ceiling) // both at most a day: it cannot overflow
	}
	// With a factor of 1, the library draws uniformly between 0 and twice the interval.
	jitter := backoff.ExponentialBackOff{InitialInterval: ceiling / 2, RandomizationFactor: 1, Multiplier: 1, MaxInterval: ceiling}
	jitter.Reset()
	next := now.Add(jitter.NextBackOff())
	if notBefore.After(now) {
		next = notBefore.Add(jitter.NextBackOff() / 10)
	}
	next = next.UTC().Truncate(time.Microsecond).Add(time.Microsecond) // never earlier, not even by what truncating takes
	return Retrying, &next
}
