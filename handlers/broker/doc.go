// Package broker carries the ledger's work over NATS JetStream, for when one machine is not enough: firings come in on a
// stream, claimed deliveries go out on a work queue to any number of dispatchers that have no connection to the database,
// and what came of them comes back. The ledger stays the record, and its promises stay what they are.
//
//	engines ── events ──▶ writer ─▶ ledger ─▶ planner ─▶ queue
//	                        │                              │ claimed: the lease is durable before anything leaves
//	                        │◀──────────── claim ──────────┘
//	                        ├── jobs ────▶ dispatcher ── starts (taken once) ── HTTP ─▶ platform
//	                        │◀─ results ──────┘   ▲
//	                        └── fences, tides ────┘  withdrawals, ahead of the queue
//
// Three things make it safe:
//
//   - A job is taken once. Whoever receives one first writes its name beside it with a compare-and-set that the cluster's
//     majority agrees on; a job that comes twice, to two dispatchers or to one, is sent by one of them, once. When that one
//     dies, the lease runs out and the attempt is recorded as lost, as without a broker.
//   - A withdrawal overtakes the queue. Whatever may forbid a request (an opt-out, another consent policy, an erasure,
//     a cancelled delivery, a changed target, a rotated secret, a revoked dispatcher) is broadcast as a fence as soon as it is recorded; a job that
//     was claimed before it is sent back to be decided anew. A dispatcher sends only while it knows that it has heard every
//     fence recorded up to [Staleness] ago, by its own monotonic clock; cut off, it stops (see gate.go).
//   - What travels is sealed under a key that only the ledger and the dispatchers that joined with a valid token hold, and
//     that changes when one of them is revoked.
package broker
