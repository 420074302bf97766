package twig

import (
	"slices"
	"strconv"
	"strings"
)

// parser turns tokens into a Template. It keeps what the meaning of a construct depends on: the block it stands in,
// the imports in force, the escaping strategy.
type parser struct {
	src     *source
	loader  *loader
	options *Options
	using   []string // names of the templates that are being compiled, for "use"
	tokens  []token
	i       int
	depth   int

	tmpl     *Template
	escaping []string  // strategies of the autoescape tags around, innermost last; "" is off
	imports  []imports // of the template, and of the blocks and macros around
	inBlocks []string  // names of the blocks around
	inMacro  bool
	loops    []*forStmt // for tags around, to learn whether they need "loop" and "_parent"
	guarded  int        // inside a branch of guard that is not taken: unknown names are fine
}

// imports are the names that import and from made, in one scope.
type imports struct {
	templates map[string]*importRef
	macros    map[string]importedMacro
}

type importedMacro struct {
	ref  *importRef
	name string
}

func newParser(src *source, l *loader, using []string) *parser {
	return &parser{src: src, loader: l, options: l.options, using: using, tokens: lex(src.text), imports: make([]imports, 1)}
}

// template parses the whole source.
func (p *parser) template() *Template {
	p.tmpl = p.newTemplate()
	p.escaping = []string{p.strategyOf(p.tmpl.mode)}
	p.tmpl.body = p.bodyOf(p.subparse(nil))
	return p.tmpl
}

func (p *parser) newTemplate() *Template {
	o := p.options
	return &Template{
		src: p.src, options: o, loader: p.loader, zone: p.loader.zone, limits: o.Limits,
		mode: modeOf(o.Mode, p.tokens), blocks: map[string]*block{}, macros: map[string]*macro{},
	}
}

func (p *parser) strategyOf(m Mode) string {
	switch m {
	case ModeHTML:
		return "html"
	case ModeName:
		name := strings.TrimSuffix(p.src.name, ".twig")
		switch name[strings.LastIndexByte(name, '.')+1:] {
		case "js", "json":
			return "js"
		case "css":
			return "css"
		case "txt":
			return ""
		}
		return "html"
	case ModeJSON:
		return "json"
	}
	return ""
}

// ---- tokens

func (p *parser) cur() *token  { return &p.tokens[p.i] }
func (p *parser) peek() *token { return &p.tokens[min(p.i+1, len(p.tokens)-1)] }

func (p *parser) next() token {
	t := p.tokens[p.i]
	if p.i < len(p.tokens)-1 {
		p.i++
	}
	return t
}

func (t *token) is(k kind, text string) bool { return t.kind == k && t.text == text }

func (t *token) punctuation(text string) bool { return t.is(tokPunctuation, text) }

func (p *parser) accept(k kind, text string) bool {
	if p.cur().is(k, text) {
		p.next()
		return true
	}
	return false
}

func (p *parser) acceptPunctuation(text string) bool { return p.accept(tokPunctuation, text) }
func (p *parser) acceptName(text string) bool        { return p.accept(tokName, text) }

func (p *parser) expect(k kind, what string) token {
	if p.cur().kind != k {
		p.unexpected(what)
	}
	return p.next()
}

func (p *parser) expectPunctuation(text, why string) {
	if !p.acceptPunctuation(text) {
		p.unexpected(strconv.Quote(text) + why)
	}
}

func (p *parser) expectTagEnd() { p.expect(tokTagEnd, `"%}"`) }

// describe names a token in a message.
func (t *token) describe() string {
	switch t.kind {
	case tokName, tokNumber, tokOperator, tokPunctuation:
		return t.kind.String() + " " + strconv.Quote(t.text)
	case tokString:
		return "string " + quoteShort(t.text)
	}
	return t.kind.String()
}

func (p *parser) unexpected(wanted string) {
	t := p.cur()
	hint := ""
	switch {
	case t.kind == tokName && t.text == "if" && p.inPrint():
		hint = "Jinja's \"x if y else z\" is written y ? x : z in Twig"
	case t.punctuation("|") && p.tokens[max(p.i-1, 0)].punctuation("|"):
		hint = `write "or"`
	case t.is(tokOperator, "=") && p.tokens[max(p.i-1, 0)].kind == tokOperator:
		hint = `write "==" or "is same as"`
	case t.is(tokOperator, "="):
		hint = `to compare write "=="`
	}
	failHint(CodeSyntax, t.start, hint, "unexpected %s, expected %s", t.describe(), wanted)
}

func (p *parser) inPrint() bool {
	for i := p.i; i >= 0; i-- {
		switch p.tokens[i].kind {
		case tokPrintStart:
			return true
		case tokTagStart:
			return false
		}
	}
	return false
}

