// Package export writes ranges of the ledger to files, for analysts and for keeping: Parquet, NDJSON or CSV, in parts, with a
// manifest that says what they hold and which checkpoint they belong to.
//
//	events (from, to] ──▶ events-000000000001-000001000000.parquet
//	                      events-000001000001-000002000000.parquet
//	                      …
//	                      manifest.json ──▶ checkpoint, and the hashes that join the range to its root
//
// A part is written beside its name, synced and renamed, and the manifest after it; so an export that was interrupted goes on
// behind the last part that is whole. Positions never change, and the same range gives the same rows.
package export
