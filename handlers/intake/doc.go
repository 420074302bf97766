// Package intake takes events in: CloudEvents 1.0 from producers, checked, sealed and appended, all of a request or
// none of it.
//
//	HTTP request ─┐
//	              ├─▶ Parse ─▶ []Event ─▶ Service.Accept ─▶ domain.Parse ─▶ seal ─▶ ledger
//	Watermill ────┘
//
// # Identity
//
// CloudEvents says that source and id together identify an event, and the ledger knows an event by one UUID. EventID
// maps the one to the other: an id that is a UUID is the ledger's id too, whichever relay it came through, and any
// other id becomes a UUID derived from source and id. The same event sent again therefore always has the same id, and
// is answered with the position that it has had since the first time.
//
// # Personal data
//
// What the payload's declaration marks as sealed is encrypted under the person's key before it reaches the ledger. Of
// contact addresses only a keyed hash stays in the open. A person who was erased has no key any more: the event is
// recorded all the same, without its sealed part. Errors name fields and never repeat what stood in them.
package intake
