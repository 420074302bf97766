package domain

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// RetrySchedule says when a delivery that keeps failing in one way is tried, and when it is given up.
type RetrySchedule struct {
	On       string         `json:"on" doc:"the kind of failure: a status, a class, network, timeout or lost; 'any other' for all that no rule is about"`
	Attempts []RetryAttempt `json:"attempts" doc:"the first one included"`
	GivesUp  time.Time      `json:"gives_up" doc:"at the latest, unless the target is paused meanwhile or the receiver asks to wait longer"`
	Words    string         `json:"words" doc:"the same in a sentence"`
}

// RetryAttempt is when one attempt is made.
type RetryAttempt struct {
	Attempt  int       `json:"attempt"`
	Earliest time.Time `json:"earliest"`
	Latest   time.Time `json:"latest" doc:"each attempt before it waits its whole timeout, and the jitter is as large as it can be"`
}

// Schedules tells, for a delivery that is due at that time and keeps failing, when it is tried again and when it is given
// up: one schedule for all failures that no rule is about, then one for each rule. Times are told in the zone of due.
func (t Target) Schedules(due time.Time) []RetrySchedule {
	kinds := append([]string{""}, slices.Sorted(maps.Keys(t.Retry.On))...)
	out := make([]RetrySchedule, len(kinds))
	for i, kind := range kinds {
		out[i] = t.schedule(kind, due)
	}
	return out
}

func (t Target) schedule(kind string, due time.Time) RetrySchedule {
	s := RetrySchedule{On: kind}
	rule := t.Retry.complete(t.Retry.On[kind])
	if kind == "" {
		s.On = "any other"
		if len(t.Retry.On) == 0 {
			s.On = "any"
		}
	}
	earliest, last := t.awake(due), t.awake(due)
	expires := time.Time{}
	if t.ExpireAfter > 0 {
		expires = due.Add(time.Duration(t.ExpireAfter))
	}
	ended := last
	for attempt := 1; attempt <= rule.MaxAttempts; attempt++ {
		if !expires.IsZero() && !earliest.Before(expires) {
			break
		}
		s.Attempts = append(s.Attempts, RetryAttempt{Attempt: attempt, Earliest: earliest, Latest: last})
		ended = last.Add(time.Duration(t.Retry.Timeout))
		shortest, longest := rule.wait(attempt)
		earliest, last = t.awake(earliest.Add(shortest)), t.awake(ended.Add(longest))
	}
	s.GivesUp = ended
	if !expires.IsZero() && expires.Before(ended) {
		s.GivesUp = expires
	}
	s.Words = s.words(due, !expires.IsZero() && s.GivesUp.Equal(expires))
	return s
}

// awake is the time itself, or the end of the quiet hours that it falls into.
func (t Target) awake(at time.Time) time.Time {
	if until, quiet := t.QuietHours.Until(at, ""); quiet {
		return until.In(at.Location())
	}
	return at
}

func (s RetrySchedule) words(due time.Time, expires bool) string {
	var b strings.Builder
	switch s.On {
	case "any":
		b.WriteString("When an attempt fails: ")
	case "any other":
		b.WriteString("When an attempt fails in any other way: ")
	case "network":
		b.WriteString("When no answer arrives: ")
	case "timeout":
		b.WriteString("When no answer arrives in time: ")
	case "lost":
		b.WriteString("When the process dies during an attempt: ")
	default:
		fmt.Fprintf(&b, "On %s: ", s.On)
	}
	if len(s.Attempts) <= 1 {
		b.WriteString("gives up at once, without another attempt")
	} else {
		b.WriteString("tries again ")
		for i, a := range s.Attempts[1:] {
			switch {
			case i == wordsMax:
				fmt.Fprintf(&b, ", … (%d attempts in all)", len(s.Attempts))
			case i > wordsMax:
			default:
				if i > 0 {
					b.WriteString(", then ")
				}
				b.WriteString(span(a.Earliest.Sub(due), a.Latest.Sub(due)))
			}
		}
		b.WriteString(" after the first")
	}
	if expires {
		fmt.Fprintf(&b, "; expires %s", s.GivesUp.Format(whenLayout))
	} else {
		fmt.Fprintf(&b, "; gives up %s at the latest", s.GivesUp.Format(whenLayout))
	}
	b.WriteByte('.')
	return b.String()
}

const (
	wordsMax   = 4 // attempts that the sentence names one by one
	whenLayout = "Monday 15:04 (2 January)"
)

// span says between which durations something happens.
func span(from, to time.Duration) string {
	if from = round(from); from == 0 {
		return "within " + short(round(to))
	}
	if to = round(to); from == to {
		return "in " + short(to)
	}
	return short(from) + " to " + short(to)
}

// round leaves two units of a duration at most.
func round(d time.Duration) time.Duration {
	switch {
	case d >= 48*time.Hour:
		return d.Round(time.Hour)
	case d >= time.Hour:
		return d.Round(time.Minute)
	case d >= 10*time.Second:
		return d.Round(time.Second)
	}
	return d.Round(time.Millisecond)
}

// short writes a duration without the units that are nothing.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
