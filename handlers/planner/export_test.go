package planner

// LookAheadBy has the planner look ahead by so many events in a look, for so many firings, so many of each target.
func (p *Planner) LookAheadBy(look int64, most, each int) {
	p.reach = reach{look: look, most: most, each: each}
}
