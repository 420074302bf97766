package twig

import "slices"

// binding is one variable that a template made: by set, for, with, a macro's parameter or an arrow function's.
type binding struct {
	name  string
	value Value
}

// scope is the variables in force: the caller's data, which is never changed, under the bindings of the template.
// Later bindings hide earlier ones; leaving a loop or a call truncates them.
type scope struct {
	base *Array // nil inside macros and "only"
	vars []binding
}

func (s *scope) find(name string) int {
	for i := len(s.vars) - 1; i >= 0; i-- {
		if s.vars[i].name == name {
			return i
		}
	}
	return -1
}

// lookup finds a variable: bindings, then the context, then the host's variables and globals.
func (r *run) lookup(name string) (Value, bool) {
	if i := r.scope.find(name); i >= 0 {
		return r.scope.vars[i].value, true
	}
	if r.scope.base != nil {
		if i := r.scope.base.find(Key{Text: name}); i >= 0 {
			return r.scope.base.vals[i], true
		}
	}
	return r.global(name)
}

func (r *run) global(name string) (Value, bool) {
	if v, ok := r.globals[name]; ok {
		return v, true
	}
	v, ok := r.variables[name]
	if !ok {
		if v, ok = r.root.options.Globals[name]; !ok {
			return nil, false
		}
	}
	if r.globals == nil {
		r.globals = map[string]Value{}
	}
	value := r.fromGo(v, 0)
	r.globals[name] = value
	return value, true
}

// assign sets a variable where it is bound, or binds it anew.
func (r *run) assign(name string, v Value) {
	if i := r.scope.find(name); i >= 0 {
		r.scope.vars[i].value = v
		return
	}
	r.bind(name, v)
}

func (r *run) bind(name string, v Value) {
	if len(r.scope.vars) >= 4096 {
		r.fail(CodeLimitMemory, "template makes too many variables")
	}
	r.scope.vars = append(r.scope.vars, binding{name, v})
}

// snapshot is the whole context as an array, in PHP's order: the data first, then what the template added.
func (r *run) snapshot() *Array {
	n := len(r.scope.vars)
	if r.scope.base != nil {
		n += r.scope.base.Len()
	}
	a := r.array(n)
	if b := r.scope.base; b != nil {
		for i, v := range b.vals {
			a.set(b.key(i), v)
		}
	}
	for _, b := range r.scope.vars {
		a.set(Key{Text: b.name}, b.value)
	}
	return a
}

// private gives the code that follows its own copy of the bindings, as PHP's by-value context does; undo restores.
func (r *run) private() (undo scope) {
	undo = r.scope
	r.scope.vars = slices.Clone(r.scope.vars)
	return undo
}
