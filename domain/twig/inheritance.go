package twig

// block is one definition of a named block.
type block struct {
	pos
	name string
	body []stmt
	tmpl *Template
}

// macro is {% macro name(params) %}.
type macro struct {
	pos
	name   string
	params []macroParam
	body   []stmt
}

type macroParam struct {
	name     string
	fallback expr
}

// trait is {% use "template" with a as b %}.
type trait struct {
	pos
	template *Template
	aliases  []alias
}

type alias struct{ from, to string }

// frame is one display of a template with its parents: who defines each block, the most derived first. The chain of
// parents is followed only as far as somebody asks.
type frame struct {
	blocks map[string][]*block
	chain  []*Template
	ended  bool // the last template of the chain extends nothing
}

// newFrame starts the display of a template, under the blocks of an embed if there are any.
func (r *run) newFrame(t *Template) *frame {
	f := &frame{chain: []*Template{t}}
	f.take(t)
	return f
}

func (f *frame) take(t *Template) {
	if len(t.blocks) == 0 && len(t.traits) == 0 {
		return
	}
	if f.blocks == nil {
		f.blocks = map[string][]*block{}
	}
	for _, name := range t.blockOrder {
		f.blocks[name] = append(f.blocks[name], t.blocks[name])
	}
	for name, list := range t.traitBlocks() {
		f.blocks[name] = append(f.blocks[name], list...)
	}
}

// traitBlocks are the blocks that a template gets by "use": those of later tags hide those of earlier ones, which
// parent() of the same template does not reach.
func (t *Template) traitBlocks() map[string][]*block {
	if len(t.traits) == 0 {
		return nil
	}
	all := map[string][]*block{}
	for _, tr := range t.traits {
		own := map[string][]*block{}
		for name, list := range tr.template.traitBlocks() {
			own[name] = list
		}
		for name, b := range tr.template.blocks {
			own[name] = append([]*block{b}, own[name]...)
		}
		for _, a := range tr.aliases {
			own[a.to] = own[a.from]
			delete(own, a.from)
		}
		for name, list := range own {
			all[name] = list
		}
	}
	return all
}

// parent loads the next template of the chain; false when the last one extends nothing.
func (r *run) nextParent(f *frame) bool {
	if f.ended {
		return false
	}
	last := f.chain[len(f.chain)-1]
	if last.parent == nil {
		f.ended = true
		return false
	}
	tmpl := r.tmpl
	r.tmpl = last
	p := r.load(last.parent.eval(r), last.parent.at(), false)
	r.tmpl = tmpl
	if len(f.chain) >= r.limits.CallDepth {
		r.at = last.parent.at()
		r.fail(CodeLimitDepth, "templates extend each other without end")
	}
	f.chain = append(f.chain, p)
	f.take(p)
	return true
}

// display runs a template: its own statements, then its parent's, under one frame.
func (r *run) display(f *frame) {
	r.enter()
	defer r.leave()
	tmpl, outer := r.tmpl, r.frame
	r.frame = f
	for i := 0; ; i++ {
		t := f.chain[i]
		r.tmpl = t
		r.execAll(t.body)
		if t.parent == nil {
			break
		}
		if i+1 == len(f.chain) {
			r.nextParent(f)
		}
	}
	r.tmpl, r.frame = tmpl, outer
}

// findBlock looks for a definition of a block, along the parents.
func (r *run) findBlock(f *frame, name string) bool {
	for len(f.blocks[name]) == 0 {
		if !r.nextParent(f) {
			return false
		}
	}
	return true
}

// runningBlock says which definition of a block runs: the index-th of those that its frame has under a name.
type runningBlock struct {
	name  string
	index int
}

// runBlock runs a definition with its own copy of the variables.
func (r *run) runBlock(f *frame, name string, index int) {
	r.enter()
	r.step()
	b := f.blocks[name][index]
	undo, tmpl, outer, running := r.private(), r.tmpl, r.frame, r.block
	r.tmpl, r.frame, r.block = b.tmpl, f, runningBlock{name, index}
	r.execAll(b.body)
	r.scope, r.tmpl, r.frame, r.block = undo, tmpl, outer, running
	r.leave()
}

// currentFrame is the frame in force. A macro has one of its own, made when it is asked for.
func (r *run) currentFrame() *frame {
	if r.frame == nil {
		r.frame = r.newFrame(r.tmpl)
	}
	return r.frame
}

func (r *run) showNamed(name string, at int32) {
	f := r.currentFrame()
	if !r.findBlock(f, name) {
		r.at = at
		r.fail(CodeUnknownBlock, "block %q is not defined", name)
	}
	r.runBlock(f, name, 0)
}

func (r *run) blockFrame(e *blockCall) (f *frame, name string) {
	name = r.text(e.name.eval(r))
	if e.template == nil {
		return r.currentFrame(), name
	}
	return r.newFrame(r.load(e.template.eval(r), e.template.at(), false)), name
}

func (r *run) hasBlock(e *blockCall) bool {
	f, name := r.blockFrame(e)
	return r.findBlock(f, name)
}

func (r *run) showBlock(e *blockCall) {
	f, name := r.blockFrame(e)
	if !r.findBlock(f, name) {
		r.at = e.at()
		r.fail(CodeUnknownBlock, "block %q is not defined", name)
	}
	r.runBlock(f, name, 0)
}

// showParent runs the definition that the running one overrides.
func (r *run) showParent(e *parentCall) {
	f, next := r.currentFrame(), r.block.index+1
	for next >= len(f.blocks[r.block.name]) {
		if !r.nextParent(f) {
			r.at = e.at()
			r.fail(CodeUnknownBlock, "no parent defines the block %q", e.block)
		}
	}
	r.runBlock(f, r.block.name, next)
}

