package api

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"testing"
)

// TestTheReferenceIsThisAPI keeps the description in the docs equal to what is served, so that a change of the surface
// is seen where it is reviewed. make generate writes it anew.
func TestTheReferenceIsThisAPI(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.Version = "" })
	got := append(h.call("", "GET", "/openapi.json", "").Body.Bytes(), '\n')
	want, err := os.ReadFile("../../docs/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("docs/openapi.json is not what /openapi.json answers; run make generate and look at the difference")
	}
}

// TestWhatAPathNamesIsRead holds every operation to reading what stands in its path: an input that is embedded and not
// exported is passed over without a word, and its operation finds nothing.
func TestWhatAPathNamesIsRead(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	var api struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(h.call("", "GET", "/openapi.json", "").Body.Bytes(), &api); err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`{(\w+)}`)
	for path, operations := range api.Paths {
		for method, raw := range operations {
			if !slices.Contains([]string{"get", "put", "post", "delete"}, method) {
				continue
			}
			var op struct {
				Parameters []struct{ Name, In string }
			}
			if err := json.Unmarshal(raw, &op); err != nil {
				t.Fatal(err)
			}
			for _, name := range named.FindAllStringSubmatch(path, -1) {
				if !slices.ContainsFunc(op.Parameters, func(p struct{ Name, In string }) bool { return p.In == "path" && p.Name == name[1] }) {
					t.Errorf("%s %s does not read {%s}", method, path, name[1])
				}
			}
		}
	}
}
