// Package klaviyo speaks Klaviyo's API of revision 2026-07-15.
//
// Facts come from Klaviyo's OpenAPI document (github.com/klaviyo/openapi, openapi/stable.json), an extract of which
// is in testdata, and from its guides on rate limits, errors and the retirement of the v1/v2 API. Requests and
// answers are held against that document in the tests.
//
// One host, no regions. A send is POST /api/events (a track event, which starts a flow) or POST /api/profile-import
// (identify). An answer of 202 means validated and queued, and carries no id: our own unique_id is the only thread
// back. A repeated unique_id for one profile and metric is dropped and answered 202 like the first.
package klaviyo
