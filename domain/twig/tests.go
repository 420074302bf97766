package twig

// test is a test of the language, after "is". fn gets the tested value first.
type test struct {
	fn       func(r *run, a []Value) Value
	params   []string
	required int
}

var tests map[string]*test

func init() {
	null := &test{fn: func(_ *run, a []Value) Value { return a[0] == nil }}
	divisible := &test{fn: testDivisible, params: []string{"by"}, required: 1}
	tests = map[string]*test{
		"constant":     {fn: testConstant, params: []string{"constant", "object"}, required: 1},
		"defined":      {fn: func(*run, []Value) Value { return true }},
		"divisible by": divisible,
		"empty":        {fn: func(_ *run, a []Value) Value { return isEmpty(a[0]) }},
		"even":         {fn: func(r *run, a []Value) Value { return toInt(r.modulo(a[0], int64(2))) == 0 }},
		"iterable":     {fn: func(_ *run, a []Value) Value { return isIterable(a[0]) }},
		"mapping":      {fn: testMapping},
		"none":         null,
		"null":         null,
		"odd":          {fn: func(r *run, a []Value) Value { return toInt(r.modulo(a[0], int64(2))) != 0 }},
		"same as":      {fn: func(r *run, a []Value) Value { return r.identical(a[0], a[1]) }, params: []string{"as"}, required: 1},
		"sequence":     {fn: testSequence},
	}
}

func isIterable(v Value) bool {
	switch v.(type) {
	case *Array, *loopState:
		return true
	}
	return false
}

func testSequence(_ *run, a []Value) Value {
	list, ok := a[0].(*Array)
	return ok && list.isList()
}

func testMapping(_ *run, a []Value) Value {
	if isObject(a[0]) {
		return true
	}
	list, ok := a[0].(*Array)
	return ok && !list.isList()
}

func testDivisible(r *run, a []Value) Value {
	return toInt(r.modulo(a[0], a[1])) == 0
}

func testConstant(r *run, a []Value) Value {
	return r.identical(a[0], functionConstant(r, a[1:]))
}