func (p *parser) deeper(at int32) {
	p.depth++
	if p.depth > p.options.Limits.ParseDepth {
		fail(CodeLimitDepth, at, "nested more than %d deep", p.options.Limits.ParseDepth)
	}
}

func (p *parser) slice(start, end int32) string {
	return strings.TrimSpace(p.src.text[start:end])
}

// ---- statements

// tags by name; filled in init to break the cycle.
var tags map[string]func(*parser, token) stmt

func init() {
	tags = map[string]func(*parser, token) stmt{
		"apply": (*parser).applyTag, "autoescape": (*parser).autoescapeTag, "block": (*parser).blockTag,
		"deprecated": (*parser).deprecatedTag, "do": (*parser).doTag, "embed": (*parser).embedTag,
		"extends": (*parser).extendsTag, "flush": (*parser).flushTag, "for": (*parser).forTag, "from": (*parser).fromTag,
		"guard": (*parser).guardTag, "if": (*parser).ifTag, "import": (*parser).importTag, "include": (*parser).includeTag,
		"macro": (*parser).macroTag, "sandbox": (*parser).sandboxTag, "set": (*parser).setTag, "types": (*parser).typesTag,
		"use": (*parser).useTag, "with": (*parser).withTag,
	}
}

// subparse parses statements until a tag for which until says stop (its name is the current token), or, when until
// is nil, the end.
func (p *parser) subparse(until func(name string) bool) []stmt {
	p.deeper(p.cur().start)
	defer func() { p.depth-- }()
	var list []stmt
	for {
		switch t := p.next(); t.kind {
		case tokEOF:
			return list
		case tokText:
			list = append(list, &textStmt{pos: pos(t.start), text: t.text, transit: transitOf(t.text)})
		case tokPrintStart:
			e := p.expression()
			end := p.cur().start
			p.expect(tokPrintEnd, `"}}" or an operator`)
			list = append(list, p.printed(e, t.start, p.slice(t.end, end)))
		case tokTagStart:
			name := p.cur()
			if name.kind != tokName {
				p.unexpected("the name of a tag")
			}
			if until != nil && until(name.text) {
				return list
			}
			if s := p.tag(t); s != nil {
				list = append(list, s)
			}
		default:
			p.i--
			p.unexpected("text or a tag")
		}
	}
}

// block parses statements until one of the ending tags, and leaves the tag's name consumed.
func (p *parser) until(open token, openName string, names ...string) (body []stmt, end string) {
	body = p.subparse(func(name string) bool { return slices.Contains(names, name) })
	if p.cur().kind == tokEOF {
		line, _ := p.src.position(open.start)
		fail(CodeSyntax, p.cur().start, "unexpected end of template: the %q tag of line %d is not closed, expected %q", openName, line, names[len(names)-1])
	}
	return body, p.next().text
}

// foreignTags are what other template languages write, and what Twig writes for it.
var foreignTags = map[string]string{
	"elif": "elseif", "elsif": "elseif", "else if": "elseif", "endfilter": "endapply", "filter": "apply", "call": "macro",
	"assign": "set", "raw": "verbatim", "endraw": "endverbatim", "unless": "if not", "foreach": "for", "capture": "set",
}

func (p *parser) tag(start token) stmt {
	name := p.next()
	if f, ok := tags[name.text]; ok {
		p.deeper(name.start)
		defer func() { p.depth-- }()
		return f(p, start)
	}
	switch name.text {
	case "else", "elseif", "endif", "endfor", "endblock", "endmacro", "endset", "endapply", "endwith", "endautoescape", "endembed",
		"endguard", "endsandbox", "endverbatim":
		fail(CodeSyntax, name.start, "unexpected %q: no tag that it belongs to is open", name.text)
	case "cache", "trans", "form_theme", "stopwatch", "dump", "line":
		fail(CodeUnsupported, name.start, "the %q tag needs a framework and is not available", name.text)
	}
	hint := ""
	if twig, ok := foreignTags[name.text]; ok {
		hint = "Twig writes " + strconv.Quote(twig)
	} else {
		known := append(sortedKeys(tags), "verbatim", "else", "elseif", "endif", "endfor")
		hint = didYouMean(name.text, known)
	}
	failHint(CodeUnknownTag, name.start, hint, "unknown tag %q", name.text)
	return nil
}

// bodyOf drops from a template that extends another what Twig drops: text between its blocks must be white space,
// and blocks show where the parent puts them.
func (p *parser) bodyOf(list []stmt) []stmt {
	if p.tmpl.parent == nil {
		return list
	}
	return p.silent(list, false)
}

