package twig

import (
	"slices"
	"strings"
)

// printed compiles {{ e }}: it decides how the value is escaped, branch by branch of a conditional.
func (p *parser) printed(e expr, at int32, text string) stmt {
	strategy := p.strategy()
	switch c := e.(type) {
	case *conditional:
		if strategy != "" {
			return &printChoice{pos(at), c.cond, p.printed(c.then, at, text), p.printed(c.els, at, text)}
		}
	case *elvis:
		if strategy != "" {
			return p.fallback(c.cond, c.els, false, at, text)
		}
	case *coalesce:
		if strategy != "" {
			return p.fallback(c.left, c.right, true, at, text)
		}
	}
	s := &printStmt{pos: pos(at), value: e, source: text, direct: isDirect(e), how: asIs}
	if f, ok := e.(*filterCall); ok && f.filter == filters["raw"] && isDirect(f.args[0]) {
		s.value, s.direct = f.args[0], true
	}
	switch {
	case s.direct || strategy == "":
	case strategy == "json":
		if inner := encodedByHand(e); inner != nil {
			s.value = inner
			s.how = asValue
			break
		}
		s.how = p.howInJSON(e)
	case p.tmpl.mode == ModeJSON: // another strategy inside JSON: escape for it, then for the place
		s.how = asValue
		if !p.safe(e, strategy) {
			s.value = &escaped{pos(e.at()), e, strategy}
		}
	case !p.safe(e, strategy):
		s.value = &escaped{pos(e.at()), e, strategy}
	}
	return s
}

func (p *parser) fallback(value, els expr, nullOnly bool, at int32, text string) stmt {
	s := &printFallback{pos: pos(at), value: value, nullOnly: nullOnly, els: p.printed(els, at, text), how: asIs}
	if p.strategy() == "json" {
		s.how = p.howInJSON(value)
	} else {
		s.escape, s.safe = p.strategy(), p.safe(value, p.strategy())
	}
	return s
}

// isDirect reports whether a print may run the template's own text where it stands, instead of capturing it.
func isDirect(e expr) bool {
	switch e.(type) {
	case *macroCall, *includeCall, *blockCall, *parentCall:
		return true
	}
	return false
}

// howInJSON decides what a printed expression's value is in JSON: the author's text, or a value.
func (p *parser) howInJSON(e expr) how {
	switch e := e.(type) {
	case *constant:
		if _, ok := e.v.(string); ok {
			return asConstant
		}
	case *filterCall:
		if e.filter == filters["raw"] {
			return asIs
		}
		if escapedByHand(e) {
			return asRepaired
		}
	}
	return asValue
}

// encodedByHand recognises |json_encode|trim('"') and |json_encode[1:-1], how people escape for a JSON string where
// Twig has no strategy for it, and returns what they mean to print. trim takes too much when the text ends in a quote.
func encodedByHand(e expr) expr {
	f, ok := e.(*filterCall)
	if ok && f.filter.name == "raw" {
		f, ok = f.args[0].(*filterCall)
	}
	if !ok || f.filter.name != "trim" && f.filter.name != "slice" {
		return nil
	}
	encode, ok := f.args[0].(*filterCall)
	if !ok || encode.filter.name != "json_encode" {
		return nil
	}
	isText := func(e expr, s string) bool {
		c, ok := e.(*constant)
		return ok && c.v == s
	}
	isInt := func(e expr, want int64) bool {
		switch e := e.(type) {
		case *constant:
			return e.v == want
		case *signed:
			c, ok := e.operand.(*constant)
			return ok && e.minus && c.v == -want
		}
		return false
	}
	if f.filter.name == "trim" && isText(f.args[1], `"`) && f.args[2] == nil ||
		f.filter.name == "slice" && isInt(f.args[1], 1) && isInt(f.args[2], -1) {
		return encode.args[0]
	}
	return nil
}

// escapedByHand recognises the other escaping that people write, |replace({'"': '\\"'}), also behind further filters.
// Its result is repaired where it is incomplete, not escaped twice.
func escapedByHand(e *filterCall) bool {
	for {
		switch e.filter.name {
		case "replace":
			if c, ok := e.args[1].(*constant); ok {
				if pairs, ok := c.v.(*Array); ok {
					for i, v := range pairs.vals {
						to, _ := v.(string)
						if from := pairs.key(i).Text; (from == `"` || from == "\n" || from == "\t" || from == `\`) && strings.HasPrefix(to, `\`) {
							return true
						}
					}
				}
			}
		case "trim", "slice", "upper", "lower", "raw", "capitalize", "title", "striptags", "nl2br", "spaceless":
		default:
			return false
		}
		next, ok := e.args[0].(*filterCall)
		if !ok {
			return false
		}
		e = next
	}
}

// makesJSON reports whether a chain of filters turns its text into JSON itself.
func makesJSON(e expr) bool {
	for {
		f, ok := e.(*filterCall)
		if !ok {
			return false
		}
		if f.filter.name == "json_encode" || f.filter.name == "escape" && f.strategy() == "js" {
			return true
		}
		e = f.args[0]
	}
}

// strategy is the constant strategy of an escape filter, "" when it is not constant.
func (e *filterCall) strategy() string {
	if len(e.args) < 2 || e.args[1] == nil {
		return "html"
	}
	if c, ok := e.args[1].(*constant); ok {
		if s, ok := c.v.(string); ok {
			return s
		}
	}
	return ""
}

// safe reports whether an expression needs no escaping for a strategy, as far as the source tells.
func (p *parser) safe(e expr, strategy string) bool {
	switch e := e.(type) {
	case *constant, *macroCall, *includeCall, *blockCall, *parentCall:
		return true
	case *conditional:
		return p.safe(e.then, strategy) && p.safe(e.els, strategy)
	case *elvis:
		return p.safe(e.cond, strategy) && p.safe(e.els, strategy)
	case *coalesce:
		return p.safe(e.left, strategy) && p.safe(e.right, strategy)
	case *filterCall:
		if e.filter.name == "escape" {
			s := e.strategy()
			return s == strategy || s == "html_attr" && strategy == "html"
		}
		return slices.Contains(e.filter.safe, "all") || slices.Contains(e.filter.safe, strategy)
	case *functionCall:
		return e.function.safe
	}
	return false
}
