package twig

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// binding strength of the operators, as in Twig.
type binaryOperator struct {
	op         operator
	precedence int
}

var binaryOperators = map[string]binaryOperator{
	"or": {opOr, 10}, "xor": {opXor, 12}, "and": {opAnd, 15}, "b-or": {opBitOr, 16}, "b-xor": {opBitXor, 17}, "b-and": {opBitAnd, 18},
	"==": {opEqual, 20}, "!=": {opNotEqual, 20}, "<=>": {opSpaceship, 20}, "<": {opLess, 20}, ">": {opGreater, 20},
	"<=": {opLessEqual, 20}, ">=": {opGreaterEqual, 20}, "not in": {opNotIn, 20}, "in": {opIn, 20}, "matches": {opMatches, 20},
	"starts with": {opStartsWith, 20}, "ends with": {opEndsWith, 20}, "has some": {opHasSome, 20}, "has every": {opHasEvery, 20},
	"..": {opRange, 25}, "+": {opAdd, 30}, "-": {opSub, 30}, "~": {opConcat, 40}, "*": {opMul, 60}, "/": {opDiv, 60},
	"//": {opFloorDiv, 60}, "%": {opMod, 60}, "is": {opIs, 100}, "is not": {opIsNot, 100},
	"**": {opPow, powPrecedence}, "??": {opCoalesce, 300},
}

const (
	notPrecedence  = 50
	powPrecedence  = 200
	signPrecedence = 500
)

// expression parses a whole expression.
func (p *parser) expression() expr { return p.operation(0) }

// operation parses operators that bind at least as strongly as precedence.
func (p *parser) operation(precedence int) expr {
	p.deeper(p.cur().start)
	depth := p.depth
	defer func() { p.depth = depth - 1 }()
	if a := p.arrow(); a != nil {
		return a
	}
	left := p.unary()
	for p.cur().kind == tokOperator {
		t := *p.cur()
		o, ok := binaryOperators[t.text]
		if !ok || o.precedence < precedence {
			break
		}
		p.deeper(t.start)
		p.next()
		switch o.op {
		case opIs, opIsNot:
			left = p.test(left)
			if o.op == opIsNot {
				left = &not{pos(t.start), left}
			}
		case opPow:
			left = power(left, p.operation(o.precedence), t.start)
		case opCoalesce:
			if !mayBeMissing(left) {
				failHint(CodeSyntax, t.start, "put the filter behind it: (value ?? other)|filter; or use |default", `"??" works with variables, attributes, blocks, macros and constants`)
			}
			left = &coalesce{pos(left.at()), left, p.operation(o.precedence)}
		default:
			left = p.binary(o.op, left, p.operation(o.precedence+1), t.start)
		}
	}
	if precedence == 0 {
		return p.conditional(left)
	}
	return left
}

// power builds a ** b. A sign before it applies to the result: -2 ** 2 is -4.
func power(left, right expr, at int32) expr {
	if s, ok := left.(*signed); ok {
		return &signed{s.pos, power(s.operand, right, at), s.minus}
	}
	return &binary{pos: pos(at), op: opPow, left: left, right: right}
}

func (p *parser) binary(op operator, left, right expr, at int32) expr {
	b := &binary{pos: pos(at), op: op, left: left, right: right}
	if c, ok := right.(*constant); ok && op == opMatches {
		if s, ok := c.v.(string); ok {
			pattern, err := compilePattern(s)
			if err != nil {
				fail(CodeRegex, right.at(), "%s", err)
			}
			b.pattern = pattern
		}
	}
	return b
}

// grouped is an expression in parentheses: signs stay inside.
type grouped struct{ expr }

func (p *parser) conditional(cond expr) expr {
	for p.cur().punctuation("?") {
		at := p.next().start
		p.deeper(at)
		if p.acceptPunctuation(":") {
			cond = &elvis{pos(cond.at()), cond, p.expression()}
			continue
		}
		then := p.expression()
		var els expr = &constant{pos(p.cur().start), ""}
		if p.acceptPunctuation(":") {
			els = p.expression()
		}
		cond = &conditional{pos(cond.at()), cond, then, els}
	}
	return cond
}

