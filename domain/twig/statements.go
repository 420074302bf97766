package twig

// stmt is a compiled statement.
type stmt interface {
	exec(r *run)
	at() int32
}

func (r *run) execAll(list []stmt) {
	for _, s := range list {
		s.exec(r)
	}
}

// textStmt is the author's text.
type textStmt struct {
	pos
	text    string
	transit transit
}

func (s *textStmt) exec(r *run) {
	if r.trace != nil && r.out == &r.main {
		*r.trace = append(*r.trace, trace{len(r.main.json), r.tmpl, s.at(), nil})
	}
	r.writeText(s.text, &s.transit)
}

// printStmt is {{ … }}.
type printStmt struct {
	pos
	value  expr
	how    how
	direct bool   // a macro call, include(), block() or parent(): writes its output itself
	source string // the expression as written, for messages
}

func (s *printStmt) exec(r *run) {
	r.step()
	if r.trace != nil && r.out == &r.main {
		*r.trace = append(*r.trace, trace{len(r.main.json), r.tmpl, s.at(), s})
	}
	if s.direct {
		switch e := s.value.(type) {
		case *macroCall:
			r.callMacro(e, true)
		case *includeCall:
			r.include(e)
		case *blockCall:
			r.showBlock(e)
		case *parentCall:
			r.showParent(e)
		}
		return
	}
	v := s.value.eval(r)
	r.at = s.at()
	r.print(v, s.how)
}

// printChoice is {{ a ? b : c }}: each branch prints in its own way.
type printChoice struct {
	pos
	cond      expr
	then, els stmt
}

func (s *printChoice) exec(r *run) {
	if truthy(s.cond.eval(r)) {
		s.then.exec(r)
	} else {
		s.els.exec(r)
	}
}

// printFallback is {{ a ?: b }} or {{ a ?? b }}: each side prints in its own way.
type printFallback struct {
	pos
	value    expr
	how      how
	escape   string // strategy, outside JSON
	safe     bool
	nullOnly bool // ??
	els      stmt
}

func (s *printFallback) exec(r *run) {
	v := quietly(r, s.value)
	if s.nullOnly && v == nil || !s.nullOnly && !truthy(v) {
		s.els.exec(r)
		return
	}
	r.at = s.at()
	if s.escape != "" && !s.safe {
		v = r.escape(v, s.escape, true)
	}
	r.print(v, s.how)
}

// escaped is the escaping that autoescape adds around a printed expression.
type escaped struct {
	pos
	value    expr
	strategy string
}

func (e *escaped) eval(r *run) Value {
	v := e.value.eval(r)
	r.at = e.at()
	return r.escape(v, e.strategy, true)
}

// ifStmt is if, elseif and else.
type ifStmt struct {
	pos
	branches []branch
	els      []stmt
}

type branch struct {
	cond expr
	body []stmt
}

func (s *ifStmt) exec(r *run) {
	for i := range s.branches {
		r.step()
		if truthy(s.branches[i].cond.eval(r)) {
			r.execAll(s.branches[i].body)
			return
		}
	}
	r.execAll(s.els)
}

// forStmt is {% for key, value in sequence %}.
type forStmt struct {
	pos
	key, value string // key is "" when not asked for
	sequence   expr
	body, els  []stmt
	usesLoop   bool // the body can see "loop"
	usesParent bool // the body can see "_parent" or "loop.parent"
}

// loopState is the value of "loop".
type loopState struct {
	index  int // from 0
	length int
	parent *Array
}

func (l *loopState) member(name string) (Value, bool) {
	switch name {
	case "index":
		return int64(l.index + 1), true
	case "index0":
		return int64(l.index), true
	case "revindex":
		return int64(l.length - l.index), true
	case "revindex0":
		return int64(l.length - l.index - 1), true
	case "first":
		return l.index == 0, true
	case "last":
		return l.index == l.length-1, true
	case "length":
		return int64(l.length), true
	case "parent":
		return l.parent, true
	}
	return nil, false
}

// array is "loop" as a plain value.
func (l *loopState) array() *Array {
	a := newArray(8)
	for _, name := range []string{"parent", "index0", "index", "first", "revindex0", "revindex", "length", "last"} {
		v, _ := l.member(name)
		a.set(Key{Text: name}, v)
	}
	return a
}

func (s *forStmt) exec(r *run) {
	n := len(r.scope.vars)
	var parent *Array
	if s.usesParent {
		parent = r.snapshot()
		r.bind("_parent", parent)
	}
	list, _ := s.sequence.eval(r).(*Array)
	if list == nil || list.Len() == 0 {
		if s.usesLoop && s.els != nil { // PHP has set up the loop by then
			r.bind("loop", &loopState{parent: parent})
		}
		r.execAll(s.els)
		r.endScope(n, len(r.scope.vars), s)
		return
	}
	first := len(r.scope.vars)
	if s.key != "" {
		r.bind(s.key, nil)
	}
	r.bind(s.value, nil)
	var loop *loopState
	if s.usesLoop {
		loop = &loopState{length: list.Len(), parent: parent}
		r.bind("loop", loop)
	}
	for i, v := range list.vals {
		r.step()
		at := first
		if s.key != "" {
			r.scope.vars[at].value = list.key(i).value()
			at++
		}
		r.scope.vars[at].value = v
		if loop != nil {
			loop.index = i
		}
		r.execAll(s.body)
	}
	r.endScope(n, first, s)
}

