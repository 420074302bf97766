package twig

import (
	"slices"
	"strings"
)

// expr is a compiled expression.
type expr interface {
	eval(r *run) Value
	at() int32 // byte offset in the source
}

// path is an expression that may lead nowhere: a variable, an attribute, a block. lookup is quiet about it; eval
// records it.
type path interface {
	expr
	lookup(r *run) (Value, bool)
}

// pos is the place of a node in its source.
type pos int32

func (p pos) at() int32 { return int32(p) }

// operator is a binary operator that evaluates both sides.
type operator uint8

const (
	opOr operator = iota
	opXor
	opAnd
	opBitOr
	opBitXor
	opBitAnd
	opEqual
	opNotEqual
	opSpaceship
	opLess
	opGreater
	opLessEqual
	opGreaterEqual
	opNotIn
	opIn
	opMatches
	opStartsWith
	opEndsWith
	opHasSome
	opHasEvery
	opRange
	opAdd
	opSub
	opConcat
	opMul
	opDiv
	opFloorDiv
	opMod
	opPow
	opCoalesce
	opIs
	opIsNot
)

var operatorNames = [...]string{
	"or", "xor", "and", "b-or", "b-xor", "b-and", "==", "!=", "<=>", "<", ">", "<=", ">=", "not in", "in", "matches",
	"starts with", "ends with", "has some", "has every", "..", "+", "-", "~", "*", "/", "//", "%", "**", "??", "is", "is not",
}

func (o operator) String() string { return operatorNames[o] }

// constant is a literal.
type constant struct {
	pos
	v Value
}

func (e *constant) eval(*run) Value { return e.v }

// variable is a name.
type variable struct {
	pos
	name string
}

func (e *variable) lookup(r *run) (Value, bool) {
	v, ok := r.lookup(e.name)
	if l, isLoop := v.(*loopState); isLoop {
		v = l.array()
	}
	return v, ok
}

func (e *variable) eval(r *run) Value {
	v, ok := e.lookup(r)
	if !ok {
		r.miss(e.at(), e.name)
	}
	return v
}

// contextVariable is _context: all variables as a mapping.
type contextVariable struct{ pos }

func (e *contextVariable) eval(r *run) Value { return r.snapshot() }

// selfVariable is _self: the template's name.
type selfVariable struct{ pos }

func (e *selfVariable) eval(r *run) Value { return r.tmpl.src.name }

// attribute is a.b, a.(b), a[b] or a.b(…).
type attribute struct {
	pos
	object expr
	key    expr
	fixed  Key // the key, when constant
	isKey  bool
	call   bool // written with arguments
	args   []argument
	path   string // the whole path as written, for unresolved variables
}

// found is an element of a list of identities on its way through a path: it counts as its identifier at the end.
type found struct{ element *Array }

func (e *attribute) lookup(r *run) (Value, bool) {
	v, ok := e.follow(r)
	if f, isIdentity := v.(found); isIdentity {
		v, ok = f.element.Get(Key{Text: "identifier"})
	}
	return v, ok
}

func (e *attribute) eval(r *run) Value {
	v, ok := e.lookup(r)
	if !ok {
		r.at = e.at()
		r.miss(pathStart(e), e.path)
	}
	return v
}

// follow is lookup for the next step of a path.
func (e *attribute) follow(r *run) (Value, bool) {
	var object Value
	var ok bool
	switch o := e.object.(type) {
	case *attribute:
		if object, ok = o.follow(r); !ok {
			return nil, false
		}
	case *variable:
		if object, ok = r.lookup(o.name); !ok {
			return nil, false
		}
	case path:
		if object, ok = o.lookup(r); !ok {
			return nil, false
		}
	default:
		object = o.eval(r)
	}
	if f, isIdentity := object.(found); isIdentity {
		object = f.element
	}
	switch o := object.(type) {
	case *Array:
		k := e.fixed
		if !e.isKey {
			r.at = e.at()
			k = r.arrayKey(e.key.eval(r))
		}
		if i := o.find(k); i >= 0 {
			return o.vals[i], true
		}
		if !k.IsInt && k.Text != "" {
			if element := o.identity(k.Text); element != nil {
				return found{element}, true
			}
		}
	case *date, *interval:
		r.at = e.at()
		return r.member(o, e)
	case *loopState:
		return o.member(e.name(r))
	}
	return nil, false
}

