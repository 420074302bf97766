package platforms

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// The ways in which a rendered body can be unfit to send.
var (
	ErrBody      = errors.New("body would be refused by the platform")          // the parent of the others
	ErrRetired   = fmt.Errorf("%w: written for a retired API", ErrBody)         // the platform stopped taking this shape
	ErrDangerous = fmt.Errorf("%w: it could reach people it must not", ErrBody) // broadcast, consent bypass, resubscribe
)

// Problem is one thing wrong with a rendered body.
type Problem struct {
	Pointer string // where, as a JSON pointer; "" is the whole body
	Detail  string // what is wrong, and what to write instead
	Class   error  // ErrBody, ErrRetired or ErrDangerous; nil counts as ErrBody
}

// BodyError lists everything wrong with one body. It unwraps to the classes of its problems.
type BodyError struct {
	Platform string
	Problems []Problem // never empty
}

// Error names every problem, first things first.
func (e *BodyError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ", e.Platform)
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteString("; ")
		}
		if p.Pointer != "" {
			b.WriteString(p.Pointer + ": ")
		}
		b.WriteString(p.Detail)
	}
	return b.String()
}

// Unwrap gives the classes of the problems, so that errors.Is answers for each.
func (e *BodyError) Unwrap() []error {
	classes := []error{ErrBody}
	for _, p := range e.Problems {
		if p.Class != nil {
			classes = append(classes, p.Class)
		}
	}
	return classes
}

// Problems collects what a dialect finds wrong with a body.
type Problems struct{ list []Problem }

// Add notes a problem at a JSON pointer.
func (p *Problems) Add(pointer, format string, args ...any) {
	p.list = append(p.list, Problem{Pointer: pointer, Detail: fmt.Sprintf(format, args...)})
}

// AddClass notes a problem of a class: [ErrRetired] or [ErrDangerous].
func (p *Problems) AddClass(class error, pointer, format string, args ...any) {
	p.list = append(p.list, Problem{Pointer: pointer, Detail: fmt.Sprintf(format, args...), Class: class})
}

// Err is a [*BodyError] with what was collected, or nil.
func (p *Problems) Err(platform string) error {
	if len(p.list) == 0 {
		return nil
	}
	return &BodyError{Platform: platform, Problems: p.list}
}

// CheckJSON reports whether a body is one well-formed JSON value in UTF-8 without repeated names. A repeated name
// is how an unescaped value in a template overwrites a field that its author wrote. The error is a [*BodyError].
func CheckJSON(platform string, body []byte) error {
	var p Problems
	switch err := wellFormed(body); {
	case len(bytes.TrimSpace(body)) == 0:
		p.Add("", "the body is empty")
	case err != nil:
		p.Add(pointerOf(err), "not valid JSON: %s", describe(err, body))
	}
	return p.Err(platform)
}

func wellFormed(body []byte) error {
	dec := jsontext.NewDecoder(bytes.NewReader(body))
	if _, err := dec.ReadValue(); err != nil {
		return err
	}
	if rest := bytes.TrimSpace(body[dec.InputOffset():]); len(rest) > 0 {
		return fmt.Errorf("something follows the JSON value: %q", clip(string(rest), 20))
	}
	return nil
}

func pointerOf(err error) string {
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		return string(syntax.JSONPointer)
	}
	return ""
}

// describe says what a JSON error is and on which line and column of the body.
func describe(err error, body []byte) string {
	var syntax *jsontext.SyntacticError
	if !errors.As(err, &syntax) {
		return err.Error()
	}
	at := min(int(syntax.ByteOffset), len(body))
	line := 1 + bytes.Count(body[:at], []byte("\n"))
	column := at - (bytes.LastIndexByte(body[:at], '\n') + 1) + 1
	return fmt.Sprintf("%v (line %d, column %d)", syntax.Err, line, column)
}