// silent keeps the statements that print nothing, and refuses those that would.
func (p *parser) silent(list []stmt, nested bool) []stmt {
	var kept []stmt
	for _, s := range list {
		switch s := s.(type) {
		case *textStmt:
			if t := strings.TrimLeft(s.text, whitespace+"\ufeff"); t != "" {
				at := s.at() + int32(len(s.text)-len(t)) //nolint:gosec // bounded source
				fail(CodeSyntax, at, "a template that extends another cannot have content outside of blocks; did you forget a block?")
			}
			continue
		case *printStmt, *printChoice, *printFallback, *includeStmt, *embedStmt, *applyStmt:
			fail(CodeSyntax, s.at(), "a template that extends another cannot print outside of blocks; did you forget a block?")
		case *blockStmt:
			if nested {
				fail(CodeSyntax, s.at(), "a block cannot stand under a condition in a template that extends another; put the condition inside the block")
			}
			continue
		case *ifStmt:
			for i := range s.branches {
				s.branches[i].body = p.silent(s.branches[i].body, true)
			}
			s.els = p.silent(s.els, true)
		case *forStmt:
			s.body, s.els = p.silent(s.body, true), p.silent(s.els, true)
		case *withStmt:
			s.body = p.silent(s.body, true)
		case *group:
			s.body = p.silent(s.body, nested)
		}
		kept = append(kept, s)
	}
	return kept
}

// reserved names cannot be assigned to.
func (p *parser) target(t token) string {
	switch strings.ToLower(t.text) {
	case "true", "false", "none", "null":
		fail(CodeSyntax, t.start, "cannot assign to %q: the name is reserved", t.text)
	}
	if t.text == "_self" || t.text == "_context" || t.text == "_charset" {
		fail(CodeSyntax, t.start, "cannot assign to %q: the name is reserved", t.text)
	}
	return t.text
}

// assignable reads the name of a variable that a tag sets; words that are operators elsewhere are names here.
func (p *parser) assignable() string {
	t := p.cur()
	if t.kind == tokOperator && isNameStart(t.text[0]) && !strings.ContainsAny(t.text, " -") {
		return p.target(p.next())
	}
	return p.target(p.expect(tokName, "a variable's name"))
}

func (p *parser) setTag(start token) stmt {
	var names []string
	for {
		names = append(names, p.assignable())
		if !p.acceptPunctuation(",") {
			break
		}
	}
	if p.accept(tokOperator, "=") {
		var values []expr
		for {
			values = append(values, escaping(p.expression()))
			if !p.acceptPunctuation(",") {
				break
			}
		}
		p.expectTagEnd()
		if len(names) != len(values) {
			fail(CodeSyntax, start.start, "set has %d variables and %d values", len(names), len(values))
		}
		return &setStmt{pos: pos(start.start), names: names, values: values}
	}
	if len(names) > 1 {
		fail(CodeSyntax, start.start, "a set block captures into one variable")
	}
	p.expectTagEnd()
	body, _ := p.until(start, "set", "endset")
	p.expectTagEnd()
	return &setCapture{pos: pos(start.start), name: names[0], body: body}
}

// escaping marks an arrow function that is stored: it takes its variables with it.
func escaping(e expr) expr {
	if a, ok := e.(*arrow); ok {
		a.escapes = true
	}
	return e
}

func (p *parser) ifTag(start token) stmt {
	s := &ifStmt{pos: pos(start.start)}
	cond := p.expression()
	p.expectTagEnd()
	for {
		body, end := p.until(start, "if", "else", "elseif", "endif")
		if cond != nil {
			s.branches = append(s.branches, branch{cond, body})
		} else {
			s.els = body
		}
		switch {
		case end == "endif":
			p.expectTagEnd()
			return s
		case cond == nil:
			fail(CodeSyntax, p.tokens[p.i-1].start, "%q after \"else\"", end)
		case end == "elseif":
			cond = p.expression()
			p.expectTagEnd()
		default:
			if p.cur().is(tokName, "if") {
				failHint(CodeSyntax, p.cur().start, `write "elseif"`, `unexpected "if" after "else"`)
			}
			cond = nil
			p.expectTagEnd()
		}
	}
}

func (p *parser) forTag(start token) stmt {
	s := &forStmt{pos: pos(start.start), value: p.assignable()}
	if p.acceptPunctuation(",") {
		s.key, s.value = s.value, p.assignable()
	}
	if !p.accept(tokOperator, "in") {
		p.unexpected(`"in"`)
	}
	p.loops = append(p.loops, s)
	s.sequence = p.expression()
	if p.cur().is(tokName, "if") {
		failHint(CodeSyntax, p.cur().start, "filter the sequence: for x in list|filter(x => …)", `"if" after the sequence of a for is gone since Twig 3`)
	}
	p.expectTagEnd()
	body, end := p.until(start, "for", "else", "endfor")
	s.body = body
	if end == "else" {
		p.expectTagEnd()
		s.els, _ = p.until(start, "for", "endfor")
	}
	p.loops = p.loops[:len(p.loops)-1]
	p.expectTagEnd()
	return s
}

