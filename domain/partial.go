package domain

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/dispatch-ledger/dispatch-ledger/domain/twig"
)

// Partials are the pieces that templates share, by name, as they stand at a position of the ledger. A template names them
// in include, embed, extends, use, import and from.
type Partials struct {
	Position int64 // of the last event about any partial; 0 when there was none
	Sources  map[string]string
}

// PartialChanged records a new version of a partial: all of it.
type PartialChanged struct {
	Name   string `json:"name" doc:"what templates call it: 1 to 128 letters, digits, '.', '_', '-' and '/'"`
	Source string `json:"source" doc:"the Twig template"`
	Reason string `json:"reason,omitempty" doc:"why it was changed, in words"`
}

// PartialDeleted records that a partial was withdrawn. Templates that still name it fail from then on.
type PartialDeleted struct {
	Name   string `json:"name"`
	Reason string `json:"reason,omitempty" doc:"why, in words"`
}

var (
	_ = declare("partial.changed", 1, FromLedger, "A partial was created or changed. The event's version in its stream is the partial's version.",
		PartialChanged{Name: "footer", Source: `{% macro money(v) %}{{ v|number_format(2) }}{% endmacro %}`})
	_ = declare("partial.deleted", 1, FromLedger, "A partial was withdrawn; templates that still name it fail from then on.", PartialDeleted{Name: "footer"})
)

// PartialStream names the stream of a partial's versions.
func PartialStream(name string) string { return "partial-" + name }

// Stream is the partial's.
func (p PartialChanged) Stream() string { return PartialStream(p.Name) }

// Keys has the state that the event sets.
func (p PartialChanged) Keys() Keys { return Keys{State: "present"} }

// Validate reports what is wrong with the payload. Its template is compiled with those that name it, see Partials.Touched.
func (p PartialChanged) Validate() error {
	switch {
	case !handlePattern.MatchString(strings.ReplaceAll(p.Name, "/", ".")):
		return Invalid("/name", "is %q; a name is 1 to 128 letters, digits, '.', '_', '-' and '/', the first a letter or digit", clip(p.Name))
	case len(p.Source) > maxBody:
		return Invalid("/source", "is %d bytes, more than %d", len(p.Source), maxBody)
	}
	return nil
}

// Stream is the partial's.
func (p PartialDeleted) Stream() string { return PartialStream(p.Name) }

// Keys has the state that the event sets.
func (p PartialDeleted) Keys() Keys { return Keys{State: "deleted"} }

// Validate reports what is wrong with the payload.
func (p PartialDeleted) Validate() error {
	if p.Name == "" {
		return Invalid("/name", "is empty")
	}
	return nil
}

// With gives the partials with one changed.
func (p Partials) With(name, source string) Partials {
	sources := maps.Clone(p.Sources)
	if sources == nil {
		sources = map[string]string{}
	}
	sources[name] = source
	return Partials{Position: p.Position, Sources: sources}
}

// Without gives the partials without one.
func (p Partials) Without(name string) Partials {
	sources := maps.Clone(p.Sources)
	delete(sources, name)
	return Partials{Position: p.Position, Sources: sources}
}

func (p Partials) options(o twig.Options) twig.Options {
	o.Partials = func(name string) (string, bool) {
		source, ok := p.Sources[name]
		return source, ok
	}
	o.Names = slices.Sorted(maps.Keys(p.Sources))
	return o
}

// Check compiles one of the partials by itself. Errors: *TemplateError.
func (p Partials) Check(name string) error {
	_, err := p.compile("/source", p.Sources[name], twig.Options{Name: name, Mode: twig.ModeText, Functions: hostFunctions})
	return err
}

// compile compiles a template, and the partials that it names, themselves or through another.
func (p Partials) compile(pointer, source string, o twig.Options) (*twig.Template, error) {
	t, err := twig.Compile(source, p.options(o))
	if err != nil {
		return nil, templateError(pointer, "", err)
	}
	for _, name := range t.PartialNames() {
		partial, ok := p.Sources[name]
		switch {
		case ok:
			if _, err := twig.Compile(partial, p.options(twig.Options{Name: name, Mode: twig.ModeText, Functions: o.Functions})); err != nil {
				return nil, templateError(pointer, "partial "+name+": ", err)
			}
		case !strings.Contains(source, "ignore missing"):
			return nil, &TemplateError{Pointer: pointer, Line: 1, Column: 1, Message: "there is no partial " + strconv.Quote(name) + "; create it with: dispatch-ledger partials apply " + name + " FILE"}
		}
	}
	return t, nil
}

func templateError(pointer, prefix string, err error) error {
	var te *twig.Error
	if !errors.As(err, &te) {
		return err
	}
	message := prefix + te.Message
	if te.Suggestion != "" {
		message += "; " + te.Suggestion
	}
	return &TemplateError{Pointer: pointer, Line: te.Line, Column: te.Column, Message: message}
}

// Touched says which of these targets name a partial, themselves or through another, by handle; and which of them no
// longer compile with the partials as they are here, and why.
func (p Partials) Touched(name string, targets []Target) (touched []string, broken map[string]error) {
	broken = map[string]error{}
	for _, t := range targets {
		c, err := CompileTarget(t, p)
		if err != nil {
			if _, before := CompileTarget(t, p.With(name, "")); before == nil {
				touched = append(touched, t.Handle)
				broken[t.Handle] = err
			}
			continue
		}
		for _, tpl := range c.templates() {
			if slices.Contains(tpl.PartialNames(), name) {
				touched = append(touched, t.Handle)
				break
			}
		}
	}
	return touched, broken
}
