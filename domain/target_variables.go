package domain

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"regexp"
	"slices"

	"github.com/dispatch-ledger/dispatch-ledger/domain/twig"
)

// ApprovalRequired is the approval of a target whose changes need two people.
const ApprovalRequired = "required"

const (
	maxVariables    = 128
	maxEnvironments = 32
	maxConstant     = 8 << 10  // bytes of one constant
	maxSample       = 64 << 10 // bytes of the sample
	maxRedirects    = 5
)

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// Constants are what the target's templates may name besides the context, in an environment: the service's own, which go
// before the target's for the environment, which go before the target's for all. The result may be one of its arguments.
func (t Target) Constants(environment string, service map[string]any) map[string]any {
	if len(t.Variables) == 0 && len(t.Environments[environment]) == 0 {
		return service
	}
	out := make(map[string]any, len(t.Variables)+len(service))
	maps.Copy(out, t.Variables)
	maps.Copy(out, t.Environments[environment])
	maps.Copy(out, service)
	return out
}

// ConstantsUsed says which constants a request was rendered with: the target's stand in its version, the service's nowhere else.
type ConstantsUsed struct {
	Environment string   `json:"environment,omitempty" doc:"the service's environment, which selects among the target's"`
	SHA256      string   `json:"sha256" doc:"hex, of the constants as a JSON object with its names in order"`
	Shadowed    []string `json:"shadowed,omitempty" doc:"constants of which the firing's context has a variable of the same name; the context's was used"`
}

// ConstantsUsed gives the constants in force for a context; nil without any.
func (c *CompiledTarget) ConstantsUsed(data *twig.Context, env Environment) (*ConstantsUsed, error) {
	constants := c.Constants(env.Name, env.Variables)
	if len(constants) == 0 {
		return nil, nil
	}
	text, err := json.Marshal(constants)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	used := &ConstantsUsed{Environment: env.Name, SHA256: hex.EncodeToString(sum[:])}
	for _, name := range slices.Sorted(maps.Keys(constants)) {
		if data.Has(name) {
			used.Shadowed = append(used.Shadowed, name)
		}
	}
	return used, nil
}

// VariableNames lists the constants that the target has in any environment, in order.
func (t Target) VariableNames() []string {
	names := slices.Collect(maps.Keys(t.Variables))
	for _, set := range t.Environments {
		names = slices.AppendSeq(names, maps.Keys(set))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (t Target) validateVariables() error {
	if err := validateConstants(t.Variables); err != nil {
		return within("/variables", err)
	}
	if len(t.Environments) > maxEnvironments {
		return Invalid("/environments", "holds %d, more than %d", len(t.Environments), maxEnvironments)
	}
	for _, name := range slices.Sorted(maps.Keys(t.Environments)) {
		if !handlePattern.MatchString(name) {
			return Invalid("/environments", "names %q; a name is 1 to 128 letters, digits, '.', '_' and '-'", clip(name))
		}
		if err := validateConstants(t.Environments[name]); err != nil {
			return within("/environments/"+pointerToken(name), err)
		}
	}
	return nil
}

func validateConstants(constants map[string]any) error {
	if len(constants) > maxVariables {
		return Invalid("", "holds %d, more than %d", len(constants), maxVariables)
	}
	for _, name := range slices.Sorted(maps.Keys(constants)) {
		if !variableName.MatchString(name) {
			return Invalid("", "names %q; a name is a letter or '_', then up to 63 letters, digits and '_'", clip(name))
		}
		switch v := constants[name].(type) {
		case bool, float64:
		case string:
			if len(v) > maxConstant {
				return Invalid("/"+name, "is %d bytes, more than %d", len(v), maxConstant)
			}
		default:
			return Invalid("/"+name, "is neither a text nor a number nor true or false")
		}
	}
	return nil
}

// validateProcess looks at how the target is tested and changed, and how far its requests may be led.
func (t Target) validateProcess() error {
	sample := bytes.TrimSpace(t.Sample)
	switch {
	case t.Redirects < 0 || t.Redirects > maxRedirects:
		return Invalid("/redirects", "is %d; it is 0 to %d", t.Redirects, maxRedirects)
	case t.Approval != "" && t.Approval != ApprovalRequired:
		return Invalid("/approval", "is %q; it is %s, or left out", clip(t.Approval), ApprovalRequired)
	case len(sample) > maxSample:
		return Invalid("/sample", "is %d bytes, more than %d", len(sample), maxSample)
	case len(sample) > 0 && (sample[0] != '{' || !json.Valid(sample)):
		return Invalid("/sample", "is not a JSON object")
	}
	return nil
}
