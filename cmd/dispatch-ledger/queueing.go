package main

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// A station is a part of the way that every delivery takes: with so many servers, each at one delivery at a time, first come,
// first served. Without servers nobody waits there: it is a way.
type station struct {
	name    string
	servers int
	mean    time.Duration // of a delivery
	varies  bool          // exponentially; otherwise it takes the mean each time
}

// load is how deliveries come: so many a second, or, where that is 0, one for each that ends, so that so many are always under way.
type load struct {
	perSecond float64
	underWay  int
}

// simulated is what came of a simulation.
type simulated struct {
	perSecond float64
	mean, p99 time.Duration // from beginning to end
	busy      []float64     // part of the servers of each station
}

// moment is something that happens to a delivery.
type moment struct {
	at       time.Duration
	order    int
	delivery int
	arrives  bool // at its next station; otherwise it leaves the one that it is at
}

type moments []moment

func (m moments) Len() int { return len(m) }
func (m moments) Less(i, j int) bool {
	return m[i].at < m[j].at || m[i].at == m[j].at && m[i].order < m[j].order
}
func (m moments) Swap(i, j int) { m[i], m[j] = m[j], m[i] }
func (m *moments) Push(x any)   { *m = append(*m, x.(moment)) }
func (m *moments) Pop() any {
	old := *m
	last := old[len(old)-1]
	*m = old[:len(old)-1]
	return last
}

// simulate has deliveries pass the stations in order, and looks at all but the first fifth of them. The same seed gives the
// same answer.
func simulate(stations []station, l load, deliveries int, seed uint64) simulated {
	chance := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // a simulation that can be repeated
	began, at := make([]time.Duration, deliveries), make([]int, deliveries)
	free, waiting, busy := make([]int, len(stations)), make([][]int, len(stations)), make([]time.Duration, len(stations))
	for i, s := range stations {
		free[i] = s.servers
	}
	var agenda moments
	order, next := 0, 0
	add := func(m moment) {
		m.order = order
		order++
		heap.Push(&agenda, m)
	}
	begin := func(now time.Duration) {
		if next < deliveries {
			began[next] = now
			add(moment{at: now, delivery: next, arrives: true})
			next++
		}
	}
	serve := func(now time.Duration, d int) {
		s := stations[at[d]]
		takes := s.mean
		if s.varies {
			takes = time.Duration(chance.ExpFloat64() * float64(s.mean))
		}
		busy[at[d]] += takes
		add(moment{at: now + takes, delivery: d})
	}
	if l.perSecond > 0 {
		begin(0)
	}
	for range l.underWay {
		begin(0)
	}
	var took []time.Duration
	var from, now time.Duration
	for agenda.Len() > 0 {
		m := heap.Pop(&agenda).(moment)
		now = m.at
		d := m.delivery
		if m.arrives && at[d] == 0 && l.perSecond > 0 {
			begin(now + time.Duration(chance.ExpFloat64()/l.perSecond*float64(time.Second)))
		}
		if m.arrives {
			i := at[d]
			switch {
			case stations[i].servers == 0:
				serve(now, d)
			case free[i] > 0:
				free[i]--
				serve(now, d)
			default:
				waiting[i] = append(waiting[i], d)
			}
			continue
		}
		if i := at[d]; stations[i].servers > 0 {
			if len(waiting[i]) > 0 {
				first := waiting[i][0]
				waiting[i] = waiting[i][1:]
				serve(now, first)
			} else {
				free[i]++
			}
		}
		if at[d]++; at[d] < len(stations) {
			add(moment{at: now, delivery: d, arrives: true})
			continue
		}
		took = append(took, now-began[d])
		if len(took) == deliveries/5 {
			from = now
		}
		if l.underWay > 0 {
			begin(now)
		}
	}
	return sumUp(stations, took, busy, deliveries/5, from, now)
}
