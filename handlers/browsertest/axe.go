package browsertest

import (
	_ "embed"
	"fmt"
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

// axeRun runs the rules that are filled in.
const axeRun = `axe.run(document, {resultTypes: ["violations"], runOnly: %s}).then(found => found.violations)`

// everyRule is WCAG 2.2 AA, which contains its predecessors, and axe's own advice.
const everyRule = `{type: "tag", values: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}`

// Axe runs axe-core on the page as it stands and gives what it finds: by the rules that are named, or else by all of WCAG 2.2
// AA and good practice.
func (p *Page) Axe(rules ...string) []Violation {
	p.t.Helper()
	// axe is a script itself: it comes after the page was made without any.
	p.Run(p.scripts(true))
	defer p.Run(p.scripts(!p.view.NoJavaScript))
	var found []Violation
	which := everyRule
	if len(rules) > 0 {
		which = `{type: "rule", values: ["` + strings.Join(rules, `", "`) + `"]}`
	}
	var there bool
	if p.Eval(`"axe" in window`, &there); !there {
		p.Run(chromedp.Evaluate[chromedp.Void](axeSource + "\n;0"))
	}
	p.Eval(fmt.Sprintf(axeRun, which), &found)
	return found
}

// CheckAccessible fails the test for each rule that the page breaks, of those that are named, or else of WCAG 2.2 AA and of good
// practice.
func (p *Page) CheckAccessible(rules ...string) {
	p.t.Helper()
	for _, v := range p.Axe(rules...) {
		for _, n := range v.Nodes {
			p.t.Errorf("%s, %s: %s (%s)\n%s\n%s", p.view.name(), v.Impact, v.Help, v.ID, n.HTML, strings.TrimSpace(n.Summary))
		}
	}
}
