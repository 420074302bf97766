// Package api is the ledger over HTTP, for programs: events in, targets, consent, deliveries and the ledger itself.
//
//	request ─▶ id, headers, metrics ─▶ route ─▶ token ─▶ role ─▶ operation ─▶ answer or problem
//
// Operations are declared with Huma, which makes the OpenAPI 3.1 description at /openapi.json from the same types that
// serve the requests. Three tables hold what is decided in one place: access says which role may do what, problems
// says what each error answers, and New registers the operations. An operation that access does not name cannot be
// registered.
//
// Answers never hold personal data: sealed parts appear as {"sealed":true}, or {"erased":true} once the person was
// erased. Neither do errors or log lines.
package api