// arrow parses x => … or (x, y) => …, and nothing when no arrow function stands here.
func (p *parser) arrow() expr {
	t := *p.cur()
	if t.kind == tokName {
		if p.peek().kind != tokArrow {
			return nil
		}
		p.next()
		p.next()
		return &arrow{pos: pos(t.start), params: []string{p.target(t)}, body: p.expression()}
	}
	if !t.punctuation("(") {
		return nil
	}
	i := p.i + 1
	var names []token
	for {
		if i >= len(p.tokens) {
			return nil
		}
		switch {
		case p.tokens[i].kind == tokName:
			names = append(names, p.tokens[i])
			i++
			if p.tokens[i].punctuation(",") {
				i++
				continue
			}
		}
		break
	}
	if i+1 >= len(p.tokens) || !p.tokens[i].punctuation(")") || p.tokens[i+1].kind != tokArrow {
		return nil
	}
	if len(names) == 0 {
		fail(CodeSyntax, p.tokens[i].start, "an arrow function needs a parameter: v => …")
	}
	a := &arrow{pos: pos(t.start)}
	for _, n := range names {
		a.params = append(a.params, p.target(n))
	}
	p.i = i + 2
	a.body = p.expression()
	return a
}

func (p *parser) unary() expr {
	t := *p.cur()
	if t.kind == tokOperator {
		switch t.text {
		case "not":
			if k := p.peek().kind; k == tokPrintEnd || k == tokTagEnd {
				break // a variable named "not"
			}
			p.next()
			return p.postfix(&not{pos(t.start), p.operation(notPrecedence)})
		case "-", "+":
			p.next()
			return p.postfix(&signed{pos(t.start), p.operation(signPrecedence), t.text == "-"})
		}
	}
	if t.punctuation("(") {
		p.next()
		e := p.expression()
		p.expectPunctuation(")", " to close the parenthesis")
		return p.postfix(parenthesised(e))
	}
	return p.postfix(p.primary())
}

// parenthesised keeps (-2) ** 2 apart from -2 ** 2.
func parenthesised(e expr) expr {
	if _, ok := e.(*signed); ok {
		return &grouped{e}
	}
	return e
}

func (p *parser) primary() expr {
	t := p.next()
	switch t.kind {
	case tokName:
		return p.named(t)
	case tokNumber:
		return &constant{pos(t.start), parseNumber(t.text)}
	case tokString, tokInterpolationStart:
		p.i--
		return p.string()
	case tokPunctuation:
		switch t.text {
		case "[":
			return p.sequence(t)
		case "{":
			return p.mapping(t)
		}
	case tokOperator:
		if isNameStart(t.text[0]) && !strings.ContainsAny(t.text, " -") {
			return p.named(t) // a variable whose name is an operator elsewhere
		}
	}
	p.i--
	if t.kind == tokEOF {
		p.i = len(p.tokens) - 1
	}
	p.unexpected("a value")
	return nil
}

// parseNumber reads a literal; integers that do not fit become floats, but for the first that PHP clamps.
func parseNumber(s string) Value {
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return i
	}
	f, _ := strconv.ParseFloat(s, 64) // out of range gives ±Inf
	if digits(s, 0) == len(s) && f <= math.MaxInt64 {
		return int64(math.MaxInt64)
	}
	return f
}

func (p *parser) named(t token) expr {
	switch strings.ToLower(t.text) {
	case "true":
		return &constant{pos(t.start), true}
	case "false":
		return &constant{pos(t.start), false}
	case "null", "none":
		return &constant{pos(t.start), nil}
	}
	if p.cur().punctuation("(") {
		return p.call(t)
	}
	switch t.text {
	case "_self":
		return &selfVariable{pos(t.start)}
	case "_context":
		p.sees("everything")
		return &contextVariable{pos(t.start)}
	case "_charset":
		return &constant{pos(t.start), "UTF-8"}
	case "loop":
		p.sees("loop")
	case "_parent":
		p.sees("everything")
	}
	return &variable{pos: pos(t.start), name: t.text}
}

