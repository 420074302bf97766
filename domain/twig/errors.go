package twig

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Codes of Error. They are stable: callers and stored records compare them.
const (
	CodeSyntax           = "syntax"              // the source is not Twig
	CodeUnknownFilter    = "unknown_filter"      // no such filter; Suggestion names the nearest
	CodeUnknownFunction  = "unknown_function"    // no such function
	CodeUnknownTest      = "unknown_test"        // no such test (after "is")
	CodeUnknownTag       = "unknown_tag"         // no such tag
	CodeUnsupported      = "unsupported"         // Twig has it, this package leaves it out on purpose
	CodeArguments        = "arguments"           // a filter, function, test or macro is called with wrong arguments
	CodePartial          = "unknown_partial"     // include, extends, embed, use or import of a name nobody knows
	CodeUnknownBlock     = "unknown_block"       // block() or parent() without such a block
	CodeUnknownMacro     = "unknown_macro"       // a call of a macro that its template does not have
	CodeType             = "type"                // a value of the wrong type, where PHP throws too
	CodeDivision         = "division_by_zero"    // division or modulo by zero
	CodeDate             = "date"                // text that is no date, or an unknown time zone
	CodeRegex            = "regex"               // a regular expression that is invalid or needs look-around
	CodeUnresolved       = "unresolved_variable" // a variable the context lacks, in strict rendering
	CodeInvalidJSON      = "invalid_json"        // ModeJSON: the output is not JSON
	CodeFunction         = "function_failed"     // a host function returned an error
	CodeContext          = "invalid_context"     // the context is not a JSON object
	CodeLimitSource      = "limit_source"        // source larger than Limits.SourceBytes
	CodeLimitDepth       = "limit_depth"         // nesting or calls deeper than Limits allows
	CodeLimitSteps       = "limit_steps"         // more work than Limits.Steps
	CodeLimitOutput      = "limit_output"        // more output than Limits.OutputBytes
	CodeLimitMemory      = "limit_memory"        // a value, or all values of a render, larger than Limits allows
	CodeCancelled        = "cancelled"           // the context.Context ended; errors.Is finds its cause
	CodeInternal         = "internal"            // a defect of this package, contained
	phaseCompile, render = "compile", "render"
)

// Error says why a template does not compile or does not render, and where.
//
// Every error that leaves the package is one; find it with errors.As. Line and Column count from 1, Column in
// characters; both are 0 when the error has no place (a limit on the whole source, an invalid context).
type Error struct {
	Code       string `json:"code"`                 // one of the Code constants
	Message    string `json:"message"`              // what is wrong, without the place
	Line       int    `json:"line"`                 // 1-based line in Template
	Column     int    `json:"column"`               // 1-based character in the line
	Suggestion string `json:"suggestion,omitempty"` // what to write instead, when that can be guessed
	Expression string `json:"expression,omitempty"` // the source text that failed, when known
	Template   string `json:"template,omitempty"`   // name of the template or partial
	Phase      string `json:"phase"`                // "compile" or "render"

	pos   int32
	cause error
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Template != "" {
		b.WriteString(e.Template)
		b.WriteByte(':')
	}
	if e.Line > 0 {
		fmt.Fprintf(&b, "%d:%d: ", e.Line, e.Column)
	} else if b.Len() > 0 {
		b.WriteByte(' ')
	}
	b.WriteString(e.Message)
	if e.Suggestion != "" {
		b.WriteString("; " + e.Suggestion)
	}
	return b.String()
}

// Unwrap gives the error of the host function or of the context.Context behind this one, if any.
func (e *Error) Unwrap() error { return e.cause }

// fail unwinds the compiler or the evaluator with an error at a byte offset of the current source. Compile and
// Render recover it; it never leaves the package as a panic.
func fail(code string, at int32, format string, args ...any) {
	panic(&Error{Code: code, Message: fmt.Sprintf(format, args...), pos: at})
}

func failHint(code string, at int32, hint, format string, args ...any) {
	panic(&Error{Code: code, Message: fmt.Sprintf(format, args...), Suggestion: hint, pos: at})
}

// source is the text of one template, with line ends as Twig sees them.
type source struct {
	name  string
	text  string
	lines []int32 // byte offset of each line's start
}

func newSource(name, text string) *source {
	if strings.ContainsRune(text, '\r') {
		text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	}
	s := &source{name: name, text: text, lines: make([]int32, 1, 1+strings.Count(text, "\n"))}
	for i := range len(text) {
		if text[i] == '\n' {
			s.lines = append(s.lines, int32(i+1))
		}
	}
	return s
}

// position turns a byte offset into a 1-based line and column.
func (s *source) position(at int32) (line, column int) {
	at = min(max(at, 0), int32(len(s.text))) //nolint:gosec // bounded, as above
	i, found := slices.BinarySearch(s.lines, at)
	if !found {
		i--
	}
	return i + 1, utf8.RuneCountInString(s.text[s.lines[i]:at]) + 1
}

// locate completes an error that was raised in this source.
func (s *source) locate(e *Error, phase string) *Error {
	if e.Phase == "" {
		e.Phase = phase
		e.Template = s.name
		e.Line, e.Column = s.position(e.pos)
	}
	return e
}

// nearest returns the name most like the wrong one, or "" when none is close.
func nearest(wrong string, names []string) string {
	best, bestDistance := "", len(wrong)/2+2
	lower := strings.ToLower(wrong)
	for _, name := range names {
		d := distance(lower, strings.ToLower(name))
		if strings.HasPrefix(name, lower) && len(lower) > 2 {
			d = min(d, 1)
		}
		if d < bestDistance {
			best, bestDistance = name, d
		}
	}
	return best
}

// distance is the Levenshtein distance between two short names, with a swap of neighbours as one step.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}

func didYouMean(wrong string, names []string) string {
	if near := nearest(wrong, names); near != "" {
		return "did you mean " + strconv.Quote(near) + "?"
	}
	return ""
}
