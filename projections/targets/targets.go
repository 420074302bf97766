// Package targets answers which targets there are, as they are and as they were, and what is proposed to become of them.
package targets

import (
	"embed"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/projections"
)

//go:embed tables.sql apply.sql
var files embed.FS

// Definition is what each target is now and every version it had.
var Definition = projections.Define("targets", 2, files).Lingering(3 * time.Millisecond)
