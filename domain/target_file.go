package domain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
)

// unquoted is a name or description whose plain text holds ": ", which YAML would take for a mapping. People write
// "name: Klaviyo: Reward Earned", and it can mean one thing only.
var unquoted = regexp.MustCompile(`(?m)^(name|description|notes):[ \t]+([^"'|>\s][^\n#]*: [^\n#]*?)[ \t]*$`)

// TargetJSON turns a target file, which is YAML or JSON, into the JSON that [ParseTarget] reads. The error is an
// *InvalidError, with the line where YAML knows it.
func TargetJSON(content []byte) ([]byte, error) {
	quoted := unquoted.ReplaceAllFunc(content, func(line []byte) []byte {
		parts := unquoted.FindSubmatch(line)
		text, err := json.Marshal(string(parts[2]))
		if err != nil {
			return line
		}
		return append(append(append([]byte{}, parts[1]...), ": "...), text...)
	})
	asJSON, err := yaml.YAMLToJSON(quoted)
	if err != nil {
		message, _, _ := strings.Cut(yaml.FormatError(err, false, false), "\n")
		return nil, Invalid("", "is neither YAML nor JSON: %s", message)
	}
	return asJSON, nil
}

// ParseTargetFile reads a target from a YAML or JSON file: strictly, completed with the defaults and checked.
// Errors are *InvalidError, with the line where YAML knows it.
func ParseTargetFile(content []byte) (TargetChanged, error) {
	asJSON, err := TargetJSON(content)
	if err != nil {
		return TargetChanged{}, err
	}
	var handle struct {
		Handle string `json:"handle"`
	}
	if err := json.Unmarshal(asJSON, &handle); err != nil {
		return TargetChanged{}, Invalid("", "is not a mapping of fields to values: %s", fmt.Sprint(asInvalid(err)))
	}
	return ParseTarget(asJSON, handle.Handle)
}

// File writes the target as a file that [ParseTargetFile] reads back as the same target: as YAML, with templates in block
// style, or as JSON where YAML cannot say all of it.
func (t Target) File() ([]byte, error) {
	written, err := marshal(t)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(written))
	dec.UseNumber()
	if tree, err := ordered(dec); err == nil {
		file, err := yaml.MarshalWithOptions(tree, yaml.UseLiteralStyleIfMultiline(true))
		if err == nil {
			if back, err := ParseTargetFile(file); err == nil && sameTarget(back.Target, t) {
				return file, nil
			}
		}
	}
	var indented bytes.Buffer
	err = json.Indent(&indented, written, "", "  ")
	return indented.Bytes(), err
}

// sameTarget compares what two targets say.
func sameTarget(a, b Target) bool {
	x, errX := marshal(a)
	y, errY := marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// ordered reads a JSON value for YAML, with the fields of objects in their order.
func ordered(dec *json.Decoder) (any, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		fields := yaml.MapSlice{}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, err
			}
			value, err := ordered(dec)
			if err != nil {
				return nil, err
			}
			fields = append(fields, yaml.MapItem{Key: key, Value: value})
		}
		_, err = dec.Token()
		return fields, err
	case json.Delim('['):
		items := []any{}
		for dec.More() {
			value, err := ordered(dec)
			if err != nil {
				return nil, err
			}
			items = append(items, value)
		}
		_, err = dec.Token()
		return items, err
	}
	if n, ok := token.(json.Number); ok {
		if whole, err := n.Int64(); err == nil {
			return whole, nil
		}
		if whole, err := strconv.ParseUint(n.String(), 10, 64); err == nil {
			return whole, nil
		}
		return n.Float64()
	}
	return token, nil
}