// string parses a string literal and the interpolations in it.
func (p *parser) string() expr {
	at := p.cur().start
	var parts []expr
	expectString := true
	for {
		switch t := p.cur(); {
		case t.kind == tokString && expectString:
			parts = append(parts, &constant{pos(t.start), t.text})
			p.next()
			expectString = false
		case t.kind == tokInterpolationStart:
			p.next()
			parts = append(parts, p.expression())
			p.expect(tokInterpolationEnd, `"}" to close the interpolation`)
			expectString = true
		default:
			if len(parts) == 1 {
				return parts[0]
			}
			kept := parts[:0]
			for _, e := range parts {
				if c, ok := e.(*constant); !ok || c.v != "" {
					kept = append(kept, e)
				}
			}
			if len(kept) == 1 { // "#{x}" is x
				return kept[0]
			}
			return &interpolation{pos(at), kept}
		}
	}
}

func (p *parser) sequence(open token) expr {
	a := &arrayLiteral{pos: pos(open.start)}
	for !p.cur().punctuation("]") {
		if len(a.items) > 0 {
			p.expectPunctuation(",", " between the elements of a sequence")
			if p.cur().punctuation("]") {
				break
			}
		}
		if p.cur().kind == tokSpread {
			p.next()
			a.items = append(a.items, arrayItem{value: p.expression(), spread: true})
			continue
		}
		a.items = append(a.items, arrayItem{value: escaping(p.expression())})
	}
	p.next()
	return p.folded(a)
}

func (p *parser) mapping(open token) expr {
	a := &arrayLiteral{pos: pos(open.start), mapping: true}
	for !p.cur().punctuation("}") {
		if len(a.items) > 0 {
			p.expectPunctuation(",", " between the elements of a mapping")
			if p.cur().punctuation("}") {
				break
			}
		}
		t := *p.cur()
		var key expr
		switch {
		case t.kind == tokSpread:
			p.next()
			a.items = append(a.items, arrayItem{value: p.expression(), spread: true})
			continue
		case t.kind == tokName || t.kind == tokOperator && isNameStart(t.text[0]) && !strings.Contains(t.text, " "):
			p.next()
			key = &constant{pos(t.start), t.text}
			if k := p.cur(); k.punctuation(",") || k.punctuation("}") { // {a} is {a: a}
				a.items = append(a.items, arrayItem{key: key, value: p.named(t)})
				continue
			}
		case t.kind == tokString || t.kind == tokInterpolationStart:
			key = p.string()
			if _, ok := key.(*constant); !ok {
				fail(CodeSyntax, t.start, "a key with #{…} needs parentheses: {(\"…\"): value}")
			}
		case t.kind == tokNumber:
			p.next()
			key = &constant{pos(t.start), parseNumber(t.text)}
		case t.punctuation("("):
			p.next()
			key = p.expression()
			p.expectPunctuation(")", " after the key")
		default:
			p.unexpected("the key of a mapping: a name, a string, a number, or an expression in parentheses")
		}
		p.expectPunctuation(":", " after the key of a mapping")
		a.items = append(a.items, arrayItem{key: key, value: escaping(p.expression())})
	}
	p.next()
	return p.folded(a)
}

// folded evaluates a literal of constants once. Literals made of variables stay.
func (p *parser) folded(a *arrayLiteral) expr {
	for _, item := range a.items {
		_, isConstant := item.value.(*constant)
		if _, ok := item.key.(*constant); item.key != nil && !ok || !isConstant || item.spread || len(a.items) > 500 {
			return a
		}
	}
	r := run{root: p.tmpl, tmpl: p.tmpl, limits: &p.tmpl.limits}
	return &constant{a.pos, a.eval(&r)}
}

// postfix parses .attribute, [key], |filter and calls behind an expression.
func (p *parser) postfix(e expr) expr {
	depth := p.depth
	defer func() { p.depth = depth }()
	for {
		t := *p.cur()
		if t.kind != tokPunctuation {
			return e
		}
		switch t.text {
		case ".":
			p.deeper(t.start)
			p.next()
			e = p.member(e)
		case "[":
			p.deeper(t.start)
			p.next()
			e = p.subscript(e, t)
		case "|":
			p.deeper(t.start)
			p.next()
			e = p.filter(e)
		case "(":
			fail(CodeSyntax, t.start, "only functions, macros and methods can be called")
		default:
			return e
		}
	}
}

