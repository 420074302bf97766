package twig

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nikolalohinski/gonja/v2/nodes"
)

// Mode says what printed values are escaped for.
type Mode int

const (
	ModeAuto Mode = iota // ModeJSON when the source's text starts with { or [, else ModeText
	ModeJSON             // values take the form of their place in JSON; the output must be JSON
	ModeText             // "autoescape off": plain Twig, byte for byte
	ModeHTML             // Twig's html strategy
	ModeName             // Twig's name strategy: by the extension of the template's name (js, css, txt, else html)
)

// Function declares a function of the host, such as secret(name). Its implementation comes with each rendering, in
// RenderOptions.Functions.
type Function struct {
	Name     string
	Params   []string // names of the parameters, in order
	Required int      // how many of them must be given
}

// Options say how a source is compiled.
type Options struct {
	Name        string                           // the template's name, for errors and _self; default "index.twig"
	Mode        Mode                             //
	Timezone    string                           // IANA name that dates are shown in, default UTC
	Partials    func(name string) (string, bool) // sources of other templates; nil: there are none
	Names       []string                         // names that Partials knows, for suggestions; may be nil
	StrictTypes bool                             // ModeJSON: text that is a number is printed as a JSON string all the same
	Limits      Limits                           //
	Globals     map[string]any                   // variables that macros and "only" see too
	Functions   []Function                       //
	DateFormat  string                           // of |date, default "F j, Y H:i"
	Interval    string                           // of |date on an interval, default "%d days"
	Number      NumberFormat                     // of |number_format
}

// NumberFormat is what |number_format does without arguments.
type NumberFormat struct {
	Decimals  int
	Point     string // default "."
	Thousands string // default ","
	Set       bool   // false: the zero value means 0, "." and ","
}

// RenderOptions are what a rendering is given besides its context.
type RenderOptions struct {
	Functions map[string]func(args []any) (any, error) // implementations of Options.Functions
	Variables map[string]any                           // constants of the environment; the context wins over them
	Now       func() time.Time                         // what "now" is; without it, a template that asks fails
	Strict    bool                                     // the first unresolved variable is an error
}

// Unresolved is a variable that a template asked for and the context did not have. It printed as nothing.
type Unresolved struct {
	Path     string `json:"name"`               // as written: profile.adress.city
	Line     int    `json:"line"`               // 1-based line of the path's start
	Column   int    `json:"column"`             // 1-based character in the line
	Template string `json:"template,omitempty"` // the partial it stands in; "" for the template itself
}

// Result is what a rendering gave.
type Result struct {
	Output     string
	Unresolved []Unresolved // in the order met, each place once
}

// Template is a compiled template. It is immutable and may be rendered by many goroutines at once.
type Template struct {
	src        *source
	partial    string // its name, when it is not the root
	options    *Options
	mode       Mode
	body       []stmt
	parent     expr
	blocks     map[string]*block
	blockOrder []string
	macros     map[string]*macro
	traits     []trait
	loader     *loader
	tree       *nodes.Template
	zone       *time.Location
	limits     Limits
	vouched    bool // something in it makes text that is printed as it is
	proven     bool // ModeJSON: every rendering is JSON, whatever the context; no need to check
}

// Compile turns a source into a template. The error is an *Error with the place of what is wrong.
func Compile(text string, o Options) (t *Template, err error) {
	if o.Name == "" {
		o.Name = "index.twig"
	}
	o.Limits = o.Limits.withDefaults()
	o.Functions = slices.Clone(o.Functions)
	zone, err := loadZone(o.Timezone)
	if err != nil {
		return nil, &Error{Code: CodeDate, Message: err.Error(), Phase: phaseCompile, Template: o.Name}
	}
	l := &loader{options: &o, zone: zone, compiled: map[string]*Template{}}
	defer func() { err = l.recovered(recover(), nil, err) }()
	t = l.compile(o.Name, text, "", nil)
	t.proven = t.mode == ModeJSON && provenJSON(t)
	return t, nil
}

