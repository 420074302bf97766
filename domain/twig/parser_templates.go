package twig

import (
	"slices"
)

// The tags that tie templates together: block, extends, use, embed, include, macro, import, from.

func (p *parser) blockTag(start token) stmt {
	name := p.expect(tokName, "the name of a block")
	if p.inMacro {
		fail(CodeSyntax, name.start, "a block cannot be defined in a macro")
	}
	if old, ok := p.tmpl.blocks[name.text]; ok {
		line, _ := p.src.position(old.at())
		fail(CodeSyntax, name.start, "block %q is already defined in line %d", name.text, line)
	}
	b := &block{pos: pos(start.start), name: name.text, tmpl: p.tmpl}
	p.tmpl.blocks[name.text] = b
	p.tmpl.blockOrder = append(p.tmpl.blockOrder, name.text)
	p.imports = append(p.imports, imports{})
	p.inBlocks = append(p.inBlocks, name.text)
	loops := p.loops
	p.sees("everything") // a block sees the variables around it
	if p.cur().kind == tokTagEnd {
		p.next()
		b.body, _ = p.until(start, "block", "endblock")
		if end := p.cur(); end.kind == tokName {
			if end.text != name.text {
				fail(CodeSyntax, end.start, "expected \"endblock\" of block %q, not of %q", name.text, end.text)
			}
			p.next()
		}
	} else {
		e := p.expression()
		b.body = []stmt{p.printed(e, e.at(), p.slice(e.at(), p.cur().start))}
	}
	p.expectTagEnd()
	p.loops = loops
	p.inBlocks = p.inBlocks[:len(p.inBlocks)-1]
	p.imports = p.imports[:len(p.imports)-1]
	return &blockStmt{pos(start.start), name.text}
}

func (p *parser) extendsTag(start token) stmt {
	switch {
	case len(p.inBlocks) > 0:
		fail(CodeSyntax, start.start, `"extends" cannot stand in a block`)
	case p.inMacro:
		fail(CodeSyntax, start.start, `"extends" cannot stand in a macro`)
	case p.tmpl.parent != nil:
		fail(CodeSyntax, start.start, `a template can extend only one other`)
	}
	p.tmpl.parent = p.expression()
	p.expectTagEnd()
	return nil
}

func (p *parser) useTag(start token) stmt {
	e := p.expression()
	c, ok := e.(*constant)
	name, isText := "", false
	if ok {
		name, isText = asText(c.v)
	}
	if !isText {
		fail(CodeSyntax, e.at(), `the template of "use" must be a plain string`)
	}
	t := trait{pos: pos(start.start)}
	if p.acceptName("with") {
		for {
			from := p.expect(tokName, "the name of a block").text
			to := from
			if p.acceptName("as") {
				to = p.expect(tokName, "the new name of the block").text
			}
			t.aliases = append(t.aliases, alias{from, to})
			if !p.acceptPunctuation(",") {
				break
			}
		}
	}
	p.expectTagEnd()
	if slices.Contains(p.using, name) {
		fail(CodePartial, e.at(), "template %q uses itself", name)
	}
	used, err := p.loader.load(name, p.using)
	if err != nil {
		panic(err)
	}
	if used == nil {
		failHint(CodePartial, e.at(), didYouMean(name, p.loader.known()), "template %q is not known", name)
	}
	if used.parent != nil || len(used.body) > 0 && !onlyBlocks(used) {
		fail(CodeSyntax, e.at(), `template %q cannot be used: it may hold blocks only`, name)
	}
	t.template = used
	available := used.traitBlocks()
	for _, a := range t.aliases {
		if _, ok := used.blocks[a.from]; !ok && len(available[a.from]) == 0 {
			fail(CodeUnknownBlock, e.at(), "block %q is not defined in template %q", a.from, name)
		}
	}
	p.tmpl.traits = append(p.tmpl.traits, t)
	return nil
}

// onlyBlocks reports whether a template has nothing but blocks and text.
func onlyBlocks(t *Template) bool {
	for _, s := range t.body {
		switch s.(type) {
		case *blockStmt, *textStmt:
		default:
			return false
		}
	}
	return len(t.macros) == 0
}

// includeOptions parses "ignore missing", "with …" and "only".
func (p *parser) includeOptions(c *includeCall) {
	if p.acceptName("ignore") {
		if !p.acceptName("missing") {
			p.unexpected(`"missing"`)
		}
		c.ignoreMissing = true
	}
	if p.acceptName("with") {
		c.variables = p.expression()
	}
	c.only = p.acceptName("only")
	p.expectTagEnd()
	p.sees("everything")
}

func (p *parser) includeTag(start token) stmt {
	c := &includeCall{pos: pos(start.start), template: p.expression()}
	p.includeOptions(c)
	return &includeStmt{pos(start.start), c}
}

