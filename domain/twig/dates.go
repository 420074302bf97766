package twig

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// date is a moment with the zone that it is shown in: PHP's DateTime. The location's name tells how the zone was
// given: "Europe/Paris", an abbreviation such as "EST", or an offset such as "+02:00".
type date struct{ t time.Time }

// loadZone finds a time zone by its IANA name, offset or abbreviation; "" is UTC.
func loadZone(name string) (*time.Location, error) {
	switch {
	case name == "" || strings.EqualFold(name, "UTC"):
		return time.UTC, nil
	case name[0] == '+' || name[0] == '-':
		if zone, rest := parseOffset(name); zone != nil && rest == "" {
			return zone, nil
		}
		return nil, fmt.Errorf("unknown time zone %s", quoteShort(name))
	case strings.EqualFold(name, "local") || strings.Contains(name, ".."):
		return nil, fmt.Errorf("unknown time zone %s", quoteShort(name))
	}
	if zone, ok := abbreviations[strings.ToLower(name)]; ok && !strings.Contains(name, "/") {
		return zone, nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		if zone, err = time.LoadLocation(canonicalZone(name)); err != nil {
			return nil, fmt.Errorf("unknown time zone %s", quoteShort(name))
		}
	}
	return zone, nil
}

// canonicalZone writes a zone's name with the capitals of the IANA names: europe/paris is Europe/Paris.
func canonicalZone(name string) string {
	b := []byte(strings.ToLower(name))
	up := true
	for i, c := range b {
		if up && c >= 'a' && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
		up = c == '/' || c == '_' || c == '-'
	}
	return string(b)
}

// zoneType is 1 for an offset, 2 for an abbreviation and 3 for a name, with the zone as PHP writes it.
func (d *date) zoneType() (int64, string) {
	name := d.t.Location().String()
	switch {
	case name[0] == '+' || name[0] == '-':
		return 1, name
	case name == "UTC" || strings.Contains(name, "/"):
		return 3, name
	}
	return 2, name
}

// toDate is Twig's conversion of whatever a template calls a date. keepZone leaves the date in its own zone.
func (r *run) toDate(v Value, zone *time.Location, keepZone bool) *date {
	if zone == nil {
		zone = r.zone
	}
	var t time.Time
	switch v := v.(type) {
	case *date:
		if keepZone {
			return v
		}
		return &date{v.t.In(zone)}
	case nil:
		return &date{r.clock().In(zone)}
	case int64:
		t = time.Unix(v, 0).In(utcOffset)
	case float64:
		return r.toDate(formatFloat(v), zone, keepZone)
	case bool:
		return r.toDate(r.text(v), zone, keepZone)
	case *Array, *interval, *closure, *loopState:
		r.fail(CodeType, "%s is not a date", typeName(v))
	default:
		s := r.text(v)
		digitsOnly := s
		if strings.HasPrefix(s, "-") {
			digitsOnly = s[1:]
		}
		if digitsOnly != "" && digits(digitsOnly, 0) == len(digitsOnly) {
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				r.fail(CodeDate, "%s is out of range for a timestamp", quoteShort(s))
			}
			t = time.Unix(n, 0).In(utcOffset)
			break
		}
		if s == "now" {
			return &date{r.clock().In(zone)}
		}
		var err error
		if t, err = parseDate(s, r.clockOrNil(), r.zone); err != nil {
			r.fail(CodeDate, "%s", err)
		}
	}
	if keepZone {
		return &date{t}
	}
	return &date{t.In(zone)}
}

var utcOffset = time.FixedZone("+00:00", 0)

// clockOrNil defers asking for the time until a date needs it.
func (r *run) clockOrNil() func() time.Time { return r.clock }

// timezone reads the timezone argument of date and date(): false keeps the date's own.
func (r *run) timezone(v Value) (zone *time.Location, keep bool) {
	switch v := v.(type) {
	case nil:
		return nil, false
	case bool:
		return nil, !v
	}
	zone, err := loadZone(r.text(v))
	if err != nil {
		r.fail(CodeDate, "%s", err)
	}
	return zone, false
}