// member parses what follows a dot.
func (p *parser) member(object expr) expr {
	t := *p.cur()
	var key expr
	switch {
	case t.kind == tokName || t.kind == tokOperator && isNameStart(t.text[0]):
		if strings.Contains(t.text, " ") {
			p.unexpected("the name of an attribute")
		}
		p.next()
		key = &constant{pos(t.start), t.text}
	case t.kind == tokNumber:
		p.next()
		key = &constant{pos(t.start), t.text}
	case t.punctuation("("):
		p.next()
		key = p.expression()
		p.expectPunctuation(")", " after the attribute's name")
	default:
		p.unexpected("the name of an attribute")
	}
	var args []argument
	called := p.cur().punctuation("(")
	if called {
		args = p.arguments()
	}
	if c, ok := key.(*constant); ok {
		if name, ok := c.v.(string); ok {
			if m := p.macro(object, name, args); m != nil {
				return m
			}
		}
	}
	return p.attribute(object, key, args, called, t.start)
}

// macro recognises _self.name(…) and imported.name(…).
func (p *parser) macro(object expr, name string, args []argument) expr {
	for i := range args {
		escaping(args[i].value)
	}
	if g, ok := object.(*grouped); ok {
		object = g.expr
	}
	switch o := object.(type) {
	case *selfVariable:
		p.tmpl.vouched = true
		return &macroCall{pos: pos(o.at()), name: name, args: args}
	case *variable:
		if ref := p.importedTemplate(o.name); ref != nil {
			p.tmpl.vouched = true
			return &macroCall{pos: pos(o.at()), ref: ref, name: name, args: args}
		}
	}
	return nil
}

func (p *parser) attribute(object, key expr, args []argument, called bool, at int32) expr {
	if g, ok := object.(*grouped); ok {
		object = g.expr
	}
	a := &attribute{pos: pos(at), object: object, key: key, args: args, call: called}
	segment := "[…]"
	if c, ok := key.(*constant); ok {
		switch v := c.v.(type) {
		case string:
			a.fixed, a.isKey, segment = stringKey(v), true, "."+v
		case int64:
			a.fixed, a.isKey, segment = intKey(v), true, "["+strconv.FormatInt(v, 10)+"]"
		}
	}
	switch o := object.(type) {
	case *variable:
		a.path = o.name + segment
		if o.name == "loop" && segment == ".parent" {
			p.sees("everything")
		}
	case *attribute:
		a.path = o.path + segment
	default:
		a.path = strings.TrimPrefix(segment, ".")
	}
	return a
}

func (p *parser) subscript(object expr, open token) expr {
	var key expr
	if !p.cur().punctuation(":") {
		key = p.expression()
	}
	if p.acceptPunctuation(":") {
		var length expr
		if !p.cur().punctuation("]") {
			length = p.expression()
		}
		p.expectPunctuation("]", " to close the slice")
		if key == nil {
			key = &constant{pos(open.start), int64(0)}
		}
		return &filterCall{pos: pos(open.start), filter: filters["slice"], args: []expr{object, key, length, nil}}
	}
	if key == nil {
		p.unexpected("a key")
	}
	p.expectPunctuation("]", " to close the subscript")
	return p.attribute(object, key, nil, false, open.start)
}

// arguments parses (…) of a call.
func (p *parser) arguments() []argument {
	p.expectPunctuation("(", "")
	var args []argument
	for !p.cur().punctuation(")") {
		if len(args) > 0 {
			p.expectPunctuation(",", " between arguments")
			if p.cur().punctuation(")") {
				break
			}
		}
		t := *p.cur()
		a := argument{pos: pos(t.start)}
		last := argument{}
		if len(args) > 0 {
			last = args[len(args)-1]
		}
		switch {
		case t.kind == tokSpread:
			p.next()
			a.spread = true
			a.value = p.expression()
		case t.kind == tokName && (p.peek().is(tokOperator, "=") || p.peek().punctuation(":")):
			p.next()
			p.next()
			a.name = t.text
			a.value = p.expression()
			for _, other := range args {
				if other.name == a.name {
					fail(CodeArguments, t.start, "argument %q is given twice", a.name)
				}
			}
		default:
			a.value = p.expression()
			if last.name != "" {
				fail(CodeArguments, t.start, "positional arguments cannot follow named ones")
			}
			if last.spread {
				fail(CodeArguments, t.start, "normal arguments cannot follow spread ones")
			}
		}
		args = append(args, a)
	}
	p.next()
	return args
}

