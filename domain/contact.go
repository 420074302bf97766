package domain

import (
	"net/mail"
	"strings"

	"github.com/nyaruka/phonenumbers"
	"golang.org/x/text/unicode/norm"
)

// NormalizeEmail gives the form of an address that lists are matched on: NFC, trimmed, lower case. It keeps
// sub-addresses and dots, which name different mailboxes at most providers.
func NormalizeEmail(s string) (string, error) {
	s = strings.ToLower(norm.NFC.String(strings.TrimSpace(s)))
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s || a.Name != "" {
		return "", Invalid("", "is not an email address")
	}
	return s, nil
}

// NormalizePhone gives a number in E.164. region is the ISO 3166 country that a number without a + is read in;
// "" accepts only international numbers.
func NormalizePhone(s, region string) (string, error) {
	n, err := phonenumbers.Parse(strings.TrimSpace(s), region)
	if err != nil || !phonenumbers.IsPossibleNumber(n) {
		return "", Invalid("", "is not a telephone number in international form (+61…)")
	}
	return phonenumbers.Format(n, phonenumbers.E164), nil
}

// NormalizeAddress gives the canonical address on a channel. Push tokens and postal addresses are only trimmed.
func NormalizeAddress(c Channel, s string) (string, error) {
	switch c {
	case Email:
		return NormalizeEmail(s)
	case SMS, Phone:
		return NormalizePhone(s, "")
	case Push, Post:
		if s = strings.TrimSpace(s); s != "" {
			return s, nil
		}
	}
	return "", Invalid("", "is not an address on channel %q", c)
}
