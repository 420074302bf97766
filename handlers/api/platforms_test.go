package api

import (
	"net/http"
	"strings"
	"testing"

	_ "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/all" // the platforms that policies may name
)

func TestAPlatformIsConnectedAndTellsOfOptOuts(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	const path = "/v1/platforms/yotpo"
	problem(t, h.call("operator", "GET", path, ""), http.StatusNotFound, "not-found")
	problem(t, h.call("", "POST", "/v1/hooks/yotpo", `{"phone":"+61491570156"}`), http.StatusNotFound, "not-connected")
	problem(t, h.call("operator", "PUT", path, `{"platform":"yotpo","stores":"x"}`), http.StatusUnprocessableEntity, "invalid")
	problem(t, h.call("operator", "PUT", path, `{"platform":"yotpo"}`), http.StatusUnprocessableEntity, "connection")

	if w := h.call("operator", "PUT", "/v1/secrets/yotpo_secret", `{"value":"s3cret"}`); w.Code >= 300 {
		t.Fatalf("set the secret: %d %s", w.Code, w.Body)
	}
	w := h.call("operator", "PUT", path, `{"platform":"yotpo","credentials":{"secret":"yotpo_secret"},"settings":{"store":"key-1"}}`)
	if w.Code != http.StatusOK || w.Header().Get("ETag") != `"1"` || !strings.Contains(w.Body.String(), `"opt_out_means":["all"]`) || strings.Contains(w.Body.String(), "s3cret") {
		t.Fatalf("connect = %d %s", w.Code, w.Body)
	}
	problem(t, h.call("operator", "PUT", path, `{"platform":"yotpo","credentials":{"secret":"yotpo_secret"},"settings":{"store":"key-1"}}`, "If-Match", `"7"`), http.StatusPreconditionFailed, "version-mismatch")
}