// Name is the name that the template was compiled under.
func (t *Template) Name() string { return t.src.name }

// Source is the template's source, with line ends as "\n".
func (t *Template) Source() string { return t.src.text }

// IsJSON reports whether the template renders in ModeJSON.
func (t *Template) IsJSON() bool { return t.mode == ModeJSON }

// loader compiles partials when they are first asked for, and keeps them.
type loader struct {
	options *Options
	zone    *time.Location

	mu       sync.Mutex
	compiled map[string]*Template // guarded by mu; a nil entry is an unknown name
}

// compile parses one source; it panics with an *Error.
func (l *loader) compile(name, text, partial string, using []string) *Template {
	o := l.options
	if len(text) > o.Limits.SourceBytes {
		panic(&Error{
			Code: CodeLimitSource, Phase: phaseCompile, Template: name,
			Message: "template is larger than the limit of " + formatInt(o.Limits.SourceBytes) + " bytes",
		})
	}
	src := newSource(name, text)
	defer func() {
		switch e := recover().(type) {
		case nil:
		case *Error:
			panic(src.locate(e, phaseCompile))
		default:
			panic(e)
		}
	}()
	p := newParser(src, l, append(using, name))
	t := p.template()
	t.partial = partial
	t.tree = tree(t)
	return t
}

// get is a partial by name, nil when it is not known. It panics with the partial's own compile error.
func (l *loader) get(name string) *Template {
	t, err := l.load(name, nil)
	if err != nil {
		panic(err)
	}
	return t
}

func (l *loader) load(name string, using []string) (t *Template, err error) {
	if l.options.Partials == nil {
		return nil, nil //nolint:nilnil // nil is an unknown name
	}
	l.mu.Lock()
	t, known := l.compiled[name]
	l.mu.Unlock()
	if known {
		return t, nil
	}
	text, ok := l.options.Partials(name)
	if ok {
		defer func() { err = l.recovered(recover(), nil, err) }()
		t = l.compile(name, text, name, using)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.compiled) < 1024 {
		l.compiled[name] = t
	}
	return t, nil
}

func (l *loader) known() []string { return l.options.Names }

// recovered turns what a compile or render panicked with into an error.
func (l *loader) recovered(panicked any, r *run, err error) error {
	if panicked == nil {
		return err
	}
	if e, ok := panicked.(*Error); ok {
		return e
	}
	e := &Error{Code: CodeInternal, Message: "internal error, please report the template", Phase: render}
	if r != nil && r.tmpl != nil {
		e.pos = r.at
		e.Phase = ""
		_ = r.tmpl.src.locate(e, render) // it fills in the place
	}
	if cause, ok := panicked.(error); ok {
		e.cause = cause
		e.Message += ": " + cause.Error()
	}
	return e
}

var runs = sync.Pool{New: func() any { return new(run) }}

// Render renders the template from a context. c is never changed and may be nil.
//
// In ModeJSON the output is JSON, or the error names the print that broke it. Errors are *Error, with the code
// CodeCancelled when ctx ended.
func (t *Template) Render(ctx context.Context, c *Context, o RenderOptions) (Result, error) {
	r, _ := runs.Get().(*run)
	defer func() {
		r.reset()
		runs.Put(r)
	}()
	err := r.render(ctx, t, c, o)
	if err != nil {
		return Result{}, err
	}
	if t.mode != ModeJSON {
		return Result{Output: string(r.main.plain), Unresolved: r.unresolved()}, nil
	}
	if t.proven || validJSONBytes(r.main.json) {
		return Result{Output: string(r.main.json), Unresolved: r.unresolved()}, nil
	}
	return t.renderAgain(ctx, r, c, o)
}

