package twig

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// PHP reads dates as a row of items in any order: "Thu, 15 Jan 2026 10:00 +0100", "next monday noon", "+1 week 2
// days ago". At each place the item that matches the longest text wins. What no item sets comes from now.

// moment collects what the items of a date say.
type moment struct {
	y, m, d         int
	h, i, s, ns     int
	haveDate        bool
	haveTime        bool
	zone            *time.Location
	relative        relative
	timestamp       *time.Time
	timeReset       bool // today, midnight, a weekday: the time is 0:00 unless an item sets it
	weekdayOf       *weekdayOf
	businessDays    int
	haveBusiness    bool
	firstLastDayOf  int // 1 first day of, 2 last day of
	haveWeekday     bool
	weekday         int
	weekdayBehavior int
}

type relative struct{ y, m, d, h, i, s, us int }

// weekdayOf is "second monday of".
type weekdayOf struct {
	count, weekday int
}

const unset = -1 << 40

func newMoment() *moment {
	return &moment{y: unset, m: unset, d: unset, h: unset, i: unset, s: unset, ns: unset}
}

// item is one kind of thing that a date is made of.
type item struct {
	re *regexp.Regexp
	do func(m *moment, g []string) error
}

const (
	reMonth     = `(january|february|march|april|may|june|july|august|september|october|november|december|jan|feb|mar|apr|jun|jul|aug|sept|sep|oct|nov|dec|i{1,3}|i[vx]|vi{0,3}|xi{0,2})`
	reDay       = `([0-2]?[0-9]|3[01])(?:st|nd|rd|th)?`
	reWeekday   = `(sunday|monday|tuesday|wednesday|thursday|friday|saturday|sun|mon|tues|tue|wednes|wed|thurs|thur|thu|fri|satur|sat)`
	reUnit      = `(milliseconds?|msecs?|ms|microseconds?|usecs?|µs|seconds?|secs?|sec|s|minutes?|mins?|min|hours?|hour|days?|day|weeks?|week|fortnights?|forthnights?|months?|mons?|years?|year|weekdays?|sunday|monday|tuesday|wednesday|thursday|friday|saturday|sun|mon|tues|tue|wednes|wed|thurs|thur|thu|fri|satur|sat)`
	reOrdinal   = `(first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|next|last|previous|this)`
	reSpace     = `[ \t]+`
	reSpaceOpt  = `[ \t]*`
	reSeparator = `[ \t.\-]*`
	reTime24    = `t?([01]?[0-9]|2[0-4])[:.]([0-5]?[0-9])(?:[:.]([0-5]?[0-9]|60)(?:[.,:]([0-9]+))?)?`
)

var (
	itemsOnce sync.Once
	allItems  []item
)