// load finds the template that an expression names: a name, or the first known one of a list.
func (r *run) load(v Value, at int32, ignoreMissing bool) *Template {
	r.at = at
	if a, ok := v.(*Array); ok {
		for _, name := range a.vals {
			s, ok := asText(name)
			if !ok {
				continue
			}
			if t := r.root.loader.get(s); t != nil {
				return t
			}
		}
		if ignoreMissing {
			return nil
		}
		r.fail(CodePartial, "none of the templates is known")
	}
	name, ok := asText(v)
	if !ok {
		r.fail(CodePartial, "a template is named by a string, got %s", typeName(v))
	}
	t := r.root.loader.get(name)
	if t == nil && !ignoreMissing {
		panic(&Error{
			Code: CodePartial, Message: "template " + quoteShort(name) + " is not known", pos: at,
			Suggestion: didYouMean(name, r.root.loader.known()),
		})
	}
	return t
}

// include runs another template here.
func (r *run) include(e *includeCall) {
	r.step()
	ignore := e.ignoreMissing || e.ignoreIf != nil && truthy(e.ignoreIf.eval(r))
	t := r.load(e.template.eval(r), e.template.at(), ignore)
	undo := r.includeScope(e)
	if t != nil {
		r.display(r.newFrame(t))
	}
	r.scope = undo
}

// includeScope sets up the variables that an included template sees.
func (r *run) includeScope(e *includeCall) (undo scope) {
	undo = r.private()
	var given *Array
	if e.variables != nil {
		v := e.variables.eval(r)
		if a, ok := v.(*Array); ok {
			given = a
		} else {
			r.at = e.variables.at()
			r.fail(CodeType, "the variables of an include must be a mapping, got %s", typeName(v))
		}
	}
	if e.only || e.onlyUnless != nil && !truthy(e.onlyUnless.eval(r)) {
		r.scope = scope{}
	}
	if given != nil {
		for i, v := range given.vals {
			r.assign(given.key(i).String(), v)
		}
	}
	return undo
}

// embed runs a template whose blocks the tag's body overrides.
func (r *run) embed(s *embedStmt) {
	r.step()
	t := r.load(s.call.template.eval(r), s.call.template.at(), s.call.ignoreMissing)
	undo := r.includeScope(s.call)
	if t != nil {
		f := r.newFrame(s.template)
		f.chain = append(f.chain, t)
		f.take(t)
		r.display(f)
	}
	r.scope = undo
}

// importTemplate makes a template's macros available under a reference.
func (r *run) importTemplate(ref *importRef) {
	if ref.template == nil {
		return
	}
	if r.imported == nil {
		r.imported = map[*importRef]*Template{}
	}
	r.imported[ref] = r.load(ref.template.eval(r), ref.template.at(), false)
}

// boundMacro is a macro and the template whose code it is.
type boundMacro struct {
	*macro
	tmpl *Template
}

// findMacro looks in a template and in those it extends.
func (r *run) findMacro(t *Template, name string) (*boundMacro, bool) {
	for range r.limits.CallDepth {
		if m := t.macros[name]; m != nil {
			return &boundMacro{m, t}, true
		}
		if t.parent == nil {
			return nil, false
		}
		tmpl := r.tmpl
		r.tmpl = t
		next := r.load(t.parent.eval(r), t.parent.at(), false)
		r.tmpl = tmpl
		t = next
	}
	return nil, false
}

// callMacro runs a macro; direct writes to the output, else the result is a value.
func (r *run) callMacro(e *macroCall, direct bool) Value {
	r.step()
	m, ok := e.find(r)
	if !ok {
		r.at = e.at()
		r.fail(CodeUnknownMacro, "macro %q is not defined", e.name)
	}
	given, named := r.macroArguments(e)
	r.enter()
	outer, tmpl, frame := r.scope, r.tmpl, r.frame
	r.scope = scope{vars: make([]binding, 0, len(m.params)+2)}
	r.tmpl, r.frame = m.tmpl, nil
	rest := newArray(0)
	for i, p := range m.params {
		var v Value
		switch n, isNamed := named[p.name]; {
		case i < len(given):
			v = given[i]
		case isNamed:
			v = n
			delete(named, p.name)
		case p.fallback != nil:
			v = p.fallback.eval(r)
		}
		r.bind(p.name, v)
	}
	if len(given) > len(m.params) {
		rest = NewList(given[len(m.params):]...)
	}
	for _, name := range sortedKeys(named) {
		rest.set(stringKey(name), named[name])
	}
	r.bind("varargs", rest)
	var result Value
	if direct {
		r.execAll(m.body)
	} else {
		result = r.captureOutput(func() { r.execAll(m.body) })
	}
	r.scope, r.tmpl, r.frame = outer, tmpl, frame
	r.leave()
	return result
}

func (r *run) macroArguments(e *macroCall) (given []Value, named map[string]Value) {
	for _, a := range e.args {
		v := a.value.eval(r)
		switch {
		case a.spread:
			list, ok := v.(*Array)
			if !ok {
				r.at = a.at()
				r.fail(CodeType, "only a sequence can be spread into arguments")
			}
			r.charge(list.Len() * arrayElementBytes)
			given = append(given, list.vals...)
		case a.name != "":
			if named == nil {
				named = map[string]Value{}
			}
			named[a.name] = v
		default:
			given = append(given, v)
		}
	}
	return given, named
}