// renderAgain explains output that is not JSON. Constants inside strings are the author's, and usually right as
// they are; a quote in one may be the reason, so they are escaped in a second try.
func (t *Template) renderAgain(ctx context.Context, r *run, c *Context, o RenderOptions) (Result, error) {
	for _, repair := range []bool{true, false} {
		r.reset()
		r.repair = repair
		traces := []trace{}
		r.trace = &traces
		if err := r.render(ctx, t, c, o); err != nil {
			return Result{}, err
		}
		if validJSONBytes(r.main.json) {
			return Result{Output: string(r.main.json), Unresolved: r.unresolved()}, nil
		}
		if !repair {
			return Result{}, explainJSON(t, r.main.json, traces)
		}
	}
	return Result{}, nil
}

func (r *run) unresolved() []Unresolved {
	if len(r.missing) == 0 {
		return nil
	}
	return slices.Clone(r.missing)
}

func (r *run) reset() {
	clear(r.stack[:cap(r.stack)])
	clear(r.scope.vars[:cap(r.scope.vars)])
	stack, vars, plain, json := r.stack[:0], r.scope.vars[:0], r.main.plain[:0], r.main.json[:0]
	if cap(plain)+cap(json) > 1<<20 {
		plain, json = nil, nil
	}
	*r = run{stack: stack, scope: scope{vars: vars}}
	r.main.plain, r.main.json = plain, json
}

func (r *run) render(ctx context.Context, t *Template, c *Context, o RenderOptions) (err error) {
	defer func() { err = t.loader.recovered(recover(), r, err) }()
	r.ctx, r.root, r.tmpl, r.limits, r.zone = ctx, t, t, &t.limits, t.zone
	r.now, r.strict, r.functions, r.variables = o.Now, o.Strict, o.Functions, o.Variables
	if c != nil {
		r.scope.base = c.root
	}
	r.main.wantJSON = t.mode == ModeJSON
	r.main.wantPlain = !r.main.wantJSON
	r.out = &r.main
	if cause := ctx.Err(); cause != nil {
		return &Error{Code: CodeCancelled, Message: "rendering was cancelled: " + cause.Error(), Phase: render, cause: cause}
	}
	if err := r.hosted(t); err != nil {
		var e *Error
		if errors.As(err, &e) {
			return e
		}
		return &Error{Code: CodeInternal, Message: err.Error(), Phase: render, cause: err}
	}
	return nil
}

// execute runs the body under gonja's renderer. It turns the evaluator's panics into errors with their place.
func (r *run) execute(t *Template) (err error) {
	defer func() {
		panicked := recover()
		if e, ok := panicked.(*Error); ok {
			if r.tmpl != nil {
				_ = r.tmpl.src.locate(e, render) // it fills in the place
			}
			err = e
			return
		}
		err = t.loader.recovered(panicked, r, nil)
	}()
	if t.parent == nil && len(t.blocks) == 0 && len(t.traits) == 0 {
		r.execAll(t.body)
		return nil
	}
	r.display(r.newFrame(t))
	return nil
}

// modeOf resolves ModeAuto: the first text that is not white space decides. Comments, tags, macros and set blocks
// before it do not count.
func modeOf(m Mode, tokens []token) Mode {
	if m != ModeAuto {
		return m
	}
	until := "" // the tag that ends the text that does not count
	for i := 0; i < len(tokens); i++ {
		switch t := tokens[i]; t.kind {
		case tokTagStart:
			name := tokens[i+1].text
			plain := true
			for ; tokens[i].kind != tokTagEnd; i++ {
				plain = plain && tokens[i].text != "="
			}
			switch {
			case name == until:
				until = ""
			case until == "" && (name == "macro" || name == "set" && plain):
				until = "end" + name
			}
		case tokPrintStart:
			if until == "" {
				return ModeText
			}
		case tokText:
			s := strings.TrimLeft(t.text, whitespace+"\ufeff")
			switch {
			case until != "" || s == "":
			case s[0] == '{' || s[0] == '[':
				return ModeJSON
			default:
				return ModeText
			}
		}
	}
	return ModeText
}