func dateItems() []item {
	itemsOnce.Do(func() {
		add := func(pattern string, do func(m *moment, g []string) error) {
			re := regexp.MustCompile(`(?i)\A(?:` + pattern + `)`)
			re.Longest()
			allItems = append(allItems, item{re, do})
		}
		add(`now\b`, func(*moment, []string) error { return nil })
		add(`(?:today|midnight)\b`, (*moment).midnight)
		add(`noon\b`, func(m *moment, _ []string) error { return m.time(12, 0, 0, 0) })
		add(`tomorrow\b`, func(m *moment, _ []string) error { m.relative.d++; return m.midnight(nil) })
		add(`yesterday\b`, func(m *moment, _ []string) error { m.relative.d--; return m.midnight(nil) })
		add(`@(-?[0-9]+)(?:\.([0-9]{0,6}))?`, (*moment).unix)
		add(reTime24, (*moment).time24)
		add(`t?(0?[0-9]|1[0-2])(?:[:.]([0-5]?[0-9])(?:[:.]([0-5]?[0-9]|60))?)?`+reSpaceOpt+`([ap])\.?m\.?(?:[ \t\x00]|\z)`, (*moment).time12)
		add(`t([01][0-9]|2[0-4])([0-5][0-9])(?:([0-5][0-9]))?`, (*moment).time24)
		add(`([+-]?[0-9]{4})-(0?[0-9]|1[0-2])-([0-2]?[0-9]|3[01])`, (*moment).ymd)
		add(`([0-9]{4})/(0?[0-9]|1[0-2])/([0-2]?[0-9]|3[01])/?`, (*moment).ymd)
		add(`([0-9]{2})-(0?[0-9]|1[0-2])-([0-2]?[0-9]|3[01])`, (*moment).ymd)
		add(`([0-9]{4})(0[0-9]|1[0-2])([0-2][0-9]|3[01])`, (*moment).ymd)
		add(`([0-9]{4})-(0?[0-9]|1[0-2])`, func(m *moment, g []string) error { return m.date(g[1], g[2], "1") })
		add(`(0?[0-9]|1[0-2])/`+reDay+`/([0-9]{4}|[0-9]{2})`, func(m *moment, g []string) error { return m.date(g[3], g[1], g[2]) })
		add(`(0?[0-9]|1[0-2])/`+reDay, func(m *moment, g []string) error { return m.date("", g[1], g[2]) })
		add(reDay+`[.\t-](0?[0-9]|1[0-2])[.-]([0-9]{4})`, func(m *moment, g []string) error { return m.date(g[3], g[2], g[1]) })
		add(reDay+`[.\t](0?[0-9]|1[0-2])\.([0-9]{2})`, func(m *moment, g []string) error { return m.date(g[3], g[2], g[1]) })
		add(reDay+reSeparator+reMonth+reSeparator+`([0-9]{4}|[0-9]{2})\b`, func(m *moment, g []string) error { return m.named(g[3], g[2], g[1]) })
		add(reDay+reSeparator+reMonth+`\b`, func(m *moment, g []string) error { return m.named("", g[2], g[1]) })
		add(reMonth+reSeparator+reDay+`[ \t.,]+([0-9]{4})`, func(m *moment, g []string) error { return m.named(g[3], g[1], g[2]) })
		add(reMonth+reSeparator+reDay+`\b[,.]*`, func(m *moment, g []string) error { return m.named("", g[1], g[2]) })
		add(reMonth+reSeparator+`([0-9]{4})\b`, func(m *moment, g []string) error { return m.named(g[2], g[1], "1") })
		add(`([0-9]{4})`+reSeparator+reMonth+`\b`, func(m *moment, g []string) error { return m.named(g[1], g[2], "1") })
		add(`([0-9]{4})-`+reMonth+`-([0-2]?[0-9]|3[01])`, func(m *moment, g []string) error { return m.named(g[1], g[2], g[3]) })
		add(reMonth+`-([0-2][0-9]|3[01])-([0-9]{4})`, func(m *moment, g []string) error { return m.named(g[3], g[1], g[2]) })
		add(reMonth+`\b`, func(m *moment, g []string) error { m.m = monthNumber(g[1]); m.haveDate = true; return nil })
		add(`([0-9]{4})-?w([0-5][0-9])(?:-?([0-7]))?`, (*moment).isoWeek)
		add(`([0-9]{4})[.-]?([0-3][0-9]{2})\b`, (*moment).yearDay)
		add(`([0-9]{4})\b`, (*moment).year)
		add(`(first|last) day of`, func(m *moment, g []string) error {
			m.firstLastDayOf = 1
			if strings.EqualFold(g[1], "last") {
				m.firstLastDayOf = 2
			}
			return nil
		})
		add(reOrdinal+reSpace+reWeekday+reSpace+`of\b`, func(m *moment, g []string) error {
			count, _ := ordinal(g[1])
			m.weekdayOf = &weekdayOf{count, weekdayNumber(g[2])}
			m.resetTime()
			return nil
		})
		add(`(next|last|previous|this)`+reSpace+`week\b`, (*moment).relativeWeek)
		add(reOrdinal+reSpace+strings.Replace(reUnit, "weeks?|week", "weeks", 1)+`\b`, (*moment).relativeText)
		add(`([+-][+-]*)?`+reSpaceOpt+`([0-9]+)`+reSpaceOpt+reUnit+`\b`, (*moment).relativeNumber)
		add(reWeekday+`\b\.?`, (*moment).weekdayName)
		add(`ago\b`, func(m *moment, _ []string) error { m.ago(); return nil })
		add(`\(?(?:gmt|utc)?([+-](?:2[0-4]|[01]?[0-9])(?::?[0-5][0-9])?(?::?[0-5][0-9])?)\)?`, (*moment).offset)
		add(`\(?([a-z]{1,6}|[a-z]+(?:[_/+-][a-z0-9]+)+)\)?`, (*moment).zoneName)
	})
	return allItems
}

