package twig

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/twig.md lists what there is, and nothing else.
func TestThePageListsTheLanguage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/twig.md")
	if err != nil {
		t.Fatal(err)
	}
	var available, leftOut struct{ filters, functions []string }
	for name, f := range filters {
		if f.unsupported != "" {
			leftOut.filters = append(leftOut.filters, name)
		} else {
			available.filters = append(available.filters, name)
		}
	}
	for name, f := range functions {
		if f.unsupported != "" {
			leftOut.functions = append(leftOut.functions, name)
		} else {
			available.functions = append(available.functions, name)
		}
	}
	for _, tc := range []struct {
		section string
		list    int // which list of the section: one line that begins with ` or with Left out
		want    []string
	}{
		{"Tags", 0, append(sortedKeys(tags), "verbatim")},
		{"Filters", 0, available.filters},
		{"Filters", 1, leftOut.filters},
		{"Functions", 0, available.functions},
		{"Functions", 1, leftOut.functions},
		{"Tests", 0, sortedKeys(tests)},
	} {
		slices.Sort(tc.want)
		got := listed(string(page), tc.section, tc.list)
		if !slices.Equal(got, slices.Compact(tc.want)) {
			t.Errorf("docs/twig.md, %s, list %d:\n got %v\nwant %v", tc.section, tc.list, got, tc.want)
		}
	}
}

var quotedName = regexp.MustCompile("`([^`]+)`")

// listed reads a list of names out of a section of the page.
func listed(page, section string, which int) []string {
	_, body, _ := strings.Cut(page, "\n## "+section+"\n")
	body, _, _ = strings.Cut(body, "\n## ")
	var names []string
	for line := range strings.Lines(body) {
		first, rest := strings.HasPrefix(line, "`"), strings.HasPrefix(line, "Left out, with the reason in the error: ")
		if which == 0 && !first || which == 1 && !rest || names != nil {
			continue
		}
		for _, m := range quotedName.FindAllStringSubmatch(line, -1) {
			names = append(names, m[1])
		}
	}
	slices.Sort(names)
	return names
}
