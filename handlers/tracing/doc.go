// Package tracing tells OpenTelemetry what becomes of a firing, as one trace:
//
//	reaction.fired ──▶ plan
//	               └─▶ attempt ──traceparent──▶ whatever the receiver does
//
// The trace's id is the firing's, and each span's id follows from what it is about, so that parts of a trace which
// different processes make, or the same one after a restart, belong together without anything being stored: whoever knows a
// firing finds its trace, and the other way round.
package tracing