// parseDate reads a date in a default zone.
func parseDate(s string, now func() time.Time, zone *time.Location) (time.Time, error) {
	if t, ok := parseISO(s, zone); ok {
		return t, nil
	}
	m, err := readItems(s)
	if err != nil {
		return time.Time{}, err
	}
	return m.resolve(now, zone)
}

// modifyDate applies a text such as "+1 day" to a date.
func modifyDate(t time.Time, s string) (time.Time, error) {
	m, err := readItems(s)
	if err != nil {
		return time.Time{}, err
	}
	if m.timestamp != nil {
		return m.timestamp.In(t.Location()), nil
	}
	m.zone = nil
	if !m.haveTime && !m.timeReset && m.h == unset {
		m.h, m.i, m.s, m.ns = t.Hour(), t.Minute(), t.Second(), t.Nanosecond()
	}
	return m.resolve(func() time.Time { return t }, t.Location())
}

// readItems takes a date apart.
func readItems(s string) (*moment, error) {
	m := newMoment()
	rest := strings.Trim(s, " \t\n\r\x00")
	if len(rest) > 256 {
		return nil, fmt.Errorf("%s is not a date", quoteShort(s))
	}
	for rest != "" {
		if strings.IndexByte(" \t\n,.;:/-()", rest[0]) >= 0 && !startsOffset(rest) {
			rest = rest[1:]
			continue
		}
		var best item
		var groups []string
		for _, it := range dateItems() {
			if g := it.re.FindStringSubmatch(rest); g != nil && (groups == nil || len(g[0]) > len(groups[0])) {
				best, groups = it, g
			}
		}
		if groups == nil || groups[0] == "" {
			return nil, fmt.Errorf("%s is not a date: %s is not understood", quoteShort(s), quoteShort(rest))
		}
		if err := best.do(m, groups); err != nil {
			return nil, fmt.Errorf("%s is not a date: %w", quoteShort(s), err)
		}
		rest = rest[len(groups[0]):]
	}
	return m, nil
}

func startsOffset(s string) bool {
	return s[0] == '-' && len(s) > 1 && (isDigit(s[1]) || s[1] == ' ' || s[1] == '-')
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s) // the patterns admit digits only, and few
	return n
}

