package twig

import (
	"strings"
)

// Path is a variable that a template's source names: what it may ask the context for.
type Path struct {
	Name     string `json:"name"`               // profile.tier.name; an element of a list is items[].sku
	Line     int    `json:"line"`               // 1-based line of its first use
	Column   int    `json:"column"`             // 1-based character in the line
	Template string `json:"template,omitempty"` // the partial it stands in; "" for the template itself
	Optional bool   `json:"optional,omitempty"` // every use of it copes with its absence (??, ?:, default, is defined)

	used usage
}

// usage is what a path is used as, for making up contexts.
type usage struct {
	list, number, date, boolean, text, mapping bool
	equals                                     []Value // constants that it is compared with
}

// Call is a call of a host function whose arguments are constants, as secret('klaviyo_private_key').
type Call struct {
	Name     string `json:"name"`
	Args     []any  `json:"args"`               // nil for an argument that is no constant
	Line     int    `json:"line"`               //
	Column   int    `json:"column"`             //
	Template string `json:"template,omitempty"` //
}

// Paths lists the variables that the template, and the partials it names, may ask the context for, in the order of
// their first use. Variables that the template makes itself are not among them: what a loop variable or an alias
// stands for is named instead. Macros see no context and are left out.
func (t *Template) Paths() []Path {
	f := &pathFinder{byName: map[string]int{}, seen: map[*Template]bool{}}
	f.template(t)
	kept := f.paths[:0]
	for _, p := range f.paths {
		if p.Line > 0 {
			kept = append(kept, p)
		}
	}
	return kept
}

// Functions lists the calls of host functions in the template and in the partials it names.
func (t *Template) Functions() []Call {
	var calls []Call
	t.eachTemplate(func(t *Template) {
		v := visitor{expr: func(e expr) bool {
			if h, ok := e.(*hostCall); ok {
				c := Call{Name: h.declared.Name, Template: t.partial}
				c.Line, c.Column = t.src.position(h.at())
				for _, a := range h.args {
					if k, ok := a.(*constant); ok {
						c.Args = append(c.Args, toGo(k.v))
					} else if a != nil {
						c.Args = append(c.Args, nil)
					}
				}
				calls = append(calls, c)
			}
			return true
		}}
		v.template(t)
	})
	return calls
}

// PartialNames lists the templates that this one names by a constant: by include, embed, extends, use, import, from
// or source, in itself and in the partials it names.
func (t *Template) PartialNames() []string {
	var names []string
	known := map[string]bool{}
	t.eachTemplate(func(t *Template) {
		for _, name := range t.constantPartials() {
			if !known[name] {
				known[name] = true
				names = append(names, name)
			}
		}
	})
	return names
}

// eachTemplate calls f for the template and every partial that it names, each once.
func (t *Template) eachTemplate(f func(*Template)) {
	seen := map[*Template]bool{}
	var visit func(t *Template)
	visit = func(t *Template) {
		if t == nil || seen[t] || len(seen) > 1000 {
			return
		}
		seen[t] = true
		f(t)
		for _, name := range t.constantPartials() {
			if p, err := t.loader.load(name, nil); err == nil {
				visit(p)
			}
		}
	}
	visit(t)
}

func (t *Template) constantPartials() []string {
	var names []string
	add := func(e expr) {
		c, ok := e.(*constant)
		if !ok {
			return
		}
		if s, ok := c.v.(string); ok {
			names = append(names, s)
		} else if a, ok := c.v.(*Array); ok {
			for _, v := range a.vals {
				if s, ok := v.(string); ok {
					names = append(names, s)
				}
			}
		}
	}
	v := visitor{
		stmt: func(s stmt) bool {
			switch s := s.(type) {
			case *importStmt:
				add(s.ref.template)
			case *embedStmt:
				add(s.call.template)
			}
			return true
		},
		expr: func(e expr) bool {
			switch e := e.(type) {
			case *includeCall:
				add(e.template)
			case *blockCall:
				add(e.template)
			case *functionCall:
				if e.function == functions["source"] {
					add(e.args[0])
				}
			}
			return true
		},
	}
	add(t.parent)
	for _, tr := range t.traits {
		names = append(names, tr.template.src.name)
	}
	v.template(t)
	return names
}

