package twig

// visitor walks a compiled template. Statements and expressions are visited before what is in them; when visit
// returns false, the walk does not go in.
type visitor struct {
	stmt func(s stmt) bool
	expr func(e expr) bool
}

func (v *visitor) statements(list []stmt) {
	for _, s := range list {
		v.statement(s)
	}
}

func (v *visitor) statement(s stmt) {
	if v.stmt != nil && !v.stmt(s) {
		return
	}
	switch s := s.(type) {
	case *printStmt:
		v.expression(s.value)
	case *printChoice:
		v.expression(s.cond)
		v.statement(s.then)
		v.statement(s.els)
	case *printFallback:
		v.expression(s.value)
		v.statement(s.els)
	case *ifStmt:
		for i := range s.branches {
			v.expression(s.branches[i].cond)
			v.statements(s.branches[i].body)
		}
		v.statements(s.els)
	case *forStmt:
		v.expression(s.sequence)
		v.statements(s.body)
		v.statements(s.els)
	case *setStmt:
		v.expressions(s.values...)
	case *setCapture:
		v.statements(s.body)
	case *doStmt:
		v.expression(s.value)
	case *applyStmt:
		v.statements(s.body)
		v.expression(s.result)
	case *withStmt:
		v.expression(s.variables)
		v.statements(s.body)
	case *includeStmt:
		v.expression(s.call)
	case *embedStmt:
		v.expression(s.call)
		v.template(s.template)
	case *importStmt:
		v.expression(s.ref.template)
	case *group:
		v.statements(s.body)
	}
}

// template visits the body, the blocks and the macros of a template.
func (v *visitor) template(t *Template) {
	v.expression(t.parent)
	v.statements(t.body)
	for _, name := range t.blockOrder {
		v.statements(t.blocks[name].body)
	}
	for _, name := range sortedKeys(t.macros) {
		v.statements(t.macros[name].body)
	}
}

func (v *visitor) expressions(list ...expr) {
	for _, e := range list {
		v.expression(e)
	}
}

func (v *visitor) arguments(list []argument) {
	for _, a := range list {
		v.expression(a.value)
	}
}

func (v *visitor) expression(e expr) {
	if isNil(e) || v.expr != nil && !v.expr(e) {
		return
	}
	switch e := e.(type) {
	case *attribute:
		v.expression(e.object)
		if !e.isKey {
			v.expression(e.key)
		}
		v.arguments(e.args)
	case *not:
		v.expression(e.operand)
	case *signed:
		v.expression(e.operand)
	case *grouped:
		v.expression(e.expr)
	case *binary:
		v.expressions(e.left, e.right)
	case *conditional:
		v.expressions(e.cond, e.then, e.els)
	case *elvis:
		v.expressions(e.cond, e.els)
	case *coalesce:
		v.expressions(e.left, e.right)
	case *interpolation:
		v.expressions(e.parts...)
	case *arrayLiteral:
		for _, item := range e.items {
			v.expressions(item.key, item.value)
		}
	case *arrow:
		v.expression(e.body)
	case *filterCall:
		v.expressions(e.args...)
		v.expression(e.spread)
	case *functionCall:
		v.expressions(e.args...)
		v.expression(e.spread)
	case *hostCall:
		v.expressions(e.args...)
	case *testCall:
		v.expressions(e.args...)
	case *definedTest:
		v.expression(e.target)
	case *definedConstant:
		v.expression(e.call)
	case *defaultFilter:
		v.expressions(e.value, e.fallback)
	case *macroCall:
		v.arguments(e.args)
	case *blockCall:
		v.expressions(e.name, e.template)
	case *includeCall:
		v.expressions(e.template, e.variables, e.onlyUnless, e.ignoreIf)
	case *escaped:
		v.expression(e.value)
	}
}

// isNil sees through an interface that holds a nil pointer.
func isNil(e expr) bool {
	switch e := e.(type) {
	case nil:
		return true
	case *includeCall:
		return e == nil
	}
	return false
}
