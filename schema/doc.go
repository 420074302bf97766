// Package schema is everything that knows PostgreSQL: the migrations, the ledger and its order, the Watermill
// topic over it, the Merkle tree and the vault.
//
//	Append ──▶ queue ──▶ append() ──▶ events ──▶ Topic ──▶ slices (from, to] ──▶ handlers
//
// The ledger has one writer at a time and numbers events under one lock, so position order is commit order and a
// reader may trust "everything after my cursor". What losing a table costs is said in docs/operating.md.
package schema
