package twig

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Context is the data that a template renders from: a JSON object, decoded once with its order of keys and the
// difference between 10 and 10.0. It is never changed; one Context may serve many renderings at once.
type Context struct {
	root *Array
}

// Has reports whether the context has a variable of that name.
func (c *Context) Has(name string) bool {
	if c == nil || c.root == nil {
		return false
	}
	_, ok := c.root.Get(stringKey(name))
	return ok
}

// contextDepth bounds the nesting of a context.
const contextDepth = 512

// DecodeContext reads a JSON object. Nothing at all and null are an empty context; an empty list is too, since PHP
// writes an empty mapping so. The error is an *Error with the code CodeContext.
func DecodeContext(raw []byte) (*Context, error) {
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	v, err := decodeValue(d, 0)
	if errors.Is(err, io.EOF) && strings.TrimSpace(string(raw)) == "" {
		return &Context{root: newArray(0)}, nil
	}
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the JSON object")
		}
	}
	if err != nil {
		return nil, contextError("context is not JSON: "+describeJSON(err, raw, d), err)
	}
	switch v := v.(type) {
	case nil:
		return &Context{root: newArray(0)}, nil
	case *Array:
		if v.object || v.Len() == 0 {
			return &Context{root: v}, nil
		}
		return nil, contextError("context must be a JSON object of variables, got a list", nil)
	}
	return nil, contextError("context must be a JSON object of variables, got "+typeName(v), nil)
}

func contextError(message string, cause error) *Error {
	return &Error{Code: CodeContext, Message: message, Phase: render, cause: cause}
}

func describeJSON(err error, raw []byte, d *json.Decoder) string {
	offset := min(int(d.InputOffset()), len(raw))
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		offset = min(int(syntax.Offset), len(raw))
	}
	line := 1 + strings.Count(string(raw[:offset]), "\n")
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "it ends too early (line " + strconv.Itoa(line) + ")"
	}
	return fmt.Sprintf("%s (line %d, byte %d)", err, line, offset)
}

func decodeValue(d *json.Decoder, depth int) (Value, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err //nolint:wrapcheck // described by the caller
	}
	switch t := t.(type) {
	case json.Number:
		return decodeNumber(string(t)), nil
	case json.Delim:
		if depth >= contextDepth {
			return nil, errors.New("nested more than 512 deep")
		}
		if t == '[' {
			return decodeList(d, depth)
		}
		return decodeObject(d, depth)
	}
	return t, nil
}

// decodeNumber keeps integers apart from floats; integers beyond 64 bits become floats, as in PHP.
func decodeNumber(s string) Value {
	if !strings.ContainsAny(s, ".eE") {
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			return i
		}
	}
	f, _ := strconv.ParseFloat(s, 64) // out of range gives ±Inf, as in PHP
	return f
}

func decodeList(d *json.Decoder, depth int) (Value, error) {
	a := newArray(0)
	for d.More() {
		v, err := decodeValue(d, depth+1)
		if err != nil {
			return nil, err
		}
		a.add(v)
	}
	_, err := d.Token()
	return a, err //nolint:wrapcheck // described by the caller
}

func decodeObject(d *json.Decoder, depth int) (Value, error) {
	a := newArray(0)
	a.object = true
	a.keys = []Key{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err //nolint:wrapcheck // described by the caller
		}
		key, _ := t.(string)
		v, err := decodeValue(d, depth+1)
		if err != nil {
			return nil, err
		}
		a.set(stringKey(key), v)
	}
	_, err := d.Token()
	return a, err //nolint:wrapcheck // described by the caller
}