// parseISO is the quick way for 2026-01-31, with or without a time and an offset.
func parseISO(s string, zone *time.Location) (time.Time, bool) {
	if len(s) < 10 || s[4] != '-' || s[7] != '-' {
		return time.Time{}, false
	}
	number := func(from, to int) int {
		n := 0
		for _, c := range []byte(s[from:to]) {
			if !isDigit(c) {
				return -1
			}
			n = n*10 + int(c-'0')
		}
		return n
	}
	y, m, d := number(0, 4), number(5, 7), number(8, 10)
	if y < 0 || m < 1 || m > 12 || d < 1 || d > 31 {
		return time.Time{}, false
	}
	if len(s) == 10 {
		return time.Date(y, time.Month(m), d, 0, 0, 0, 0, zone), true
	}
	if len(s) < 19 || s[10] != ' ' && s[10] != 'T' || s[13] != ':' || s[16] != ':' {
		return time.Time{}, false
	}
	h, i, sec := number(11, 13), number(14, 16), number(17, 19)
	if h < 0 || h > 23 || i < 0 || i > 59 || sec < 0 || sec > 59 {
		return time.Time{}, false
	}
	rest, ns := s[19:], 0
	if strings.HasPrefix(rest, ".") {
		n := digits(rest, 1)
		if n == 1 {
			return time.Time{}, false
		}
		ns = fraction(rest[1:n])
		rest = rest[n:]
	}
	switch {
	case rest == "":
	case rest == "Z":
		zone = zuluZone
	default:
		var after string
		if zone, after = parseOffset(rest); zone == nil || after != "" {
			return time.Time{}, false
		}
	}
	return time.Date(y, time.Month(m), d, h, i, sec, ns, zone), true
}

var zuluZone = time.FixedZone("Z", 0)

// fraction turns digits behind a point into nanoseconds, cut to microseconds as in PHP.
func fraction(s string) int {
	s = (s + "000000")[:6]
	return atoi(s) * 1000
}

// parseOffset reads +02:00, +0200, +02 or +2 at the start of a text.
func parseOffset(s string) (zone *time.Location, rest string) {
	if s == "" || s[0] != '+' && s[0] != '-' {
		return nil, s
	}
	n := min(digits(s, 1), 5)
	h, m := 0, 0
	switch n - 1 {
	case 1, 2:
		h = atoi(s[1:n])
		if n+2 < len(s) && s[n] == ':' && isDigit(s[n+1]) && isDigit(s[n+2]) {
			m = atoi(s[n+1 : n+3])
			n += 3
		}
	case 3:
		h, m = atoi(s[1:2]), atoi(s[2:4])
	case 4:
		h, m = atoi(s[1:3]), atoi(s[3:5])
	default:
		return nil, s
	}
	seconds := h*3600 + m*60
	if s[0] == '-' {
		seconds = -seconds
	}
	return time.FixedZone(formatOffset(seconds, true), seconds), s[n:]
}

func monthNumber(name string) int {
	roman := map[string]int{"i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6, "vii": 7, "viii": 8, "ix": 9, "x": 10, "xi": 11, "xii": 12}
	name = strings.ToLower(name)
	if n, ok := roman[name]; ok {
		return n
	}
	for m := time.January; m <= time.December; m++ {
		if strings.EqualFold(m.String()[:3], name[:3]) {
			return int(m)
		}
	}
	return 0
}

func weekdayNumber(name string) int {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if strings.EqualFold(d.String()[:3], name[:3]) {
			return int(d)
		}
	}
	return 0
}

// ordinal is the amount of "next", "last", "third", …; behavior is how a weekday after it counts.
func ordinal(word string) (amount, behavior int) {
	switch word = strings.ToLower(word); word {
	case "next":
		return 1, 0
	case "last", "previous":
		return -1, 0
	case "this":
		return 0, 1
	}
	for n, name := range []string{"first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth"} {
		if word == name {
			return n + 1, 0
		}
	}
	return 0, 0
}

func (m *moment) resetTime() {
	m.timeReset = true
	m.haveTime = false
	m.h, m.i, m.s, m.ns = 0, 0, 0, 0
}

func (m *moment) midnight([]string) error {
	m.resetTime()
	return nil
}

func (m *moment) time(h, i, s, ns int) error {
	if m.haveTime {
		return fmt.Errorf("it has two times")
	}
	m.haveTime = true
	m.h, m.i, m.s, m.ns = h, i, s, ns
	return nil
}

func (m *moment) time24(g []string) error {
	ns := 0
	if len(g) > 4 && g[4] != "" {
		ns = fraction(g[4])
	}
	return m.time(atoi(g[1]), atoi(g[2]), atoi(g[3]), ns)
}