// pathFinder collects paths. names says what the names that the template made stand for: a path, or "" for a value
// of its own.
type pathFinder struct {
	paths    []Path
	byName   map[string]int
	names    []map[string]string
	seen     map[*Template]bool
	tmpl     *Template
	optional bool
	visitor  visitor
}

func (f *pathFinder) template(t *Template) {
	if f.seen[t] || len(f.seen) > 200 {
		return
	}
	f.seen[t] = true
	outer, outerVisitor := f.tmpl, f.visitor
	f.tmpl = t
	f.names = append(f.names, map[string]string{})
	f.visitor = visitor{stmt: f.statement, expr: f.expression}
	f.visitor.expression(t.parent)
	f.visitor.statements(t.body)
	for _, name := range t.blockOrder {
		f.visitor.statements(t.blocks[name].body)
	}
	f.names = f.names[:len(f.names)-1]
	f.tmpl, f.visitor = outer, outerVisitor
}

func (f *pathFinder) bind(name, path string) { f.names[len(f.names)-1][name] = path }

func (f *pathFinder) scoped(do func()) {
	f.names = append(f.names, map[string]string{})
	do()
	f.names = f.names[:len(f.names)-1]
}

func (f *pathFinder) statement(s stmt) bool {
	v := &f.visitor
	switch s := s.(type) {
	case *forStmt:
		v.expression(s.sequence)
		path := f.pathOf(s.sequence)
		f.note(path, func(u *usage) { u.list = true })
		f.scoped(func() {
			f.bind("loop", "")
			if s.key != "" {
				f.bind(s.key, "")
			}
			if path != "" {
				path += "[]"
			}
			f.bind(s.value, path)
			v.statements(s.body)
		})
		v.statements(s.els)
		return false
	case *setStmt:
		v.expressions(s.values...)
		for i, name := range s.names {
			f.bind(name, f.pathOf(s.values[i]))
		}
		return false
	case *setCapture:
		v.statements(s.body)
		f.bind(s.name, "")
		return false
	case *withStmt:
		v.expression(s.variables)
		f.scoped(func() {
			if l, ok := s.variables.(*arrayLiteral); ok {
				for _, item := range l.items {
					if k, ok := item.key.(*constant); ok {
						name, _ := k.v.(string)
						f.bind(name, f.pathOf(item.value))
					}
				}
			}
			v.statements(s.body)
		})
		return false
	case *printFallback:
		f.quiet(s.value)
		v.statement(s.els)
		return false
	case *ifStmt:
		for i := range s.branches {
			f.condition(s.branches[i].cond)
		}
	case *printChoice:
		f.condition(s.cond)
	}
	return true
}

// condition notes paths that are asked for being true.
func (f *pathFinder) condition(e expr) {
	switch e := e.(type) {
	case *not:
		f.condition(e.operand)
	case *binary:
		if e.op == opAnd || e.op == opOr {
			f.condition(e.left)
			f.condition(e.right)
		}
	default:
		f.note(f.pathOf(e), func(u *usage) { u.boolean = true })
	}
}

// quiet visits an expression whose absence the template copes with.
func (f *pathFinder) quiet(e expr) {
	outer := f.optional
	if _, ok := e.(path); ok {
		f.optional = true
	}
	f.visitor.expression(e)
	f.optional = outer
}

