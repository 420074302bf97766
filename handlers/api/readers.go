package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dispatch-ledger/dispatch-ledger/projections"
)

func (a *api) projectionRoutes() {
	register(a, huma.Operation{
		OperationID: "list-projections", Method: http.MethodGet, Path: "/v1/projections", Tags: []string{"Operation"},
		Summary: "Where every reader of the ledger stands", Description: "How far each projection and each part of the service has come, and why one is parked.",
	}, a.listProjections)
}

type listProjectionsOutput struct{ Body Page[projections.Status] }

func (a *api) listProjections(ctx context.Context, in *struct{ Paging }) (*listProjectionsOutput, error) {
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
	return &listProjectionsOutput{Body: pageOf("projections", items, in.Limit, key)}, nil
}
