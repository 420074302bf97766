// Package deliveries answers what was sent to whom, what became of it and why something was not sent.
package deliveries

import (
	"embed"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/projections"
)

//go:embed tables.sql indexes.sql apply.sql
var files embed.FS

// Definition is the audit trail: a row for each delivery and one for each attempt.
var Definition = projections.Define("deliveries", 6, files).Lingering(5 * time.Millisecond).Yielding(time.Second)
