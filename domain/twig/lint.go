package twig

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Severity says what a finding means for sending.
type Severity string

// The severities.
const (
	SeverityError   Severity = "error"   // it cannot be sent, or not with some contexts
	SeverityWarning Severity = "warning" // it can be sent, and is probably not what was meant
)

// Finding is one thing that Lint has to say about a source.
type Finding struct {
	Rule       string   `json:"rule"` // see docs/twig.md for the list
	Severity   Severity `json:"severity"`
	Message    string   `json:"message"`
	Line       int      `json:"line"`
	Column     int      `json:"column"`
	Template   string   `json:"template,omitempty"`
	Suggestion string   `json:"suggestion,omitempty"`
}

// LintOptions say what a source is checked for.
type LintOptions struct {
	Options            // how it will be compiled
	Platform  string   // klaviyo, braze, sfmc, dotdigital, yotpo or webhook; "" checks for all
	URL       string   // where it will be sent, for retired addresses
	Sample    *Context // a sample event: paths that it lacks are reported
	Variables []string // names that RenderOptions.Variables will have
	Now       func() time.Time
}

// Lint checks a source without sending it, most serious findings first, in the order of the source. It renders the
// template from contexts made of its own paths, and is bounded like rendering is.
func Lint(text string, o LintOptions) []Finding {
	l := &linter{o: &o}
	t, err := Compile(text, o.Options)
	if err != nil {
		l.fromError(err)
		return l.findings
	}
	l.t = t
	t.eachTemplate(func(t *Template) {
		l.conditions(t)
		l.raws(t)
		l.secrets(t)
		l.platforms(t)
	})
	l.partials()
	l.quotes(t)
	l.sample()
	l.generated()
	slices.SortStableFunc(l.findings, func(a, b Finding) int {
		if a.Severity != b.Severity {
			return strings.Compare(string(a.Severity), string(b.Severity))
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return l.findings
}

type linter struct {
	o        *LintOptions
	t        *Template
	findings []Finding
}

func (l *linter) report(t *Template, at int32, f Finding) {
	f.Line, f.Column = t.src.position(at)
	f.Template = t.partial
	l.add(f)
}

func (l *linter) add(f Finding) {
	for _, old := range l.findings {
		if old.Rule == f.Rule && old.Line == f.Line && old.Column == f.Column && old.Template == f.Template {
			return
		}
	}
	if len(l.findings) < 200 {
		l.findings = append(l.findings, f)
	}
}

func (l *linter) fromError(err error) {
	var e *Error
	if !errors.As(err, &e) {
		return
	}
	l.add(Finding{
		Rule: e.Code, Severity: SeverityError, Message: e.Message, Line: e.Line, Column: e.Column, Suggestion: e.Suggestion,
		Template: l.partialName(e),
	})
}

// partialName is the partial that an error stands in, "" for the template itself.
func (l *linter) partialName(e *Error) string {
	if l.t == nil || e.Template == l.t.src.name {
		return ""
	}
	return e.Template
}

// conditions finds conditions that are always the same, and branches that are never reached.
func (l *linter) conditions(t *Template) {
	constantCondition := func(e expr, what string) {
		if g, ok := e.(*grouped); ok {
			e = g.expr
		}
		switch e := e.(type) {
		case *constant:
			l.report(t, e.at(), Finding{
				Rule: "constant_condition", Severity: SeverityWarning,
				Message: fmt.Sprintf("the condition of this %s is always %t", what, truthy(e.v)),
			})
		case *binary:
			c, ok := e.right.(*constant)
			switch {
			case isConstant(e):
				l.report(t, pathStart(e.left), Finding{Rule: "constant_condition", Severity: SeverityWarning, Message: "the condition of this " + what + " is always the same"})
			case samePath(e.left, e.right):
				l.report(t, pathStart(e.left), Finding{Rule: "constant_condition", Severity: SeverityWarning, Message: fmt.Sprintf("both sides of %q are the same", e.op)})
			case ok && e.op == opOr && truthy(c.v):
				l.report(t, pathStart(e.left), Finding{
					Rule: "constant_condition", Severity: SeverityWarning, Message: "the condition is always true: a constant stands alone after \"or\"",
					Suggestion: "repeat the comparison on both sides: x == 'a' or x == 'b'",
				})
			}
		}
	}
	v := visitor{}
	v.stmt = func(s stmt) bool {
		switch s := s.(type) {
		case *ifStmt:
			for i, b := range s.branches {
				constantCondition(b.cond, "if")
				for _, earlier := range s.branches[:i] {
					if sameExpression(earlier.cond, b.cond) {
						l.report(t, pathStart(b.cond), Finding{
							Rule: "dead_branch", Severity: SeverityWarning, Message: "this branch is never reached: an earlier one has the same condition",
						})
					}
				}
			}
		case *printChoice:
			constantCondition(s.cond, "choice")
		}
		return true
	}
	v.expr = func(e expr) bool {
		if c, ok := e.(*conditional); ok {
			constantCondition(c.cond, "choice")
		}
		return true
	}
	v.template(t)
}

// samePath reports whether two expressions are the same variable or attribute.
func samePath(a, b expr) bool {
	switch a := a.(type) {
	case *variable:
		b, ok := b.(*variable)
		return ok && a.name == b.name
	case *attribute:
		b, ok := b.(*attribute)
		return ok && a.isKey && b.isKey && !a.call && !b.call && a.fixed == b.fixed && samePath(a.object, b.object)
	}
	return false
}

// sameExpression compares what conditions are usually made of.
func sameExpression(a, b expr) bool {
	switch a := a.(type) {
	case *constant:
		b, ok := b.(*constant)
		if !ok {
			return false
		}
		if _, isArray := a.v.(*Array); isArray {
			return false
		}
		if _, isArray := b.v.(*Array); isArray {
			return false
		}
		return a.v == b.v
	case *not:
		b, ok := b.(*not)
		return ok && sameExpression(a.operand, b.operand)
	case *binary:
		b, ok := b.(*binary)
		return ok && a.op == b.op && sameExpression(a.left, b.left) && sameExpression(a.right, b.right)
	case *definedTest:
		b, ok := b.(*definedTest)
		return ok && sameExpression(a.target, b.target)
	}
	return samePath(a, b)
}

// raws finds prints that bypass JSON mode.
func (l *linter) raws(t *Template) {
	if t.mode != ModeJSON {
		return
	}
	v := visitor{stmt: func(s stmt) bool {
		p, ok := s.(*printStmt)
		if !ok {
			return true
		}
		f, ok := p.value.(*filterCall)
		if !ok || f.filter != filters["raw"] {
			return true
		}
		if in, ok := f.args[0].(*filterCall); ok && (in.filter == filters["json_encode"] || in.filter == filters["escape"]) {
			return true
		}
		l.report(t, s.at(), Finding{
			Rule: "raw_value", Severity: SeverityWarning, Message: "{{ " + p.source + " }} is printed as it is: a quote or a newline in it breaks the JSON",
			Suggestion: "leave |raw out: values are escaped for the place they stand at",
		})
		return true
	}}
	v.template(t)
}

var secretPatterns = []struct {
	what string
	re   *regexp.Regexp
}{
	{"a Klaviyo private key", regexp.MustCompile(`\bpk_[0-9a-fA-F]{24,}\b`)},
	{"a bearer token", regexp.MustCompile(`(?i)\bbearer\s+[a-z0-9._~+/\-]{16,}=*`)},
	{"basic credentials", regexp.MustCompile(`(?i)\bbasic\s+[a-z0-9+/]{16,}={0,2}`)},
	{"a secret key", regexp.MustCompile(`\b(?:sk|rk)_(?:live|test)_[0-9A-Za-z]{10,}\b`)},
	{"an AWS access key", regexp.MustCompile(`\bAKIA[0-9A-Z]{16}\b`)},
	{"a Slack token", regexp.MustCompile(`\bxox[abpors]-[0-9A-Za-z-]{10,}\b`)},
	{"a Slack webhook address", regexp.MustCompile(`hooks\.slack\.com/services/T[0-9A-Za-z]+/B[0-9A-Za-z]+/[0-9A-Za-z]{16,}`)},
	{"a GitHub token", regexp.MustCompile(`\bgh[pousr]_[0-9A-Za-z]{30,}\b`)},
	{"a JSON web token", regexp.MustCompile(`\beyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{10,}`)},
	{"a private key", regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----`)},
	{"a secret", regexp.MustCompile(`(?i)"[^"]*(?:api[_-]?key|secret|password|passwd|client_secret|auth[_-]?token|access[_-]?token|private[_-]?key)"\s*:\s*"[^"{}\s]{12,}"`)},
	{"a Braze API key", regexp.MustCompile(`(?i)"api_key"\s*:\s*"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"`)},
}

// secrets finds credentials in the source, which everybody who may read targets can read.
func (l *linter) secrets(t *Template) {
	for _, p := range secretPatterns {
		for _, m := range p.re.FindAllStringIndex(t.src.text, 20) {
			l.report(t, int32(m[0]), Finding{ //nolint:gosec // bounded source
				Rule: "plaintext_secret", Severity: SeverityError, Message: "this looks like " + p.what + " in plain text",
				Suggestion: "store it with \"secret set\" and write {{ secret('name') }}",
			})
		}
	}
}

// platformRule is a field or address that a platform retired, or that does more than people mean.
type platformRule struct {
	platform string
	rule     string
	severity Severity
	re       *regexp.Regexp
	message  string
	hint     string
}

var platformRules = []platformRule{
	{
		"klaviyo", "klaviyo_legacy_track", SeverityError, regexp.MustCompile(`(?i)a\.klaviyo\.com/api/(?:track|identify)(?:[/?"'\s]|$)`),
		"Klaviyo retired /api/track and /api/identify", "send to https://a.klaviyo.com/api/events with data.type \"event\"",
	},
	{
		"klaviyo", "klaviyo_legacy_body", SeverityError, regexp.MustCompile(`"customer_properties"\s*:`),
		"\"customer_properties\" belongs to Klaviyo's retired track API", "use data.attributes.profile of the events API",
	},
	{
		"klaviyo", "klaviyo_legacy_api", SeverityError, regexp.MustCompile(`(?i)a\.klaviyo\.com/api/v[12]/`),
		"Klaviyo retired its v1 and v2 APIs", "use https://a.klaviyo.com/api/ with a revision header",
	},
	{
		"braze", "braze_broadcast", SeverityError, regexp.MustCompile(`"broadcast"\s*:\s*(?:"\s*)?true`),
		"\"broadcast\": true sends to everybody in the segment, not to one recipient", "leave it out and name the recipients",
	},
	{
		"braze", "braze_subscription_state", SeverityError, regexp.MustCompile(`"recipient_subscription_state"\s*:\s*"all"`),
		"\"recipient_subscription_state\": \"all\" sends to people who unsubscribed", "use \"opted_in\" or \"subscribed\"",
	},
	{
		"sfmc", "sfmc_resubscribe", SeverityError, regexp.MustCompile(`(?i)"resubscribe"\s*:\s*(?:"\s*)?true`),
		"\"resubscribe\": true subscribes people again who unsubscribed", "leave it out",
	},
	{
		"sfmc", "sfmc_legacy_trigger", SeverityWarning, regexp.MustCompile(`/messaging/v1/messageDefinitionSends/`),
		"messageDefinitionSends is the legacy API for triggered sends", "use /messaging/v1/email/messages/",
	},
}

// platforms finds retired and dangerous fields of the platform that the template is for.
func (l *linter) platforms(t *Template) {
	for _, rule := range platformRules {
		if l.o.Platform != "" && l.o.Platform != rule.platform {
			continue
		}
		for _, m := range rule.re.FindAllStringIndex(t.src.text, 20) {
			l.report(t, int32(m[0]), rule.finding()) //nolint:gosec // bounded source
		}
		if t == l.t && rule.re.MatchString(l.o.URL) {
			f := rule.finding()
			f.Message = "address: " + f.Message
			l.add(f)
		}
	}
}

// output finds what platforms does in what a template renders to: a field that the template puts together.
func (l *linter) output(rendered string) {
	for _, rule := range platformRules {
		if l.o.Platform != "" && l.o.Platform != rule.platform || !rule.re.MatchString(rendered) {
			continue
		}
		if !slices.ContainsFunc(l.findings, func(f Finding) bool { return f.Rule == rule.rule }) {
			f := rule.finding()
			f.Message, f.Line, f.Column = "rendered: "+f.Message, 1, 1
			l.add(f)
		}
	}
}

func (r *platformRule) finding() Finding {
	return Finding{Rule: r.rule, Severity: r.severity, Message: r.message, Suggestion: r.hint}
}

// partials reports templates that are named and not known.
func (l *linter) partials() {
	l.t.eachTemplate(func(t *Template) {
		check := func(e expr, optional bool) {
			c, ok := e.(*constant)
			if !ok || optional {
				return
			}
			name, ok := c.v.(string)
			if !ok {
				return
			}
			p, err := t.loader.load(name, nil)
			if err != nil {
				l.fromError(err)
			} else if p == nil {
				l.report(t, e.at(), Finding{
					Rule: CodePartial, Severity: SeverityError, Message: "template " + quoteShort(name) + " is not known",
					Suggestion: didYouMean(name, t.loader.known()),
				})
			}
		}
		check(t.parent, isNil(t.parent))
		v := visitor{
			stmt: func(s stmt) bool {
				switch s := s.(type) {
				case *importStmt:
					check(s.ref.template, false)
				case *embedStmt:
					check(s.call.template, s.call.ignoreMissing)
				}
				return true
			},
			expr: func(e expr) bool {
				if c, ok := e.(*includeCall); ok {
					check(c.template, c.ignoreMissing || c.ignoreIf != nil)
				}
				return true
			},
		}
		v.statements(t.body)
	})
}

// sample reports paths that the sample event lacks.
func (l *linter) sample() {
	if l.o.Sample == nil {
		return
	}
	for _, u := range l.t.Check(l.o.Sample) {
		root, _, _ := strings.Cut(strings.ReplaceAll(u.Path, "[]", "."), ".")
		if slices.Contains(l.o.Variables, root) {
			continue
		}
		l.add(Finding{
			Rule: "unresolved_variable", Severity: SeverityWarning, Message: fmt.Sprintf("the sample event has no %q", u.Path),
			Line: u.Line, Column: u.Column, Template: u.Template, Suggestion: "check the spelling, or give it a default (|default or ??)",
		})
	}
}

// placeSet is a set of places, for following all branches at once.
type placeSet uint8

func (s placeSet) each(f func(place)) {
	for p := placeValue; p < places; p++ {
		if s&(1<<p) != 0 {
			f(p)
		}
	}
}

// quotes follows the places in JSON along all branches, and reports those that part: a quote opened in one branch
// only.
func (l *linter) quotes(t *Template) {
	if t.mode != ModeJSON {
		return
	}
	f := &placeFollower{l: l, t: t}
	end := f.statements(t.body, 1<<placeValue)
	if end&(1<<placeValue) == 0 {
		l.report(t, int32(len(t.src.text)), Finding{ //nolint:gosec // bounded source
			Rule: "unclosed_string", Severity: SeverityError, Message: "the template ends inside a JSON string: a quote is missing",
		})
	}
}

type placeFollower struct {
	l     *linter
	t     *Template
	depth int
}

func (f *placeFollower) statements(list []stmt, in placeSet) placeSet {
	for _, s := range list {
		in = f.statement(s, in)
	}
	return in
}

func (f *placeFollower) statement(s stmt, in placeSet) placeSet {
	switch s := s.(type) {
	case *textStmt:
		var out placeSet
		in.each(func(p place) { out |= 1 << s.transit[p] })
		return out
	case *printStmt:
		if c, ok := s.value.(*constant); ok && s.how == asConstant {
			text, _ := asText(c.v)
			var out placeSet
			in.each(func(p place) { out |= 1 << advance(p, text) })
			return out
		}
		if in&(1<<placeEscape) != 0 {
			in = in&^(1<<placeEscape) | 1<<placeString
		}
		return in
	case *printChoice:
		return f.join(s.at(), []placeSet{f.statement(s.then, in), f.statement(s.els, in)}, []int32{s.then.at(), s.els.at()})
	case *printFallback:
		return in | f.statement(s.els, in)
	case *ifStmt:
		outs, ats := []placeSet{}, []int32{}
		for i := range s.branches {
			outs = append(outs, f.statements(s.branches[i].body, in))
			ats = append(ats, pathStart(s.branches[i].cond))
		}
		outs = append(outs, f.statements(s.els, in))
		ats = append(ats, s.at())
		return f.join(s.at(), outs, ats)
	case *forStmt:
		out := f.statements(s.body, in)
		if out != in && single(in) {
			f.l.report(f.t, s.at(), Finding{
				Rule: "quote_in_one_branch", Severity: SeverityError,
				Message: "each round of this loop leaves a JSON string open or closes one: the quotes in it do not balance",
			})
		}
		for range places {
			out = in | f.statements(s.body, in|out)
		}
		return out | f.statements(s.els, in)
	case *group:
		return f.statements(s.body, in)
	case *withStmt:
		return f.statements(s.body, in)
	case *blockStmt:
		if b := f.t.blocks[s.name]; b != nil && f.depth < 32 {
			f.depth++
			out := f.statements(b.body, in)
			f.depth--
			return out
		}
	}
	return in
}

func single(s placeSet) bool { return s != 0 && s&(s-1) == 0 }

// join unites what branches lead to, and reports when they part.
func (f *placeFollower) join(at int32, outs []placeSet, ats []int32) placeSet {
	var union placeSet
	differ := -1
	for i, o := range outs {
		union |= o
		if o != outs[0] && differ < 0 {
			differ = i
		}
	}
	if differ > 0 && single(outs[0]) && single(outs[differ]) {
		line, column := f.t.src.position(ats[0])
		other, otherColumn := f.t.src.position(ats[differ])
		f.l.report(f.t, at, Finding{
			Rule: "quote_in_one_branch", Severity: SeverityError,
			Message:    fmt.Sprintf("a JSON string is opened or closed in only one branch: the branches of %d:%d and %d:%d end at different places", line, column, other, otherColumn),
			Suggestion: "write the quotes outside of the condition, or in every branch",
		})
	}
	return union
}

// generated renders from contexts made of the template's own paths, and reports what fails.
func (l *linter) generated() {
	now := l.o.Now
	if now == nil {
		fixed := time.Date(2026, 1, 15, 10, 30, 0, 0, time.UTC)
		now = func() time.Time { return fixed }
	}
	functions := map[string]func([]any) (any, error){}
	for _, f := range l.o.Functions {
		functions[f.Name] = func([]any) (any, error) { return "value", nil }
	}
	variables := map[string]any{}
	for _, name := range l.o.Variables {
		variables[name] = "value"
	}
	reported := map[string]bool{}
	for _, g := range generateContexts(l.t.Paths()) {
		c := &Context{root: g.root}
		rendered, err := l.t.Render(context.Background(), c, RenderOptions{Functions: functions, Variables: variables, Now: now})
		if err == nil {
			l.output(rendered.Output)
		}
		var e *Error
		if !errors.As(err, &e) {
			continue
		}
		key := fmt.Sprint(e.Code, e.Template, e.Line, e.Column)
		if reported[key] {
			continue
		}
		reported[key] = true
		severity := SeverityWarning
		if e.Code == CodeInvalidJSON || g.plain {
			severity = SeverityError
		}
		l.add(Finding{
			Rule: e.Code, Severity: severity, Message: e.Message + ", when " + g.what, Line: e.Line, Column: e.Column,
			Suggestion: e.Suggestion, Template: l.partialName(e),
		})
	}
}