func (m *moment) time12(g []string) error {
	h := atoi(g[1])
	if h == 0 || h > 12 {
		return fmt.Errorf("the hour %d has no am or pm", h)
	}
	h %= 12
	if strings.EqualFold(g[4], "p") {
		h += 12
	}
	return m.time(h, atoi(g[2]), atoi(g[3]), 0)
}

func (m *moment) unix(g []string) error {
	n, err := strconv.ParseInt(g[1], 10, 64)
	if err != nil {
		return fmt.Errorf("the timestamp is out of range")
	}
	ns := 0
	if g[2] != "" {
		ns = fraction(g[2])
		if strings.HasPrefix(g[1], "-") {
			ns = -ns
		}
	}
	t := time.Unix(n, int64(ns)).In(utcOffset)
	m.timestamp = &t
	return nil
}

func (m *moment) ymd(g []string) error { return m.date(g[1], g[2], g[3]) }

func (m *moment) date(y, month, d string) error {
	if m.haveDate {
		return fmt.Errorf("it has two dates")
	}
	m.haveDate = true
	if y != "" {
		m.y = atoi(y)
		if len(y) == 2 {
			m.y += 1900
			if m.y < 1970 {
				m.y += 100
			}
		}
	}
	m.m, m.d = atoi(month), atoi(d)
	return nil
}

func (m *moment) named(y, month, d string) error {
	return m.date(y, strconv.Itoa(monthNumber(month)), d)
}

func (m *moment) isoWeek(g []string) error {
	day := 1
	if g[3] != "" {
		day = atoi(g[3])
	}
	jan4 := time.Date(atoi(g[1]), 1, 4, 0, 0, 0, 0, time.UTC)
	t := jan4.AddDate(0, 0, -int((jan4.Weekday()+6)%7)+(atoi(g[2])-1)*7+day-1)
	return m.date(strconv.Itoa(t.Year()), strconv.Itoa(int(t.Month())), strconv.Itoa(t.Day()))
}

func (m *moment) yearDay(g []string) error {
	t := time.Date(atoi(g[1]), 1, atoi(g[2]), 0, 0, 0, 0, time.UTC)
	return m.date(strconv.Itoa(t.Year()), strconv.Itoa(int(t.Month())), strconv.Itoa(t.Day()))
}

// year reads four digits: a time when there is none yet and they can be one, else a year.
func (m *moment) year(g []string) error {
	h, i := atoi(g[1][:2]), atoi(g[1][2:])
	if !m.haveTime && !m.haveDate && h < 24 && i < 60 {
		return m.time(h, i, 0, 0)
	}
	m.y = atoi(g[1])
	m.haveDate = true
	return nil
}

func (m *moment) add(unit string, amount, behavior int) {
	u := strings.ToLower(unit)
	r := &m.relative
	switch {
	case strings.HasPrefix(u, "weekday"):
		m.haveBusiness = true
		m.businessDays += amount
	case strings.HasPrefix(u, "ms"), strings.HasPrefix(u, "milli"):
		r.us += amount * 1000
	case strings.HasPrefix(u, "µ"), strings.HasPrefix(u, "micro"), strings.HasPrefix(u, "usec"):
		r.us += amount
	case u == "s", u == "sec", u == "secs", strings.HasPrefix(u, "second"):
		r.s += amount
	case strings.HasPrefix(u, "min"):
		r.i += amount
	case strings.HasPrefix(u, "hour"):
		r.h += amount
	case strings.HasPrefix(u, "day"):
		r.d += amount
	case strings.HasPrefix(u, "week"):
		r.d += 7 * amount
	case strings.HasPrefix(u, "fort"):
		r.d += 14 * amount
	case strings.HasPrefix(u, "month"), u == "mons":
		r.m += amount
	case strings.HasPrefix(u, "year"):
		r.y += amount
	default:
		m.haveWeekday = true
		m.resetTime()
		if amount > 0 {
			r.d += (amount - 1) * 7
		} else {
			r.d += amount * 7
		}
		m.weekday, m.weekdayBehavior = weekdayNumber(u), behavior
	}
}

