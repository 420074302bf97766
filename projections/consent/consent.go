// Package consent answers what a person agreed to: now, at a time, or at a position of the ledger.
package consent

import (
	"embed"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/projections"
)

//go:embed tables.sql apply.sql fold.sql
var files embed.FS

// Definition is the decision that holds for each person, channel and purpose.
var Definition = projections.Define("consent", 2, files).Lingering(3 * time.Millisecond)
