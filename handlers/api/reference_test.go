package api

import (
	"bytes"
	"os"
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
