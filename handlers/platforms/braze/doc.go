// Package braze speaks Braze's REST API.
//
// Facts come from Braze's documentation repository. The base is the account's instance; the right key on another
// instance is answered 401. A success can carry errors, so a send is taken only when the status is 2xx, the message
// says success or queued, and no errors are listed. Nothing is deduplicated but transactional email, by
// external_send_id, for 24 hours.
//
// Three lists can be read: unsubscribes, hard bounces, invalid phone numbers, each by whole days in UTC and by offset,
// mostly newest first. Spam complaints and SMS opt-outs cannot be listed at all; they arrive by Currents or an export.
package braze
