package api

import (
	"bytes"
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the reference anew")

const reference = "../../docs/openapi.json"

// TestTheReferenceIsThisAPI keeps the description in the docs equal to what is served, so that a change of the surface
// is seen where it is reviewed. Write it anew with: go test ./handlers/api -run Reference -update
func TestTheReferenceIsThisAPI(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *Config) { c.Version = "" })
	got := append(h.call("", "GET", "/openapi.json", "").Body.Bytes(), '\n')
	if *update {
		if err := os.WriteFile(reference, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("docs/openapi.json is not what /openapi.json answers; write it anew with -update and look at the difference")
	}
}
