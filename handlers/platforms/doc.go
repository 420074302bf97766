// Package platforms says, in one neutral vocabulary, what comms platforms do.
//
// A platform is two things to the ledger. It is where deliveries go: its [Dialect] checks a rendered body before
// it is sent, puts the delivery's idempotency key where that platform looks for it, and reads the answer as a
// [Verdict]. And it keeps a suppression list of its own: a [Source] reads that list page by page, a [Sink] adds to
// it, an [Inbound] decodes what the platform tells us by webhook.
//
//	rendered body ─▶ Validate ─▶ Prepare ─▶ HTTP POST ─▶ Classify ─▶ Verdict ─▶ event
//	their list    ─▶ Source (pages) ─▶ Record ─▶ reconciler ─▶ Change ─▶ Sink (outcome per item)
//	their webhook ─▶ Inbound (verified on raw bytes) ─▶ Record
//
// What a platform cannot do is said by its type: a client that does not implement [Source] has no list to read, and
// [Caps] names what is missing in words an operator can use.
//
// The platforms live in packages below this one and register themselves, as database drivers do; a program that
// wants all of them imports handlers/platforms/all for its effect.
package platforms
