package platforms

import (
	"strings"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// AddressOf normalises an address as a platform gives it. What cannot be normalised is kept, trimmed and in lower
// case: it matches nobody, and an operator can see it.
func AddressOf(channel domain.Channel, text string) Address {
	value, err := domain.NormalizeAddress(channel, text)
	if err != nil {
		value = strings.ToLower(strings.TrimSpace(text))
	}
	return Address{Channel: channel, Value: value}
}

// DigitsAddress normalises a phone number that a platform writes in international digits without their plus.
func DigitsAddress(digits string) Address {
	return AddressOf(domain.SMS, "+"+strings.TrimPrefix(strings.TrimSpace(digits), "+"))
}
