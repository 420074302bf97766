// Package queue hands out what is due, under leases that are durable before a request leaves.
package queue

import (
	"embed"

	"github.com/dispatch-ledger/dispatch-ledger/projections"
)

//go:embed tables.sql indexes.sql apply.sql
var files embed.FS

// Definition is what is still to be sent.
var Definition = projections.Define("queue", 4, files)