// name is the attribute's name, for the methods of dates.
func (e *attribute) name(r *run) string {
	if e.isKey {
		return e.fixed.String()
	}
	return r.text(e.key.eval(r))
}

// argument is one argument of a call: positional, named or spread.
type argument struct {
	pos
	name   string
	value  expr
	spread bool
}

// not, negative and positive are the unary operators.
type not struct {
	pos
	operand expr
}

func (e *not) eval(r *run) Value { return !truthy(e.operand.eval(r)) }

type signed struct {
	pos
	operand expr
	minus   bool
}

func (e *signed) eval(r *run) Value {
	v := e.operand.eval(r)
	r.at = e.at()
	if e.minus {
		return r.negate(v)
	}
	return r.number(v, "+")
}

// binary is an operator with two sides.
type binary struct {
	pos
	op          operator
	left, right expr
	pattern     *pattern // "matches" with a constant
}

func (e *binary) eval(r *run) Value {
	r.step()
	a := e.left.eval(r)
	switch e.op {
	case opAnd:
		return truthy(a) && truthy(e.right.eval(r))
	case opOr:
		return truthy(a) || truthy(e.right.eval(r))
	}
	b := e.right.eval(r)
	r.at = e.at()
	switch e.op {
	case opXor:
		return truthy(a) != truthy(b)
	case opBitOr, opBitXor, opBitAnd:
		if x, ok := plainText(a); ok {
			if y, ok := plainText(b); ok {
				return bitwiseText(e.op, x, y)
			}
		}
	}
	switch e.op {
	case opBitOr:
		return toInt(r.number(a, "b-or")) | toInt(r.number(b, "b-or"))
	case opBitXor:
		return toInt(r.number(a, "b-xor")) ^ toInt(r.number(b, "b-xor"))
	case opBitAnd:
		return toInt(r.number(a, "b-and")) & toInt(r.number(b, "b-and"))
	case opEqual:
		return r.equal(a, b)
	case opNotEqual:
		return !r.equal(a, b)
	case opSpaceship:
		return int64(min(r.compare(a, b), 1))
	case opLess:
		return r.compare(a, b) == -1
	case opLessEqual:
		return r.compare(a, b) <= 0
	case opGreater:
		return r.greater(a, b)
	case opGreaterEqual:
		return r.greater(a, b) || r.compare(a, b) == 0
	case opIn:
		return r.contains(a, b)
	case opNotIn:
		return !r.contains(a, b)
	case opMatches:
		if r.matches(a, b, e.pattern) { // preg_match counts
			return int64(1)
		}
		return int64(0)
	case opStartsWith, opEndsWith:
		s, ok := plainText(a)
		affix, okB := plainText(b)
		if !ok || !okB {
			return false
		}
		if e.op == opStartsWith {
			return strings.HasPrefix(s, affix)
		}
		return strings.HasSuffix(s, affix)
	case opHasSome, opHasEvery:
		return r.has(a, b, e.op == opHasEvery)
	case opRange:
		return r.rangeOf(a, b, int64(1))
	case opConcat:
		x, y := r.text(a), r.text(b)
		r.charge(len(x) + len(y))
		return x + y
	case opFloorDiv:
		return r.floorDivide(a, b)
	case opMod:
		return r.modulo(a, b)
	}
	return r.arithmetic(e.op, a, b)
}

// greater is >, which PHP reads as < with the sides swapped; it differs for what cannot be compared.
func (r *run) greater(a, b Value) bool { return r.compare(b, a) == -1 }

// has is "has some" and "has every".
func (r *run) has(list, arrow Value, every bool) bool {
	a, ok := list.(*Array)
	if !ok {
		r.fail(CodeType, `the left side of "has" must be a sequence or a mapping, got %s`, typeName(list))
	}
	for i, v := range a.vals {
		if truthy(r.invoke(arrow, v, a.key(i).value())) != every {
			return !every
		}
	}
	return every
}

