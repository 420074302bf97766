package klaviyo_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/platformtest"
)

// contract is Klaviyo's own OpenAPI document as a transport: each request and each answer that passes is held
// against it, and what breaks it fails the test.
type contract struct {
	t      *testing.T
	router routers.Router
	serve  http.Handler
	strict bool // also requests have to keep to it, not answers alone
}

func newContract(t *testing.T, serve http.Handler, strict bool) *contract {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("testdata/klaviyo.openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context(), openapi3.DisableExamplesValidation()); err != nil {
		t.Fatal(err)
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return &contract{t: t, router: router, serve: serve, strict: strict}
}

// JSON:API is JSON.
func init() {
	openapi3filter.RegisterBodyDecoder("application/vnd.api+json", openapi3filter.JSONBodyDecoder)
}

func (c *contract) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
		_ = req.Body.Close()
	}
	again := func() *http.Request {
		r := req.Clone(req.Context())
		r.Body = io.NopCloser(bytes.NewReader(body))
		return r
	}
	route, params, err := c.router.FindRoute(again())
	if err != nil {
		c.t.Errorf("%s %s is not in Klaviyo's OpenAPI: %v", req.Method, req.URL, err)
		return nil, err
	}
	input := &openapi3filter.RequestValidationInput{
		Request: again(), PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true},
	}
	if err := openapi3filter.ValidateRequest(context.WithoutCancel(req.Context()), input); err != nil && c.strict {
		c.t.Errorf("%s %s breaks Klaviyo's OpenAPI: %v", req.Method, req.URL, err)
	}
	answer, err := platformtest.Transport{Handler: c.serve}.RoundTrip(again())
	if err != nil {
		return nil, err
	}
	said, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	answer.Body = io.NopCloser(bytes.NewReader(said))
	if answer.StatusCode == http.StatusAccepted || answer.Header.Get("Content-Type") != "" { // a planted fault is nobody's contract
		if err := openapi3filter.ValidateResponse(req.Context(), &openapi3filter.ResponseValidationInput{
			RequestValidationInput: input, Status: answer.StatusCode, Header: answer.Header,
			Body: io.NopCloser(bytes.NewReader(said)), Options: input.Options,
		}); err != nil {
			c.t.Errorf("the answer to %s %s breaks Klaviyo's OpenAPI: %v\n%s", req.Method, req.URL, err, platforms.Clip(string(said), 500))
		}
	}
	answer.Request = req
	return answer, nil
}
