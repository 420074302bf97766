// Package portal is what a customer sees: the preference centre behind the link in a message, and the way out of it.
//
//	GET  /preferences/{token}   the answers that hold, to be changed; changes nothing by itself
//	POST /preferences/{token}   records what was changed as consent.changed, and shows what was recorded
//	GET  /unsubscribe/{token}   asks whether to stop; mail scanners follow links, so it changes nothing
//	POST /unsubscribe/{token}   stops, at one click of a mail program (RFC 8058) or of the page's button
//
// The pages need no JavaScript, load nothing from elsewhere and set no cookie. Who may see them is said by the token
// alone, which is sealed (schema.Links). Texts are files (locales), and so are the looks (Theme).
package portal
