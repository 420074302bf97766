package domain

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/diegoholiveira/jsonlogic/v3"

	"github.com/dispatch-ledger/dispatch-ledger/domain/twig"
)

// hostFunctions are what a target's templates may call besides Twig's own.
var hostFunctions = []twig.Function{
	{Name: "secret", Params: []string{"name"}, Required: 1},
	{Name: "preferences_url"},
	{Name: "unsubscribe_url"},
	{Name: "list_unsubscribe"},
	{Name: "list_unsubscribe_post"},
}

// CompiledTarget is a target whose templates and condition are ready to be rendered, any number at a time.
type CompiledTarget struct {
	Target
	body, url     *twig.Template // body is nil when there is a form
	headers, form []compiledField
	host          *regexp.Regexp  // what a rendered URL's host and port must be like
	condition     json.RawMessage // nil: none
}

type compiledField struct {
	name string
	tpl  *twig.Template
}

// TemplateError is a template that does not compile. It wraps ErrMalformed.
type TemplateError struct {
	Pointer      string // of the template in the target
	Line, Column int    // 1-based, in the template
	Message      string
}

func (e *TemplateError) Error() string {
	return fmt.Sprintf("%s line %d, column %d: %s", e.Pointer, e.Line, e.Column, e.Message)
}

func (e *TemplateError) Unwrap() error { return ErrMalformed }

// CompileTarget checks a target and compiles its templates, which may name the partials given. Errors: *InvalidError,
// *TemplateError.
func CompileTarget(t Target, partials Partials) (*CompiledTarget, error) {
	t.Normalize()
	if err := t.Validate(); err != nil {
		return nil, err
	}
	c := &CompiledTarget{Target: t}
	var err error
	if len(t.Form) == 0 {
		if c.body, err = partials.compile("/body", t.Body, TemplateOptions(t, "body")); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Form)) {
		tpl, err := partials.compile("/"+fieldPart(name), t.Form[name], TemplateOptions(t, fieldPart(name)))
		if err != nil {
			return nil, err
		}
		c.form = append(c.form, compiledField{name, tpl})
	}
	if c.host, err = hostOf(t.URL); err != nil {
		return nil, err
	}
	if c.url, err = partials.compile("/url", t.URL, TemplateOptions(t, "url")); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(t.Headers)) {
		tpl, err := partials.compile("/headers/"+name, t.Headers[name], TemplateOptions(t, "headers/"+name))
		if err != nil {
			return nil, err
		}
		c.headers = append(c.headers, compiledField{name, tpl})
	}
	if len(t.Condition) > 0 && string(t.Condition) != "null" {
		if !jsonlogic.IsValid(bytes.NewReader(t.Condition)) {
			return nil, Invalid("/condition", "is not JSON Logic; it looks like {\"===\": [{\"var\": \"profile.tier_handle\"}, \"gold\"]}")
		}
		c.condition = t.Condition
	}
	return c, nil
}

// TemplateOptions says how one of a target's templates is compiled: body, url, headers/NAME or form/NAME. A JSON body is
// escaped for the place each value stands in; everything else is plain Twig.
func TemplateOptions(t Target, part string) twig.Options {
	mode := twig.ModeText
	if part == "body" && t.Content() == ContentJSON {
		mode = twig.ModeJSON
	}
	return twig.Options{Name: part, Mode: mode, Functions: hostFunctions}
}

// templates are all of the target's.
func (c *CompiledTarget) templates() []*twig.Template {
	all := []*twig.Template{c.url}
	if c.body != nil {
		all = append(all, c.body)
	}
	for _, f := range slices.Concat(c.headers, c.form) {
		all = append(all, f.tpl)
	}
	return all
}

// Environment is what a rendering depends on besides the context.
type Environment struct {
	Name      string           // selects among the target's environments; "" is none of them
	Variables map[string]any   // the service's constants, see Target.Constants; the context wins over them
	Now       func() time.Time // what "now" is in a template
	// Link gives the address of the person's own page; nil gives a sample, for previews.
	Link func(LinkKind) (string, error)

	Secret func(name string) string // stands in for a secret's value: a placeholder that only this delivery's sender can resolve
}

// Rendering is a request before its secrets are put in.
type Rendering struct {
	URL        string
	Headers    map[string]string
	Body       string
	Unresolved []Unresolved
}

// RenderError says why a firing cannot be sent as it is.
type RenderError struct {
	Reason       string // template_error, invalid_body, unresolved, invalid_url or condition_error
	Part         string // body, url, condition, or headers/NAME
	Line, Column int
	Message      string // without values from the context
	Detail       string // the template engine's own words, which may quote the context; "" when there are none
}

func (e *RenderError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("%s, line %d, column %d: %s", e.Part, e.Line, e.Column, e.Message)
	}
	return e.Part + ": " + e.Message
}

// Holds evaluates the target's condition on a context, by JSON Logic's truthiness; without a condition it holds.
func (c *CompiledTarget) Holds(context []byte) (bool, error) {
	if c.condition == nil {
		return true, nil
	}
	var answer bytes.Buffer
	var got any
	err := jsonlogic.Apply(bytes.NewReader(c.condition), bytes.NewReader(context), &answer)
	if err == nil {
		err = json.Unmarshal(answer.Bytes(), &got)
	}
	if err != nil {
		return false, &RenderError{Reason: "condition_error", Part: "condition", Message: "it cannot be evaluated on this context"}
	}
	return truthy(got), nil
}