func filterDate(r *run, a []Value) Value {
	o := r.root.options
	if i, ok := a[0].(*interval); ok {
		format := o.Interval
		if format == "" {
			format = "%d days"
		}
		if v := opt(a, 1, nil); v != nil {
			format = r.text(v)
		}
		return r.str(i.format(format))
	}
	format := o.DateFormat
	if format == "" {
		format = "F j, Y H:i"
	}
	if v := opt(a, 1, nil); v != nil {
		format = r.text(v)
	}
	zone, keep := r.timezone(opt(a, 2, nil))
	return r.str(r.toDate(a[0], zone, keep).format(format))
}

func filterDateModify(r *run, a []Value) Value {
	d := r.toDate(a[0], nil, true)
	return r.modify(d, r.text(a[1]))
}

func (r *run) modify(d *date, how string) *date {
	t, err := modifyDate(d.t, how)
	if err != nil {
		r.fail(CodeDate, "date_modify: %s", err)
	}
	return &date{t}
}

func functionDate(r *run, a []Value) Value {
	zone, keep := r.timezone(opt(a, 1, nil))
	return r.toDate(opt(a, 0, nil), zone, keep)
}

// member gives the properties and methods of dates and intervals that templates use.
func (r *run) member(v Value, e *attribute) (Value, bool) {
	name := e.name(r)
	arg := func(i int) Value {
		if i < len(e.args) {
			return e.args[i].value.eval(r)
		}
		return nil
	}
	if i, ok := v.(*interval); ok {
		if name == "format" && len(e.args) > 0 {
			return i.format(r.text(arg(0))), true
		}
		return i.member(name)
	}
	d, _ := v.(*date)
	switch name {
	case "format":
		if len(e.args) == 0 {
			r.fail(CodeArguments, "format() of a date needs a format")
		}
		return d.format(r.text(arg(0))), true
	case "timestamp", "getTimestamp":
		return d.t.Unix(), true
	case "offset", "getOffset":
		_, offset := d.t.Zone()
		return int64(offset), true
	case "timezone", "getTimezone":
		_, zone := d.zoneType()
		a := newArray(2)
		a.set(Key{Text: "name"}, zone)
		a.set(Key{Text: "getName"}, zone)
		return a, true
	case "modify":
		return r.modify(d, r.text(arg(0))), true
	case "diff":
		return difference(d.t, r.toDate(arg(0), nil, true).t), true
	case "setTimezone":
		zone, err := loadZone(r.text(arg(0)))
		if err != nil {
			r.fail(CodeDate, "%s", err)
		}
		return &date{d.t.In(zone)}, true
	case "setTime":
		y, m, day := d.t.Date()
		return &date{time.Date(y, m, day, int(toInt(arg(0))), int(toInt(arg(1))), int(toInt(arg(2))), 0, d.t.Location())}, true
	case "setDate":
		h, m, s := d.t.Clock()
		return &date{time.Date(int(toInt(arg(0))), time.Month(toInt(arg(1))), int(toInt(arg(2))), h, m, s, d.t.Nanosecond(), d.t.Location())}, true
	}
	return nil, false
}

// format is PHP's DateTime::format.
func (d *date) format(layout string) string {
	b := make([]byte, 0, 32)
	for i := 0; i < len(layout); i++ {
		c := layout[i]
		if c == '\\' {
			if i++; i < len(layout) {
				b = append(b, layout[i])
			}
			continue
		}
		b = d.appendField(b, c)
	}
	return string(b)
}

func appendPadded(b []byte, n, width int) []byte {
	if n < 0 {
		b = append(b, '-')
		n = -n
	}
	s := strconv.Itoa(n)
	for range width - len(s) {
		b = append(b, '0')
	}
	return append(b, s...)
}

