package platforms

import "regexp"

// addresses finds what may be one in text, or in a path: anything with an @ in its middle, and eight digits or more.
var addresses = regexp.MustCompile(`(?i)[^\s@<>"'/?&=:]+(?:@|%40)[^\s@<>"'/?&]+|(?:\+|%2B)?\d[\d ()-]{6,}\d`)

// Masked is a text without the addresses in it, for what is logged or kept in the open.
func Masked(text string) string { return addresses.ReplaceAllString(text, "•••") }
