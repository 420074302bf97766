package main

import (
	"math"
	"testing"
	"time"
)

// TestSimulationsAreTrue holds the simulation against what queueing theory knows.
func TestSimulationsAreTrue(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got/want-1) > 0.05 {
			t.Errorf("%s = %.4f, want %.4f", what, got, want)
		}
	}
	// One server, Poisson arrivals, 80 % busy: the mean stay is 1 / (mu - lambda).
	mm1 := simulate([]station{{"s", 1, 10 * ms, true}}, load{perSecond: 80}, 200_000, 7)
	near("M/M/1 rate", mm1.perSecond, 80)
	near("M/M/1 busy", mm1.busy[0], 0.8)
	near("M/M/1 stay", mm1.mean.Seconds(), 1/(100.0-80))
	// The same with constant service waits half as long (Pollaczek and Khinchine).
	md1 := simulate([]station{{"s", 1, 10 * ms, false}}, load{perSecond: 80}, 200_000, 7)
	near("M/D/1 stay", md1.mean.Seconds(), 0.01+0.8*0.01/(2*(1-0.8)))
	// Eight slots of 50 ms are the limit, as long as enough is under way.
	slots := simulate([]station{{"cpu", 2, ms / 2, true}, {"receiver", 8, 50 * ms, false}}, load{underWay: 16}, 20_000, 7)
	near("slots", slots.perSecond, 160)
	// With as many under way as there are slots, the way there and back is idle time (Little).
	way := simulate([]station{{"way", 0, 50 * ms, false}, {"receiver", 8, 50 * ms, false}}, load{underWay: 8}, 20_000, 7)
	near("slots behind a way", way.perSecond, 80)
	if again := simulate([]station{{"s", 1, 10 * ms, true}}, load{perSecond: 80}, 200_000, 7); again.mean != mm1.mean {
		t.Errorf("the same seed gives %s and %s", mm1.mean, again.mean)
	}
}