func (d *date) appendField(b []byte, c byte) []byte {
	t := d.t
	switch c {
	case 'd':
		return appendPadded(b, t.Day(), 2)
	case 'D':
		return append(b, t.Weekday().String()[:3]...)
	case 'j':
		return strconv.AppendInt(b, int64(t.Day()), 10)
	case 'l':
		return append(b, t.Weekday().String()...)
	case 'N':
		return strconv.AppendInt(b, int64((t.Weekday()+6)%7+1), 10)
	case 'S':
		return append(b, ordinalSuffix(t.Day())...)
	case 'w':
		return strconv.AppendInt(b, int64(t.Weekday()), 10)
	case 'z':
		return strconv.AppendInt(b, int64(t.YearDay()-1), 10)
	case 'W':
		_, week := t.ISOWeek()
		return appendPadded(b, week, 2)
	case 'F':
		return append(b, t.Month().String()...)
	case 'm':
		return appendPadded(b, int(t.Month()), 2)
	case 'M':
		return append(b, t.Month().String()[:3]...)
	case 'n':
		return strconv.AppendInt(b, int64(t.Month()), 10)
	case 't':
		return strconv.AppendInt(b, int64(daysIn(t.Year(), int(t.Month()))), 10)
	case 'L':
		if daysIn(t.Year(), 2) == 29 {
			return append(b, '1')
		}
		return append(b, '0')
	case 'o':
		year, _ := t.ISOWeek()
		return strconv.AppendInt(b, int64(year), 10)
	case 'Y':
		return appendPadded(b, t.Year(), 4)
	case 'y':
		return appendPadded(b, (t.Year()%100+100)%100, 2)
	case 'a':
		return append(b, t.Format("pm")...)
	case 'A':
		return append(b, t.Format("PM")...)
	case 'B':
		u := t.UTC()
		beats := ((u.Hour()*3600 + u.Minute()*60 + u.Second() + 3600) * 10 / 864) % 1000
		return appendPadded(b, beats, 3)
	case 'g':
		return strconv.AppendInt(b, int64((t.Hour()+11)%12+1), 10)
	case 'G':
		return strconv.AppendInt(b, int64(t.Hour()), 10)
	case 'h':
		return appendPadded(b, (t.Hour()+11)%12+1, 2)
	case 'H':
		return appendPadded(b, t.Hour(), 2)
	case 'i':
		return appendPadded(b, t.Minute(), 2)
	case 's':
		return appendPadded(b, t.Second(), 2)
	case 'u':
		return appendPadded(b, t.Nanosecond()/1000, 6)
	case 'v':
		return appendPadded(b, t.Nanosecond()/1_000_000, 3)
	case 'U':
		return strconv.AppendInt(b, t.Unix(), 10)
	case 'c':
		return append(b, d.format(`Y-m-d\TH:i:sP`)...)
	case 'r':
		return append(b, d.format("D, d M Y H:i:s O")...)
	}
	return d.appendZone(b, c)
}

func (d *date) appendZone(b []byte, c byte) []byte {
	name, offset := d.t.Zone()
	kind, zone := d.zoneType()
	switch c {
	case 'e':
		return append(b, zone...)
	case 'I':
		if d.t.IsDST() {
			return append(b, '1')
		}
		return append(b, '0')
	case 'T':
		if kind == 1 {
			return append(append(b, "GMT"...), formatOffset(offset, false)...)
		}
		return append(b, name...)
	case 'Z':
		return strconv.AppendInt(b, int64(offset), 10)
	case 'O':
		return append(b, formatOffset(offset, false)...)
	case 'P':
		return append(b, formatOffset(offset, true)...)
	case 'p':
		if offset == 0 {
			return append(b, 'Z')
		}
		return append(b, formatOffset(offset, true)...)
	}
	return append(b, c)
}

func ordinalSuffix(day int) string {
	switch {
	case day >= 11 && day <= 13:
		return "th"
	case day%10 == 1:
		return "st"
	case day%10 == 2:
		return "nd"
	case day%10 == 3:
		return "rd"
	}
	return "th"
}

func formatOffset(seconds int, colon bool) string {
	b := []byte{'+'}
	if seconds < 0 {
		b[0] = '-'
		seconds = -seconds
	}
	b = appendPadded(b, seconds/3600, 2)
	if colon {
		b = append(b, ':')
	}
	return string(appendPadded(b, seconds/60%60, 2))
}

