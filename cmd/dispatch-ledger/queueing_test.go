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
	const n = 100_000
	one, two := &pool{"processor", 1}, &pool{"processors", 2}
	server := func(varies bool) station { return station{name: "s", servers: 1, mean: 10 * ms, varies: varies} }
	shared := func(p *pool, varies bool) station { return station{name: "s", mean: 10 * ms, varies: varies, pool: p} }
	near := func(t *testing.T, what string, got, want float64) {
		t.Helper()
		if math.Abs(got/want-1) > 0.05 {
			t.Errorf("%s = %.4f, want %.4f", what, got, want)
		}
	}
	// Of one server that is 80 % busy: 1 / (mu - lambda), however it is shared.
	stay := 1 / (100.0 - 80)
	for name, tc := range map[string]struct {
		stations []station
		load     load
		want     float64 // seconds from beginning to end, where it is not 0
		rate     float64
	}{
		"one server, exponential times (M/M/1)": {[]station{server(true)}, load{perSecond: 80}, stay, 80},
		// With constant times those before one take half as long (Pollaczek and Khinchine).
		"one server, constant times (M/D/1)": {[]station{server(false)}, load{perSecond: 80}, 0.01 + 0.8*0.01/(2*(1-0.8)), 80},
		// Where a processor is shared, it does not matter how the times vary (Kleinrock).
		"a shared processor, exponential times (M/M/1-PS)": {[]station{shared(one, true)}, load{perSecond: 80}, stay, 80},
		"a shared processor, constant times (M/D/1-PS)":    {[]station{shared(one, false)}, load{perSecond: 80}, stay, 80},
		// Two share it as one of both: the second visit waits for the first ones (each of half the work).
		"a shared processor, work in two parts": {
			[]station{{name: "a", mean: 5 * ms, varies: true, pool: one}, {name: "b", mean: 5 * ms, varies: true, pool: one}}, load{perSecond: 80}, stay, 80,
		},
		// Two processors, 80 % busy: 1/mu / (1 - rho²) (Erlang C for two servers).
		"two shared processors, exponential times (M/M/2-PS)": {[]station{shared(two, true)}, load{perSecond: 160}, 0.01 / (1 - 0.8*0.8), 160},
		// So many always under way: by Little's law and mean value analysis.
		"eight slots of 50 ms, enough under way":       {[]station{{name: "cpu", mean: ms / 2, varies: true, pool: two}, {name: "r", servers: 8, mean: 50 * ms}}, load{underWay: 16}, 0, 160},
		"eight slots of 50 ms behind a way of 50 ms":   {[]station{{name: "way", mean: 50 * ms}, {name: "r", servers: 8, mean: 50 * ms}}, load{underWay: 8}, 0, 80},
		"a way of 100 ms and a shared processor, 20":   {[]station{{name: "way", mean: 100 * ms, varies: true}, shared(one, true)}, load{underWay: 20}, 0, closed(20, 0.1, 0.01)},
		"a way of 100 ms and a shared processor, 8":    {[]station{{name: "way", mean: 100 * ms, varies: true}, shared(one, false)}, load{underWay: 8}, 0, closed(8, 0.1, 0.01)},
		"slots that are held through what comes after": {[]station{{name: "slots", servers: 4, holds: 2}, {name: "a", mean: 10 * ms}, {name: "b", mean: 30 * ms}}, load{underWay: 9}, 0, 100},
		// Four processes with many servers each are as good as one; with one each, they are four queues (M/M/1, each with a fourth).
		"servers apart, enough of each": {[]station{{name: "s", servers: 400, apart: 4, mean: 10 * ms, varies: true}}, load{perSecond: 320}, 0.01, 320},
		"servers apart, one of each":    {[]station{{name: "s", servers: 4, apart: 4, mean: 10 * ms, varies: true}}, load{perSecond: 320}, stay, 320},
		// A call costs what it costs, however many it is for.
		"calls for all that wait": {[]station{{name: "lock", servers: 1, mean: ms, call: 9 * ms, most: 1000}}, load{underWay: 40}, 0, 40.0 / (0.009 + 0.040)},
		"calls for at most ten":   {[]station{{name: "lock", servers: 1, mean: ms, call: 9 * ms, most: 10}}, load{underWay: 40}, 0, 10.0 / (0.009 + 0.010)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := simulate(tc.stations, tc.load, n, 7)
			near(t, "rate", got.perSecond, tc.rate)
			if tc.want > 0 {
				near(t, "stay", got.mean.Seconds(), tc.want)
			}
			for i, s := range tc.stations {
				if s.servers == 1 && s.call == 0 {
					near(t, "busy", got.busy[i], tc.rate/100)
				}
				if s.pool == one && tc.load.perSecond > 0 {
					near(t, "busy", got.pools[one], tc.rate/100)
				}
			}
			if again := simulate(tc.stations, tc.load, n, 7); again.mean != got.mean {
				t.Errorf("the same seed gives %s and %s", got.mean, again.mean)
			}
		})
	}
}

// closed is how many a second pass a way and one server, in turn, of so many that are always under way: mean value analysis.
func closed(underWay int, way, service float64) float64 {
	var rate, queue float64
	for n := 1; n <= underWay; n++ {
		stay := service * (1 + queue)
		rate = float64(n) / (way + stay)
		queue = rate * stay
	}
	return rate
}