// embedTag parses the body as a template of its own that extends the one named.
func (p *parser) embedTag(start token) stmt {
	c := &includeCall{pos: pos(start.start), template: p.expression()}
	p.includeOptions(c)
	outer := *p
	p.tmpl = p.newTemplate()
	p.tmpl.mode = outer.tmpl.mode
	p.tmpl.partial = outer.tmpl.partial
	p.tmpl.parent = c.template
	p.imports = make([]imports, 1)
	p.inBlocks, p.loops, p.inMacro = nil, nil, false
	list, _ := p.until(start, "embed", "endembed")
	p.expectTagEnd()
	p.tmpl.body = p.bodyOf(list)
	t := p.tmpl
	i := p.i
	*p = outer
	p.i = i
	return &embedStmt{pos(start.start), c, t}
}

func (p *parser) macroTag(start token) stmt {
	name := p.expect(tokName, "the name of a macro")
	m := &macro{pos: pos(start.start), name: name.text}
	p.expectPunctuation("(", " after the macro's name")
	for !p.cur().punctuation(")") {
		if len(m.params) > 0 {
			p.expectPunctuation(",", " between parameters")
			if p.cur().punctuation(")") {
				break
			}
		}
		t := p.expect(tokName, "the name of a parameter")
		param := macroParam{name: p.target(t)}
		if param.name == "varargs" {
			fail(CodeSyntax, t.start, `"varargs" cannot be a parameter: it holds the further arguments`)
		}
		if p.accept(tokOperator, "=") {
			param.fallback = p.expression()
			if !isConstant(param.fallback) {
				fail(CodeSyntax, param.fallback.at(), "the default of a macro's parameter must be a constant")
			}
		}
		m.params = append(m.params, param)
	}
	p.next()
	p.expectTagEnd()
	if _, ok := p.tmpl.macros[m.name]; ok {
		fail(CodeSyntax, name.start, "macro %q is already defined", m.name)
	}
	p.tmpl.macros[m.name] = m
	outer := *p
	p.imports = append(p.imports, imports{})
	p.inMacro, p.inBlocks, p.loops = true, nil, nil
	m.body, _ = p.until(start, "macro", "endmacro")
	if end := p.cur(); end.kind == tokName {
		if end.text != name.text {
			fail(CodeSyntax, end.start, "expected \"endmacro\" of macro %q, not of %q", name.text, end.text)
		}
		p.next()
	}
	p.expectTagEnd()
	p.imports = p.imports[:len(p.imports)-1]
	p.inMacro, p.inBlocks, p.loops = outer.inMacro, outer.inBlocks, outer.loops
	return nil
}

// isConstant reports whether an expression needs no variables.
func isConstant(e expr) bool {
	switch e := e.(type) {
	case *constant:
		return true
	case *signed:
		return isConstant(e.operand)
	case *not:
		return isConstant(e.operand)
	case *binary:
		return isConstant(e.left) && isConstant(e.right)
	case *arrayLiteral:
		for _, item := range e.items {
			if item.key != nil && !isConstant(item.key) || !isConstant(item.value) {
				return false
			}
		}
		return true
	}
	return false
}

// importRef reads the template of an import or from tag.
func (p *parser) importRef() *importRef {
	e := p.expression()
	if _, self := e.(*selfVariable); self {
		return &importRef{pos: pos(e.at())}
	}
	return &importRef{pos: pos(e.at()), template: e}
}

func (p *parser) importTag(start token) stmt {
	ref := p.importRef()
	if !p.acceptName("as") {
		p.unexpected(`"as"`)
	}
	name := p.assignable()
	p.expectTagEnd()
	scope := &p.imports[len(p.imports)-1]
	if scope.templates == nil {
		scope.templates = map[string]*importRef{}
	}
	scope.templates[name] = ref
	return &importStmt{pos(start.start), ref}
}

func (p *parser) fromTag(start token) stmt {
	ref := p.importRef()
	if !p.acceptName("import") {
		p.unexpected(`"import"`)
	}
	scope := &p.imports[len(p.imports)-1]
	if scope.macros == nil {
		scope.macros = map[string]importedMacro{}
	}
	for {
		name := p.expect(tokName, "the name of a macro").text
		as := name
		if p.acceptName("as") {
			as = p.assignable()
		}
		scope.macros[as] = importedMacro{ref, name}
		if !p.acceptPunctuation(",") {
			break
		}
	}
	p.expectTagEnd()
	return &importStmt{pos(start.start), ref}
}

// importedTemplate and importedMacroNamed look in the innermost scope and in the template's.
func (p *parser) importedTemplate(name string) *importRef {
	if ref, ok := p.imports[len(p.imports)-1].templates[name]; ok {
		return ref
	}
	return p.imports[0].templates[name]
}

func (p *parser) importedMacroNamed(name string) (importedMacro, bool) {
	if m, ok := p.imports[len(p.imports)-1].macros[name]; ok {
		return m, true
	}
	m, ok := p.imports[0].macros[name]
	return m, ok
}