// endScope drops the loop's variables. What the body set to a variable that existed before stays.
func (r *run) endScope(n, first int, s *forStmt) {
	kept := n
	for i := n; i < len(r.scope.vars); i++ {
		b := r.scope.vars[i]
		own := i < first || b.name == s.key || b.name == s.value || b.name == "loop"
		if own || r.scope.base == nil {
			continue
		}
		if r.scope.base.find(Key{Text: b.name}) >= 0 {
			r.scope.vars[kept] = b
			kept++
		}
	}
	clear(r.scope.vars[kept:])
	r.scope.vars = r.scope.vars[:kept]
}

// setStmt is {% set a, b = x, y %}.
type setStmt struct {
	pos
	names  []string
	values []expr
}

func (s *setStmt) exec(r *run) {
	r.step()
	if len(s.names) == 1 {
		r.assign(s.names[0], s.values[0].eval(r))
		return
	}
	values := r.arguments(s.values)
	for i, name := range s.names {
		r.assign(name, values[i])
	}
	r.release(len(values))
}

// setCapture is {% set a %}…{% endset %}.
type setCapture struct {
	pos
	name string
	body []stmt
}

func (s *setCapture) exec(r *run) {
	r.step()
	v := r.captureOutput(func() { r.execAll(s.body) })
	if c, ok := v.(*capture); ok && c.text == "" && c.json == "" {
		v = ""
	}
	r.assign(s.name, v)
}

// captureOutput collects what f prints. In JSON mode it collects the plain text and the JSON form.
func (r *run) captureOutput(f func()) Value {
	outer := r.out
	inner := &sink{wantPlain: true, wantJSON: outer.wantJSON}
	r.out = inner
	r.enter()
	f()
	r.leave()
	r.out = outer
	r.charge(len(inner.plain) + len(inner.json))
	return &capture{text: string(inner.plain), json: string(inner.json), hasJSON: inner.wantJSON, dynamic: inner.dynamic}
}

// doStmt is {% do … %}.
type doStmt struct {
	pos
	value expr
}

func (s *doStmt) exec(r *run) { s.value.eval(r) }

// applyStmt is {% apply filter %}…{% endapply %}.
type applyStmt struct {
	pos
	body   []stmt
	input  *appliedText // what the filters start from
	result expr         // the chain of filters over input
	plain  bool         // the filters make JSON themselves: the body is collected as plain text
}

// appliedText is the input of an apply's filters.
type appliedText struct{ pos }

func (e *appliedText) eval(r *run) Value { return r.stack[len(r.stack)-1] }

func (s *applyStmt) exec(r *run) {
	r.step()
	outer := r.out
	inner := &sink{wantPlain: true, wantJSON: outer.wantJSON && !s.plain, place: outer.place}
	r.out = inner
	r.enter()
	r.execAll(s.body)
	r.leave()
	r.out = outer
	r.charge(len(inner.plain) + len(inner.json))
	if !outer.wantJSON {
		r.print(s.filter(r, inner.plain), asIs)
		return
	}
	plain := r.text(s.filter(r, inner.plain))
	if outer.wantPlain {
		outer.plain = append(outer.plain, plain...)
	}
	if s.plain {
		outer.json = append(outer.json, plain...)
		outer.place = advance(outer.place, plain)
		return
	}
	text := r.text(s.filter(r, inner.json))
	if outer.place == placeString && !validJSON(`"`+text+`"`) {
		// the filter broke an escape, as upper does with \n: filter the text first and escape it after
		outer.json = r.appendJSONText(outer.json, plain, true)
		return
	}
	outer.json = append(outer.json, text...)
	outer.place = advance(outer.place, text)
	outer.dynamic = outer.dynamic || inner.dynamic
	r.checkOutput(outer)
}

// filter runs the filters. Their input is Markup in PHP, an object; of an empty body, a string.
func (s *applyStmt) filter(r *run, text []byte) Value {
	var input Value = ""
	if len(text) > 0 {
		input = &capture{text: string(text)}
	}
	r.stack = append(r.stack, input)
	base := len(r.stack)
	v := s.result.eval(r)
	r.release(len(r.stack) - base + 1)
	return v
}

// withStmt is {% with variables only %}.
type withStmt struct {
	pos
	variables expr
	only      bool
	body      []stmt
}

func (s *withStmt) exec(r *run) {
	r.step()
	undo := r.private()
	if s.variables != nil {
		v := s.variables.eval(r)
		a, ok := v.(*Array)
		if !ok {
			r.at = s.variables.at()
			r.fail(CodeType, `the variables of "with" must be a mapping, got %s`, typeName(v))
		}
		if s.only {
			r.scope = scope{}
		}
		for i, v := range a.vals {
			r.bind(a.key(i).String(), v)
		}
	} else if s.only {
		r.scope = scope{}
	}
	r.execAll(s.body)
	r.scope = undo
}

// blockStmt shows a block where it is defined.
type blockStmt struct {
	pos
	name string
}

func (s *blockStmt) exec(r *run) { r.showNamed(s.name, s.at()) }

// includeStmt is {% include %}; embedStmt's template is its own.
type includeStmt struct {
	pos
	call *includeCall
}

func (s *includeStmt) exec(r *run) { r.include(s.call) }

type embedStmt struct {
	pos
	call     *includeCall
	template *Template
}

func (s *embedStmt) exec(r *run) { r.embed(s) }

// importStmt is {% import %} or {% from %}: the template's macros become callable.
type importStmt struct {
	pos
	ref *importRef
}

func (s *importStmt) exec(r *run) { r.importTemplate(s.ref) }

// group is several statements as one: a sandbox tag, a guard's chosen branch.
type group struct {
	pos
	body []stmt
}

func (s *group) exec(r *run) { r.execAll(s.body) }