// filter parses one filter behind "|" or "apply".
func (p *parser) filter(input expr) expr {
	t := *p.cur()
	if t.kind == tokOperator && isNameStart(t.text[0]) {
		t.kind = tokName
	}
	if t.kind != tokName {
		p.unexpected("the name of a filter")
	}
	p.next()
	if g, ok := input.(*grouped); ok {
		input = g.expr
	}
	var args []argument
	if p.cur().punctuation("(") {
		args = p.arguments()
	}
	f, ok := filters[t.text]
	if !ok {
		if p.guarded > 0 {
			return &constant{pos(t.start), nil}
		}
		p.unknownFilter(t)
	}
	if f.unsupported != "" {
		fail(CodeUnsupported, t.start, "the filter %q is not available: %s", t.text, f.unsupported)
	}
	if t.text == "default" {
		return p.defaulted(input, args, t)
	}
	call := &filterCall{pos: pos(t.start), filter: f}
	call.args, call.spread = p.bind("filter", t.text, f.params, f.required, f.variadic, args, t.start, input)
	if f.prepare != nil {
		f.prepare(p, call)
	}
	if f.preEscape != "" && !p.safe(input, f.preEscape) {
		call.args[0] = &escaped{pos(input.at()), input, f.preEscape}
	}
	return call
}

// foreignFilters are what other languages call a filter that Twig has under another name.
var foreignFilters = map[string]string{
	"count": "length", "size": "length", "tojson": "json_encode", "to_json": "json_encode", "jsonify": "json_encode", "json": "json_encode",
	"safe": "raw", "uppercase": "upper", "upcase": "upper", "lowercase": "lower", "downcase": "lower", "strip": "trim", "int": "round",
	"urlencode": "url_encode", "datetime": "date", "strftime": "date", "addslashes": "escape('js')", "escapejs": "escape('js')",
	"selectattr": "filter", "select": "filter", "reject": "filter", "items": "keys", "list": "keys", "substr": "slice",
	"truncate": "slice", "sum": "reduce", "unique": "reduce", "money": "number_format", "currency": "number_format", "implode": "join",
	"explode": "split", "strtoupper": "upper", "strtolower": "lower", "ucfirst": "capitalize", "dictsort": "sort", "map_attr": "column",
}

func (p *parser) unknownFilter(t token) {
	hint := didYouMean(t.text, sortedKeys(filters))
	if twig, ok := foreignFilters[t.text]; ok {
		hint = "Twig has " + strconv.Quote(twig)
	}
	failHint(CodeUnknownFilter, t.start, hint, "unknown filter %q", t.text)
}

func (p *parser) defaulted(input expr, args []argument, t token) expr {
	list, _ := p.bind("filter", "default", []string{"default"}, 0, false, args, t.start, nil)
	return &defaultFilter{pos(t.start), input, list[1]}
}

