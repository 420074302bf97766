package platforms

import "regexp"

// addresses finds what may be one in text, or in a path: anything with an @ in its middle, and eight digits or more.
var addresses = regexp.MustCompile(`(?i)[^\s@<>"'/?&=:]+(?:@|%40)[^\s@<>"'/?&]+|(?:\+|%2B)?\d[\d ()-]{6,}\d`)

// Masked is a text without the addresses in it, for what is logged or kept in the open.
func Masked(text string) string {
	if !mayHoldAddress(text) { // a list of a million entries says the same few words of each
		return text
	}
	return addresses.ReplaceAllString(text, "•••")
}

// mayHoldAddress reports whether a text has what every match of addresses has: an @, a %, or two digits.
func mayHoldAddress(text string) bool {
	digits := 0
	for i := range len(text) {
		switch c := text[i]; {
		case c == '@' || c == '%':
			return true
		case '0' <= c && c <= '9':
			if digits++; digits == 2 {
				return true
			}
		}
	}
	return false
}
