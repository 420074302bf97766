// Package outbound makes one request to a platform and says what came of it.
//
//	planned request ─▶ secrets ─▶ Authorization ─▶ dialect ─▶ signatures ─▶ dial ─▶ answer ─▶ verdict
//	                   by name    basic, oauth2    its key    of the body   guarded  bounded   and trace
//
// Whatever the receiver does, and whatever is in the target, the request reaches only addresses that it may reach, takes no
// longer than its target's timeout, reads no more than a bound, and what is kept of it holds no secret.
package outbound
