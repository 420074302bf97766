package domain

import "github.com/google/uuid"

// ConsentImported records that a file of existing consent was brought in. The decisions are consent.changed events of
// their own, correlated with this import.
type ConsentImported struct {
	ImportID   uuid.UUID `json:"import_id" doc:"derived from the file's content and how it was read; the decisions' correlation_id"`
	Name       string    `json:"name" doc:"the file's name"`
	SHA256     string    `json:"sha256" doc:"hex, of the file"`
	Format     string    `json:"format" doc:"csv or ndjson"`
	Rows       int64     `json:"rows" doc:"records that it holds"`
	Recorded   int64     `json:"recorded" doc:"records that became decisions"`
	Duplicates int64     `json:"duplicates" doc:"records that stood in the ledger before"`
	Empty      int64     `json:"empty" doc:"records that answer nothing"`
	Rejected   int64     `json:"rejected" doc:"records that could not be read; the rejects file says why"`
}

var _ = declare("consent.imported", 1, FromLedger, "A file of existing consent was imported to its end.",
	ConsentImported{
		ImportID: uuid.MustParse("6c0d1a8e-64f3-5d1c-9b77-0c3e4f5a6b7c"), Name: "members.csv", Format: "csv",
		SHA256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", Rows: 1000, Recorded: 990, Duplicates: 7, Rejected: 3,
	})

// Stream is the import's.
func (c ConsentImported) Stream() string { return "import-" + c.ImportID.String() }

// Keys has none.
func (c ConsentImported) Keys() Keys { return Keys{} }

// Validate accepts what the importer made.
func (c ConsentImported) Validate() error { return nil }