func (f *pathFinder) expression(e expr) bool {
	v := &f.visitor
	switch e := e.(type) {
	case *variable, *attribute:
		f.add(e)
		if a, ok := e.(*attribute); ok {
			f.inner(a)
		}
		return false
	case *elvis:
		f.quiet(e.cond)
		v.expression(e.els)
		return false
	case *coalesce:
		f.quiet(e.left)
		v.expression(e.right)
		return false
	case *defaultFilter:
		f.quiet(e.value)
		v.expression(e.fallback)
		return false
	case *definedTest:
		f.quiet(e.target)
		return false
	case *arrow:
		f.scoped(func() {
			for _, p := range e.params {
				f.bind(p, "")
			}
			v.expression(e.body)
		})
		return false
	case *filterCall:
		return f.filter(e)
	case *binary:
		f.compared(e.left, e.right, e.op)
		f.compared(e.right, e.left, e.op)
	case *conditional:
		f.condition(e.cond)
	case *includeCall:
		f.included(e)
	}
	return true
}

// inner visits the keys and arguments inside a path, which are expressions of their own.
func (f *pathFinder) inner(a *attribute) {
	outer := f.optional
	f.optional = false
	for {
		if !a.isKey {
			f.visitor.expression(a.key)
		}
		f.visitor.arguments(a.args)
		next, ok := a.object.(*attribute)
		if !ok {
			if _, isVariable := a.object.(*variable); !isVariable {
				f.visitor.expression(a.object)
			}
			break
		}
		a = next
	}
	f.optional = outer
}

// filter notes what the input of a filter is used as, and lets arrow functions see the elements.
func (f *pathFinder) filter(e *filterCall) bool {
	input := f.pathOf(e.args[0])
	f.note(input, func(u *usage) {
		switch e.filter.name {
		case "number_format", "round", "abs":
			u.number = true
		case "date", "date_modify":
			u.date = true
		case "map", "filter", "reduce", "find", "sort", "column", "batch":
			u.list = true
		case "merge", "keys":
			u.mapping = true
		case "upper", "lower", "trim", "replace", "split", "capitalize", "title":
			u.text = true
		}
	})
	for _, a := range e.args {
		fn, ok := a.(*arrow)
		if !ok {
			f.visitor.expression(a)
			continue
		}
		f.scoped(func() {
			for i, p := range fn.params {
				element := i == 0 && e.filter.name != "reduce" || i == 1 && e.filter.name == "reduce" || e.filter.name == "sort"
				if element && input != "" {
					f.bind(p, input+"[]")
				} else {
					f.bind(p, "")
				}
			}
			f.visitor.expression(fn.body)
		})
	}
	f.visitor.expression(e.spread)
	return false
}

func (f *pathFinder) compared(a, b expr, op operator) {
	path := f.pathOf(a)
	if path == "" {
		return
	}
	c, isConstant := b.(*constant)
	f.note(path, func(u *usage) {
		switch op {
		case opEqual, opNotEqual:
			if isConstant {
				u.equals = append(u.equals, c.v)
			}
		case opIn, opNotIn:
			if list, ok := c.value().(*Array); ok && list.Len() > 0 {
				u.equals = append(u.equals, list.vals[0])
			}
		case opLess, opGreater, opLessEqual, opGreaterEqual, opAdd, opSub, opMul, opDiv, opMod, opPow, opFloorDiv:
			if s, ok := c.value().(string); !ok || isJSONNumber(s) {
				u.number = true
			}
		}
	})
}

func (e *constant) value() Value {
	if e == nil {
		return nil
	}
	return e.v
}

// included visits a partial that sees this template's variables.
func (f *pathFinder) included(e *includeCall) {
	c, ok := e.template.(*constant)
	if !ok || e.only || e.onlyUnless != nil {
		return
	}
	name, _ := c.v.(string)
	if t, err := f.tmpl.loader.load(name, nil); err == nil && t != nil {
		f.template(t)
	}
}

