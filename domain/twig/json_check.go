package twig

import (
	"encoding/json"
	"errors"
	"strings"
)

// provenJSON reports whether every rendering of a template must be JSON: straight text that is JSON around prints of
// one value each, or of text inside a string. Whatever branches, loops or prints as it is gets checked at run time.
func provenJSON(t *Template) bool {
	if t.parent != nil || len(t.blocks) > 0 || t.vouched {
		return false
	}
	var b strings.Builder
	place := placeValue
	for _, s := range t.body {
		switch s := s.(type) {
		case *textStmt:
			b.WriteString(s.text)
			place = s.transit[place]
		case *printStmt:
			if s.direct || s.how == asIs || s.how == asConstant || place == placeEscape {
				return false
			}
			if place == placeValue {
				b.WriteString("null") // stands for any value, and cannot join with what is around it
			}
		case *setStmt, *doStmt:
		default:
			return false
		}
	}
	return validJSON(b.String())
}

// explainJSON says which print made the output invalid.
func explainJSON(t *Template, output []byte, traces []trace) *Error {
	var any any
	err := json.Unmarshal(output, &any)
	offset, message := len(output), "the output ends too early"
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		message = syntax.Error()
		if offset = int(syntax.Offset) - 1; strings.HasPrefix(message, "unexpected end") {
			offset, message = len(output), "the output ends too early"
		}
	}
	e := &Error{Code: CodeInvalidJSON, Phase: render, Template: t.src.name, cause: err}
	e.Message = "the output is not JSON: " + message + " near " + quoteShort(excerpt(output, offset))
	e.Suggestion = "check the quotes and commas there"
	e.blame(offset, traces)
	return e
}

// blame finds the place in the source that wrote the output at an offset. A print that bypasses escaping takes the
// blame for what stands right behind it.
func (e *Error) blame(offset int, traces []trace) {
	var culprit, lastPrint *trace
	for i := range traces {
		if traces[i].offset > offset {
			break
		}
		if culprit = &traces[i]; culprit.print != nil {
			lastPrint = culprit
		}
	}
	if culprit == nil {
		e.Line, e.Column = 1, 1
		return
	}
	if lastPrint != nil {
		e.Expression = lastPrint.print.source
		if lastPrint.print.how != asValue && culprit.print == nil {
			culprit = lastPrint
		}
	}
	at := culprit.at
	if culprit.print == nil {
		at += int32(offset - culprit.offset) //nolint:gosec // inside one text of a bounded source
	} else {
		e.Message += ", in or right after {{ " + e.Expression + " }}"
	}
	e.Template = culprit.tmpl.src.name
	e.Line, e.Column = culprit.tmpl.src.position(at)
}

func excerpt(output []byte, offset int) string {
	return string(output[max(offset-20, 0):min(offset+20, len(output))])
}
