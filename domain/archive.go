package domain

// LedgerArchived records that a stretch of the ledger was written to files and taken out of the database. Its leaves stay in the
// tree, so that every proof still holds; the files hold the events.
type LedgerArchived struct {
	From           int64  `json:"from" doc:"the events after this position,"`
	To             int64  `json:"to" doc:"up to this one"`
	ManifestSHA256 string `json:"manifest_sha256" doc:"hex, of the archive's manifest.json, which holds the hash of each of its files"`
}

// LedgerRestored records that an archived stretch was put back into the database.
type LedgerRestored struct {
	From int64 `json:"from" doc:"the events after this position,"`
	To   int64 `json:"to" doc:"up to this one"`
}

var (
	_ = declare("ledger.archived", 1, FromLedger, "The ledger's oldest events were written to files and taken out of the database.",
		LedgerArchived{From: 0, To: 10_000_000, ManifestSHA256: "47de98c2f4c5b2f0a6b1d1f0e6c3b8d1a9f00b7c2d4e6f8091a2b3c4d5e6f708"})
	_ = declare("ledger.restored", 1, FromLedger, "Archived events were put back into the database.", LedgerRestored{From: 0, To: 10_000_000})
)

// ArchiveStream is the one stream of what was archived and restored.
const ArchiveStream = "archive"

// Stream is that of all archives.
func (l LedgerArchived) Stream() string { return ArchiveStream }

// Keys has none.
func (l LedgerArchived) Keys() Keys { return Keys{} }

// Validate accepts what the service made.
func (l LedgerArchived) Validate() error { return nil }

// Stream is that of all archives.
func (l LedgerRestored) Stream() string { return ArchiveStream }

// Keys has none.
func (l LedgerRestored) Keys() Keys { return Keys{} }

// Validate accepts what the service made.
func (l LedgerRestored) Validate() error { return nil }
