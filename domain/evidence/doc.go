// Package evidence checks what a ledger proves, with the ledger's public key and nothing else: no database, no
// network, no clock.
//
//	event ──Digest, Leaf──▶ leaf ──inclusion proof──▶ root ──checkpoint──▶ signature ──▶ public key
//
// The formats are C2SP's: a [Checkpoint] is a tlog-checkpoint, a signed note; a [Proof] is a tlog-proof. A
// [Bundle] holds a delivery's whole story in one JSON file, each event of it with such a proof.
package evidence
