// Package omneo takes in what the CRM's webhooks say of its profiles.
//
//	raw body ─▶ Verify ─▶ Decode ─▶ Service.Take ─┬─▶ profile.observed: the snapshot, addresses, identities
//	                                              ├─▶ consent.changed: the decisions that it contains
//	                                              ├─▶ address.reported: bounces and verifications
//	                                              └─▶ profile.merged
//
// The CRM keeps the last value of a preference and no history, and its webhooks carry the whole profile whatever it was
// that changed. So what was decided follows from what this snapshot shows and the one before it did not:
// domain.Compare. Everything that one webhook says is appended at once, before it is answered.
package omneo
