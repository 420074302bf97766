// Package suppressions answers what the platforms' suppression lists hold, what was written to them and whether it was
// read back, and what waits for a person. It also compares: what a run of the reconciler read, with our consent.
package suppressions

import (
	"embed"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/projections"
)

//go:embed tables.sql apply.sql fold.sql indexes.sql
var files embed.FS

// Definition is the platforms' lists as we know them, beside what we wrote there.
var Definition = projections.Define("suppressions", 3, files).Lingering(3 * time.Millisecond)
