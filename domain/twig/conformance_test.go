package twig

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"testing"
	"time"
)

// conformanceCase is one template with the output of Twig 3.15 on PHP, or the fact that Twig refuses it.
type conformanceCase struct {
	ID           string            `json:"id"`
	Group        string            `json:"group"`
	Template     string            `json:"template"`
	Context      json.RawMessage   `json:"context"`
	Expected     *string           `json:"expected"`
	Error        bool              `json:"error"`
	ErrorPhase   string            `json:"error_phase"`
	ErrorLine    int               `json:"error_line"`
	Multi        bool              `json:"multi"`
	Templates    map[string]string `json:"templates"`
	Autoescape   any               `json:"autoescape"`
	Timezone     string            `json:"timezone"`
	Globals      map[string]any    `json:"globals"`
	NumberFormat []any             `json:"number_format"`
	DateFormat   []string          `json:"date_format"`
}

func readCases(t testing.TB, name string) []conformanceCase {
	t.Helper()
	f, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []conformanceCase
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var c conformanceCase
		if err := json.Unmarshal(s.Bytes(), &c); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		list = append(list, c)
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

var testNow = time.Date(2026, 2, 3, 14, 15, 16, 0, time.UTC)

func (c *conformanceCase) options() Options {
	o := Options{Mode: ModeText, Timezone: c.Timezone, Globals: c.Globals}
	switch c.Autoescape {
	case "html", "any":
		o.Mode = ModeHTML
	case "name":
		o.Mode = ModeName
	}
	if c.Templates != nil {
		o.Partials = func(name string) (string, bool) {
			s, ok := c.Templates[name]
			return s, ok
		}
	}
	if len(c.DateFormat) > 0 {
		o.DateFormat = c.DateFormat[0]
	}
	if len(c.DateFormat) > 1 {
		o.Interval = c.DateFormat[1]
	}
	if len(c.NumberFormat) == 3 {
		decimals, _ := c.NumberFormat[0].(float64)
		point, _ := c.NumberFormat[1].(string)
		thousands, _ := c.NumberFormat[2].(string)
		o.Number = NumberFormat{Decimals: int(decimals), Point: point, Thousands: thousands, Set: true}
	}
	return o
}

// run compiles and renders a case; phase says which of the two failed.
func (c *conformanceCase) run() (output, phase string, err error) {
	return c.runWith(c.options())
}

func (c *conformanceCase) runWith(o Options) (output, phase string, err error) {
	t, err := Compile(c.Template, o)
	if err != nil {
		return "", "compile", err
	}
	data, err := DecodeContext(c.Context)
	if err != nil {
		return "", "context", err
	}
	r, err := t.Render(context.Background(), data, RenderOptions{Now: func() time.Time { return testNow }})
	if err != nil {
		return "", "runtime", err
	}
	return r.Output, "", nil
}

// judge says how a case went: "" for what Twig does.
func (c *conformanceCase) judge() string {
	output, phase, err := c.run()
	switch {
	case c.Error && err == nil:
		return "not refused"
	case c.Error && phase != c.ErrorPhase:
		return fmt.Sprintf("refused when %s, not when %s", phaseName(phase), phaseName(c.ErrorPhase))
	case c.Error:
		var e *Error
		if !errors.As(err, &e) {
			return "error is no *Error"
		}
		if e.Code == CodeInternal {
			return "internal error: " + e.Error()
		}
		if e.Line != c.ErrorLine && c.ErrorLine > 0 {
			return fmt.Sprintf("error in line %d, not %d", e.Line, c.ErrorLine)
		}
		return ""
	case err != nil:
		return "error: " + err.Error()
	case output != *c.Expected:
		return "other output"
	}
	return ""
}

func phaseName(phase string) string {
	if phase == "runtime" {
		return "rendering"
	}
	return "compiling"
}

// TestConformance runs Twig's own fixtures. What differs from Twig is listed in testdata/misses.txt with its reason,
// and the list must be exact.
func TestConformance(t *testing.T) {
	t.Parallel()
	want := readMisses(t)
	type score struct{ total, good int }
	scores := map[string]*score{}
	var misses []string
	for _, file := range []string{"cases.jsonl", "line-cases.jsonl"} {
		for _, c := range readCases(t, file) {
			class := "expression lines"
			switch {
			case file == "line-cases.jsonl":
			case c.Error:
				class = "refused errors"
			case c.Multi:
				class = "multi-template bodies"
			default:
				class = "single bodies"
			}
			if scores[class] == nil {
				scores[class] = &score{}
			}
			scores[class].total++
			how := c.judge()
			if how == "" {
				scores[class].good++
				continue
			}
			if class == "refused errors" && strings.HasPrefix(how, "error in line") {
				scores[class].good++ // refused in the right phase, another line
			}
			id := strings.TrimSuffix(file, ".jsonl") + " " + c.ID
			misses = append(misses, id)
			if reason, ok := want[id]; !ok {
				output, _, _ := c.run()
				expected := "an error"
				if c.Expected != nil {
					expected = *c.Expected
				}
				t.Errorf("%s: %s\ntemplate: %s\ngot:  %q\nwant: %q", id, how, c.Template, output, expected)
			} else if reason == "" {
				t.Errorf("%s is listed without a reason", id)
			}
			delete(want, id)
		}
	}
	for id := range want {
		t.Errorf("%s is listed as a miss, but does what Twig does", id)
	}
	for class, least := range map[string]float64{"expression lines": 0.99, "single bodies": 0.97, "multi-template bodies": 0.90, "refused errors": 0.95} {
		s := scores[class]
		share := float64(s.good) / float64(s.total)
		t.Logf("%s: %d of %d (%.1f %%)", class, s.good, s.total, 100*share)
		if share < least {
			t.Errorf("%s: %.1f %%, want at least %.0f %%", class, 100*share, 100*least)
		}
	}
	sort.Strings(misses)
}

// readMisses reads testdata/misses.txt: "file id: reason" a line.
func readMisses(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile("testdata/misses.txt")
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]string{}
	for _, line := range strings.Split(string(b), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		id, reason, _ := strings.Cut(line, ": ")
		list[id] = reason
	}
	return list
}
