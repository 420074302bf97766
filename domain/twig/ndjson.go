package twig

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// request is one line of ServeNDJSON's input.
type request struct {
	ID           json.RawMessage   `json:"id"`
	Template     *string           `json:"template"`
	Context      json.RawMessage   `json:"context"`
	ContentType  string            `json:"content_type"`  // decides the mode: JSON for JSON types, plain Twig for others
	Strict       bool              `json:"strict"`        // an unresolved variable is an error
	Templates    map[string]string `json:"templates"`     // partials by name
	Timezone     string            `json:"timezone"`      // IANA name, default UTC
	Autoescape   any               `json:"autoescape"`    // false, "json", "html", "name"; wins over content_type
	Globals      json.RawMessage   `json:"globals"`       // variables that macros see too
	Name         string            `json:"name"`          // of the template
	DateFormat   any               `json:"date_format"`   // format, or [format, interval format]
	NumberFormat []any             `json:"number_format"` // [decimals, point, thousands]
	StrictTypes  bool              `json:"strict_types"`  // text that is a number stays a JSON string
	Now          *time.Time        `json:"now"`           // instead of the clock
}

// answer is one line of the output: Output or Error.
type answer struct {
	ID         json.RawMessage `json:"id"`
	Output     *string         `json:"output,omitempty"`
	Error      *Error          `json:"error,omitempty"`
	Unresolved []Unresolved    `json:"unresolved,omitempty"`
}

// requestBytes bounds one line of input.
const requestBytes = 32 << 20

// CodeRequest is the code of an answer to a line that is no request.
const CodeRequest = "invalid_request"

// ServeNDJSON answers render requests, one JSON object a line, in order, until r ends.
//
// A line is {"id", "template", "context"} and optionally "content_type", "strict", "templates" (name to source,
// resolved as partials), "timezone", "autoescape", "globals", "name", "date_format", "number_format", "strict_types"
// and "now". Its answer is {"id", "output"} or {"id", "error": {"code", "message", "line", "column", …}}, with
// "unresolved" when the context lacked variables. A line that is no request is answered with the code CodeRequest.
// Each answer is written before the next line is read. The error is that of reading, writing or ctx.
func ServeNDJSON(ctx context.Context, r io.Reader, w io.Writer, now func() time.Time) error {
	in := bufio.NewReaderSize(r, 1<<16)
	out := bufio.NewWriter(w)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	cache := NewCache(256)
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("render: %w", err)
		}
		line, tooLong, err := readLine(in)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("render: reading requests: %w", err)
		}
		last := errors.Is(err, io.EOF)
		if len(bytes.TrimSpace(line)) > 0 || tooLong {
			a := serve(ctx, cache, line, tooLong, now)
			if err := encoder.Encode(a); err != nil {
				return fmt.Errorf("render: writing answers: %w", err)
			}
			if err := out.Flush(); err != nil {
				return fmt.Errorf("render: writing answers: %w", err)
			}
		}
		if last {
			return nil
		}
	}
}

