package domain_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/twig"
)

func target(change func(*domain.Target)) domain.Target {
	t := domain.Target{Handle: "hook", URL: "https://example.com/x", Body: `{"n": {{ n }}}`}
	t.Normalize()
	if change != nil {
		change(&t)
	}
	return t
}

func TestWhatATargetMayNotBe(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*domain.Target)
		at     string
	}{
		"a handle with a space":             {func(t *domain.Target) { t.Handle = "a b" }, "/handle"},
		"a URL that is not http":            {func(t *domain.Target) { t.URL = "file:///etc/passwd" }, "/url"},
		"a URL without a host":              {func(t *domain.Target) { t.URL = "https:///x" }, "/url"},
		"a platform nobody knows":           {func(t *domain.Target) { t.Platform = "pigeon" }, "/platform"},
		"a GET":                             {func(t *domain.Target) { t.Method = "GET" }, "/method"},
		"no body":                           {func(t *domain.Target) { t.Body = "" }, "/body"},
		"a body that does not compile":      {func(t *domain.Target) { t.Body = "{\n  \"a\": {{ x | }} }" }, "/body"},
		"Jinja in the body":                 {func(t *domain.Target) { t.Body = `{"a": {{ x if y else z }} }` }, "/body"},
		"an unknown filter in the URL":      {func(t *domain.Target) { t.URL = "https://example.com/{{ x|slugify }}" }, "/url"},
		"a header with a line break":        {func(t *domain.Target) { t.Headers = map[string]string{"X-A": "a\r\nX-B: b"} }, "/headers/X-A"},
		"a header that is the client's":     {func(t *domain.Target) { t.Headers = map[string]string{"Content-Length": "1"} }, "/headers/Content-Length"},
		"a credential in plain text":        {func(t *domain.Target) { t.Headers = map[string]string{"Authorization": "Bearer abc"} }, "/headers/Authorization"},
		"a timeout of an hour":              {func(t *domain.Target) { t.Retry.Timeout = domain.Duration(time.Hour) }, "/retry/timeout"},
		"consent on a channel of its own":   {func(t *domain.Target) { t.Consent = &domain.ConsentRule{Channel: "fax", Purpose: domain.Promo} }, "/consent/channel"},
		"a condition that is no JSON Logic": {func(t *domain.Target) { t.Condition = json.RawMessage(`{"frobnicate": [1]}`) }, "/condition"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := domain.CompileTarget(target(tc.change), domain.Partials{})
			if !errors.Is(err, domain.ErrMalformed) {
				t.Fatalf("CompileTarget = %v, want ErrMalformed", err)
			}
			if !strings.Contains(err.Error(), tc.at) {
				t.Errorf("CompileTarget = %v, want it to point at %s", err, tc.at)
			}
			var te *domain.TemplateError
			if errors.As(err, &te) && (te.Line == 0 || te.Column == 0) {
				t.Errorf("%v has no place", te)
			}
		})
	}
}

func TestTargetFiles(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ file, handle, title, wrong string }{
		"YAML":                    {file: "handle: a\nname: b\nurl: https://example.com\nbody: '{}'\n", handle: "a", title: "b"},
		"JSON":                    {file: `{"handle":"a","url":"https://example.com","body":"{}"}`, handle: "a", title: "a"},
		"a colon in a bare name":  {file: "handle: a\nname: Klaviyo: Reward Earned\nurl: https://example.com\nbody: '{}'\n", handle: "a", title: "Klaviyo: Reward Earned"},
		"a misspelt field":        {file: "handle: a\nurll: https://example.com\nbody: '{}'\n", wrong: "urll"},
		"neither":                 {file: "a: [", wrong: "neither YAML nor JSON"},
		"a rate that is none":     {file: "handle: a\nurl: https://example.com\nbody: '{}'\nlimits: {rate: often}\n", wrong: "50/s"},
		"a duration that is none": {file: "handle: a\nurl: https://example.com\nbody: '{}'\nretry: {timeout: soon}\n", wrong: "10s"},
		"a list":                  {file: "- a\n- b\n", wrong: "mapping"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := domain.ParseTargetFile([]byte(tc.file))
			if tc.wrong != "" {
				if !errors.Is(err, domain.ErrMalformed) || !strings.Contains(err.Error(), tc.wrong) {
					t.Errorf("ParseTargetFile = %v, want it to speak of %q", err, tc.wrong)
				}
				return
			}
			if err != nil || got.Handle != tc.handle || got.Name != tc.title {
				t.Errorf("ParseTargetFile = %+v, %v", got.Target, err)
			}
		})
	}
}

