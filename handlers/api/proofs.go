package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func (a *api) proofRoutes() {
	text := func(doc string) map[string]*huma.Response {
		return map[string]*huma.Response{"200": {
			Description: doc,
			Content:     map[string]*huma.MediaType{"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}}},
		}}
	}
	register(a, huma.Operation{
		OperationID: "get-checkpoint", Method: http.MethodGet, Path: "/v1/checkpoint", Tags: []string{"Events"},
		Summary:     "Read the newest signed checkpoint",
		Description: "The size and root of the tree over all events, as a signed note. Keep one, and nothing before it can be changed unnoticed.",
		Responses:   text("A C2SP tlog-checkpoint."), Errors: []int{http.StatusNotFound},
	}, a.getCheckpoint)
	register(a, huma.Operation{
		OperationID: "get-proof", Method: http.MethodGet, Path: "/v1/events/{position}/proof", Tags: []string{"Events"},
		Summary:     "Prove that an event stands in the ledger",
		Description: "An inclusion proof with the checkpoint that it leads to; it is verified offline, with the ledger's public key. An event is covered some seconds after it was recorded.",
		Responses:   text("A C2SP tlog-proof."), Errors: []int{http.StatusNotFound},
	}, a.getProof)
}

type textOutput struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

func textOf(body []byte) *textOutput {
	return &textOutput{ContentType: "text/plain; charset=utf-8", Body: body}
}

func (a *api) getCheckpoint(ctx context.Context, _ *struct{}) (*textOutput, error) {
	c, err := schema.LastCheckpoint(ctx, a.DB)
	if err != nil {
		return nil, err
	}
	return textOf([]byte(c.Note)), nil
}

func (a *api) getProof(ctx context.Context, in *getEventInput) (*textOutput, error) {
	if _, err := schema.EventAt(ctx, a.DB, in.Position); err != nil {
		return nil, err
	}
	proof, err := schema.InclusionProof(ctx, a.DB, in.Position, 0)
	if err != nil {
		return nil, err
	}
	body, err := proof.MarshalText()
	if err != nil {
		return nil, err
	}
	return textOf(body), nil
}
