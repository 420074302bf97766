package domain_test

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

func TestQuietHours(t *testing.T) {
	t.Parallel()
	night := domain.QuietHours{From: "21:00", To: "08:00", Zone: "Australia/Sydney"}
	noon := domain.QuietHours{From: "12:00", To: "13:30"}
	zurich := domain.QuietHours{From: "21:00", To: "08:00", Zone: "Europe/Zurich"}
	for name, c := range map[string]struct {
		hours *domain.QuietHours
		at    string
		zone  string
		want  string // empty: it is not quiet
	}{
		"before midnight":                          {&night, "2026-07-01T22:15:00+10:00", "", "2026-07-02T08:00:00+10:00"},
		"after midnight":                           {&night, "2026-07-02T03:00:00+10:00", "", "2026-07-02T08:00:00+10:00"},
		"the first minute":                         {&night, "2026-07-01T21:00:00+10:00", "", "2026-07-02T08:00:00+10:00"},
		"the moment it ends":                       {&night, "2026-07-02T08:00:00+10:00", "", ""},
		"the day":                                  {&night, "2026-07-02T15:00:00+10:00", "", ""},
		"the last day of a month":                  {&night, "2026-12-31T23:30:00+11:00", "", "2027-01-01T08:00:00+11:00"},
		"in the person's own zone it is day":       {&night, "2026-07-01T22:15:00+10:00", "America/New_York", ""},
		"in the person's own zone it is night":     {&night, "2026-07-02T15:00:00+10:00", "America/New_York", "2026-07-02T08:00:00-04:00"},
		"a zone that nobody knows is the target's": {&night, "2026-07-01T22:15:00+10:00", "Mars/Olympus", "2026-07-02T08:00:00+10:00"},
		"within a day":                             {&noon, "2026-07-01T12:30:00Z", "", "2026-07-01T13:30:00Z"},
		"a night in which the clocks go forward":   {&zurich, "2026-03-28T23:00:00+01:00", "", "2026-03-29T08:00:00+02:00"},
		"a night in which the clocks go back":      {&zurich, "2026-10-24T23:00:00+02:00", "", "2026-10-25T08:00:00+01:00"},
		"no hours at all":                          {nil, "2026-07-01T22:15:00+10:00", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at, err := time.Parse(time.RFC3339, c.at)
			if err != nil {
				t.Fatal(err)
			}
			ends, quiet := c.hours.Until(at, c.zone)
			if quiet != (c.want != "") {
				t.Fatalf("quiet = %t, want %t", quiet, c.want != "")
			}
			if want, _ := time.Parse(time.RFC3339, c.want); quiet && !ends.Equal(want) {
				t.Errorf("until %s, want %s", ends, want)
			}
		})
	}
}

// TestQuietHoursEnd: where they end it is not quiet any more, whatever the hours and the zone, so that nothing waits for ever.
func TestQuietHoursEnd(t *testing.T) {
	t.Parallel()
	zones := []string{"UTC", "Europe/Zurich", "Australia/Lord_Howe", "America/St_Johns", "Asia/Kathmandu", "Africa/Cairo", "Pacific/Apia"}
	rapid.Check(t, func(t *rapid.T) {
		clock := rapid.Custom(func(t *rapid.T) string {
			return time.Date(0, 1, 1, rapid.IntRange(0, 23).Draw(t, "hour"), rapid.IntRange(0, 59).Draw(t, "minute"), 0, 0, time.UTC).Format("15:04")
		})
		q := &domain.QuietHours{From: clock.Draw(t, "from"), To: clock.Draw(t, "to"), Zone: rapid.SampledFrom(zones).Draw(t, "zone")}
		if q.From == q.To {
			return
		}
		at := time.Unix(rapid.Int64Range(1_500_000_000, 2_000_000_000).Draw(t, "at"), 0)
		ends, quiet := q.Until(at, "")
		if !quiet {
			return
		}
		if !ends.After(at) || ends.Sub(at) > 26*time.Hour {
			t.Fatalf("%s to %s in %s: at %s it is quiet until %s", q.From, q.To, q.Zone, at, ends)
		}
		if again, still := q.Until(ends, ""); still && again.Sub(ends) > 2*time.Hour { // the clock may go back into them
			t.Fatalf("%s to %s in %s: they end at %s, and then last until %s", q.From, q.To, q.Zone, ends, again)
		}
	})
}

func TestTheContextNamesAZone(t *testing.T) {
	t.Parallel()
	q := &domain.QuietHours{From: "21:00", To: "08:00", ProfileZone: "profile.timezone"}
	for name, c := range map[string]struct{ context, want string }{
		"it does":                   {`{"profile":{"timezone":"Europe/Zurich"}}`, "Europe/Zurich"},
		"it does not":               {`{"profile":{}}`, ""},
		"it is no object":           {`{"profile":"x"}`, ""},
		"it is no zone":             {`{"profile":{"timezone":"Middle/Earth"}}`, ""},
		"it is a path":              {`{"profile":{"timezone":"../../etc/passwd"}}`, ""},
		"it is where the server is": {`{"profile":{"timezone":"Local"}}`, ""},
		"it is a number":            {`{"profile":{"timezone":2}}`, ""},
		"there is no context":       {``, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := q.ZoneOf(json.RawMessage(c.context)); got != c.want {
				t.Errorf("ZoneOf = %q, want %q", got, c.want)
			}
		})
	}
}
