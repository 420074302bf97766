package main

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// A station is a part of the way that every delivery takes: with so many servers, first come, first served. Without servers
// nobody waits there.
type station struct {
	name    string
	servers int           // 0: as many as come
	mean    time.Duration // of a delivery, of the pool's processors where there is one
	varies  bool          // exponentially; otherwise it takes the mean each time
	pool    *pool         // whose processors do it, shared with all that is done there; nil: it takes its time, whoever else does

	// apart is how many processes the servers belong to, in equal parts. A delivery comes to one of them, whichever it is, and
	// waits there although another may have a server free. 0 is one.
	apart int
	// holds is how many of the stations after it a delivery passes before its server here is free for another.
	holds int
	// most is how many that wait a server takes together, which takes it call besides each one's own time; 0 is one.
	most int
	call time.Duration
}

// A pool of processors is shared in equal parts by all that they are at, each at one processor at most.
type pool struct {
	name  string
	cores int
}

// load is how deliveries come: so many a second, or, where that is 0, one for each that ends, so that so many are always under way.
type load struct {
	perSecond float64
	underWay  int
}

// simulated is what came of a simulation.
type simulated struct {
	perSecond float64
	mean, p99 time.Duration     // from beginning to end
	busy      []float64         // part of the servers of each station that are held
	waited    []time.Duration   // for one of them, in the mean
	pools     map[*pool]float64 // part of its processors
}

// moment is something that happens.
type moment struct {
	at    time.Duration
	order int
	what  func()
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

// simulation is one that runs.
type simulation struct {
	stations []station
	chance   *rand.Rand
	now      time.Duration
	agenda   moments
	order    int

	free    [][]int    // by station and process
	waiting [][][]hold // the same
	waited  []time.Duration
	held    [][]hold
	holding []time.Duration // by station, of servers together
	sharing map[*pool]*sharing
	ended   func(delivery int)
}

// hold is a server that a delivery has at a station, or waits for.
type hold struct {
	delivery, station, process int
	since                      time.Duration
}

// sharing is a pool at work. How much each that is there has had since the beginning is the same for all, so whoever comes
// first to what it had when it came and what it needs is the first to end.
type sharing struct {
	cores int
	had   float64 // nanoseconds of a processor
	since time.Duration
	works tasks
	turn  int     // of the moment when the first ends; earlier ones are void
	used  float64 // nanoseconds of all processors
}

type task struct {
	until float64 // of sharing.had
	order int
	done  func()
}

type tasks []task

func (t tasks) Len() int { return len(t) }
func (t tasks) Less(i, j int) bool {
	return t[i].until < t[j].until || t[i].until == t[j].until && t[i].order < t[j].order
}
func (t tasks) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *tasks) Push(x any)   { *t = append(*t, x.(task)) }
func (t *tasks) Pop() any {
	old := *t
	last := old[len(old)-1]
	*t = old[:len(old)-1]
	return last
}

// simulate has deliveries pass the stations in order, and looks at all but the first fifth of them. The same seed gives the
// same answer.
func simulate(stations []station, l load, deliveries int, seed uint64) simulated {
	s := &simulation{
		stations: stations, chance: rand.New(rand.NewPCG(seed, seed)), //nolint:gosec // a simulation that can be repeated
		free: make([][]int, len(stations)), waiting: make([][][]hold, len(stations)), waited: make([]time.Duration, len(stations)), held: make([][]hold, deliveries), holding: make([]time.Duration, len(stations)),
		sharing: map[*pool]*sharing{},
	}
	for i, at := range stations {
		n := max(1, at.apart)
		s.free[i], s.waiting[i] = slices.Repeat([]int{at.servers / n}, n), make([][]hold, n)
		if at.pool != nil {
			s.sharing[at.pool] = &sharing{cores: at.pool.cores}
		}
	}
	began := make([]time.Duration, deliveries)
	next := 0
	var begin func()
	begin = func() {
		if next == deliveries {
			return
		}
		d := next
		began[d] = s.now
		next++
		s.arrive(d, 0)
		if l.perSecond > 0 {
			s.after(time.Duration(s.chance.ExpFloat64()/l.perSecond*float64(time.Second)), begin)
		}
	}
	var took []time.Duration
	var from time.Duration
	s.ended = func(d int) {
		took = append(took, s.now-began[d])
		if len(took) == deliveries/5 {
			from = s.now
		}
		if l.underWay > 0 {
			begin()
		}
	}
	if l.perSecond > 0 {
		s.after(0, begin)
	}
	for range l.underWay {
		s.after(0, begin)
	}
	for s.agenda.Len() > 0 && len(took) < deliveries {
		m := heap.Pop(&s.agenda).(moment)
		s.now = m.at
		m.what()
	}
	return s.sumUp(took[min(len(took), deliveries/5):], from)
}