func render(t *testing.T, tg domain.Target, context string) (domain.Rendering, error) {
	t.Helper()
	c, err := domain.CompileTarget(tg, domain.Partials{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := twig.DecodeContext([]byte(context))
	if err != nil {
		t.Fatal(err)
	}
	return c.Render(t.Context(), data, domain.Environment{
		Now: time.Now, Variables: map[string]any{"klaviyo_public_key": "PK"},
		Secret: func(name string) string { return "__placeholder_" + name + "__" },
	})
}

func TestRender(t *testing.T) {
	t.Parallel()
	got, err := render(t, target(func(t *domain.Target) {
		t.URL = "https://example.com/{{ id|url_encode }}"
		t.Headers = map[string]string{"Authorization": "Bearer {{ secret('key') }}"}
		t.Body = `{"name": "{{ name }}", "key": "{{ klaviyo_public_key }}", "missing": "{{ profile.city }}"}`
	}), `{"id": "a b", "name": "O\"Neil"}`)
	if err != nil {
		t.Fatal(err)
	}
	if got.URL != "https://example.com/a%20b" || got.Headers["Authorization"] != "Bearer __placeholder_key__" || got.Body != `{"name": "O\"Neil", "key": "PK", "missing": ""}` {
		t.Errorf("Render = %+v", got)
	}
	if len(got.Unresolved) != 1 || got.Unresolved[0].Name != "profile.city" || got.Unresolved[0].Part != "body" || got.Unresolved[0].Line != 1 {
		t.Errorf("unresolved = %+v", got.Unresolved)
	}
}

func TestWhatCannotBeRendered(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change          func(*domain.Target)
		context, reason string
	}{
		"a date that is none":                 {func(t *domain.Target) { t.Body = `{"d": "{{ d|date('Y') }}"}` }, `{"d":"planted-value"}`, "template_error"},
		"a variable that must be there":       {func(t *domain.Target) { t.Unresolved = domain.UnresolvedError }, `{}`, "unresolved"},
		"raw text that is no JSON":            {func(t *domain.Target) { t.Body = `{"d": {{ d|raw }} }` }, `{"d":"planted-value"}`, "invalid_body"},
		"a header value with a line break":    {func(t *domain.Target) { t.Headers = map[string]string{"X-A": "{{ d }}"} }, `{"n":1,"d":"planted-value\r\nX-B: b"}`, "template_error"},
		"a URL that is led elsewhere":         {func(t *domain.Target) { t.URL = "https://{{ d }}/x" }, `{"n":1,"d":"user:planted-value@evil.example"}`, "invalid_url"},
		"a secret that is changed on its way": {func(t *domain.Target) { t.Body = `{"d": "{{ secret('k')|upper }}"}` }, `{}`, "template_error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := render(t, target(tc.change), tc.context)
			var re *domain.RenderError
			if !errors.As(err, &re) || re.Reason != tc.reason {
				t.Fatalf("Render = %v, want %s", err, tc.reason)
			}
			if strings.Contains(re.Error(), "planted-value") {
				t.Errorf("the error quotes the context: %v", re)
			}
		})
	}
}