func daysIn(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// interval is the difference of two dates: PHP's DateInterval.
type interval struct {
	y, m, d, h, i, s int
	micros           int
	days             int
	invert           bool
}

// difference is PHP's DateTime::diff: from a to b.
func difference(a, b time.Time) *interval {
	iv := &interval{}
	if a.After(b) {
		a, b = b, a
		iv.invert = true
	}
	sameZone := a.Location().String() == b.Location().String()
	if !sameZone {
		a, b = a.UTC(), b.UTC()
	}
	ay, am, ad := a.Date()
	by, bm, bd := b.Date()
	iv.y, iv.m, iv.d = by-ay, int(bm)-int(am), bd-ad
	iv.h, iv.i, iv.s = b.Hour()-a.Hour(), b.Minute()-a.Minute(), b.Second()-a.Second()
	iv.micros = b.Nanosecond()/1000 - a.Nanosecond()/1000
	borrow := func(low, high *int, size int) {
		for *low < 0 {
			*low += size
			*high--
		}
	}
	borrow(&iv.micros, &iv.s, 1_000_000)
	borrow(&iv.s, &iv.i, 60)
	borrow(&iv.i, &iv.h, 60)
	borrow(&iv.h, &iv.d, 24)
	// days are borrowed from the months before the later date, or, counting back, from those after the earlier one
	year, month, step := by, int(bm)-1, -1
	if iv.invert {
		year, month, step = ay, int(am), 1
	}
	for iv.d < 0 {
		iv.d += daysIn(year, month)
		iv.m--
		month += step
	}
	borrow(&iv.m, &iv.y, 12)
	wall := func(t time.Time) time.Time {
		y, m, d := t.Date()
		return time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
	}
	iv.days = int(wall(b).Sub(wall(a)).Hours() / 24)
	return iv
}

func (i *interval) member(name string) (Value, bool) {
	switch name {
	case "y":
		return int64(i.y), true
	case "m":
		return int64(i.m), true
	case "d":
		return int64(i.d), true
	case "h":
		return int64(i.h), true
	case "i":
		return int64(i.i), true
	case "s":
		return int64(i.s), true
	case "f":
		return float64(i.micros) / 1e6, true
	case "days":
		return int64(i.days), true
	case "invert":
		if i.invert {
			return int64(1), true
		}
		return int64(0), true
	}
	return nil, false
}

// format is PHP's DateInterval::format.
func (i *interval) format(layout string) string {
	b := make([]byte, 0, 16)
	for n := 0; n < len(layout); n++ {
		if layout[n] != '%' {
			b = append(b, layout[n])
			continue
		}
		if n++; n == len(layout) { // PHP drops it
			break
		}
		switch c := layout[n]; c {
		case 'Y':
			b = appendPadded(b, i.y, 2)
		case 'y':
			b = strconv.AppendInt(b, int64(i.y), 10)
		case 'M':
			b = appendPadded(b, i.m, 2)
		case 'm':
			b = strconv.AppendInt(b, int64(i.m), 10)
		case 'D':
			b = appendPadded(b, i.d, 2)
		case 'd':
			b = strconv.AppendInt(b, int64(i.d), 10)
		case 'H':
			b = appendPadded(b, i.h, 2)
		case 'h':
			b = strconv.AppendInt(b, int64(i.h), 10)
		case 'I':
			b = appendPadded(b, i.i, 2)
		case 'i':
			b = strconv.AppendInt(b, int64(i.i), 10)
		case 'S':
			b = appendPadded(b, i.s, 2)
		case 's':
			b = strconv.AppendInt(b, int64(i.s), 10)
		case 'F':
			b = appendPadded(b, i.micros, 6)
		case 'f':
			b = strconv.AppendInt(b, int64(i.micros), 10)
		case 'a':
			b = strconv.AppendInt(b, int64(i.days), 10)
		case 'R':
			b = append(b, map[bool]byte{true: '-', false: '+'}[i.invert])
		case 'r':
			if i.invert {
				b = append(b, '-')
			}
		case '%':
			b = append(b, '%')
		default:
			b = append(b, '%', c)
		}
	}
	return string(b)
}
