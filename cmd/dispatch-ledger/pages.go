package main

import (
	"net/http"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/console"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/inspector"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// pages serves what people look at, beside the API: each part owns the paths below its prefix, and answers for all of
// them.
//
//	/preferences/ /unsubscribe/   the customer's choices (handlers/portal)
//	/inspector/                   received requests, for developers
//	/                             the console, and whatever nobody else has
func (st *store) pages(service *api.Service, s signIn, choices http.Handler) (http.Handler, error) {
	mux := http.NewServeMux()
	mux.Handle("/preferences/", choices)
	mux.Handle("/unsubscribe/", choices)
	mux.Handle("/inspector/", st.inspector())
	provider, err := s.provider()
	if err != nil {
		return nil, err
	}
	people, err := console.New(console.Config{
		Service: service, DB: st.db, Ledger: st.ledger, Sessions: schema.NewSessions(st.db, time.Now), Tokens: st.tokens, OIDC: provider,
		Log: st.log, Clock: time.Now, Version: version(),
	})
	if err != nil {
		return nil, err
	}
	mux.Handle("/", people)
	return mux, nil
}

// inspector is the same for the API, the pages and the command line.
func (st *store) inspector() *inspector.Handler {
	if st.inspecting == nil {
		st.inspecting = inspector.New(schema.NewInspector(st.db, st.vault, time.Now), st.log)
	}
	return st.inspecting
}
