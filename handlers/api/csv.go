package api

import (
	"encoding"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// mediaTypeCSV is how lists may be asked for besides JSON. The columns are the fields, with dots between an object's name and
// its fields'; what is a list inside an item stays JSON.
const mediaTypeCSV = "text/csv"

var csvFormat = huma.Format{Marshal: func(w io.Writer, v any) error {
	if page, ok := v.(interface{ rows() any }); ok {
		v = page.rows()
	}
	return WriteCSV(w, v, true)
}}

// rows gives the items of any page.
func (p Page[T]) rows() any { return p.Items }

// next gives the cursor of what follows any page.
func (p Page[T]) next() *string { return p.Next }

// linkNext says in a header where the list goes on, since CSV has no place for it.
func linkNext(ctx huma.Context, _ string, v any) (any, error) {
	page, ok := v.(interface{ next() *string })
	if !ok || page.next() == nil {
		return v, nil
	}
	at := ctx.URL()
	query := at.Query()
	query.Set("cursor", *page.next())
	target := url.URL{Path: at.Path, RawQuery: query.Encode()}
	ctx.SetHeader("Link", "<"+target.String()+`>; rel="next"`)
	return v, nil
}

// WriteCSV writes a slice of structs, or one struct, as RFC 4180 with or without a line of column names. Text that a
// spreadsheet would take for a formula gets an apostrophe before it.
func WriteCSV(w io.Writer, items any, heading bool) error {
	v := reflect.ValueOf(items)
	if v.Kind() != reflect.Slice {
		v = reflect.Append(reflect.MakeSlice(reflect.SliceOf(v.Type()), 0, 1), v)
	}
	columns := columnsOf(v.Type().Elem(), "", nil)
	out := csv.NewWriter(w)
	if heading {
		names := make([]string, len(columns))
		for i, c := range columns {
			names[i] = c.name
		}
		if err := out.Write(names); err != nil {
			return err
		}
	}
	cells := make([]string, len(columns))
	for i := range v.Len() {
		for j, c := range columns {
			cell, err := c.of(v.Index(i))
			if err != nil {
				return fmt.Errorf("column %s: %w", c.name, err)
			}
			cells[j] = harmless(cell)
		}
		if err := out.Write(cells); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// column is a field somewhere in a struct.
type column struct {
	name string
	path [][]int // an index after each pointer
}

var (
	textType = reflect.TypeFor[encoding.TextMarshaler]()
	jsonType = reflect.TypeFor[json.Marshaler]()
)

// columnsOf lists the fields of a struct as JSON has them, those of its objects after their name.
func columnsOf(t reflect.Type, prefix string, path [][]int) []column {
	var out []column
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" || f.Anonymous && name == "" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		at := append(append([][]int{}, path...), f.Index)
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && !inner.Implements(textType) && !inner.Implements(jsonType) {
			out = append(out, columnsOf(inner, prefix+name+".", at)...)
			continue
		}
		out = append(out, column{prefix + name, at})
	}
	return out
}

// of gives the cell of a row, empty where a part of the way is null.
func (c column) of(v reflect.Value) (string, error) {
	for _, index := range c.path {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return "", nil
			}
			v = v.Elem()
		}
		var err error
		if v, err = v.FieldByIndexErr(index); err != nil {
			return "", nil //nolint:nilerr // an embedded struct that is not there has no fields
		}
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return "", nil
		}
		v = v.Elem()
	}
	if v.Kind() == reflect.String {
		return v.String(), nil
	}
	text, err := json.Marshal(v.Interface())
	if err != nil {
		return "", err
	}
	if unquoted := ""; json.Unmarshal(text, &unquoted) == nil && text[0] == '"' {
		return unquoted, nil
	}
	if string(text) == "null" || string(text) == "[]" {
		return "", nil
	}
	return string(text), nil
}

// harmless keeps a spreadsheet from taking text for a formula. Numbers are left as they are.
func harmless(cell string) string {
	if cell == "" || !strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		return cell
	}
	if cell[0] == '-' && strings.Trim(cell[1:], "0123456789.eE+-") == "" {
		return cell
	}
	return "'" + cell
}
