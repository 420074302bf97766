package domain

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
)

// unquoted is a name or description whose plain text holds ": ", which YAML would take for a mapping. People write
// "name: Klaviyo: Reward Earned", and it can mean one thing only.
var unquoted = regexp.MustCompile(`(?m)^(name|description|notes):[ \t]+([^"'|>\s][^\n#]*: [^\n#]*?)[ \t]*$`)

// ParseTargetFile reads a target from a YAML or JSON file: strictly, completed with the defaults and checked.
// Errors are *InvalidError, with the line where YAML knows it.
func ParseTargetFile(content []byte) (TargetChanged, error) {
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
		return TargetChanged{}, Invalid("", "is neither YAML nor JSON: %s", message)
	}
	var handle struct {
		Handle string `json:"handle"`
	}
	if err := json.Unmarshal(asJSON, &handle); err != nil {
		return TargetChanged{}, Invalid("", "is not a mapping of fields to values: %s", fmt.Sprint(asInvalid(err)))
	}
	return ParseTarget(asJSON, handle.Handle)
}
