// Package client sends events to a ledger, for reaction engines written in Go.
//
//	Send ─┐
//	Send ─┼─▶ batch ─▶ POST /v1/events ─▶ a place in the ledger for each
//	Send ─┘              ▲        │
//	                     └────────┘ the same again, until the answer is known
//
// An event is recognised by its id, so whatever is not known to be recorded is sent again as it was. Give each event its id
// when it is made, and keep it until Send has returned.
package client
