package twig

// filterCall is x|filter(…).
type filterCall struct {
	pos
	filter *filter
	args   []expr // the input first, then the arguments in order; nil for one left out
	spread expr   // …expr at the end
	cached any    // what the filter prepared at compile time
}

func (e *filterCall) eval(r *run) Value {
	r.step()
	if e.filter.special != nil {
		return e.filter.special(r, e)
	}
	args, n := r.callArguments(e.args, e.spread)
	r.at = e.at()
	v := e.filter.fn(r, args)
	r.release(n)
	return v
}

// callArguments evaluates arguments, and a spread one behind them.
func (r *run) callArguments(list []expr, spread expr) (args []Value, n int) {
	args = r.arguments(list)
	n = len(args)
	if spread == nil {
		return args, n
	}
	a, ok := spread.eval(r).(*Array)
	if !ok {
		r.at = spread.at()
		r.fail(CodeType, "only a sequence can be spread into arguments")
	}
	r.charge(a.Len() * arrayElementBytes)
	return append(args[:n:n], a.vals...), n
}

// functionCall is f(…).
type functionCall struct {
	pos
	function *function
	args     []expr
	spread   expr
}

func (e *functionCall) eval(r *run) Value {
	r.step()
	args, n := r.callArguments(e.args, e.spread)
	r.at = e.at()
	v := e.function.fn(r, args)
	r.release(n)
	return v
}

// hostCall is a call of a function that the host declared in Options.Functions.
type hostCall struct {
	pos
	declared *Function
	args     []expr
}

func (e *hostCall) eval(r *run) Value {
	r.step()
	args, n := r.callArguments(e.args, nil)
	f := r.functions[e.declared.Name]
	r.at = e.at()
	if f == nil {
		r.fail(CodeFunction, "function %q is not available in this rendering", e.declared.Name)
	}
	given := make([]any, 0, len(args))
	for _, a := range args {
		if a == absent {
			break
		}
		given = append(given, toGo(a))
	}
	r.release(n)
	v, err := f(given)
	if err != nil {
		panic(&Error{Code: CodeFunction, Message: e.declared.Name + "(): " + err.Error(), pos: e.at(), cause: err})
	}
	return r.fromGo(v, 0)
}

// testCall is x is test(…).
type testCall struct {
	pos
	test *test
	args []expr
}

func (e *testCall) eval(r *run) Value {
	r.step()
	args, n := r.callArguments(e.args, nil)
	r.at = e.at()
	v := e.test.fn(r, args)
	r.release(n)
	return v
}

// definedTest is x is defined.
type definedTest struct {
	pos
	target expr
}

func (e *definedTest) eval(r *run) Value {
	switch t := e.target.(type) {
	case path:
		_, ok := t.lookup(r)
		return ok
	case *macroCall:
		_, ok := t.find(r)
		return ok
	}
	return true
}

// defaultFilter is x|default(y): y when x is missing or empty.
type defaultFilter struct {
	pos
	value, fallback expr
}

func (e *defaultFilter) eval(r *run) Value {
	r.step()
	v := quietly(r, e.value)
	if isEmpty(v) {
		if e.fallback == nil {
			return ""
		}
		return e.fallback.eval(r)
	}
	return v
}

// macroCall is m.f(…), _self.f(…) or f(…) after {% from %}.
type macroCall struct {
	pos
	ref  *importRef // nil: this template
	name string
	args []argument
}

// importRef is one import or from tag: where its template is found at run time.
type importRef struct {
	pos
	template expr // nil: _self
}

func (e *macroCall) find(r *run) (bound *boundMacro, ok bool) {
	t := r.tmpl
	if e.ref != nil && e.ref.template != nil {
		if t = r.imported[e.ref]; t == nil {
			return nil, false
		}
	}
	return r.findMacro(t, e.name)
}

func (e *macroCall) eval(r *run) Value { return r.callMacro(e, false) }

// blockCall is block(name) or block(name, template).
type blockCall struct {
	pos
	name     expr
	template expr
}

func (e *blockCall) lookup(r *run) (Value, bool) {
	if !r.hasBlock(e) {
		return nil, false
	}
	return e.eval(r), true
}

func (e *blockCall) eval(r *run) Value {
	return r.captureOutput(func() { r.showBlock(e) })
}

// parentCall is parent().
type parentCall struct {
	pos
	block string
}

func (e *parentCall) lookup(r *run) (Value, bool) {
	return e.eval(r), true
}

func (e *parentCall) eval(r *run) Value {
	return r.captureOutput(func() { r.showParent(e) })
}

// includeCall is include(…) as a function or a tag.
type includeCall struct {
	pos
	template      expr
	variables     expr
	only          bool
	onlyUnless    expr // with_context as an expression
	ignoreMissing bool
	ignoreIf      expr
}

func (e *includeCall) eval(r *run) Value {
	return r.captureOutput(func() { r.include(e) })
}
