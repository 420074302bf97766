package browsertest

import (
	_ "embed"
	"strings"

	"github.com/chromedp/chromedp"
)

// axeSource is axe-core 4.10.3, by Deque Systems, under the Mozilla Public License 2.0, as its npm package axe-core
// has it.
//
//go:embed testdata/axe-core/axe.min.js
var axeSource string

// Violation is one rule of accessibility that a page breaks.
type Violation struct {
	ID     string `json:"id"`     // axe's name of the rule, such as color-contrast
	Impact string `json:"impact"` // minor, moderate, serious or critical
	Help   string `json:"help"`   // what the rule asks
	Nodes  []struct {
		Target  []any  `json:"target"` // selectors of the element; nested where frames are
		HTML    string `json:"html"`
		Summary string `json:"failureSummary"` // what to mend
	} `json:"nodes"`
}

// axeRun asks for the rules of WCAG 2.2 AA, which contains its predecessors, and axe's own advice.
const axeRun = `axe.run(document, {resultTypes: ["violations"], runOnly: {type: "tag",
	values: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}}).then(found => found.violations)`

// Axe runs axe-core on the page as it stands and gives what it finds.
func (p *Page) Axe() []Violation {
	p.t.Helper()
	// axe is a script itself: it comes after the page was made without any.
	p.Run(p.scripts(true))
	defer p.Run(p.scripts(!p.view.NoJavaScript))
	var found []Violation
	p.Run(chromedp.Evaluate[chromedp.Void](axeSource + "\n;0"))
	p.Eval(axeRun, &found)
	return found
}

// CheckAccessible fails the test for each rule of WCAG 2.2 AA, and of good practice, that the page breaks.
func (p *Page) CheckAccessible() {
	p.t.Helper()
	for _, v := range p.Axe() {
		for _, n := range v.Nodes {
			p.t.Errorf("%s, %s: %s (%s)\n%s\n%s", p.view.name(), v.Impact, v.Help, v.ID, n.HTML, strings.TrimSpace(n.Summary))
		}
	}
}
