// Package projections is what the ledger remembers: tables that follow from its events and from nothing else, so
// that each can be dropped and built again.
//
//	events ──▶ slice (from, to] ──▶ apply.sql ──▶ tables
//
// A projection is two SQL files that never name a schema. The runner decides by search_path where they work: on
// the live tables, on a shadow for a rebuild, on a scratch copy for verify, or on a schema of an analyst's own.
package projections