func (m *moment) relativeText(g []string) error {
	amount, behavior := ordinal(g[1])
	m.add(g[2], amount, behavior)
	return nil
}

func (m *moment) relativeWeek(g []string) error {
	amount, _ := ordinal(g[1])
	m.relative.d += 7 * amount
	m.weekdayBehavior = 2
	if !m.haveWeekday { // "next week" alone is its Monday
		m.haveWeekday = true
		m.weekday = int(time.Monday)
	}
	return nil
}

func (m *moment) relativeNumber(g []string) error {
	n, err := strconv.Atoi(g[2])
	if err != nil || n > 1<<40 {
		return fmt.Errorf("%s is too far away", quoteShort(g[0]))
	}
	if strings.Count(g[1], "-")%2 == 1 {
		n = -n
	}
	m.add(g[3], n, 1)
	return nil
}

func (m *moment) weekdayName(g []string) error {
	m.haveWeekday = true
	if !m.haveTime {
		m.resetTime()
	}
	m.weekday = weekdayNumber(g[1])
	if m.weekdayBehavior != 2 {
		m.weekdayBehavior = 1
	}
	return nil
}

func (m *moment) ago() {
	r := &m.relative
	*r = relative{-r.y, -r.m, -r.d, -r.h, -r.i, -r.s, -r.us}
	m.weekday = -m.weekday
	m.businessDays = -m.businessDays
}

func (m *moment) offset(g []string) error {
	zone, rest := parseOffset(g[1])
	if zone == nil || rest != "" {
		return fmt.Errorf("%s is no time zone", quoteShort(g[1]))
	}
	return m.setZone(zone)
}

// militaryZones are the zones of one letter, from UTC+1 to UTC+12 and from UTC-1 to UTC-12.
const militaryZones = "ABCDEFGHIKLMNOPQRSTUVWXY"

func (m *moment) zoneName(g []string) error {
	if i := strings.IndexByte(militaryZones, g[1][0]&^0x20); len(g[1]) == 1 && i >= 0 {
		hours := i + 1
		if hours > 12 {
			hours = 12 - hours
		}
		return m.setZone(time.FixedZone(strings.ToUpper(g[1]), hours*3600))
	}
	zone, err := loadZone(g[1])
	if err != nil {
		return err
	}
	return m.setZone(zone)
}

func (m *moment) setZone(zone *time.Location) error {
	if m.zone != nil {
		return fmt.Errorf("it has two time zones")
	}
	m.zone = zone
	return nil
}

