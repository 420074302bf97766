// Package catalogue changes targets, for whoever does it: the API, the command line, the console.
//
//	load the target's stream ─▶ decide ─▶ target.changed                      or, where it takes two people,
//	                                  └─▶ target.proposed ─▶ somebody else ─▶ target.changed + target.approved
//
// A target is never edited: each change is a version of its own, with who and when, and rolling back is a version too.
package catalogue