// sees tells the for tags around that their body uses "loop", "_parent", or everything.
func (p *parser) sees(name string) {
	for _, l := range p.loops {
		l.usesLoop = true
		if name != "loop" {
			l.usesParent = true
		}
	}
}

func (p *parser) doTag(start token) stmt {
	e := p.expression()
	p.expectTagEnd()
	return &doStmt{pos(start.start), e}
}

func (p *parser) flushTag(token) stmt {
	p.expectTagEnd()
	return nil
}

func (p *parser) typesTag(token) stmt {
	p.expression()
	p.expectTagEnd()
	return nil
}

func (p *parser) deprecatedTag(token) stmt {
	p.expression()
	for p.cur().kind == tokName {
		if name := p.next(); name.text != "package" && name.text != "version" {
			fail(CodeSyntax, name.start, `unknown option %q of "deprecated"`, name.text)
		}
		if !p.accept(tokOperator, "=") {
			p.unexpected(`"="`)
		}
		p.expression()
	}
	p.expectTagEnd()
	return nil
}

func (p *parser) withTag(start token) stmt {
	s := &withStmt{pos: pos(start.start)}
	if p.cur().kind != tokTagEnd {
		s.variables = p.expression()
		s.only = p.acceptName("only")
	}
	p.expectTagEnd()
	s.body, _ = p.until(start, "with", "endwith")
	p.expectTagEnd()
	return s
}

func (p *parser) applyTag(start token) stmt {
	input := &appliedText{pos(start.start)}
	var e expr = input
	for {
		e = p.filter(e)
		if !p.acceptPunctuation("|") {
			break
		}
	}
	p.expectTagEnd()
	s := &applyStmt{pos: pos(start.start), input: input, plain: makesJSON(e)}
	s.body, _ = p.until(start, "apply", "endapply")
	p.expectTagEnd()
	if strategy := p.strategy(); strategy != "" && strategy != "json" && !p.safe(e, strategy) {
		e = &escaped{pos(start.start), e, strategy}
	}
	s.result = e
	return s
}

func (p *parser) strategy() string { return p.escaping[len(p.escaping)-1] }

func (p *parser) autoescapeTag(start token) stmt {
	strategy := "html"
	if p.cur().kind != tokTagEnd {
		e := p.expression()
		c, ok := e.(*constant)
		if !ok {
			fail(CodeSyntax, e.at(), "the strategy of autoescape must be a string or false")
		}
		switch v := c.v.(type) {
		case bool:
			if !v {
				strategy = ""
			}
		case string:
			if strategy = v; v == "name" {
				strategy = p.strategyOf(ModeName)
			}
			if !slices.Contains(strategies, strategy) && strategy != "" {
				failHint(CodeSyntax, e.at(), didYouMean(v, strategies), "unknown escaping strategy %q", v)
			}
		default:
			fail(CodeSyntax, e.at(), "the strategy of autoescape must be a string or false")
		}
	}
	p.expectTagEnd()
	p.escaping = append(p.escaping, strategy)
	body, _ := p.until(start, "autoescape", "endautoescape")
	p.expectTagEnd()
	p.escaping = p.escaping[:len(p.escaping)-1]
	return &group{pos(start.start), body}
}

func (p *parser) guardTag(start token) stmt {
	what := p.expect(tokName, `"filter", "function" or "test"`)
	name := p.expect(tokName, "a name").text
	var exists bool
	switch what.text {
	case "filter":
		_, exists = filters[name]
	case "function":
		exists = p.hasFunction(name)
	case "test":
		if p.cur().kind == tokName {
			name += " " + p.next().text
		}
		_, exists = tests[name]
	default:
		fail(CodeSyntax, what.start, `guard knows "filter", "function" and "test", not %q`, what.text)
	}
	p.expectTagEnd()
	if !exists {
		p.guarded++
	}
	body, end := p.until(start, "guard", "else", "endguard")
	if !exists {
		p.guarded--
		body = nil
	}
	if end == "else" {
		p.expectTagEnd()
		if exists {
			p.guarded++
		}
		els, _ := p.until(start, "guard", "endguard")
		if exists {
			p.guarded--
		} else {
			body = els
		}
	}
	p.expectTagEnd()
	return &group{pos(start.start), body}
}

func (p *parser) sandboxTag(start token) stmt {
	p.expectTagEnd()
	body, _ := p.until(start, "sandbox", "endsandbox")
	p.expectTagEnd()
	for _, s := range body {
		if t, ok := s.(*textStmt); ok && strings.TrimSpace(t.text) == "" {
			continue
		}
		if _, ok := s.(*includeStmt); !ok {
			fail(CodeSyntax, s.at(), "only include tags may stand inside a sandbox tag")
		}
	}
	return &group{pos(start.start), body}
}
