// Package console is the pages for people at work: what the API answers, for eyes and hands.
//
//	cookie ─▶ session ─▶ the API's operation, under the API's rule ─▶ template
//
// It decides nothing and keeps nothing. Each page and each button is one of the API's operations, called in the name of who
// is signed in; who may see it stands in the API's table of access. Pages are complete without a script; assets/app.js
// only spares reloads.
package console