// conditional is a ? b : c.
type conditional struct {
	pos
	cond, then, els expr
}

func (e *conditional) eval(r *run) Value {
	if truthy(e.cond.eval(r)) {
		return e.then.eval(r)
	}
	return e.els.eval(r)
}

// elvis is a ?: b; a may be missing.
type elvis struct {
	pos
	cond, els expr
}

func (e *elvis) eval(r *run) Value {
	if v := quietly(r, e.cond); truthy(v) {
		return v
	}
	return e.els.eval(r)
}

// coalesce is a ?? b; a may be missing or null.
type coalesce struct {
	pos
	left, right expr
}

func (e *coalesce) eval(r *run) Value {
	if v := quietly(r, e.left); v != nil {
		return v
	}
	return e.right.eval(r)
}

// quietly evaluates without recording a missing variable.
func quietly(r *run, e expr) Value {
	if p, ok := e.(path); ok {
		v, _ := p.lookup(r)
		return v
	}
	return e.eval(r)
}

// interpolation is a string with expressions in it.
type interpolation struct {
	pos
	parts []expr
}

func (e *interpolation) eval(r *run) Value {
	var b strings.Builder
	for _, p := range e.parts {
		s := r.text(p.eval(r))
		r.charge(len(s))
		b.WriteString(s)
	}
	return b.String()
}

// arrayLiteral is […] or {…}.
type arrayLiteral struct {
	pos
	mapping bool
	items   []arrayItem
}

type arrayItem struct {
	key    expr // nil in a sequence
	value  expr
	spread bool
}

func (e *arrayLiteral) eval(r *run) Value {
	a := r.array(len(e.items))
	for _, item := range e.items {
		v := item.value.eval(r)
		switch {
		case item.spread:
			r.at = item.value.at()
			s, ok := v.(*Array)
			if !ok {
				r.fail(CodeType, "only a sequence or a mapping can be spread, got %s", typeName(v))
			}
			r.charge(s.Len() * arrayElementBytes)
			for i, e := range s.vals {
				if k := s.key(i); k.IsInt {
					a.add(e)
				} else {
					a.set(k, e)
				}
			}
		case item.key != nil:
			r.at = item.key.at()
			a.set(r.mappingKey(item.key), v)
		default:
			a.add(v)
		}
	}
	return a
}

// arrow is an arrow function as written; closure is its value.
type arrow struct {
	pos
	params  []string
	body    expr
	escapes bool // it may outlive the expression it stands in
}

type closure struct {
	arrow *arrow
	tmpl  *Template
	scope scope // its own copy of the variables, when it escapes
}

func (e *arrow) eval(r *run) Value {
	c := &closure{arrow: e, tmpl: r.tmpl, scope: r.scope}
	if e.escapes {
		r.charge(len(c.scope.vars) * arrayElementBytes)
		c.scope.vars = slices.Clone(c.scope.vars)
	}
	return c
}

// invoke calls an arrow function.
func (r *run) invoke(f Value, args ...Value) Value {
	c, ok := f.(*closure)
	if !ok {
		r.fail(CodeType, "an arrow function is needed here, got %s", typeName(f))
	}
	r.step()
	r.enter()
	scope, tmpl := r.scope, r.tmpl
	if c.arrow.escapes {
		r.scope, r.tmpl = c.scope, c.tmpl
		r.scope.vars = r.scope.vars[:len(r.scope.vars):len(r.scope.vars)]
	}
	for i, name := range c.arrow.params {
		var v Value
		if i < len(args) {
			v = args[i]
		}
		r.bind(name, v)
	}
	v := c.arrow.body.eval(r)
	if c.arrow.escapes {
		r.scope, r.tmpl = scope, tmpl
	} else {
		r.scope.vars = r.scope.vars[:len(scope.vars)]
	}
	r.leave()
	return v
}

// pathStart is where a path begins: the place of its variable.
func pathStart(e expr) int32 {
	for {
		a, ok := e.(*attribute)
		if !ok {
			return e.at()
		}
		e = a.object
	}
}
