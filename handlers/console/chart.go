package console

import (
	"fmt"
	"html/template"
	"math"
	"strings"
	"time"
)

// series is one line or band of a chart, with a step for each period.
type series struct {
	Name   string
	Class  string // of the stylesheet: its colour
	Values []float64
}

// chart is a plot over time, drawn on the server: it needs no script and prints well.
type chart struct {
	Title  string
	Unit   string
	From   time.Time
	Step   time.Duration
	Series []series
	Lines  bool     // lines of their own instead of bands on top of each other
	Labels []string // below the axis, evenly spread, instead of times
}

const chartWidth, chartHeight, chartLeft, chartBottom = 640, 180, 44, 22

// SVG draws the chart. What it shows is in a table beside it for those who do not see it.
func (c chart) SVG() template.HTML {
	n := 0
	for _, s := range c.Series {
		n = max(n, len(s.Values))
	}
	top := 0.0
	for i := range n {
		sum := 0.0
		for _, s := range c.Series {
			if i < len(s.Values) {
				sum += s.Values[i]
				if c.Lines {
					top = max(top, s.Values[i])
				}
			}
		}
		if !c.Lines {
			top = max(top, sum)
		}
	}
	top = ceiling(top)
	x := func(i int) float64 { return chartLeft + float64(i)*(chartWidth-chartLeft)/math.Max(1, float64(n)) }
	y := func(v float64) float64 { return 8 + (chartHeight-chartBottom-8)*(1-v/top) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="chart" viewBox="0 0 %d %d" role="img" aria-label="%s">`, chartWidth, chartHeight, template.HTMLEscapeString(c.Title))
	for _, v := range []float64{0, top / 2, top} {
		fmt.Fprintf(&b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1[3]f"/><text class="axis" x="%d" y="%.1f" text-anchor="end">%s</text>`,
			chartLeft, chartWidth, y(v), chartLeft-6, y(v)+4, compact(v))
	}
	base := make([]float64, n)
	for _, s := range c.Series {
		var path strings.Builder
		broken := false
		for i := range n {
			value := 0.0
			if i < len(s.Values) {
				value = s.Values[i]
			}
			at := value
			if !c.Lines {
				at += base[i]
			}
			if c.Lines && value == 0 {
				broken = true // nothing was measured then
				continue
			}
			letter := "L"
			if i == 0 || broken {
				letter, broken = "M", false
			}
			fmt.Fprintf(&path, "%s%.1f %.1fH%.1f", letter, x(i), y(at), x(i+1))
		}
		if c.Lines {
			fmt.Fprintf(&b, `<path class="line %s" d="%s"/>`, s.Class, path.String())
			continue
		}
		for i := n - 1; i >= 0; i-- {
			fmt.Fprintf(&path, "L%.1f %.1fH%.1f", x(i+1), y(base[i]), x(i))
			if i < len(s.Values) {
				base[i] += s.Values[i]
			}
		}
		fmt.Fprintf(&b, `<path class="band %s" d="%sZ"/>`, s.Class, path.String())
	}
	labels := c.Labels
	if labels == nil {
		const marks = 4
		for i := range marks + 1 {
			labels = append(labels, c.From.Add(time.Duration(float64(c.Step)*float64(n)*float64(i)/marks)).UTC().Format("15:04"))
		}
	}
	last := len(labels) - 1
	for i, label := range labels {
		anchor := "middle"
		switch i {
		case 0:
			anchor = "start"
		case last:
			anchor = "end"
		}
		fmt.Fprintf(&b, `<text class="axis" x="%.1f" y="%d" text-anchor="%s">%s</text>`, chartLeft+float64(i)*(chartWidth-chartLeft)/math.Max(1, float64(last)), chartHeight-4, anchor, template.HTMLEscapeString(label))
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) //nolint:gosec // numbers, times and an escaped title
}

// ceiling is the next number above that is easy to halve: 1, 2, 4, 6 or 8 times a power of ten.
func ceiling(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 2, 4, 6, 8, 10} {
		if v <= f*power {
			return f * power
		}
	}
	return 10 * power
}

func compact(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%gM", math.Round(v/1e5)/10)
	case v >= 1e3:
		return fmt.Sprintf("%gk", math.Round(v/1e2)/10)
	}
	return fmt.Sprintf("%g", math.Round(v*100)/100)
}
