package domain

import (
	"slices"
	"strings"
	"time"

	"github.com/rickar/cal/v2"
	"github.com/rickar/cal/v2/au"
	"github.com/rickar/cal/v2/ca"
	"github.com/rickar/cal/v2/gb"
	"github.com/rickar/cal/v2/nz"
	"github.com/rickar/cal/v2/us"
)

// Deadline says by when something that a person asked for must have happened: so many business days, by the calendar of
// a place, or so long.
type Deadline struct {
	BusinessDays int      `json:"business_days,omitempty" doc:"full business days after the day of the decision, to the end of the last one"`
	Calendar     string   `json:"calendar,omitempty" doc:"whose public holidays are no business days: au, au-nsw and the other states, nz, gb, us, ca; none: weekends only"`
	TimeZone     string   `json:"time_zone,omitempty" doc:"IANA name of where a day begins and ends"`
	Within       Duration `json:"within,omitempty" doc:"so long after the decision, instead of business days"`
}

// DefaultDeadline is that of Australia's Spam Act 2003: five business days.
func DefaultDeadline() Deadline {
	return Deadline{BusinessDays: 5, Calendar: "au", TimeZone: "Australia/Sydney"}
}

// calendars are the public holidays by name. au are the national ones alone, which makes for the earliest deadline.
var calendars = map[string][]*cal.Holiday{
	"none":   nil,
	"au":     {au.NewYear, au.AustraliaDay, au.GoodFriday, au.EasterMonday, au.AnzacDay, au.ChristmasDay, au.BoxingDay},
	"au-act": au.HolidaysACT, "au-nsw": au.HolidaysNSW, "au-nt": au.HolidaysNT, "au-qld": au.HolidaysQLD,
	"au-sa": au.HolidaysSA, "au-tas": au.HolidaysTAS, "au-vic": au.HolidaysVIC, "au-wa": au.HolidaysWA,
	"nz": nz.Holidays, "gb": gb.Holidays, "us": us.Holidays, "ca": ca.Holidays,
}

// Calendars lists the names of the calendars.
func Calendars() []string {
	var names []string
	for name := range calendars {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Validate reports what is wrong with the deadline as an *InvalidError, or nil.
func (d Deadline) Validate() error {
	switch {
	case (d.BusinessDays > 0) == (d.Within > 0):
		return Invalid("", "gives both business_days and within, or neither; give one of them")
	case d.BusinessDays < 0 || d.BusinessDays > 60:
		return Invalid("/business_days", "is %d; it is 1 to 60", d.BusinessDays)
	case d.Within < 0 || time.Duration(d.Within) > 90*24*time.Hour:
		return Invalid("/within", "is not between nothing and 90 days (2160h)")
	case d.Within > 0 && (d.Calendar != "" || d.TimeZone != ""):
		return Invalid("/calendar", "is given beside within, which counts hours and not days")
	case d.Within > 0:
		return nil
	}
	if _, ok := calendars[d.Calendar]; !ok {
		return Invalid("/calendar", "is %q; it is one of %s", clip(d.Calendar), strings.Join(Calendars(), ", "))
	}
	if _, err := time.LoadLocation(d.TimeZone); err != nil || d.TimeZone == "" || d.TimeZone == "Local" {
		return Invalid("/time_zone", "is %q, which is no time zone such as Australia/Sydney", clip(d.TimeZone))
	}
	return nil
}

// Reckoner gives the deadline of any decision; it is made once and asked often.
func (d Deadline) Reckoner() func(decided time.Time) time.Time {
	if d.Within > 0 {
		return func(decided time.Time) time.Time { return decided.Add(time.Duration(d.Within)) }
	}
	calendar := cal.NewBusinessCalendar()
	calendar.AddHoliday(calendars[d.Calendar]...)
	zone, err := time.LoadLocation(d.TimeZone)
	if err != nil {
		zone = time.UTC // Validate let it pass when it was recorded; a server without that zone still has a clock
	}
	return func(decided time.Time) time.Time {
		day := decided.In(zone)
		for left := d.BusinessDays; left > 0; {
			day = day.AddDate(0, 0, 1)
			if calendar.IsWorkday(day) {
				left--
			}
		}
		year, month, date := day.Date()
		return time.Date(year, month, date+1, 0, 0, 0, 0, zone).UTC()
	}
}