// bind puts arguments in the order of a callable's parameters, and refuses unknown and missing ones. The result
// starts with the input of a filter or test.
func (p *parser) bind(what, name string, params []string, required int, variadic bool, args []argument, at int32, input expr) (list []expr, spread expr) {
	list = make([]expr, 1, len(params)+1)
	list[0] = input
	for _, a := range args {
		if a.spread {
			if spread != nil { // f(…a, …b): join them
				spread = &arrayLiteral{pos: a.pos, items: []arrayItem{{value: spread, spread: true}, {value: a.value, spread: true}}}
			} else {
				spread = a.value
			}
			continue
		}
		if a.name == "" {
			list = append(list, a.value)
			continue
		}
		i := slices.IndexFunc(params, func(s string) bool { return sameParameter(s, a.name) })
		if i < 0 {
			if variadic {
				list = append(list, a.value)
				continue
			}
			failHint(CodeArguments, a.at(), didYouMean(a.name, params), "%s %q has no argument %q", what, name, a.name)
		}
		for len(list) < i+2 {
			list = append(list, nil)
		}
		if list[i+1] != nil {
			fail(CodeArguments, a.at(), "argument %q of %s %q is given twice", a.name, what, name)
		}
		list[i+1] = a.value
	}
	for i := range required {
		if spread == nil && (i+1 >= len(list) || list[i+1] == nil) {
			fail(CodeArguments, at, "%s %q needs the argument %q", what, name, params[i]) //nolint:gosec // required is at most their number
		}
	}
	if spread == nil {
		for len(list) < len(params)+1 {
			list = append(list, nil)
		}
	}
	return list, spread
}

// sameParameter compares names as Twig does: preserveKeys is preserve_keys.
func sameParameter(a, b string) bool {
	return a == b || strings.EqualFold(strings.ReplaceAll(a, "_", ""), strings.ReplaceAll(b, "_", ""))
}

// test parses what follows "is".
func (p *parser) test(left expr) expr {
	t := *p.cur()
	if t.kind != tokName {
		p.unexpected("the name of a test")
	}
	p.next()
	name := t.text
	if second := p.cur(); second.kind == tokName {
		if _, ok := tests[name+" "+second.text]; ok {
			name += " " + second.text
			p.next()
		}
	}
	f, ok := tests[name]
	if !ok {
		if p.guarded > 0 {
			return &constant{pos(t.start), nil}
		}
		hint := didYouMean(name, sortedKeys(tests))
		if twig, foreign := foreignTests[name]; foreign {
			hint = "Twig writes " + twig
		}
		failHint(CodeUnknownTest, t.start, hint, "unknown test %q", name)
	}
	var args []argument
	if p.cur().punctuation("(") {
		args = p.arguments()
	} else if f.required == 1 {
		args = []argument{{pos: pos(p.cur().start), value: p.primaryOperand()}}
	}
	if name == "defined" {
		return p.definedTest(left, t)
	}
	call := &testCall{pos: pos(t.start), test: f}
	call.args, _ = p.bind("test", name, f.params, f.required, false, args, t.start, left)
	return call
}

var foreignTests = map[string]string{
	"none": "null", "string": "matches or starts with", "number": "is not iterable, or a comparison", "boolean": "is same as(true)",
	"undefined": `"is not defined"`, "eq": `"=="`, "equalto": `"=="`, "sameas": `"is same as"`, "divisibleby": `"is divisible by"`,
	"true": `"is same as(true)"`, "false": `"is same as(false)"`, "in": `"in"`,
}

// primaryOperand is the argument of a test written without parentheses.
func (p *parser) primaryOperand() expr {
	t := *p.cur()
	if t.kind == tokOperator && (t.text == "-" || t.text == "+") {
		p.next()
		return &signed{pos(t.start), p.primaryOperand(), t.text == "-"}
	}
	return p.primary()
}

func (p *parser) definedTest(left expr, t token) expr {
	if v, ok := left.(*variable); ok {
		if m, ok := p.importedMacroNamed(v.name); ok {
			left = &macroCall{pos: v.pos, ref: m.ref, name: m.name}
		}
	}
	if !mayBeMissing(left) {
		fail(CodeSyntax, t.start, `"defined" works with variables, attributes, blocks, macros and constants`)
	}
	if c, ok := left.(*functionCall); ok {
		return &definedConstant{pos(t.start), c}
	}
	return &definedTest{pos(t.start), left}
}

// mayBeMissing reports whether Twig can ask of an expression if it is defined, which "??" does too.
func mayBeMissing(e expr) bool {
	switch e := e.(type) {
	case path, *macroCall, *constant, *arrayLiteral, *contextVariable, *selfVariable:
		return true
	case *functionCall:
		return e.function.definable
	}
	return false
}