func (s *simulation) after(d time.Duration, what func()) {
	s.order++
	heap.Push(&s.agenda, moment{s.now + d, s.order, what})
}

func (s *simulation) arrive(d, i int) {
	if i == len(s.stations) {
		s.ended(d)
		return
	}
	if s.stations[i].servers == 0 {
		s.serve([]int{d}, i)
		return
	}
	process := 0
	if n := s.stations[i].apart; n > 1 {
		process = s.chance.IntN(n)
	}
	s.waiting[i][process] = append(s.waiting[i][process], hold{d, i, process, s.now})
	s.call(i, process)
}

// call has the free servers of a station's process take those that wait there.
func (s *simulation) call(i, process int) {
	for s.free[i][process] > 0 && len(s.waiting[i][process]) > 0 {
		s.free[i][process]--
		waiting := s.waiting[i][process]
		n := min(len(waiting), max(1, s.stations[i].most))
		taken := make([]int, n)
		for k, w := range waiting[:n] {
			taken[k] = w.delivery
			s.waited[i] += s.now - w.since
		}
		s.waiting[i][process] = waiting[n:]
		s.held[taken[n-1]] = append(s.held[taken[n-1]], hold{taken[n-1], i, process, s.now}) // a server that has several is free when the last of them leaves
		s.serve(taken, i)
	}
}

func (s *simulation) serve(taken []int, i int) {
	at := s.stations[i]
	takes := at.call
	for range taken {
		if at.varies {
			takes += time.Duration(s.chance.ExpFloat64() * float64(at.mean))
		} else {
			takes += at.mean
		}
	}
	done := func() {
		for _, d := range taken {
			s.leave(d, i)
		}
	}
	if at.pool == nil {
		s.after(takes, done)
		return
	}
	p := s.sharing[at.pool]
	p.until(s.now)
	s.order++
	heap.Push(&p.works, task{p.had + float64(takes), s.order, done})
	s.turn(p)
}

// leave takes a delivery on, and frees the servers that it need not hold any more.
func (s *simulation) leave(d, i int) {
	var freed []hold
	s.held[d] = slices.DeleteFunc(s.held[d], func(h hold) bool {
		over := h.station+s.stations[h.station].holds <= i
		if over {
			s.holding[h.station] += s.now - h.since
			s.free[h.station][h.process]++
			freed = append(freed, h)
		}
		return over
	})
	s.arrive(d, i+1)
	for _, f := range freed {
		s.call(f.station, f.process)
	}
}

// rate is how much of a processor each task has.
func (p *sharing) rate() float64 { return min(1, float64(p.cores)/float64(len(p.works))) }

func (p *sharing) until(now time.Duration) {
	if len(p.works) > 0 {
		each := float64(now-p.since) * p.rate()
		p.had += each
		p.used += each * float64(len(p.works))
	}
	p.since = now
}

// turn sees to the end of the task that ends first, as things stand.
func (s *simulation) turn(p *sharing) {
	p.turn++
	if len(p.works) == 0 {
		return
	}
	mine := p.turn
	left := max(0, p.works[0].until-p.had) / p.rate()
	s.after(time.Duration(math.Ceil(left)), func() {
		if p.turn != mine {
			return
		}
		p.until(s.now)
		first := heap.Pop(&p.works).(task)
		s.turn(p)
		first.done()
	})
}

// sumUp tells what came of it, from a moment on.
func (s *simulation) sumUp(seen []time.Duration, from time.Duration) simulated {
	out := simulated{busy: make([]float64, len(s.stations)), waited: s.waited, pools: map[*pool]float64{}}
	if len(seen) == 0 || s.now <= from {
		return out
	}
	slices.Sort(seen)
	var sum time.Duration
	for _, d := range seen {
		sum += d
	}
	out.perSecond = float64(len(seen)) / (s.now - from).Seconds()
	out.mean, out.p99 = sum/time.Duration(len(seen)), seen[len(seen)*99/100]
	for i, at := range s.stations {
		if at.servers > 0 {
			out.busy[i] = s.holding[i].Seconds() / s.now.Seconds() / float64(at.servers)
		}
	}
	for i := range out.waited {
		out.waited[i] /= time.Duration(len(s.held))
	}
	for p, at := range s.sharing {
		out.pools[p] = at.used / float64(s.now) / float64(p.cores)
	}
	return out
}
