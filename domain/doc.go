// Package domain says what the ledger knows and decides: events, targets, consent, deliveries.
//
// It is pure. It has no clock, no I/O and no SQL; whoever calls it brings the time, the rows and the bytes.
//
//	command + state ──▶ decision ──▶ events
//	events          ──▶ projection ──▶ state
package domain
