// Package dotdigital speaks Dotdigital's v2 and v3 APIs.
//
// Facts come from the OpenAPI documents that Dotdigital serves and from its own connectors. Three regions, named by
// the host; HTTP Basic with an API user. A transactional email is answered 200 with nothing in it, carries no id and
// is not deduplicated: after a timeout a repeat may reach the person twice, so the delivery id travels in metadata
// and comes back on events. A send to somebody who is suppressed is refused with the reason (409), which is
// suppression information arriving on the send path.
//
// The suppression list is by email and by date of removal; text message states are a walk over contacts changed
// since, and tell that a number is out, not since when.
package dotdigital
