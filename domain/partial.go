package domain

import (
	"errors"
	"fmt"
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

// Validate reports what is wrong with the payload. Its template is compiled with those that name it, see Partials.Change.
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

// Options gives the options with which a template finds the partials.
func (p Partials) Options(o twig.Options) twig.Options {
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
	t, err := twig.Compile(source, p.Options(o))
	if err != nil {
		return nil, templateError(pointer, "", err)
	}
	for _, name := range t.PartialNames() {
		partial, ok := p.Sources[name]
		switch {
		case ok:
			if _, err := twig.Compile(partial, p.Options(twig.Options{Name: name, Mode: twig.ModeText, Functions: o.Functions})); err != nil {
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

// ErrBreaksTargets is a change that targets do not survive.
var ErrBreaksTargets = errors.New("targets would not compile any more")

// BreaksError is a change of a partial after which targets that compile now would not any more.
type BreaksError struct {
	Targets map[string]error // what would be wrong with each, by handle
}

func (e *BreaksError) Error() string {
	handle := slices.Sorted(maps.Keys(e.Targets))[0]
	return fmt.Sprintf("target %s would not compile any more: %s; change the target first", handle, e.Targets[handle])
}

// Unwrap gives ErrBreaksTargets.
func (e *BreaksError) Unwrap() error { return ErrBreaksTargets }

// Change checks a PartialChanged or PartialDeleted against the targets there are, and says which of them it touches:
// those that name the partial, themselves or through another, by handle. Errors: *InvalidError, *TemplateError,
// *BreaksError.
func (p Partials) Change(change Payload, targets []Target) (touched []string, err error) {
	if err := change.Validate(); err != nil {
		return nil, err
	}
	var name string
	after := p
	switch c := change.(type) {
	case PartialChanged:
		name, after = c.Name, p.With(c.Name, c.Source)
		if err := after.Check(name); err != nil {
			return nil, err
		}
	case PartialDeleted:
		name, after = c.Name, p.Without(c.Name)
	}
	broken := map[string]error{}
	for _, t := range targets {
		c, err := CompileTarget(t, after)
		if err == nil {
			if c.names(name) {
				touched = append(touched, t.Handle)
			}
			continue
		}
		if _, before := CompileTarget(t, p); before == nil { // what was broken before is not this change's fault
			broken[t.Handle] = err
		}
	}
	if len(broken) > 0 {
		return nil, &BreaksError{broken}
	}
	return touched, nil
}

// TouchedBy says which of these targets name a partial, themselves or through another, by handle.
func (p Partials) TouchedBy(name string, targets []Target) []string {
	touched := []string{}
	for _, t := range targets {
		if c, err := CompileTarget(t, p); err == nil && c.names(name) {
			touched = append(touched, t.Handle)
		}
	}
	return touched
}

// names reports whether one of the target's templates names a partial, itself or through another.
func (c *CompiledTarget) names(partial string) bool {
	return slices.ContainsFunc(c.templates(), func(t *twig.Template) bool { return slices.Contains(t.PartialNames(), partial) })
}
