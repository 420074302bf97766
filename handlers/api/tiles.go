package api

import (
	"errors"
	"net/http"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// tileRoutes serve the tree as C2SP tlog-tiles has it, with /v1 as its prefix: /v1/checkpoint, and
// /v1/tile/<level>/<n>[.p/<width>]. Its monitors and witnesses check with it that the ledger only ever grew. Tiles hold hashes
// and nothing else; the events under them are not public, so there is no tile/entries.
func (a *api) tileRoutes() {
	a.handle("get-tile", "/v1/tile/{path...}", http.HandlerFunc(a.getTile))
}

func (a *api) getTile(w http.ResponseWriter, r *http.Request) {
	// The path is that of package tlog without the height, which the format fixes at 8.
	tile, err := tlog.ParseTilePath("tile/8/" + r.PathValue("path"))
	if err != nil || tile.L < 0 {
		a.refuse(w, r.Context(), errNoRoute)
		return
	}
	hashes, err := schema.Tile(r.Context(), a.DB, tile.L, tile.N, tile.W)
	if err != nil {
		if errors.Is(err, schema.ErrNotFound) {
			w.Header().Set("Cache-Control", "no-store") // the tree grows
		}
		a.refuse(w, r.Context(), err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(hashes)))
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable") // a hash that is there never changes
	w.Write(hashes)                                                        //nolint:errcheck // a client that is gone
}
