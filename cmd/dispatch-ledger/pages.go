package main

import "net/http"

// pages serves what people look at, beside the API: each part owns the paths below its prefix, and answers for all of
// them.
//
//	/preferences/ /unsubscribe/   the customer's choices (handlers/portal)
//	/inspector/                   received requests, for developers
//	/                             the console, and whatever nobody else has
func (st *store) pages() http.Handler {
	mux := http.NewServeMux()
	return mux
}
