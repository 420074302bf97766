package twig

import (
	"context"
	"fmt"
	"time"
)

// arrayElementBytes is what one array element counts against the memory limits.
const arrayElementBytes = 64

// run is the state of one render. It belongs to one goroutine.
type run struct {
	ctx       context.Context //nolint:containedctx // a run is one call, and polls it
	root      *Template
	tmpl      *Template // whose code is running
	frame     *frame    // the blocks in force; nil in a macro until it asks
	block     runningBlock
	scope     scope
	out       *sink
	main      sink
	at        int32 // last known place, for errors raised below the nodes
	limits    *Limits
	steps     int
	depth     int
	seed      uint64
	memory    int
	strict    bool
	now       func() time.Time
	zone      *time.Location
	functions map[string]func([]any) (any, error)
	variables map[string]any
	globals   map[string]Value // variables and globals, converted once
	stack     []Value          // arguments of the calls under way
	imported  map[*importRef]*Template
	missing   []Unresolved
	dropped   bool // Limits.Unresolved was reached
	trace     *[]trace
	repair    bool // constants printed inside JSON strings are escaped, too
}

// trace ties a stretch of JSON output to the print or text that made it, for the message about invalid JSON.
type trace struct {
	offset int
	tmpl   *Template
	at     int32
	print  *printStmt // nil for text
}

func (r *run) fail(code, format string, args ...any) {
	panic(&Error{Code: code, Message: fmt.Sprintf(format, args...), pos: r.at})
}

// step counts one unit of work and polls for cancellation.
func (r *run) step() {
	r.steps++
	if r.steps&1023 == 0 || r.steps > r.limits.Steps {
		r.checkSteps()
	}
}

func (r *run) checkSteps() {
	if r.steps > r.limits.Steps {
		r.fail(CodeLimitSteps, "template takes more than %d steps", r.limits.Steps)
	}
	if err := r.ctx.Err(); err != nil {
		panic(&Error{Code: CodeCancelled, Message: "rendering was cancelled: " + err.Error(), pos: r.at, cause: err})
	}
}

// work counts many steps at once.
func (r *run) work(n int) {
	r.steps += n
	r.checkSteps()
}

// enter and leave bracket whatever can recurse.
func (r *run) enter() {
	r.depth++
	if r.depth > r.limits.CallDepth {
		r.fail(CodeLimitDepth, "calls are nested more than %d deep", r.limits.CallDepth)
	}
}

func (r *run) leave() { r.depth-- }

// charge accounts for a value of n bytes before it is made.
func (r *run) charge(n int) {
	if n > r.limits.ValueBytes || n < 0 {
		r.fail(CodeLimitMemory, "a value is larger than %d bytes", r.limits.ValueBytes)
	}
	r.memory += n
	if r.memory > r.limits.MemoryBytes {
		r.fail(CodeLimitMemory, "template makes more than %d bytes of values", r.limits.MemoryBytes)
	}
	if n > 1<<14 {
		r.work(n >> 10)
	}
}

// array makes an empty array with room that has been paid for.
func (r *run) array(room int) *Array {
	r.charge(room*arrayElementBytes + arrayElementBytes)
	return newArray(room)
}

// str charges for a string that was made.
func (r *run) str(s string) string {
	r.charge(len(s))
	return s
}

// clock is the time that "now" means.
func (r *run) clock() time.Time {
	if r.now == nil {
		r.fail(CodeDate, `"now" has no clock here: rendering was not given the time`)
	}
	return r.now()
}

// call runs f with its arguments on the run's own stack, and clears them after.
func (r *run) arguments(args []expr) []Value {
	base := len(r.stack)
	for _, a := range args {
		var v Value
		if a != nil {
			v = a.eval(r)
		} else {
			v = absent
		}
		r.stack = append(r.stack, v)
	}
	return r.stack[base:len(r.stack):len(r.stack)]
}

func (r *run) release(n int) {
	base := len(r.stack) - n
	clear(r.stack[base:])
	r.stack = r.stack[:base]
}

// absentArgument marks an optional argument that the caller left out.
type absentArgument struct{}

var absent Value = absentArgument{}

// miss records a variable that the context does not have.
func (r *run) miss(at int32, path string) {
	line, column := r.tmpl.src.position(at)
	if r.strict {
		panic(r.tmpl.src.locate(&Error{
			Code: CodeUnresolved, Message: fmt.Sprintf("variable %q is not in the context", path), Expression: path,
			Suggestion: "give it a default (|default or ??) or send it in the context", pos: at,
		}, render))
	}
	if len(r.missing) >= r.limits.Unresolved {
		r.dropped = true
		return
	}
	for i := range r.missing {
		m := &r.missing[i]
		if m.Line == line && m.Column == column && m.Path == path && m.Template == r.tmpl.partial {
			return
		}
	}
	r.missing = append(r.missing, Unresolved{Path: path, Line: line, Column: column, Template: r.tmpl.partial})
}
