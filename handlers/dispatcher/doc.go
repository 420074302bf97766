// Package dispatcher makes the requests: it claims what is due, asks consent once more, sends, and records what came of it.
//
//	queue ──claim──▶ gate ──▶ request ──▶ verdict ──▶ delivery.attempted
//	lease expired ─────────────────────────────────▶ delivery.attempt_lost
//
// A claim is durable before its request leaves, and each claim ends in exactly one event, whoever records it. So a
// request that left is never without a trace, whatever dies when. No transaction is open during HTTP.
package dispatcher
