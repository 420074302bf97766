package domain

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// A NUL character is valid in JSON, but PostgreSQL stores such JSON and then fails every statement that takes the
// string out of it: one event with it in its open half would stop a projection for good. So none gets in.

var nulEscape = []byte(`\u0000`)

// refuseNUL points at the first string of a JSON value that holds a NUL.
func refuseNUL(data []byte) error {
	if !bytes.Contains(data, nulEscape) {
		return nil
	}
	var v any
	if json.Unmarshal(data, &v) == nil { // what is no JSON is refused as such
		if pointer, found := findNUL(v); found {
			return Invalid(pointer, "holds the character NUL")
		}
	}
	return nil
}

func findNUL(v any) (pointer string, found bool) {
	switch v := v.(type) {
	case string:
		return "", strings.Contains(v, "\x00")
	case []any:
		for i, element := range v {
			if at, found := findNUL(element); found {
				return "/" + strconv.Itoa(i) + at, true
			}
		}
	case map[string]any:
		for name, element := range v {
			if strings.Contains(name, "\x00") {
				return "", true
			}
			if at, found := findNUL(element); found {
				return "/" + pointerEscaper.Replace(name) + at, true
			}
		}
	}
	return "", false
}

var pointerEscaper = strings.NewReplacer("~", "~0", "/", "~1")

// replaceNUL puts U+FFFD where a JSON text escapes a NUL.
func replaceNUL(data []byte) []byte {
	if !bytes.Contains(data, nulEscape) {
		return data
	}
	out := make([]byte, 0, len(data))
	for i := 0; i < len(data); i++ {
		switch {
		case bytes.HasPrefix(data[i:], nulEscape):
			out = append(out, `\ufffd`...)
			i += len(nulEscape) - 1
		case data[i] == '\\' && i+1 < len(data): // an escaped backslash must not begin an escape
			out = append(out, data[i], data[i+1])
			i++
		default:
			out = append(out, data[i])
		}
	}
	return out
}
