package domain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dispatch-ledger/dispatch-ledger/domain/twig"
)

// Lacking lists what the target's templates name and a context does not have, on whatever branch it stands, without
// rendering. Variables that are optional in the template (??, ?:, |default, is defined) are exempt, and so are the
// target's own constants and those of the service, by name. The error says that the context is none.
func (c *CompiledTarget) Lacking(context []byte, service []string) ([]Unresolved, error) {
	sample, err := twig.DecodeContext(context)
	if err != nil {
		return nil, Invalid("/sample", "is not a context that a template can read")
	}
	known := append(c.VariableNames(), service...)
	var lacking []Unresolved
	for _, t := range c.templates() {
		for _, u := range t.Check(sample) {
			if root, _, _ := strings.Cut(strings.ReplaceAll(u.Path, "[]", "."), "."); slices.Contains(known, root) {
				continue
			}
			lacking = append(lacking, Unresolved{Name: u.Path, Part: t.Name(), Partial: u.Template, Line: u.Line, Column: u.Column})
		}
	}
	return lacking, nil
}

// CheckSample compares the templates with the target's sample, if it has one, before anything fires. A target that refuses
// unresolved variables must find all of them there. The error is an *InvalidError.
func (c *CompiledTarget) CheckSample(service []string) error {
	if len(c.Sample) == 0 || c.Unresolved != UnresolvedError {
		return nil
	}
	lacking, err := c.Lacking(c.Sample, service)
	if err != nil || len(lacking) == 0 {
		return err
	}
	const named = 5
	var names []string
	for _, u := range lacking[:min(named, len(lacking))] {
		part := u.Part
		if u.Partial != "" {
			part = "partial " + u.Partial
		}
		names = append(names, fmt.Sprintf("%s (%s, line %d, column %d)", u.Name, part, u.Line, u.Column))
	}
	if more := len(lacking) - named; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return Invalid("/sample", "lacks %s: a firing like it would be rejected; correct the template or the sample, or give the variable a default", strings.Join(names, ", "))
}
