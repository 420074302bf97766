package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/twig"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func (a *api) targetPreviewRoutes() {
	tags := []string{"Targets"}
	register(a, huma.Operation{
		OperationID: "preview-target", Method: http.MethodPost, Path: "/v1/targets/{handle}/preview", Tags: tags,
		Summary:     "See what a firing would send",
		Description: "Renders the target, one of its versions, or a draft that is not recorded yet, with a context. Sends and records nothing; secrets show as ••••.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/json": {Schema: a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[PreviewRequest](), true, "PreviewRequest")},
		}},
		Errors: []int{http.StatusNotFound},
	}, a.previewTarget)
}

// PreviewRequest is what is to be rendered.
type PreviewRequest struct {
	Context json.RawMessage `json:"context" doc:"The event context: a JSON object."`
	Version int64           `json:"version,omitempty" doc:"Of the target; the current one by default."`
	Draft   json.RawMessage `json:"draft,omitempty" doc:"A target as PUT takes it, to be used instead of a recorded one."`
}

// Preview is the request that a firing would send.
type Preview struct {
	Method     string              `json:"method"`
	URL        string              `json:"url"`
	Headers    map[string]string   `json:"headers" doc:"Secrets show as ••••."`
	Body       string              `json:"body" doc:"Secrets show as ••••."`
	Unresolved []domain.Unresolved `json:"unresolved" nullable:"false" doc:"Variables that the context lacks."`
	Condition  *bool               `json:"condition" doc:"What the target's condition says of this context; null when it has none."`
}

type previewTargetInput struct {
	TargetInput
	RawBody []byte `contentType:"application/json"`
}

type previewTargetOutput struct{ Body Preview }

// masked stands where a secret would.
const masked = "••••"

func (a *api) previewTarget(ctx context.Context, in *previewTargetInput) (*previewTargetOutput, error) {
	request, err := parsePreview(in.RawBody)
	if err != nil {
		return nil, err
	}
	target, err := a.previewed(ctx, in.Handle, request)
	if err != nil {
		return nil, err
	}
	partials, err := targets.PartialsNow(ctx, a.DB)
	if err != nil {
		return nil, err
	}
	compiled, err := domain.CompileTarget(target, partials)
	if err != nil {
		return nil, err
	}
	data, err := twig.DecodeContext(request.Context)
	if err != nil {
		return nil, domain.Invalid("/context", "is not a context that a template can read")
	}
	rendering, err := compiled.Render(ctx, data, domain.Environment{Name: a.Environment, Variables: a.Variables, Now: a.Clock, Secret: func(string) string { return masked }})
	if err != nil {
		return nil, notRenderable(err)
	}
	out := &previewTargetOutput{Body: Preview{
		Method: compiled.Method, URL: rendering.URL, Headers: rendering.Headers, Body: rendering.Body, Unresolved: rendering.Unresolved,
	}}
	if out.Body.Unresolved == nil {
		out.Body.Unresolved = []domain.Unresolved{}
	}
	if compiled.Condition != nil {
		holds, err := compiled.Holds(request.Context)
		if err != nil {
			return nil, notRenderable(err)
		}
		out.Body.Condition = &holds
	}
	return out, nil
}

// notRenderable marks what lies in the template or the context.
func notRenderable(err error) error {
	var rendering *domain.RenderError
	if errors.As(err, &rendering) {
		return fmt.Errorf("%w: %w", errNotRenderable, err)
	}
	return err
}

func parsePreview(body []byte) (request PreviewRequest, err error) {
	if _, err := without(body, nil); err != nil {
		return request, err
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&request); err != nil {
		return request, domain.Invalid("", "holds a field that is not context, version or draft, or one of another type")
	}
	if c := bytes.TrimSpace(request.Context); len(c) == 0 || c[0] != '{' {
		return request, domain.Invalid("/context", "is not a JSON object")
	}
	if request.Version < 0 || request.Version > 0 && request.Draft != nil {
		return request, domain.Invalid("/version", "is a recorded version, from 1, and not given beside draft")
	}
	return request, nil
}

// previewed finds the target that is to be rendered.
func (a *api) previewed(ctx context.Context, handle string, request PreviewRequest) (domain.Target, error) {
	if request.Draft != nil {
		changed, _, err := a.parseTarget(ctx, handle, request.Draft)
		return changed.Target, below("/draft", err)
	}
	now, versions, err := a.history(ctx, handle)
	if err != nil {
		return domain.Target{}, err
	}
	if request.Version == 0 && now.exists() {
		return now.Target, nil
	}
	for _, v := range versions {
		if v.Version == request.Version {
			return v.Target, nil
		}
	}
	return domain.Target{}, fmt.Errorf("target: %w", schema.ErrNotFound)
}

// below moves what is wrong with a part of the body to where the part stands.
func below(pointer string, err error) error {
	var template *domain.TemplateError
	var invalid *domain.InvalidError
	switch {
	case errors.As(err, &template):
		moved := *template
		moved.Pointer = pointer + moved.Pointer
		return &moved
	case errors.As(err, &invalid):
		return domain.Invalid(pointer+invalid.Pointer, "%s", invalid.Message)
	}
	return err
}
