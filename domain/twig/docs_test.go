package twig

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// page is docs/twig.md taken apart: what its tables and lists say.
type page struct {
	text     string
	context  string
	partials map[string]string
	rows     []row
}

// row is a line of a table, by the heading that it stands under.
type row struct {
	heading string
	cells   []string // code as it is meant, without its quotes
}

func readPage(t *testing.T) page {
	t.Helper()
	b, err := os.ReadFile("../../docs/twig.md")
	if err != nil {
		t.Fatal(err)
	}
	p := page{text: string(b), partials: map[string]string{}}
	_, p.context, _ = strings.Cut(p.text, "```json\n")
	p.context, _, _ = strings.Cut(p.context, "```")
	heading, table := "", false
	for line := range strings.Lines(p.text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "#"):
			heading = line
		case strings.HasPrefix(line, "|---"):
			table = true
		case !strings.HasPrefix(line, "|"):
			table = false
		case table:
			r := row{heading: heading}
			for _, cell := range strings.Split(strings.ReplaceAll(line[2:], `\|`, "\x00"), " | ") {
				cell = strings.ReplaceAll(strings.TrimSuffix(cell, " |"), "\x00", "|")
				if code, ok := strings.CutPrefix(cell, "`"); ok {
					cell = strings.ReplaceAll(strings.TrimSuffix(code, "`"), "↵", "\n")
				}
				r.cells = append(r.cells, cell)
			}
			p.rows = append(p.rows, r)
		}
	}
	for _, r := range p.under("## Construct by construct") {
		p.partials[r.cells[0]] = r.cells[1]
	}
	return p
}

func (p page) under(heading string) []row {
	return slices.DeleteFunc(slices.Clone(p.rows), func(r row) bool { return r.heading != heading })
}

func (p page) options(m Mode) Options { return Options{Mode: m, Partials: lookup(p.partials)} }

// Each row of the page is rendered.
func TestThePageIsRight(t *testing.T) {
	t.Parallel()
	p := readPage(t)
	render := func(template string, m Mode) string {
		r, err := tryRender(p.options(m), RenderOptions{Now: fixedNow}, template, p.context)
		if err != nil {
			return err.Error()
		}
		return r.Output
	}
	rendered := 0
	for _, r := range p.rows {
		if strings.HasPrefix(r.heading, "### ") {
			rendered++
			if got := render(r.cells[0], ModeText); got != r.cells[1] {
				t.Errorf("%s: %s\n got %q\nwant %q", r.heading, r.cells[0], got, r.cells[1])
			}
		}
	}
	for _, r := range p.under("## JSON bodies")[6:] {
		rendered++
		if got := render(r.cells[0], ModeJSON); got != r.cells[1] {
			t.Errorf("JSON: %s\n got %q\nwant %q", r.cells[0], got, r.cells[1])
		}
	}
	if rendered < 120 {
		t.Errorf("%d rows were rendered: are the tables read right?", rendered)
	}
}

func TestThePageIsRightAboutErrors(t *testing.T) {
	t.Parallel()
	p := readPage(t)
	rows := p.under("## What is refused")
	if len(rows) < 15 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, r := range rows {
		_, err := Compile(r.cells[0], p.options(ModeText))
		if err == nil { // refused when it is rendered
			_, err = tryRender(p.options(ModeText), RenderOptions{Now: fixedNow}, r.cells[0], p.context)
		}
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s is taken: %v", r.cells[0], err)
			continue
		}
		said := e.Message
		if e.Suggestion != "" {
			said += "; " + e.Suggestion
		}
		if where := fmt.Sprintf("%d:%d", e.Line, e.Column); where != r.cells[1] || said != r.cells[2] {
			t.Errorf("%s\n got %s %s\nwant %s %s", r.cells[0], where, said, r.cells[1], r.cells[2])
		}
	}
}

// Every tag, operator, filter, function and test that there is stands in a row that is rendered, and what is left out
// is listed.
func TestThePageNamesTheLanguage(t *testing.T) {
	t.Parallel()
	p := readPage(t)
	var templates strings.Builder
	for _, r := range p.rows {
		if strings.HasPrefix(r.heading, "### ") || r.heading == "## Construct by construct" {
			templates.WriteString(strings.Join(r.cells[:2], "\n"))
		}
	}
	all := templates.String()
	shown := func(pattern, name string) {
		if !regexp.MustCompile(pattern).MatchString(all) {
			t.Errorf("docs/twig.md: no row shows %s", name)
		}
	}
	var leftOut []string
	for name, f := range filters {
		if f.unsupported != "" {
			leftOut = append(leftOut, name)
			continue
		}
		shown(`(\||apply )`+name+`\b`, "the filter "+name)
	}
	for name, f := range functions {
		if f.unsupported != "" {
			leftOut = append(leftOut, name)
		} else if f.check == nil {
			shown(`\b`+name+`\(`, "the function "+name)
		}
	}
	for name := range tests {
		shown(`is (not )?`+name+`\b`, "the test "+name)
	}
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		shown(`\{%[-~]? *`+name+`\b`, "the tag "+name)
	}
	for name := range binaryOperators {
		shown(regexp.QuoteMeta(name), "the operator "+name)
	}
	_, section, _ := strings.Cut(p.text, "\n## Left out\n")
	section, _, _ = strings.Cut(section, "\nTags: ")
	var listed []string
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(section, -1) {
		listed = append(listed, m[1])
	}
	slices.Sort(leftOut)
	slices.Sort(listed)
	if !slices.Equal(listed, leftOut) {
		t.Errorf("left out are %v, listed %v", leftOut, listed)
	}
}

// Every rule of lint stands in the page.
func TestThePageNamesTheRules(t *testing.T) {
	t.Parallel()
	p := readPage(t)
	source, err := os.ReadFile("lint.go")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(p.text, "\n## Lint\n")
	section, _, _ = strings.Cut(section, "\n## ")
	names := []string{CodePartial, CodeInvalidJSON}
	for _, m := range regexp.MustCompile(`Rule: "([a-z_]+)"`).FindAllStringSubmatch(string(source), -1) {
		names = append(names, m[1])
	}
	for _, r := range platformRules {
		names = append(names, r.rule)
	}
	for _, name := range names {
		if !strings.Contains(section, "`"+name+"`") {
			t.Errorf("docs/twig.md says nothing of the rule %s", name)
		}
	}
}

// The page's own context is one that the differential test can be asked about too.
func TestThePagesContext(t *testing.T) {
	t.Parallel()
	p := readPage(t)
	c, err := DecodeContext([]byte(p.context))
	if err != nil {
		t.Fatal(err)
	}
	tm, err := Compile("{{ profile.identities.klaviyo_id }}", p.options(ModeText))
	if err != nil {
		t.Fatal(err)
	}
	r, err := tm.Render(context.Background(), c, RenderOptions{})
	if err != nil || r.Output != "01HX" {
		t.Errorf("identities by handle = %q, %v", r.Output, err)
	}
}
