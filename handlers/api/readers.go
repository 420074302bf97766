package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dispatch-ledger/dispatch-ledger/projections"
)

func (a *api) projectionRoutes() {
	tags := []string{"Operation"}
	register(a, huma.Operation{
		OperationID: "list-projections", Method: http.MethodGet, Path: "/v1/projections", Tags: tags,
		Summary:     "Where every reader of the ledger stands",
		Description: "How far each projection, each part of the service and each build has come, why one is parked, and how a rebuild gets on.",
	}, a.listProjections)
	register(a, huma.Operation{
		OperationID: "rebuild-projection", Method: http.MethodPost, Path: "/v1/projections/{name}/rebuild", Tags: tags,
		Summary: "Build a projection anew from the events, in the background",
		Description: "A worker builds it beside the live tables, which go on serving, and swaps it in. GET /v1/projections shows how far it has come. " +
			"Asking for one that is being rebuilt changes nothing.",
		DefaultStatus: http.StatusAccepted, Errors: []int{http.StatusNotFound},
	}, a.rebuildProjection)
	register(a, huma.Operation{
		OperationID: "resume-reader", Method: http.MethodPost, Path: "/v1/projections/{name}/resume", Tags: tags,
		Summary: "Have a parked reader try again", Description: "After the cause was mended. It parks again at the same event when it was not.",
		DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict},
	}, a.resumeReader)
	register(a, huma.Operation{
		OperationID: "skip-event", Method: http.MethodPost, Path: "/v1/projections/{name}/skip", Tags: tags,
		Summary: "Have a parked reader pass over the event at which it fails",
		Description: "The position must be the one that it is parked at. Who decided that, and why, is itself an event, reader.skipped; a rebuild passes over the same event, " +
			"unless it can be read by then.",
		Errors: []int{http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity},
	}, a.skipEvent)
	if err := a.Registry.Register(readerMetrics{a}); err != nil {
		a.errs = append(a.errs, err)
	}
}

// ReaderInput names a reader of the ledger. As to its being exported, see [RunInput].
type ReaderInput struct {
	Name string `path:"name" maxLength:"100" doc:"As GET /v1/projections lists it."`
}

func (a *api) rebuildProjection(ctx context.Context, in *ReaderInput) (*struct{}, error) {
	d, err := a.Projections.Find(in.Name)
	if err != nil {
		return nil, err
	}
	return nil, a.Projections.AskRebuild(ctx, d, PrincipalOf(ctx).Name)
}

func (a *api) resumeReader(ctx context.Context, in *ReaderInput) (*struct{}, error) {
	return nil, a.Ledger.Resume(ctx, a.Projections.ReaderName(in.Name))
}

type skipEventInput struct {
	ReaderInput
	Body struct {
		Position int64  `json:"position" minimum:"1" doc:"Of the event; the reader must be parked at it."`
		Reason   string `json:"reason" minLength:"1" maxLength:"1000" doc:"Why, in words."`
	}
}

type skipEventOutput struct {
	Body struct {
		Position int64 `json:"position" doc:"Of the event that records it."`
	}
}

func (a *api) skipEvent(ctx context.Context, in *skipEventInput) (*skipEventOutput, error) {
	appended, err := a.Ledger.Skip(ctx, a.Projections.ReaderName(in.Name), in.Body.Position, PrincipalOf(ctx).Name, "/v1/projections", in.Body.Reason)
	if err != nil {
		return nil, err
	}
	out := &skipEventOutput{}
	out.Body.Position = appended.Position
	return out, nil
}

func (a *api) listProjections(ctx context.Context, in *struct{ Paging }) (*Listed[projections.Status], error) {
	after, err := decodeCursor("projections", in.Cursor)
	if err != nil {
		return nil, err
	}
	all, err := projections.Statuses(ctx, a.DB)
	if err != nil {
		return nil, err
	}
	key := func(s projections.Status) string { return s.Kind + " " + s.Name }
	items := all[:0]
	for _, s := range all {
		// The order is that of names, in which the readers' and the projections' are not mixed up by a page.
		if after == "" {
			items = append(items, s)
		} else if key(s) == after {
			after = ""
		}
	}
	if after != "" {
		return nil, errBadCursor // its last reader is gone
	}
	items = items[:min(len(items), in.Limit+1)]
	return &Listed[projections.Status]{Body: pageOf("projections", items, in.Limit, key)}, nil
}
