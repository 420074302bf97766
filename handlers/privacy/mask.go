package privacy

import (
	"bytes"
	"encoding/json"
	"regexp"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// maskPlaceholders replaces what begins with a delivery's placeholder, and drops the placeholder itself.
func maskPlaceholders(secret []byte, placeholder string) json.RawMessage {
	found := regexp.MustCompile(regexp.QuoteMeta(placeholder) + `[A-Za-z0-9_.-]*` + regexp.QuoteMeta(domain.PlaceholderEnd) + `?`)
	masked := found.ReplaceAll(secret, []byte("••••"))
	var fields map[string]json.RawMessage
	if json.Unmarshal(masked, &fields) != nil {
		return nil // not the JSON that was sealed: rather nothing than something unmasked
	}
	delete(fields, "placeholder")
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(fields) != nil {
		return nil
	}
	return bytes.TrimSpace(out.Bytes())
}
