package twig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestServeNDJSON(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ line, want string }{
		"output":                 {`{"id":1,"template":"Hi {{ name }}","context":{"name":"Ada"}}`, `{"id":1,"output":"Hi Ada"}`},
		"any id":                 {`{"id":{"a":[1]},"template":"x"}`, `{"id":{"a":[1]},"output":"x"}`},
		"no id":                  {`{"template":"x"}`, `{"id":null,"output":"x"}`},
		"no context":             {`{"id":"a","template":"{{ 1 + 1 }}"}`, `{"id":"a","output":"2"}`},
		"empty output":           {`{"id":"a","template":""}`, `{"id":"a","output":""}`},
		"no HTML escaping":       {`{"id":"a","template":"<&>"}`, `{"id":"a","output":"<&>"}`},
		"unresolved":             {`{"id":1,"template":"a\n{{ p.x }}","context":{}}`, `{"id":1,"output":"a\n","unresolved":[{"name":"p.x","line":2,"column":4}]}`},
		"strict":                 {`{"id":1,"template":"{{ x }}","strict":true}`, `{"id":1,"error":{"code":"unresolved_variable","message":"variable \"x\" is not in the context","line":1,"column":4,"suggestion":"give it a default (|default or ??) or send it in the context","expression":"x","template":"index.twig","phase":"render"}}`},
		"a compile error":        {`{"id":1,"template":"\n{{ x|uper }}"}`, `{"id":1,"error":{"code":"unknown_filter","message":"unknown filter \"uper\"","line":2,"column":6,"suggestion":"did you mean \"upper\"?","template":"index.twig","phase":"compile"}}`},
		"JSON by the source":     {`{"id":1,"template":"{\"a\": \"{{ x }}\"}","context":{"x":"\""}}`, `{"id":1,"output":"{\"a\": \"\\\"\"}"}`},
		"JSON by content type":   {`{"id":1,"template":"{{ x }}","context":{"x":"a"},"content_type":"application/vnd.api+json; charset=utf-8"}`, `{"id":1,"output":"\"a\""}`},
		"plain by content type":  {`{"id":1,"template":"{\"a\": {{ x }}}","context":{"x":true},"content_type":"text/plain"}`, `{"id":1,"output":"{\"a\": 1}"}`},
		"autoescape wins":        {`{"id":1,"template":"{{ x }}","context":{"x":"<"},"content_type":"application/json","autoescape":"html"}`, `{"id":1,"output":"&lt;"}`},
		"autoescape off":         {`{"id":1,"template":"[{{ x }}]","context":{"x":true},"autoescape":false}`, `{"id":1,"output":"[1]"}`},
		"partials":               {`{"id":1,"template":"{% extends 'base' %}{% block b %}{{ include('p') }}{% endblock %}","templates":{"base":"<{% block b %}{% endblock %}>","p":"{{ x }}"},"context":{"x":1}}`, `{"id":1,"output":"<1>"}`},
		"an unknown partial":     {`{"id":1,"template":"{{ include('bse') }}","templates":{"base":""}}`, `{"id":1,"error":{"code":"unknown_partial","message":"template \"bse\" is not known","line":1,"column":12,"suggestion":"did you mean \"base\"?","template":"index.twig","phase":"render"}}`},
		"a time zone":            {`{"id":1,"template":"{{ 0|date('H:i') }}","timezone":"Australia/Sydney"}`, `{"id":1,"output":"10:00"}`},
		"an unknown time zone":   {`{"id":1,"template":"x","timezone":"Mars"}`, `{"id":1,"error":{"code":"date","message":"unknown time zone \"Mars\"","line":0,"column":0,"template":"index.twig","phase":"compile"}}`},
		"the clock":              {`{"id":1,"template":"{{ 'now'|date('Y-m-d') }}"}`, `{"id":1,"output":"2026-02-03"}`},
		"another clock":          {`{"id":1,"template":"{{ 'now'|date('c') }}","now":"2030-01-01T00:00:00Z"}`, `{"id":1,"output":"2030-01-01T00:00:00+00:00"}`},
		"globals":                {`{"id":1,"template":"{% macro m() %}{{ g }}{% endmacro %}{{ _self.m() }}","globals":{"g":1.5}}`, `{"id":1,"output":"1.5"}`},
		"formats":                {`{"id":1,"template":"{{ 0|date }} {{ 1234.5|number_format }}","date_format":"Y","number_format":[1,",","."]}`, `{"id":1,"output":"1970 1.234,5"}`},
		"no template":            {`{"id":1}`, `{"id":1,"error":{"code":"invalid_request","message":"the request has no \"template\"","line":0,"column":0,"phase":"compile"}}`},
		"no object":              {`[1]`, `{"id":null,"error":{"code":"invalid_request","message":"the line is not a request: json: cannot unmarshal array into Go value of type twig.request","line":0,"column":0,"phase":"compile"}}`},
		"a wrong type":           {`{"id":7,"template":1}`, `{"id":7,"error":{"code":"invalid_request","message":"the line is not a request: json: cannot unmarshal number into Go struct field request.template of type string","line":0,"column":0,"phase":"compile"}}`},
		"a context that is none": {`{"id":1,"template":"x","context":[1]}`, `{"id":1,"error":{"code":"invalid_context","message":"context must be a JSON object of variables, got a list","line":0,"column":0,"phase":"render"}}`},
		"an unknown autoescape":  {`{"id":1,"template":"x","autoescape":"xml"}`, `{"id":1,"error":{"code":"invalid_request","message":"\"autoescape\" must be false, \"json\", \"html\" or \"name\", got xml","line":0,"column":0,"phase":"compile"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if err := ServeNDJSON(context.Background(), strings.NewReader(tc.line), &out, fixedNow); err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSuffix(out.String(), "\n"); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

// TestServeNDJSONStream answers each line, in order, before the next arrives, whatever the lines are.
func TestServeNDJSONStream(t *testing.T) {
	t.Parallel()
	in, requests := io.Pipe()
	answers, out := io.Pipe()
	done := make(chan error)
	go func() {
		err := ServeNDJSON(context.Background(), in, out, fixedNow)
		out.Close()
		done <- err
	}()
	decoder := json.NewDecoder(answers)
	for _, line := range []string{`{"id":1,"template":"a"}`, "", "  ", `{broken`, `{"id":2,"template":"{{ nope() }}"}`, `{"id":3,"template":"b"}`} {
		if _, err := io.WriteString(requests, line+"\r\n"); err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(line) == "" {
			continue
		}
		var a struct {
			ID     *int
			Output *string
			Error  *Error
		}
		if err := decoder.Decode(&a); err != nil {
			t.Fatal(err)
		}
		if (a.Output == nil) == (a.Error == nil) {
			t.Errorf("%s is answered with %+v", line, a)
		}
	}
	requests.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestServeNDJSONEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := ServeNDJSON(ctx, strings.NewReader(`{"template":"x"}`), io.Discard, fixedNow); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	failing := errors.New("disk full")
	if err := ServeNDJSON(context.Background(), strings.NewReader(`{"template":"x"}`), writerFunc(func([]byte) (int, error) { return 0, failing }), fixedNow); !errors.Is(err, failing) {
		t.Errorf("a failing writer: %v", err)
	}
	var out bytes.Buffer
	long := `{"id":1,"template":"` + strings.Repeat("x", requestBytes) + "\"}\n" + `{"id":2,"template":"x"}`
	if err := ServeNDJSON(context.Background(), strings.NewReader(long), &out, fixedNow); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != 2 || !strings.Contains(lines[0], "longer than") || lines[1] != `{"id":2,"output":"x"}` {
		t.Errorf("a line too long: %q", out.String())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