// call parses a function call by name.
func (p *parser) call(name token) expr {
	switch name.text {
	case "parent":
		if len(p.inBlocks) == 0 {
			fail(CodeSyntax, name.start, "parent() can be called in a block only")
		}
		if args := p.arguments(); len(args) > 0 {
			fail(CodeArguments, name.start, "parent() has no arguments")
		}
		if p.tmpl.parent == nil && len(p.tmpl.traits) == 0 && !p.extendsLater() {
			fail(CodeSyntax, name.start, "parent() needs a template that extends or uses another")
		}
		return &parentCall{pos(name.start), p.inBlocks[len(p.inBlocks)-1]}
	case "block":
		list, _ := p.bind("function", "block", []string{"name", "template"}, 0, false, p.arguments(), name.start, nil)
		p.sees("everything")
		if list[1] == nil {
			list[1] = &constant{pos(name.start), ""}
		}
		return &blockCall{pos(name.start), list[1], list[2]}
	case "include":
		p.tmpl.vouched = true
		return p.includeFunction(name)
	case "attribute":
		list, _ := p.bind("function", "attribute", []string{"variable", "attribute", "arguments"}, 2, false, p.arguments(), name.start, nil)
		return p.attribute(list[1], list[2], nil, list[3] != nil, name.start)
	}
	if m, ok := p.importedMacroNamed(name.text); ok {
		p.tmpl.vouched = true
		args := p.arguments()
		for i := range args {
			escaping(args[i].value)
		}
		return &macroCall{pos: pos(name.start), ref: m.ref, name: m.name, args: args}
	}
	for i := range p.options.Functions {
		if d := &p.options.Functions[i]; d.Name == name.text {
			list, _ := p.bind("function", d.Name, d.Params, d.Required, false, p.arguments(), name.start, nil)
			p.tmpl.vouched = true
			return &hostCall{pos(name.start), d, list[1:]}
		}
	}
	f, ok := functions[name.text]
	if !ok {
		args := p.arguments()
		if p.guarded > 0 {
			return &constant{pos(name.start), nil}
		}
		p.unknownFunction(name, args)
	}
	if f.unsupported != "" {
		fail(CodeUnsupported, name.start, "the function %q is not available: %s", name.text, f.unsupported)
	}
	list, spread := p.bind("function", name.text, f.params, f.required, f.variadic, p.arguments(), name.start, nil)
	c := &functionCall{pos: pos(name.start), function: f, args: list[1:], spread: spread}
	if f.check != nil {
		f.check(c)
	}
	return c
}

// extendsLater looks for an extends tag behind the current token: parent() may come first.
func (p *parser) extendsLater() bool {
	for i := p.i; i+1 < len(p.tokens); i++ {
		if t := p.tokens[i+1]; p.tokens[i].kind == tokTagStart && (t.is(tokName, "extends") || t.is(tokName, "use")) {
			return true
		}
	}
	return false
}

func (p *parser) hasFunction(name string) bool {
	if _, ok := functions[name]; ok {
		return true
	}
	if slices.Contains([]string{"parent", "block", "include", "attribute"}, name) {
		return true
	}
	return slices.ContainsFunc(p.options.Functions, func(f Function) bool { return f.Name == name })
}

func (p *parser) unknownFunction(t token, args []argument) {
	known := append(sortedKeys(functions), "parent", "block", "include", "attribute")
	for _, f := range p.options.Functions {
		known = append(known, f.Name)
	}
	hint := didYouMean(t.text, known)
	switch {
	case p.tmpl.macros[t.text] != nil:
		hint = "a macro of this template is called _self." + t.text + "(…)"
	case filters[t.text] != nil && len(args) > 0:
		hint = t.text + " is a filter: write value|" + t.text
	}
	failHint(CodeUnknownFunction, t.start, hint, "unknown function %q", t.text)
}

func (p *parser) includeFunction(name token) expr {
	params := []string{"template", "variables", "with_context", "ignore_missing", "sandboxed"}
	list, _ := p.bind("function", "include", params, 1, false, p.arguments(), name.start, nil)
	p.sees("everything")
	c := &includeCall{pos: pos(name.start), template: list[1], variables: list[2], onlyUnless: list[3], ignoreIf: list[4]}
	return c
}