// truthy is JSON Logic's: 0, "", [], null and false are not.
func truthy(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case float64:
		return v != 0
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	}
	return true
}

// Render renders the request. Errors: *RenderError; the context's.
func (c *CompiledTarget) Render(ctx context.Context, data *twig.Context, env Environment) (Rendering, error) {
	var secrets []string
	o := twig.RenderOptions{
		Variables: c.Constants(env.Name, env.Variables), Now: env.Now, Strict: c.Unresolved == UnresolvedError,
		Functions: linkFunctions(env.Link),
	}
	o.Functions["secret"] = func(args []any) (any, error) {
		name, ok := args[0].(string)
		if !ok || name == "" {
			return nil, errors.New("secret() takes the secret's name, a string")
		}
		placeholder := env.Secret(name)
		secrets = append(secrets, placeholder)
		return placeholder, nil
	}
	var r Rendering
	part := func(name string, t *twig.Template) (string, error) {
		secrets = secrets[:0]
		got, err := t.Render(ctx, data, o)
		if err != nil {
			return "", renderError(ctx, name, err)
		}
		for _, s := range secrets {
			if !strings.Contains(got.Output, s) {
				return "", &RenderError{Reason: "template_error", Part: name, Message: "a secret has to be printed as it is: {{ secret('name') }}, without filters"}
			}
		}
		if c.Unresolved != UnresolvedIgnore {
			for _, u := range got.Unresolved {
				r.Unresolved = append(r.Unresolved, Unresolved{Name: u.Path, Part: name, Partial: u.Template, Line: u.Line, Column: u.Column})
			}
		}
		return got.Output, nil
	}
	var err error
	if c.body != nil {
		if r.Body, err = part("body", c.body); err != nil {
			return r, err
		}
	} else {
		fields := make(map[string]string, len(c.form))
		for _, f := range c.form {
			if fields[f.name], err = part(fieldPart(f.name), f.tpl); err != nil {
				return r, err
			}
		}
		r.Body = encodeForm(fields)
	}
	if r.URL, err = part("url", c.url); err != nil {
		return r, err
	}
	if err := c.checkURL(r.URL); err != nil {
		return r, err
	}
	r.Headers = make(map[string]string, len(c.headers))
	for _, h := range c.headers {
		value, err := part("headers/"+h.name, h.tpl)
		if err != nil {
			return r, err
		}
		if strings.ContainsAny(value, "\r\n\x00") {
			return r, &RenderError{Reason: "template_error", Part: "headers/" + h.name, Message: "the value holds a line break"}
		}
		r.Headers[h.name] = value
	}
	return r, nil
}

// renderError turns what the template engine reports into what is recorded. Its own message may quote values of the
// context, so it is kept apart, in the sealed part; the reason in the open names the kind of error, the place and the
// expression as the author wrote it.
func renderError(ctx context.Context, part string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	e := &RenderError{Reason: "template_error", Part: part, Message: "the template fails on this context"}
	var te *twig.Error
	if errors.As(err, &te) {
		e.Line, e.Column, e.Detail = te.Line, te.Column, te.Message
		if said, ok := renderErrors[te.Code]; ok {
			e.Message = said
		}
		if te.Expression != "" {
			e.Message += ": " + te.Expression
		}
		if te.Template != "" && te.Template != part {
			e.Message += " (in the partial " + te.Template + ")"
		}
		switch te.Code {
		case twig.CodeInvalidJSON:
			e.Reason = "invalid_body"
		case twig.CodeUnresolved:
			e.Reason = "unresolved"
		}
	}
	return e
}

// renderErrors says what went wrong for each kind of error that a context can cause.
var renderErrors = map[string]string{
	twig.CodeArguments:   "a filter or function is called with a value that it does not take",
	twig.CodeContext:     "the context is not a JSON object",
	twig.CodeDate:        "a value is not a date, or names no time zone",
	twig.CodeDivision:    "division by zero",
	twig.CodeFunction:    "a function failed",
	twig.CodeInvalidJSON: "the body is not JSON once it is rendered",
	twig.CodeLimitDepth:  "nested too deeply",
	twig.CodeLimitMemory: "more memory than a rendering may use",
	twig.CodeLimitOutput: "more output than a rendering may give",
	twig.CodeLimitSteps:  "more steps than a rendering may take",
	twig.CodePartial:     "there is no such partial",
	twig.CodeRegex:       "a value is no regular expression that can be used",
	twig.CodeType:        "a value is of the wrong type",
	twig.CodeUnresolved:  "the context lacks a variable that the template needs",
}

// checkURL looks at a rendered URL: what the context put into it must not have changed whom it speaks to.
func (c *CompiledTarget) checkURL(rendered string) error {
	u, err := url.Parse(rendered)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return &RenderError{Reason: "invalid_url", Part: "url", Message: "what it renders to is no http(s) URL with a host and without a user"}
	}
	_, host, _ := strings.Cut(rendered, "://")
	if end := strings.IndexAny(host, "/?#\\"); end >= 0 {
		host = host[:end]
	}
	if !c.host.MatchString(host) {
		return &RenderError{Reason: "invalid_url", Part: "url", Message: "what it renders to has another host than the template says: a value holds what a host's name cannot"}
	}
	return nil
}