// pathOf is the path that an expression stands for, "" when it is no path into the context.
func (f *pathFinder) pathOf(e expr) string {
	switch e := e.(type) {
	case *variable:
		for i := len(f.names) - 1; i >= 0; i-- {
			if path, ok := f.names[i][e.name]; ok {
				return path
			}
		}
		if e.name == "loop" || e.name == "_parent" || e.name == "varargs" {
			return ""
		}
		return e.name
	case *attribute:
		object := f.pathOf(e.object)
		switch {
		case object == "":
			return ""
		case !e.isKey || e.fixed.IsInt:
			return object + "[]"
		}
		return object + "." + e.fixed.Text
	case *defaultFilter:
		return f.pathOf(e.value)
	case *coalesce:
		return f.pathOf(e.left)
	case *filterCall:
		switch e.filter.name {
		case "filter", "sort", "slice", "reverse", "default":
			return f.pathOf(e.args[0])
		case "first", "last":
			if p := f.pathOf(e.args[0]); p != "" {
				f.note(p, func(u *usage) { u.list = true })
				return p + "[]"
			}
		}
	}
	return ""
}

// add records a path where it is used.
func (f *pathFinder) add(e expr) {
	name := f.pathOf(e)
	if name == "" || strings.HasSuffix(name, "[]") && isLocal(e) {
		return
	}
	if i, ok := f.byName[name]; ok {
		if f.paths[i].Line == 0 { // noted before it was visited
			f.paths[i].Line, f.paths[i].Column = f.tmpl.src.position(pathStart(e))
			f.paths[i].Optional = f.optional
		}
		f.paths[i].Optional = f.paths[i].Optional && f.optional
		return
	}
	p := Path{Name: name, Optional: f.optional, Template: f.tmpl.partial}
	p.Line, p.Column = f.tmpl.src.position(pathStart(e))
	f.byName[name] = len(f.paths)
	f.paths = append(f.paths, p)
}

// isLocal is a loop variable alone: its list is the path.
func isLocal(e expr) bool {
	_, ok := e.(*variable)
	return ok
}

func (f *pathFinder) note(path string, set func(*usage)) {
	if i, ok := f.byName[path]; ok && path != "" {
		set(&f.paths[i].used)
		return
	}
	if path == "" {
		return
	}
	// used before it is recorded: record it when its turn comes, and keep the use
	f.byName[path] = len(f.paths)
	f.paths = append(f.paths, Path{Name: path, Optional: f.optional, Template: f.tmpl.partial, Line: 0})
	set(&f.paths[len(f.paths)-1].used)
}

// Check compares the template's paths with a sample context, without rendering: it lists those that the sample
// lacks, on whatever branch they stand. Optional paths are exempt, and so is what an empty list would hold.
func (t *Template) Check(sample *Context) []Unresolved {
	var missing []Unresolved
	for _, p := range t.Paths() {
		if p.Optional || sample != nil && hasPath(sample.root, strings.Split(strings.ReplaceAll(p.Name, "[]", ".[]"), ".")) {
			continue
		}
		if root, _, _ := strings.Cut(strings.ReplaceAll(p.Name, "[]", "."), "."); t.options.Globals[root] != nil {
			continue
		}
		missing = append(missing, Unresolved{Path: p.Name, Line: p.Line, Column: p.Column, Template: p.Template})
	}
	return missing
}

func hasPath(v Value, segments []string) bool {
	if len(segments) == 0 {
		return true
	}
	a, ok := v.(*Array)
	if !ok {
		_, isText := v.(string)
		return isText && segments[0] == "[]"
	}
	if segments[0] == "[]" {
		if a.Len() == 0 {
			return true
		}
		for _, e := range a.vals {
			if hasPath(e, segments[1:]) {
				return true
			}
		}
		return false
	}
	if e, ok := a.Get(stringKey(segments[0])); ok {
		return hasPath(e, segments[1:])
	}
	if element := a.identity(segments[0]); element != nil {
		return len(segments) == 1 || hasPath(element, segments[1:])
	}
	return a.Len() == 0 && !a.object
}