func TestRenderStopsWhenItIsNotWaitedForAnyMore(t *testing.T) {
	t.Parallel()
	c, err := domain.CompileTarget(target(func(t *domain.Target) {
		t.Body = `[{% for i in 1..100000 %}{% for j in 1..100000 %}{% endfor %}{% endfor %}]`
	}), domain.Partials{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	data, err := twig.DecodeContext([]byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Render(ctx, data, domain.Environment{Now: time.Now}); !errors.Is(err, context.Canceled) {
		t.Errorf("Render = %v, want context.Canceled", err)
	}
}

func TestConditions(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		condition, context string
		want               bool
	}{
		"none":                              {"", `{}`, true},
		"strictly equal":                    {`{"===":[{"var":"a.b"},1]}`, `{"a":{"b":1}}`, true},
		"a number is not strictly its text": {`{"===":[{"var":"a"},"1"]}`, `{"a":1}`, false},
		"null is neither true nor false":    {`{"===":[{"var":"a"},false]}`, `{}`, false},
		"not equal to what is missing":      {`{"!==":[{"var":"profile.attributes.comms.email_bounced"},true]}`, `{}`, true},
		"a bare operand of !":               {`{"!":{"in":["tag-1",{"var":"flattened_tags"}]}}`, `{"flattened_tags":["tag-2"]}`, true},
		"and of several":                    {`{"and":[{">":[{"var":"spend"},1000]},{"===":[{"var":"tier"},"gold"]}]}`, `{"spend":1500,"tier":"gold"}`, true},
		"an empty list is not true":         {`{"var":"tags"}`, `{"tags":[]}`, false},
		"a word is true":                    {`{"var":"tag"}`, `{"tag":"x"}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := domain.CompileTarget(target(func(t *domain.Target) { t.Condition = json.RawMessage(tc.condition) }), domain.Partials{})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := c.Holds([]byte(tc.context)); err != nil || got != tc.want {
				t.Errorf("Holds = %v, %v", got, err)
			}
		})
	}
}

func TestPartials(t *testing.T) {
	t.Parallel()
	partials := domain.Partials{Position: 9, Sources: map[string]string{
		"money":  `{% macro of(v) %}{{ v|number_format(2) }}{% endmacro %}`,
		"person": `{"name": "{{ profile.first_name }}"}`,
		"outer":  `{% include 'person' %}`,
	}}
	uses := func(handle, body string) domain.Target {
		return target(func(t *domain.Target) { t.Handle, t.Body = handle, body })
	}
	list := []domain.Target{uses("direct", `{% include 'person' %}`), uses("through-another", `{"a": {% include 'outer' %}}`), uses("plain", `{"plain": 1}`)}
	if _, err := domain.CompileTarget(list[0], domain.Partials{}); !errors.Is(err, domain.ErrMalformed) {
		t.Errorf("CompileTarget = %v for a partial that is not there, want ErrMalformed", err)
	}
	touched, err := partials.Change(domain.PartialChanged{Name: "person", Source: `{"name": "{{ profile.first_name|upper }}"}`}, list)
	if err != nil || !slices.Equal(touched, []string{"direct", "through-another"}) {
		t.Errorf("Change = %v, %v, want the two that name it, one of them through another", touched, err)
	}
	if got := partials.TouchedBy("person", list); !slices.Equal(got, touched) {
		t.Errorf("TouchedBy = %v, want %v", got, touched)
	}
	var breaks *domain.BreaksError
	if _, err = partials.Change(domain.PartialDeleted{Name: "person"}, list); !errors.As(err, &breaks) || len(breaks.Targets) != 2 || breaks.Targets["direct"] == nil {
		t.Errorf("Change = %v, want an error that names both targets", err)
	}
	broken := append(list, uses("broken-before", `{% include 'nobody' %}`))
	if touched, err := partials.Change(domain.PartialDeleted{Name: "money"}, broken); err != nil || len(touched) != 0 {
		t.Errorf("Change = %v, %v for a partial that nobody names, beside a target that was broken before", touched, err)
	}
	if _, err := partials.Change(domain.PartialChanged{Name: "person", Source: `{{ x|`}, list); !errors.Is(err, domain.ErrMalformed) {
		t.Errorf("Change = %v for a template that is none, want ErrMalformed", err)
	}
	c, err := domain.CompileTarget(list[1], partials)
	if err != nil {
		t.Fatal(err)
	}
	data, err := twig.DecodeContext([]byte(`{"profile":{"first_name":"J\"n"}}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Render(t.Context(), data, domain.Environment{Now: time.Now})
	if err != nil || got.Body != `{"a": {"name": "J\"n"}}` {
		t.Errorf("Render = %q, %v", got.Body, err)
	}
	none, err := twig.DecodeContext([]byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err = c.Render(t.Context(), none, domain.Environment{Now: time.Now})
	if want := (domain.Unresolved{Name: "profile.first_name", Part: "body", Partial: "person", Line: 1, Column: 14}); err != nil || len(got.Unresolved) != 1 || got.Unresolved[0] != want {
		t.Errorf("Unresolved = %+v, %v, want %+v", got.Unresolved, err, want)
	}
	c.Target.Unresolved = domain.UnresolvedError
	var failed *domain.RenderError
	if _, err = c.Render(t.Context(), none, domain.Environment{Now: time.Now}); !errors.As(err, &failed) || !strings.Contains(failed.Message, "in the partial person") {
		t.Errorf("Render = %v, want an error that names the partial", err)
	}
}
