// Package importer brings existing consent in from files.
//
//	CSV, NDJSON ─▶ records ─▶ Row.Decisions ─▶ consent.changed, in batches ─▶ consent.imported
//	                                  └─▶ rejects: line, field, reason
//
// One bad record keeps no other out. A record's event has an id that follows from what it says, so that a file that is
// imported again, or goes on after an interruption, records nothing twice.
package importer
