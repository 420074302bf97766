package main

import (
	"encoding/json"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// eventJSON is an event as the command line shows it to programs.
func eventJSON(e domain.Recorded) any {
	out := map[string]any{
		"position": e.Position, "id": e.ID, "type": e.Type, "stream": e.Stream, "version": e.Version, "recorded_at": e.RecordedAt,
		"actor": e.Actor, "source": e.Source, "data": json.RawMessage(e.Data), "sealed": e.Sealed != nil,
	}
	if !e.OccurredAt.IsZero() {
		out["occurred_at"] = e.OccurredAt
	}
	return out
}
