package console

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// Numbers and times are written for people, the same everywhere.
func TestFiguresForPeople(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		grouped(0): "0", grouped(1234): "1\u202f234", grouped(int64(-1234567)): "-1\u202f234\u202f567", grouped(999): "999",
		duration(0.0042): "4.2 ms", duration(250 * time.Millisecond): "250 ms", duration(2.5): "2.5 s", duration(int64(60)): "1 min", duration(90.0): "1 min 30 s",
		duration(domain.Duration(24 * time.Hour)): "24 h", duration(26 * time.Hour): "26 h", duration(5*time.Hour + 7*time.Minute): "5 h 7 min", duration(74 * time.Hour): "3 d 2 h",
		share(1, 3): "33.3 %", share(1, 0): "–", compact(1_250_000): "1.3M", compact(1500): "1.5k", compact(0.25): "0.25",
		local("2026-11-23T04:05:06.789Z"): "2026-11-23T04:05:06", local("soon"): "soon",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	c := &console{Config: Config{Clock: func() time.Time { return time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC) }}}
	this, other := time.Date(2026, 3, 3, 10, 0, 0, 0, time.FixedZone("", 3600)), time.Date(2025, 3, 3, 10, 0, 0, 0, time.UTC)
	for at, want := range map[any]string{this: ">3 Mar 09:00:00<", other: ">3 Mar 2025 10:00:00<", &other: ">3 Mar 2025 10:00:00<", (*time.Time)(nil): "–", time.Time{}: "–"} {
		if got := string(c.when(at)); !strings.Contains(got, want) {
			t.Errorf("%v is written %s, want %s", at, got, want)
		}
	}
	reason := "hard_bounce"
	if got := text(&reason) + text((*string)(nil)) + text(domain.Failed); got != "hard_bouncefailed" {
		t.Errorf("what may be absent is written %q", got)
	}
}

func TestAChartHasGapsWhereNothingWasMeasured(t *testing.T) {
	t.Parallel()
	plot := chart{Title: `"<b>"`, Step: time.Hour, Lines: true, Labels: []string{"<a>", "b", "c"}, Series: []series{{Class: "good", Values: []float64{1, 0, 0, 2, 3}}}}
	svg := string(plot.SVG())
	if strings.Contains(svg, "<b>") || strings.Contains(svg, "<a>") {
		t.Errorf("it lets markup through: %s", svg)
	}
	_, path, _ := strings.Cut(svg, ` d="`)
	path, _, _ = strings.Cut(path, `"`)
	if n := strings.Count(path, "M"); n != 2 {
		t.Errorf("the line %s is of %d pieces, want 2", path, n)
	}
	for i, anchor := range []string{"start", "middle", "end"} {
		if label := fmt.Sprintf(`text-anchor="%s">%s<`, anchor, []string{"&lt;a&gt;", "b", "c"}[i]); !strings.Contains(svg, label) {
			t.Errorf("it lacks %s: %s", label, svg)
		}
	}
}

func TestAnAddressWithAnotherParameter(t *testing.T) {
	t.Parallel()
	at := &url.URL{Path: "/deliveries", RawQuery: "outcome=failed&outcome=withheld&cursor=abc&done=saved"}
	next := "x y"
	for got, want := range map[string]string{
		query(at, "cursor", ""): "/deliveries?outcome=failed&outcome=withheld", query(at, "cursor", &next): "/deliveries?cursor=x+y&outcome=failed&outcome=withheld", query(at, "cursor", (*string)(nil), "format", "csv"): "/deliveries?format=csv&outcome=failed&outcome=withheld",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