// resolve fills in what the items left open and applies what is relative.
func (m *moment) resolve(now func() time.Time, zone *time.Location) (time.Time, error) {
	if m.zone != nil {
		zone = m.zone
	}
	var t time.Time
	if m.timestamp != nil {
		t = *m.timestamp
		zone = t.Location()
		m.y, m.m, m.d = t.Year(), int(t.Month()), t.Day()
		m.h, m.i, m.s, m.ns = t.Hour(), t.Minute(), t.Second(), t.Nanosecond()
	}
	if m.haveDate && !m.haveTime && m.h == unset {
		m.h, m.i, m.s, m.ns = 0, 0, 0, 0
	}
	if m.y == unset || m.m == unset || m.d == unset || m.h == unset {
		t = now().In(zone)
		fill := func(field *int, v int) {
			if *field == unset {
				*field = v
			}
		}
		fill(&m.y, t.Year())
		fill(&m.m, int(t.Month()))
		fill(&m.d, t.Day())
		if m.h == unset {
			m.h, m.i, m.s, m.ns = t.Hour(), t.Minute(), t.Second(), t.Nanosecond()/1000*1000
		}
	}
	r := m.relative
	for _, n := range []int{r.y, r.m, r.d, r.h, r.i, r.s} {
		if n > 1<<31 || n < -1<<31 {
			return time.Time{}, fmt.Errorf("the date is too far away")
		}
	}
	y, month, d := m.y, m.m, m.d
	if m.haveWeekday {
		d = m.toWeekday(y, month, d)
	}
	y, month, d = y+r.y, month+r.m, d+r.d
	switch m.firstLastDayOf {
	case 1:
		d = 1
	case 2:
		month, d = month+1, 0
	}
	if m.weekdayOf != nil {
		d = m.weekdayOf.day(y, month)
	}
	if m.haveBusiness {
		y, month, d = m.business(y, month, d)
	}
	t = time.Date(y, time.Month(month), d, m.h, m.i, m.s, m.ns, zone)
	elapsed := time.Duration(r.h)*time.Hour + time.Duration(r.i)*time.Minute + time.Duration(r.s)*time.Second + time.Duration(r.us)*time.Microsecond
	return t.Add(elapsed), nil
}

func (m *moment) toWeekday(y, month, d int) int {
	current := int(time.Date(y, time.Month(month), d, 0, 0, 0, 0, time.UTC).Weekday())
	weekday := m.weekday
	if m.weekdayBehavior == 2 {
		if current == 0 && weekday != 0 {
			weekday -= 7
		}
		if weekday == 0 && current != 0 {
			weekday = 7
		}
		return d - current + weekday
	}
	diff := weekday - current
	if m.relative.d < 0 && diff < 0 || m.relative.d >= 0 && diff <= -m.weekdayBehavior {
		diff += 7
	}
	if weekday >= 0 {
		return d + diff
	}
	return d - (7 - (-weekday - current))
}

// day is the day of the month that "second monday of" means.
func (w *weekdayOf) day(y, month int) int {
	if w.count < 0 {
		last := time.Date(y, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC)
		return daysIn(last.Year(), int(last.Month())) - (int(last.Weekday())-w.weekday+7)%7
	}
	first := int(time.Date(y, time.Month(month), 1, 0, 0, 0, 0, time.UTC).Weekday())
	return 1 + (w.weekday-first+7)%7 + (max(w.count, 1)-1)*7
}

// business moves by weekdays, over Saturdays and Sundays.
func (m *moment) business(y, month, d int) (int, int, int) {
	t := time.Date(y, time.Month(month), d, 0, 0, 0, 0, time.UTC)
	n := max(min(m.businessDays, 100_000), -100_000)
	step := 1
	if n < 0 {
		step, n = -1, -n
	}
	for n > 0 {
		t = t.AddDate(0, 0, step)
		if t.Weekday() != time.Saturday && t.Weekday() != time.Sunday {
			n--
		}
	}
	return t.Year(), int(t.Month()), t.Day()
}

// abbreviations that PHP knows and people write.
var abbreviations = map[string]*time.Location{}

func init() {
	for name, hours := range map[string]float64{
		"z": 0, "utc": 0, "gmt": 0, "wet": 0, "west": 1, "bst": 1, "cet": 1, "cest": 2, "eet": 2, "eest": 3, "msk": 3, "ist": 2,
		"est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7, "akst": -9, "akdt": -8, "hst": -10,
		"aest": 10, "aedt": 11, "acst": 9.5, "acdt": 10.5, "awst": 8, "nzst": 12, "nzdt": 13, "jst": 9, "kst": 9, "sast": 2, "sgt": 8, "hkt": 8,
		"ast": -4, "adt": -3, "nst": -3.5, "ndt": -2.5,
	} {
		abbreviations[name] = time.FixedZone(strings.ToUpper(name), int(hours*3600))
	}
	abbreviations["utc"] = time.UTC
}
