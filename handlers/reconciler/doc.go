// Package reconciler keeps our consent and the platforms' suppression lists in step.
//
//	consent.changed ─▶ Watch ─▶ outgoing ─▶ Push ─▶ platform            within seconds
//	platform's webhook ─▶ Receive ─▶ suppression.seen, consent.changed  as it happens
//	platform's list ─▶ pages ─▶ compare in SQL ─▶ record | push | lift | ask ─▶ read back   on schedule
//
// An opt-out flows both ways by itself. An opt-in never flows to a platform without evidence and a switch that somebody set,
// and what nobody can decide from the facts waits as a finding with one proposed action.
//
// A run is a row that says how far it has come, and each of its steps may be repeated: whoever is killed leaves a row that
// the next process takes up. Nothing is asked of a platform while a transaction is open. What leaves the process is
// recorded before it leaves (suppression.ordered) and after it was answered (suppression.pushed), and counts as done when it
// was read back (suppression.confirmed).
package reconciler
