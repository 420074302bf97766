package domain

import "encoding/json"

// ContactIn finds the addresses of the person in a firing's context, where the CRM has them: in profile, or at the root of
// what is about a profile itself. What is no text there is left out.
func ContactIn(context json.RawMessage) Contact {
	type addresses struct {
		Email  any `json:"email"`
		Mobile any `json:"mobile_phone"`
	}
	var root struct {
		addresses
		Profile json.RawMessage `json:"profile"`
	}
	if json.Unmarshal(context, &root) != nil {
		return Contact{}
	}
	found := root.addresses
	var nested addresses
	if json.Unmarshal(root.Profile, &nested) == nil && (nested.Email != nil || nested.Mobile != nil) {
		found = nested
	}
	email, _ := found.Email.(string)
	mobile, _ := found.Mobile.(string)
	return Contact{Email: email, Mobile: mobile}
}

// On gives the address on a channel; empty when there is none.
func (c Contact) On(channel Channel) string {
	switch channel {
	case Email:
		return c.Email
	case SMS, Phone:
		return c.Mobile
	case Push, Post:
	}
	return ""
}
