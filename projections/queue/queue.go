// Package queue hands out what is due, under leases that are durable before a request leaves.
package queue

import (
	"embed"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/projections"
)

//go:embed tables.sql indexes.sql apply.sql
var files embed.FS

// Definition is what is still to be sent. It lags by a moment, so that under load many attempts share a slice, and not a whole
// burst: who is not part of it would wait for all of it to be queued.
var Definition = projections.Define("queue", 6, files).Lingering(200 * time.Microsecond).Yielding(10 * time.Millisecond).InSlicesOf(2000)
