// Package audit answers the questions that need to know where in the ledger to look: events of a rare type, target or actor,
// and consent changes of a kind.
package audit

import (
	"embed"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/projections"
)

//go:embed tables.sql apply.sql fold.sql indexes.sql
var files embed.FS

// Definition is where what occurs, and every consent change by its kind. Nobody waits for it: what it has not seen yet is
// read from the ledger.
var Definition = projections.Define("audit", 3, files).Lingering(50 * time.Millisecond).Yielding(time.Second)