// readLine reads a line of any length, and drops what exceeds requestBytes.
func readLine(in *bufio.Reader) (line []byte, tooLong bool, err error) {
	for {
		chunk, err := in.ReadSlice('\n')
		if len(line)+len(chunk) > requestBytes {
			tooLong = true
			line = nil
		}
		if !tooLong {
			line = append(line, chunk...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, tooLong, err //nolint:wrapcheck // wrapped by the caller
		}
	}
}

func serve(ctx context.Context, cache *Cache, line []byte, tooLong bool, now func() time.Time) answer {
	var q request
	a := answer{ID: json.RawMessage("null")}
	if tooLong {
		a.Error = &Error{Code: CodeRequest, Message: fmt.Sprintf("the line is longer than %d bytes", requestBytes), Phase: phaseCompile}
		return a
	}
	if err := json.Unmarshal(line, &q); err != nil {
		a.Error = &Error{Code: CodeRequest, Message: "the line is not a request: " + err.Error(), Phase: phaseCompile}
		var id struct {
			ID json.RawMessage `json:"id"`
		}
		if json.Unmarshal(line, &id) == nil && id.ID != nil {
			a.ID = id.ID
		}
		return a
	}
	if q.ID != nil {
		a.ID = q.ID
	}
	result, err := q.render(ctx, cache, now)
	if err != nil {
		var e *Error
		if !errors.As(err, &e) {
			e = &Error{Code: CodeRequest, Message: err.Error(), Phase: phaseCompile}
		}
		a.Error = e
		return a
	}
	a.Output, a.Unresolved = &result.Output, result.Unresolved
	return a
}

func (q *request) render(ctx context.Context, cache *Cache, now func() time.Time) (Result, error) {
	if q.Template == nil {
		return Result{}, errors.New(`the request has no "template"`)
	}
	o, err := q.options()
	if err != nil {
		return Result{}, err
	}
	t, err := q.compile(cache, o)
	if err != nil {
		return Result{}, err
	}
	c, err := DecodeContext(q.Context)
	if err != nil {
		return Result{}, err
	}
	if q.Now != nil {
		now = func() time.Time { return *q.Now }
	}
	return t.Render(ctx, c, RenderOptions{Now: now, Strict: q.Strict})
}

// compile keeps templates that stand alone; those with partials of their own are compiled each time.
func (q *request) compile(cache *Cache, o Options) (*Template, error) {
	if q.Templates != nil || q.Globals != nil {
		return Compile(*q.Template, o)
	}
	return cache.Compile(*q.Template, o, "")
}

func (q *request) options() (Options, error) {
	o := Options{Name: q.Name, Timezone: q.Timezone, StrictTypes: q.StrictTypes}
	mode, err := q.mode()
	if err != nil {
		return o, err
	}
	o.Mode = mode
	if q.Templates != nil {
		o.Partials = func(name string) (string, bool) {
			s, ok := q.Templates[name]
			return s, ok
		}
		o.Names = sortedKeys(q.Templates)
	}
	if len(q.Globals) > 0 {
		c, err := DecodeContext(q.Globals)
		if err != nil {
			return o, fmt.Errorf("globals: %w", err)
		}
		o.Globals = map[string]any{}
		for i, v := range c.root.vals {
			o.Globals[c.root.key(i).String()] = v
		}
	}
	formats, _ := q.DateFormat.([]any)
	if s, ok := q.DateFormat.(string); ok {
		formats = []any{s}
	}
	if len(formats) > 0 {
		o.DateFormat, _ = formats[0].(string)
	}
	if len(formats) > 1 {
		o.Interval, _ = formats[1].(string)
	}
	if len(q.NumberFormat) == 3 {
		decimals, okDecimals := q.NumberFormat[0].(float64)
		point, okPoint := q.NumberFormat[1].(string)
		thousands, okThousands := q.NumberFormat[2].(string)
		if !okDecimals || !okPoint || !okThousands {
			return o, errors.New(`"number_format" must be [decimals, point, thousands]`)
		}
		o.Number = NumberFormat{Decimals: int(decimals), Point: point, Thousands: thousands, Set: true}
	}
	return o, nil
}

// mode reads autoescape and content_type.
func (q *request) mode() (Mode, error) {
	switch v := q.Autoescape.(type) {
	case nil:
		return ModeForContentType(q.ContentType), nil
	case bool:
		if v {
			return ModeHTML, nil
		}
		return ModeText, nil
	case string:
		switch v {
		case "json":
			return ModeJSON, nil
		case "html":
			return ModeHTML, nil
		case "name":
			return ModeName, nil
		case "", "off", "none", "false":
			return ModeText, nil
		case "any", "auto":
			return ModeForContentType(q.ContentType), nil
		}
	}
	return ModeAuto, fmt.Errorf(`"autoescape" must be false, "json", "html" or "name", got %v`, q.Autoescape)
}

// ModeForContentType is the mode for a body of a media type: ModeJSON for JSON, ModeAuto when none is given, else
// ModeText.
func ModeForContentType(contentType string) Mode {
	media, _, _ := strings.Cut(strings.ToLower(contentType), ";")
	media = strings.TrimSpace(media)
	switch {
	case media == "":
		return ModeAuto
	case strings.HasSuffix(media, "/json"), strings.HasSuffix(media, "+json"):
		return ModeJSON
	}
	return ModeText
}
