package main

import (
	"testing"

	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// TestKillOneOfTwoWorkers has two processes share one database's work and kills one of them after the other. The one that
// is left takes over within the lease; nothing is lost, and no request left without a trace.
func TestKillOneOfTwoWorkers(t *testing.T) {
	t.Parallel()
	w, first := newFaultWorld(t, schematest.Open(t).URL)
	second := startProgram(t, w.url, w.dataDir)
	for range *strikes {
		w.pause()
		w.engine.at(second.address)
		first.kill()
		first, second = second, startProgram(t, w.url, w.dataDir)
	}
	w.pause()
	w.judge(t)
}
