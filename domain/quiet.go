package domain

import (
	"encoding/json"
	"strings"
	"time"
	_ "time/tzdata" // zones are part of the rule, so they are part of the program
)

// QuietHours are a time of the day in which a target sends nothing: what falls into it waits for its end.
type QuietHours struct {
	From        string `json:"from" yaml:"from" doc:"such as 21:00"`
	To          string `json:"to" yaml:"to" doc:"such as 08:00; before from means the next day"`
	Zone        string `json:"zone,omitempty" yaml:"zone,omitempty" doc:"such as Australia/Sydney; UTC by default"`
	ProfileZone string `json:"profile_zone,omitempty" yaml:"profile_zone,omitempty" doc:"where the context names the person's own zone, such as profile.timezone; zone where it does not"`
}

const clockLayout = "15:04"

// Until gives the end of the quiet hours that a time falls into, in UTC; false when it falls into none. The zone is the
// person's own; empty, or one that nobody knows, is the target's. Nil hours are never quiet.
//
// The hours are those that clocks on the wall show: a night in which the clock is changed is as much longer or shorter.
func (q *QuietHours) Until(at time.Time, zone string) (time.Time, bool) {
	if q == nil {
		return at, false
	}
	where := q.location(zone)
	from, err1 := time.Parse(clockLayout, q.From)
	to, err2 := time.Parse(clockLayout, q.To)
	if err1 != nil || err2 != nil {
		return at, false // Validate keeps such hours out
	}
	local := at.In(where)
	for _, day := range []int{local.Day() - 1, local.Day()} { // a night that began yesterday, or one that begins today
		on := func(day int, clock time.Time) time.Time {
			return time.Date(local.Year(), local.Month(), day, clock.Hour(), clock.Minute(), 0, 0, where)
		}
		begins, ends := on(day, from), on(day, to)
		if !to.After(from) {
			ends = on(day+1, to)
		}
		if !at.Before(begins) && at.Before(ends) {
			return ends.UTC(), true
		}
	}
	return at, false
}

// location is where the hours hold.
func (q *QuietHours) location(zone string) *time.Location {
	for _, name := range []string{zone, q.Zone} {
		if name == "" || name == "Local" {
			continue
		}
		if where, err := time.LoadLocation(name); err == nil {
			return where
		}
	}
	return time.UTC
}

// ZoneOf reads the person's zone out of a context; empty where the context names none that is known.
func (q *QuietHours) ZoneOf(context json.RawMessage) string {
	if q == nil || q.ProfileZone == "" {
		return ""
	}
	for name := range strings.SplitSeq(q.ProfileZone, ".") {
		var object map[string]json.RawMessage
		if json.Unmarshal(context, &object) != nil {
			return ""
		}
		context = object[name]
	}
	var zone string
	if json.Unmarshal(context, &zone) != nil || zone == "Local" {
		return ""
	}
	if _, err := time.LoadLocation(zone); err != nil {
		return ""
	}
	return zone
}

func (q *QuietHours) validate() error {
	if _, err := time.Parse(clockLayout, q.From); err != nil {
		return Invalid("/from", "is %q; it is a time of the day such as 21:00", clip(q.From))
	}
	if _, err := time.Parse(clockLayout, q.To); err != nil {
		return Invalid("/to", "is %q; it is a time of the day such as 08:00", clip(q.To))
	}
	if q.From == q.To {
		return Invalid("/to", "is the same as from, which leaves no time to send in, or none to be quiet in")
	}
	if _, err := time.LoadLocation(q.Zone); err != nil || q.Zone == "Local" {
		return Invalid("/zone", "is %q; it is a zone such as Australia/Sydney", clip(q.Zone))
	}
	if len(q.ProfileZone) > 256 {
		return Invalid("/profile_zone", "is longer than 256 bytes")
	}
	return nil
}
