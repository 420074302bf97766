// Package contacts knows whose address is which, now and before, by its keyed hash; whether the address works; and who a
// person is in other systems.
package contacts

import (
	"embed"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/projections"
)

//go:embed tables.sql apply.sql fold.sql indexes.sql
var files embed.FS

// Definition is the addresses and identities of profiles.
var Definition = projections.Define("contacts", 2, files).Lingering(3 * time.Millisecond)
