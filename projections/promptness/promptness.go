// Package promptness proves how soon an opt-out had its effect: from the decision to its being recorded, to the last
// message that was sent all the same, to each platform's word that it suppresses the address.
package promptness

import (
	"embed"

	"github.com/dispatch-ledger/dispatch-ledger/projections"
)

//go:embed tables.sql apply.sql indexes.sql
var files embed.FS

// Definition is every opt-out, and what each platform was asked and answered about it.
var Definition = projections.Define("promptness", 4, files)
